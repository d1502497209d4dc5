# shellcheck shell=sh
# What every build and test of this project has in its environment. Source it before using cargo by hand:
#   . scripts/env.sh
# Then builds by hand and builds by make share everything, and the C++ of a second clone comes out of a cache.

attendant_root=$(git rev-parse --show-toplevel 2>/dev/null || pwd)
# Where cargo puts its results; a relative CARGO_TARGET_DIR is relative to the caller.
ATTENDANT_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$attendant_root/target}")
export ATTENDANT_TARGET_DIR
# Programs that tests start: the daemon and the three engine workers.
export ATTENDANT_BIN_DIR="$ATTENDANT_TARGET_DIR/release"

# rustup's cargo, also in shells that have not read its profile.
case ":$PATH:" in
    *":$HOME/.cargo/bin:"*) ;;
    *) [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH" ;;
esac

# whisper.cpp and llama.cpp are by far the longest part of a cold build. Their build scripts hand CMAKE_* to CMake.
if command -v ccache >/dev/null 2>&1; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache
    export CCACHE_DIR="${CCACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/attendant/ccache}"
    # Paths below the target directory are hashed as relative ones, so that another clone finds the same objects.
    export CCACHE_BASEDIR="$ATTENDANT_TARGET_DIR"
    export CCACHE_NOHASHDIR=1
    export CCACHE_MAXSIZE="${CCACHE_MAXSIZE:-2G}"
fi
# The engines note the commit they are built from; the nearest repository would be this one, and every commit of ours
# would then compile them anew.
export GIT_CEILING_DIRECTORIES="$ATTENDANT_TARGET_DIR"
unset attendant_root
