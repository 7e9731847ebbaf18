/* What the parts of the framework share. */
#ifndef KVT_FRAME_H
#define KVT_FRAME_H

#include "arch/dispatch.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <string.h>

extern const kvt_scheme_info kvt_schemes[];
extern const size_t kvt_schemes_count;
extern const uint8_t kvt_scheme_rows[]; /* the row of schemes.def that a scheme has, of those that there are */

/* Centres are rows of ggml's q8_0: an f16 scale per so many channels. */
enum { KVT_CENTRE_BLOCK = 32 };

enum { KVT_GROUP_CHANNELS = 16 }; /* what kernels work on at once: docs/formats.md, section 1 */

/* A tier mask of the API, where 0 means all, as one that this CPU can run; scalar is always in it. */
static inline uint32_t kvt_runnable(uint32_t tiers)
{
    const uint32_t usable = kvt_usable();
    return tiers ? (tiers & usable) | 1 : usable; /* tier 0 is scalar */
}

/* The highest of them. Every tier brings every kernel. */
static inline const kvt_tier *kvt_serving_tier(uint32_t tiers)
{
    const uint32_t runnable = kvt_runnable(tiers);
    const kvt_tier *tier = kvt_tiers + kvt_tiers_count - 1;
    while (tier > kvt_tiers && !(runnable >> tier->id & 1))
        tier--;
    return tier;
}

/* A side that may not be there; its options. */
static inline const kvt_side_layout *kvt_layout_side(const kvt_layout *layout, kvt_side side)
{
    return side == KVT_K ? &layout->k : side == KVT_V ? &layout->v : &layout->rope;
}
static inline const kvt_side_options *kvt_options_of(const kvt_layout *layout, kvt_side side)
{
    return side == KVT_K ? &layout->spec.k_options : side == KVT_V ? &layout->spec.v_options : &layout->spec.rope_options;
}

static inline uint64_t kvt_seal_words(uint64_t seal, const void *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)from + (size_t)i * 8, 8);
        seal = (seal << 5 | seal >> 59) ^ word;
    }
    return seal;
}

/* What a side's seal has to be. Whatever reads or writes pages looks at it, so that a layout that was changed after kvt_layout_init cannot lead
 * outside the pages that it describes. (Deriving the sizes anew costs more than a token takes to write.) It is made of the fields before it, the
 * side's options and what the sides share, word by word: no change of one of them goes unseen. */
static inline uint64_t kvt_side_seal(const kvt_layout *layout, kvt_side side)
{
    enum { SIDE_WORDS = offsetof(kvt_side_layout, seal) / 8, OPTION_WORDS = sizeof(kvt_side_options) / 8 };
    _Static_assert(offsetof(kvt_side_layout, seal) % 8 == 0 && sizeof(kvt_side_options) % 8 == 0, "whole words");
    uint64_t seal = 0x6b7674696c650001; /* "kvtile", 1 */
    seal = kvt_seal_words(seal, kvt_layout_side(layout, side), SIDE_WORDS);
    seal = kvt_seal_words(seal, kvt_options_of(layout, side), OPTION_WORDS);
    const uint64_t shared[2] = { layout->page_bytes, (uint64_t)layout->spec.kv_heads << 32 | layout->spec.tiers };
    return kvt_seal_words(seal, shared, 2);
}

/* What kernels have to know of a side that kvt_layout_init has accepted. */
static inline kvt_tile_spec kvt_tile_spec_of(const kvt_side_layout *side, const kvt_side_options *options)
{
    const bool is_row = options->fp8_block == 0, is_tensor = options->fp8_block == KVT_BLOCK_TENSOR;
    return (kvt_tile_spec){
        .dim = side->padded_dim,
        .effort = options->effort,
        .block_groups = is_row || is_tensor ? KVT_MAX_DIM / KVT_GROUP_CHANNELS : options->fp8_block / KVT_GROUP_CHANNELS,
        .scale_bytes = is_tensor                                  ? 0
                       : options->fp8_scale == KVT_FP8_SCALE_E8M0 ? 1
                                                                  : KVT_SCALE_fp8,
        .tensor_scale = options->fp8_tensor_scale,
    };
}

#endif
