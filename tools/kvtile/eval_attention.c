/* kvtile eval --attention: what storing costs where it counts, in the weights of attention and in its output. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/eval_head.h"

#include <kvtile/attend.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is measured ---- */

/* One way, over query rows of all heads and layers. */
typedef struct result {
    const eval_way *way;
    size_t same_as;
    kvt_layout layout;
    eval_divergence sums;
    uint64_t page_bytes; /* of all layers and KV heads */
    uint64_t page_numbers;
} result;

/* What kvt_attend needs. */
typedef struct memory {
    unsigned char *pages;
    void *workspace;
    float *attended; /* [group][v_dim] */
} memory;

static kvt_attention ask(const eval_head *one, const kvt_segment *segment, size_t i, float *attended)
{
    return (kvt_attention){
        .size = sizeof(kvt_attention),
        .segments = segment,
        .n_segments = 1,
        .end = one->position[i] + 1,
        .position = one->position[i],
        .group = one->group,
        .query_tokens = 1,
        .queries = one->q + i * one->group * one->k_dim,
        .query_dtype = KVT_F32,
        .query_head_stride = (ptrdiff_t)(one->k_dim * sizeof(float)),
        .out = attended,
        .out_dtype = KVT_F32,
        .out_head_stride = (ptrdiff_t)(one->v_dim * sizeof(float)),
        .scale = (float)one->scale,
    };
}

static kvt_status measure_way(result *sums, const eval_head *one, const memory *space)
{
    kvt_segment segment = { .layout = &sums->layout };
    const ptrdiff_t k_stride = (ptrdiff_t)(one->k_dim * sizeof(float)), v_stride = (ptrdiff_t)(one->v_dim * sizeof(float));
    kvt_status status = kvt_head_pages(&sums->layout, space->pages, one->tokens, 0, &segment.pages);
    if (status == KVT_OK)
        status = kvt_write(&sums->layout, KVT_K, &segment.pages, 0, one->tokens, one->k, KVT_F32, k_stride);
    if (status == KVT_OK)
        status = kvt_write(&sums->layout, KVT_V, &segment.pages, 0, one->tokens, one->v, KVT_F32, v_stride);
    if (status == KVT_OK)
        status = kvt_read(&sums->layout, KVT_K, &segment.pages, 0, one->tokens, one->back_k, KVT_F32, k_stride);
    if (status == KVT_OK)
        status = kvt_read(&sums->layout, KVT_V, &segment.pages, 0, one->tokens, one->back_v, KVT_F32, v_stride);
    for (size_t i = 0; status == KVT_OK && i < one->positions; i++) {
        const kvt_attention attention = ask(one, &segment, i, space->attended);
        status = kvt_attend(&attention, space->workspace);
        for (uint32_t g = 0; status == KVT_OK && g < one->group; g++)
            eval_head_compare(&sums->sums, one, i, g, space->attended + (size_t)g * one->v_dim);
    }
    sums->page_bytes += sums->layout.page_bytes;
    sums->page_numbers += (uint64_t)KVT_PAGE_TOKENS * (one->k_dim + one->v_dim);
    return status;
}

/* ---- a layer ---- */

int eval_check_layer(const eval_layer *layer, size_t from, error_text *error)
{
    const rows_tensor *k = layer->k, *v = layer->v, *q = layer->q;
    if (k->heads != v->heads || k->tokens != v->tokens)
        return error_set(error, "has %u heads x %zu tokens, but its keys %u x %zu: the same would be right", v->heads, v->tokens, k->heads,
                         k->tokens);
    if (q && (q->tokens != k->tokens || q->dim != k->dim || q->heads % k->heads != 0 || q->heads / k->heads > KVT_MAX_GROUP))
        return error_set(error, "queries of %u heads x %zu tokens x %u channels: a multiple of %u heads, up to %d times, x %zu x %u would be right",
                         q->heads, q->tokens, q->dim, k->heads, KVT_MAX_GROUP, k->tokens, k->dim);
    if (from >= k->tokens)
        return error_set(error, "has %zu tokens: --from %zu leaves none", k->tokens, from);
    return 0;
}

/* Rows of KV head h. */
static int load_head(eval_head *one, const eval_layer *layer, uint32_t h, size_t from, error_text *error)
{
    rows_head_to_f32(layer->k, h, one->k);
    rows_head_to_f32(layer->v, h, one->v);
    eval_head_load_queries(one, layer->q, h * one->group, from);
    if (!eval_head_is_finite(one))
        return error_set(error, "has a NaN or an infinity in head %u, of which attention makes nothing that could be compared", h);
    return 0;
}

