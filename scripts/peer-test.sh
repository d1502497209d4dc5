#!/bin/bash
# The long tests with real SIP peers, and the tables in the documentation. Called by `make peer-test`, which has installed
# what this needs. 30 to 40 minutes on two cores; PEER_TEST=WORD runs only the tests whose name has this word, and
# ATTENDANT_MATRIX=WORD,WORD only those rows of the peer matrix; the others stay in the README as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
export ATTENDANT_TABLES
ATTENDANT_TABLES=$(mktemp -d)
trap 'rm -rf "$ATTENDANT_TABLES"' EXIT

# The matrix replaces the rows that it runs.
sed -n '/^<!-- peers: /,/^<!-- end of peers/{/^|/p}' README.md >"$ATTENDANT_TABLES/peers.md"

step() { printf '\n== %s\n' "$*"; }

step "build"
cargo build --release --locked --workspace --bins
"$ATTENDANT_BIN_DIR/attendant" models fetch --profile small

status=0
# One at a time, each with its own words on the screen; one that fails does not keep the others from running.
run() {
    step "$1"
    cargo test --release --locked -p "$2" --test "$3" -- --include-ignored --nocapture --test-threads 1 "${PEER_TEST:-}" || status=1
}
run "torture messages (RFC 4475, RFC 5118)" attendant-tests torture
run "damaged messages at a living endpoint" attendant-sip fuzz
run "peers: registration, a conversation, many calls" attendant-tests peer
run "peer matrix" attendant-tests matrix
run "ten thousand calls" attendant-tests load
run "two appliances behind Kamailio" attendant-tests dispatcher
run "what people complain about" attendant-tests complaints
run "loss on the line" attendant-tests line

if [ -s "$ATTENDANT_TABLES/peers.md" ]; then
    step "peers"
    cat "$ATTENDANT_TABLES/peers.md"
    scripts/table.sh README.md peers "$ATTENDANT_TABLES/peers.md"
fi
if [ -s "$ATTENDANT_TABLES/torture.md" ]; then
    scripts/table.sh docs/torture.md torture "$ATTENDANT_TABLES/torture.md"
fi
for table in words heard; do
    [ ! -s "$ATTENDANT_TABLES/$table.md" ] || scripts/table.sh docs/line.md "$table" "$ATTENDANT_TABLES/$table.md"
done
exit "$status"
