/* kvtile eval --model: what storing does to the rows of a cache. */
#include "tools/cli/eval/stored.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void keep_status(eval_stored *to, kvt_status status)
{
    if (status == KVT_OK || to->failed)
        return;
    to->failed = true;
    error_set(&to->error, "cannot be stored as %s: %s", eval_pair_name(to->way).text, kvt_status_text(status));
}

/* What a scheme makes of n rows of a page. */
static void pass_through(eval_stored *to, eval_single *by, kvt_side side, size_t n, float *rows)
{
    const ptrdiff_t stride = (ptrdiff_t)(to->cache->model->head_dim * sizeof(float));
    keep_status(to, kvt_write(&by->layout, side, &by->pages, 0, n, rows, KVT_F32, stride));
    keep_status(to, kvt_read(&by->layout, side, &by->pages, 0, n, rows, KVT_F32, stride));
}

/* Rows of tokens first .. first + n - 1 of one head become what storing leaves of them. n is a page, from its beginning, or one token. The first page
 * is stored even where another scheme keeps it: the next one's centre comes from it. */
static void store_rows(eval_stored *to, kvt_side side, size_t layer, size_t head, size_t first, size_t n, float *rows)
{
    const kvt_pages *pages = &to->pages[(layer - to->first_layer) * to->cache->model->kv_heads + head];
    const ptrdiff_t stride = (ptrdiff_t)(to->cache->model->head_dim * sizeof(float));
    keep_status(to, kvt_write(&to->layout, side, pages, first, n, rows, KVT_F32, stride));
    if (to->first.used && first < KVT_PAGE_TOKENS)
        pass_through(to, &to->first, side, n, rows);
    else
        keep_status(to, kvt_read(&to->layout, side, pages, first, n, rows, KVT_F32, stride));
}

/* The same in a format of others, as soon as a unit of tokens is full, at least a page where there is an open page. Units begin behind the first page
 * where another scheme keeps that. */
static void store_peer(eval_stored *to, const eval_way *way, kvt_side side, size_t position, float *rows)
{
    const uint32_t dim = to->cache->model->head_dim;
    const size_t begin = to->first.used ? KVT_PAGE_TOKENS : 0, page = to->open.used ? KVT_PAGE_TOKENS : 1, end = position + 1,
                 n = way->peer->unit > page ? way->peer->unit : page;
    if (end <= begin) {
        if (end % page == 0)
            pass_through(to, &to->first, side, page, rows + (end - page) * dim);
        return;
    }
    if ((end - begin) % n != 0 || to->failed)
        return;
    float *from = rows + (end - n) * dim;
    to->failed = peer_store(way->peer, side, way->options.rotation, from, n, dim, to->peer_rows, &to->error) != 0;
    if (!to->failed)
        memcpy(from, to->peer_rows, n * dim * sizeof *from);
}

/* Whether n rows are all finite. */
static bool are_finite(const float *rows, size_t n, uint32_t dim)
{
    for (size_t i = 0; i < n * dim; i++)
        if (!isfinite(rows[i]))
            return false;
    return true;
}

/* Called by the cache. With an open page, rows go there first, and all 64 of them are stored when it is full; otherwise each at once. */
static void appended(void *owner, size_t layer, size_t position)
{
    eval_stored *to = owner;
    const checkpoint *model = to->cache->model;
    if (layer < to->first_layer || layer >= to->first_layer + to->layers)
        return;
    to->lost = to->lost && (position > 0 || layer > to->first_layer); /* a sequence begins anew */
    const bool full = position % KVT_PAGE_TOKENS == KVT_PAGE_TOKENS - 1;
    const size_t n = !to->open.used ? 1 : full ? KVT_PAGE_TOKENS : 0;
    for (size_t i = 0; i < 2 * model->kv_heads; i++) {
        const size_t head = i / 2, first = position + 1 - n;
        const kvt_side side = i % 2 == 0 ? KVT_K : KVT_V;
        float *rows = (side == KVT_K ? to->cache->keys : to->cache->values) + (layer * model->kv_heads + head) * to->cache->room * model->head_dim;
        if (!to->sides[i % 2])
            continue;
        if (to->open.used)
            pass_through(to, &to->open, side, 1, rows + position * model->head_dim);
        const eval_way *way = side == KVT_K ? &to->way->k : &to->way->v;
        if (way->peer != NULL)
            store_peer(to, way, side, position, rows);
        else if (n > 0)
            store_rows(to, side, layer, head, first, n, rows + first * model->head_dim);
        /* What has changed now: this row, or at the end of a page or a unit as many before it as these may have. */
        const size_t end = position + 1, most = end % KVT_TILE_TOKENS == 0 ? PEER_MOST_UNIT : 1, since = end < most ? 0 : end - most;
        to->lost = to->lost || !are_finite(rows + since * model->head_dim, end - since, model->head_dim);
    }
}

