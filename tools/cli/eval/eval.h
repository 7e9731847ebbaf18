/* SPDX-License-Identifier: MIT */
/* What the parts of `kvtile eval` share: which ways of storing are compared (ways.c), what each costs (measure.c), and how that is
 * shown (report.c). What attention makes of them: attention.c, and of latents latent.c. */
#ifndef KVT_EVAL_H
#define KVT_EVAL_H

#include "tools/files/json.h"
#include "tools/peers/peers.h"
#include "tools/program/progress.h"
#include "tools/rows/rows.h"

#include <kvtile/kvtile.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- ways of storing ------------------------------------------------------------------------------------------------------------- */

/* One way of storing a side: a scheme, or a format of others, which has no options but the rotation. What a scheme does not have is zero in its
 * options. */
typedef struct eval_way {
    const kvt_scheme_info *scheme; /* NULL: */
    const peer_format *peer;
    kvt_side_options options;
} eval_way;

typedef struct eval_ways {
    eval_way *ways;
    size_t n;
} eval_ways;

/* Lists of words separated by commas, as given; NULL where the option was not. */
typedef struct eval_words {
    const char *schemes, *rotation, *centring, *effort, *fp8_block, *fp8_scale;
} eval_words;

/* Every combination of what was asked for, each once. 0, or -1 when a word means nothing, which was then printed. The caller frees `ways->ways`. */
int eval_choose_ways(eval_ways *ways, const eval_words *words, const char *who);

/* Schemes out of a list of words separated by commas, at most `most`; 0, or -1 when a word means nothing, which was then printed. */
int eval_choose_schemes(kvt_scheme *schemes, size_t *n, size_t most, const char *list, const char *option, const char *who);

/* One scheme, or "none", which is KVT_SCHEME_NONE; `standard` where nothing is given. Returns as eval_choose_schemes. */
int eval_choose_end(kvt_scheme *scheme, const char *text, kvt_scheme standard, const char *option, const char *who);

/* A whole number of at least `least`; 0, or -1 when the text is none, which was then printed. */
int eval_choose_count(size_t *to, const char *text, const char *option, size_t least, const char *who);

/* Keys in one way and values in another. */
typedef struct eval_pair {
    eval_way k, v;
} eval_pair;

typedef struct eval_pairs {
    eval_pair *pairs;
    size_t n;
} eval_pairs;

/* As eval_choose_ways, where a word of the list of schemes may also be two, "kv5/kv4": keys and values, in the same rotation and centring. The caller
 * frees `pairs->pairs`. */
int eval_choose_pairs(eval_pairs *pairs, const eval_words *words, const char *who);

/* Whether two ways store rows of this padded width alike to the byte: a block of 128 in a row of 64 is one of 64. */
bool eval_same_way(const eval_way *a, const eval_way *b, uint32_t padded_dim);

bool eval_same_pair(const eval_pair *a, const eval_pair *b, uint32_t padded_dim);

bool eval_has_peer(const eval_pair *pair);

/* Both sides in the layout, for `kv_heads` heads; a side in a format of others as the narrowest there is. */
kvt_status eval_pair_layout(kvt_layout *layout, const eval_pair *pair, uint32_t k_dim, uint32_t v_dim, uint32_t kv_heads, uint32_t tiers);

/* Bytes of a page of one head. */
size_t eval_pair_page(const eval_pair *pair, uint32_t k_dim, uint32_t v_dim);

/* Of a sequence's pages, one head. `first`, `open`: how the first page and the one that is not full are stored, or NULL: as the others. */
size_t eval_all_pages(const eval_pair *pair, uint32_t k_dim, uint32_t v_dim, const kvt_layout *first, const kvt_layout *open, size_t tokens);

/* Where there is an open page, tokens that leave it at once: a page, or a unit of a format of others that is longer. */
size_t eval_open_tokens(const eval_way *way);

/* The first token that is still open when `newest` has come. Units begin behind the first page where another scheme keeps that. */
size_t eval_open_from(const eval_way *way, bool keeps_first, size_t newest);

const char *eval_way_name(const eval_way *way);

/* Whether so many tokens are not even one unit of a format of others; and a word about it. */
bool eval_is_too_short(const eval_way *way, size_t tokens);
void eval_say_too_short(const eval_way *way, size_t tokens, const char *input);

