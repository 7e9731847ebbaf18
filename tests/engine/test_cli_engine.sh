#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile-engine as people call it: generate, perplexity and capture.
# Usage: test_cli_engine.sh DEMO ENGINE [EMULATOR...]
set -eu
demo=$1
engine=$2
shift 2

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/../cli/cli.sh"

# Under emulation the model takes ten times as long.
tokens=128
[ $# -eq 0 ] || tokens=24

# expect TEXT: a line of stdout is that, or begins with it where TEXT ends with "...".
expect() {
    case $1 in
    *...) grep -qF -- "${1%...}" "$work/stdout" || fail "no '$1': $(cat "$work/stdout")" ;;
    *) grep -qxF -- "$1" "$work/stdout" || fail "no '$1': $(cat "$work/stdout")" ;;
    esac
}

model="--model $demo/gutenberg-3.5M.f16.bin --tokenizer $demo/tok2048.bin"
book="--text $demo/chesterton-brown.txt"

# call COMMAND [OPTION...]: on the demonstration's model.
call() {
    command=$1
    shift
    # shellcheck disable=SC2086
    run $emulator "$engine" "$command" $model "$@"
}
usage() { # TEXT COMMAND [OPTION...]
    text=$1
    command=$2
    shift 2
    # shellcheck disable=SC2086
    expect_error 2 "$text" $emulator "$engine" "$command" $model "$@"
}
refuse() { # TEXT COMMAND [OPTION...]
    text=$1
    command=$2
    shift 2
    # shellcheck disable=SC2086
    expect_error 1 "$text" $emulator "$engine" "$command" $model "$@"
}
emulator=$*

# ---- help
run "$@" "$engine" --help
expect '  generate    goes on with --prompt TEXT...'
[ ! -s "$work/stderr" ] || fail "--help: $(cat "$work/stderr")"

# ---- generate: the prompt, 12 tokens more and the end of the line, whatever the threads and the attention
prompt='The old man looked at the sea, and'
for way in "" "--threads 3" "--reference" "--reference --threads 2" "--scheme f16 --rotation 64 --centring page" "--k q8_0 --v f32 --rotation 0"; do
    # shellcheck disable=SC2086
    call generate --prompt "$prompt" --tokens 12 $way
    expect "$prompt he was going to see the little Red Man's"
    [ "$(wc -l <"$work/stdout")" -eq 1 ] || fail "generate $way: more than a line"
done
# The text from a file; 4 KiB per token in f32, rounded up to pages of 64; fewer with a smaller scheme.
printf %s "$prompt" >"$work/prompt"
call generate --text "$work/prompt" --tokens 12
expect "$prompt he was going to see the little Red Man's"
grep -q ' tokens/s; KV cache: 262144 bytes, 4096 per token$' "$work/stderr" || fail "generate: $(cat "$work/stderr")"
call generate --prompt "$prompt" --tokens 12 --k kv4 --v kv3
grep -q ' tokens/s; KV cache: 30720 bytes, 480 per token$' "$work/stderr" || fail "generate: $(cat "$work/stderr")"
# Drawn: the same for the same seed, and another text for another.
for seed in 1 1 2; do
    call generate --prompt "" --bos --tokens 12 --temperature 1.5 --seed $seed
    cat "$work/stdout" >>"$work/drawn"
    cp "$work/stdout" "$work/drawn$seed"
done
[ "$(head -c $((2 * $(wc -c <"$work/drawn1"))) "$work/drawn")" = "$(cat "$work/drawn1" "$work/drawn1")" ] || fail "the same seed, another text"
! cmp -s "$work/drawn1" "$work/drawn2" || fail "another seed, the same text"

# ---- perplexity: one line by itself, and what a scheme takes

