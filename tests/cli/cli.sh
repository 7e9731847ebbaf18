# SPDX-License-Identifier: MIT
# What tests of commands share; sourced. $jq is the path of jq where expect_json is used. With arguments=demo before, a script's own arguments are
# JQ DEMO ENGINE KVTILE [EMULATOR...], and with arguments=maker JQ MAKER KVTILE [EMULATOR...]; the emulator is left in them.
# shellcheck shell=sh

if [ "${arguments:-}" = demo ]; then
    jq=$1
    # shellcheck disable=SC2034 # they are for the script
    demo=$2 engine=$3 kvtile=$4
    shift 4
elif [ "${arguments:-}" = maker ]; then
    # shellcheck disable=SC2034 # they are for the script
    jq=$1 maker=$2 kvtile=$3
    shift 3
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# run COMMAND...: that succeeds; what it prints is in $work/stdout and $work/stderr.
run() {
    "$@" >"$work/stdout" 2>"$work/stderr" || fail "exit code $?: $*: $(cat "$work/stderr")"
}

# expect_error CODE TEXT COMMAND...: that exit code, exactly one line on stderr, with TEXT in it, nothing on stdout, and no file "never" left behind.
expect_error() {
    code=$1
    text=$2
    shift 2
    got=0
    "$@" >"$work/stdout" 2>"$work/stderr" || got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, not $code: $*"
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || fail "not one line: $*: $(cat "$work/stderr")"
    grep -qF -- "$text" "$work/stderr" || fail "no '$text': $*: $(cat "$work/stderr")"
    [ ! -s "$work/stdout" ] || fail "output beside the error: $*"
    [ -z "$(find "$work" -name 'never*')" ] || fail "a file was left behind: $*"
}

# expect_json FILTER: true of the last output.
expect_json() {
    "${jq:?}" -e "$1" "$work/stdout" >/dev/null || fail "not so: $1: $(head -c 2000 "$work/stdout")"
}

# needs PATH: ends the part that needs data as one that was skipped, where they are not there.
needs() {
    [ -e "$1" ] && return
    echo "skipped: $1 is not there"
    exit 77
}

# The last line of a test.
finish() {
    [ "$failures" -eq 0 ] || exit 1
    echo "all passed"
}
