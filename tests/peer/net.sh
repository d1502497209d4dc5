#!/bin/sh
# Runs a command in a network of its own, with a second host beside it:
#
#   home  192.0.2.1, 2001:db8::1  ---- veth ----  192.0.2.2, 2001:db8::2  away
#
#   tests/peer/net.sh COMMAND…            runs COMMAND on `home`
#   ip netns exec away COMMAND…           within it: runs COMMAND on `away`
#
# SIP peers such as baresip refuse to call over loopback; and nothing here can reach, or be reached from, the machine's
# own network. Namespaces, addresses and processes end with COMMAND: nothing is left behind, even after kill -9. Works as root, and
# for others where the kernel allows user namespaces. The addresses are for documentation (RFC 5737, RFC 3849): no
# network uses them.
set -eu

if [ "${1:-}" != --inside ]; then
    [ $# -gt 0 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
    command -v ip >/dev/null 2>&1 || { echo "net.sh: 'ip' is missing (package iproute2)" >&2; exit 1; }
    if [ "$(id -u)" = 0 ]; then who=""; else who="--user --map-root-user"; fi
    # shellcheck disable=SC2086  # none or two words
    exec unshare $who --net --mount --pid --fork --kill-child --mount-proc --propagation private -- "$0" --inside "$@"
fi
shift

# `ip netns` keeps its names below /run/netns; ours, not the machine's.
mount -t tmpfs -o size=64k tmpfs /run
ip netns add away
ip link add home0 type veth peer name away0 netns away
ip link set lo up
ip address add 192.0.2.1/24 dev home0
ip address add 2001:db8::1/64 dev home0 nodad
ip link set home0 up
ip -n away link set lo up
ip -n away address add 192.0.2.2/24 dev away0
ip -n away address add 2001:db8::2/64 dev away0 nodad
ip -n away link set away0 up
# Some peers look for their own address on the way to the default route.
ip route add default via 192.0.2.2
ip -n away route add default via 192.0.2.1
exec "$@"
