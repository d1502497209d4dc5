#!/bin/sh
# Installs the built programs and the systemd units on this machine. Run as root (or with sudo), after `make build`.
# Nothing is started: the technician looks at the configuration first.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

[ "$(id -u)" = 0 ] || { echo "install: run as root: sudo make install" >&2; exit 1; }

# What the programs are linked with. Where they were built it is there (scripts/setup.sh); a box that is only given them,
# or an image, needs these packages.
runtime="libasound2 libespeak-ng1 espeak-ng-data libgomp1 libopus0 libstdc++6"

programs="attendant attendant-stt attendant-llm attendant-tts"
for program in $programs; do
    [ -x "$ATTENDANT_BIN_DIR/$program" ] || { echo "install: $program is not built; run make build" >&2; exit 1; }
    missing=$(ldd "$ATTENDANT_BIN_DIR/$program" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | tr '\n' ' ')
    [ -z "$missing" ] || {
        echo "install: $program misses $missing; run: apt-get install --no-install-recommends $runtime" >&2
        exit 1
    }
done
for program in $programs; do
    install -D -m 0755 "$ATTENDANT_BIN_DIR/$program" "/usr/lib/attendant/$program"
done
ln -sf ../lib/attendant/attendant /usr/bin/attendant

install -D -m 0644 systemd/attendant.service /usr/lib/systemd/system/attendant.service
install -D -m 0644 systemd/attendant.sysusers /usr/lib/sysusers.d/attendant.conf
install -D -m 0644 systemd/attendant.tmpfiles /usr/lib/tmpfiles.d/attendant.conf
systemd-sysusers attendant.conf
systemd-tmpfiles --create attendant.conf
[ ! -d /run/systemd/system ] || systemctl daemon-reload

cat <<'END'
installed. Next:
  sudo attendant models fetch              the models, once
  sudoedit /etc/attendant/attendant.toml   your telephone line ('attendant config default' prints one to start from)
  sudo systemctl enable --now attendant    start now and at every boot
  sudo attendant doctor                    is all well?
END
