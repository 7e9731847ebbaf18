/* SPDX-License-Identifier: MIT */
/* A cache of many sequences in blocks: an optional layer above kvtile/step.h, for engines without a block manager of their own.
 *
 * Layers that store alike are a *group*: Gemma's windows beside its full layers, MLA's latents, rotary parts and all. A layer that shares another's
 * cache belongs to none. A group has a view (kvt_view), and each sequence an entry in it (kvt_sequence), so a step of a layer is the same call with
 * and without the cache:
 *
 *     kvt_cache_append(cache, id, fresh);                  blocks for so many new tokens
 *     kvt_cache_entry(cache, id, group, &entry);           for each group; then kvt_step_append, _attend, _merge of each layer
 *     kvt_cache_commit(cache, id, fresh);                  they count as stored, or the first of them do
 *
 * Sequences are forked (blocks are shared until somebody writes to them), truncated, cut in their middle and shifted: RoPE of stored keys is turned
 * where they lie. A block that nobody holds is free. All memory is the caller's, given once: nothing allocates, and no call waits for another.
 *
 * Threads: calls for different sequences may run at the same time, whatever they are, but for kvt_cache_init. Calls for the same sequence may where
 * none of them changes it: kvt_cache_entry, steps' attending, kvt_view_read, kvt_cache_save and others that have a const cache; so many may read, and
 * when somebody changes it nobody else is there. kvt_cache_fork only reads the sequence that is forked. kvt_cache_work is for several threads.
 */
#ifndef KVTILE_CACHE_H
#define KVTILE_CACHE_H

#include <kvtile/step.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- RoPE ------------------------------------------------------------------------------------------------------------------------ */

/* How keys carry their positions: at position t pair i of their channels is turned by t * frequencies[i]. */
typedef struct kvt_rope {
    size_t size;               /* sizeof(kvt_rope) */
    const double *frequencies; /* [pairs] radians per position, of magnitude up to 16; 0: the pair is not turned */
    uint32_t pairs;
    uint32_t first;       /* channel that the first pair begins at */
    uint32_t interleaved; /* 1: pair i is channels first + 2i and the next (GPT-J, llama2.c, DeepSeek); 0: first + i and first + pairs + i (NeoX) */
} kvt_rope;

/* Names of rope_type in config.json, or what is said of it. mRoPE turns as its plain kind does where all of its sections shift alike, as text's do.
 */
typedef enum kvt_rope_kind {
    KVT_ROPE_PLAIN = 0,       /* "default" */
    KVT_ROPE_LINEAR = 1,      /* "linear": frequencies / factor */
    KVT_ROPE_NTK = 2,         /* base * factor^(dim / (dim - 2)); "dynamic" is that with factor * length / original_length - (factor - 1) */
    KVT_ROPE_YARN = 3,        /* "yarn"; its attention factor is in keys' and queries' lengths, which stay */
    KVT_ROPE_LLAMA3 = 4,      /* "llama3" */
    KVT_ROPE_LONGROPE = 5,    /* "longrope", "su": with the short or the long factors, as the keys were stored */
    KVT_ROPE_PROPORTIONAL = 6 /* p-RoPE, "proportional": `dim` is the whole head, and its first pairs turn */
} kvt_rope_kind;

/* Zero it, then fill it. Partial RoPE (partial_rotary_factor) is a smaller `dim`. */
typedef struct kvt_rope_parameters {
    size_t size; /* sizeof(kvt_rope_parameters) */
    kvt_rope_kind kind;
    uint32_t dim;                         /* channels that turn: twice the pairs */
    double base;                          /* rope_theta */
    double factor;                        /* linear, ntk, yarn, llama3, proportional (0: 1) */
    double original_length;               /* yarn, llama3: original_max_position_embeddings */
    double beta_fast, beta_slow;          /* yarn (0: 32 and 1) */
    double low_frequency, high_frequency; /* llama3: low_freq_factor, high_freq_factor (0: 1 and 4) */
    double share;                         /* proportional: partial_rotary_factor (0: 1) */
    const double *factors;                /* longrope: [dim / 2] */
    uint32_t is_exact;                    /* yarn: "truncate": false, the ends of its ramp are not rounded to whole pairs */
} kvt_rope_parameters;

/* Fills dim / 2 frequencies. Errors: NULL, STRUCT_SIZE, DIM (odd, 0, above KVT_MAX_DIM), OPTIONS (no such kind), NUMBER (base, factor, length or
 * factors that are not positive, or not finite). */
KVT_API KVT_MUST_CHECK kvt_status kvt_rope_fill(const kvt_rope_parameters *parameters, double *frequencies);

/* Turns n rows of f32 by `positions`, as stored keys are turned: token t's, whose row is at rows + t * stride. Errors: NULL, STRUCT_SIZE, DIM, NUMBER
 * (frequencies). */
