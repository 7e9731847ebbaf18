#!/bin/sh
# Every global symbol that a library defines begins with kvt_, and the API is among them.
#   check_symbols.sh NM LIBRARY.so|LIBRARY.a
set -eu

nm=$1
library=$2

case $library in
*.a) symbols=$("$nm" --extern-only --defined-only "$library" | awk 'NF == 3 { print $3 }') ;;
*) symbols=$("$nm" --dynamic --extern-only --defined-only "$library" | awk 'NF == 3 { print $3 }') ;;
esac

# The sanitizers add some of their own.
foreign=$(printf '%s\n' "$symbols" | grep -v -e '^kvt_' -e '^__asan_' -e '^__odr_asan' -e '^__ubsan_' -e '^_init$' -e '^_fini$' || true)
if [ -n "$foreign" ]; then
    printf 'symbols of %s that do not begin with kvt_:\n%s\n' "$library" "$foreign" >&2
    exit 1
fi
for symbol in kvt_layout_init kvt_write kvt_read kvt_version; do
    if ! printf '%s\n' "$symbols" | grep -q "^$symbol\$"; then
        echo "$library lacks $symbol" >&2
        exit 1
    fi
done
echo "$(printf '%s\n' "$symbols" | wc -l) global symbols, all kvt_*"
