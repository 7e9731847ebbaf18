/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* madvise */
#include "tools/ggml/layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

options layers_options;
ggml_backend_buffer_type_t layers_type;

layers_watcher layers_watch;

enum { CELLS = KVT_PAGE_TOKENS };

static void *must_have(void *memory)
{
    if (!memory) {
        fputs("kvtile: there is no memory\n", stderr);
        abort();
    }
    return memory;
}

void layers_change(cache *c)
{
    if (layers_watch.changes)
        layers_watch.changes(c);
}

/* ---- buffers ---- */

bool layers_open(cache *opened, size_t bytes)
{
    *opened = (cache){ .bytes = bytes ? bytes : 1, .graph = 1 };
    void *at = mmap(NULL, opened->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    opened->memory = at == MAP_FAILED ? NULL : at;
    return opened->memory != NULL;
}

static size_t bytes_in_use(const cache *c)
{
    size_t bytes = 0;
    for (const layer *l = c->layers; l; l = l->next)
        bytes += l->is_stored ? cells_bytes(&l->rows) : 0;
    return bytes;
}

static void report_cache(const cache *c)
{
    size_t layers = 0, stored = 0;
    for (const layer *l = c->layers; l; l = l->next) {
        layers++;
        stored += l->is_stored;
    }
    if (!layers)
        return;
    fprintf(stderr, "kvtile: %s: %zu of %zu layers, %zu bytes at most; rows stored %zu times, attention computed %zu times, of %zu queries\n",
            layers_options.name, stored, layers, c->most_bytes, c->counts.stored, c->counts.attended, c->counts.queries);
    fprintf(stderr, "kvtile: left to ggml: %zu layers", c->counts.given_back);
    for (int op = 0; op < 256; op++)
        if (c->counts.foreign[op])
            fprintf(stderr, ", %s %zu times", host.ggml_op_name((enum ggml_op)op), c->counts.foreign[op]);
    fputs("\n", stderr);
}

void layers_close(cache *c)
{
    if (layers_watch.ends)
        layers_watch.ends(c);
    if (layers_options.report)
        report_cache(c);
    for (layer *l = c->layers, *next; l; l = next) {
        next = l->next;
        cells_close(&l->rows);
        free(l->cells);
        free(l);
    }
    masks_close(&c->masks);
    munmap(c->memory, c->bytes);
}

void layers_clear(cache *c)
{
    layers_change(c);
    (void)madvise(c->memory, c->bytes, MADV_DONTNEED);
    for (layer *l = c->layers; l; l = l->next) {
        if (l->is_stored)
            cells_clear(&l->rows);
        l->is_raw_newer[0] = l->is_raw_newer[1] = false;
        l->raw_cells = l->n_cells = 0;
    }
}

/* "cache_k_l7": side 0 and "_l7"; a cache's own words may come first, "cache_idx_k_l7". */
static bool read_name(const char *name, int *side, char *rest)
{
    const char *found = NULL;
    for (const char *at = name; strncmp(name, "cache_", strlen("cache_")) == 0 && *at; at++)
        if (at[0] == '_' && (at[1] == 'k' || at[1] == 'v') && strncmp(at + 2, "_l", 2) == 0)
            found = at;
    if (!found)
        return false;
    *side = found[1] == 'v';
    snprintf(rest, GGML_MAX_NAME, "%.*s%s", (int)(found - name), name, found + 2);
    return true;
}

void layers_take(cache *c, struct ggml_tensor *tensor)
{
    int side;
    char name[GGML_MAX_NAME];
    if (tensor->view_src || !read_name(tensor->name, &side, name))
        return;
    layer *l = c->layers;
    while (l && strcmp(l->name, name) != 0)
        l = l->next;
    if (!l) {
        l = must_have(calloc(1, sizeof *l));
        l->owner = c;
        l->next = c->layers;
        strcpy(l->name, name);
        c->layers = l;
    }
    l->tensor[side] = tensor;
    tensor->extra = l;
}

/* Views have their buffers, too, from when they have addresses. It is asked of all tensors of a graph, most of them in no cache, so the rest of a
 * tensor is not looked at before. */
layer *layer_of(const struct ggml_tensor *tensor)
{
    if (!tensor || (tensor->buffer && tensor->buffer->buft != layers_type))
        return NULL;
    const struct ggml_tensor *root = tensor->view_src ? tensor->view_src : tensor;
    return root->buffer && root->buffer->buft == layers_type ? root->extra : NULL;
}

int layer_side(const layer *l, const struct ggml_tensor *tensor)
{
    return (tensor->view_src ? tensor->view_src : tensor) == l->tensor[1];
}

/* ---- raw rows ---- */

static size_t streams_of(const layer *l)
{
    return (size_t)l->tensor[0]->ne[2];
}
static size_t layer_cells(const layer *l)
{
    return (size_t)l->tensor[0]->ne[1];
}
static size_t width_of(const layer *l, int side)
{
    return (size_t)l->tensor[side]->ne[0];
}

static uint8_t *raw_row(const layer *l, int side, size_t stream, size_t cell)
{
    const struct ggml_tensor *t = l->tensor[side];
    return (uint8_t *)t->data + stream * t->nb[2] + cell * t->nb[1];
}

static void from_raw(const struct ggml_tensor *t, const uint8_t *raw, float *row)
{
    const struct ggml_type_traits *traits = host.ggml_get_type_traits(t->type);
    if (t->type == GGML_TYPE_F32)
        memcpy(row, raw, (size_t)t->ne[0] * sizeof *row);
    else
        traits->to_float(raw, row, t->ne[0]);
}

static void to_raw(const struct ggml_tensor *t, const float *row, uint8_t *raw)
{
    if (t->type == GGML_TYPE_F32)
        memcpy(raw, row, (size_t)t->ne[0] * sizeof *row);
    else
        (void)host.ggml_quantize_chunk(t->type, row, raw, 0, 1, t->ne[0], NULL);
}

static size_t cells_in_block(const layer *l, size_t block)
{
    const size_t left = layer_cells(l) - block * CELLS;
    return left < CELLS ? left : CELLS;
}

/* Blocks of which a worker has a share, with room for the rows of one. */
typedef struct blocks {
    const layer *l;
    int side;
    float *rows;
    uint8_t *raw; /* of a row */
} blocks;

typedef void block_fn(const blocks *all, size_t stream, size_t block);

static void export_block(const blocks *all, size_t stream, size_t block)
{
    const layer *l = all->l;
    const size_t width = width_of(l, all->side), n = cells_in_block(l, block);
    cells_read(&l->rows, all->side, stream, block * CELLS, n, all->rows);
    for (size_t cell = 0; cell < n; cell++)
        to_raw(l->tensor[all->side], all->rows + cell * width, raw_row(l, all->side, stream, block * CELLS + cell));
}

/* Whether the raw rows are what export_block made. */
static bool is_as_exported(const blocks *all, size_t stream, size_t block)
{
    const layer *l = all->l;
    const struct ggml_tensor *t = l->tensor[all->side];
    const size_t width = width_of(l, all->side), n = cells_in_block(l, block), bytes = host.ggml_row_size(t->type, t->ne[0]);
    bool is = true;
    cells_read(&l->rows, all->side, stream, block * CELLS, n, all->rows);
    for (size_t cell = 0; cell < n && is; cell++) {
        to_raw(t, all->rows + cell * width, all->raw);
        is = memcmp(all->raw, raw_row(l, all->side, stream, block * CELLS + cell), bytes) == 0;
    }
    return is;
}

/* A shift of one sequence's positions goes over the rows of all: those that it left alone are not rounded again. */
static void import_block(const blocks *all, size_t stream, size_t block)
{
    const layer *l = all->l;
    const size_t width = width_of(l, all->side), n = cells_in_block(l, block);
    if (is_as_exported(all, stream, block))
        return;
    for (size_t cell = 0; cell < n; cell++)
        from_raw(l->tensor[all->side], raw_row(l, all->side, stream, block * CELLS + cell), all->rows + cell * width);
    cells_replace(&l->rows, all->side, stream, block, all->rows);
}

/* Each worker takes whole blocks. */
static void each_block(const layer *l, int side, unsigned worker, unsigned workers, block_fn *call)
{
    const size_t count = l->rows.blocks * streams_of(l);
    blocks all = { .l = l, .side = side };
    all.rows = must_have(calloc(CELLS * width_of(l, side), sizeof *all.rows));
    all.raw = must_have(malloc(l->tensor[side]->nb[1]));
    for (size_t i = worker; i < count; i += workers)
        if (l->rows.block[i].form != CELLS_EMPTY)
            call(&all, i / l->rows.blocks, i % l->rows.blocks);
    free(all.raw);
    free(all.rows);
}

void layer_export(const layer *l, int side, unsigned worker, unsigned workers)
{
    if (l->tensor[side])
        each_block(l, side, worker, workers, export_block);
}

void layer_import(const layer *l, int side, unsigned worker, unsigned workers)
{
    each_block(l, side, worker, workers, import_block);
}

static void settle_layer(layer *l)
{
    for (int side = 0; side < 2; side++) {
        if (l->is_raw_newer[side])
            layer_import(l, side, 0, 1);
        l->is_raw_newer[side] = false;
    }
}

/* ---- raw or stored ---- */

static void seal(cell_store *s)
{
    if (cells_has_unsealed(s)) {
        cells_begin_seal(s);
        cells_seal(s, 0, 1);
        cells_end_seal(s);
    }
    cells_release(s);
}

static void drop_raw(const layer *l)
{
    for (int side = 0; side < 2 && l->tensor[side]; side++) {
        /* Whole pages of the system: the tensors before and behind may be in use. */
        const uintptr_t unit = 4096, first = ((uintptr_t)l->tensor[side]->data + unit - 1) / unit * unit,
                        end = ((uintptr_t)l->tensor[side]->data + host.ggml_nbytes(l->tensor[side])) / unit * unit;
        if (end > first)
            (void)madvise((uint8_t *)l->tensor[side]->data + (first - (uintptr_t)l->tensor[side]->data), end - first, MADV_DONTNEED);
    }
}

/* Rows of a stream's first cells, a block at a time. */
static void store_raw(layer *l, int side, size_t stream)
{
    const size_t width = width_of(l, side);
    float *rows = must_have(calloc(CELLS * width, sizeof *rows));
    for (size_t first = 0, n; first < l->raw_cells; first += n) {
        int64_t cells[CELLS];
        n = l->raw_cells - first < CELLS ? l->raw_cells - first : CELLS;
        for (size_t i = 0; i < n; i++) {
            cells[i] = (int64_t)(stream * layer_cells(l) + first + i);
            from_raw(l->tensor[side], raw_row(l, side, stream, first + i), rows + i * width);
        }
        cells_begin(&l->rows, side, cells, n);
        cells_write(&l->rows, side, cells, n, rows, KVT_F32, (ptrdiff_t)(width * sizeof *rows), 0, 1);
    }
    free(rows);
}

bool layer_store(layer *l, const cells_shape *shape)
{
    const char *problem = cells_open(&l->rows, &layers_options.way, shape);
    if (problem) {
        host_warn("kvtile: a layer stays as it was (%s): %s\n", l->name, problem);
        l->is_refused = true;
        return false;
    }
    l->is_stored = true;
    for (size_t stream = 0; stream < streams_of(l) && l->raw_cells; stream++)
        for (int side = 0; side < 2 && l->tensor[side]; side++)
            store_raw(l, side, stream);
    if (l->raw_cells)
        seal(&l->rows);
    drop_raw(l);
    l->raw_cells = 0;
    return true;
}

void layer_give_back(layer *l)
{
    layers_change(l->owner);
    settle_layer(l);
    for (int side = 0; side < 2; side++)
        layer_export(l, side, 0, 1);
    cells_close(&l->rows);
    l->is_stored = false;
    l->is_refused = true;
    l->owner->counts.given_back++;
}

/* ---- a tensor's bytes ---- */

/* Where a view of the layer begins, in bytes of the layer's tensor. */
static size_t view_offset(const layer *l, const struct ggml_tensor *tensor, size_t offset)
{
    return (size_t)((const uint8_t *)tensor->data - (const uint8_t *)l->tensor[layer_side(l, tensor)]->data) + offset;
}

void layer_get(layer *l, const struct ggml_tensor *tensor, void *data, size_t offset, size_t bytes)
{
    if (!l->is_stored) {
        memcpy(data, (const uint8_t *)tensor->data + offset, bytes);
        return;
    }
    settle_layer(l);
    const int side = layer_side(l, tensor);
    const struct ggml_tensor *t = l->tensor[side];
    float *row = must_have(malloc(width_of(l, side) * sizeof *row));
    uint8_t *raw = must_have(malloc(t->nb[1]));
    const size_t begin = view_offset(l, tensor, offset), end = begin + bytes;
    for (size_t at = begin; at < end;) {
        const size_t number = at / t->nb[1], skipped = at % t->nb[1], room = t->nb[1] - skipped, n = end - at < room ? end - at : room;
        cells_read(&l->rows, side, number / layer_cells(l), number % layer_cells(l), 1, row);
        to_raw(t, row, raw);
        memcpy((uint8_t *)data + (at - begin), raw + skipped, n);
        at += n;
    }
    free(raw);
    free(row);
}

void layer_set(layer *l, const struct ggml_tensor *tensor, const void *data, size_t offset, size_t bytes)
{
    const int side = layer_side(l, tensor);
    const struct ggml_tensor *t = l->tensor[side];
    const size_t begin = view_offset(l, tensor, offset), first = begin / t->nb[1], end = (begin + bytes + t->nb[1] - 1) / t->nb[1];
    layers_change(l->owner);
    if (!l->is_stored) {
        memcpy((uint8_t *)tensor->data + offset, data, bytes);
        for (size_t number = first; number < end; number++)
            l->raw_cells = number % layer_cells(l) >= l->raw_cells ? number % layer_cells(l) + 1 : l->raw_cells;
        return;
    }
    settle_layer(l);
    const size_t width = width_of(l, side);
    float *row = must_have(malloc(width * sizeof *row));
    uint8_t *raw = must_have(malloc(t->nb[1]));
    for (size_t number = first; number < end; number++) {
        const size_t row_begin = number * t->nb[1], from = begin > row_begin ? begin - row_begin : 0,
                     to = begin + bytes - row_begin < t->nb[1] ? begin + bytes - row_begin : t->nb[1];
        const int64_t cell = (int64_t)number;
        if (from > 0 || to < t->nb[1]) { /* a part of a row */
            cells_read(&l->rows, side, number / layer_cells(l), number % layer_cells(l), 1, row);
            to_raw(t, row, raw);
        }
        memcpy(raw + from, (const uint8_t *)data + (row_begin + from - begin), to - from);
        from_raw(t, raw, row);
        cells_begin(&l->rows, side, &cell, 1);
        cells_write(&l->rows, side, &cell, 1, row, KVT_F32, (ptrdiff_t)(width * sizeof *row), 0, 1);
        if (side == 1 || !l->tensor[1])
            seal(&l->rows);
    }
    free(raw);
    free(row);
}

bool layer_copy(layer *l, const struct ggml_tensor *from, const struct ggml_tensor *to)
{
    const struct ggml_tensor *t = l->tensor[layer_side(l, from)];
    const size_t source = view_offset(l, from, 0), target = view_offset(l, to, 0);
    if (!l->is_stored || source % t->nb[2] || target % t->nb[2] || host.ggml_nbytes(from) != t->nb[2])
        return false;
    layers_change(l->owner);
    settle_layer(l);
    cells_copy_stream(&l->rows, source / t->nb[2], target / t->nb[2]);
    return true;
}

/* ---- what is told ---- */

void layers_tell(cache *c)
{
    const size_t used = bytes_in_use(c);
    c->most_bytes = used > c->most_bytes ? used : c->most_bytes;
    if (c->is_told)
        return;
    c->is_told = true;
    size_t layers = 0, most = 0, believed = 0;
    for (const layer *l = c->layers; l; l = l->next) {
        if (!l->is_stored)
            continue;
        layers++;
        most += cells_most_bytes(&l->rows);
        believed += host.ggml_nbytes(l->tensor[0]) + (l->tensor[1] ? host.ggml_nbytes(l->tensor[1]) : 0);
    }
    if (layers)
        host_say("kvtile: %zu layers' keys/values as %s: %.2f MiB when all %zu cells are full, where llama.cpp counts %.2f MiB\n", layers,
                 layers_options.name, (double)most / (1 << 20), layer_cells(c->layers) * streams_of(c->layers), (double)believed / (1 << 20));
}