# expect_close A B: to a relative 10^-5, which is the last digit that is printed.
expect_close() {
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 1 && a / b < 1.00001 && b / a < 1.00001) }' || fail "$1 is not $2"
}
# shellcheck disable=SC2086
call perplexity $book --tokens $tokens --reference
reference=$(awk '$1 == "perplexity" { print $2 }' "$work/stdout")
expect "perplexity $reference over $tokens tokens"
grep -q '^[0-9.]* tokens/s$' "$work/stderr" || fail "perplexity: $(cat "$work/stderr")"
# shellcheck disable=SC2086
call perplexity $book --tokens $tokens
expect_close "$(awk '$1 == "perplexity" { print $2 }' "$work/stdout")" "$reference"
# shellcheck disable=SC2086
call perplexity $book --tokens $tokens --k kv4 --v kv3 --rotation 64 --centring page --threads 2
expect 'K kv4, V kv3: 3.938 bits per element' # (272 + 208) / 128 bytes of 8 bits, and 192 of centres in a page of 64 tokens
# A preset is what its options are.
# shellcheck disable=SC2086
call perplexity $book --tokens $tokens --preset balanced
expect 'K kv5, V kv4: 4.938 bits per element'
preset=$(awk '$1 == "perplexity" { print $2 }' "$work/stdout")
# shellcheck disable=SC2086
call perplexity $book --tokens $tokens --k kv5 --v kv4 --rotation 64 --centring own --first kv8 --threads 3
[ "$(awk '$1 == "perplexity" { print $2 }' "$work/stdout")" = "$preset" ] || fail "preset: $preset, its options: $(cat "$work/stdout")"
# A table: f32 comes first, unasked and once.
# shellcheck disable=SC2086
call perplexity $book --tokens $tokens --schemes q8_0,f32,kv2 --rotation 64
[ "$(awk 'NR > 2 { printf "%s ", $1 }' "$work/stdout")" = "f32 q8_0 kv2 " ] || fail "rows of the table: $(cat "$work/stdout")"
expect_close "$(awk '$1 == "f32" { print $2 }' "$work/stdout")" "$reference"
[ "$(awk 'NR > 2 { printf "%s ", $4 "/" $5 }' "$work/stdout")" = "32/4096 8.5/1088 2.25/288 " ] || fail "sizes in the table: $(cat "$work/stdout")"
awk '$1 == "f32" { f = $2 } $1 == "kv2" { d = 100 * ($2 / f - 1) - $3; exit !(d < 0.001 && d > -0.001) }' "$work/stdout" ||
    fail "percent in the table: $(cat "$work/stdout")"

# ---- saving and going on: the text is what it would have been in one go; so it is behind more of a prompt
call generate --prompt "$prompt" --tokens 12 --preset balanced
cp "$work/stdout" "$work/whole"
call generate --prompt "$prompt" --tokens 5 --preset balanced --save "$work/text.kvt"
head -c -1 "$work/stdout" >"$work/parts"
call generate --resume "$work/text.kvt" --tokens 7 --preset balanced --threads 2
cat "$work/stdout" >>"$work/parts"
cmp "$work/whole" "$work/parts" || fail "in two parts: $(cat "$work/parts")"
call generate --prompt "The old man" --tokens 1 --preset balanced --save "$work/begin.kvt"
call generate --resume "$work/begin.kvt" --prompt " He laughed" --tokens 3 --preset balanced --save "$work/behind.kvt"
grep -qF "He laughed" "$work/stdout" || fail "a prompt behind what was saved: $(cat "$work/stdout")"

# ---- chat: what comes first is stored once; after /new the same question has the same answer, and so it has with another number of threads
printf 'Hello there\nWho is it?\n\n/new\nHello there\n' >"$work/questions"
for way in "--threads 1" "--threads 3 --context 256"; do
    # shellcheck disable=SC2086
    $emulator "$engine" chat $model --prompt "$prompt" --tokens 6 --preset balanced $way --save "$work/chat.kvt" \
        <"$work/questions" >"$work/stdout" 2>"$work/stderr" || fail "chat: $(cat "$work/stderr")"
    cp "$work/stdout" "$work/chat${way%% 3*}"
    grep -q ' of [0-9]* are in the KV cache$' "$work/stderr" || fail "chat: $(cat "$work/stderr")"
