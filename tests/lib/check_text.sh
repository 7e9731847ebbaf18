#!/bin/sh
# SPDX-License-Identifier: MIT
# The budget of a tier, or of the whole library: an engine that vendors it pays for its bytes in every build, a phone in every download.
#   check_text.sh SIZE NAME MOST_BYTES MOST_FILES FILE...
# SIZE is binutils' size; what it calls text is code and constants of all FILEs: of a tier's objects, or of the library.
set -eu

size=$1
name=$2
most_bytes=$3
most_files=$4
shift 4

if [ $# -gt "$most_files" ]; then
    echo "$name: $# files, not $most_files at most" >&2
    exit 1
fi
bytes=$("$size" "$@" | awk 'NR > 1 { sum += $1 } END { print sum + 0 }')
if [ "$bytes" -eq 0 ]; then
    echo "$size found no text in the files of $name" >&2
    exit 1
fi
if [ "$bytes" -gt "$most_bytes" ]; then
    echo "$name: $bytes bytes of text, not $most_bytes at most" >&2
    exit 1
fi
echo "$name: $bytes bytes of text in $# files, of $most_bytes and $most_files"
