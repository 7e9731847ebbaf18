#!/bin/sh
# SPDX-License-Identifier: MIT
# A script of tests/cli with Windows' kvtile: what fails must be what tests/windows/tests.cmake says that Windows cannot do, and that must fail.
#   run.sh EXPECTED SCRIPT ARGUMENT...     EXPECTED: a regular expression of lines "FAILED: ..."
set -u
expected=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
sh "$@" >"$log" 2>&1
code=$?
failed=$(grep -a '^FAILED: ' "$log")
others=$(printf '%s\n' "$failed" | grep -avE -e "$expected")
if [ "$code" -ne 1 ] || [ -n "$others" ] || [ -z "$failed" ]; then
    cat "$log"
    echo "not expected on Windows (exit code $code): $others"
    exit 1
fi
echo "not on Windows, as it is said:"
printf '%s\n' "$failed" | cut -c 1-160
