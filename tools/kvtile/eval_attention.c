/* kvtile eval --attention: what storing costs where it counts, in the weights of attention and in its output. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/eval.h"

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
    double kl, most_kl;  /* nats: the sum, the largest */
    size_t same_top;     /* rows whose most attended token is the same */
    double signal;       /* energy of exact outputs */
    double error;        /* of ours */
    double of_codes;     /* of exact arithmetic on what was stored */
    uint64_t page_bytes; /* of all layers and KV heads */
    uint64_t page_numbers;
} result;

/* One KV head and the query heads that share it. */
typedef struct head {
    size_t tokens, positions;
    uint32_t k_dim, v_dim, group;
    double scale;
    float *k, *v, *back_k, *back_v; /* [token][dim] */
    size_t *position;               /* [positions] */
    float *q;                       /* [position][group][k_dim] */
    double *logits;                 /* [position][group][token], of keys as they were */
    double *out;                    /* [position][group][v_dim], of values as they were */
    double *weights;                /* [token] */
    float *attended;                /* [group][v_dim] */
    unsigned char *pages;
    void *workspace;
} head;

static void head_free(head *one)
{
    void *const all[] = { one->k,      one->v,   one->back_k,  one->back_v,   one->position, one->q,
                          one->logits, one->out, one->weights, one->attended, one->pages,    one->workspace };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    *one = (head){ 0 };
}

static int head_make(head *one, size_t page_bytes, size_t workspace_bytes)
{
    const size_t rows = one->positions * one->group;
    one->k = malloc(one->tokens * one->k_dim * sizeof(float));
    one->v = malloc(one->tokens * one->v_dim * sizeof(float));
    one->back_k = malloc(one->tokens * one->k_dim * sizeof(float));
    one->back_v = malloc(one->tokens * one->v_dim * sizeof(float));
    one->position = malloc(one->positions * sizeof(size_t));
    one->q = malloc(rows * one->k_dim * sizeof(float));
    one->logits = malloc(rows * one->tokens * sizeof(double));
    one->out = malloc(rows * one->v_dim * sizeof(double));
    one->weights = malloc(one->tokens * sizeof(double));
    one->attended = malloc(one->group * one->v_dim * sizeof(float));
    one->pages = aligned_alloc(64, page_bytes);
    one->workspace = malloc(workspace_bytes);
    return one->k && one->v && one->back_k && one->back_v && one->position && one->q && one->logits && one->out && one->weights && one->attended &&
                   one->pages && one->workspace
               ? 0
               : -1;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Logits of the n first tokens to weights; returns the logarithm of what they were divided by, the largest logit included. */
static double softmax(const double *logits, double *weights, size_t n)
{
    double largest = logits[0];
    for (size_t t = 1; t < n; t++)
        largest = fmax(largest, logits[t]);
    double sum = 0;
    for (size_t t = 0; t < n; t++)
        sum += weights[t] = exp(logits[t] - largest);
    for (size_t t = 0; t < n; t++)
        weights[t] /= sum;
    return largest + log(sum);
}

static void weigh(double *out, const double *weights, const float *values, size_t n, uint32_t dim)
{
    for (uint32_t c = 0; c < dim; c++)
        out[c] = 0;
    for (size_t t = 0; t < n; t++)
        for (uint32_t c = 0; c < dim; c++)
            out[c] += weights[t] * values[t * dim + c];
}

static size_t top(const double *x, size_t n)
{
    size_t best = 0;
    for (size_t t = 1; t < n; t++)
        best = x[t] > x[best] ? t : best;
    return best;
}

/* Positions evenly over tokens `from` .. tokens-1, the last one among them. */
static void choose_positions(head *one, size_t from)
{
    const size_t span = one->tokens - from;
    for (size_t i = 0; i < one->positions; i++)
        one->position[i] = from + span * (i + 1) / one->positions - 1;
}

/* Without queries the key of the position stands for its query, scaled so that logits have a standard deviation of 2. */
static void invent_query(const head *one, size_t position, float *q)
{
    const float *key = one->k + position * one->k_dim;
    double sum = 0, squares = 0;
    for (size_t t = 0; t <= position; t++) {
        const double logit = dot(key, one->k + t * one->k_dim, one->k_dim) * one->scale;
        sum += logit;
        squares += logit * logit;
    }
    const double n = (double)position + 1, variance = squares / n - sum / n * (sum / n);
    const double factor = variance > 0 ? 2 / sqrt(variance) : 1;
    for (uint32_t c = 0; c < one->k_dim; c++)
        q[c] = (float)(key[c] * factor);
}

/* What attention over the numbers as they were gives. */
static void find_truth(head *one)
{
    for (size_t i = 0; i < one->positions; i++) {
        const size_t n = one->position[i] + 1;
        for (uint32_t g = 0; g < one->group; g++) {
            const size_t row = i * one->group + g;
            double *logits = one->logits + row * one->tokens;
            for (size_t t = 0; t < n; t++)
                logits[t] = dot(one->q + row * one->k_dim, one->k + t * one->k_dim, one->k_dim) * one->scale;
            softmax(logits, one->weights, n);
            weigh(one->out + row * one->v_dim, one->weights, one->v, n, one->v_dim);
        }
    }
}

static kvt_attention ask(const head *one, const kvt_segment *segment, size_t i)
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
        .out = one->attended,
        .out_dtype = KVT_F32,
        .out_head_stride = (ptrdiff_t)(one->v_dim * sizeof(float)),
        .scale = (float)one->scale,
    };
}

