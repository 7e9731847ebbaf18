#!/bin/sh
# SPDX-License-Identifier: MIT
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

# ---- a picture, all of it or nothing: a test of its own
if [ "${KVT_PART:-}" = plot ]; then
    if ! command -v gnuplot >"$work/result"; then
        echo "skipped: gnuplot is not there"
        exit 77
    fi
    "$@" size gemma-4-E2B GLM-4.7-Flash --schemes f16,kv4 --ctx 64k --plot "$work/plot.svg" >"$work/out" || fail "--plot"
    tail -n 2 "$work/plot.svg" | grep -q '</svg>' || fail "--plot: not a whole SVG"
    grep -q 'GLM-4.7-Flash kv4' "$work/plot.svg" || fail "--plot: no legend"
    "$@" size gemma-4-E2B --plot "$work/nosuch/plot.svg" >"$work/out" 2>"$work/err" && fail "--plot into no folder"
    [ "$(wc -l <"$work/err")" -eq 1 ] || fail "--plot into no folder: $(cat "$work/err")"
    [ "$failures" -eq 0 ]
    exit
fi

# ---- a disk that is full: a test of its own
if [ "${KVT_PART:-}" = full_disk ]; then
    if [ ! -w /dev/full ]; then
        echo "skipped: /dev/full is not there"
        exit 77
    fi
    for how in '' --json --table; do
        "$@" size gemma-4-E2B $how >/dev/full 2>"$work/err"
        got=$?
        [ "$got" -eq 1 ] || fail "a full disk: exit code $got"
        [ "$(wc -l <"$work/err")" -eq 1 ] || fail "a full disk: stderr is not one line: $(cat "$work/err")"
    done
    [ "$failures" -eq 0 ]
    exit
fi

# ---- published files, which are not in the tree: a test of its own

