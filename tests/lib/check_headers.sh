#!/bin/sh
# Each public header compiles alone, as C11 and (if there is a C++ compiler) as C++.
#   check_headers.sh INCLUDE_DIR CC [CXX]
set -eu

include=$1
cc=$2
cxx=${3:-}
flags='-Wall -Wextra -Wpedantic -Wshadow -Wundef -Werror -fsyntax-only'
found=0

for header in "$include"/kvtile/*.h; do
    name=kvtile/${header##*/}
    found=$((found + 1))
    # The second inclusion shows that the guard works.
    # shellcheck disable=SC2086 # flags are several words
    printf '#include <%s>\n#include <%s>\n' "$name" "$name" | $cc -std=c11 $flags -Wstrict-prototypes -I "$include" -x c -
    if [ -n "$cxx" ]; then
        # shellcheck disable=SC2086
        printf '#include <%s>\n#include <%s>\n' "$name" "$name" | $cxx -std=c++11 $flags -I "$include" -x c++ -
    fi
done

if [ "$found" -eq 0 ]; then
    echo "no header in $include/kvtile" >&2
    exit 1
fi
if [ -z "$cxx" ]; then
    echo "$found headers are fine as C11; no C++ compiler: skipped that"
else
    echo "$found headers are fine as C11 and C++11"
fi
