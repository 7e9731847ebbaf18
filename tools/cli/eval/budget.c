/* SPDX-License-Identifier: MIT */
/* kvtile eval --budget, --max-kl: a scheme for the keys and one for the values of each layer, out of what each costs there. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/eval/budget.h"

#include "tools/cli/eval/head.h"
#include "tools/files/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What one way costs one side of a layer, the other side being exact. */
typedef struct cost {
    double kl;         /* mean; of keys */
    double error;      /* energy of the output's error over that of the output */
    size_t lost, rows; /* query rows: a way that loses one is never chosen, and its other costs say nothing */
} cost;

typedef struct choice {
    size_t k, v;    /* ways */
    uint64_t bytes; /* of a page of all KV heads */
    double cost;    /* what is to be small */
    size_t units;   /* of a table, that it takes more than the layer's smallest choice */
} choice;

typedef struct layer_plan {
    cost *of_k, *of_v;        /* [way] */
    choice *front;            /* the smallest first; each next one takes more and costs less */
    size_t n_front, chosen;   /* chosen: index of front */
    eval_divergence measured; /* of what was chosen */
} layer_plan;

typedef struct search {
    const eval_layer *layers;
    layer_plan *plans;
    size_t n_layers;
    const eval_ways *ways;
    const eval_budget_options *options;
} search;

/* ---- measuring ---- */

static eval_divergence compare_all(eval_divergence sums, const eval_head *head)
{
    for (size_t i = 0; i < head->positions; i++)
        for (uint32_t g = 0; g < head->group; g++)
            eval_head_compare(&sums, head, i, g, NULL);
    return sums;
}

/* Fills back_k and back_v. */
static kvt_status store_head(const search *work, const eval_head *head, const eval_pair *pair, void *memory)
{
    const ptrdiff_t k_stride = (ptrdiff_t)(head->k_dim * sizeof(float)), v_stride = (ptrdiff_t)(head->v_dim * sizeof(float));
    kvt_layout layout;
    kvt_pages pages;
    kvt_status status = eval_pair_layout(&layout, pair, head->k_dim, head->v_dim, 1, work->options->tiers);
    if (status == KVT_OK)
        status = kvt_head_pages(&layout, memory, head->tokens, 0, &pages);
    if (status == KVT_OK)
        status = kvt_write(&layout, KVT_K, &pages, 0, head->tokens, head->k, KVT_F32, k_stride);
    if (status == KVT_OK)
        status = kvt_write(&layout, KVT_V, &pages, 0, head->tokens, head->v, KVT_F32, v_stride);
    if (status == KVT_OK)
        status = kvt_read(&layout, KVT_K, &pages, 0, head->tokens, head->back_k, KVT_F32, k_stride);
    if (status == KVT_OK)
        status = kvt_read(&layout, KVT_V, &pages, 0, head->tokens, head->back_v, KVT_F32, v_stride);
    return status;
}

typedef struct way_sums {
    eval_divergence k, v;
} way_sums;

/* Keys alone, and values alone, in each way. */
static kvt_status sum_ways(const search *work, const eval_head *head, void *memory, way_sums *sums)
{
    kvt_status status = KVT_OK;
    for (size_t w = 0; status == KVT_OK && w < work->ways->n; w++) {
        const eval_pair both = { work->ways->ways[w], work->ways->ways[w] };
        eval_head of_keys = *head, of_values = *head;
        of_keys.back_v = head->v;
        of_values.back_k = head->k;
        status = store_head(work, head, &both, memory);
        if (status == KVT_OK) {
            sums[w].k = compare_all(sums[w].k, &of_keys);
            sums[w].v = compare_all(sums[w].v, &of_values);
        }
    }
    return status;
}

static eval_pair chosen_pair(const search *work, const layer_plan *plan)
{
    const choice *chosen = &plan->front[plan->chosen];
    return (eval_pair){ work->ways->ways[chosen->k], work->ways->ways[chosen->v] };
}

