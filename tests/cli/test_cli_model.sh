#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile eval --model as people call it, and models in the forms that it and kvtile-engine read.
# Usage: test_cli_model.sh JQ SHARED DEMO ENGINE KVTILE TEST_ENGINE_GGUF [EMULATOR...]
# shellcheck disable=SC2016 # jq has variables of its own
set -eu
jq=$1
shared=$2
demo=$3
engine=$4
kvtile=$5
writer=$6
shift 6
emulator=$*

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# Under emulation the model takes ten times as long.
tokens=300
[ $# -eq 0 ] || tokens=150

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect_error CODE TEXT COMMAND...: that exit code, exactly one line on stderr, with TEXT in it, and nothing on stdout.
expect_error() {
    code=$1
    text=$2
    shift 2
    got=0
    # shellcheck disable=SC2086
    $emulator "$@" >"$work/stdout" 2>"$work/stderr" || got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, not $code: $*"
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || fail "not one line: $*: $(cat "$work/stderr")"
    grep -qF -- "$text" "$work/stderr" || fail "no '$text': $*: $(cat "$work/stderr")"
    [ ! -s "$work/stdout" ] || fail "output beside the error: $*"
}

# expect_json FILTER: true of the last output.
expect_json() {
    "$jq" -e "$1" "$work/stdout" >/dev/null || fail "not so: $1"
}

run() {
    # shellcheck disable=SC2086
    $emulator "$@" >"$work/stdout" 2>"$work/stderr" || fail "exit code $?: $*: $(cat "$work/stderr")"
    [ ! -s "$work/stderr" ] || fail "stderr: $*: $(cat "$work/stderr")"
}

# ---- a tokenizer that the folder brings along, and of another model: these are not in the tree, and a test of their own
if [ "${KVT_PART:-}" = data ]; then
    if [ ! -d "$shared/data/tinystories-656K" ]; then
        echo "skipped: $shared/data/tinystories-656K is not there"
        exit 77
    fi
    stories=$shared/data/tinystories-656K
    run "$kvtile" eval --model "$stories" --text "$shared/data/text/tinystories_sample.txt" --bos --tokens 100 \
        --schemes kv6/kv5 --json
    expect_json 'all(.[]; .layers == 2 and .predicted == 100 and .exact_perplexity > 20 and .exact_perplexity < 100 and .kld_mean < 0.001)'
    expect_error 1 "uses token " "$kvtile" eval --model "$shared/data/stories260K/stories260K.bin" --tokenizer "$stories/tokenizer.json" \
        --text "$shared/data/text/tinystories_sample.txt"
    [ "$failures" -eq 0 ] || exit 1
    exit
fi

model="--model $demo/gutenberg-3.5M.f16.bin --tokenizer $demo/tok2048.bin"
book="--text $demo/chesterton-brown.txt"

# model [OPTION...]: kvtile eval on the demonstration's model and book.
model() {
    # shellcheck disable=SC2086
    run "$kvtile" eval $model $book "$@"
}
usage() { # TEXT [OPTION...]
    text=$1
    shift
    # shellcheck disable=SC2086
    expect_error 2 "$text" "$kvtile" eval $model "$@"
}
refuse() { # TEXT [OPTION...]
    text=$1
    shift
    # shellcheck disable=SC2086
    expect_error 1 "$text" "$kvtile" eval $model $book "$@"
}

# ---- the exact cache is the engine's reference; f32 everywhere is exact
# shellcheck disable=SC2086
$emulator "$engine" perplexity $model $book --tokens "$tokens" --reference >"$work/reference" 2>/dev/null
model --tokens "$tokens" --schemes f32,kv8,kv4,kv5/kv4,kv2,kv4 --rotation 64 --first none --open none --json
"$jq" -e --argjson p "$(awk '{ print $2 }' "$work/reference")" 'all(.[]; (.exact_perplexity - $p | fabs) < 1e-4)' "$work/stdout" >/dev/null ||
    fail "perplexity: $(cat "$work/reference")"
expect_json "all(.[]; .predicted == $tokens - 1 and .windows == 1 and .context == .predicted and .layers == 4 and .first == null and .open == null)"
expect_json 'map(.scheme) == ["f32", "kv8", "kv5/kv4", "kv4", "kv2"]'
expect_json 'map(.bits_per_element) == [32, 8.25, 4.75, 4.25, 2.25] and all(.[]; .bits_all_told == .bits_per_element and .by_layer == null)'
expect_json '.[0] | .kld_mean < 1e-9 and .same_top == 1 and .kld_max < 1e-7 and (.perplexity_ratio - 1 | fabs) < 1e-5'
expect_json 'map(.kld_mean) | . == sort and .[1] < .[2] / 10 and .[2] < .[4] / 10'
expect_json 'map(.same_top) | . == (sort | reverse)'
expect_json 'all(.[]; .kld_mean_low <= .kld_mean and .kld_mean <= .kld_mean_high and .kld_p99 <= .kld_p999 and .kld_mean <= .kld_p999 and .kld_p999 <= .kld_max)'
expect_json 'all(.[]; .same_top_low <= .same_top and .same_top <= .same_top_high and .log_perplexity_ratio_low <= .log_perplexity_ratio_high)'
expect_json 'all(.[]; (.perplexity / .exact_perplexity - .perplexity_ratio | fabs) < 1e-6 and (.log_perplexity_ratio - (.perplexity_ratio | log) | fabs) < 1e-6)'
# Positions: without gaps, and their mean is the mean.
expect_json "all(.[]; (.by_position | length) == 32 and .by_position[0].first == 0 and .by_position[31].last == $tokens - 2)"
expect_json 'all(.[]; .by_position | [.[1:][].first] == [.[:-1][].last + 1])'
expect_json 'all(.[]; (.kld_mean * .predicted) as $sum | ([.by_position[] | .kld_mean * (.last - .first + 1)] | add - $sum | fabs) <= 1e-6 * $sum + 1e-12)'
cp "$work/stdout" "$work/all.json"

# Neither company, nor threads, change a number; nor does the order of a pair whose sides are alike.
model --tokens "$tokens" --schemes kv5/kv4,kv4/kv4 --rotation 64 --first none --open none --json --threads 3
[ "$("$jq" -c . "$work/stdout")" = "$("$jq" -c 'map(select(.scheme == "kv5/kv4" or .scheme == "kv4"))' "$work/all.json")" ] || fail "company or threads"

# ---- the first page and the open one in high precision, and windows
model --tokens "$tokens" --context 128 --schemes kv2,kv4,f32 --json
expect_json "all(.[]; .windows == ($tokens - 1 + 127) / 128 - (($tokens - 1 + 127) % 128) / 128 and .context == 128 and .first == \"kv8\" and .open == \"bf16\")"
expect_json 'map(select(.scheme == "kv4" and .rotation == "none")) | .[0].bits_all_told == (8.25 + 16) / 2 and .[0].bits_per_element == 4.25'
# Windows of two pages see nothing of the way but the last token, when the second page has just closed: only first and open page count.
expect_json 'map(.by_position[:31]) | unique | length == 1'
expect_json 'map(.by_position[31].kld_mean) | unique | length > 1'
model --tokens "$tokens" --schemes kv2 --rotation none --json
"$jq" -e --slurpfile all "$work/all.json" '.[0].kld_mean < ($all[0] | map(select(.scheme == "kv2"))[0].kld_mean) / 2' "$work/stdout" >/dev/null ||
    fail "a first page of kv8 and an open one of bf16 do not help"

# Pages that have centres of their own are full when they are written. Where channels are outliers that is worth more than the chance of a few hundred tokens.
model --tokens "$tokens" --schemes kv2 --rotation 64 --centring page,own --stress outliers --json
expect_json 'map({(.centring): .kld_mean}) | add | .own < 0.7 * .page'
# shellcheck disable=SC2086
usage "another --open than none would be right" $book --schemes kv4 --centring own --open none

# ---- each layer alone
model --tokens 100 --schemes kv3 --rotation 64 --first none --open none --by-layer --json
expect_json '.[0].by_layer | map("\(.layer)\(.side)") == ["0k", "0v", "1k", "1v", "2k", "2v", "3k", "3v"]'
expect_json '.[0] | (.by_layer | map(.kld_mean) | (min > 0) and max < 1) and (.by_layer | map(.kld_mean) | max) < .kld_mean'
model --tokens 100 --schemes kv3 --rotation 64 --first none --open none --by-layer
grep -qE '^  kv3 +64 +none +default +3 +[0-9.e-]+ +[0-9.e-]+$' "$work/stdout" || fail "no table of layers: $(cat "$work/stdout")"

# ---- stress: the same model, with a cache that is harder to store
model --tokens "$tokens" --schemes kv4,q4_0 --rotation none --first none --open none --stress outliers --json
"$jq" -e --slurpfile all "$work/all.json" '.[0].exact_perplexity == $all[0][0].exact_perplexity and all(.[]; .stress == "outliers")
    and (map(select(.scheme == "kv4"))[0].kld_mean > 5 * ($all[0] | map(select(.scheme == "kv4"))[0].kld_mean))' "$work/stdout" >/dev/null ||
    fail "stress: $("$jq" -c 'map([.scheme, .kld_mean, .exact_perplexity])' "$work/stdout")"

# ---- the table fits a terminal; a beginning of windows
model --tokens 150 --schemes kv8/kv6,e4m3/e5m2,bf16 --bos
[ "$(awk 'length > 110' "$work/stdout" | wc -l)" -eq 0 ] || fail "wider than 110 columns"
head -n 1 "$work/stdout" | grep -qE '^150 tokens predicted, in 1 window of up to 150: perplexity [0-9.]+ with the exact cache$' || fail "$(head -n 1 "$work/stdout")"
[ "$(awk 'NR > 3 && NF' "$work/stdout" | wc -l)" -eq 6 ] || fail "rows: $(cat "$work/stdout")"

# ---- the same model as a Hugging Face folder: tensors in the order of the checkpoint, so that its bytes will do, but for the rows of queries and keys,
# whose pairs of channels are half a head apart there. 512 bytes are a row of 256 numbers; of these there are 2048 of the embedding, 4 of norms.
hf=$work/gutenberg
mkdir "$hf" "$work/rows"
tail -c +29 "$demo/gutenberg-3.5M.f16.bin" >"$work/weights"
rows() { dd if="$work/weights" bs=512 skip="$1" count="$2" 2>/dev/null; }
rows 2052 1536 | (cd "$work/rows" && split -b 512 -a 4 -d - r)
{
    rows 0 2052
    # shellcheck disable=SC2046
    (cd "$work/rows" && cat $(awk 'BEGIN { for (h = 0; h < 24; h++) for (c = 0; c < 64; c++) printf "r%04d\n", 64 * h + c % 32 * 2 + int(c / 32) }'))
    dd if="$work/weights" bs=512 skip=3588 2>/dev/null
} >"$work/permuted"
# offsets: header of tensors, from names, shapes and numbers of elements of two bytes.
awk 'function tensor(name, shape, elements) {
        printf "%s\"%s\": {\"dtype\": \"F16\", \"shape\": [%s], \"data_offsets\": [%d, %d]}", at ? ", " : "{", name, shape, at, at + 2 * elements
        at += 2 * elements
    }
    function layers(name, rows, columns) {
        for (l = 0; l < 4; l++)
            tensor("model.layers." l "." name ".weight", rows ? rows ", " columns : columns, (rows ? rows : 1) * columns)
    }
    BEGIN {
        tensor("model.embed_tokens.weight", "2048, 256", 2048 * 256)
        layers("input_layernorm", 0, 256)
        layers("self_attn.q_proj", 256, 256)
        layers("self_attn.k_proj", 128, 256)
        layers("self_attn.v_proj", 128, 256)
        layers("self_attn.o_proj", 256, 256)
        layers("post_attention_layernorm", 0, 256)
        layers("mlp.gate_proj", 704, 256)
        layers("mlp.down_proj", 256, 704)
        layers("mlp.up_proj", 704, 256)
        tensor("model.norm.weight", "256", 256)
        printf "}"
    }' >"$work/header"