static int set_layouts(result *results, const eval_ways *ways, const eval_layer *layer, uint32_t tiers, size_t *page_bytes, size_t *workspace_bytes,
                       uint32_t group, error_text *error)
{
    const rows_tensor *k = layer->k, *v = layer->v;
    *page_bytes = *workspace_bytes = 0;
    for (size_t i = 0; i < ways->n; i++) {
        result *one = &results[i];
        const kvt_scheme scheme = ways->ways[i].scheme->scheme;
        const kvt_spec spec = { .size = sizeof spec,
                                .k_scheme = scheme,
                                .v_scheme = scheme,
                                .k_dim = k->dim,
                                .v_dim = v->dim,
                                .kv_heads = 1,
                                .tiers = tiers,
                                .k_options = ways->ways[i].options,
                                .v_options = ways->ways[i].options };
        size_t bytes;
        kvt_attend_sizes sizes;
        const kvt_segment segment = { .layout = &one->layout };
        const kvt_attention empty = { .size = sizeof empty,
                                      .segments = &segment,
                                      .n_segments = 1,
                                      .position = KVT_NO_MASK,
                                      .group = group,
                                      .query_tokens = 1,
                                      .query_dtype = KVT_F32,
                                      .out_dtype = KVT_F32,
                                      .scale = 1 };
        kvt_status status = kvt_layout_init(&one->layout, &spec);
        if (status == KVT_OK)
            status = kvt_layout_bytes(&one->layout, k->tokens, &bytes);
        if (status == KVT_OK)
            status = kvt_attend_plan_sizes(&empty, &sizes);
        if (status != KVT_OK)
            return error_set(error, "cannot be stored as %s: %s", ways->ways[i].scheme->name, kvt_status_text(status));
        *page_bytes = bytes > *page_bytes ? bytes : *page_bytes;
        *workspace_bytes = sizes.workspace_bytes > *workspace_bytes ? sizes.workspace_bytes : *workspace_bytes;
        one->same_as = i;
        for (size_t j = 0; j < i && one->same_as == i; j++)
            if (eval_same_way(&ways->ways[i], &ways->ways[j], one->layout.k.padded_dim) &&
                eval_same_way(&ways->ways[i], &ways->ways[j], one->layout.v.padded_dim))
                one->same_as = j;
    }
    return 0;
}

static int measure_layer(result *results, const eval_ways *ways, const eval_layer *layer, const eval_attention_options *options, error_text *error)
{
    if (eval_check_layer(layer, options->from, error) != 0)
        return -1;
    const rows_tensor *k = layer->k;
    const size_t left = k->tokens - options->from;
    eval_head one = { .tokens = k->tokens,
                      .positions = options->queries < left ? options->queries : left,
                      .k_dim = k->dim,
                      .v_dim = layer->v->dim,
                      .group = layer->q ? layer->q->heads / k->heads : 1,
                      .scale = options->scale != 0 ? options->scale : 1 / sqrt((double)k->dim) };
    size_t page_bytes, workspace_bytes;
    if (set_layouts(results, ways, layer, options->tiers, &page_bytes, &workspace_bytes, one.group, error) != 0)
        return -1;
    const memory space = { .pages = aligned_alloc(64, page_bytes),
                           .workspace = malloc(workspace_bytes),
                           .attended = malloc((size_t)one.group * one.v_dim * sizeof(float)) };
    int status = eval_head_make(&one) != 0 || !space.pages || !space.workspace || !space.attended
                     ? error_set(error, "has %zu tokens: more than memory holds", k->tokens)
                     : 0;
    for (uint32_t h = 0; status == 0 && h < k->heads; h++) {
        status = load_head(&one, layer, h, options->from, error);
        if (status == 0)
            eval_head_find_truth(&one);
        for (size_t i = 0; status == 0 && i < ways->n; i++) {
            if (results[i].same_as != i)
                continue;
            progress_show(options->progress, layer->name, h * ways->n + i, k->heads * ways->n, ways->ways[i].scheme->name);
            const kvt_status failed = measure_way(&results[i], &one, &space);
            if (failed != KVT_OK)
                status = error_set(error, "cannot be attended as %s: %s", ways->ways[i].scheme->name, kvt_status_text(failed));
        }
    }
    progress_end(options->progress);
    free(space.pages);
    free(space.workspace);
    free(space.attended);
    eval_head_free(&one);
    return status;
}

/* ---- reports ---- */

static double bits_of(const result *one)
{
    return 8.0 * (double)one->page_bytes / (double)one->page_numbers;
}

