#!/bin/bash
# All checks and all tests, with the small models. Called by `make test`, which has installed what this needs.
# Everything is compiled in the release profile, so that the C++ of the engines is compiled once for running,
# linting and testing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
scripts/expect.sh test

step() { printf '\n== %s\n' "$*"; }
without() { printf '\n== %s: skipped, %s is not installed\n' "$1" "$2"; }

if cargo fmt --version >/dev/null 2>&1; then
    step "format"
    cargo fmt --all --check
else
    without format rustfmt
fi

step "build"
cargo build --release --locked --workspace --bins

if cargo clippy --version >/dev/null 2>&1; then
    step "lints"
    cargo clippy --release --locked --workspace --all-targets -- -D warnings
else
    without lints clippy
fi

if cargo deny --version >/dev/null 2>&1; then
    step "licences and sources of all dependencies"
    cargo deny --offline check bans licenses sources
else
    without "licences and sources" cargo-deny
fi

step "models"
"$ATTENDANT_BIN_DIR/attendant" models fetch --profile small

step "tests"
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --release --locked --workspace --no-fail-fast
fi
# Without nextest's groups, nothing may run beside the tests that load the engines or measure time.
RUST_TEST_THREADS=1 exec cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast
