#!/bin/sh
# SPDX-License-Identifier: MIT
# `kvtile size` against figures that engines logged and people published: size_oracles.txt beside this file.
#   test_cli_oracles.sh JQ FACTS COMMAND...     FACTS, when it exists, is the collection the table was made from: nothing of it may be missing
set -u
jq=$1
facts=$2
shift 2
table=$(dirname "$0")/size_oracles.txt
failures=0
figures=0

# Whether the table is whole is a test of its own.
if [ "${KVT_PART:-}" = data ]; then
    if [ ! -f "$facts" ]; then
        echo "skipped: $facts is not there"
        exit 77
    fi
    "$jq" -r '.oracles[] | "\(.model) | \(.what) | \(.published) |"' "$facts" >facts-$$.txt
    while IFS= read -r line; do
        if ! grep -qF -- "$line" "$table"; then
            echo "FAILED: not in the table: $line" >&2
            failures=$((failures + 1))
        fi
    done <facts-$$.txt
    rm -f facts-$$.txt
    [ "$failures" -eq 0 ]
    exit
fi

# A figure counts as reproduced when it is ours to its last printed digit.
# shellcheck disable=SC2016
prelude='def caches($kind): [.layers[] | select(.kind == $kind)];
    def mib($kind): (caches($kind) | map(.bytes) | add) / 1048576;
    def rows($kind): caches($kind)[0].allocated_rows;
    def unit: tostring | if test("[.]") then pow(10; -(split(".")[1] | length)) else 1 end;
    def same($published): (. - ($published | tonumber) | fabs) <= ($published | unit) / 2 * 1.000001;'

while IFS='|' read -r whose what published model options filter; do
    case $whose in '#'*) continue ;; esac
    model=$(echo "$model" | tr -d ' ')
    published=$(echo "$published" | tr -d ' ')
    figures=$((figures + 1))
    # shellcheck disable=SC2086
    if ! answer=$("$@" size "$model" $options --json); then
        echo "FAILED: $whose: $what" >&2
        failures=$((failures + 1))
        continue
    fi
    # A whole figure is exact.
    result=$(echo "$answer" | "$jq" "$prelude ($filter) | if (\"$published\" | test(\"[.]\")) then same(\"$published\") else . == $published end")
    if [ "$result" != true ]; then
        echo "FAILED: $whose: $what: $published, but $model $options gives $(echo "$answer" | "$jq" "$prelude $filter")" >&2
        failures=$((failures + 1))
    fi
done <"$table"

echo "$figures figures, $failures failures"
[ "$figures" -ge 72 ] && [ "$failures" -eq 0 ]