KVT_API KVT_MUST_CHECK kvt_status kvt_rope_turn(const kvt_rope *rope, int64_t positions, float *rows, size_t n, ptrdiff_t stride);

/* ---- a cache --------------------------------------------------------------------------------------------------------------------- */

#define KVT_CACHE_MAX_GROUPS 16
#define KVT_NO_SEQUENCE      UINT32_MAX

/* Layers that store alike. Zero it, then fill it; what it points to is copied. */
typedef struct kvt_cache_group {
    size_t size;                /* sizeof(kvt_cache_group) */
    const kvt_spec *spec;       /* of pages: kvt_preset_spec makes this and the next */
    const kvt_spec *first_spec; /* of a sequence's first page; NULL: that of the others */
    kvt_dtype open_dtype;       /* of the newest pages' rows; 0: there are no open pages, as in kvt_view */
    uint32_t layers;            /* that store */
    size_t blocks;              /* of 64 tokens, in all of its layers; the first pages of sequences with a first_spec come on top */
    size_t window;              /* tokens that a query sees: blocks before it are given back; 0: all are kept */
    size_t spare;               /* with a window: tokens before it that are kept too, so that as many can be taken back */
    size_t first_kept;          /* with a window: first tokens, whose blocks stay; kvt_view_read has them, a step's window hides them */
    const kvt_rope *rope;       /* of keys, or of latents' rotary parts; NULL: they carry no positions, and are not turned */
} kvt_cache_group;

/* Zero it, then fill it. */
typedef struct kvt_cache_spec {
    size_t size; /* sizeof(kvt_cache_spec) */
    const kvt_cache_group *groups;
    uint32_t n_groups;    /* 0 .. KVT_CACHE_MAX_GROUPS; 0 only with a state */
    uint32_t sequences;   /* at the same time, at least 1 */
    size_t tokens;        /* of the longest of them */
    size_t state_bytes;   /* that recurrent layers keep of a sequence, in all of them together: bytes that mean nothing to the cache */
    uint32_t state_marks; /* copies of it that a sequence keeps, to go back to */
} kvt_cache_spec;

typedef struct kvt_cache kvt_cache;

/* What kvt_cache_init needs. Errors: NULL, STRUCT_SIZE, those of kvt_layout_init and kvt_view_open_bytes, OPTIONS (centres of their own without open
 * pages; a first page beside centres that come from pages before), RANGE (no layers, sequences, tokens or groups, or too many), DIM and NUMBER (a
 * rope that does not fit its keys), OVERFLOW. kvt_cache_spec_problem says more, as kvt_step_problem does. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_bytes(const kvt_cache_spec *spec, size_t *bytes);
KVT_API kvt_status kvt_cache_spec_problem(const kvt_cache_spec *spec, char *text, size_t bytes);

/* Makes a cache in `memory`, aligned to 64, of kvt_cache_bytes. Pages are not touched. There is nothing to close: forget the memory. Errors: as
 * above, RANGE (too few bytes, or not aligned). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_init(const kvt_cache_spec *spec, void *memory, size_t bytes, kvt_cache **cache);

/* The view of a group, for steps: it lives in the cache. NULL when there is no such group. */
KVT_API const kvt_view *kvt_cache_view(const kvt_cache *cache, uint32_t group);

/* ---- sequences ------------------------------------------------------------------------------------------------------------------- */

/* Calls that change a sequence change all of it or, with an error, nothing. Errors that all of them have: NULL (cache), SEQUENCE (no such sequence,
 * or rows of it wait for kvt_cache_work). kvt_cache_problem says why the last call for a sequence that had an error had it (KVT_NO_SEQUENCE: why
 * there is no new one); "" if none had. */
KVT_API void kvt_cache_problem(const kvt_cache *cache, uint32_t id, char *text, size_t bytes);

/* An empty sequence; its state is zeros. Errors: FULL (as many as the cache can have; `*id` is KVT_NO_SEQUENCE then). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_new(kvt_cache *cache, uint32_t *id);

/* Gives its blocks back; `id` may come again as another's. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_free(kvt_cache *cache, uint32_t id);

/* Tokens that are stored, and those that were appended since; 0 where there is no such sequence. */
KVT_API size_t kvt_cache_tokens(const kvt_cache *cache, uint32_t id);
KVT_API size_t kvt_cache_fresh(const kvt_cache *cache, uint32_t id);

