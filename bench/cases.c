/* SPDX-License-Identifier: MIT */
#include "bench/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const BENCH_OP_NAMES[BENCH_N_OPS] = { "write", "read", "append", "import", "export", "attend" };
const char *const BENCH_WHERE_NAMES[BENCH_N_WHERE] = { "l2", "memory" };

kvt_row_format bench_row_format(const kvt_scheme_info *scheme)
{
    switch (scheme->scheme) {
    case KVT_SCHEME_q8_0:
        return KVT_ROW_ggml_q8_0;
    case KVT_SCHEME_q4_0:
    case KVT_SCHEME_kv4:
        return KVT_ROW_ggml_q4_0;
    case KVT_SCHEME_e4m3:
        return KVT_ROW_vllm_fp8;
    case KVT_SCHEME_kv8:
        return KVT_ROW_vllm_int8;
    case KVT_SCHEME_kv6:
        return KVT_ROW_ik_q6_0;
    case KVT_SCHEME_kv5:
        return KVT_ROW_ggml_q5_0;
    default:
        return (kvt_row_format)0;
    }
}

uint32_t bench_row_dim(const bench_case *case_)
{
    return case_->dim + (case_->rope != NULL ? BENCH_ROPE_DIM : 0);
}

kvt_status bench_case_layout(const bench_case *case_, kvt_layout *layout)
{
    kvt_spec spec = { .size = sizeof spec, .k_scheme = case_->scheme->scheme, .k_dim = case_->dim };
    spec.kv_heads = case_->op == BENCH_APPEND ? BENCH_APPEND_HEADS : case_->op == BENCH_ATTEND ? case_->kv_heads : 1;
    const kvt_status status = kvt_tiers_parse(kvt_tier_name(case_->tier), &spec.tiers);
    if (status != KVT_OK)
        return status;
    if (case_->op == BENCH_ATTEND || case_->side == KVT_K) {
        spec.k_options = case_->options;
    } else {
        spec.k_scheme = KVT_SCHEME_q4_0;
        spec.k_dim = 1;
    }
    if (case_->rope != NULL) {
        spec.rope_scheme = case_->rope->scheme;
        spec.rope_dim = BENCH_ROPE_DIM;
    } else if (case_->op == BENCH_ATTEND || case_->side == KVT_V) {
        spec.v_scheme = case_->scheme->scheme;
        spec.v_dim = case_->dim;
        spec.v_options = case_->options;
    }
    return kvt_layout_init(layout, &spec);
}

const char *bench_dtype_name(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? "f32" : dtype == KVT_F16 ? "f16" : "bf16";
}

uint32_t bench_best_tier(void)
{
    const char *best = kvt_scheme_tier(KVT_SCHEME_f32, 0);
    uint32_t id = 0;
    while (kvt_tier_name(id) == NULL || strcmp(kvt_tier_name(id), best) != 0)
        id++;
    return id;
}

static void join_word(char *text, size_t room, const char *word)
{
    const size_t length = strlen(text);
    snprintf(text + length, room - length, "%s%s", length > 0 ? "+" : "", word);
}

static void name_options(const kvt_side_options *options, char *text, size_t room)
{
    text[0] = '\0';
    if (options->rotation != KVT_ROTATION_NONE)
        join_word(text, room, options->rotation == KVT_ROTATION_64 ? "rot64" : "rot128");
    if (options->centring != KVT_CENTRING_NONE)
        join_word(text, room, options->centring == KVT_CENTRING_PAGE ? "page" : options->centring == KVT_CENTRING_OWN ? "own" : "sequence");
    if (options->effort != KVT_EFFORT_DEFAULT)
        join_word(text, room, options->effort == KVT_EFFORT_FAST ? "fast" : "best");
    if (options->fp8_block != 0) {
        char block[16];
        snprintf(block, sizeof block, "block%u", options->fp8_block);
        join_word(text, room, block);
    }
    if (options->fp8_scale != KVT_FP8_SCALE_F32)
        join_word(text, room, "e8m0");
}

bench_scheme_name bench_scheme_name_of(const bench_case *case_)
{
    bench_scheme_name name;
    snprintf(name.text, sizeof name.text, "%s%s%s", case_->scheme->name, case_->rope != NULL ? "+" : "",
             case_->rope != NULL ? case_->rope->name : "");
    return name;
}

