#!/bin/sh
# Puts a measured table into a document, between its marks:
#   <!-- NAME: written by make peer-test -->  …  <!-- end of NAME -->
#
#   scripts/table.sh DOCUMENT NAME TABLE
set -eu
document=${1:?DOCUMENT} name=${2:?NAME} table=${3:?TABLE}
grep -q "^<!-- $name: " "$document" && grep -q "^<!-- end of $name -->" "$document" || {
    echo "table.sh: $document has no marks for '$name'" >&2
    exit 1
}
new=$(mktemp)
trap 'rm -f "$new"' EXIT
awk -v name="$name" -v table="$table" '
    index($0, "<!-- end of " name " -->") == 1 { inside = 0 }
    !inside { print }
    index($0, "<!-- " name ": ") == 1 { inside = 1; while ((getline line < table) > 0) print line }
' "$document" >"$new"
cat "$new" >"$document"