/* Blocks for `fresh` new tokens. Called again before their steps it says another number of them (0: none; once steps have run kvt_cache_commit of 0
 * takes them back). It takes as long as there are new blocks, and copies rows of open pages that a fork shares. Errors: FULL (no blocks: nothing was
 * taken), RANGE (more tokens than a sequence has). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_append(kvt_cache *cache, uint32_t id, uint32_t fresh);

/* What steps have to know of the sequence in a group, with the new tokens and without masks. It is good until the sequence is changed. Errors: RANGE
 * (no such group). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_entry(const kvt_cache *cache, uint32_t id, uint32_t group, kvt_sequence *entry);

/* The first `accepted` of the new tokens count as stored, after the steps of all layers; the others are taken back as kvt_cache_truncate does.
 * Windows give blocks back. Errors: RANGE (more than there are; a window has given back what the remaining tokens would see). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_commit(kvt_cache *cache, uint32_t id, uint32_t accepted);

/* Another sequence with the same tokens and state: blocks are shared, and copied when one of them would write. Errors: FULL; RANGE (new tokens are
 * not committed). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_fork(kvt_cache *cache, uint32_t id, uint32_t *fork);

/* Only the first `tokens` stay. As long as their last page is one of the two newest that the sequence had, its rows are what they were; otherwise
 * they are read back from its page. New tokens whose steps have not run go. Errors: RANGE (more than there are; a window has given back what the
 * remaining tokens would see; no mark of the state there), FULL (a block for rows of an open page). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_truncate(kvt_cache *cache, uint32_t id, size_t tokens);

/* ---- cutting and shifting -------------------------------------------------------------------------------------------------------- */

/* Each of the three decides which tokens stay and how far their keys are turned, and every worker then calls kvt_cache_work, which moves rows; until
 * the last has, no other call for the sequence is right. A page that stays whole, in which nothing is turned, is not touched, and neither are values
 * of pages that stay whole: so runs of 64 tokens, at multiples of 64, are the best to remove. Rows of other pages are read, turned and stored anew,
 * in their own blocks, or in free ones where a fork shares them. Recurrent states stay as they are, and their marks go. Errors: FULL, RANGE (the
 * range; a window has given back what the remaining tokens would see; new tokens are not committed). */

/* What keys become. KEEP: positions stay with their tokens, so there is a hole. CLOSE: tokens behind move up, as if what is removed had never been.
 */
typedef enum kvt_positions { KVT_POSITIONS_KEEP = 0, KVT_POSITIONS_CLOSE = 1 } kvt_positions;

/* Tokens first .. end - 1 go. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_remove(kvt_cache *cache, uint32_t id, size_t first, size_t end, kvt_positions positions);

/* The `kept` tokens with the highest scores stay, of equal ones the newest; a NaN counts as the lowest. scores: [kvt_cache_tokens]. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_evict(kvt_cache *cache, uint32_t id, const float *scores, size_t kept, kvt_positions positions);

/* Positions of tokens first .. end - 1 grow by `positions`, at most 2^31 either way. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_shift(kvt_cache *cache, uint32_t id, size_t first, size_t end, int64_t positions);

/* What a worker needs; 0 when there is no cache. */
KVT_API size_t kvt_cache_work_bytes(const kvt_cache *cache);

/* A worker's share. Each has a workspace of its own, aligned to 64. Nothing is done where no rows wait. Errors: NULL, RANGE (worker, workspace). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_work(kvt_cache *cache, uint32_t id, uint32_t worker, uint32_t workers, void *workspace, size_t bytes);

/* ---- states of recurrent layers -------------------------------------------------------------------------------------------------- */

/* The sequence's state_bytes, aligned to 64. Between kvt_cache_append and kvt_cache_commit it may be written to, at other times it may be shared with
 * forks. A commit of fewer tokens than were appended needs a mark, as truncating does. NULL where there is none. */
KVT_API void *kvt_cache_state(const kvt_cache *cache, uint32_t id);

/* Keeps the state as it is, as that of the tokens that are stored; the oldest mark goes when there are too many. Errors: OPTIONS (the cache has no
 * marks), FULL, RANGE (new tokens are not committed). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_mark(kvt_cache *cache, uint32_t id);

/* The largest number of tokens, at most `tokens`, that the sequence can be truncated to; without states that is `tokens`. */
KVT_API size_t kvt_cache_mark_before(const kvt_cache *cache, uint32_t id, size_t tokens);

/* ---- statistics ------------------------------------------------------------------------------------------------------------------ */

/* Blocks of a kind: of all there are, those that nobody holds, and those that several sequences do. */
typedef struct kvt_cache_blocks {
    size_t bytes; /* of one block */
    size_t all, free, shared;
} kvt_cache_blocks;

typedef struct kvt_cache_statistics {
    size_t size;                                     /* sizeof(kvt_cache_statistics) */
    size_t memory_bytes;                             /* what kvt_cache_bytes says, of the whole cache: */
    size_t book_bytes;                               /* its tables and counts; the rest is blocks */
    kvt_cache_blocks pages, first_pages, open_pages; /* of the group */
    kvt_cache_blocks states;                         /* of the whole cache */
} kvt_cache_statistics;

/* Exact where no other call runs. `statistics->size` is set before. Errors: NULL, STRUCT_SIZE, RANGE (no such group). */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_measure(const kvt_cache *cache, uint32_t group, kvt_cache_statistics *statistics);

#ifdef __cplusplus
}
#endif

#endif
