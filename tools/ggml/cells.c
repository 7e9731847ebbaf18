/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* MAP_ANONYMOUS, madvise */
#include "tools/ggml/cells.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { KEPT_PAGES = 2, UNFINISHED = 4, SYSTEM_PAGE = 4096, CELLS = KVT_PAGE_TOKENS, LINE = 64 };

void cells_must(kvt_status status, const char *what)
{
    if (status != KVT_OK) {
        fprintf(stderr, "kvtile: %s: %s\n", what, kvt_status_text(status));
        abort();
    }
}

static kvt_pages block_page(const cell_store *s, size_t index, uint32_t head, cells_form form)
{
    const size_t bytes = s->layout[form].page_bytes;
    return (kvt_pages){ .base = s->memory[form] + index * s->block_bytes[form] + head * bytes, .stride = bytes, .count = 1 };
}

/* Channels of a head's row that are a side of kvtile's. */
typedef struct part {
    kvt_side side;
    uint32_t from, dim;
} part;

static int side_parts(const cell_store *s, int side, part parts[2])
{
    if (side) {
        parts[0] = (part){ KVT_V, 0, s->shape.v_dim };
        return 1;
    }
    parts[0] = (part){ KVT_K, 0, s->shape.k_dim };
    parts[1] = (part){ KVT_ROPE, s->shape.k_dim, s->shape.rope_dim };
    return s->shape.rope_dim ? 2 : 1;
}

uint32_t cells_row_dim(const cell_store *s, int side)
{
    return side ? s->shape.v_dim : s->shape.k_dim + s->shape.rope_dim;
}

static int sides_of(const cell_store *s)
{
    return s->shape.v_dim ? 2 : 1;
}

/* Rows of a block and head, all parts of a side. */
static void write_block_rows(const cell_store *s, int side, size_t index, uint32_t head, cells_form form, size_t first, size_t n, const void *rows,
                             kvt_dtype dtype, ptrdiff_t stride)
{
    const kvt_pages pages = block_page(s, index, head, form);
    part parts[2];
    for (int i = 0, count = side_parts(s, side, parts); i < count; i++)
        cells_must(kvt_write(&s->layout[form], parts[i].side, &pages, first, n, (const uint8_t *)rows + parts[i].from * kvt_dtype_bytes(dtype), dtype,
                             stride),
                   "writing rows");
}

static void read_block_rows(const cell_store *s, int side, size_t index, uint32_t head, cells_form form, size_t first, size_t n, float *rows,
                            ptrdiff_t stride)
{
    const kvt_pages pages = block_page(s, index, head, form);
    part parts[2];
    for (int i = 0, count = side_parts(s, side, parts); i < count; i++)
        cells_must(kvt_read(&s->layout[form], parts[i].side, &pages, first, n, rows + parts[i].from, KVT_F32, stride), "reading rows");
}

static void convert_page(const cell_store *s, size_t index, uint32_t head, cells_form from, cells_form to)
{
    float rows[CELLS * KVT_MAX_DIM];
    for (int side = 0; side < sides_of(s); side++) {
        const ptrdiff_t stride = (ptrdiff_t)(cells_row_dim(s, side) * sizeof *rows);
        read_block_rows(s, side, index, head, from, 0, CELLS, rows, stride);
        write_block_rows(s, side, index, head, to, 0, CELLS, rows, KVT_F32, stride);
    }
}

/* ---- opening ---- */

static bool is_of_rows(kvt_scheme scheme)
{
    return scheme == KVT_SCHEME_f32 || scheme == KVT_SCHEME_f16 || scheme == KVT_SCHEME_bf16;
}

