#!/bin/sh
# SPDX-License-Identifier: MIT
# Manual pages, made of what the programs say themselves.
#   manual.sh FOLDER VERSION DATE KVTILE ENGINE [EMULATOR...]    DATE of the version, as 2026-11-30
set -eu

folder=$1
version=$2
day=$3
kvtile=$4
engine=$5
shift 5
mkdir -p "$folder"

# page NAME TITLE SYNOPSIS: of a program's whole help, on the standard input. Examples go to the end.
page() {
    awk -v name="$1" -v title="$2" -v synopsis="$3" -v version="$version" -v day="$day" '
        function shown(line) {
            gsub(/\\/, "\\e", line)
            gsub(/-/, "\\-", line)
            return line ~ /^[.'\'']/ ? "\\\\&" line : line
        }
        BEGIN {
            printf ".TH %s 1 %s \"kvtile %s\" \"User Commands\"\n", toupper(name), day, version
            printf ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.nf\n", name, shown(title)
        }
        /^Usage: / { in_usage = 1; synopsis = "" }
        in_usage && /^(Usage:|      ) / { synopsis = synopsis (synopsis == "" ? "" : "\n") substr($0, 8); next }
        { in_usage = 0 }
        /^Examples:$/ { in_examples = 1; next }
        in_examples && /^$/ { in_examples = 0; next }
        in_examples { sub(/^  /, ""); examples = examples shown($0) "\n"; next }
        { text = text shown($0) "\n" }
        END {
            sub(/^\n+/, "", text); sub(/\n+$/, "\n", text)
            printf "%s\n.fi\n.SH DESCRIPTION\n.nf\n%s.fi\n", shown(synopsis), text
            if (examples != "") printf ".SH EXAMPLES\n.nf\n%s.fi\n", examples
        }' >"$folder/$1.1"
}

"$@" "$kvtile" --help | page kvtile "bytes, accuracy and speed of a language model's KV cache" "kvtile COMMAND [options]"
names=""
for command in $("$@" "$kvtile" --options); do
    title=$("$@" "$kvtile" --help | awk -v command="$command" '$1 == "kvtile" && $2 == command { sub(/^ *kvtile +[a-z]+ +/, ""); title = $0 } END { print title }')
    "$@" "$kvtile" "$command" --help-all | page "kvtile-$command" "$title" "kvtile $command [options] ..."
    names="$names kvtile-$command"
done
"$@" "$engine" --help-all | page kvtile-engine "runs a small language model with its KV cache in kvtile's pages" "kvtile-engine COMMAND [options]"

{
    echo ".SH SEE ALSO"
    for name in $names; do
        printf '.BR %s (1),\n' "$name"
    done
    echo ".BR kvtile-engine (1)"
} | sed 's/-/\\-/g' >>"$folder/kvtile.1"
