#!/bin/sh
# Runs a real Asterisk 22 in the foreground until it is ended (SIGTERM), on IP ports 5060 (UDP, TCP) and 5061 (TLS), with
# the configuration beside this script. Debian 12 has no Asterisk: it runs from a chroot of Debian sid, which
# `scripts/setup.sh peer` makes once in ~/.cache/attendant/asterisk. Run it within net.sh.
#
#   tests/peer/asterisk/asterisk.sh DIR          DIR receives recordings (DIR/heard) and the log (DIR/log)
#   tests/peer/asterisk/asterisk.sh --cli DIR COMMAND…    a command to the running one
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${ATTENDANT_ASTERISK:-${XDG_CACHE_HOME:-$HOME/.cache}/attendant/asterisk}
[ -x "$root/usr/sbin/asterisk" ] || { echo "asterisk.sh: no $root: run scripts/setup.sh peer" >&2; exit 1; }

# The chroot stays as it is: what belongs to one run is mounted over its /mnt, for this process and its children only.
if [ "${1:-}" = --cli ]; then
    dir=$2
    shift 2
    exec unshare --mount --propagation private sh -c '
        mount --bind "$1" "$2/mnt"; root=$2; shift 2
        exec chroot "$root" /usr/sbin/asterisk -C /mnt/etc/asterisk.conf -rx "$*"' sh "$dir" "$root" "$@"
fi
dir=${1:?DIR}
mkdir -p "$dir/etc" "$dir/run" "$dir/log" "$dir/spool" "$dir/db" "$dir/heard" "$dir/keys/keys" "$dir/moh"
cp "$here"/etc/*.conf "$dir/etc/"
: >"$dir/etc/resolv.conf"
# Speech with known words, and a certificate of this run.
cp /usr/share/asterisk/sounds/en_US_f_Allison/vm-savefolder.wav "$dir/question.wav"
cp /usr/share/asterisk/sounds/en_US_f_Allison/vm-goodbye.wav "$dir/moh/"
if [ ! -e "$dir/keys/pem" ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=pbx.test" -addext "subjectAltName=IP:192.0.2.2,DNS:pbx.test" \
        -keyout "$dir/keys/key" -out "$dir/keys/cert" 2>/dev/null
    cat "$dir/keys/cert" "$dir/keys/key" >"$dir/keys/pem"
fi
# There is no DNS here: a host name that /etc/hosts knows, and no name server to wait for.
exec unshare --mount --uts --propagation private sh -c '
    hostname localhost
    mount --bind "$1" "$2/mnt"
    mount --bind "$1/etc/resolv.conf" "$2/etc/resolv.conf"
    mount --rbind /dev "$2/dev"
    mount -t proc proc "$2/proc" 2>/dev/null || mount --rbind /proc "$2/proc"
    exec chroot "$2" /usr/sbin/asterisk -f -C /mnt/etc/asterisk.conf' sh "$dir" "$root"