# little-endian: the header is shorter than 65536 bytes
n=$(wc -c <"$work/header")
# shellcheck disable=SC2059
printf "$(printf '\\%03o\\%03o' $((n % 256)) $((n / 256)))\\000\\000\\000\\000\\000\\000" | cat - "$work/header" "$work/permuted" >"$hf/model.safetensors"
"$jq" -n '{model_type: "llama", hidden_size: 256, intermediate_size: 704, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2,
    vocab_size: 2048, max_position_embeddings: 1024, rms_norm_eps: 1e-5, tie_word_embeddings: true, bos_token_id: 1, eos_token_id: 2}' >"$hf/config.json"
model --tokens 150 --schemes kv4 --rotation 64 --json
"$jq" 'map(del(.model))' "$work/stdout" >"$work/from_checkpoint"
run "$kvtile" eval --model "$hf" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" --tokens 150 --schemes kv4 --rotation 64 --json
"$jq" 'map(del(.model))' "$work/stdout" | cmp - "$work/from_checkpoint" || fail "the folder is another model"
# shellcheck disable=SC2086
$emulator "$engine" generate --model "$hf" --tokenizer "$demo/tok2048.bin" --prompt 'The old man looked at the sea, and' --tokens 12 >"$work/stdout" 2>/dev/null
grep -qxF "The old man looked at the sea, and he was going to see the little Red Man's" "$work/stdout" || fail "generate: $(cat "$work/stdout")"
# ---- the same as a GGUF file, which brings its tokenizer along
run "$writer" --write "$work/model.gguf"
run "$kvtile" eval --model "$work/model.gguf" --text "$demo/chesterton-brown.txt" --tokens 150 --schemes kv4 --rotation 64 --json
"$jq" 'map(del(.model))' "$work/stdout" | cmp - "$work/from_checkpoint" || fail "the GGUF file is another model"
head -c 1000000 "$work/model.gguf" >"$work/short.gguf"
expect_error 1 "short.gguf: tensor blk." "$kvtile" eval --model "$work/short.gguf" --text "$demo/chesterton-brown.txt"

