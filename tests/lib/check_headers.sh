#!/bin/sh
# SPDX-License-Identifier: MIT
# Each public header compiles alone, as C11 or as C++11.
#   check_headers.sh INCLUDE_DIR -x LANGUAGE STANDARD WARNING [COMPILER]
set -eu

include=$1
language=$3
standard=$4
warning=$5
compiler=${6:-}
found=0

if [ -z "$compiler" ]; then
    echo "skipped: there is no compiler of $language"
    exit 77
fi
for header in "$include"/kvtile/*.h; do
    name=kvtile/${header##*/}
    found=$((found + 1))
    # The second inclusion shows that the guard works.
    # shellcheck disable=SC2086 # a compiler may be several words
    printf '#include <%s>\n#include <%s>\n' "$name" "$name" |
        $compiler "$standard" -Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror -fsyntax-only "$warning" -I "$include" -x "$language" -
done

if [ "$found" -eq 0 ]; then
    echo "no header in $include/kvtile" >&2
    exit 1
fi
echo "$found headers are fine by $standard"
