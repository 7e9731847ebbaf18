#!/bin/sh
# SPDX-License-Identifier: MIT
# The names that a library defines for programs are those of a list, no more and no less. A static library may have further ones that begin with kvt_.
#   check_symbols.sh NM LIBRARY.so|LIBRARY.a LIST
set -eu

nm=$1
library=$2
list=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $library in
*.a) "$nm" --extern-only --defined-only "$library" ;;
*) "$nm" --dynamic --extern-only --defined-only "$library" ;;
esac | awk 'NF == 3 { print $3 }' | grep -v -e '^__asan_' -e '^__odr_asan' -e '^__ubsan_' -e '^_init$' -e '^_fini$' -e '^[.]refptr[.]kvt_' | LC_ALL=C sort >"$work/defined"
# The sanitizers add some of their own, and Windows pointers to variables.
grep -v '^#' "$list" | LC_ALL=C sort >"$work/public"

if missing=$(LC_ALL=C comm -13 "$work/defined" "$work/public" | grep .); then
    printf '%s lacks names of %s:\n%s\n' "$library" "$list" "$missing" >&2
    exit 1
fi
case $library in
*.a) further=$(grep -v '^kvt_' "$work/defined" || true) ;;
*) further=$(LC_ALL=C comm -23 "$work/defined" "$work/public") ;;
esac
if [ -n "$further" ]; then
    printf '%s has names that are not in %s:\n%s\n' "$library" "$list" "$further" >&2
    exit 1
fi
echo "$(wc -l <"$work/public") names of $list"