done
cmp "$work/chat--threads 1" "$work/chat--threads" || fail "chat in another number of threads"
# shellcheck disable=SC2086
printf 'Hello there\n' | $emulator "$engine" chat $model --prompt "$prompt" --tokens 6 --preset balanced >"$work/alone" 2>"$work/stderr" ||
    fail "chat: $(cat "$work/stderr")"
n=$(wc -c <"$work/alone")
[ "$(head -c "$n" "$work/chat--threads")" = "$(cat "$work/alone")" ] || fail "the first answer is another with more questions behind it"
[ "$(tail -c "$n" "$work/chat--threads")" = "$(cat "$work/alone")" ] || fail "the answer after /new is another"
# What was saved is the last conversation: it goes on as the second question does.
# shellcheck disable=SC2086
printf 'Who is it?\n' | $emulator "$engine" chat $model --resume "$work/chat.kvt" --tokens 6 --preset balanced >"$work/resumed" 2>"$work/stderr" ||
    fail "chat --resume: $(cat "$work/stderr")"
tail -c +$((n + 1)) "$work/chat--threads" | head -c "$(wc -c <"$work/resumed")" | cmp - "$work/resumed" || fail "chat --resume: $(cat "$work/resumed")"

# ---- a context that is full: half goes, and f32 keys that are turned tell what keys of their positions would
if [ $# -eq 0 ]; then
    for threads in 1 3; do
        call generate --prompt "$prompt" --tokens 400 --context 192 --preset balanced --threads $threads
        cp "$work/stdout" "$work/long$threads"
    done
    cmp "$work/long1" "$work/long3" || fail "a full context in another number of threads"
    # shellcheck disable=SC2086
    call perplexity $book --tokens 700 --context 192 --schemes kv8
    awk '$1 == "f32" { f = $2 } $1 == "kv8" { d = $2 / f - 1; exit !(f > 1 && d < 0.001 && d > -0.001) }' "$work/stdout" ||
        fail "a full context: $(cat "$work/stdout")"
fi

# ---- capture: keys and values of 2 heads, queries of 4
# shellcheck disable=SC2086
call capture $book --tokens 10 --out "$work/plain"
[ "$(find "$work/plain" -type f | wc -l)" -eq 12 ] || fail "not 12 files"
[ "$(wc -c <"$work/plain/layer3_queries.qvkt")" -eq $((20 + 4 * 10 * 64 * 4)) ] || fail "size of the queries"
[ "$(wc -c <"$work/plain/layer3_keys.qvkt")" -eq $((20 + 2 * 10 * 64 * 4)) ] || fail "size of the keys"
# The rows of layer 0 do not depend on how attention stores them; those of layer 1 do.
# shellcheck disable=SC2086
call capture $book --tokens 10 --out "$work/stored" --scheme kv2
for kind in keys values queries; do
    cmp "$work/plain/layer0_$kind.qvkt" "$work/stored/layer0_$kind.qvkt" || fail "layer 0: $kind"
    ! cmp -s "$work/plain/layer1_$kind.qvkt" "$work/stored/layer1_$kind.qvkt" || fail "--scheme has no influence: $kind"
done

# ---- errors name the argument, the value and what would be right
expect_error 2 "no command: generate, chat, perplexity, capture or export" "$@" "$engine"
expect_error 2 "generat: no such command" "$@" "$engine" generat
expect_error 2 "surplus: one command" "$@" "$engine" generate surplus
expect_error 2 "--nosuch" "$@" "$engine" generate --nosuch
expect_error 2 "--model: is missing" "$@" "$engine" generate
expect_error 2 "--model: is missing" "$@" "$engine" generate --tokenizer x
expect_error 2 '--prompt: "x": export has no such option' "$@" "$engine" export --model x --out y --prompt x
expect_error 2 '--bos: export has no such option' "$@" "$engine" export --model x --out y --bos
usage "--prompt: is missing, and --text too" generate
usage '--prompt: "x": --text is given too' generate --prompt x --text y
usage "--text: is missing" perplexity
usage '--prompt: "x": perplexity has no such option' perplexity --text y --prompt x
usage '--schemes: "kv4": generate has no such option' generate --prompt x --schemes kv4
usage "--out: is missing" capture --text x
for number in 0 -1 x 1x "" 1048577; do
    usage "--tokens: \"$number\": a whole number from 1 to 1048576 would be right" generate --prompt x --tokens "$number"
done
usage '--threads: "257": a whole number from 1 to 256' generate --prompt x --threads 257
usage '--seed: "-1": a whole number from 0' generate --prompt x --seed -1
for number in -1 nan 101 1x ""; do
    usage "--temperature: \"$number\": a number from 0 to 100 would be right" generate --prompt x --temperature "$number"
done
usage '--scheme: "kv4x": did you mean kv4?' generate --prompt x --scheme kv4x
usage '--k: "": a scheme that kvtile info lists' generate --prompt x --k ""
usage '--v: "zzz": a scheme that kvtile info lists' generate --prompt x --v zzz
usage '--schemes: "q9": ' perplexity --text x --schemes kv4,q9
usage '--rotation: "65": did you mean 64? none (or 0), 64 or 128 would be right' generate --prompt x --rotation 65
usage '--scheme: "kv4": --preset is given too' generate --prompt x --preset tight --scheme kv4
usage '--centring: "seq": did you mean sequence?' generate --prompt x --centring seq
usage '--scheme: "kv4": the reference stores plain f32' generate --prompt x --reference --scheme kv4
usage '--rotation: "64": the reference stores plain f32' generate --prompt x --reference --rotation 64
usage '--k: "kv4": --schemes is given too' perplexity --text x --schemes kv4 --k kv4
refuse '--prompt: "": some text, or --bos' generate --prompt ""
refuse '--chat: the vocabulary has none of the tokens that mark a question (<|im_start|>, ' generate --prompt x --chat
usage '--chat: a question is a --prompt, which is missing' generate --text x --chat
usage '--chat: perplexity has no such option' perplexity --text x --chat
usage '--context: "191": a whole number from 192 to 1048576' generate --prompt x --context 191
usage '--save: "y": the reference has no such cache' generate --prompt x --reference --save y
usage '--resume: "y": perplexity has no such option' perplexity --text x --resume y
usage '--schemes: "kv4": chat has no such option' chat --schemes kv4
refuse "--context: 1025: 192 to 1024, the model's context" generate --prompt x --context 1025
refuse "missing: cannot be opened" generate --resume "$work/missing"
refuse "tok2048.bin: " generate --resume "$demo/tok2048.bin"
refuse "text.kvt: cannot be loaded: group 0 was saved with other schemes" generate --resume "$work/text.kvt" --preset tight
refuse "--tokens: 1020: 1 to 1010 would be right" generate --resume "$work/text.kvt" --tokens 1020 --preset balanced
refuse "missing: cannot be opened" generate --text "$work/missing"
refuse "chesterton-brown.txt: takes " generate --text "$demo/chesterton-brown.txt"
refuse "--tokens: 1020: 1 to 1015 would be right, as the prompt takes 9 of 1024 tokens" generate --prompt "$prompt" --tokens 1020
refuse "--tokens: 1: at least 2" perplexity --text "$demo/chesterton-brown.txt" --tokens 1
got=0
# shellcheck disable=SC2086
"$@" "$engine" generate $model --prompt x --tokens 1 --save "$work/nowhere/x.kvt" >/dev/null 2>"$work/stderr" || got=$?
[ "$got" -eq 1 ] || fail "--save into no folder: exit code $got"
grep -q 'nowhere/x.kvt: cannot be written: ' "$work/stderr" || fail "--save into no folder: $(cat "$work/stderr")"
if [ -w /dev/full ]; then
    got=0
    # shellcheck disable=SC2086
    "$@" "$engine" generate $model --prompt x --tokens 1 >/dev/full 2>"$work/stderr" || got=$?
    [ "$got" -eq 1 ] || fail "a full disk: exit code $got"
    grep -q 'the text: cannot be written: ' "$work/stderr" || fail "a full disk: $(cat "$work/stderr")"
fi

finish