/* Compares one query row, whose kvt_attend result is `attended`. */
static void compare(result *sums, const head *one, size_t i, uint32_t g, double *logits, double *out)
{
    const size_t n = one->position[i] + 1, row = i * one->group + g;
    const double *truth = one->logits + row * one->tokens, *exact = one->out + row * one->v_dim;
    for (size_t t = 0; t < n; t++)
        logits[t] = dot(one->q + row * one->k_dim, one->back_k + t * one->k_dim, one->k_dim) * one->scale;
    const double log_sum = softmax(logits, one->weights, n);
    weigh(out, one->weights, one->back_v, n, one->v_dim);
    const double log_sum_of_truth = softmax(truth, one->weights, n);
    double kl = 0;
    for (size_t t = 0; t < n; t++)
        kl += one->weights[t] * ((truth[t] - log_sum_of_truth) - (logits[t] - log_sum));
    kl = fmax(kl, 0); /* rounding */
    sums->kl += kl;
    sums->most_kl = fmax(sums->most_kl, kl);
    sums->same_top += top(truth, n) == top(logits, n) ? 1 : 0;
    for (uint32_t c = 0; c < one->v_dim; c++) {
        const double ours = one->attended[(size_t)g * one->v_dim + c] - exact[c], of_codes = out[c] - exact[c];
        sums->signal += exact[c] * exact[c];
        sums->error += ours * ours;
        sums->of_codes += of_codes * of_codes;
    }
}

static kvt_status measure_way(result *sums, const head *one, double *logits, double *out)
{
    kvt_segment segment = { .layout = &sums->layout };
    const ptrdiff_t k_stride = (ptrdiff_t)(one->k_dim * sizeof(float)), v_stride = (ptrdiff_t)(one->v_dim * sizeof(float));
    kvt_status status = kvt_head_pages(&sums->layout, one->pages, one->tokens, 0, &segment.pages);
    if (status == KVT_OK)
        status = kvt_write(&sums->layout, KVT_K, &segment.pages, 0, one->tokens, one->k, KVT_F32, k_stride);
    if (status == KVT_OK)
        status = kvt_write(&sums->layout, KVT_V, &segment.pages, 0, one->tokens, one->v, KVT_F32, v_stride);
    if (status == KVT_OK)
        status = kvt_read(&sums->layout, KVT_K, &segment.pages, 0, one->tokens, one->back_k, KVT_F32, k_stride);
    if (status == KVT_OK)
        status = kvt_read(&sums->layout, KVT_V, &segment.pages, 0, one->tokens, one->back_v, KVT_F32, v_stride);
    for (size_t i = 0; status == KVT_OK && i < one->positions; i++) {
        const kvt_attention attention = ask(one, &segment, i);
        status = kvt_attend(&attention, one->workspace);
        for (uint32_t g = 0; status == KVT_OK && g < one->group; g++)
            compare(sums, one, i, g, logits, out);
    }
    sums->page_bytes += sums->layout.page_bytes;
    sums->page_numbers += (uint64_t)KVT_PAGE_TOKENS * (one->k_dim + one->v_dim);
    return status;
}

