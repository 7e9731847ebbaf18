/* SPDX-License-Identifier: MIT */
#include "tools/ggml/ops.h"

#include "tools/ggml/attend.h"
#include "tools/ggml/layers.h"

#include <stdlib.h>
#include <string.h>

bool ops_is_view(enum ggml_op op)
{
    return op == host.NONE || op == host.RESHAPE || op == host.VIEW || op == host.PERMUTE || op == host.TRANSPOSE;
}

bool ops_concerns(const struct ggml_tensor *op)
{
    if (ops_is_view(op->op))
        return false;
    bool does = layer_of(op) != NULL;
    for (int i = 0; i < GGML_MAX_SRC && !does; i++)
        does = layer_of(op->src[i]) != NULL;
    return does;
}

bool ops_is_ours(const struct ggml_tensor *tensor)
{
    const struct ggml_tensor *root = tensor && tensor->view_src ? tensor->view_src : tensor;
    return root && root->buffer && root->buffer->buft == layers_type;
}

static bool is_homeless(const struct ggml_tensor *t)
{
    const struct ggml_tensor *root = t && t->view_src ? t->view_src : t;
    return ops_is_ours(t) && root->buffer->size == 0 && strncmp(root->name, "cache_", strlen("cache_")) != 0;
}

bool ops_supports(const struct ggml_tensor *op)
{
    bool does = true;
    for (int i = 0; i < GGML_MAX_SRC; i++)
        does &= !is_homeless(op->src[i]);
    return does;
}

/* ---- rows ---- */

static kvt_dtype tensor_dtype(const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 ? KVT_F32 : t->type == GGML_TYPE_F16 ? KVT_F16 : t->type == GGML_TYPE_BF16 ? KVT_BF16 : (kvt_dtype)0;
}

bool ops_is_of_rows(const layer *l, const struct ggml_tensor *op)
{
    const struct ggml_tensor *t = l->tensor[layer_side(l, op)], *rows = op->src[0], *where = op->src[1];
    return op->op == host.SET_ROWS && op->ne[0] == t->ne[0] && op->data == t->data && op->ne[2] * op->ne[3] == 1 && tensor_dtype(rows) &&
           rows->ne[0] == t->ne[0] && rows->ne[2] * rows->ne[3] == 1 && rows->nb[0] == kvt_dtype_bytes(tensor_dtype(rows)) &&
           where->ne[0] == rows->ne[1] && where->ne[1] * where->ne[2] * where->ne[3] == 1 &&
           (where->type == GGML_TYPE_I64 || where->type == GGML_TYPE_I32);
}

static bool plan_set_rows(layer *l, const struct ggml_tensor *op)
{
    const size_t n = (size_t)op->src[0]->ne[1];
    if (n > l->cells_room) {
        int64_t *more = realloc(l->cells, n * sizeof *more);
        if (!more)
            return false;
        l->cells = more;
        l->cells_room = n;
    }
    l->wrote = l->owner->graph;
    return true;
}

/* What foreign operations have written comes back, and all workers know. */
static void settle_together(layer *l, const ggml_workers *with)
{
    for (int side = 0; side < 2; side++) {
        if (!l->is_raw_newer[side])
            continue;
        layer_import(l, side, (unsigned)with->ith, (unsigned)with->nth);
        host.ggml_barrier(with->threadpool);
        if (with->ith == 0)
            l->is_raw_newer[side] = false;
        host.ggml_barrier(with->threadpool);
    }
}

static void begin_rows(layer *l, int side, const struct ggml_tensor *op)
{
    const struct ggml_tensor *where = op->src[1];
    cache *c = l->owner;
    l->n_cells = (size_t)op->src[0]->ne[1];
    for (size_t i = 0; i < l->n_cells; i++) {
        const uint8_t *at = (const uint8_t *)where->data + i * where->nb[0];
        l->cells[i] = where->type == GGML_TYPE_I64 ? *(const int64_t *)(const void *)at : *(const int32_t *)(const void *)at;
    }
    /* Nobody is in an earlier layer any longer. */
    if (c->last)
        cells_release(&c->last->rows);
    c->last = NULL;
    c->counts.stored++;
    if (layers_watch.rows)
        layers_watch.rows(l, side);
    cells_begin(&l->rows, side, l->cells, l->n_cells);
}

/* Few rows take less time than threads that wait for each other. */
enum { FEW_ROWS = 4 };

