#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile convert as people call it.
# Usage: test_cli_convert.sh JQ DEMO ENGINE KVTILE [EMULATOR...]
set -eu
arguments=demo
# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

# ---- real keys there and back in every format: 2 heads x 70 tokens x 64 channels
run "$@" "$engine" capture --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" \
    --tokens 70 --out "$work/cap"
keys=$work/cap/layer0_keys.qvkt
run "$@" "$kvtile" convert --help-all
formats=$(sed -n '/^Formats/,/^Examples/s/^  \([a-z0-9_]*\) .*/\1/p' "$work/stdout")
[ "$(printf '%s\n' "$formats" | wc -l)" -ge 18 ] || fail "formats in the help: $formats"
for format in $formats; do
    [ "$format" != kvtile ] || continue
    run "$@" "$kvtile" convert "$keys" --to "$format" -o "$work/rows" --json
    expect_json ".from == \"f32\" and .to == \"$format\" and .heads == 2 and .tokens == 70 and .dim == 64 and .bytes == 140 * .row_bytes"
    [ "$(wc -c <"$work/rows")" -eq "$("$jq" .bytes "$work/stdout")" ] || fail "$format: size of the file"
    run "$@" "$kvtile" convert "$work/rows" --from "$format" --dim 64 --heads 2 --rows 140 --to f32 -o "$work/back.npy" --json
    expect_json ".from == \"$format\" and .to == \"f32\" and .heads == 2 and .tokens == 70 and .row_bytes == 256"
    [ "$(wc -c <"$work/back.npy")" -eq $((128 + 140 * 256)) ] || fail "$format: size of the .npy"
    # A shape that eval reads, and the numbers are finite.
    run "$@" "$kvtile" eval "$work/back.npy" --schemes f32 --json
    expect_json '.[0].heads == 2 and .[0].tokens == 70 and .[0].dim == 64 and .[0].nonfinite == 0'
    run "$@" "$kvtile" convert "$work/rows" --from "$format" --dim 64 --to f16 -o "$work/flat.npy"
    run "$@" "$kvtile" eval "$work/flat.npy" --schemes f16 --json
    expect_json '.[0].heads == 1 and .[0].tokens == 140 and .[0].dtype == "f16"'
    # All tiers give the same bytes.
    run "$@" "$kvtile" convert "$keys" --to "$format" -o "$work/scalar" --tier scalar
    cmp -s "$work/rows" "$work/scalar" || fail "$format: --tier scalar differs"
done

# ---- sizes, exactness, one format to another
run "$@" "$kvtile" convert "$keys" --to ggml_q8_0 -o "$work/q8"
grep -q '2 heads x 70 tokens x 64 channels, f32 to ggml_q8_0: 68 bytes a row, 9520 in all' "$work/stdout" || fail "summary: $(cat "$work/stdout")"
run "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 64 --to f32 -o "$work/q8.npy"
run "$@" "$kvtile" convert "$work/q8.npy" --to ggml_q8_0 -o "$work/q8again"
cmp -s "$work/q8" "$work/q8again" || fail "q8_0 -> f32 -> q8_0 is not the same"
run "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 64 --to vllm_int8 -o "$work/int8" --json
expect_json '.from == "ggml_q8_0" and .to == "vllm_int8" and .row_bytes == 68 and .tokens == 140'
run "$@" "$kvtile" convert "$work/q8.npy" --to vllm_int8 -o "$work/int8too"
cmp -s "$work/int8" "$work/int8too" || fail "by way of f32 it is not the same"
# The output may be the input.
cp "$work/q8" "$work/same"
run "$@" "$kvtile" convert "$work/same" --from ggml_q8_0 --dim 64 --to ggml_q8_0 -o "$work/same"
cmp -s "$work/q8" "$work/same" || fail "output over input"

# ---- the roundings of ggml: +1.5 steps is a tie of even and away
npy() { # npy FILE SHAPE
    header="{'descr': '<f4', 'fortran_order': False, 'shape': $2, }"
    printf '\223NUMPY\001\000' >"$1"
    # shellcheck disable=SC2059
    printf "\\$(printf %03o ${#header})\\000%s" "$header" >>"$1"
}
npy "$work/tie.npy" "(1, 32)"
{ printf '\000\000\376\102\000\000\040\100'; head -c 120 /dev/zero; } >>"$work/tie.npy" # 127, 2.5, 0 ...
for rule in canonical x86 neon scalar; do
    run "$@" "$kvtile" convert "$work/tie.npy" --to ggml_q8_0 --rounding $rule -o "$work/$rule"
