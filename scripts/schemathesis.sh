#!/bin/bash
# The served document against the running daemon: schemathesis makes up requests, right and wrong, and all of its checks
# look at the answers. Called by `make api-test`.
#
#   MAX_EXAMPLES   cases of each operation (default: 900, which makes more than 20,000 in all)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

VERSION=4.32.5
FEWEST=20000
venv=${XDG_CACHE_HOME:-$HOME/.cache}/attendant/schemathesis-$VERSION
if [ ! -x "$venv/bin/schemathesis" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet "schemathesis==$VERSION"
fi

dir=$(mktemp -d)
daemon=
finish() {
    status=$?
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || :
    [ -z "$daemon" ] || wait "$daemon" 2>/dev/null || :
    if [ "$status" = 0 ]; then rm -rf "$dir"; else echo "left for you to look at: $dir" >&2; fi
    exit "$status"
}
trap finish EXIT

cat >"$dir/attendant.toml" <<TOML
profile = "small"
data_dir = "$dir/data"

[sip]
udp = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[api]
requests_per_minute = 4000000
refused_per_minute = 4000000
max_sessions = 100000
TOML
attendant=$ATTENDANT_BIN_DIR/attendant
RUST_LOG=warn "$attendant" serve --config "$dir/attendant.toml" >"$dir/out" 2>"$dir/log" &
daemon=$!
for _ in $(seq 600); do
    grep -q '^ready ' "$dir/out" && break
    kill -0 "$daemon" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
    sleep 0.2
done
url=$(sed -n 's/^ready .* admin //p' "$dir/out")
[ -n "$url" ] || { echo "the daemon did not get ready" >&2; exit 1; }
token=$("$attendant" token create --data-dir "$dir/data" --role admin schemathesis 2>/dev/null)

# Live events never end, so they are no cases; tests/tests/api.rs watches them.
status=0
PYTHONPATH=scripts/schemathesis SCHEMATHESIS_HOOKS=hooks "$venv/bin/schemathesis" run "$url/api/v1/openapi.json" \
    --header "Authorization: Bearer $token" --checks all --max-examples "${MAX_EXAMPLES:-900}" --continue-on-failure \
    --exclude-path-regex '^/events' --request-timeout 60 --suppress-health-check all --no-color \
    | tee "$dir/schemathesis.txt" || status=$?

# Whatever was tried, the record is whole and the log holds no panic.
"$attendant" audit verify --data-dir "$dir/data"
! grep -i 'panicked' "$dir/log"
cases=$(sed -n 's/^ *\([0-9][0-9]*\) generated.*/\1/p' "$dir/schemathesis.txt" | head -n1)
echo "api-test: ${cases:-no} cases"
[ "${cases:-0}" -ge "$FEWEST" ] || { echo "api-test: fewer than $FEWEST cases; raise MAX_EXAMPLES" >&2; exit 1; }
exit "$status"