static void compute_rows(layer *l, const ggml_workers *with, const struct ggml_tensor *op)
{
    const int side = layer_side(l, op);
    const struct ggml_tensor *rows = op->src[0];
    const uint32_t workers = rows->ne[1] <= FEW_ROWS ? 1 : (uint32_t)with->nth;
    settle_together(l, with);
    if (with->ith == 0)
        begin_rows(l, side, op);
    if (workers > 1)
        host.ggml_barrier(with->threadpool);
    if ((uint32_t)with->ith < workers)
        cells_write(&l->rows, side, l->cells, l->n_cells, rows->data, tensor_dtype(rows), (ptrdiff_t)rows->nb[1], (uint32_t)with->ith, workers);
}

/* ---- what ggml computes ---- */

/* A layer whose rows are stored as well as read by ggml in every graph is better off without us. That it is so is seen from the second graph on, as a
 * shift of positions, or a copy of a sequence, is no reason; and it is given back before ggml has been told how much memory attention needs. */
static void plan_foreign(layer *l, const struct ggml_tensor *op)
{
    cache *c = l->owner;
    if (!l->is_stored) {
        l->is_refused |= l->wrote == c->graph || op->op == host.SET_ROWS || op->op == host.FLASH_ATTN_EXT;
        return;
    }
    if (l->foreign != c->graph && l->wrote == c->graph)
        l->foreign_graphs++;
    l->foreign = c->graph;
}

enum { FOREIGN_GRAPHS = 2 };

static void give_back_if_better(layer *l)
{
    if (l->is_stored && l->foreign_graphs >= FOREIGN_GRAPHS && l->attended != l->owner->graph)
        layer_give_back(l);
}

/* The raw rows are made, and ggml goes on with those. */
static void prepare_foreign(layer *l, const ggml_workers *with, const struct ggml_tensor *op, bool writes)
{
    settle_together(l, with);
    for (int side = 0; side < 2; side++)
        layer_export(l, side, (unsigned)with->ith, (unsigned)with->nth);
    host.ggml_barrier(with->threadpool);
    if (with->ith == 0) {
        l->owner->counts.foreign[op->op % 256]++;
        if (writes) {
            layers_change(l->owner);
            l->is_raw_newer[layer_side(l, op)] = true;
        }
    }
}

static void compute_foreign(const ggml_workers *with, const struct ggml_tensor *op)
{
    layer *to = layer_of(op);
    if (to && to->is_stored)
        prepare_foreign(to, with, op, true);
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        layer *from = layer_of(op->src[i]);
        bool is_new = from && from != to && from->is_stored;
        for (int before = 0; before < i; before++)
            is_new &= layer_of(op->src[before]) != from;
        if (is_new)
            prepare_foreign(from, with, op, false);
    }
}

/* ---- all ---- */

static void notice_graph(cache *c)
{
    if (!atomic_exchange(&c->is_computed, false))
        return;
    c->graph++;
    masks_forget(&c->masks);
}

static layer *attended_layer(const struct ggml_tensor *op)
{
    return op->op == host.FLASH_ATTN_EXT ? layer_of(op->src[1]) : NULL;
}

bool ops_plan(int threads, const struct ggml_tensor *op, size_t *bytes)
{
    layer *to = layer_of(op), *keys = attended_layer(op);
    if (to) {
        notice_graph(to->owner);
        give_back_if_better(to);
        if (!ops_is_of_rows(to, op) || !plan_set_rows(to, op))
            plan_foreign(to, op);
    }
    if (keys) {
        notice_graph(keys->owner);
        give_back_if_better(keys);
        cells_shape shape;
        if (attend_shape(keys, op, &shape) && (keys->is_stored || (!keys->is_refused && layer_store(keys, &shape))) &&
            attend_plan(keys, op, (unsigned)threads, bytes))
            return true;
    }
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        layer *from = layer_of(op->src[i]);
        if (!from || from == to)
            continue;
        notice_graph(from->owner);
        plan_foreign(from, op);
    }
    return false;
}

bool ops_compute(const ggml_workers *with, struct ggml_tensor *op)
{
    layer *to = layer_of(op), *keys = attended_layer(op);
    layer *any = to ? to : keys;
    if (any && with->ith == 0)
        atomic_store(&any->owner->is_computed, true);
    if (to && to->is_stored && ops_is_of_rows(to, op)) {
        compute_rows(to, with, op);
        return true;
    }
    cells_shape shape;
    if (keys && keys->is_stored && attend_shape(keys, op, &shape)) {
        settle_together(keys, with);
        const bool is_done = attend_compute(keys, with, op);
        if (with->ith == 0 && is_done)
            layers_tell(keys->owner);
        if (is_done)
            return true;
        if (with->ith == 0)
            keys->foreign_graphs++;
    }
    if (to && !to->is_stored && with->ith == 0)
        to->raw_cells = (size_t)to->tensor[0]->ne[1];
    compute_foreign(with, op);
    return false;
}