static size_t memory_for(const search *work, const eval_layer *layer)
{
    size_t most = 64;
    for (size_t i = 0; i < work->ways->n; i++) {
        const eval_pair both = { work->ways->ways[i], work->ways->ways[i] };
        kvt_layout layout;
        size_t bytes;
        if (eval_pair_layout(&layout, &both, layer->k->dim, layer->v->dim, 1, work->options->tiers) == KVT_OK &&
            kvt_layout_bytes(&layout, layer->k->tokens, &bytes) == KVT_OK && bytes > most)
            most = bytes;
    }
    return 2 * most; /* the padding of a pair may be more than that of either alone */
}

/* All heads of a layer: of each way, `sums`; where that is NULL, of what was chosen. */
static int measure_layer_ways(search *work, size_t index, way_sums *sums, error_text *error)
{
    const eval_layer *layer = &work->layers[index];
    const eval_budget_options *options = work->options;
    const size_t left = layer->k->tokens - options->from;
    eval_head this_head = { .tokens = layer->k->tokens,
                            .positions = options->queries < left ? options->queries : left,
                            .k_dim = layer->k->dim,
                            .v_dim = layer->v->dim,
                            .group = layer->q ? layer->q->heads / layer->k->heads : 1,
                            .scale = options->scale != 0 ? options->scale : 1 / sqrt((double)layer->k->dim) };
    void *memory = aligned_alloc(64, memory_for(work, layer));
    int status = memory == NULL || eval_head_make(&this_head) != 0 ? error_set(error, "has %zu tokens: more than memory holds", this_head.tokens) : 0;
    for (uint32_t h = 0; status == 0 && h < layer->k->heads; h++) {
        progress_show(options->progress, layer->name, (sums ? 0 : work->n_layers) + index, 2 * work->n_layers, sums ? "each way" : "what was chosen");
        rows_head_to_f32(layer->k, h, this_head.k);
        rows_head_to_f32(layer->v, h, this_head.v);
        eval_head_load_queries(&this_head, layer->q, h * this_head.group, options->from);
        if (!eval_head_is_finite(&this_head)) {
            status = error_set(error, "has a NaN or an infinity in head %u: what attention makes of it cannot be compared", h);
            break;
        }
        eval_head_find_truth(&this_head);
        layer_plan *plan = &work->plans[index];
        kvt_status stored;
        if (sums) {
            stored = sum_ways(work, &this_head, memory, sums);
        } else {
            const eval_pair pair = chosen_pair(work, plan);
            stored = store_head(work, &this_head, &pair, memory);
            if (stored == KVT_OK)
                plan->measured = compare_all(plan->measured, &this_head);
        }
        if (stored != KVT_OK)
            status = error_set(error, "cannot be stored: %s", kvt_status_text(stored));
    }
    free(memory);
    eval_head_free(&this_head);
    return status;
}

static cost cost_of(const eval_divergence *sums)
{
    return (cost){ sums->kl / (double)sums->rows, sums->signal > 0 ? sums->error / sums->signal : 0, sums->lost, sums->rows };
}

static int find_costs(search *work, size_t index, error_text *error)
{
    layer_plan *plan = &work->plans[index];
    const size_t n = work->ways->n;
    way_sums *sums = calloc(n, sizeof *sums);
    plan->of_k = calloc(n, sizeof *plan->of_k);
    plan->of_v = calloc(n, sizeof *plan->of_v);
    plan->front = calloc(n * n, sizeof *plan->front);
    int status = sums && plan->of_k && plan->of_v && plan->front ? 0 : error_set(error, "out of memory");
    if (status == 0)
        status = measure_layer_ways(work, index, sums, error);
    for (size_t w = 0; status == 0 && w < n; w++) {
        plan->of_k[w] = cost_of(&sums[w].k);
        plan->of_v[w] = cost_of(&sums[w].v);
    }
    free(sums);
    return status;
}

/* ---- choosing ---- */

static int by_bytes(const void *a, const void *b)
{
    const choice *c = a, *other = b;
    if (c->bytes != other->bytes)
        return c->bytes < other->bytes ? -1 : 1;
    return c->cost < other->cost ? -1 : c->cost > other->cost;
}

