#!/bin/sh
# Runs a Kamailio in front of several appliances until it is ended (SIGTERM).
#
#   tests/peer/kamailio/dispatcher.sh IP PORT PROBE_SECONDS APPLIANCE/CALLS…      e.g. 192.0.2.1:5060/8
#
# CALLS is how many calls at once that appliance takes.
set -eu
ip=${1:?IP} port=${2:?PORT} probe=${3:?PROBE_SECONDS}
shift 3
here=$(cd "$(dirname "$0")" && pwd)
kamailio=$(command -v kamailio || echo /usr/sbin/kamailio)
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT

# set, destination, flags, priority, attributes
for appliance in "$@"; do
    address=${appliance%/*}
    echo "1 sip:$address 0 0 duid=$address;maxload=${appliance#*/}"
done >"$run/list"

"$kamailio" -f "$here/dispatcher.cfg" -DD -E -m 32 -M 4 -Y "$run" -P "$run/pid" -w "$run" \
    -A "LISTEN_IP=$ip" -A "LISTEN_PORT=$port" -A "PROBE_S=$probe" -A "LIST_FILE=\"$run/list\"" &
child=$!
trap 'kill -TERM $child 2>/dev/null; wait $child 2>/dev/null; rm -rf "$run"; exit 0' TERM INT
wait $child
