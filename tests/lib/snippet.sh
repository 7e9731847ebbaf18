#!/bin/sh
# SPDX-License-Identifier: MIT
# A piece of code of a page of docs: the block behind <!-- NAME -->.
#   snippet.sh PAGE NAME FILE
set -eu

awk -v name="<!-- $2 -->" '$0 == name { found = 1; next } found && /^```c$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' "$1" >"$3"
if ! [ -s "$3" ]; then
    echo "$1 has no piece $2" >&2
    exit 1
fi
# What is promised of a step (docs/integrate.md, README): a page of an engine's code is no place for more.
if [ "$2" = step ] && [ "$(wc -l <"$3")" -gt 10 ]; then
    echo "$1: the step has $(wc -l <"$3") lines: at most ten" >&2
    exit 1
fi
