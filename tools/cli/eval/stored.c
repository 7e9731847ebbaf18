/* SPDX-License-Identifier: MIT */
/* kvtile eval --model: what storing does to the rows of a cache. */
#include "tools/cli/eval/stored.h"

#include "tools/engine/arithmetic.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One head's side of a layer, on its way into pages. */
typedef struct head_job {
    const eval_stored *to;
    eval_stored_head *head;
    kvt_side side;
    size_t dim;
    float *open, *kept; /* [position][dim] */
} head_job;

static void keep_status(const head_job *job, kvt_status status)
{
    if (status == KVT_OK || job->head->failed)
        return;
    job->head->failed = true;
    error_set(&job->head->error, "cannot be stored as %s: %s", eval_pair_name(job->to->way).text, kvt_status_text(status));
}

/* What a scheme makes of n rows of a page. */
static void pass_through(const head_job *job, const kvt_layout *layout, const kvt_pages *page, size_t n, float *rows)
{
    const ptrdiff_t stride = (ptrdiff_t)(job->dim * sizeof(float));
    keep_status(job, kvt_write(layout, job->side, page, 0, n, rows, KVT_F32, stride));
    keep_status(job, kvt_read(layout, job->side, page, 0, n, rows, KVT_F32, stride));
}

static void copy_rows(const head_job *job, size_t first, size_t n)
{
    memcpy(job->kept + first * job->dim, job->open + first * job->dim, n * job->dim * sizeof(float));
}

/* The token at `position` has come. With an open page all 64 are stored when it is full; otherwise each at once. The first page is stored even where
 * another scheme keeps it: the next one's centre comes from it. Returns how many tokens are kept now, of `kept` before. */
static size_t store_own(const head_job *job, size_t position, size_t kept)
{
    const eval_stored *to = job->to;
    const ptrdiff_t stride = (ptrdiff_t)(job->dim * sizeof(float));
    const size_t n = to->has_open ? KVT_PAGE_TOKENS : 1, end = position + 1, first = end - n;
    if (end % n != 0)
        return kept;
    keep_status(job, kvt_write(&to->layout, job->side, &job->head->pages, first, n, job->open + first * job->dim, KVT_F32, stride));
    if (to->has_first && first < KVT_PAGE_TOKENS) {
        copy_rows(job, first, n);
        pass_through(job, &to->first, &job->head->first, n, job->kept + first * job->dim);
    } else {
        keep_status(job, kvt_read(&to->layout, job->side, &job->head->pages, first, n, job->kept + first * job->dim, KVT_F32, stride));
    }
    return end;
}

/* The same in a format of others, as soon as a unit of tokens is full, at least a page where there is an open page. Units begin behind the first page
 * where another scheme keeps that. */
static size_t store_peer(const head_job *job, const eval_way *way, size_t position, size_t kept)
{
    const eval_stored *to = job->to;
    const size_t begin = to->has_first ? KVT_PAGE_TOKENS : 0, page = to->has_open ? KVT_PAGE_TOKENS : 1, end = position + 1,
                 unit = way->peer->unit > page ? way->peer->unit : page;
    if (end <= begin) {
        if (end % page != 0)
            return kept;
        copy_rows(job, end - page, page);
        pass_through(job, &to->first, &job->head->first, page, job->kept + (end - page) * job->dim);
        return end;
    }
    if ((end - begin) % unit != 0 || job->head->failed)
        return kept;
    const size_t first = (end - unit) * job->dim;
    job->head->failed = peer_store(way->peer, job->side, way->options.rotation, job->open + first, unit, (uint32_t)job->dim, job->head->peer_rows,
                                   &job->head->error) != 0;
    memcpy(job->kept + first, job->head->peer_rows, unit * job->dim * sizeof(float));
    return end;
}

void eval_stored_store(eval_stored *to, const pass_rows *rows, size_t layer, size_t side, size_t head)
{
    const size_t dim = to->model->head_dim, at = head * rows->room * dim;
    eval_stored_head *of_head = &to->heads[2 * head + side];
    const head_job job = { to, of_head, side == 0 ? KVT_K : KVT_V, dim, rows->open[side] + at, rows->kept[side] + at };
    const eval_way *way = side == 0 ? &to->way->k : &to->way->v;
    if (layer < to->first_layer || layer >= to->first_layer + to->layers || !to->sides[side])
        return;
    for (size_t position = 0, kept = 0; position < rows->n; position++) {
        const size_t before = kept;
        if (to->has_open)
            pass_through(&job, &to->open, &of_head->open, 1, job.open + position * dim);
        kept = way->peer != NULL ? store_peer(&job, way, position, kept) : store_own(&job, position, kept);
        if (head == 0)
            rows->kept_end[side][position] = (uint32_t)kept;
        if (position < of_head->lost_from &&
            (!arithmetic_are_finite(job.open + position * dim, dim) || !arithmetic_are_finite(job.kept + before * dim, (kept - before) * dim)))
            of_head->lost_from = position;
    }
}