/* Leaves out choices that another one beats in fewer bytes, or as many. */
static size_t keep_front(choice *front, size_t n)
{
    size_t kept = 0;
    qsort(front, n, sizeof *front, by_bytes);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || front[i].cost < front[kept - 1].cost)
            front[kept++] = front[i];
    return kept;
}

/* The way for values that takes least, of those whose error is not above that of the keys. Some way loses no rows. */
static size_t values_beside(const search *work, size_t index, size_t k)
{
    const layer_plan *plan = &work->plans[index];
    const eval_layer *layer = &work->layers[index];
    size_t best = 0;
    uint64_t best_bytes = UINT64_MAX;
    for (size_t v = 0; v < work->ways->n; v++) {
        if (plan->of_v[v].lost > 0)
            continue;
        const eval_pair pair = { work->ways->ways[k], work->ways->ways[v] };
        const uint64_t bytes = eval_pair_page(&pair, layer->k->dim, layer->v->dim);
        const bool fits = plan->of_v[v].error <= plan->of_k[k].error, best_fits = plan->of_v[best].error <= plan->of_k[k].error;
        if (best_bytes == UINT64_MAX || (fits && (!best_fits || bytes < best_bytes)) ||
            (!fits && !best_fits && plan->of_v[v].error < plan->of_v[best].error)) {
            best = v;
            best_bytes = bytes;
        }
    }
    return best;
}

static bool loses_all(const cost *ways, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ways[i].lost == 0)
            return false;
    return true;
}

/* With a budget, the error of the output is to be small, to which keys and values add independently; otherwise the divergence, to which only keys do.
 */
static int make_front(search *work, size_t index, error_text *error)
{
    const bool no_keys = loses_all(work->plans[index].of_k, work->ways->n), no_values = loses_all(work->plans[index].of_v, work->ways->n);
    if (no_keys || no_values)
        return error_set(error, "each of these schemes loses rows of its %s: others would be right, f32 loses none", no_keys ? "keys" : "values");
    layer_plan *plan = &work->plans[index];
    const eval_layer *layer = &work->layers[index];
    size_t n = 0;
    for (size_t k = 0; k < work->ways->n; k++)
        for (size_t v = 0; v < work->ways->n; v++) {
            const bool for_kl = work->options->max_kl > 0;
            if (plan->of_k[k].lost > 0 || plan->of_v[v].lost > 0 || (for_kl && v != values_beside(work, index, k)))
                continue;
            const eval_pair pair = { work->ways->ways[k], work->ways->ways[v] };
            plan->front[n++] = (choice){ k, v, layer->k->heads * (uint64_t)eval_pair_page(&pair, layer->k->dim, layer->v->dim),
                                         for_kl ? plan->of_k[k].kl : plan->of_k[k].error + plan->of_v[v].error, 0 };
        }
    plan->n_front = keep_front(plan->front, n);
    plan->chosen = 0;
    return 0;
}

static uint64_t chosen_bytes(const search *work)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < work->n_layers; i++)
        bytes += work->plans[i].front[work->plans[i].chosen].bytes;
    return bytes;
}

static uint64_t all_numbers(const search *work)
{
    uint64_t numbers = 0;
    for (size_t i = 0; i < work->n_layers; i++)
        numbers += (uint64_t)KVT_PAGE_TOKENS * work->layers[i].k->heads * (work->layers[i].k->dim + work->layers[i].v->dim);
    return numbers;
}

static double mean_cost(const search *work)
{
    double sum = 0;
    for (size_t i = 0; i < work->n_layers; i++)
        sum += work->plans[i].front[work->plans[i].chosen].cost;
    return sum / (double)work->n_layers;
}

static double bits_per_number(const search *work, uint64_t bytes)
{
    return 8.0 * (double)bytes / (double)all_numbers(work);
}

/* The best choice for all layers together, by dynamic programming over the bytes that they take beyond the least, in units that divide all of them.
 */
typedef struct table {
    uint64_t unit;
    size_t units;    /* beyond the least: there is a column for 0 .. units */
    double *cost;    /* [units + 1]: the least sum of the layers so far within so many units */
    double *next;    /* [units + 1]: of one layer more */
    uint32_t *taken; /* [layer][units + 1]: which choice of the layer that has */
} table;

