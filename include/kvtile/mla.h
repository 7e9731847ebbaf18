/* SPDX-License-Identifier: MIT */
/* The latent cache of MLA (multi-head latent attention: DeepSeek-V2 and V3, Kimi-K2, GLM-4.7-Flash), from a model's tensors to pages and back.
 *
 * What a layer stores of a token is one row for all heads: the *latent*, kv_lora_rank numbers from which keys and values can be made, and the *rotary
 * part* of the key, qk_rope_head_dim numbers. Its layout has k_dim = kv_lora_rank, v_dim = 0, rope_dim = qk_rope_head_dim and kv_heads = 1.
 *
 * kvt_attend takes such a layout: queries are *absorbed*, k_dim numbers in the space of the latent (q_nope times the head's key up-projection) and
 * then rope_dim rotated ones; a result is k_dim numbers, for the head's value up-projection. All heads are one group: each line is fetched once for
 * all.
 *
 * docs/formats.md, section 10, gives the arithmetic: the same bits on every CPU and tier, for every split of the tokens.
 */
#ifndef KVTILE_MLA_H
#define KVTILE_MLA_H

#include <kvtile/kvtile.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which channels of the rotary part turn together: 2i and 2i + 1, or i and i + rope_dim / 2. They stay where they are; queries have the same order.
 */
typedef enum kvt_rope_pairs { KVT_ROPE_PAIRS_NONE = 0, KVT_ROPE_PAIRS_NEIGHBOURS = 1, KVT_ROPE_PAIRS_HALVES = 2 } kvt_rope_pairs;

#define KVT_MAX_HIDDEN 1048576

/* Rows of numbers, row r at numbers + r * row_stride: strides are bytes, may be negative, and are 0 only where there is one row. */
typedef struct kvt_matrix {
    const void *numbers;
    kvt_dtype dtype;
    ptrdiff_t row_stride;
} kvt_matrix;

/* What becomes the rows of some tokens. Zero it, then fill it. */
typedef struct kvt_mla_rows {
    size_t size;     /* sizeof(kvt_mla_rows) */
    kvt_matrix rows; /* of the tokens: k_dim + rope_dim numbers each; with `down`, hidden_dim: the layer's normalised input */
    kvt_matrix down; /* k_dim + rope_dim rows of hidden_dim numbers (kv_a_proj_with_mqa): rows are multiplied by it first; NULL: none */
    uint32_t hidden_dim;
    const void *norm; /* k_dim weights: the latent is divided by its root mean square and multiplied by them (kv_a_layernorm); NULL: it is not */
    kvt_dtype norm_dtype;
    float norm_epsilon; /* added to the mean square; 0 .. 1 */
    kvt_rope_pairs rope_pairs;
    const float *rope_cos, *rope_sin; /* of token i and pair j: [i * rope_dim / 2 + j]; NULL without pairs */
} kvt_mla_rows;

/* Projects, normalises, rotates and stores: tokens first_token .. first_token + n_tokens - 1, of both sides. Rules for pages as for kvt_write.
 * Errors: NULL, STRUCT_SIZE, LAYOUT, SIDE (no rotary part), DIM (hidden_dim outside 1..KVT_MAX_HIDDEN, or pairs of an odd rope_dim), DTYPE, OPTIONS
 * (no such pairs), NUMBER (norm_epsilon), RANGE, STRIDE (pages; rows that overlap, without `down`; a stride of 0). Nothing is written then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_mla_write(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                                const kvt_mla_rows *rows);

/* What makes keys and values of heads out of latents, and where they go. Zero it, then fill it. Strides of results are bytes and may be negative;
 * rows must not overlap each other. */
typedef struct kvt_mla_expansion {
    size_t size; /* sizeof(kvt_mla_expansion) */
    uint32_t heads;
    uint32_t nope_dim, v_dim; /* rows of the up-projections of a head: channels of its keys without the rotary part, and of its values */
    kvt_matrix k_up, v_up;    /* head h's first row at numbers + h * head_stride; k_dim numbers each */
    ptrdiff_t k_up_head_stride, v_up_head_stride; /* (kv_b_proj has both: nope_dim + v_dim rows a head) */
    kvt_dtype dtype;                              /* of results */
    void *k; /* nope_dim + rope_dim numbers of token i and head h at k + i * k_token_stride + h * k_head_stride; NULL: none */
    ptrdiff_t k_token_stride, k_head_stride;
    void *v; /* v_dim numbers; NULL: none */
    ptrdiff_t v_token_stride, v_head_stride;
} kvt_mla_expansion;

/* Reads latents and multiplies: keys and values of every head, for engines that attend to those in prefill.
 * Errors: NULL (neither k nor v, too), STRUCT_SIZE, LAYOUT, SIDE (no rotary part), HEADS, DIM (nope_dim or v_dim outside 1..KVT_MAX_DIM), DTYPE,
 * STRIDE (results that overlap; a stride of 0 between rows or heads of k_up or v_up), RANGE. Nothing is written then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_mla_expand(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                                 const kvt_mla_expansion *expansion);

/* ---- caches of other engines ------------------------------------------------------------------------------------------------------ */

/* A row of FlashMLA's fp8_ds_mla, 656 bytes, is two calls of kvtile's own functions in each direction, its latent being KVT_ROW_deepseek_fp8 of 512
 * channels and its rotary part 64 bf16 numbers behind it:
 *     kvt_convert_in(layout, KVT_LATENT, pages, first, n, KVT_ROW_deepseek_fp8, rows, 656, NULL)
 *     kvt_write(layout, KVT_ROPE, pages, first, n, rows + 528, KVT_BF16, 656)
 * A row of 576 channels in a format of ggml's is one for each part too, the rotary part's blocks behind those of the latent. Where the layout has the
 * same grid nothing is lost either way: e4m3 with fp8_block 128 beside bf16, q8_0, q4_0.
 *
 * Blocks of DeepSeek-V4's cache keep scales apart: 576 bytes for each of block_tokens tokens (448 E4M3 codes, 64 bf16 numbers), then 8 for each (7
 * E8M0 scales, and a byte that is 0 when written). Tokens first_token .. first_token + n_tokens - 1 are the block's first_in_block and on. The layout
 * has k_dim 448 and rope_dim 64; e4m3 with fp8_block 64 and E8M0 scales, beside bf16, has the same grid. Errors: NULL, LAYOUT, SIDE (no
 * rotary part), DIM (other widths), RANGE (of the pages, or of the block), STRIDE (pages). Nothing is written then. */
#define KVT_DEEPSEEK_V4_TOKEN_BYTES 584
KVT_API KVT_MUST_CHECK kvt_status kvt_deepseek_v4_in(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                                     const void *block, size_t block_tokens, size_t first_in_block);
KVT_API KVT_MUST_CHECK kvt_status kvt_deepseek_v4_out(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                                      void *block, size_t block_tokens, size_t first_in_block);

#ifdef __cplusplus
}
#endif

#endif
