#!/bin/sh
# SPDX-License-Identifier: MIT
# No register that is wider than its tier's in a tier's object files, nor any in the code that runs on every CPU; and nothing whose bits CPUs differ in.
#   check_objects.sh OBJDUMP TIER OBJECT...
# TIER is a name of arch/isa.def, or "baseline" for code that every CPU runs.
set -eu

objdump=$1
tier=$2
shift 2

# Patterns of disassembled instructions. x86: EVEX-only registers, 256-bit registers, VEX-coded instructions, dot products; ARM: SVE, dot products,
# products of matrices.
evex='%zmm|%[xy]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]'
vex='%ymm|:[[:space:]]+v[a-z]'
sve='[^a-z0-9_]z[0-9]+\.[bhsdq]|[^a-z0-9_]p[0-9]+/[mz]'
dot='[[:space:]][su]dot[[:space:]]'
matrix='[[:space:]](us|[su])mmla[[:space:]]'
# Estimates, of which CPUs of one ISA have different bits. No barrier keeps bits equal: flags (tools/cmake/KvtCompile.cmake) and intrinsics do.
estimates='[[:space:]](v?r(cp|sqrt)(14|28)?[sp][sd]|[fu]r(ecp|sqrt)e|frecpx)[[:space:]]'
case $tier in
scalar | baseline) forbidden="$evex|$vex|$sve|$dot|$matrix" ;;
avx2) forbidden="$evex|vpdp" ;;
avx2*) forbidden=$evex ;;
neon) forbidden="$sve|$dot|$matrix" ;;
neondot) forbidden="$sve|$matrix" ;;
neon*) forbidden=$sve ;;
avx512* | sve*) forbidden=$estimates ;;
*)
    echo "tests/lib/check_objects.sh does not know the tier $tier" >&2
    exit 1
    ;;
esac

if [ $# -eq 0 ]; then
    echo "no object files of $tier" >&2
    exit 1
fi
instructions=0
for object in "$@"; do
    listing=$("$objdump" --disassemble --no-show-raw-insn "$object")
    # Lines of instructions only; an object may be data alone.
    code=$(printf '%s\n' "$listing" | grep '^ *[0-9a-f][0-9a-f]*:' || true)
    instructions=$((instructions + $(printf '%s' "$code" | grep -c . || true)))
    if wide=$(printf '%s\n' "$code" | grep -E -m 5 -e "$forbidden|$estimates"); then
        printf '%s, tier %s, has instructions of a wider one, or estimates:\n%s\n' "$object" "$tier" "$wide" >&2
        exit 1
    fi
done
if [ "$instructions" -eq 0 ]; then
    echo "$objdump found no instruction in the objects of $tier" >&2
    exit 1
fi
echo "$tier: $instructions instructions in $# object files are fine"