enum { MOST_CELLS = 1 << 26 };

static int table_open(table *to, const search *work, double room, error_text *error)
{
    uint64_t most = 0;
    *to = (table){ .unit = 0 };
    for (size_t i = 0; i < work->n_layers; i++) {
        const layer_plan *plan = &work->plans[i];
        for (size_t j = 0; j < plan->n_front; j++)
            to->unit = common_divisor(to->unit, plan->front[j].bytes - plan->front[0].bytes);
        most += plan->front[plan->n_front - 1].bytes - plan->front[0].bytes;
    }
    to->unit = to->unit > 0 ? to->unit : 1;
    most = room < (double)most ? (uint64_t)room : most;
    while (most / to->unit >= MOST_CELLS / work->n_layers)
        to->unit *= 2;
    to->units = (size_t)(most / to->unit);
    /* Rounded up where units had to be larger than what divides all: what is chosen fits all the same. */
    for (size_t i = 0; i < work->n_layers; i++)
        for (size_t j = 0; j < work->plans[i].n_front; j++) {
            choice *c = &work->plans[i].front[j];
            c->units = (size_t)((c->bytes - work->plans[i].front[0].bytes + to->unit - 1) / to->unit);
        }
    to->cost = calloc(to->units + 1, sizeof *to->cost);
    to->next = calloc(to->units + 1, sizeof *to->next);
    to->taken = calloc(work->n_layers * (to->units + 1), sizeof *to->taken);
    return to->cost && to->next && to->taken ? 0 : error_set(error, "%zu layers: out of memory", work->n_layers);
}

static void table_close(table *t)
{
    free(t->cost);
    free(t->next);
    free(t->taken);
}

/* One layer more. */
static void table_add(table *to, const layer_plan *plan, size_t layer)
{
    uint32_t *taken = to->taken + layer * (to->units + 1);
    for (size_t u = 0; u <= to->units; u++) {
        to->next[u] = INFINITY;
        for (size_t j = 0; j < plan->n_front && plan->front[j].units <= u; j++) {
            const double sum = to->cost[u - plan->front[j].units] + plan->front[j].cost;
            if (sum < to->next[u]) {
                to->next[u] = sum;
                taken[u] = (uint32_t)j;
            }
        }
    }
    double *swapped = to->cost;
    to->cost = to->next;
    to->next = swapped;
}

/* With a budget all of it may be used; otherwise as little as the divergence allows. */
static int choose_within(search *work, double room, error_text *error)
{
    table all;
    int status = table_open(&all, work, room, error);
    for (size_t i = 0; status == 0 && i < work->n_layers; i++)
        table_add(&all, &work->plans[i], i);
    size_t u = status == 0 ? all.units : 0;
    const double most = work->options->max_kl * (double)work->n_layers;
    for (size_t less = 0; status == 0 && work->options->max_kl > 0 && less < all.units && u == all.units; less++)
        u = all.cost[less] <= most ? less : u;
    for (size_t i = work->n_layers; status == 0 && i-- > 0;) {
        layer_plan *plan = &work->plans[i];
        plan->chosen = all.taken[i * (all.units + 1) + u];
        u -= plan->front[plan->chosen].units;
    }
    table_close(&all);
    return status;
}

static int choose_ways(search *work, error_text *error)
{
    const eval_budget_options *options = work->options;
    const double budget = options->bytes > 0 ? options->bytes * KVT_PAGE_TOKENS : options->bits * (double)all_numbers(work) / 8;
    if (options->max_kl == 0 && (double)chosen_bytes(work) > budget)
        return error_set(error, "%.4g bits are too few: of these schemes %.4g, or %.1f bytes a token, are the least",
                         8 * budget / (double)all_numbers(work), bits_per_number(work, chosen_bytes(work)),
                         (double)chosen_bytes(work) / KVT_PAGE_TOKENS);
    if (choose_within(work, options->max_kl > 0 ? INFINITY : budget - (double)chosen_bytes(work), error) != 0)
        return -1;
    if (options->max_kl > 0 && mean_cost(work) > options->max_kl)
        return error_set(error, "no choice of these schemes has a divergence of %.3g: the least is %.3g", options->max_kl, mean_cost(work));
    return 0;
}