folder() { # TEXT: kvtile eval refuses the folder and says that
    expect_error 1 "$hf: $1" "$kvtile" eval --model "$hf" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt"
}
head -c 100000 "$hf/model.safetensors" >"$work/short"
mv "$hf/model.safetensors" "$work/whole"
folder 'model.safetensors: cannot be opened'
mv "$work/short" "$hf/model.safetensors"
folder 'model.safetensors: tensor model.embed_tokens.weight: data_offsets end at 1048576: the file has only '
mv "$work/whole" "$hf/model.safetensors"
sed -i 's/2048/2000/' "$hf/config.json"
folder 'model.safetensors: tensor model.embed_tokens.weight: shape is not [2000, 256], which would be right for config.json'
sed -i 's/"llama"/"gemma3"/' "$hf/config.json"
folder 'config.json: model_type is "gemma3": "llama" would be right'

# ---- ended early: nothing half-written
# shellcheck disable=SC2086
$emulator "$kvtile" eval $model $book --schemes kv4 --json >"$work/stdout" 2>"$work/stderr" &
sleep 0.3
kill "$!"
! wait "$!" 2>/dev/null || fail "could not be ended"
[ ! -s "$work/stdout" ] || fail "half-written: $(head -c 100 "$work/stdout")"

# ---- errors name the argument, the value and what would be right
expect_error 2 "--text: is missing: --model needs it" "$kvtile" eval --model x
expect_error 1 "gutenberg-3.5M.f16.bin: brings no tokenizer along: its file as --tokenizer would be right" "$kvtile" eval --model \
    "$demo/gutenberg-3.5M.f16.bin" --text "$demo/chesterton-brown.txt"