void bench_case_name(const bench_case *case_, char name[BENCH_NAME_ROOM])
{
    char options[48];
    char tokens[16] = "fit";
    const char *op = BENCH_OP_NAMES[case_->op], *tier = kvt_tier_name(case_->tier), *where = BENCH_WHERE_NAMES[case_->where];
    const bench_scheme_name scheme = bench_scheme_name_of(case_);
    name_options(&case_->options, options, sizeof options);
    if (case_->op != BENCH_ATTEND) {
        snprintf(name, BENCH_NAME_ROOM, "%s/%s/%s/%s/%u/%s/%s/%s", op, scheme.text, case_->side == KVT_K ? "k" : "v", tier, case_->dim,
                 bench_dtype_name(case_->dtype), options[0] != '\0' ? options : "plain", where);
        return;
    }
    if (case_->tokens > 0)
        snprintf(tokens, sizeof tokens, "%u", case_->tokens);
    snprintf(name, BENCH_NAME_ROOM, "%s/%s/g%u/%s/%u/%s/t%u%s%s/%s", op, scheme.text, case_->group, tier, case_->dim, tokens, case_->threads,
             options[0] != '\0' ? "/" : "", options, where);
}

static int add_one(bench_cases *list, const bench_case *case_)
{
    kvt_layout layout;
    const bool searches = case_->scheme->scale_bytes == 1 && !case_->scheme->is_fp8; /* the others' encoders make no effort */
    const bool converts = case_->op == BENCH_IMPORT || case_->op == BENCH_EXPORT;
    const bool is_f32_only = converts || case_->op == BENCH_ATTEND;
    if (bench_case_layout(case_, &layout) != KVT_OK || (case_->options.effort != KVT_EFFORT_DEFAULT && !searches))
        return 0;
    if ((converts && bench_row_format(case_->scheme) == 0) || (is_f32_only && case_->dtype != KVT_F32))
        return 0;
    if ((list->n & (list->n - 1)) == 0) { /* room for a power of two of them */
        bench_case *larger = realloc(list->cases, (list->n > 0 ? list->n * 2 : 1) * sizeof *larger);
        if (larger == NULL)
            return -1;
        list->cases = larger;
    }
    list->cases[list->n++] = *case_;
    return 0;
}

/* Sides, tiers, widths and places of one operation in one scheme. */
static int add_scheme(bench_cases *list, const bench_selection *selection, bench_op op, const kvt_scheme_info *scheme)
{
    bench_case case_ = { .op = op, .scheme = scheme, .dtype = selection->dtype, .options = selection->options, .rope = selection->rope };
    int status = 0;
    for (int side = KVT_K; side <= (int)(selection->rope != NULL ? KVT_K : KVT_V); side++) {
        case_.side = side == KVT_K ? KVT_K : KVT_V;
        for (case_.tier = 0; (selection->sides >> side & 1) != 0 && case_.tier < 32; case_.tier++) {
            for (size_t d = 0; (selection->tiers >> case_.tier & 1) != 0 && d < selection->n_dims; d++) {
                case_.dim = selection->dims[d];
                for (int where = 0; status == 0 && where < BENCH_N_WHERE; where++) {
                    case_.where = where == BENCH_L2 ? BENCH_L2 : BENCH_MEMORY;
                    if ((selection->wheres >> where & 1) != 0)
                        status = add_one(list, &case_);
                }
            }
        }
    }
    return status;
}

/* Tokens of attend: the chosen numbers in memory, and once what fits in the L2 cache. */
static int add_attend_lengths(bench_cases *list, const bench_selection *selection, bench_case case_)
{
    int status = 0;
    case_.where = BENCH_L2;
    case_.kv_heads = case_.threads;
    if ((selection->wheres >> BENCH_L2 & 1) != 0)
        status = add_one(list, &case_);
    case_.where = BENCH_MEMORY;
    case_.kv_heads = selection->kv_heads;
    for (size_t t = 0; (selection->wheres >> BENCH_MEMORY & 1) != 0 && status == 0 && t < selection->n_tokens; t++) {
        case_.tokens = selection->tokens[t];
        status = add_one(list, &case_);
    }
    return status;
}

/* Tiers, widths, groups, threads and lengths of attention in one scheme. */
static int add_attend(bench_cases *list, const bench_selection *selection, const kvt_scheme_info *scheme)
{
    bench_case case_ = { .op = BENCH_ATTEND, .scheme = scheme, .dtype = selection->dtype, .options = selection->options, .rope = selection->rope };
    int status = 0;
    for (case_.tier = 0; case_.tier < 32; case_.tier++) {
        for (size_t d = 0; (selection->tiers >> case_.tier & 1) != 0 && d < selection->n_dims; d++) {
            case_.dim = selection->dims[d];
            for (size_t g = 0; g < selection->n_groups; g++) {
                case_.group = selection->groups[g];
                for (size_t t = 0; status == 0 && t < selection->n_threads; t++) {
                    case_.threads = selection->threads[t];
                    status = add_attend_lengths(list, selection, case_);
                }
            }
        }
    }
    return status;
}