static kvt_status choose_layouts(cell_store *s)
{
    const cells_way *w = &s->way;
    kvt_spec spec = {
        .size = sizeof spec, .k_dim = s->shape.k_dim, .v_dim = s->shape.v_dim, .rope_dim = s->shape.rope_dim, .kv_heads = s->shape.heads
    };
    spec.k_options.rotation = spec.v_options.rotation = w->rotation;
    s->seals = w->k_scheme != w->v_scheme || !is_of_rows(w->k_scheme);
    const kvt_scheme rows = s->shape.dtype == KVT_F32 ? KVT_SCHEME_f32 : s->shape.dtype == KVT_BF16 ? KVT_SCHEME_bf16 : KVT_SCHEME_f16;
    spec.k_scheme = spec.v_scheme = spec.rope_scheme = s->seals ? rows : w->k_scheme;
    kvt_status status = kvt_layout_init(&s->layout[CELLS_OPEN], &spec);
    if (status || !s->seals)
        return status;
    spec.k_options.centring = spec.v_options.centring = w->centring;
    spec.k_scheme = w->k_scheme;
    spec.v_scheme = w->v_scheme;
    spec.rope_scheme = KVT_SCHEME_bf16;
    status = kvt_layout_init(&s->layout[CELLS_SEALED], &spec);
    if (status || !w->first)
        return status;
    /* A first token is unlike all others in many models, and would move the centre away from them. */
    spec.k_options.centring = spec.v_options.centring = KVT_CENTRING_NONE;
    spec.k_scheme = spec.v_scheme = w->first;
    return kvt_layout_init(&s->layout[CELLS_FIRST], &spec);
}