/* ---- reports ---- */

typedef struct totals {
    double kl, error; /* means over layers; error: of the energies' ratios */
} totals;

static totals expected(const search *work)
{
    totals sums = { 0, 0 };
    for (size_t i = 0; i < work->n_layers; i++) {
        const layer_plan *plan = &work->plans[i];
        const choice *chosen = &plan->front[plan->chosen];
        sums.kl += plan->of_k[chosen->k].kl / (double)work->n_layers;
        sums.error += (plan->of_k[chosen->k].error + plan->of_v[chosen->v].error) / (double)work->n_layers;
    }
    return sums;
}

static totals measured(const search *work)
{
    totals sums = { 0, 0 };
    for (size_t i = 0; i < work->n_layers; i++) {
        const cost price = cost_of(&work->plans[i].measured);
        sums.kl += price.kl / (double)work->n_layers;
        sums.error += price.error / (double)work->n_layers;
    }
    return sums;
}

static double layer_bits(const search *work, size_t i)
{
    const eval_layer *layer = &work->layers[i];
    const double numbers = (double)KVT_PAGE_TOKENS * layer->k->heads * (layer->k->dim + layer->v->dim);
    return 8.0 * (double)work->plans[i].front[work->plans[i].chosen].bytes / numbers;
}

/* One way of one side of one layer. */
typedef struct candidate {
    size_t layer;
    bool of_keys;
    const eval_way *way;
    const cost *cost;
} candidate;

/* Of 2 * layers * ways, in the order of layers, keys first. */
static candidate candidate_at(const search *work, size_t i)
{
    const size_t n = work->ways->n, way = i % n, layer = i / n / 2;
    const bool of_keys = i / n % 2 == 0;
    const layer_plan *plan = &work->plans[layer];
    return (candidate){ layer, of_keys, &work->ways->ways[way], of_keys ? &plan->of_k[way] : &plan->of_v[way] };
}

static void print_plan(const search *work)
{
    printf("%-6s %-6s %-8s %-8s %-6s %-8s %-8s %6s %10s %8s\n", "layer", "keys", "rotation", "centring", "values", "rotation", "centring", "bits",
           "KL mean", "error %");
    for (size_t i = 0; i < work->n_layers; i++) {
        const eval_pair pair = chosen_pair(work, &work->plans[i]);
        const cost price = cost_of(&work->plans[i].measured);
        printf("%-6zu %-6s %-8s %-8s %-6s %-8s %-8s %6.3f %10.3g %8.4f\n", i, eval_way_name(&pair.k), eval_rotation_name(&pair.k),
               eval_centring_name(&pair.k), eval_way_name(&pair.v), eval_rotation_name(&pair.v), eval_centring_name(&pair.v), layer_bits(work, i),
               price.kl, 100 * sqrt(price.error));
    }
    const totals is = measured(work), was = expected(work);
    const uint64_t bytes = chosen_bytes(work);
    printf("all    %.3f bits, %.1f bytes a token: KL %.3g, error %.4f %% (expected %.3g, %.4f %%)\n", bits_per_number(work, bytes),
           (double)bytes / KVT_PAGE_TOKENS, is.kl, 100 * sqrt(is.error), was.kl, 100 * sqrt(was.error));
    for (size_t i = 0; i < 2 * work->n_layers * work->ways->n; i++) {
        const candidate c = candidate_at(work, i);
        char name[80];
        snprintf(name, sizeof name, "not chosen: layer %zu, %s as %s", c.layer, c.of_keys ? "keys" : "values", eval_way_name(c.way));
        eval_say_lost(name, c.way, c.cost->lost, c.cost->rows, "query rows");
    }
}