int bench_cases_add(bench_cases *list, const bench_selection *selection)
{
    static const bench_op ops[] = { BENCH_WRITE, BENCH_READ, BENCH_APPEND, BENCH_IMPORT, BENCH_EXPORT, BENCH_ATTEND };
    int status = 0;
    for (size_t i = 0; i < BENCH_N_OPS; i++) {
        for (size_t s = 0; (selection->ops >> ops[i] & 1) != 0; s++) {
            if (selection->schemes != NULL && s >= selection->n_schemes)
                break;
            const kvt_scheme_info *scheme = selection->schemes != NULL ? selection->schemes[s] : kvt_scheme_at(s);
            if (scheme == NULL)
                break;
            status |= ops[i] == BENCH_ATTEND ? add_attend(list, selection, scheme) : add_scheme(list, selection, ops[i], scheme);
        }
    }
    return status;
}

static int add_all_attend(bench_cases *list)
{
    static const uint32_t dims[] = { 64, 128, 256, 512 };
    static const uint32_t groups[] = { 1, 4, 8, 16 };
    static const uint32_t tokens[] = { 4096, 32768, 131072 };
    static const uint32_t threads[] = { 1, 2 };
    const bench_selection all = { .ops = 1U << BENCH_ATTEND,
                                  .wheres = (1U << BENCH_N_WHERE) - 1,
                                  .tiers = kvt_tiers_usable(),
                                  .n_dims = sizeof dims / sizeof *dims,
                                  .dims = dims,
                                  .dtype = KVT_F32,
                                  .n_groups = sizeof groups / sizeof *groups,
                                  .groups = groups,
                                  .n_tokens = sizeof tokens / sizeof *tokens,
                                  .tokens = tokens,
                                  .n_threads = sizeof threads / sizeof *threads,
                                  .threads = threads,
                                  .kv_heads = BENCH_ATTEND_HEADS };
    return bench_cases_add(list, &all);
}

/* Latents of MLA with 20 heads, beside rotary parts in kv8. */
static int add_all_latents(bench_cases *list)
{
    static const uint32_t dims[] = { 512 }, groups[] = { 20 }, tokens[] = { 4096 }, threads[] = { 1 };
    const bench_selection all = { .ops = 1U << BENCH_WRITE | 1U << BENCH_ATTEND,
                                  .sides = 1U << KVT_LATENT,
                                  .wheres = (1U << BENCH_N_WHERE) - 1,
                                  .tiers = kvt_tiers_usable(),
                                  .n_dims = 1,
                                  .dims = dims,
                                  .dtype = KVT_F32,
                                  .n_groups = 1,
                                  .groups = groups,
                                  .n_tokens = 1,
                                  .tokens = tokens,
                                  .n_threads = 1,
                                  .threads = threads,
                                  .kv_heads = 1,
                                  .rope = kvt_scheme_get(KVT_SCHEME_kv8) };
    return bench_cases_add(list, &all);
}

int bench_cases_add_all(bench_cases *list)
{
    static const uint32_t dims[] = { 64, 128, 256 };
    static const struct variant {
        kvt_dtype dtype;
        kvt_side_options options;
    } variants[] = {
        { .dtype = KVT_F32 },
        { .dtype = KVT_F16 },
        { .dtype = KVT_BF16 },
        { .dtype = KVT_F32, .options = { .rotation = KVT_ROTATION_64 } },
        { .dtype = KVT_F32, .options = { .centring = KVT_CENTRING_PAGE } },
        { .dtype = KVT_F32, .options = { .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN } },
        { .dtype = KVT_F32, .options = { .effort = KVT_EFFORT_FAST } },
        { .dtype = KVT_F32, .options = { .effort = KVT_EFFORT_BEST } },
        { .dtype = KVT_F32, .options = { .fp8_block = 32, .fp8_scale = KVT_FP8_SCALE_E8M0 } },
    };
    int status = 0;
    for (size_t i = 0; status == 0 && i < sizeof variants / sizeof *variants; i++) {
        unsigned ops = (1U << BENCH_ATTEND) - 1; /* those before attend */
        if (variants[i].options.effort != KVT_EFFORT_DEFAULT)
            ops &= ~(1U << BENCH_READ | 1U << BENCH_EXPORT);
        if (variants[i].options.centring == KVT_CENTRING_OWN)
            ops &= ~(1U << BENCH_APPEND); /* whole pages */
        const bench_selection all = { .ops = ops,
                                      .sides = 3,
                                      .wheres = (1U << BENCH_N_WHERE) - 1,
                                      .tiers = kvt_tiers_usable(),
                                      .n_dims = sizeof dims / sizeof *dims,
                                      .dims = dims,
                                      .dtype = variants[i].dtype,
                                      .options = variants[i].options };
        status = bench_cases_add(list, &all);
    }
    if (status == 0)
        status = add_all_attend(list);
    return status != 0 ? status : add_all_latents(list);
}