static size_t round_to_units(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* Addresses of a form's pages. Open ones are given back block by block, so each block begins where a page of the system does. */
static bool reserve(cell_store *s, cells_form form, size_t blocks)
{
    s->block_bytes[form] = round_to_units(s->layout[form].page_bytes * s->shape.heads, form == CELLS_OPEN ? SYSTEM_PAGE : LINE);
    s->memory_bytes[form] = round_to_units(s->block_bytes[form] * blocks, SYSTEM_PAGE);
    void *at = mmap(NULL, s->memory_bytes[form], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return false;
    s->memory[form] = at;
    if (form == CELLS_OPEN)
        (void)madvise(at, s->memory_bytes[form], MADV_NOHUGEPAGE);
    return true;
}

const char *cells_open(cell_store *opened, const cells_way *way, const cells_shape *shape)
{
    *opened = (cell_store){ .shape = *shape, .way = *way };
    const kvt_status status = choose_layouts(opened);
    if (status)
        return kvt_status_text(status);
    opened->blocks = (shape->cells + CELLS - 1) / CELLS;
    const size_t all = opened->blocks * shape->streams;
    opened->counts[CELLS_EMPTY] = all;
    opened->block = calloc(all, sizeof *opened->block);
    opened->lists = calloc(3 * all, sizeof *opened->lists);
    bool is_there = opened->block && opened->lists;
    for (cells_form form = CELLS_OPEN; form < CELLS_FORMS && is_there; form++)
        if (opened->layout[form].page_bytes)
            is_there = reserve(opened, form, all);
    if (!is_there) {
        cells_close(opened);
        return "there is no memory";
    }
    opened->open = opened->lists;
    opened->kept = opened->open + all;
    opened->touched = opened->kept + all;
    return NULL;
}

void cells_close(cell_store *s)
{
    for (cells_form form = CELLS_OPEN; form < CELLS_FORMS; form++)
        if (s->memory[form])
            munmap(s->memory[form], s->memory_bytes[form]);
    free(s->block);
    free(s->lists);
    *s = (cell_store){ 0 };
}

void cells_clear(cell_store *s)
{
    const size_t all = s->blocks * s->shape.streams;
    for (cells_form form = CELLS_OPEN; form < CELLS_FORMS; form++) {
        if (s->counts[form] || s->with_rows)
            (void)madvise(s->memory[form], s->memory_bytes[form], MADV_DONTNEED);
        s->counts[form] = 0;
    }
    s->counts[CELLS_EMPTY] = all;
    memset(s->block, 0, all * sizeof *s->block);
    s->with_rows = s->n_open = s->n_kept = s->n_touched = 0;
}

/* ---- rows in ---- */

static void set_form(cell_store *s, cells_block *b, cells_form form)
{
    s->counts[b->form]--;
    s->counts[form]++;
    b->form = form;
}

static void list_remove(uint32_t *list, size_t *n, size_t index)
{
    size_t i = 0;
    while (i < *n && list[i] != index)
        i++;
    if (i < *n) {
        memmove(list + i, list + i + 1, (*n - i - 1) * sizeof *list);
        --*n;
    }
}

static size_t block_of_cell(const cell_store *s, int64_t cell)
{
    const size_t c = (size_t)cell;
    return c / s->shape.cells * s->blocks + c % s->shape.cells / CELLS;
}
static size_t in_block(const cell_store *s, int64_t cell)
{
    return (size_t)cell % s->shape.cells % CELLS;
}

/* Of the blocks of a stream that were opened again and are not whole, the newest stay open: their sequence goes on there, or may. It depends on the
 * stream alone, so what one sequence is rounded to does not depend on others in other streams. */
static void find_due(cell_store *s, size_t stream)
{
    size_t oldest = SIZE_MAX, n = 0;
    for (size_t i = 0; i < s->n_open; i++) {
        const cells_block *b = &s->block[s->open[i]];
        if (s->open[i] / s->blocks != stream || b->before == CELLS_EMPTY || b->is_due)
            continue;
        n++;
        if (oldest == SIZE_MAX || b->call < s->block[oldest].call)
            oldest = s->open[i];
    }
    if (n > UNFINISHED)
        s->block[oldest].is_due = true;
}

/* From then on the open page's rows are the block's; those that are stored are in `before`. Of a block that is opened again the cells before the
 * first one that is written count as there. */
static void open_cells_block(cell_store *s, size_t index, size_t first)
{
    cells_block *b = &s->block[index];
    b->before = b->form;
    b->opens = !b->has_rows && b->form != CELLS_EMPTY;
    b->written[0] = b->written[1] = b->before == CELLS_EMPTY ? 0 : (UINT64_C(1) << first) - 1;
    if (b->has_rows)
        list_remove(s->kept, &s->n_kept, index);
    else
        s->with_rows++;
    b->has_rows = true;
    set_form(s, b, CELLS_OPEN);
    s->open[s->n_open++] = (uint32_t)index;
}

void cells_begin(cell_store *s, int side, const int64_t *cells, size_t n)
{
    s->call++;
    s->n_touched = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t index = block_of_cell(s, cells[i]);
        cells_block *b = &s->block[index];
        if (b->call != s->call) {
            b->call = s->call;
            b->opens = b->is_due = false;
            if (b->form != CELLS_OPEN) {
                open_cells_block(s, index, in_block(s, cells[i]));
                if (b->before != CELLS_EMPTY)
                    find_due(s, index / s->blocks);
            }
            s->touched[s->n_touched++] = (uint32_t)index;
        }
        b->written[side] |= UINT64_C(1) << in_block(s, cells[i]);
        if (sides_of(s) == 1)
            b->written[1] = b->written[0];
    }
}

/* Cells that follow each other are written at once. */
static void write_cells(const cell_store *s, int side, const int64_t *cells, size_t n, const uint8_t *rows, kvt_dtype dtype, ptrdiff_t stride,
                        size_t index, uint32_t head)
{
    const size_t from = head * cells_row_dim(s, side) * kvt_dtype_bytes(dtype);
    for (size_t i = 0, count; i < n; i += count) {
        count = 1;
        if (block_of_cell(s, cells[i]) != index)
            continue;
        while (i + count < n && cells[i + count] == cells[i] + (int64_t)count && block_of_cell(s, cells[i + count]) == index)
            count++;
        write_block_rows(s, side, index, head, CELLS_OPEN, in_block(s, cells[i]), count, rows + (ptrdiff_t)i * stride + from, dtype, stride);
    }
}

void cells_write(const cell_store *s, int side, const int64_t *cells, size_t n, const void *rows, kvt_dtype dtype, ptrdiff_t stride, uint32_t worker,
                 uint32_t workers)
{
    for (size_t unit = worker; unit < s->n_touched * s->shape.heads; unit += workers) {
        const size_t index = s->touched[unit / s->shape.heads];
        const uint32_t head = (uint32_t)(unit % s->shape.heads);
        if (s->block[index].opens)
            convert_page(s, index, head, s->block[index].before, CELLS_OPEN);
        write_cells(s, side, cells, n, rows, dtype, stride, index, head);
    }
}

/* ---- sealing ---- */

/* While only keys of some cells are there, values are still to come. */
static bool is_to_be_sealed(const cells_block *b)
{
    return b->written[0] == b->written[1] && (b->written[0] == UINT64_MAX || b->is_due);
}

void cells_mark_first(cell_store *s, int64_t cell)
{
    s->block[block_of_cell(s, cell)].is_first = true;
}

bool cells_has_unsealed(const cell_store *s)
{
    bool has = false;
    for (size_t i = 0; i < s->n_open && s->seals && !has; i++)
        has = is_to_be_sealed(&s->block[s->open[i]]);
    return has;
}

void cells_begin_seal(cell_store *s)
{
    s->n_touched = 0;
    for (size_t i = 0; i < s->n_open; i++)
        if (is_to_be_sealed(&s->block[s->open[i]]))
            s->touched[s->n_touched++] = s->open[i];
}

static cells_form form_when_sealed(const cell_store *s, size_t index)
{
    return s->way.first && (s->block[index].is_first || index % s->blocks == 0) ? CELLS_FIRST : CELLS_SEALED;
}

void cells_seal(const cell_store *s, uint32_t worker, uint32_t workers)
{
    for (size_t unit = worker; unit < s->n_touched * s->shape.heads; unit += workers) {
        const size_t index = s->touched[unit / s->shape.heads];
        convert_page(s, index, (uint32_t)(unit % s->shape.heads), CELLS_OPEN, form_when_sealed(s, index));
    }
}

void cells_end_seal(cell_store *s)
{
    for (size_t i = 0; i < s->n_touched; i++) {
        const size_t index = s->touched[i];
        set_form(s, &s->block[index], form_when_sealed(s, index));
        list_remove(s->open, &s->n_open, index);
        s->kept[s->n_kept++] = (uint32_t)index;
    }
    s->has_sealed |= s->n_touched > 0;
    s->n_touched = 0;
}

static bool is_newest(const cell_store *s, size_t kept)
{
    size_t newer = 0;
    for (size_t i = kept + 1; i < s->n_kept && newer < KEPT_PAGES; i++)
        newer += s->kept[i] / s->blocks == s->kept[kept] / s->blocks;
    return newer < KEPT_PAGES;
}

void cells_release(cell_store *s)
{
    if (!s->has_sealed)
        return;
    s->has_sealed = false;
    size_t n = 0;
    for (size_t i = 0; i < s->n_kept; i++) {
        const uint32_t index = s->kept[i];
        if (is_newest(s, i)) {
            s->kept[n++] = index;
            continue;
        }
        (void)madvise(s->memory[CELLS_OPEN] + index * s->block_bytes[CELLS_OPEN], s->block_bytes[CELLS_OPEN], MADV_DONTNEED);
        s->block[index].has_rows = false;
        s->with_rows--;
    }
    s->n_kept = n;
}

/* ---- rows out ---- */

void cells_read(const cell_store *s, int side, size_t stream, size_t first, size_t n, float *rows)
{
    const size_t dim = cells_row_dim(s, side), width = dim * s->shape.heads;
    for (size_t done = 0, count; done < n; done += count) {
        const size_t cell = first + done, index = stream * s->blocks + cell / CELLS, room = CELLS - cell % CELLS;
        const cells_form form = s->block[index].form;
        count = n - done < room ? n - done : room;
        if (form == CELLS_EMPTY)
            memset(rows + done * width, 0, count * width * sizeof *rows);
        for (uint32_t head = 0; head < s->shape.heads && form != CELLS_EMPTY; head++)
            read_block_rows(s, side, index, head, form, cell % CELLS, count, rows + done * width + head * dim, (ptrdiff_t)(width * sizeof *rows));
    }
}

void cells_replace(const cell_store *s, int side, size_t stream, size_t block, const float *rows)
{
    const size_t index = stream * s->blocks + block, dim = cells_row_dim(s, side), width = dim * s->shape.heads;
    const cells_block *b = &s->block[index];
    for (uint32_t head = 0; head < s->shape.heads && b->form != CELLS_EMPTY; head++)
        for (cells_form form = CELLS_OPEN; form < CELLS_FORMS; form++)
            if (form == b->form || (form == CELLS_OPEN && b->has_rows))
                write_block_rows(s, side, index, head, form, 0, CELLS, rows + head * dim, KVT_F32, (ptrdiff_t)(width * sizeof *rows));
}

static cells_form form_when_whole(const cell_store *s, size_t block)
{
    return !s->seals ? CELLS_OPEN : s->way.first && block == 0 ? CELLS_FIRST : CELLS_SEALED;
}

size_t cells_saved_bytes(const cell_store *s, size_t block)
{
    return s->layout[form_when_whole(s, block)].page_bytes * s->shape.heads;
}

bool cells_save(const cell_store *s, size_t stream, size_t block, void *to)
{
    const cells_form form = form_when_whole(s, block);
    const size_t index = stream * s->blocks + block;
    const cells_block *b = &s->block[index];
    if (b->form != form || (form == CELLS_OPEN && (b->written[0] != UINT64_MAX || b->written[1] != UINT64_MAX)))
        return false;
    memcpy(to, s->memory[form] + index * s->block_bytes[form], cells_saved_bytes(s, block));
    return true;
}

void cells_restore(cell_store *s, size_t stream, size_t block, const void *from)
{
    const cells_form form = form_when_whole(s, block);
    const size_t index = stream * s->blocks + block;
    cells_block *b = &s->block[index];
    list_remove(s->open, &s->n_open, index);
    list_remove(s->kept, &s->n_kept, index);
    s->with_rows += (size_t)(form == CELLS_OPEN) - (size_t)b->has_rows;
    set_form(s, b, form);
    *b = (cells_block){ .written = { UINT64_MAX, UINT64_MAX }, .form = form, .has_rows = form == CELLS_OPEN };
    if (form == CELLS_OPEN)
        s->open[s->n_open++] = (uint32_t)index;
    memcpy(s->memory[form] + index * s->block_bytes[form], from, cells_saved_bytes(s, block));
}

void cells_copy_stream(cell_store *s, size_t from, size_t to)
{
    for (size_t i = 0; i < s->blocks && from != to; i++) {
        const size_t source = from * s->blocks + i, target = to * s->blocks + i;
        const cells_block *origin = &s->block[source];
        cells_block *b = &s->block[target];
        list_remove(s->open, &s->n_open, target);
        list_remove(s->kept, &s->n_kept, target);
        s->with_rows += (size_t)origin->has_rows - (size_t)b->has_rows;
        set_form(s, b, origin->form);
        *b = *origin;
        if (origin->form == CELLS_OPEN)
            s->open[s->n_open++] = (uint32_t)target;
        else if (origin->has_rows)
            s->kept[s->n_kept++] = (uint32_t)target;
        for (cells_form form = CELLS_OPEN; form < CELLS_FORMS; form++)
            if (form == origin->form || (form == CELLS_OPEN && origin->has_rows))
                memcpy(s->memory[form] + target * s->block_bytes[form], s->memory[form] + source * s->block_bytes[form], s->block_bytes[form]);
    }
}

/* ---- attention ---- */

size_t cells_segments(const cell_store *s, size_t stream, size_t first, size_t end, size_t own, kvt_segment *segments)
{
    size_t n = 0;
    cells_form last = CELLS_EMPTY;
    for (size_t i = first; i < end; i++) {
        const size_t index = stream * s->blocks + i;
        const cells_block *b = &s->block[index];
        const cells_form form = b->form == CELLS_EMPTY || (i == own && b->has_rows) ? CELLS_OPEN : b->form;
        if (form != last) {
            segments[n] = (kvt_segment){ &s->layout[form], block_page(s, index, 0, form), i * CELLS };
            segments[n++].pages.stride = s->block_bytes[form];
        } else {
            segments[n - 1].pages.count++;
        }
        last = form;
    }
    return n;
}

void cells_next_head(kvt_segment *segments, size_t n)
{
    for (size_t i = 0; i < n; i++)
        segments[i].pages.base = (uint8_t *)segments[i].pages.base + segments[i].layout->page_bytes;
}

size_t cells_bytes(const cell_store *s)
{
    return s->with_rows * s->block_bytes[CELLS_OPEN] + s->counts[CELLS_SEALED] * s->block_bytes[CELLS_SEALED] +
           s->counts[CELLS_FIRST] * s->block_bytes[CELLS_FIRST];
}

size_t cells_most_bytes(const cell_store *s)
{
    const size_t all = s->blocks * s->shape.streams, firsts = s->way.first && s->seals ? s->shape.streams : 0;
    if (!s->seals)
        return all * s->block_bytes[CELLS_OPEN];
    return (all - firsts) * s->block_bytes[CELLS_SEALED] + firsts * s->block_bytes[CELLS_FIRST];
}
