#!/bin/sh
# Answers on 127.0.0.1 for names below `example` until it is ended (SIGTERM). Each name is a service (RFC 3263) with two
# servers at 192.0.2.2: a first one at whose port nobody listens, and a second one. Run it within net.sh.
#
#   tests/peer/dns.sh NAME=PORT…      pbx.example=5060: the second server of pbx.example listens on port 5060
set -eu
[ $# -gt 0 ] || { echo "dns.sh: NAME=PORT…" >&2; exit 2; }
dnsmasq=$(command -v dnsmasq || echo /usr/sbin/dnsmasq)

records=
for service in "$@"; do
    name=${service%=*} port=${service#*=}
    records="$records --host-record=first.$name,192.0.2.2 --host-record=second.$name,192.0.2.2
        --srv-host=_sip._udp.$name,first.$name,5999,10,0 --srv-host=_sip._udp.$name,second.$name,$port,20,0"
done
# shellcheck disable=SC2086  # one word per record
exec "$dnsmasq" --no-daemon --conf-file=/dev/null --port=53 --listen-address=127.0.0.1 --bind-interfaces \
    --no-resolv --no-hosts --local=/example/ $records