/* What was not chosen because it loses rows. */
static json_t *lost_json(const search *work)
{
    json_t *array = json_array();
    for (size_t i = 0; i < 2 * work->n_layers * work->ways->n; i++) {
        const candidate c = candidate_at(work, i);
        if (c.cost->lost == 0)
            continue;
        json_t *object = json_object();
        json_object_set_new(object, "layer", json_text(work->layers[c.layer].name));
        json_object_set_new(object, "side", json_string(c.of_keys ? "k" : "v"));
        json_object_set_new(object, "way", eval_pair_json(&(eval_pair){ *c.way, *c.way }));
        json_object_set_new(object, "query_rows", json_integer((json_int_t)c.cost->rows));
        json_object_set_new(object, "lost", json_integer((json_int_t)c.cost->lost));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *budget_layers_json(const search *work)
{
    json_t *array = json_array();
    for (size_t i = 0; i < work->n_layers; i++) {
        const eval_pair pair = chosen_pair(work, &work->plans[i]);
        const cost price = cost_of(&work->plans[i].measured);
        json_t *object = json_object();
        json_object_set_new(object, "layer", json_text(work->layers[i].name));
        json_object_set_new(object, "k", eval_pair_json(&(eval_pair){ pair.k, pair.k }));
        json_object_set_new(object, "v", eval_pair_json(&(eval_pair){ pair.v, pair.v }));
        json_object_set_new(object, "bits_per_element", json_real(layer_bits(work, i)));
        json_object_set_new(object, "kl_mean", number_or_null(price.kl));
        json_object_set_new(object, "output_error", number_or_null(sqrt(price.error)));
        json_array_append_new(array, object);
    }
    return array;
}

static void append_plan(const search *work, json_t *array)
{
    const totals is = measured(work), was = expected(work);
    json_t *object = json_object();
    json_object_set_new(object, "layers", budget_layers_json(work));
    json_object_set_new(object, "bits_per_element", json_real(bits_per_number(work, chosen_bytes(work))));
    json_object_set_new(object, "bytes_per_token", json_real((double)chosen_bytes(work) / KVT_PAGE_TOKENS));
    json_object_set_new(object, "kl_mean", number_or_null(is.kl));
    json_object_set_new(object, "output_error", number_or_null(sqrt(is.error)));
    json_object_set_new(object, "expected_kl_mean", number_or_null(was.kl));
    json_object_set_new(object, "expected_output_error", number_or_null(sqrt(was.error)));
    json_object_set_new(object, "not_chosen", lost_json(work));
    json_array_append_new(array, object);
}

int eval_budget(const eval_layer *layers, size_t n_layers, const eval_ways *ways, const eval_budget_options *options, json_t *array,
                const char **about, error_text *error)
{
    search work = { layers, calloc(n_layers, sizeof(layer_plan)), n_layers, ways, options };
    *about = layers[0].name;
    int status = work.plans ? 0 : error_set(error, "cannot be evaluated: out of memory");
    for (size_t i = 0; status == 0 && i < n_layers; i++) {
        *about = layers[i].name;
        status = eval_check_layer(&layers[i], options->from, error);
        if (status == 0)
            status = find_costs(&work, i, error);
        if (status == 0)
            status = make_front(&work, i, error);
    }
    if (status == 0) {
        *about = options->max_kl > 0 ? "--max-kl" : "--budget";
        status = choose_ways(&work, error);
    }
    for (size_t i = 0; status == 0 && i < n_layers; i++) {
        *about = layers[i].name;
        status = measure_layer_ways(&work, i, NULL, error);
        const eval_divergence *measured_of = &work.plans[i].measured;
        if (status == 0 && measured_of->lost > 0) /* each alone did not */
            status =
                error_set(error, "loses %zu of %zu query rows with the keys and values that were chosen: another choice of --schemes would be right",
                          measured_of->lost, measured_of->rows);
    }
    progress_end(options->progress);
    if (status == 0 && array)
        append_plan(&work, array);
    else if (status == 0)
        print_plan(&work);
    for (size_t i = 0; work.plans && i < n_layers; i++) {
        free(work.plans[i].of_k);
        free(work.plans[i].of_v);
        free(work.plans[i].front);
    }
    free(work.plans);
    return status;
}
