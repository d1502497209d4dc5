#!/bin/sh
# Runs a Kamailio registrar in the foreground until it is ended (SIGTERM). Needs no root and no system configuration.
#
#   tests/peer/kamailio/kamailio.sh IP PORT USER PASSWORD [sha256]
set -eu
ip=${1:?IP} port=${2:?PORT} user=${3:?USER} password=${4:?PASSWORD}
here=$(cd "$(dirname "$0")" && pwd)
kamailio=$(command -v kamailio || echo /usr/sbin/kamailio)
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT

"$kamailio" -f "$here/kamailio.cfg" -DD -E -m 32 -M 4 -Y "$run" -P "$run/pid" -w "$run" \
    -A "LISTEN_IP=$ip" -A "LISTEN_PORT=$port" -A "USER_NAME=\"$user\"" -A "USER_PASSWORD=\"$password\"" \
    ${5:+-A WITH_SHA256} &
child=$!
trap 'kill -TERM $child 2>/dev/null; wait $child 2>/dev/null; rm -rf "$run"; exit 0' TERM INT
wait $child
