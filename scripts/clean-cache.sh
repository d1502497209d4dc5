#!/bin/sh
# Removes what builds and runs keep outside the clone, for this account: models, compiler cache, voices' phrases.
# Recordings, calls and configuration of an installed attendant (/var/lib, /etc) are left alone.
set -eu
cache="${XDG_CACHE_HOME:-$HOME/.cache}/attendant"
if [ -d "$cache" ]; then
    du -sh "$cache"
    rm -rf "$cache"
    echo "removed"
else
    echo "$cache: nothing there"
fi
