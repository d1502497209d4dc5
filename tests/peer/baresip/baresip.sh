#!/bin/sh
# Calls with baresip, speaks a WAV file, records what comes back, hangs up. Prints one line:
#   "answered=yes heard_ms=5320 recording=/…/heard.wav"
# Exit code 0: the call was answered and a voice was heard. baresip refuses loopback: run it within net.sh.
#
#   tests/peer/baresip/baresip.sh SIP-URI SPOKEN.wav SECONDS DIR
#   tests/peer/baresip/baresip.sh answer SPOKEN.wav SECONDS DIR      is called instead: sip:baresip@192.0.2.2:5072
#
# SPOKEN.wav: mono, 16 bit, 8000 Hz. DIR receives baresip's configuration, its log, and heard.wav.
# With REGISTRAR, USER_NAME and USER_PASSWORD set it registers first. CODECS are what it offers, MEDIAENC how it encrypts
# (srtp-mand). COMMANDS are keys and commands for it, each after some seconds: "5:x 8:X 10:1" (x: hold, X: resume, digits: keys).
set -eu
uri=${1:?SIP-URI} spoken=${2:?SPOKEN.wav} seconds=${3:?SECONDS} dir=${4:?DIR}
mkdir -p "$dir"
here=$(cd "$(dirname "$0")" && pwd)
modules=$(dirname "$(find /usr/lib/baresip /usr/lib/*/baresip -name g711.so 2>/dev/null | head -n1)")

# The file ends the call when it ends: what is spoken, then silence for longer than the call.
python3 "$here/wav.py" pad "$spoken" "$seconds" "$dir/spoken.wav"

port=0 dial="/dial $uri" mode=manual
if [ "$uri" = answer ]; then
    port=5072 dial= mode=auto
fi
sed -e "s|@MODULES@|$modules|" -e "s|@DIR@|$dir|" -e "s|@PORT@|$port|" "$here/config" >"$dir/config"
: >"$dir/contacts"
if [ -n "${REGISTRAR:-}" ]; then
    echo "<sip:${USER_NAME}@${REGISTRAR}>;auth_pass=${USER_PASSWORD};regint=60;audio_codecs=${CODECS:-PCMU/8000/1,PCMA/8000/1}" >"$dir/accounts"
else
    echo "<sip:baresip@baresip.invalid>;regint=0;answermode=$mode;audio_codecs=${CODECS:-PCMU/8000/1,PCMA/8000/1}${MEDIAENC:+;mediaenc=$MEDIAENC}" >"$dir/accounts"
fi

if [ -n "${COMMANDS:-}" ]; then
    python3 "$here/keys.py" $COMMANDS &
fi
# -t: it hangs up and ends by itself.
six=
case $uri in *\[*) six=-6 ;; esac
timeout $((seconds + 20)) baresip $six -f "$dir" -t "$seconds" ${dial:+-e "$dial"} >"$dir/log" 2>&1 </dev/null || :

answered=no
! grep -q 'Call established' "$dir/log" || answered=yes
heard=$(find "$dir" -name 'dump-*-dec.wav' | sort | tail -n1)
heard_ms=0
if [ -n "$heard" ]; then
    mv "$heard" "$dir/heard.wav"
    heard_ms=$(python3 "$here/wav.py" voiced "$dir/heard.wav")
fi
echo "answered=$answered heard_ms=$heard_ms recording=$dir/heard.wav"
if [ "$answered" = no ] || [ "$heard_ms" -le 500 ]; then
    tail -n 20 "$dir/log" >&2
    exit 1
fi
