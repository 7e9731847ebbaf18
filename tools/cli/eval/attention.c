/* SPDX-License-Identifier: MIT */
/* kvtile eval --attention: what storing costs where it counts, in the weights of attention and in its output. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/eval/head.h"
#include "tools/program/statistics.h"

#include <kvtile/attend.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 32 };
static const size_t NONE = (size_t)-1;

/* ---- what is measured ---- */

/* One way, over query rows of all heads and layers. */
typedef struct result {
    const eval_pair *way;
    size_t same_as;
    bool left_out;
    eval_divergence sums;
    eval_divergence *by_head; /* of all layers */
    eval_divergence by_position[BINS];
    double *kl;             /* of each query row; INFINITY of one that was lost */
    uint64_t page_bytes;    /* of all layers and KV heads */
    uint64_t all_bytes;     /* of all their pages, the first and the open one as they are */
    uint64_t page_numbers;  /* of a page of all layers and KV heads */
    uint64_t all_numbers;   /* of all their pages */
    kvt_layout layout;      /* of the layer that is being measured; not of other engines' formats */
    kvt_layout first, open; /* of the first and of the open page, where these are kept otherwise */
} result;

typedef struct measurement {
    const eval_layer *layers;
    size_t n_layers, n_heads, n_rows; /* KV heads and query rows of all layers */
    const eval_attention_options *options;
    result *results;
    size_t n;
    /* of the layer that is being measured: */
    size_t layer, first_head;
    eval_head head;
    unsigned char *pages, *first_pages, *open_pages;
    void *workspace;
    float *attended;            /* [group][v_dim] */
    float *first_k, *first_v;   /* what is left of the first page's rows */
    float *open_k, *open_v;     /* of all rows, where they are in the open page */
    float *closed_k, *closed_v; /* what is left of rows that are open now, once they are stored */
    size_t pages_bytes, side_bytes, workspace_bytes;
} measurement;

static bool keeps_first(const measurement *m)
{
    return m->options->first != KVT_SCHEME_NONE;
}
static bool keeps_open(const measurement *m)
{
    return m->options->open != KVT_SCHEME_NONE;
}

/* ---- layouts ---- */

static kvt_status init_layout(kvt_layout *layout, const measurement *m, const eval_pair *way)
{
    const eval_layer *layer = &m->layers[m->layer];
    return eval_pair_layout(layout, way, layer->k->dim, layer->v->dim, 1, m->options->tiers);
}

