#!/bin/sh
# Places short calls with sipp and prints one line: "calls=100 failed=0 setup_ms=12".
# Exit code 0: every call was answered and cleared.
#
# SIPP_SERVICE is whom to call (attendant), SIPP_LOCAL_IP and SIPP_LOCAL_PORT (15060) where from.
#
#   tests/peer/sipp/sipp.sh HOST:PORT [CALLS [CALLS_PER_SECOND [HOLD_MS [udp|tcp]]]]
set -eu
target=${1:?"sipp.sh HOST:PORT [CALLS [CALLS_PER_SECOND [HOLD_MS [udp|tcp]]]]"}
calls=${2:-100} rate=${3:-10} hold_ms=${4:-300} transport=${5:-udp}
case $transport in udp) mode=u1 ;; tcp) mode=t1 ;; *) echo "sipp.sh: udp or tcp" >&2; exit 2 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# A global limit well above what the calls take, so that a hang is a failure.
limit_s=$((calls / rate + hold_ms / 1000 + 20))
status=0
# A port of its own: sipp would take 5060, also from a registrar on this host that is just restarting.
sipp "$target" -p "${SIPP_LOCAL_PORT:-15060}" -sf "$here/uac.xml" -s "${SIPP_SERVICE:-attendant}" -t "$mode" -m "$calls" -r "$rate" -d "$hold_ms" -l 200 \
    ${SIPP_LOCAL_IP:+-i "$SIPP_LOCAL_IP" -mi "$SIPP_LOCAL_IP"} \
    -nostdin -timeout "${limit_s}s" -timeout_error -trace_stat -fd 1 -stf stat.csv -trace_err -error_file error.log \
    >screen.log 2>&1 </dev/null || status=$?

awk -F';' '
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    { last = $0 }
    END {
        split(last, value, ";")
        # hh:mm:ss:us
        split(value[column["ResponseTimesetup(C)"]], t, ":")
        printf "calls=%d failed=%d setup_ms=%d\n", value[column["TotalCallCreated"]], value[column["FailedCall(C)"]],
            ((t[1] * 60 + t[2]) * 60 + t[3]) * 1000 + t[4] / 1000
    }' stat.csv 2>/dev/null || echo "calls=0 failed=$calls"
if [ "$status" != 0 ]; then
    # What the other side said, without filling the screen.
    { cat error.log screen.log 2>/dev/null || :; } | grep -v '^$' | head -n 30 >&2
fi
exit "$status"