usage "--text: is missing: --model needs it"
usage "layer0.qvkt: has no part in --model" --text x layer0.qvkt
usage "--attention: has no part in --model" --text x --attention
usage "--side: has no part in --model" --text x --side k
usage '"kv9" is no scheme: did you mean ' --text x --schemes kv4/kv9
usage '"" is no scheme' --text x --schemes kv4/
usage '"kv4/kv4" is a pair: one scheme would be right' --text x --schemes kv4/kv4/kv4
usage "0: a whole number from 1 on would be right for --tokens" --text x --tokens 0
usage "x: a whole number from 1 on would be right for --context" --text x --context x
usage "257: at most 256 would be right for --threads" --text x --threads 257
usage "outlier: outliers would be right for --stress" --text x --stress outlier
usage "--first: \"kv9\" is no scheme" --text x --first kv9
usage "--open: one scheme, or none, would be right" --text x --open kv4,kv8
expect_error 2 "--stress: only --model runs a model" "$kvtile" eval x.qvkt --stress outliers
expect_error 2 "--bos: only --model runs a model" "$kvtile" eval x.qvkt --bos
refuse "--tokens: 1000000: the text has only " --tokens 1000000
refuse "--tokens: 1: at least 2" --tokens 1
refuse "--context: 1025: 1 to 1024, the model's context" --context 1025
expect_error 1 "missing: cannot be opened" "$kvtile" eval --model "$work/missing" --tokenizer "$demo/tok2048.bin" --text x
expect_error 1 "tok2048.bin: " "$kvtile" eval --model "$demo/tok2048.bin" --tokenizer "$demo/tok2048.bin" --text x

[ "$failures" -eq 0 ] || exit 1
echo "all passed"