/* Rows of the first and the open page are rotated as the others are, since queries are rotated once. */
static kvt_status init_end(kvt_layout *layout, const measurement *m, kvt_scheme scheme, const eval_pair *way)
{
    if (scheme == KVT_SCHEME_NONE)
        return KVT_OK;
    const kvt_scheme_info *info = kvt_scheme_get(scheme);
    const eval_pair end = { { .scheme = info, .options = { .rotation = way->k.options.rotation } },
                            { .scheme = info, .options = { .rotation = way->v.options.rotation } } };
    return init_layout(layout, m, &end);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static kvt_status set_layouts(measurement *m, result *r)
{
    const eval_pair *way = r->way;
    const size_t tokens = m->layers[m->layer].k->tokens;
    size_t bytes = 0;
    kvt_status status = init_end(&r->first, m, m->options->first, way);
    if (status == KVT_OK)
        status = init_end(&r->open, m, m->options->open, way);
    if (status == KVT_OK && keeps_first(m))
        status = kvt_layout_bytes(&r->first, tokens, &bytes);
    m->side_bytes = larger(m->side_bytes, bytes);
    if (status == KVT_OK && keeps_open(m))
        status = kvt_layout_bytes(&r->open, tokens, &bytes);
    m->side_bytes = larger(m->side_bytes, bytes);
    if (status == KVT_OK)
        status = init_layout(&r->layout, m, way);
    if (status == KVT_OK)
        status = kvt_layout_bytes(&r->layout, tokens, &bytes);
    m->pages_bytes = larger(m->pages_bytes, bytes);
    if (eval_has_peer(way))
        return status;
    kvt_segment segments[3] = { { .layout = &r->layout } };
    size_t n_segments = 1;
    if (keeps_first(m))
        segments[n_segments++] = (kvt_segment){ .layout = &r->first, .first_token = KVT_PAGE_TOKENS };
    if (keeps_open(m))
        segments[n_segments++] = (kvt_segment){ .layout = &r->open, .first_token = 2 * KVT_PAGE_TOKENS };
    const kvt_attention empty = { .size = sizeof empty,
                                  .segments = segments,
                                  .n_segments = n_segments,
                                  .begin = 1, /* nothing is seen */
                                  .end = 1,
                                  .position = KVT_NO_MASK,
                                  .group = m->head.group,
                                  .query_tokens = 1,
                                  .query_dtype = KVT_F32,
                                  .out_dtype = KVT_F32,
                                  .scale = 1 };
    kvt_attend_sizes sizes = { 0 };
    if (status == KVT_OK)
        status = kvt_attend_plan_sizes(&empty, &sizes);
    m->workspace_bytes = larger(m->workspace_bytes, sizes.workspace_bytes);
    return status;
}

static void count_bytes(const measurement *m, result *r)
{
    const eval_layer *layer = &m->layers[m->layer];
    const uint32_t k_dim = layer->k->dim, v_dim = layer->v->dim;
    const size_t tokens = layer->k->tokens, pages = (tokens + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS;
    const uint64_t heads = layer->k->heads, numbers = (uint64_t)KVT_PAGE_TOKENS * (k_dim + v_dim);
    r->page_bytes += heads * eval_pair_page(r->way, k_dim, v_dim);
    r->page_numbers += heads * numbers;
    r->all_bytes += heads * eval_all_pages(r->way, k_dim, v_dim, keeps_first(m) ? &r->first : NULL, keeps_open(m) ? &r->open : NULL, tokens);
    r->all_numbers += heads * numbers * pages;
}

/* ---- storing ---- */

/* Rows of a head through one layout: what is left of them. back_k, back_v: NULL where the layout has another side in its place. */
static kvt_status through_layout(const kvt_layout *layout, void *memory, const eval_head *head, size_t tokens, kvt_pages *pages, float *back_k,
                                 float *back_v)
{
    const ptrdiff_t k_stride = (ptrdiff_t)(head->k_dim * sizeof(float)), v_stride = (ptrdiff_t)(head->v_dim * sizeof(float));
    kvt_status status = kvt_head_pages(layout, memory, head->tokens, 0, pages);
    if (status == KVT_OK && back_k)
        status = kvt_write(layout, KVT_K, pages, 0, tokens, head->k, KVT_F32, k_stride);
    if (status == KVT_OK && back_v)
        status = kvt_write(layout, KVT_V, pages, 0, tokens, head->v, KVT_F32, v_stride);
    if (status == KVT_OK && back_k)
        status = kvt_read(layout, KVT_K, pages, 0, tokens, back_k, KVT_F32, k_stride);
    if (status == KVT_OK && back_v)
        status = kvt_read(layout, KVT_V, pages, 0, tokens, back_v, KVT_F32, v_stride);
    return status;
}

/* Tokens before those that other engines' formats store in units. */
static size_t tokens_before(const measurement *m, size_t tokens)
{
    return !keeps_first(m) ? 0 : tokens < KVT_PAGE_TOKENS ? tokens : KVT_PAGE_TOKENS;
}

/* Sides in other engines' formats; a scheme beside one was stored with the layout. */
static int peers_through(const measurement *m, const eval_pair *way, error_text *error)
{
    const eval_head *h = &m->head;
    const eval_way *k = &way->k, *v = &way->v;
    const size_t before = tokens_before(m, h->tokens), n = h->tokens - before, at_k = before * h->k_dim, at_v = before * h->v_dim;
    if (k->peer != NULL && peer_store(k->peer, KVT_K, k->options.rotation, h->k + at_k, n, h->k_dim, h->back_k + at_k, error) != 0)
        return -1;
    return v->peer != NULL ? peer_store(v->peer, KVT_V, v->options.rotation, h->v + at_v, n, h->v_dim, h->back_v + at_v, error) : 0;
}

/* ---- asking ---- */

/* Segments of the tokens up to `position`: the first page, those between, the open one. Returns how many. */
static size_t segments_at(const measurement *m, const result *r, const kvt_pages pages[3], size_t position, kvt_segment segments[3])
{
    const size_t page = position / KVT_PAGE_TOKENS;
    const bool first = keeps_first(m) && (page > 0 || !keeps_open(m));
    size_t n = 0;
    if (first)
        segments[n++] = (kvt_segment){ .layout = &r->first, .pages = pages[0] };
    if (page > (first ? 1 : 0) || (!keeps_open(m) && page >= (first ? 1 : 0))) {
        segments[n] = (kvt_segment){ .layout = &r->layout, .pages = pages[1], .first_token = first ? KVT_PAGE_TOKENS : 0 };
        if (first) { /* of pages that begin with the second */
            segments[n].pages.base = (unsigned char *)pages[1].base + pages[1].stride;
            segments[n].pages.count--;
        }
        n++;
    }
    if (keeps_open(m)) {
        segments[n] = (kvt_segment){ .layout = &r->open, .pages = pages[2], .first_token = page * KVT_PAGE_TOKENS };
        segments[n].pages.base = (unsigned char *)pages[2].base + page * pages[2].stride;
        segments[n++].pages.count -= page;
    }
    return n;
}

static kvt_status attend_at(const measurement *m, const result *r, const kvt_pages pages[3], size_t i)
{
    const eval_head *head = &m->head;
    kvt_segment segments[3];
    const kvt_attention attention = {
        .size = sizeof attention,
        .segments = segments,
        .n_segments = segments_at(m, r, pages, head->position[i], segments),
        .end = head->position[i] + 1,
        .position = head->position[i],
        .group = head->group,
        .query_tokens = 1,
        .queries = head->q + i * head->group * head->k_dim,
        .query_dtype = KVT_F32,
        .query_head_stride = (ptrdiff_t)(head->k_dim * sizeof(float)),
        .out = m->attended,
        .out_dtype = KVT_F32,
        .out_head_stride = (ptrdiff_t)(head->v_dim * sizeof(float)),
        .scale = (float)head->scale,
    };
    kvt_attend_sizes sizes;
    kvt_status status = kvt_attend_plan_sizes(&attention, &sizes);
    if (status == KVT_OK && sizes.workspace_bytes > m->workspace_bytes)
        status = KVT_ERR_OVERFLOW; /* it depends on the group and the layouts only */
    return status == KVT_OK ? kvt_attend(&attention, m->workspace) : status;
}

/* The tokens that are open at `position`, as they are while they are, in the rows that came back; `closed` keeps what these were. */
static void open_rows(const measurement *m, const result *r, size_t position, bool opens)
{
    const eval_head *head = &m->head;
    const struct {
        const eval_way *way;
        float *back, *closed;
        const float *open;
        uint32_t dim;
    } sides[2] = { { &r->way->k, head->back_k, m->closed_k, m->open_k, head->k_dim },
                   { &r->way->v, head->back_v, m->closed_v, m->open_v, head->v_dim } };
    for (int i = 0; i < 2; i++) {
        const size_t first = eval_open_from(sides[i].way, keeps_first(m), position), dim = sides[i].dim,
                     bytes = (position + 1 - first) * dim * sizeof(float);
        float *rows = sides[i].back + first * dim;
        if (opens)
            memcpy(sides[i].closed, rows, bytes);
        memcpy(rows, opens ? sides[i].open + first * dim : sides[i].closed, bytes);
    }
}

static int measure_way(measurement *m, result *r, uint32_t h, error_text *error)
{
    const eval_head *head = &m->head;
    const size_t first_rows = head->tokens < KVT_PAGE_TOKENS ? head->tokens : KVT_PAGE_TOKENS;
    kvt_pages pages[3];
    kvt_status status = KVT_OK;
    status = through_layout(&r->layout, m->pages, head, head->tokens, &pages[1], r->way->k.peer ? NULL : head->back_k,
                            r->way->v.peer ? NULL : head->back_v);
    if (status == KVT_OK && peers_through(m, r->way, error) != 0)
        return -1;
    if (status == KVT_OK && keeps_first(m)) {
        status = through_layout(&r->first, m->first_pages, head, first_rows, &pages[0], m->first_k, m->first_v);
        memcpy(head->back_k, m->first_k, first_rows * head->k_dim * sizeof(float));
        memcpy(head->back_v, m->first_v, first_rows * head->v_dim * sizeof(float));
    }
    if (status == KVT_OK && keeps_open(m))
        status = through_layout(&r->open, m->open_pages, head, head->tokens, &pages[2], m->open_k, m->open_v);
    for (size_t i = 0; status == KVT_OK && i < head->positions; i++) {
        if (keeps_open(m))
            open_rows(m, r, head->position[i], true);
        if (!eval_has_peer(r->way))
            status = attend_at(m, r, pages, i);
        for (uint32_t g = 0; status == KVT_OK && g < head->group; g++) {
            eval_divergence row = { 0 };
            eval_head_compare(&row, head, i, g, eval_has_peer(r->way) ? NULL : m->attended + (size_t)g * head->v_dim);
            r->kl[r->sums.rows] = row.lost > 0 ? INFINITY : row.kl;
            eval_divergence_add(&r->sums, &row);
            eval_divergence_add(&r->by_head[m->first_head + h], &row);
            eval_divergence_add(&r->by_position[head->position[i] * BINS / head->tokens], &row);
        }
        if (keeps_open(m))
            open_rows(m, r, head->position[i], false);
    }
    return status == KVT_OK ? 0 : error_set(error, "cannot be attended as %s: %s", eval_pair_name(r->way).text, kvt_status_text(status));
}

/* ---- a layer ---- */

int eval_check_layer(const eval_layer *layer, size_t from, error_text *error)
{
    const rows_tensor *k = layer->k, *v = layer->v, *q = layer->q;
    if (k->heads != v->heads || k->tokens != v->tokens)
        return error_set(error, "has %u heads x %zu tokens, but its keys %u x %zu: the same would be right", v->heads, v->tokens, k->heads,
                         k->tokens);
    if (q && (q->tokens != k->tokens || q->dim != k->dim || q->heads % k->heads != 0 || q->heads / k->heads > KVT_MAX_GROUP))
        return error_set(
            error, "queries beside it have %u heads x %zu tokens x %u channels: a multiple of %u heads, up to %d times, x %zu x %u would be right",
            q->heads, q->tokens, q->dim, k->heads, KVT_MAX_GROUP, k->tokens, k->dim);
    if (from >= k->tokens)
        return error_set(error, "has %zu tokens: --from %zu leaves none", k->tokens, from);
    return 0;
}

static uint32_t query_group(const eval_layer *layer)
{
    return layer->q ? layer->q->heads / layer->k->heads : 1;
}

static size_t positions_of(const eval_layer *layer, const eval_attention_options *options)
{
    const size_t left = layer->k->tokens - options->from;
    return options->queries < left ? options->queries : left;
}

/* Rows of KV head h. */
static int load_head(measurement *m, uint32_t h, error_text *error)
{
    const eval_layer *layer = &m->layers[m->layer];
    eval_head *this_head = &m->head;
    rows_head_to_f32(layer->k, h, this_head->k);
    rows_head_to_f32(layer->v, h, this_head->v);
    eval_head_load_queries(this_head, layer->q, h * this_head->group, m->options->from);
    if (!eval_head_is_finite(this_head))
        return error_set(error, "has a NaN or an infinity in head %u: what attention makes of it cannot be compared", h);
    eval_head_find_truth(this_head);
    return 0;
}

/* Ways that the layer's widths make the same are left out where all layers' do. */
static int prepare_results(measurement *m, error_text *error)
{
    const eval_layer *layer = &m->layers[m->layer];
    m->pages_bytes = m->side_bytes = m->workspace_bytes = 64;
    for (size_t i = 0; i < m->n; i++) {
        result *r = &m->results[i];
        const kvt_status status = set_layouts(m, r);
        if (status != KVT_OK)
            return error_set(error, "cannot be stored as %s: %s", eval_pair_name(r->way).text, kvt_status_text(status));
        r->same_as = r->left_out ? NONE : i;
        for (size_t j = 0; j < i && r->same_as == i; j++)
            if (eval_same_way(&r->way->k, &m->results[j].way->k, eval_padded_dim(layer->k->dim)) &&
                eval_same_way(&r->way->v, &m->results[j].way->v, eval_padded_dim(layer->v->dim)))
                r->same_as = j;
    }
    return 0;
}

static int open_layer(measurement *m, error_text *error)
{
    const rows_tensor *k = m->layers[m->layer].k;
    const size_t k_row = k->dim * sizeof(float), v_row = m->head.v_dim * sizeof(float);
    m->pages = aligned_alloc(64, m->pages_bytes);
    m->first_pages = aligned_alloc(64, m->side_bytes);
    m->open_pages = aligned_alloc(64, m->side_bytes);
    m->workspace = malloc(m->workspace_bytes);
    m->attended = malloc(m->head.group * v_row);
    m->first_k = malloc(KVT_PAGE_TOKENS * k_row);
    m->first_v = malloc(KVT_PAGE_TOKENS * v_row);
    m->closed_k = malloc(PEER_MOST_UNIT * k_row);
    m->closed_v = malloc(PEER_MOST_UNIT * v_row);
    m->open_k = malloc(keeps_open(m) ? k->tokens * k_row : 1);
    m->open_v = malloc(keeps_open(m) ? k->tokens * v_row : 1);
    const bool is_made = eval_head_make(&m->head) == 0 && m->pages && m->first_pages && m->open_pages && m->workspace && m->attended && m->first_k &&
                         m->first_v && m->closed_k && m->closed_v && m->open_k && m->open_v;
    return is_made ? 0 : error_set(error, "has %zu tokens: more than memory holds", k->tokens);
}

static void close_layer(measurement *m)
{
    void *const all[] = { m->pages,   m->first_pages, m->open_pages, m->workspace, m->attended, m->first_k,
                          m->first_v, m->closed_k,    m->closed_v,   m->open_k,    m->open_v };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    eval_head_free(&m->head);
}

static int measure_layer(measurement *m, error_text *error)
{
    const eval_layer *layer = &m->layers[m->layer];
    const rows_tensor *k = layer->k;
    m->head = (eval_head){ .tokens = k->tokens,
                           .positions = positions_of(layer, m->options),
                           .k_dim = k->dim,
                           .v_dim = layer->v->dim,
                           .group = query_group(layer),
                           .scale = m->options->scale != 0 ? m->options->scale : 1 / sqrt((double)k->dim) };
    if (prepare_results(m, error) != 0)
        return -1;
    int status = open_layer(m, error);
    for (uint32_t h = 0; status == 0 && h < k->heads; h++) {
        status = load_head(m, h, error);
        for (size_t i = 0; status == 0 && i < m->n; i++) {
            if (m->results[i].same_as != i)
                continue;
            progress_show(m->options->progress, layer->name, (m->first_head + h) * m->n + i, m->n_heads * m->n,
                          eval_pair_name(m->results[i].way).text);
            status = measure_way(m, &m->results[i], h, error);
        }
    }
    for (size_t i = 0; status == 0 && i < m->n; i++)
        if (m->results[i].same_as == i)
            count_bytes(m, &m->results[i]);
    close_layer(m);
    m->first_head += k->heads;
    return status;
}

/* ---- reports ---- */

static double result_bits(const result *r)
{
    return 8.0 * (double)r->page_bytes / (double)r->page_numbers;
}
static double all_told(const result *r)
{
    return 8.0 * (double)r->all_bytes / (double)r->all_numbers;
}

/* The most bits first, then those that lost the fewest rows, then the smallest divergence. */
static int most_bits_first(const void *a, const void *b)
{
    const result *r = a, *other = b;
    if (result_bits(r) != result_bits(other))
        return result_bits(r) > result_bits(other) ? -1 : 1;
    if (r->sums.lost != other->sums.lost)
        return r->sums.lost < other->sums.lost ? -1 : 1;
    return r->sums.kl < other->sums.kl ? -1 : r->sums.kl > other->sums.kl;
}

/* What 99 % of the rows do not exceed; NAN where one was lost. Sorts them. */
static double kl_p99(result *r)
{
    return r->sums.lost == 0 ? statistics_quantile(r->kl, r->sums.rows, 0.99) : (double)NAN;
}

/* By how much our arithmetic adds to the error that exact arithmetic on the stored codes has; NaN where ours has no part in it. */
static double added_db(const result *r)
{
    const bool ours = !eval_has_peer(r->way) && r->way->k.scheme->scale_bytes > 0 && r->sums.of_codes > 0 && r->sums.error > 0 && r->sums.lost == 0;
    return ours ? 10 * log10(r->sums.error / r->sums.of_codes) : (double)NAN;
}

static void print_results(const measurement *m, result *results, size_t n)
{
    int width = eval_wider(0, "scheme");
    for (size_t i = 0; i < n; i++)
        width = eval_wider(width, eval_pair_name(results[i].way).text);
    const bool ends = keeps_first(m) || keeps_open(m);
    printf("  %-*s %-8s %-8s %-8s %6s %s%8s %8s %8s %8s %8s %8s\n", width, "scheme", "rotation", "centring", "detail", "bits", ends ? "  told " : "",
           "KL mean", "KL p99", "KL max", "same top", "error %", "added dB");
    for (size_t i = 0; i < n; i++) {
        result *r = &results[i];
        const eval_way *way = &r->way->k;
        const eval_divergence *sums = &r->sums;
        char told[16] = "";
        if (ends)
            snprintf(told, sizeof told, "%6.3f ", all_told(r));
        printf("  %-*s %-8s %-8s %-8s %6.3f %s%8s %8s %8s %8s %8s %8s\n", width, eval_pair_name(r->way).text, eval_rotation_name(way),
               eval_centring_name(way), eval_detail_of(way).text, result_bits(r), told, eval_number("%.2g", eval_mean_kl(sums), sums->lost).text,
               eval_number("%.2g", kl_p99(r), sums->lost).text, eval_number("%.2g", eval_most_kl(sums), sums->lost).text,
               eval_number("%.2f%%", 100 * eval_same_top(sums), sums->lost).text, eval_number("%.4f", 100 * eval_output_error(sums), sums->lost).text,
               eval_number("%.3f", added_db(r), 0).text);
    }
    for (size_t i = 0; i < n; i++)
        eval_say_lost(eval_pair_name(results[i].way).text, &results[i].way->k, results[i].sums.lost, results[i].sums.rows, "query rows");
    putchar('\n');
}

/* Of a part of the rows. */
static void set_divergence(json_t *object, const eval_divergence *sums)
{
    json_object_set_new(object, "lost", json_integer((json_int_t)sums->lost));
    json_object_set_new(object, "kl_mean", number_or_null(eval_mean_kl(sums)));
    json_object_set_new(object, "output_error", number_or_null(eval_output_error(sums)));
}

static json_t *heads_json(const measurement *m, const result *r)
{
    json_t *array = json_array();
    for (size_t layer = 0, at = 0; layer < m->n_layers; layer++)
        for (uint32_t h = 0; h < m->layers[layer].k->heads; h++, at++) {
            json_t *object = json_object();
            json_object_set_new(object, "layer", json_text(m->layers[layer].name));
            json_object_set_new(object, "kv_head", json_integer((json_int_t)h));
            set_divergence(object, &r->by_head[at]);
            json_array_append_new(array, object);
        }
    return array;
}

/* Of the longest layer's tokens; in others as many bins are as many tokens. */
static json_t *bins_json(const measurement *m, const result *r)
{
    size_t tokens = 0;
    for (size_t i = 0; i < m->n_layers; i++)
        tokens = larger(tokens, m->layers[i].k->tokens);
    json_t *array = json_array();
    for (size_t bin = 0; bin < BINS; bin++) {
        const eval_divergence *sums = &r->by_position[bin];
        if (sums->rows == 0)
            continue;
        json_t *object = json_object();
        json_object_set_new(object, "first", json_integer((json_int_t)((bin * tokens + BINS - 1) / BINS)));
        json_object_set_new(object, "last", json_integer((json_int_t)(((bin + 1) * tokens + BINS - 1) / BINS - 1)));
        set_divergence(object, sums);
        json_array_append_new(array, object);
    }
    return array;
}

static void append_results(json_t *array, const measurement *m, result *results, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        result *r = &results[i];
        const eval_divergence *sums = &r->sums;
        json_t *object = eval_pair_json(r->way);
        json_object_set_new(object, "first", name_or_null(keeps_first(m) ? kvt_scheme_get(m->options->first)->name : NULL));
        json_object_set_new(object, "open", name_or_null(keeps_open(m) ? kvt_scheme_get(m->options->open)->name : NULL));
        json_object_set_new(object, "layers", json_integer((json_int_t)m->n_layers));
        json_object_set_new(object, "query_rows", json_integer((json_int_t)sums->rows));
        json_object_set_new(object, "lost", json_integer((json_int_t)sums->lost));
        json_object_set_new(object, "real_queries", json_boolean(m->layers[0].q != NULL));
        json_object_set_new(object, "bits_per_element", json_real(result_bits(r)));
        json_object_set_new(object, "bits_all_told", json_real(all_told(r)));
        json_object_set_new(object, "kl_mean", number_or_null(eval_mean_kl(sums)));
        json_object_set_new(object, "kl_p99", number_or_null(kl_p99(r)));
        json_object_set_new(object, "kl_max", number_or_null(eval_most_kl(sums)));
        json_object_set_new(object, "same_top", number_or_null(eval_same_top(sums)));
        json_object_set_new(object, "output_error", number_or_null(eval_output_error(sums)));
        json_object_set_new(object, "output_error_of_codes", number_or_null(eval_output_error_of_codes(sums)));
        json_object_set_new(object, "by_head", heads_json(m, r));
        json_object_set_new(object, "by_position", bins_json(m, r));
        json_array_append_new(array, object);
    }
}

static int report_attention(const measurement *m, json_t *array, error_text *error)
{
    result *sorted = malloc((m->n + 1) * sizeof *sorted);
    size_t n = 0;
    if (sorted == NULL)
        return error_set(error, "cannot be reported: out of memory");
    for (size_t i = 0; i < m->n; i++)
        if (m->results[i].page_numbers > 0)
            sorted[n++] = m->results[i];
    qsort(sorted, n, sizeof *sorted, most_bits_first);
    const int status = n > 0 ? 0 : error_set(error, "leaves no scheme to compare");
    if (status == 0 && array != NULL)
        append_results(array, m, sorted, n);
    if (status == 0 && m->options->table) {
        printf("attention in %zu layer%s: %zu rows of %s\n", m->n_layers, m->n_layers == 1 ? "" : "s", sorted[0].sums.rows,
               m->layers[0].q ? "queries" : "keys that stand for queries, which are not given, scaled to logits with a standard deviation of 2");
        print_results(m, sorted, n);
    }
    free(sorted);
    return status;
}

/* ---- all ---- */

/* Formats of others that some layer has no whole unit of tokens for, unless all of them are in the first page, which is not theirs. */
static void leave_out(measurement *m)
{
    const eval_layer *shortest = &m->layers[0];
    for (size_t i = 1; i < m->n_layers; i++)
        shortest = m->layers[i].k->tokens < shortest->k->tokens ? &m->layers[i] : shortest;
    const size_t tokens = shortest->k->tokens - tokens_before(m, shortest->k->tokens);
    const eval_way *said = NULL;
    for (size_t i = 0; tokens > 0 && i < m->n; i++) {
        const eval_way *k = &m->results[i].way->k, *v = &m->results[i].way->v, *way = eval_is_too_short(k, tokens) ? k : v;
        m->results[i].left_out = eval_is_too_short(way, tokens);
        if (m->results[i].left_out && (said == NULL || said->peer != way->peer))
            eval_say_too_short(said = way, tokens, shortest->name);
    }
}

static int make_results(measurement *m, const eval_pairs *ways)
{
    m->n = ways->n;
    m->results = calloc(ways->n, sizeof *m->results);
    for (size_t i = 0; m->results != NULL && i < ways->n; i++) {
        m->results[i] = (result){ .way = &ways->pairs[i],
                                  .by_head = calloc(m->n_heads, sizeof *m->results[i].by_head),
                                  .kl = malloc((m->n_rows + 1) * sizeof *m->results[i].kl) };
        if (m->results[i].by_head == NULL || m->results[i].kl == NULL)
            return -1;
    }
    return m->results != NULL ? 0 : -1;
}

int eval_attention(const eval_layer *layers, size_t n_layers, const eval_pairs *ways, const eval_attention_options *options, json_t *array,
                   const char **about, error_text *error)
{
    measurement m = { .layers = layers, .n_layers = n_layers, .options = options };
    int status = 0;
    for (size_t i = 0; status == 0 && i < n_layers; i++) {
        *about = layers[i].name;
        status = eval_check_layer(&layers[i], options->from, error);
        if (status == 0) {
            m.n_heads += layers[i].k->heads;
            m.n_rows += layers[i].k->heads * positions_of(&layers[i], options) * query_group(&layers[i]);
        }
    }
    if (status == 0 && make_results(&m, ways) != 0)
        status = error_set(error, "cannot be evaluated: out of memory");
    if (status == 0)
        leave_out(&m);
    for (m.layer = 0; status == 0 && m.layer < n_layers; m.layer++) {
        *about = layers[m.layer].name;
        status = measure_layer(&m, error);
    }
    progress_end(options->progress);
    if (status == 0)
        status = report_attention(&m, array, error);
    for (size_t i = 0; m.results != NULL && i < m.n; i++) {
        free(m.results[i].by_head);
        free(m.results[i].kl);
    }
    free(m.results);
    return status;
}