/* The most bits first, then the smallest divergence. */
static int by_bits(const void *a, const void *b)
{
    const result *one = a, *other = b;
    if (bits_of(one) != bits_of(other))
        return bits_of(one) > bits_of(other) ? -1 : 1;
    return one->sums.kl < other->sums.kl ? -1 : one->sums.kl > other->sums.kl;
}

/* By how much our arithmetic adds to the error that exact arithmetic on the stored codes has. */
static double added_db(const result *one)
{
    return one->sums.of_codes > 0 && one->sums.error > 0 ? 10 * log10(one->sums.error / one->sums.of_codes) : (double)NAN;
}

static void print_results(const result *results, size_t n)
{
    printf("  %-6s %-8s %-8s %-8s %6s %10s %10s %8s %8s %8s\n", "scheme", "rotation", "centring", "detail", "bits", "KL mean", "KL max", "same top",
           "error %", "added dB");
    for (size_t i = 0; i < n; i++) {
        const result *one = &results[i];
        const eval_divergence *sums = &one->sums;
        char added[16] = "-";
        if (one->way->scheme->scale_bytes > 0 && !isnan(added_db(one)))
            snprintf(added, sizeof added, "%.3f", added_db(one));
        printf("  %-6s %-8s %-8s %-8s %6.3f %10.3g %10.3g %7.2f%% %8.4f %8s\n", one->way->scheme->name, eval_rotation_name(one->way),
               eval_centring_name(one->way), eval_detail_of(one->way).text, bits_of(one), sums->kl / (double)sums->rows, sums->most_kl,
               100.0 * (double)sums->same_top / (double)sums->rows, 100 * sqrt(sums->error / sums->signal), added);
    }
    putchar('\n');
}

static void append_results(json_t *array, const result *results, size_t n, size_t layers, bool has_queries)
{
    for (size_t i = 0; i < n; i++) {
        const result *one = &results[i];
        const eval_divergence *sums = &one->sums;
        json_t *object = json_object();
        json_object_set_new(object, "scheme", json_string(one->way->scheme->name));
        json_object_set_new(object, "rotation", json_string(eval_rotation_name(one->way)));
        json_object_set_new(object, "centring", json_string(eval_centring_name(one->way)));
        json_object_set_new(object, "effort", name_or_null(eval_effort_name(one->way)));
        json_object_set_new(object, "fp8_block", name_or_null(eval_fp8_block_name(one->way)));
        json_object_set_new(object, "fp8_scale", name_or_null(eval_fp8_scale_name(one->way)));
        json_object_set_new(object, "layers", json_integer((json_int_t)layers));
        json_object_set_new(object, "query_rows", json_integer((json_int_t)sums->rows));
        json_object_set_new(object, "real_queries", json_boolean(has_queries));
        json_object_set_new(object, "bits_per_element", json_real(bits_of(one)));
        json_object_set_new(object, "kl_mean", number_or_null(sums->kl / (double)sums->rows));
        json_object_set_new(object, "kl_max", number_or_null(sums->most_kl));
        json_object_set_new(object, "same_top", json_real((double)sums->same_top / (double)sums->rows));
        json_object_set_new(object, "output_error", number_or_null(sqrt(sums->error / sums->signal)));
        json_object_set_new(object, "output_error_of_codes", number_or_null(sqrt(sums->of_codes / sums->signal)));
        json_array_append_new(array, object);
    }
}

int eval_attention(const eval_layer *layers, size_t n_layers, const eval_ways *ways, const eval_attention_options *options, json_t *array,
                   const char **about, error_text *error)
{
    result *results = calloc(ways->n, sizeof *results);
    *about = layers[0].name;
    if (results == NULL)
        return error_set(error, "cannot be evaluated: out of memory");
    for (size_t i = 0; i < ways->n; i++)
        results[i].way = &ways->ways[i];
    int status = 0;
    for (size_t i = 0; status == 0 && i < n_layers; i++) {
        *about = layers[i].name;
        status = measure_layer(results, ways, &layers[i], options, error);
    }
    size_t n = 0;
    for (size_t i = 0; status == 0 && i < ways->n; i++)
        if (results[i].page_numbers > 0)
            results[n++] = results[i];
    const bool has_queries = layers[0].q != NULL;
    if (status == 0)
        qsort(results, n, sizeof *results, by_bits);
    if (status == 0 && array != NULL)
        append_results(array, results, n, n_layers, has_queries);
    if (status == 0 && array == NULL) {
        printf("attention in %zu layer%s: %zu rows of %s\n", n_layers, n_layers == 1 ? "" : "s", results[0].sums.rows,
               has_queries ? "queries" : "keys that stand for queries, which are not given, scaled to logits with a standard deviation of 2");
        print_results(results, n);
    }
    free(results);
    return status;
}
