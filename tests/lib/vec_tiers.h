/* SPDX-License-Identifier: MIT */
/* The words of every tier. */
#ifndef KVT_TESTS_VEC_TIERS_H
#define KVT_TESTS_VEC_TIERS_H

#include "vec_words.h"

#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) extern const vec_word vec_words_##name[];
#include "arch/isa.def"
#undef KVT_TIER_ROW

static const struct tier_words {
    const char *tier;
    unsigned id;
    const vec_word *words;
} tiers[] = {
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) { #name, id, vec_words_##name },
#include "arch/isa.def"
#undef KVT_TIER_ROW
};

#endif