static int single_open(eval_single *one, kvt_scheme scheme, kvt_rotation rotation, uint32_t dim, error_text *error)
{
    one->used = scheme != KVT_SCHEME_NONE;
    if (!one->used)
        return 0;
    const eval_way way = { .scheme = kvt_scheme_get(scheme), .options = { .rotation = rotation } };
    const checkpoint head = { .head_dim = dim, .kv_heads = 1 };
    if (eval_stored_layout(&one->layout, &(eval_pair){ way, way }, &head, error) != 0)
        return -1;
    one->memory = aligned_alloc(64, one->layout.page_bytes);
    if (one->memory == NULL)
        return error_set(error, "a page of %s: out of memory", way.scheme->name);
    one->pages = (kvt_pages){ .base = one->memory, .stride = one->layout.page_bytes, .count = 1 };
    return 0;
}

int eval_stored_layout(kvt_layout *layout, const eval_pair *way, const checkpoint *model, error_text *error)
{
    const kvt_status status = eval_pair_layout(layout, way, model->head_dim, model->head_dim, model->kv_heads, 0);
    if (status == KVT_OK)
        return 0;
    return error_set(error, "head_dim is %" PRIu32 " with %" PRIu32 " kv heads, as %s: %s", model->head_dim, model->kv_heads,
                     eval_pair_name(way).text, kvt_status_text(status));
}

/* The first page is rotated, which costs nothing and saves what one scale for a whole row would lose. */
int eval_stored_open(eval_stored *to, kv_cache *cache, const eval_pair *way, kvt_scheme first, kvt_scheme open, error_text *error)
{
    const checkpoint *model = cache->model;
    const size_t heads = (size_t)to->layers * model->kv_heads; /* below 2^40 */
    const size_t pages = (cache->room + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS;
    size_t bytes;
    to->cache = cache;
    to->way = way;
    if (eval_stored_layout(&to->layout, way, model, error) != 0 || single_open(&to->first, first, KVT_ROTATION_64, model->head_dim, error) != 0 ||
        single_open(&to->open, open, KVT_ROTATION_NONE, model->head_dim, error) != 0)
        return -1;
    to->pages = calloc(heads, sizeof *to->pages);
    to->memory = __builtin_mul_overflow(heads * pages, to->layout.page_bytes, &bytes) ? NULL : aligned_alloc(64, bytes);
    to->peer_rows = malloc(PEER_MOST_UNIT * model->head_dim * sizeof *to->peer_rows);
    if (to->pages == NULL || to->memory == NULL || to->peer_rows == NULL)
        return error_set(error, "%zu tokens as %s: out of memory", cache->room, eval_pair_name(way).text);
    for (size_t i = 0; i < heads; i++)
        to->pages[i] = (kvt_pages){ .base = to->memory + i * pages * to->layout.page_bytes, .stride = to->layout.page_bytes, .count = pages };
    cache->appended = appended;
    cache->owner = to;
    return 0;
}

void eval_stored_close(eval_stored *to)
{
    free(to->memory);
    free(to->pages);
    free(to->first.memory);
    free(to->open.memory);
    free(to->peer_rows);
}

double eval_stored_bits(const eval_stored *of, size_t tokens)
{
    const uint32_t dim = of->cache->model->head_dim;
    const size_t pages = (tokens + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS,
                 bytes =
                     eval_all_pages(of->way, dim, dim, of->first.used ? &of->first.layout : NULL, of->open.used ? &of->open.layout : NULL, tokens);
    return 8.0 * (double)bytes / ((double)(pages * KVT_PAGE_TOKENS) * 2 * dim);
}