/* Bytes of a page's rows in a format of others, to the next whole one. */
size_t eval_peer_page(const peer_format *peer, kvt_side side, uint32_t dim);

/* Of rows in tiles. */
uint32_t eval_padded_dim(uint32_t dim);

/* Names of options, as they are typed. NULL where the way does not have the option. */
const char *eval_rotation_name(const eval_way *way);
const char *eval_centring_name(const eval_way *way);
const char *eval_effort_name(const eval_way *way);
const char *eval_fp8_block_name(const eval_way *way);
const char *eval_fp8_scale_name(const eval_way *way);

/* The last columns of a way's name: its effort, or block and scale of FP8, or nothing. */
typedef struct eval_detail {
    char text[16];
} eval_detail;
eval_detail eval_detail_of(const eval_way *way);

/* "kv4", or of different schemes "kv5/kv4". */
typedef struct eval_pair_text {
    char text[40];
} eval_pair_text;
eval_pair_text eval_pair_name(const eval_pair *pair);

/* ---- measuring ------------------------------------------------------------------------------------------------------------------- */

/* The mean of decibels over heads. Heads without an error, or without energy, have no such number: they are counted and left out. */
typedef struct eval_mean {
    double sum;
    size_t n;
    size_t n_exact;
} eval_mean;

/* One way, over all heads of a tensor. */
typedef struct eval_result {
    const eval_way *way;
    size_t same_as;    /* index of the result that this one would repeat: its own unless the width makes two ways the same */
    kvt_layout layout; /* of one head */
    size_t page_bytes; /* of a page that holds this side of one head and nothing else */
    size_t pair_bytes; /* of a page that holds two sides like this one */
    double error_energy;
    double centred_error_energy; /* token 0 left out */
    double max_abs_error;
    uint64_t lost; /* rows of finite numbers that did not come back finite */
    double write_gbps;
    double read_gbps;
    eval_mean snr;
    eval_mean centred_snr;
} eval_result;

typedef struct eval_tensor {
    char *input;
    const rows_tensor *tensor;
    kvt_side side;
    size_t from; /* the first token measured */
    uint64_t nonfinite;
    size_t n_used;         /* rows that the sums are of */
    size_t n_centred_used; /* of these, not token 0 */
    double energy;
    double centred_energy;
    size_t n_results; /* one per way */
    eval_result *results;
} eval_tensor;

/* Memory that is used again for each tensor. Starts as zero; eval_space_free gives it back. */
typedef struct eval_space {
    size_t n_elements, n_tokens, n_channels, n_pages, n_bytes; /* that there is room for */
    float *rows;                                               /* [token][dim] of a block of one head */
    float *back;                                               /* what was read back */
    bool *used;                                                /* token of the head: all its numbers are finite */
    double *mean;                                              /* of each channel */
    void **table;                                              /* page of the head: where it is while it is needed */
    uint8_t *pages;
} eval_space;
void eval_space_free(eval_space *space);

/* Fills a tensor's sums and results; `input`, `tensor`, `side`, `from` and room for `ways->n` results are given. */
int eval_measure(eval_tensor *report, const eval_ways *ways, uint32_t tiers, bool speed, eval_space *space, progress *state, error_text *error);

/* ---- attention ------------------------------------------------------------------------------------------------------------------- */

typedef struct eval_layer {
    const char *name; /* of its keys, or what an error is about */
    const rows_tensor *k, *v;
    const rows_tensor *q; /* NULL: none */
} eval_layer;

typedef struct eval_attention_options {
    uint32_t tiers;
    size_t from;      /* the first token that asks */
    size_t queries;   /* at most so many tokens of a layer ask, evenly spaced */
    double scale;     /* of logits; 0: 1 / sqrt(head_dim) */
    kvt_scheme first; /* of the first page, in every way; KVT_SCHEME_NONE: as the others */
    kvt_scheme open;  /* of the page that the asking token is in, which is not full yet; KVT_SCHEME_NONE: as the others */
    bool table;       /* on stdout, whether or not an array is filled */
    progress *progress;
} eval_attention_options;

/* Causal attention over the layers' rows in each way, compared with attention over the rows as they are, in double precision. Appends to
 * `array`, where there is one; -1 with the error and what it is about. */
