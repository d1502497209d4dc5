#!/bin/sh
# Calls with linphonec, speaks a WAV file, records what comes back, hangs up. Prints one line, as baresip.sh does:
#   "answered=yes heard_ms=5320 recording=/…/heard.wav"
# Exit code 0: the call was answered and a voice was heard. linphonec needs a default route: run it within net.sh.
#
#   tests/peer/linphone/linphone.sh SIP-URI SPOKEN.wav SECONDS DIR
#   tests/peer/linphone/linphone.sh answer SPOKEN.wav SECONDS DIR      is called instead: sip:linphone@192.0.2.2:5062
#
# CODECS is the only codec it offers, by name (PCMU, PCMA, G722, opus), MEDIAENC how it encrypts (srtp); COMMANDS are keys and commands, each after some
# seconds from the start: "5:pause 8:resume 10:1".
set -eu
uri=${1:?SIP-URI} spoken=${2:?SPOKEN.wav} seconds=${3:?SECONDS} dir=${4:?DIR}
mkdir -p "$dir/home/.local/share/linphone" "$dir/home/.config/linphone"
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/../baresip/wav.py" pad "$spoken" "$seconds" "$dir/spoken.wav"

{
    printf '[sip]\nsip_port=5062\nsip_tcp_port=5062\nguess_hostname=1\ncontact="linphone" <sip:linphone@192.0.2.2>\nuse_info=0\nuse_rfc2833=1\nverify_server_certs=0\nverify_server_cn=0\nsip_tls_port=5063\n'
    printf 'media_encryption=%s\n' "${MEDIAENC:-none}"
    printf '[net]\nmtu=1300\nfirewall_policy=0\n[rtp]\naudio_rtp_port=17078\n[sound]\nechocancellation=0\nremote_ring=/dev/null\n[video]\nenabled=0\ncapture=0\ndisplay=0\nautomatically_initiate=0\nautomatically_accept=0\n[misc]\nlog_collection_upload=0\n'
    n=0
    for codec in PCMU:8000:1 PCMA:8000:1 G722:8000:1 opus:48000:2 speex:8000:1 speex:16000:1 speex:32000:1 GSM:8000:1 iLBC:8000:1 L16:44100:1; do
        name=${codec%%:*} rest=${codec#*:}
        enabled=0
        case " ${CODECS:-PCMU PCMA} " in *" $name "*) enabled=1 ;; esac
        printf '[audio_codec_%s]\nmime=%s\nrate=%s\nchannels=%s\nenabled=%s\n' "$n" "$name" "${rest%:*}" "${rest#*:}" "$enabled"
        n=$((n + 1))
    done
} >"$dir/linphonerc"

auto=
[ "$uri" != answer ] || auto=-a
# What is typed, and when.
{
    sleep 1
    echo "soundcard use files"
    echo "record $dir/heard.wav"
    echo "play $dir/spoken.wav"
    [ -n "$auto" ] || echo "call $uri"
    passed=1
    for word in ${COMMANDS:-}; do
        at=${word%%:*}
        sleep $((at - passed))
        passed=$at
        command=${word#*:}
        [ "$command" != resume ] || command="resume 1"
        echo "$command"
    done
    sleep $((seconds > passed ? seconds - passed : 1))
    echo "terminate"
    sleep 1
    echo "quit"
} | HOME="$dir/home" timeout $((seconds + 20)) linphonec $auto -c "$dir/linphonerc" -d 1 >"$dir/log" 2>&1 || :

answered=no
! grep -Eq 'Call [0-9]+ with .* (connected|streams running)|Connected|answered' "$dir/log" || answered=yes
heard_ms=0
[ ! -s "$dir/heard.wav" ] || heard_ms=$(python3 "$here/../baresip/wav.py" voiced "$dir/heard.wav")
echo "answered=$answered heard_ms=$heard_ms recording=$dir/heard.wav"
if [ "$answered" = no ] || [ "$heard_ms" -le 500 ]; then
    tail -n 20 "$dir/log" >&2
    exit 1
fi