/* ---- a layer ---- */

static int check_layer(const eval_layer *layer, size_t from, error_text *error)
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

static bool are_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Rows of KV head h. */
static int load_head(head *one, const eval_layer *layer, uint32_t h, size_t from, error_text *error)
{
    rows_head_to_f32(layer->k, h, one->k);
    rows_head_to_f32(layer->v, h, one->v);
    choose_positions(one, from);
    for (uint32_t g = 0; g < one->group; g++) {
        float *rows = one->back_k; /* free until something is read back */
        if (layer->q)
            rows_head_to_f32(layer->q, h * one->group + g, rows);
        for (size_t i = 0; i < one->positions; i++) {
            float *q = one->q + (i * one->group + g) * one->k_dim;
            if (layer->q)
                memcpy(q, rows + one->position[i] * one->k_dim, one->k_dim * sizeof *q);
            else
                invent_query(one, one->position[i], q);
        }
    }
    if (!are_finite(one->k, one->tokens * one->k_dim) || !are_finite(one->v, one->tokens * one->v_dim) ||
        !are_finite(one->q, one->positions * one->group * one->k_dim))
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

static int measure_layer(result *results, const eval_ways *ways, const eval_layer *layer, const eval_attention_options *options, size_t *rows,
                         error_text *error)
{
    if (check_layer(layer, options->from, error) != 0)
        return -1;
    const rows_tensor *k = layer->k;
    const size_t left = k->tokens - options->from;
    head one = { .tokens = k->tokens,
                 .positions = options->queries < left ? options->queries : left,
                 .k_dim = k->dim,
                 .v_dim = layer->v->dim,
                 .group = layer->q ? layer->q->heads / k->heads : 1,
                 .scale = options->scale != 0 ? options->scale : 1 / sqrt((double)k->dim) };
    size_t page_bytes, workspace_bytes;
    if (set_layouts(results, ways, layer, options->tiers, &page_bytes, &workspace_bytes, one.group, error) != 0)
        return -1;
    double *logits = malloc(one.tokens * sizeof *logits), *out = malloc(one.v_dim * sizeof *out);
    int status = head_make(&one, page_bytes, workspace_bytes) != 0 || !logits || !out
                     ? error_set(error, "has %zu tokens: more than memory holds", k->tokens)
                     : 0;
    for (uint32_t h = 0; status == 0 && h < k->heads; h++) {
        status = load_head(&one, layer, h, options->from, error);
        if (status == 0)
            find_truth(&one);
        for (size_t i = 0; status == 0 && i < ways->n; i++) {
            if (results[i].same_as != i)
                continue;
            eval_progress_show(options->progress, layer->name, (h * ways->n + i) * 100 / (k->heads * ways->n), ways->ways[i].scheme->name);
            const kvt_status failed = measure_way(&results[i], &one, logits, out);
            if (failed != KVT_OK)
                status = error_set(error, "cannot be attended as %s: %s", ways->ways[i].scheme->name, kvt_status_text(failed));
        }
        *rows += one.positions * one.group;
    }
    eval_progress_clear(options->progress);
    free(logits);
    free(out);
    head_free(&one);
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
    return one->kl < other->kl ? -1 : one->kl > other->kl;
}

/* By how much our arithmetic adds to the error that exact arithmetic on the stored codes has. */
static double added_db(const result *one)
{
    return one->of_codes > 0 && one->error > 0 ? 10 * log10(one->error / one->of_codes) : (double)NAN;
}

static void print_results(const result *results, size_t n, size_t rows)
{
    printf("  %-6s %-8s %-8s %-8s %6s %10s %10s %8s %8s %8s\n", "scheme", "rotation", "centring", "detail", "bits", "KL mean", "KL max", "same top",
           "error %", "added dB");
    for (size_t i = 0; i < n; i++) {
        const result *one = &results[i];
        char added[16] = "-";
        if (one->way->scheme->scale_bytes > 0 && !isnan(added_db(one)))
            snprintf(added, sizeof added, "%.3f", added_db(one));
        printf("  %-6s %-8s %-8s %-8s %6.3f %10.3g %10.3g %7.2f%% %8.4f %8s\n", one->way->scheme->name, eval_rotation_name(one->way),
               eval_centring_name(one->way), eval_detail_of(one->way).text, bits_of(one), one->kl / (double)rows, one->most_kl,
               100.0 * (double)one->same_top / (double)rows, 100 * sqrt(one->error / one->signal), added);
    }
    putchar('\n');
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}
static json_t *name_or_null(const char *name)
{
    return name != NULL ? json_string(name) : json_null();
}

static void append_results(json_t *array, const result *results, size_t n, size_t rows, size_t layers, bool has_queries)
{
    for (size_t i = 0; i < n; i++) {
        const result *one = &results[i];
        json_t *object = json_object();
        json_object_set_new(object, "scheme", json_string(one->way->scheme->name));
        json_object_set_new(object, "rotation", json_string(eval_rotation_name(one->way)));
        json_object_set_new(object, "centring", json_string(eval_centring_name(one->way)));
        json_object_set_new(object, "effort", name_or_null(eval_effort_name(one->way)));
        json_object_set_new(object, "fp8_block", name_or_null(eval_fp8_block_name(one->way)));
        json_object_set_new(object, "fp8_scale", name_or_null(eval_fp8_scale_name(one->way)));
        json_object_set_new(object, "layers", json_integer((json_int_t)layers));
        json_object_set_new(object, "query_rows", json_integer((json_int_t)rows));
        json_object_set_new(object, "real_queries", json_boolean(has_queries));
        json_object_set_new(object, "bits_per_element", json_real(bits_of(one)));
        json_object_set_new(object, "kl_mean", number_or_null(one->kl / (double)rows));
        json_object_set_new(object, "kl_max", number_or_null(one->most_kl));
        json_object_set_new(object, "same_top", json_real((double)one->same_top / (double)rows));
        json_object_set_new(object, "output_error", number_or_null(sqrt(one->error / one->signal)));
        json_object_set_new(object, "output_error_of_codes", number_or_null(sqrt(one->of_codes / one->signal)));
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
    size_t rows = 0;
    int status = 0;
    for (size_t i = 0; status == 0 && i < n_layers; i++) {
        *about = layers[i].name;
        status = measure_layer(results, ways, &layers[i], options, &rows, error);
    }
    size_t n = 0;
    for (size_t i = 0; status == 0 && i < ways->n; i++)
        if (results[i].page_numbers > 0)
            results[n++] = results[i];
    const bool has_queries = layers[0].q != NULL;
    if (status == 0)
        qsort(results, n, sizeof *results, by_bits);
    if (status == 0 && array != NULL)
        append_results(array, results, n, rows, n_layers, has_queries);
    if (status == 0 && array == NULL) {
        printf("attention in %zu layer%s: %zu rows of %s\n", n_layers, n_layers == 1 ? "" : "s", rows,
               has_queries ? "queries" : "keys that stand for queries, which are not given, scaled to logits with a standard deviation of 2");
        print_results(results, n, rows);
    }
    free(results);
    return status;
}
