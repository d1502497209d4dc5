#!/bin/sh
# Installs the built programs and the systemd units on this machine. Run as root (or with sudo), after `make build`.
# Nothing is started: the technician looks at the configuration first.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

[ "$(id -u)" = 0 ] || { echo "install: run as root: sudo make install" >&2; exit 1; }

for program in attendant attendant-stt attendant-llm attendant-tts; do
    [ -x "$ATTENDANT_BIN_DIR/$program" ] || { echo "install: $program is not built; run make build" >&2; exit 1; }
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