if [ "${KVT_PART:-}" = data ]; then
    if [ ! -d "$shared/configs" ]; then
        echo "skipped: $shared/configs is not there"
        exit 77
    fi
    schemes "$shared/configs/gemma-4-26B-A4B.json" 20480 10880 5760 "$@"
    schemes "$shared/configs/Qwen3.5-35B-A3B.json" 20480 10880 5760 "$@"
    schemes "$shared/configs/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.json" 6144 3264 1728 "$@"
    "$jq" '.max_position_embeddings = 262144' "$shared/configs/Qwen3-30B-A3B.json" >"$work/qwen3.json"
    schemes "$work/qwen3.json" 98304 52224 27648 "$@"
    numbers 10880 3019243520 "$@" size "$shared/configs/gemma-4-26B-A4B.json" --engine llama.cpp --k q8_0 --v q8_0 --ctx 262144 --json
    for config in "$shared"/configs/*.json; do
        "$@" size "$config" --ctx 4096 --json >"$work/out" 2>"$work/err" || fail "$config: $(cat "$work/err")"
        [ -s "$work/err" ] && fail "$config: $(cat "$work/err")"
        [ "$("$jq" -r .notes "$work/out")" = "" ] || fail "$config: a note"
    done
    [ "$failures" -eq 0 ]
    exit
fi

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
numbers 21902 - "$@" size GLM-4.7-Flash --scheme kv6 --rope kv8 --json
numbers 30832 - "$@" size GLM-4.7-Flash --scheme e4m3 --fp8-block 128 --rope bf16 --json
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

# ---- every key of the JSON

"$@" size gemma-4-E2B --ctx 1000 --seqs 2 --json >"$work/out" || fail "--json"
"$jq" -e '
    def integers: map(type == "number" and . == floor) | all;
    .model == "gemma-4-E2B" and .k_scheme == "f16" and .v_scheme == "f16" and .context == 1000 and .sequences == 2 and .engine == "kvtile"
    and .bytes_per_token == {growing: 6144, growing_bytes: 6144, growing_tokens: 1, window: 12288} and .state_bytes_per_sequence == 0
    and .notes == "" and (has("budget") | not) and (.breakdown | add) == .total_bytes and .breakdown.window == 14155776
    and .total_bytes == (.layers | map(.bytes) | add)
    and (.layers | map(.kind)) == ["full", "sliding", "none"]
    and (.layers | map([.count, .kv_heads, .k_dim, .v_dim, .window, .bytes_per_token, .rows, .allocated_rows, .bytes] | integers) | all)
    and (.layers | map(.payload_bytes + .scale_bytes + .padding_bytes + .rounding_bytes + .state_bytes == .bytes) | all)
    and (.layers[1] | [.kind, .count, .kv_heads, .k_dim, .v_dim, .window, .bytes_per_token, .rows, .allocated_rows, .bytes])
        == ["sliding", 12, 1, 256, 256, 512, 12288, 1024, 1152, 14155776]' "$work/out" >"$work/result" || fail "keys of --json"

# ---- tables, the list and the help

"$@" size gemma-4-E2B >"$work/out" || fail "table of one model"
grep -q '208,404,480' "$work/out" || fail "table of one model: no total"
"$@" size --table --ctx 64k >"$work/out" || fail "--table"
[ "$(grep -c '^[GNQg].* kv4 \|^  .* kv4 ' "$work/out")" -eq 6 ] || fail "--table: not six models"
[ "$(wc -L <"$work/out" 2>/dev/null || echo 0)" -le 100 ] || fail "--table: wider than 100 columns"
"$@" size gemma-4-E4B gemma-4-31B >"$work/out" || fail "two models"
[ "$(grep -c '^gemma' "$work/out")" -eq 2 ] || fail "two models: not two rows"
"$@" size --list >"$work/out"
grep -q '^  gemma-4-31B ' "$work/out" || fail "--list"
grep -q '^  vllm ' "$work/out" || fail "--list: no engines"
[ "$(sed -n '/^Models/,/^$/p' "$work/out" | wc -l)" -ge 37 ] || fail "--list: fewer than 35 models"
"$@" size --help | grep -q '^Examples:' || fail "--help"
"$jq" '.text_config.head_dim = 72' "$e2b" >"$work/odd.json"
"$@" size "$work/odd.json" | grep -q 'channels are stored as 80' || fail "padding is not reported"

# More context than the model was made for: an answer, and a note.
"$@" size gemma-4-E2B --ctx 1m --json >"$work/out" 2>"$work/err" || fail "a long context"
"$jq" -e '.context == 1048576' "$work/out" >"$work/result" || fail "a long context: $(cat "$work/out")"
grep -q 'at most 131,072 tokens' "$work/err" || fail "a long context: no note"

# 65k and the like are powers of two; lists make tables.
"$@" size gemma-4-E2B --ctx 32k,65k,131k --schemes f16,kv4 --json >"$work/out" || fail "lists"
"$jq" -e 'length == 6 and map(.context) == [32768, 65536, 131072, 32768, 65536, 131072] and map(.k_scheme) == ["f16", "f16", "f16", "kv4", "kv4", "kv4"]' \
    "$work/out" >"$work/result" || fail "lists: $(cat "$work/result")"

# One table that says which context fits a phone.
"$@" size gemma-4-E2B gemma-4-26B-A4B --ctx 32k,65k --schemes f16,q8_0,kv4,q4_0 >"$work/out" || fail "a table"
grep -q '^gemma-4-E2B  *f16  *6,144  *198.75 MiB  *390.75 MiB  *131,072 (all)$' "$work/out" || fail "a table: E2B: $(cat "$work/out")"
grep -q '^gemma-4-26B-A4B  *f16  *20,480  *852.50 MiB  *1.46 GiB\*  *41,536$' "$work/out" || fail "a table: 26B: $(cat "$work/out")"
[ "$(wc -L <"$work/out" 2>/dev/null || echo 0)" -le 130 ] || fail "a table: wider than 130 columns"

# What fits: the largest context takes no more than the budget, and the next page does.
"$@" size gemma-4-26B-A4B --ctx 262144 --scheme kv4 --budget 2GiB --weights 1.5GiB --reserve 100MB --json >"$work/out" || fail "--budget"
"$jq" -e '.budget | .for_cache == 436870912 and (.fits | not) and .most_sequences == null and .longest_context > 50000' "$work/out" >"$work/result" ||
    fail "--budget: $(cat "$work/out")"
longest=$("$jq" .budget.longest_context "$work/out")
for more in 0 1; do
    "$@" size gemma-4-26B-A4B --ctx $((longest + more)) --scheme kv4 --budget 436870912 --json >"$work/out"
    [ "$("$jq" .budget.fits "$work/out")" = "$([ $more -eq 0 ] && echo true || echo false)" ] || fail "--budget: $longest + $more"
done
"$@" size gemma-4-E2B --budget 8GB --weights 2.58GB >"$work/out" || fail "--budget as text"
grep -q 'does this fit  *yes' "$work/out" || fail "--budget as text: $(cat "$work/out")"

# Engines: logged by llama.cpp and vLLM.
numbers 10880 3019243520 "$@" size gemma-4-26B-A4B --engine llama.cpp --k q8_0 --v q8_0 --ctx 262144 --json

# A picture needs gnuplot; with it: the part plot.
case $1 in /*) # found without PATH
    PATH=$work/nosuch "$@" size gemma-4-E2B --plot "$work/none.svg" >"$work/out" 2>"$work/err" && fail "--plot without gnuplot"
    grep -q 'apt-get install gnuplot' "$work/err" || fail "--plot without gnuplot: $(cat "$work/err")"
    [ -e "$work/none.svg" ] && fail "--plot without gnuplot left a file"
    ;;
esac

# ---- what is wrong

refuses 2 'MODEL: is missing' "$@" size
refuses 2 'nosuch: there is no file and no built-in model' "$@" size nosuch
refuses 2 'did you mean gemma-4-E2B?' "$@" size gemma-4-E2
refuses 2 'did you mean e4m3?' "$@" size gemma-4-E2B --scheme fp8
refuses 2 'did you mean kv4?' "$@" size gemma-4-E2B --v kv44
refuses 2 'did you mean q8_0?' "$@" size gemma-4-E2B --k q8_1
refuses 2 'tight: is a preset: "--scheme kv4/kv3 --centring own"' "$@" size gemma-4-E2B --schemes f16,tight
refuses 2 'did you mean logical?' "$@" size gemma-4-E2B --engine logic
for count in '' -5 +5 x 12x 1.5k 1kk ' 5' 0x10 18446744073709551616 99999999999999m; do
    refuses 2 '--ctx: ' "$@" size gemma-4-E2B --ctx "$count"
done
refuses 2 '--seqs: "0"' "$@" size gemma-4-E2B --seqs 0
refuses 2 '--bogus: ' "$@" size gemma-4-E2B --bogus
refuses 2 '--ctx: ' "$@" size gemma-4-E2B --ctx
refuses 2 '--weights: is a part of a budget' "$@" size gemma-4-E2B --weights 2GB
refuses 2 '--budget: "6GX"' "$@" size gemma-4-E2B --budget 6GX
refuses 2 '--budget: ' "$@" size gemma-4-E2B --budget 99999999999TiB
refuses 2 '--swa-full: is an option of --engine llama.cpp, not of kvtile' "$@" size gemma-4-E2B --swa-full
refuses 2 '--block-size: is an option of --engine vllm' "$@" size gemma-4-E2B --engine mlx --block-size 32
refuses 2 '--no-unified: contradicts' "$@" size gemma-4-E2B --engine llama.cpp --unified --no-unified
refuses 2 '--flash-attn: is "maybe", but must be on or off' "$@" size gemma-4-E2B --engine llama.cpp --flash-attn maybe
refuses 2 '--ubatch: "0"' "$@" size gemma-4-E2B --engine llama.cpp --ubatch 0
refuses 2 '--k: is for one scheme' "$@" size gemma-4-E2B --schemes f16,q8_0 --k q4_0
refuses 2 'kv4: there is no scheme of engine llama.cpp' "$@" size gemma-4-E2B --engine llama.cpp --scheme kv4
refuses 1 'flash attention' "$@" size gemma-4-E2B --engine llama.cpp --v q8_0 --flash-attn off
refuses 1 'RotatingKVCache' "$@" size gemma-4-E2B --engine mlx --scheme 4bit
refuses 1 'same type' "$@" size gemma-4-E2B --engine vllm --k fp8
refuses 1 'gemma-4-E2B: ' "$@" size gemma-4-E2B --ctx 18446744073709551615
refuses 1 '--json: cannot hold' "$@" size gemma-4-E2B --seqs 80000000000 --json
refuses 1 'nosuch.json: cannot be opened' "$@" size nosuch.json
refuses 1 'is a folder without a config.json' "$@" size "$work"
refuses 2 'a\x0ab' "$@" size 'a
b'

head -c 300 "$e2b" >"$work/truncated.json"
refuses 1 'truncated.json: is not JSON: line' "$@" size "$work/truncated.json" --json
"$jq" '.text_config.num_key_value_heads = -1' "$e2b" >"$work/negative.json"
refuses 1 'num_key_value_heads is -1, but must be a whole number from 1 to 65536' "$@" size "$work/negative.json" --json
# A type of model that nobody has seen is sized by its fields, and the first line says so.
"$jq" '.text_config.model_type = "nosuch"' "$e2b" >"$work/type.json"
numbers 6144 207618048 "$@" size "$work/type.json" --engine logical --json
"$jq" -e '.model_type == "nosuch" and .known_type == false' "$work/out" >/dev/null || fail "an unknown type in --json"
"$@" size "$work/type.json" >"$work/out" 2>&1 || fail "an unknown type"
head -1 "$work/out" | grep -q 'model_type "nosuch" is not known' || fail "an unknown type: $(head -1 "$work/out")"
"$@" size "$e2b" --json | "$jq" -e '.model_type == "gemma4" and .known_type' >/dev/null || fail "a known type in --json"

# A field of a cache-like name that nobody knows is a refusal, unless it is left out knowingly.
"$jq" '.text_config.banded_window_size = 77' "$e2b" >"$work/unknown.json"
refuses 1 'banded_window_size is 77, and what that changes' "$@" size "$work/unknown.json"
"$@" size "$work/unknown.json" --assume banded_window_size=ignored >"$work/out" 2>"$work/err" || fail "--assume"
grep -q 'note: .*banded_window_size is left out' "$work/err" || fail "--assume: $(cat "$work/err")"
refuses 2 'must be FIELD=ignored' "$@" size "$work/unknown.json" --assume banded_window_size
refuses 1 'there is no field banned' "$@" size "$e2b" --assume banned=ignored

# One bad file among many is a message, the others are printed, and the status is not 0.
"$@" size gemma-4-E2B "$work/unknown.json" GLM-4.7-Flash no/such.json >"$work/out" 2>"$work/err"
got=$?
[ "$got" -eq 1 ] || fail "a bad file among good ones: exit code $got"
{ grep -q gemma-4-E2B "$work/out" && grep -q GLM-4.7-Flash "$work/out"; } || fail "a bad file among good ones: $(cat "$work/out")"
{ grep -q 'banded_window_size is 77' "$work/err" && grep -q 'no/such.json: ' "$work/err"; } || fail "a bad file among good ones: $(cat "$work/err")"

# Cross attention: rows of the encoder's tokens.
"$jq" -n '{model_type: "t5", is_encoder_decoder: true, d_kv: 64, num_heads: 12, num_layers: 12, d_model: 768}' >"$work/t5.json"
refuses 1 'how many tokens the encoder makes' "$@" size "$work/t5.json"
numbers 36864 75497472 "$@" size "$work/t5.json" --engine logical --ctx 1024 --encoder 1k --json
"$jq" -e '.breakdown.cross == 37748736' "$work/out" >/dev/null || fail "cross attention in --json"

# A state's heads are divided among ranks; channels of groups are copied where there are fewer groups than ranks.
"$@" size Qwen3.5-35B-A3B --tp 2 --json | "$jq" -e '.state_bytes_per_sequence == 64389120 / 2 and .ranks == 2' >/dev/null || fail "--tp of states"
"$@" size granite-4.0-h-tiny --tp 2 --json | "$jq" -e '.state_bytes_per_sequence == 36 * (3 * (1536 + 256) * 2 + 24 * 64 * 128 * 2)' >/dev/null ||
    fail "--tp of Mamba-2"

# Ten files that were once sized wrongly, with the right values.
if [ -f "$shared/fresh/expected.json" ]; then
    "$jq" -r '.logical | to_entries[] | "\(.key) \(.value.growing) \(.value.window_bytes_per_token) \(.value.state)"' "$shared/fresh/expected.json" >"$work/fresh"
    while read -r name growing window state; do
        "$@" size "$shared/fresh/$name.json" --engine logical --scheme bf16 --ctx 1 --json >"$work/out" 2>"$work/err" || fail "$name: $(cat "$work/err")"
        "$jq" -e ".bytes_per_token.growing == $growing and .bytes_per_token.window == $window and ($state == null or .state_bytes_per_sequence == $state)" \
            "$work/out" >/dev/null || fail "$name is not $growing, $window, $state"
    done <"$work/fresh"
    "$jq" -r '.engines[] | "\(.config) \(.engine) \(.scheme) \(.ctx) \(.total_bytes)"' "$shared/fresh/expected.json" >"$work/fresh"
    while read -r name engine scheme ctx total; do
        numbers_of=$("$@" size "$shared/fresh/$name.json" --engine "$engine" --scheme "$scheme" --ctx "$ctx" --json 2>"$work/err" | "$jq" .total_bytes)
        [ "$numbers_of" = "$total" ] || fail "$name in $engine: $numbers_of instead of $total"
    done <"$work/fresh"
else
    echo "fresh config.json files: skipped, no shared data"
fi

# One command that answers: do 4 users at 32k fit, and in keys of kv5 and values of kv4?
"$@" size Qwen3-30B-A3B --ctx 32k --seqs 4 --budget 8GiB --schemes f16,kv5/kv4 >"$work/out" 2>"$work/err" || fail "kv5/kv4: $(cat "$work/err")"
grep -q '^Qwen3-30B-A3B  f16 .*12.00 GiB\*.* 2$' "$work/out" || fail "f16 does not fit: $(cat "$work/out")"
grep -q 'kv5/kv4 .*29,184 .*3.56 GiB  .* 8$' "$work/out" || fail "kv5/kv4 fits: $(cat "$work/out")"

# A draft model beside the first, weights of files, formulas.
"$@" size Qwen3-8B --draft Qwen3-0.6B --ctx 1k --engine logical --json | "$jq" -e '.total_bytes == 1024 * 147456 and
    .draft == {model: "Qwen3-0.6B", bytes: (1024 * 114688), total_bytes: (1024 * 262144)}' >/dev/null || fail "--draft MODEL"
mkdir "$work/weights"
"$jq" -n '{model_type: "llama", hidden_size: 512, num_attention_heads: 8, num_key_value_heads: 2, num_hidden_layers: 4}' >"$work/weights/config.json"
refuses 1 'there are no weights' "$@" size "$work/weights" --with-weights --budget 1GiB
echo '{"metadata": {"total_size": 1000000}}' >"$work/weights/model.safetensors.index.json"
"$@" size "$work/weights" --with-weights --budget 1MiB --ctx 1 --json | "$jq" -e '.budget.for_cache == 48576' >/dev/null || fail "--with-weights"
refuses 2 'give --budget too' "$@" size "$work/weights" --with-weights
"$@" size Qwen3-30B-A3B --ctx 1k --explain | grep -qF 'full: 48 layers * 2,048 bytes a row (4 heads * (128 channels in f16 + 128 in f16)) * 1,024 rows = 100,663,296 bytes' ||
    fail "--explain"

# Tensor parallelism, a shared prefix.
numbers 24576 805306368 "$@" size Qwen3-30B-A3B --tp 8 --ctx 32k --engine logical --json --scheme f16 # 4 heads: each rank has one
numbers 49152 - "$@" size Qwen3-30B-A3B --tp 2 --json
numbers 54144 - "$@" size GLM-4.7-Flash --tp 4 --json
refuses 1 'cannot be divided' "$@" size gemma-4-31B --tp 3

# Stages of a pipeline: the largest in the text, all in JSON, whose sum is the whole.
stages() {
    whole=$1
    parts=$2
    shift 2
    "$@" --json >"$work/out" 2>"$work/err" || fail "$*: $(cat "$work/err")"
    "$jq" -e ".stages as \$s | (\$s | map(.total_bytes) | add) == $whole and (\$s | map(.layers)) == $parts and
        .total_bytes == (\$s | map(.total_bytes) | max) and .total_bytes == \$s[.largest_stage].total_bytes" "$work/out" >/dev/null ||
        fail "$*: $(cat "$work/out")"
}
stages 3221225472 '[7, 7, 7, 7, 7, 7, 6]' "$@" size Qwen3-30B-A3B --pp 7 --ctx 32k --engine vllm
stages 6442450944 '[24, 24]' "$@" size Qwen3-30B-A3B --pp 2 --tp 2 --ctx 32k --seqs 4
"$jq" -n '{model_type: "gemma4_text", num_hidden_layers: 30, num_attention_heads: 16, num_key_value_heads: 8, num_global_key_value_heads: 2,
    head_dim: 256, global_head_dim: 512, attention_k_eq_v: true, sliding_window: 1024, hidden_size: 2816,
    layer_types: [range(30) | if . % 6 == 5 then "full_attention" else "sliding_attention" end]}' >"$work/pattern.json"
stages 880803840 '[7, 8, 8, 7]' "$@" size "$work/pattern.json" --pp 4 --ctx 32k --engine logical
"$jq" -n '{model_type: "nemotron_h", num_hidden_layers: 52, hidden_size: 2688, num_attention_heads: 32, num_key_value_heads: 2, head_dim: 128,
    hybrid_override_pattern: "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", conv_kernel: 4, mamba_num_heads: 64, mamba_head_dim: 64,
    n_groups: 8, ssm_state_size: 128, mamba_ssm_cache_dtype: "float32", torch_dtype: "bfloat16"}' >"$work/hybrid.json"
stages 250408960 '[10, 10, 11, 11, 10]' "$@" size "$work/hybrid.json" --pp 5 --ctx 32k # two layers are left over, and none of them goes to the last
"$@" size "$work/pattern.json" --pp 4 | grep -qF 'the largest of 4 pipeline stages is stage 3 of 0 to 3, with layers 23 to 29 of 0 to 29' || fail "--pp"
refuses 1 '--pp 31: it has 30 layers' "$@" size "$work/pattern.json" --pp 31
refuses 1 'give its config.json' "$@" size gemma-4-26B-A4B --pp 2
refuses 1 'cannot be sized yet' "$@" size "$work/pattern.json" --pp 2 --engine vllm
refuses 2 'is an option of' "$@" size Qwen3-30B-A3B --pp 2 --engine llama.cpp
refuses 2 'by itself' "$@" size Qwen3-8B --pp 2 --draft Qwen3-0.6B
# What fits must fit into every stage: here the first has the windows, and the second grows.
"$jq" -n '{model_type: "gemma3_text", num_hidden_layers: 2, num_key_value_heads: 1, head_dim: 64, sliding_window: 4096,
    layer_types: ["sliding_attention", "full_attention"]}' >"$work/two.json"
"$@" size "$work/two.json" --pp 2 --ctx 64 --engine logical --budget 1100KiB --json | "$jq" -e '.largest_stage == 0 and .budget.longest_context == 4400' \
    >/dev/null || fail "--pp with a budget"

numbers 98304 6442450944 "$@" size Qwen3-30B-A3B --ctx 32k --seqs 3 --shared-prefix 16k --engine logical --json
refuses 2 "is an option of" "$@" size Qwen3-30B-A3B --shared-prefix 1k --engine mlx
# What an engine does with the model's type: windows whole in a static cache; a window that llama.cpp does not know; a type that nobody knows.
numbers 6144 12435456 "$@" size gemma-4-E2B --engine transformers --static --ctx 1000 --json
refuses 2 '--static: is an option of --engine transformers, not of vllm' "$@" size gemma-4-E2B --engine vllm --static
printf '%s' '{"model_type":"mistral","num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"hidden_size":4096,
    "sliding_window":4096}' >"$work/mistral.json"
numbers 131072 4294967296 "$@" size "$work/mistral.json" --engine llama.cpp --ctx 32k --json
"$jq" -e '.engine_note == "" and .layers[0].kind == "full" and .layers[0].window == 0' "$work/out" >/dev/null || fail "not full: $(cat "$work/out")"
sed 's/mistral/nobodys/; s/,$//; /sliding_window/c }' "$work/mistral.json" >"$work/nobodys.json"
"$@" size "$work/nobodys.json" --engine llama.cpp --ctx 32k --json >"$work/out"
"$jq" -e '.engine_note | test("nobodys")' "$work/out" >/dev/null || fail "no word about the type: $(cat "$work/out")"
"$@" size "$work/nobodys.json" --engine llama.cpp --ctx 32k | grep -q 'no rule is known for models of type "nobodys"' || fail "no word about the type"

: >"$work/empty.json"
refuses 1 'empty.json: ' "$@" size "$work/empty.json"

[ "$failures" -eq 0 ]
