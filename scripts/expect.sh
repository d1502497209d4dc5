#!/bin/sh
# Says before a long step how long it will take. Figures are for two cores; they are measured, see the README.
#   scripts/expect.sh build|test
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh

# Cold: nothing compiled. Cached: the C++ is in the compiler cache. Warm: all is built.
if [ -x "$ATTENDANT_BIN_DIR/attendant" ] && [ -x "$ATTENDANT_BIN_DIR/attendant-llm" ]; then
    state=warm
elif [ -n "${CCACHE_DIR:-}" ] && [ -d "$CCACHE_DIR" ] && [ "$(du -sm "$CCACHE_DIR" 2>/dev/null | cut -f1)" -ge 20 ]; then
    state=cached
else
    state=cold
fi

case ${1:-build}-$state in
    build-warm) ;;
    build-cached) echo "build: 5 to 8 minutes on two cores (the C++ comes out of the cache)" ;;
    build-cold) echo "build: 8 to 14 minutes on two cores, most of it C++ that the next clone takes from a cache" ;;
    test-warm) echo "test: about 35 minutes on two cores" ;;
    test-cached) echo "test: 45 to 50 minutes on two cores: the build, then the tests" ;;
    test-cold) echo "test: 50 to 60 minutes on two cores: the build, the models (0.6 GB), then the tests" ;;
    *) echo "expect.sh: say build or test" >&2; exit 2 ;;
esac
