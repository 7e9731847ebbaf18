#!/bin/sh
# The real `kvtile size`: numbers of its --json for names and config.json files, and what it says when something is wrong.
#   test_cli_size.sh JQ SHARED_DIR COMMAND...     COMMAND runs kvtile: an emulator may stand before it
set -u
jq=$1
shared=$2
shift 2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

# numbers GROWING TOTAL-or-dash MODEL OPTION...
numbers() {
    growing=$1
    total=$2
    shift 2
    if ! "$@" >"$work/out" 2>"$work/err"; then
        fail "$*: $(cat "$work/err")"
        return
    fi
    [ -s "$work/err" ] && fail "$*: stderr: $(cat "$work/err")"
    got=$("$jq" -r '"\(.bytes_per_token.growing) \(.total_bytes)"' "$work/out")
    [ "$total" = - ] && got="${got% *} -"
    [ "$got" = "$growing $total" ] || fail "$*: $got instead of $growing $total"
}

# schemes MODEL F16 Q8_0 Q4_0 COMMAND...
schemes() {
    model=$1
    f16=$2
    q8_0=$3
    q4_0=$4
    shift 4
    numbers "$f16" - "$@" size "$model" --k f16 --v f16 --ctx 32768 --engine logical --json
    numbers "$q8_0" - "$@" size "$model" --scheme q8_0 --json
    numbers "$q4_0" - "$@" size --json "$model" --scheme=q4_0 --ctx 64k --seqs 3
}

# refuses CODE WORDS COMMAND...: that exit code, nothing on stdout, exactly one line on stderr that holds the words
refuses() {
    code=$1
    words=$2
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    got=$?
    [ "$got" -eq "$code" ] || fail "$*: exit code $got instead of $code"
    [ -s "$work/out" ] && fail "$*: wrote to stdout"
    [ "$(wc -l <"$work/err")" -eq 1 ] || fail "$*: stderr is not one line: $(cat "$work/err")"
    grep -qF -- "$words" "$work/err" || fail "$*: does not say \"$words\": $(cat "$work/err")"
}

# ---- the built-in models

schemes gemma-4-E2B 6144 3264 1728 "$@"
schemes google/gemma-4-26b-a4b 20480 10880 5760 "$@"
schemes Qwen3.5-35B-A3B 20480 10880 5760 "$@"
schemes GLM-4.7-Flash 54144 28764 15228 "$@"
schemes Nemotron-3-Nano-30B-A3B 6144 3264 1728 "$@"
schemes Qwen3-30B-A3B-Instruct-2507 98304 52224 27648 "$@"
numbers 6144 207618048 "$@" size gemma-4-E2B --k f16 --v f16 --ctx 32768 --engine logical --json
numbers 6144 208404480 "$@" size gemma-4-E2B --json
numbers 2496 - "$@" size gemma-4-E2B --k q8_0 --v q4_0 --json
numbers 1824 - "$@" size gemma-4-E2B --k kv5 --v kv4 --json
for scheme in kv8:3084 kv6:2400 kv5:2016 kv4:1632 kv4h:1728 kv3:1248 kv2:864 e4m3:3096 e5m2:3096; do
    numbers "${scheme#*:}" - "$@" size gemma-4-E2B --scheme "${scheme%:*}" --json
done
numbers 6144 98164736 "$@" size Nemotron-3-Nano-30B-A3B --ctx 0 --seqs 2 --json

# ---- config.json files

mkdir "$work/gemma-4-E2B"
e2b=$work/gemma-4-E2B/config.json
"$jq" -n '{model_type: "gemma4", text_config: {model_type: "gemma4_text", num_hidden_layers: 35, hidden_size: 1536,
    num_attention_heads: 8, num_key_value_heads: 1, num_global_key_value_heads: null, head_dim: 256, global_head_dim: 512,
    layer_types: [range(35) | if . % 5 == 4 then "full_attention" else "sliding_attention" end], sliding_window: 512,
    num_kv_shared_layers: 20, attention_k_eq_v: false, max_position_embeddings: 131072}}' >"$e2b"
"$jq" -n '{model_type: "glm4_moe_lite", num_hidden_layers: 47, hidden_size: 2048, num_attention_heads: 20, num_key_value_heads: 20,
    kv_lora_rank: 512, qk_rope_head_dim: 64, qk_nope_head_dim: 192, v_head_dim: 256, q_lora_rank: 768, num_nextn_predict_layers: 1,
    max_position_embeddings: 202752}' >"$work/glm.json"
schemes "$e2b" 6144 3264 1728 "$@"
schemes "$work/gemma-4-E2B" 6144 3264 1728 "$@"
schemes "$work/glm.json" 54144 28764 15228 "$@"
numbers 6144 207618048 "$@" size "$e2b" --engine logical --json

"$@" size "$e2b" --json | "$jq" -S . >"$work/file"
"$@" size gemma-4-E2B --json | "$jq" -S . >"$work/name"
cmp "$work/file" "$work/name" || fail "gemma-4-E2B by name and by its config.json differ"

if [ -d "$shared/configs" ]; then
    schemes "$shared/configs/gemma-4-26B-A4B.json" 20480 10880 5760 "$@"
    schemes "$shared/configs/Qwen3.5-35B-A3B.json" 20480 10880 5760 "$@"
    schemes "$shared/configs/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.json" 6144 3264 1728 "$@"
    "$jq" '.max_position_embeddings = 262144' "$shared/configs/Qwen3-30B-A3B.json" >"$work/qwen3.json"
    schemes "$work/qwen3.json" 98304 52224 27648 "$@"
