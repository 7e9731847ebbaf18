#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile eval and files as people have them: names, orders, batches, other programs' files; and rows that a scheme loses, which no figure may hide.
# Usage: test_cli_inputs.sh JQ DEMO ENGINE KVTILE [EMULATOR...]
set -eu
arguments=demo
# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

run "$@" "$engine" capture --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" \
    --tokens 100 --out "$work/cap"
keys=$work/cap/layer0_keys.qvkt
values=$work/cap/layer0_values.qvkt
queries=$work/cap/layer0_queries.qvkt

# put FILE OFFSET BYTES: BYTES as printf takes them
put() {
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# ---- rows that a scheme loses: channel 5 of token 3 of head 0 is -70000, beyond what f16 and its scales hold
mkdir "$work/lost"
cp "$keys" "$values" "$queries" "$work/lost"
put "$work/lost/layer0_keys.qvkt" $((20 + (3 * 64 + 5) * 4)) '\000\270\210\307'
lost=$work/lost/layer0_keys.qvkt
figures='.snr_db, .centred_snr_db, .max_abs_error'
run "$@" "$kvtile" eval "$lost" "$keys" --schemes f16,bf16 --rotation none --no-speed --json
expect_json "map(select(.scheme == \"f16\"))[0] | .lost == 1 and .rows == 200 and ([$figures] == [null, null, null])"
expect_json 'map(select(.scheme != "f16" or (.input | contains("cap/")))) | length == 3 and all(.[]; .lost == 0 and .snr_db > 40)'
run "$@" "$kvtile" eval "$lost" "$keys" --schemes f16,bf16 --rotation none --no-speed --json --mean
expect_json "length == 2 and .[0].scheme == \"bf16\" and .[0].lost == 0 and (.[1] | .lost == 1 and .rows == 400 and ([$figures] == [null, null, null]))"
run "$@" "$kvtile" eval "$lost" --schemes f16,bf16 --rotation none --no-speed
grep -q '^f16 (rotation none, centring none) lost 1 of 200 rows:' "$work/stdout" || fail "no word about the lost row"
[ "$(grep -c ' lost  *lost  *lost ' "$work/stdout")" -eq 1 ] || fail "the table: $(cat "$work/stdout")"

# All query rows of head 0 from token 3 on see the lost key. Ours is 100 positions of 2 query heads for each of 2 KV heads.
attention="--schemes f16,bf16,kv6 --rotation none --queries 100"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/lost/* $attention --json
figures='.kl_mean, .kl_p99, .kl_max, .same_top, .output_error, .output_error_of_codes'
expect_json "map(select(.scheme == \"f16\"))[0] | .lost == 97 * 2 and .query_rows == 400 and ([$figures] | unique == [null])"
expect_json 'map(select(.scheme == "f16"))[0] | (.by_head | map(.lost)) == [194, 0] and .by_head[0].kl_mean == null and .by_head[1].kl_mean < 0.01'
expect_json 'map(select(.scheme == "f16"))[0] | (.by_position | map(.lost) | add) == 194 and all(.by_position[]; (.lost > 0) == (.kl_mean == null))'
expect_json 'map(select(.scheme == "bf16"))[0] | .lost == 0 and .kl_mean < 0.01 and .same_top > 0.9'
# Of as many bits, what loses rows comes last.
expect_json 'map(.scheme)[0:2] == ["bf16", "f16"]'
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/lost/* $attention
grep -q '^f16 (rotation none, centring none) lost 194 of 400 query rows:' "$work/stdout" || fail "no word about the lost query rows"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/lost/* $attention --csv
tr -d '\r' <"$work/stdout" | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
    NR > 1 { print $at["scheme"], $at["lost"], $at["kl_mean"] == "", $at["kl_max"] == "", $at["same_top"] == "" }' >"$work/csv"
grep -q '^f16 194 1 1 1$' "$work/csv" || fail "--csv: $(cat "$work/csv")"
grep -q '^bf16 0 0 0 0$' "$work/csv" || fail "--csv: $(cat "$work/csv")"
# Formats of other engines, and a first and an open page that keep what is lost otherwise.
run "$@" "$kvtile" eval --attention "$work"/lost/* --schemes ggml_q4_0 --rotation none --json --queries 100
expect_json '.[0] | .lost == 0 or .kl_mean == null'
run "$@" "$kvtile" eval --attention "$work"/lost/* --schemes f16 --rotation none --json --queries 100 --first f32
expect_json '.[0] | .lost == 0 and .kl_mean < 0.01'
run "$@" "$kvtile" eval --attention "$work"/lost/* --schemes f32 --rotation none --json --queries 100 --first f16
expect_json '.[0] | .lost == 194 and .kl_mean == null'

# No plan has what loses rows, however good its other rows are; where all do, there is none.
run "$@" "$kvtile" eval --budget 16 "$work"/lost/* --schemes f16,bf16 --rotation none --json --queries 100
expect_json '.[0].layers[0] | .k.scheme == "bf16" and .v.scheme == "f16" and .kl_mean != null and .output_error != null'
expect_json '.[0].not_chosen | length == 1 and (.[0] | .side == "k" and .way.scheme == "f16" and .lost == 194 and .query_rows == 400)'
for limit in "--budget 16" "--max-kl 5"; do
    # shellcheck disable=SC2086
    run "$@" "$kvtile" eval $limit "$work"/lost/* --schemes f16,bf16 --rotation none --queries 100
    grep -q '^0  *bf16 .* f16 \|^0  *bf16 .* bf16 ' "$work/stdout" || fail "$limit: $(cat "$work/stdout")"
    grep -q '^not chosen: layer 0, keys as f16 .* lost 194 of 400 query rows' "$work/stdout" || fail "$limit does not say what it left out"
    # shellcheck disable=SC2086
    expect_error 1 "loses rows of its keys" "$@" "$kvtile" eval $limit "$work"/lost/* --schemes f16 --rotation none --queries 100
done

# Latents: the row of a token that is lost is seen by all after it.
head -c $((20 + 100 * 64 * 4)) "$lost" >"$work/latent_k.qvkt"
put "$work/latent_k.qvkt" 8 '\001'
run "$@" "$kvtile" eval --latent "$work/latent_k.qvkt" --schemes f16,f32 --rotation none --json --queries 100
expect_json 'map(select(.scheme == "f16"))[0] | .lost == 97 and ([.latent_snr_db, .kl_mean, .kl_max, .same_top, .output_error] | unique == [null])'
expect_json 'map(select(.scheme == "f32"))[0] | .lost == 0 and .kl_mean < 1e-6'
run "$@" "$kvtile" eval --latent "$work/latent_k.qvkt" --schemes f16 --rotation none --queries 100
grep -q '^f16.* lost 97 of 100 query rows' "$work/stdout" || fail "no word about lost latents"

# A model whose keys of layer 0 are large: in f16 they are lost, and so is every prediction after them.
model=$work/large.bin
cp "$demo/gutenberg-3.5M.f16.bin" "$model"
# shellcheck disable=SC2046
set -- $(od -An -td4 -N28 "$model") -- "$@"
dim=$1 layers=$3 vocabulary=$6
while [ "$1" != -- ]; do shift; done
shift
wk=$((28 + 2 * (vocabulary * dim + layers * dim + layers * dim * dim)))
i=0
while [ $i -lt 64 ]; do
    printf '\377\173' # 65504
    i=$((i + 1))
done | dd of="$model" bs=1 seek=$wk conv=notrunc 2>/dev/null
of_model="--model $model --tokenizer $demo/tok2048.bin --text $demo/chesterton-brown.txt --tokens 80 --first none --open none"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval $of_model --schemes f16,bf16 --rotation none --by-layer --json
figures='.perplexity, .perplexity_ratio, .kld_mean, .kld_mean_low, .kld_p99, .kld_p999, .kld_max, .same_top, .same_top_low'
expect_json "map(select(.scheme == \"f16\"))[0] | .lost > 40 and .lost <= 79 and ([$figures] | unique == [null])"
expect_json 'map(select(.scheme == "f16"))[0] | (.by_position | map(.lost) | add) == .lost and all(.by_position[]; (.lost > 0) == (.kld_mean == null))'
expect_json 'map(select(.scheme == "f16"))[0] | .by_layer[0].lost == .lost and .by_layer[0].kld_mean == null and .by_layer[1].lost == 0 and .by_layer[1].kld_mean < 1'
expect_json 'map(select(.scheme == "bf16"))[0] | .lost == 0 and .kld_mean != null and .same_top != null'
# shellcheck disable=SC2086
run "$@" "$kvtile" eval $of_model --schemes f16 --rotation none
grep -q '^f16 .* lost [0-9]* of 79 predictions' "$work/stdout" || fail "no word about lost predictions"

# The engine's own figures and words.
of_engine="--model $model --tokenizer $demo/tok2048.bin"
# shellcheck disable=SC2086
run "$@" "$engine" perplexity $of_engine --text "$demo/chesterton-brown.txt" --tokens 80 --schemes bf16,f16
grep -q '^bf16  *[0-9.]* ' "$work/stdout" || fail "bf16 lost something: $(cat "$work/stdout")"
grep -q '^f16  *lost  *- ' "$work/stdout" || fail "f16 lost nothing: $(cat "$work/stdout")"
grep -q '^f16 lost: [0-9]* of 79 predictions' "$work/stdout" || fail "no word about lost predictions of the engine"
# shellcheck disable=SC2086
run "$@" "$engine" perplexity $of_engine --text "$demo/chesterton-brown.txt" --tokens 80 --scheme f16
grep -q '^perplexity lost: ' "$work/stdout" || fail "perplexity: $(cat "$work/stdout")"
# shellcheck disable=SC2086
"$@" "$engine" generate $of_engine --prompt "It was a dark and stormy night when" --tokens 20 --scheme f16 >/dev/null 2>"$work/stderr" &&
    fail "generate goes on from lost rows"
grep -q 'gives no finite predictions' "$work/stderr" || fail "generate: $(cat "$work/stderr")"
# shellcheck disable=SC2086
run "$@" "$engine" generate $of_engine --prompt "It was a dark and stormy night when" --tokens 20 --scheme bf16

# ---- names say what is stored; --side says otherwise
for name in past_key_values.0.key:keys k_cache_v2:keys keys_v2:keys past_key_values.0.value:values layer3_v:values; do
    cp "$keys" "$work/${name%:*}.qvkt"
    run "$@" "$kvtile" eval "$work/${name%:*}.qvkt" --schemes f32 --rotation none --no-speed
    grep -q "stored as ${name#*:}$" "$work/stdout" || fail "${name%:*} is not ${name#*:}"
done

# ---- the same rows in other orders, and in a batch
npy() { # npy FILE SHAPE
    header="{'descr': '<f4', 'fortran_order': False, 'shape': $2, }"
    printf '\223NUMPY\001\000' >"$1"
    # shellcheck disable=SC2059
    printf "\\$(printf %03o ${#header})\\000%s" "$header" >>"$1"
}
# 3 heads of 2 tokens of 16 channels, whose rows are 0, 1, 2 ... times the same.
row() { head -c $(($1 * 64 + 84)) "$keys" | tail -c 64; }
npy "$work/htd_k.npy" "(3, 2, 16)"
npy "$work/thd_k.npy" "(2, 3, 16)"
npy "$work/bhtd_k.npy" "(1, 3, 2, 16)"
npy "$work/bthd_k.npy" "(1, 2, 3, 16)"
for i in 0 1 2 3 4 5; do row $i; done | tee -a "$work/htd_k.npy" >>"$work/bhtd_k.npy"
for i in 0 2 4 1 3 5; do row $i; done | tee -a "$work/thd_k.npy" "$work/thd.raw" >>"$work/bthd_k.npy"
same="--schemes kv4,q4_0 --rotation none --no-speed --json"
numbers='map(del(.input))'
# shellcheck disable=SC2086
run "$@" "$kvtile" eval "$work/htd_k.npy" --order head,token,dim $same
expect_json 'all(.[]; .heads == 3 and .tokens == 2)'
"$jq" -S "$numbers" "$work/stdout" >"$work/right.json"
for input in "thd_k.npy --order token,head,dim" "bthd_k.npy --order token,head,dim" "bhtd_k.npy" "thd.raw --shape 2,3,16 --order token,head,dim"; do
    # shellcheck disable=SC2086
    run "$@" "$kvtile" eval "$work"/$input --side k $same
    "$jq" -S "$numbers" "$work/stdout" | cmp - "$work/right.json" || fail "$input differs"
done
# More heads than tokens: a word about it, and none where the order was given.
run "$@" "$kvtile" eval "$work/htd_k.npy" --schemes kv4 --no-speed
grep -q '3 heads of 2 tokens: if that is \[token\]\[head\]\[dim\], --order token,head,dim' "$work/stderr" || fail "no word about the odd shape"
run "$@" "$kvtile" eval "$work/htd_k.npy" --schemes kv4 --no-speed --order head,token,dim
[ ! -s "$work/stderr" ] || fail "a word about a shape that was given"
expect_error 2 "would be right for --order" "$@" "$kvtile" eval "$keys" --order token,dim,head
expect_error 1 "--order is of the other formats" "$@" "$kvtile" eval "$keys" --order token,head,dim
npy "$work/batch.npy" "(2, 1, 1, 16)"
for i in 0 1; do row $i; done >>"$work/batch.npy"
expect_error 1 "a batch of 2" "$@" "$kvtile" eval "$work/batch.npy"

# ---- files of PyTorch
printf '\200\002}q\000.' >"$work/old.pt"
printf 'PK\003\004\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\020\000\000\000archive/data.pkl\200\002.' >"$work/new.bin"
for file in old.pt new.bin; do
    expect_error 1 "a pickle, which runs code" "$@" "$kvtile" eval "$work/$file"
    expect_error 1 "the config.json beside it" "$@" "$kvtile" size "$work/$file"
    expect_error 1 "safetensors.torch.save_file" "$@" "$engine" perplexity --model "$work/$file" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt"
done

# A folder with nothing but a pickle.
mkdir "$work/folder"
cp "$work/new.bin" "$work/folder/pytorch_model.bin"
echo '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 9, "max_position_embeddings": 8, "hidden_act": "silu"}' >"$work/folder/config.json"
expect_error 1 "safetensors.torch.save_file" "$@" "$engine" perplexity --model "$work/folder" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt"

finish