int eval_stored_layout(kvt_layout *layout, const eval_pair *way, const checkpoint *model, error_text *error)
{
    const kvt_status status = eval_pair_layout(layout, way, model->head_dim, model->head_dim, model->kv_heads, 0);
    if (status == KVT_OK)
        return 0;
    return error_set(error, "head_dim is %" PRIu32 " with %" PRIu32 " kv heads, as %s: %s", model->head_dim, model->kv_heads,
                     eval_pair_name(way).text, kvt_status_text(status));
}

/* The layout of a page of one head that is all in one scheme, if there is one. */
static int open_single(bool *used, kvt_layout *layout, kvt_scheme scheme, kvt_rotation rotation, const checkpoint *model, error_text *error)
{
    *used = scheme != KVT_SCHEME_NONE;
    if (!*used)
        return 0;
    const eval_way way = { .scheme = kvt_scheme_get(scheme), .options = { .rotation = rotation } };
    const checkpoint head = { .head_dim = model->head_dim, .kv_heads = 1 };
    return eval_stored_layout(layout, &(eval_pair){ way, way }, &head, error);
}

/* The first page is rotated, which costs nothing and saves what one scale for a whole row would lose. */
int eval_stored_open(eval_stored *to, const checkpoint *model, size_t room, const eval_pair *way, kvt_scheme first, kvt_scheme open,
                     error_text *error)
{
    const size_t heads = 2 * (size_t)model->kv_heads, pages = (room + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS;
    to->model = model;
    to->way = way;
    if (eval_stored_layout(&to->layout, way, model, error) != 0 ||
        open_single(&to->has_first, &to->first, first, KVT_ROTATION_64, model, error) != 0 ||
        open_single(&to->has_open, &to->open, open, KVT_ROTATION_NONE, model, error) != 0)
        return -1;
    to->heads = calloc(heads, sizeof *to->heads);
    for (size_t i = 0; to->heads != NULL && i < heads; i++) {
        eval_stored_head *head = &to->heads[i];
        const size_t page = to->layout.page_bytes, bytes = pages * page; /* no product overflows: a window has 2^20 tokens */
        head->memory = aligned_alloc(64, bytes + to->first.page_bytes + to->open.page_bytes);
        head->peer_rows = malloc(PEER_MOST_UNIT * model->head_dim * sizeof *head->peer_rows);
        if (head->memory == NULL || head->peer_rows == NULL)
            return error_set(error, "%zu tokens as %s: out of memory", room, eval_pair_name(way).text);
        head->pages = (kvt_pages){ .base = head->memory, .stride = page, .count = pages };
        head->first = (kvt_pages){ .base = head->memory + bytes, .stride = to->first.page_bytes, .count = 1 };
        head->open = (kvt_pages){ .base = head->memory + bytes + to->first.page_bytes, .stride = to->open.page_bytes, .count = 1 };
    }
    return to->heads != NULL ? 0 : error_set(error, "%" PRIu32 " kv heads: out of memory", model->kv_heads);
}

void eval_stored_close(eval_stored *to)
{
    for (size_t i = 0; to->heads != NULL && i < 2 * (size_t)to->model->kv_heads; i++) {
        free(to->heads[i].memory);
        free(to->heads[i].peer_rows);
    }
    free(to->heads);
}

void eval_stored_begin(eval_stored *to)
{
    for (size_t i = 0; i < 2 * (size_t)to->model->kv_heads; i++)
        to->heads[i].lost_from = SIZE_MAX;
}

int eval_stored_end(const eval_stored *stored, size_t *lost_from, error_text *error)
{
    *lost_from = SIZE_MAX;
    for (size_t i = 0; i < 2 * (size_t)stored->model->kv_heads; i++) {
        if (stored->heads[i].failed) {
            *error = stored->heads[i].error;
            return -1;
        }
        *lost_from = stored->heads[i].lost_from < *lost_from ? stored->heads[i].lost_from : *lost_from;
    }
    return 0;
}

double eval_stored_bits(const eval_stored *stored, size_t tokens)
{
    const uint32_t dim = stored->model->head_dim;
    const size_t pages = (tokens + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS,
                 bytes = eval_all_pages(stored->way, dim, dim, stored->has_first ? &stored->first : NULL, stored->has_open ? &stored->open : NULL,
                                        tokens);
    return 8.0 * (double)bytes / ((double)(pages * KVT_PAGE_TOKENS) * 2 * dim);
}