else
    echo "published config.json files: skipped, no shared data"
fi

# ---- every key of the JSON

"$@" size gemma-4-E2B --ctx 1000 --seqs 2 --json >"$work/out" || fail "--json"
"$jq" -e '
    def integers: map(type == "number" and . == floor) | all;
    .model == "gemma-4-E2B" and .k_scheme == "f16" and .v_scheme == "f16" and .context == 1000 and .sequences == 2 and .engine == "kvtile"
    and .bytes_per_token == {growing: 6144, window: 12288} and .state_bytes_per_sequence == 0
    and .total_bytes == (.layers | map(.bytes) | add)
    and (.layers | map(.kind)) == ["full", "sliding", "none"]
    and (.layers | map([.count, .kv_heads, .k_dim, .v_dim, .window, .bytes_per_token, .tokens, .bytes] | integers) | all)
    and .layers[1] == {kind: "sliding", count: 12, kv_heads: 1, k_dim: 256, v_dim: 256, window: 512,
                       bytes_per_token: 12288, tokens: 576, bytes: 14155776}' "$work/out" >"$work/result" || fail "keys of --json"

# ---- tables, the list and the help

"$@" size gemma-4-E2B >"$work/out" || fail "table of one model"
grep -q '208,404,480' "$work/out" || fail "table of one model: no total"
"$@" size --table --ctx 64k >"$work/out" || fail "--table"
[ "$(grep -c '^[A-Za-z].*iB' "$work/out")" -eq 6 ] || fail "--table: not six models"
[ "$(wc -L <"$work/out" 2>/dev/null || echo 0)" -le 100 ] || fail "--table: wider than 100 columns"
"$@" size gemma-4-E4B gemma-4-31B >"$work/out" || fail "two models"
[ "$(grep -c '^gemma.*iB' "$work/out")" -eq 2 ] || fail "two models: not two rows"
"$@" size --list | grep -q '^  gemma-4-31B ' || fail "--list"
"$@" size --help | grep -q '^Examples:' || fail "--help"
"$jq" '.text_config.head_dim = 72' "$e2b" >"$work/odd.json"
"$@" size "$work/odd.json" | grep -q 'channels are stored as 80' || fail "padding is not reported"

# More context than the model was made for: an answer, and a note.
"$@" size gemma-4-E2B --ctx 1m --json >"$work/out" 2>"$work/err" || fail "a long context"
"$jq" -e '.context == 1048576' "$work/out" >"$work/result" || fail "a long context: $(cat "$work/out")"
grep -q 'at most 131,072 tokens' "$work/err" || fail "a long context: no note"

# ---- what is wrong

refuses 2 'MODEL: is missing' "$@" size
refuses 2 'nosuch: there is no file and no built-in model' "$@" size nosuch
refuses 2 'did you mean gemma-4-E2B?' "$@" size gemma-4-E2
refuses 2 'did you mean e4m3?' "$@" size gemma-4-E2B --scheme fp8
refuses 2 'did you mean kv4?' "$@" size gemma-4-E2B --v kv44
refuses 2 'did you mean q8_0?' "$@" size gemma-4-E2B --k q8_1
refuses 2 'did you mean logical?' "$@" size gemma-4-E2B --engine logic
for count in '' -5 +5 x 12x 1.5k 1kk ' 5' 0x10 18446744073709551616 99999999999999m; do
    refuses 2 '--ctx: ' "$@" size gemma-4-E2B --ctx "$count"
done
refuses 2 '--seqs: "0"' "$@" size gemma-4-E2B --seqs 0
refuses 2 '--bogus: ' "$@" size gemma-4-E2B --bogus
refuses 2 '--ctx: ' "$@" size gemma-4-E2B --ctx
refuses 2 '--json: ' "$@" size gemma-4-E2B gemma-4-E4B --json
refuses 2 '--scheme: ' "$@" size --table --scheme q8_0
refuses 1 'gemma-4-E2B: ' "$@" size gemma-4-E2B --ctx 18446744073709551615
refuses 1 '--json: cannot hold' "$@" size gemma-4-E2B --seqs 80000000000 --json
refuses 1 'nosuch.json: cannot be opened' "$@" size nosuch.json
refuses 1 'is a folder without a config.json' "$@" size "$work"
refuses 2 'a?b' "$@" size 'a
b'

head -c 300 "$e2b" >"$work/truncated.json"
refuses 1 'truncated.json: is not JSON: line' "$@" size "$work/truncated.json" --json
"$jq" '.text_config.num_key_value_heads = -1' "$e2b" >"$work/negative.json"
refuses 1 'num_key_value_heads is -1, but must be a whole number from 1 to 65536' "$@" size "$work/negative.json" --json
"$jq" '.text_config.model_type = "nosuch"' "$e2b" >"$work/type.json"
refuses 1 'model_type is "nosuch"' "$@" size "$work/type.json"
: >"$work/empty.json"
refuses 1 'empty.json: ' "$@" size "$work/empty.json"

if [ -w /dev/full ]; then
    for how in '' --json --table; do
        "$@" size gemma-4-E2B $how >/dev/full 2>"$work/err"
        got=$?
        [ "$got" -eq 1 ] || fail "a full disk: exit code $got"
        [ "$(wc -l <"$work/err")" -eq 1 ] || fail "a full disk: stderr is not one line: $(cat "$work/err")"
    done
fi

[ "$failures" -eq 0 ]