done
cmp -s "$work/canonical" "$work/x86" || fail "x86 rounds to even"
[ "$(od -An -tu1 -j2 -N2 "$work/neon" | tr -s ' ')" = " 127 2" ] || fail "neon: $(od -An -tu1 "$work/neon")"
[ "$(od -An -tu1 -j2 -N2 "$work/scalar" | tr -s ' ')" = " 127 3" ] || fail "scalar: $(od -An -tu1 "$work/scalar")"
run "$@" "$kvtile" convert "$work/tie.npy" --to nvfp4 --global-scale 0.5 -o "$work/nv"
run "$@" "$kvtile" convert "$work/nv" --from nvfp4 --dim 32 --global-scale 0.5 --to f32 -o "$work/nv.npy"

# ---- safetensors with several tensors
tensors='{"a.k":{"dtype":"F32","shape":[2,16],"data_offsets":[0,128]},"a.v":{"dtype":"BF16","shape":[1,2,16],"data_offsets":[128,192]}}'
# shellcheck disable=SC2059
{ printf "\\$(printf %03o ${#tensors})\\000\\000\\000\\000\\000\\000\\000%s" "$tensors"; head -c 192 /dev/zero; } >"$work/two.safetensors"
run "$@" "$kvtile" convert "$work/two.safetensors" --tensor a.v --to ggml_q4_0 -o "$work/v" --json
expect_json '.from == "bf16" and .heads == 1 and .tokens == 2 and .dim == 16 and .row_bytes == 18'

# ---- errors
never=$work/never
expect_error 2 "no input" "$@" "$kvtile" convert
expect_error 2 "--to: is missing" "$@" "$kvtile" convert "$keys" -o "$never"
expect_error 2 "--output: is missing" "$@" "$kvtile" convert "$keys" --to ggml_q8_0
expect_error 2 "ggml_q8_0 would be right" "$@" "$kvtile" convert "$keys" --to ggml_q80 -o "$never"
expect_error 2 "is no format" "$@" "$kvtile" convert "$keys" --to nonsense -o "$never"
expect_error 2 "numbers already" "$@" "$kvtile" convert "$keys" --to f32 -o "$never"
expect_error 2 "goes with --from" "$@" "$kvtile" convert "$keys" --to ggml_q8_0 --dim 64 -o "$never"
expect_error 2 "--dim: is missing" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --to f32 -o "$never"
expect_error 2 "from 1 to 1024" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 1025 --to f32 -o "$never"
expect_error 2 "from 1 to 1024" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim -1 --to f32 -o "$never"
expect_error 2 "from 1 to" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 64 --rows 1x --to f32 -o "$never"
expect_error 2 "does not go with --from" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 64 --tensor x --to f32 -o "$never"
expect_error 2 "canonical, x86, neon or scalar" "$@" "$kvtile" convert "$keys" --to ggml_q8_0 --rounding up -o "$never"
expect_error 2 "the formats of ggml alone" "$@" "$kvtile" convert "$keys" --to vllm_int8 --rounding x86 -o "$never"
expect_error 2 "nvfp4 alone" "$@" "$kvtile" convert "$keys" --to vllm_int8 --global-scale 2 -o "$never"
expect_error 2 "2^-64 to 2^64" "$@" "$kvtile" convert "$keys" --to nvfp4 --global-scale 0 -o "$never"
expect_error 2 "nosuch" "$@" "$kvtile" convert "$keys" --to ggml_q8_0 --tier nosuch -o "$never"
expect_error 2 "one input would be right" "$@" "$kvtile" convert "$keys" "$keys" --to ggml_q8_0 -o "$never"
expect_error 2 "--nosuch" "$@" "$kvtile" convert "$keys" --nosuch
expect_error 1 "a multiple of 102" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 65 --to f32 -o "$never"
expect_error 1 "141 would be right for --rows" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 64 --rows 141 --to f32 -o "$never"
expect_error 1 "a multiple of --heads" "$@" "$kvtile" convert "$work/q8" --from ggml_q8_0 --dim 64 --heads 3 --to f32 -o "$never"
expect_error 1 "cannot be opened" "$@" "$kvtile" convert "$work/missing" --from ggml_q8_0 --dim 64 --to f32 -o "$never"
expect_error 1 "cannot be opened" "$@" "$kvtile" convert "$work/missing" --to ggml_q8_0 -o "$never"
expect_error 1 "begins neither" "$@" "$kvtile" convert "$work/q8" --to ggml_q8_0 -o "$never"
expect_error 1 "2 tensors of rows" "$@" "$kvtile" convert "$work/two.safetensors" --to ggml_q8_0 -o "$never"
expect_error 1 "no tensor of rows named b" "$@" "$kvtile" convert "$work/two.safetensors" --tensor b --to ggml_q8_0 -o "$never"
expect_error 1 "cannot be written" "$@" "$kvtile" convert "$keys" --to ggml_q8_0 -o "$work/nowhere/never"
expect_error 2 "did you mean convert?" "$@" "$kvtile" convrt
if [ -w /dev/full ]; then
    expect_error 1 "cannot be written" "$@" "$kvtile" convert "$keys" --to ggml_q8_0 -o /dev/full/never
fi

finish