int eval_attention(const eval_layer *layers, size_t n_layers, const eval_pairs *ways, const eval_attention_options *options, json_t *array,
                   const char **about, error_text *error);

/* Whether keys, values and queries fit together, and tokens are left from `from` on. */
int eval_check_layer(const eval_layer *layer, size_t from, error_text *error);

/* ---- latents --------------------------------------------------------------------------------------------------------------------- */

enum { EVAL_MOST_RANKS = 16, EVAL_MOST_SCHEMES = 32 };

typedef struct eval_latent_options {
    uint32_t tiers;
    size_t from, queries; /* as above; with keys and values the tokens before `from` are what latents are made from, where there are some */
    double scale;
    bool table;
    uint32_t rope_dim; /* of latents: the last numbers of a row */
    kvt_scheme rope_schemes[EVAL_MOST_SCHEMES];
    size_t n_rope_schemes;
    uint32_t ranks[EVAL_MOST_RANKS]; /* of latents that are made; none: an eighth, a quarter and half of the numbers */
    size_t n_ranks;
    progress *progress;
} eval_latent_options;

/* Layers without values: their keys are latents, stored in each way, with each scheme for the rotary part, and as rows of other engines. With values:
 * the latents of each rank that are best for a layer's keys and values, by singular value decomposition, so stored, beside each way alone. Compared
 * and reported as attention is. */
int eval_latent(const eval_layer *layers, size_t n_layers, const eval_ways *ways, const eval_latent_options *options, json_t *array,
                const char **about, error_text *error);

/* The width of a column of texts, one more considered. */
int eval_wider(int width, const char *text);

/* A number in a table: "lost" where some row was, otherwise "-" for NAN. */
typedef struct eval_cell {
    char text[24];
} eval_cell;
eval_cell eval_number(const char *format, double value, uint64_t lost);

/* Says below a table that a way lost some of the rows; nothing when it lost none. `way`: whose options are named, or NULL; `what`: "rows", "query
 * rows", "predictions". */
void eval_say_lost(const char *name, const eval_way *way, uint64_t lost, uint64_t rows, const char *what);

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------ */

/* null for a number that is not finite, for no name. Texts: json_text. */
json_t *number_or_null(double value);
json_t *name_or_null(const char *name);

/* What is printed for programs: an array of objects, or, of the fields of them that are no arrays or objects themselves, a line each with commas
 * (RFC 4180). */
typedef enum eval_output { EVAL_TABLE, EVAL_JSON, EVAL_CSV } eval_output;
void eval_print_array(const json_t *array, eval_output output);

/* An object with a pair's schemes and options. */
json_t *eval_pair_json(const eval_pair *pair);

/* ---- reports --------------------------------------------------------------------------------------------------------------------- */

/* One row of a table. Decibels are INFINITY for no error at all, NAN where there is no such number. */
typedef struct eval_row {
    const eval_way *way;
    double bits;              /* of an element, in a page of this side alone */
    double pair_bits;         /* in a page of two sides like this one */
    uint64_t page_bytes;      /* of one head; 0 where tensors differ */
    uint64_t bytes_per_token; /* in all heads */
    double snr;
    double centred_snr;
    double max_abs_error; /* NAN when there is none, or rows were lost */
    uint64_t lost, rows;  /* of `rows`, which were measured */
    double write_gbps;    /* NAN: not measured */
    double read_gbps;
} eval_row;

/* What several tensors of one side have in common. */
typedef struct eval_summary {
    size_t n_tensors;
    size_t n_heads;
    size_t n_ways;
    struct eval_sum {
        bool shown;                                                           /* some tensor has it as a way of its own */
        uint64_t page_bytes, bytes_per_token, elements_per_token, pair_bytes; /* pair_bytes: of pages of all heads */
        eval_mean snr, centred_snr;
        double max_abs_error;
        uint64_t lost, rows;
        double write_gbps, read_gbps; /* sums over tensors */
    } * sums;
} eval_summary;

void eval_summary_add(eval_summary *summary, const eval_tensor *report);

/* Rows in order of bits, the largest first, then of SNR. `array` NULL: as a table on stdout, otherwise objects that are appended. -1: no memory. */
int eval_report_tensor(const eval_tensor *report, json_t *array);
int eval_report_summary(const eval_summary *summary, const eval_ways *ways, kvt_side side, size_t from, json_t *array);

#endif
