#!/bin/sh
# PESQ: how much of a voice came through, as listeners would judge it (ITU-T P.862, P.862.1, P.862.2).
#
#   printf 'nb\tsaid.wav\theard.wav\n' | tests/pesq/pesq.sh     one MOS-LQO per line, 1 (bad) to 4.6
#
# Built once, from the package's sources by their hash, with the distribution's numpy and Cython, into the cache.
# What it needs of the distribution: scripts/setup.sh peer.
set -eu
here=$(dirname "$0")
# The distribution's own, whatever other Python comes first in PATH: numpy and Cython are its packages.
python=/usr/bin/python3
cache=${XDG_CACHE_HOME:-$HOME/.cache}/attendant
built=$cache/pesq-0.0.4-$("$python" -c 'import sys; print(sys.implementation.cache_tag)')

if [ ! -d "$built" ]; then
    "$python" -c 'import numpy, Cython, setuptools, wheel' || {
        echo "pesq.sh: the distribution's Python lacks what PESQ is built with; run scripts/setup.sh peer" >&2
        exit 1
    }
    mkdir -p "$cache"
    new=$(mktemp -d "$built.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    # Without isolation nothing but the one pinned package is downloaded.
    "$python" -m pip install --quiet --root-user-action ignore --target "$new" --no-deps --require-hashes --no-build-isolation --use-pep517 \
        -r "$here/requirements.txt" >&2
    mv -T "$new" "$built"
    trap - EXIT
fi
exec env PYTHONPATH="$built" "$python" "$here/score.py"
