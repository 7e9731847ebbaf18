/* SPDX-License-Identifier: MIT */
/* Cells of the plug-in for llama.cpp against rows in plain memory: written in any order and again, sealed, given back, replaced, copied,
 * saved. */
#include "tests/lib/support.h"

#include "tools/ggml/cells.h"
#include "tools/ggml/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2, K_DIM = 32, V_DIM = 48, CELLS = 300, STREAMS = 2, ALL = CELLS * STREAMS, MOST_BATCH = 150 };

/* What the store should hold. */
typedef struct plain {
    float rows[2][ALL][HEADS * V_DIM];
    bool is_written[ALL];
} plain;

static unsigned state = 1;
static unsigned next_number(unsigned below)
{
    state = state * 1103515245u + 12345u;
    return (state >> 8) % below;
}

static cells_shape shape_of(uint32_t rope_dim)
{
    return (cells_shape){ HEADS, K_DIM - rope_dim, rope_dim ? 0 : V_DIM, rope_dim, CELLS, STREAMS, KVT_F32 };
}

static size_t width_of(const cell_store *s, int side)
{
    return (size_t)cells_row_dim(s, side) * HEADS;
}

static void seal(cell_store *s, unsigned workers)
{
    if (!cells_has_unsealed(s))
        return;
    cells_begin_seal(s);
    for (unsigned w = 0; w < workers; w++)
        cells_seal(s, w, workers);
    cells_end_seal(s);
    ck_assert(!cells_has_unsealed(s));
}

/* As a graph does: keys, values, attention, which seals. */
static void write_cells(cell_store *s, plain *p, const int64_t *cells, size_t n, unsigned workers)
{
    for (int side = 0; side < (s->shape.v_dim ? 2 : 1); side++) {
        static float rows[MOST_BATCH][HEADS * V_DIM];
        const size_t width = width_of(s, side);
        for (size_t i = 0; i < n; i++) {
            for (size_t c = 0; c < width; c++)
                rows[i][c] = p->rows[side][cells[i]][c] = (float)next_number(2001) / 1000 - 1;
            p->is_written[cells[i]] = true;
        }
        cells_begin(s, side, cells, n);
        for (unsigned w = 0; w < workers; w++)
            cells_write(s, side, cells, n, rows, KVT_F32, sizeof rows[0], w, workers);
    }
    seal(s, workers);
    cells_release(s);
}

static void compare(const cell_store *s, const plain *p, float bound)
{
    static float row[HEADS * V_DIM];
    for (int side = 0; side < (s->shape.v_dim ? 2 : 1); side++)
        for (size_t cell = 0; cell < ALL; cell++) {
            cells_read(s, side, cell / CELLS, cell % CELLS, 1, row);
            for (size_t c = 0; c < width_of(s, side) && p->is_written[cell]; c++)
                ck_assert_msg(fabsf(row[c] - p->rows[side][cell][c]) <= bound, "side %d, cell %zu, channel %zu: %g, not %g", side, cell, c,
                              (double)row[c], (double)p->rows[side][cell][c]);
        }
}

/* Batches as llama.cpp makes them: the next free cells, or any; of one stream or of both. */
static void write_batches(cell_store *s, plain *p, int batches, float bound)
{
    size_t head[STREAMS] = { 0 };
    for (int b = 0; b < batches; b++) {
        int64_t cells[MOST_BATCH];
        const size_t stream = next_number(STREAMS), n = 1 + next_number(next_number(3) ? 4 : MOST_BATCH);
        const size_t start = next_number(6) ? head[stream] : next_number(CELLS);
        for (size_t i = 0; i < n; i++)
            cells[i] = (int64_t)(stream * CELLS + (start + i) % CELLS);
        head[stream] = (start + n) % CELLS;
        write_cells(s, p, cells, n, 1 + next_number(4));
        if (b % 16 == 0)
            compare(s, p, bound);
    }
    compare(s, p, bound);
}

static plain expected;

static void write_stream(cell_store *s, plain *p, size_t stream)
{
    for (size_t first = 0; first < CELLS; first += 100) {
        int64_t cells[100];
        for (size_t i = 0; i < 100; i++)
            cells[i] = (int64_t)(stream * CELLS + first + i);
        write_cells(s, p, cells, 100, 2);
    }
}

/* Whole blocks of one store in another, over whatever is there; both give the same rows and the same bytes then, and the other one goes on. */
static void saved_blocks(cells_way way, uint32_t rope_dim, float bound)
{
    cell_store from, to;
    const cells_shape shape = shape_of(rope_dim);
    memset(&expected, 0, sizeof expected);
    ck_assert_ptr_null(cells_open(&from, &way, &shape));
    ck_assert_ptr_null(cells_open(&to, &way, &shape));
    write_stream(&to, &expected, 1);
    write_stream(&from, &expected, 0);
    const size_t before = cells_bytes(&to);
    for (size_t block = 0; block < CELLS / 64; block++) {
        const size_t n = cells_saved_bytes(&from, block);
        uint8_t *bytes = malloc(n), *again = malloc(n);
        ck_assert(bytes && again && cells_save(&from, 0, block, bytes));
        ck_assert(block % 2 || !cells_save(&to, 0, block, again));
        for (size_t stream = 0; stream < STREAMS; stream++) {
            static float rows[2][64][HEADS * V_DIM];
            cells_restore(&to, stream, block, bytes);
            ck_assert(cells_save(&to, stream, block, again));
            ck_assert_mem_eq(again, bytes, n);
            for (int side = 0; side < (shape.v_dim ? 2 : 1); side++) {
                cells_read(&from, side, 0, block * 64, 64, rows[0][0]);
                cells_read(&to, side, stream, block * 64, 64, rows[1][0]);
                ck_assert_mem_eq(rows[0], rows[1], 64 * width_of(&from, side) * sizeof(float));
                for (size_t i = 0; i < 64; i++)
                    memcpy(expected.rows[side][stream * CELLS + block * 64 + i], expected.rows[side][block * 64 + i], sizeof expected.rows[0][0]);
            }
        }
        free(bytes);
        free(again);
    }
    uint8_t *rest = malloc(cells_saved_bytes(&from, CELLS / 64));
    ck_assert(rest && !cells_save(&from, 0, CELLS / 64, rest)); /* it is not whole */
    free(rest);
    ck_assert_uint_ge(2 * before, cells_bytes(&to));
    memset(expected.is_written, 1, CELLS / 64 * 64 * sizeof(bool));
    memset(expected.is_written + CELLS / 64 * 64, 0, CELLS % 64 * sizeof(bool));
    write_batches(&to, &expected, 20, bound);
    cells_close(&from);
    cells_close(&to);
}

START_TEST(test_saved_blocks)
{
    saved_blocks((cells_way){ KVT_SCHEME_f32, KVT_SCHEME_f32, KVT_SCHEME_NONE, KVT_ROTATION_NONE, KVT_CENTRING_NONE }, 0, 0);
    saved_blocks((cells_way){ KVT_SCHEME_kv8, KVT_SCHEME_kv8, KVT_SCHEME_f32, KVT_ROTATION_NONE, KVT_CENTRING_OWN }, 0, 0.1f);
    saved_blocks((cells_way){ KVT_SCHEME_kv8, KVT_SCHEME_kv8, KVT_SCHEME_NONE, KVT_ROTATION_NONE, KVT_CENTRING_OWN }, 16, 0.1f);
}
END_TEST

static void any_order(cells_way way, uint32_t rope_dim, float bound)
{
    cell_store s;
    const cells_shape shape = shape_of(rope_dim);
    memset(&expected, 0, sizeof expected);
    ck_assert_ptr_null(cells_open(&s, &way, &shape));
    write_batches(&s, &expected, 60, bound);
    cells_clear(&s);
    ck_assert_uint_eq(cells_bytes(&s), 0);
    memset(&expected, 0, sizeof expected);
    write_batches(&s, &expected, 20, bound);
    cells_close(&s);
}

START_TEST(test_rows_as_they_come)
{
    any_order((cells_way){ KVT_SCHEME_f32, KVT_SCHEME_f32, KVT_SCHEME_NONE, KVT_ROTATION_NONE, KVT_CENTRING_NONE }, 0, 0);
    any_order((cells_way){ KVT_SCHEME_f32, KVT_SCHEME_f32, KVT_SCHEME_NONE, KVT_ROTATION_NONE, KVT_CENTRING_NONE }, 16, 0);
}
END_TEST

/* Rows of eight bits, once; cells that stay while their neighbours are written again are stored several times. */
START_TEST(test_sealed_rows)
{
    any_order((cells_way){ KVT_SCHEME_kv8, KVT_SCHEME_kv8, KVT_SCHEME_NONE, KVT_ROTATION_64, KVT_CENTRING_OWN }, 0, 0.1f);
    any_order((cells_way){ KVT_SCHEME_kv8, KVT_SCHEME_q8_0, KVT_SCHEME_kv8, KVT_ROTATION_NONE, KVT_CENTRING_NONE }, 0, 0.1f);
    any_order((cells_way){ KVT_SCHEME_kv8, KVT_SCHEME_kv8, KVT_SCHEME_NONE, KVT_ROTATION_64, KVT_CENTRING_OWN }, 16, 0.1f);
}
END_TEST

static const cells_way sealing = { KVT_SCHEME_kv4, KVT_SCHEME_kv4, KVT_SCHEME_kv8, KVT_ROTATION_64, KVT_CENTRING_OWN };

static void write_cell(cell_store *s, int64_t cell, unsigned seed)
{
    state = seed;
    write_cells(s, &expected, &cell, 1, 1);
}

/* Tokens that are taken back while their rows are kept: the same bytes as if they had never been there. */
START_TEST(test_taken_back)
{
    enum { TOKENS = 128, BACK = 100 };
    cell_store s[2];
    const cells_shape shape = shape_of(0);
    memset(&expected, 0, sizeof expected);
    for (int i = 0; i < 2; i++) {
        ck_assert_ptr_null(cells_open(&s[i], &sealing, &shape));
        for (unsigned cell = 0; cell < TOKENS; cell++)
            write_cell(&s[i], cell, i == 0 && cell >= BACK ? 1000 + cell : cell);
    }
    for (unsigned cell = BACK; cell < TOKENS; cell++)
        write_cell(&s[0], cell, cell);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(s[i].block[1].form, CELLS_SEALED);
    for (int side = 0; side < 2; side++) {
        static float rows[2][TOKENS][HEADS * V_DIM];
        for (int i = 0; i < 2; i++)
            cells_read(&s[i], side, 0, 0, TOKENS, rows[i][0]);
        ck_assert_mem_eq(rows[0], rows[1], TOKENS * width_of(&s[0], side) * sizeof(float));
    }
    for (int i = 0; i < 2; i++)
        cells_close(&s[i]);
}
END_TEST

/* What a stream's rows are rounded to does not depend on what is written to others meanwhile, nor on how often. */
START_TEST(test_streams_apart)
{
    enum { FIRST = 150, SECOND = 90, THIRD = 130, BACK = 5 };
    cell_store s[2];
    const cells_shape shape = shape_of(0);
    static float rows[2][2][FIRST][HEADS * V_DIM];
    memset(&expected, 0, sizeof expected);
    for (int busy = 0; busy < 2; busy++) {
        ck_assert_ptr_null(cells_open(&s[busy], &sealing, &shape));
        static const unsigned tokens[] = { FIRST, SECOND, THIRD };
        for (unsigned turn = 0; turn < 3; turn++)
            for (unsigned i = 0; i < tokens[turn] + BACK; i++) {
                const unsigned cell = i < tokens[turn] ? i : tokens[turn] - BACK + (i - tokens[turn]); /* the last few again */
                write_cell(&s[busy], cell, 1000 * turn + i);
                for (unsigned batch = 0; busy && i % 4 == 0 && batch < 3; batch++) {
                    int64_t others[MOST_BATCH];
                    for (unsigned other = 0; other < MOST_BATCH; other++)
                        others[other] = (int64_t)(CELLS + (7 * i + 100 * batch + other) % CELLS);
                    write_cells(&s[busy], &expected, others, MOST_BATCH, 1);
                }
            }
        for (int side = 0; side < 2; side++)
            cells_read(&s[busy], side, 0, 0, FIRST, rows[busy][side][0]);
    }
    ck_assert_mem_eq(rows[0], rows[1], sizeof rows[0]);
    for (int i = 0; i < 2; i++)
        cells_close(&s[i]);
}
END_TEST

/* Blocks that were opened again, and are not whole, do not stay open for ever: the oldest ones are stored. */
START_TEST(test_unfinished)
{
    enum { BLOCKS = ALL / 64, OPEN = 4 };
    cell_store s;
    cells_shape shape = shape_of(0);
    shape.cells = ALL;
    shape.streams = 1;
    memset(&expected, 0, sizeof expected);
    ck_assert_ptr_null(cells_open(&s, &sealing, &shape));
    for (unsigned cell = 0; cell < 64 * BLOCKS; cell++)
        write_cell(&s, cell, cell);
    ck_assert_uint_eq(s.counts[CELLS_SEALED] + s.counts[CELLS_FIRST], BLOCKS);
    for (unsigned block = 0; block < BLOCKS; block++)
        write_cell(&s, 64 * block, block);
    ck_assert_uint_eq(s.counts[CELLS_OPEN], OPEN);
    ck_assert_uint_eq(s.counts[CELLS_SEALED] + s.counts[CELLS_FIRST], BLOCKS - OPEN);
    ck_assert_int_eq(s.block[BLOCKS - 1].form, CELLS_OPEN);
    cells_close(&s);
}
END_TEST

START_TEST(test_forms_and_bytes)
{
    cell_store s;
    const cells_shape shape = shape_of(0);
    memset(&expected, 0, sizeof expected);
    ck_assert_ptr_null(cells_open(&s, &sealing, &shape));
    int64_t cells[MOST_BATCH];
    for (int64_t i = 0; i < MOST_BATCH; i++)
        cells[i] = i;
    write_cells(&s, &expected, cells, MOST_BATCH, 2);
    ck_assert_int_eq(s.block[0].form, CELLS_FIRST);
    ck_assert_int_eq(s.block[1].form, CELLS_SEALED);
    ck_assert_int_eq(s.block[2].form, CELLS_OPEN);
    ck_assert_uint_gt(s.layout[CELLS_SEALED].k.centre_bytes, 0);
    ck_assert_uint_eq(s.layout[CELLS_FIRST].k.centre_bytes, 0);
    ck_assert_uint_eq(cells_bytes(&s), s.block_bytes[CELLS_FIRST] + s.block_bytes[CELLS_SEALED] + 3 * s.block_bytes[CELLS_OPEN]);

    /* A sequence that begins in another block. */
    for (int64_t i = 0; i < 64; i++)
        cells[i] = 192 + i;
    for (int side = 0; side < 2; side++) {
        static const float rows[64][HEADS * V_DIM];
        cells_begin(&s, side, cells, 64);
        cells_write(&s, side, cells, 64, rows, KVT_F32, sizeof rows[0], 0, 1);
    }
    cells_mark_first(&s, 192);
    seal(&s, 1);
    ck_assert_int_eq(s.block[3].form, CELLS_FIRST);

    /* A query sees its own page as rows, and others as they are stored. */
    kvt_segment segments[5];
    ck_assert_uint_eq(cells_segments(&s, 0, 0, 4, 3, segments), 3);
    ck_assert_ptr_eq(segments[2].layout, &s.layout[CELLS_OPEN]);
    ck_assert_uint_eq(segments[2].pages.count, 2);
    ck_assert_uint_eq(segments[2].first_token, 128);
    ck_assert_uint_eq(cells_segments(&s, 0, 0, 4, SIZE_MAX, segments), 4);

    cells_copy_stream(&s, 0, 1);
    for (int side = 0; side < 2; side++) {
        static float rows[2][256][HEADS * V_DIM];
        for (size_t stream = 0; stream < 2; stream++)
            cells_read(&s, side, stream, 0, 256, rows[stream][0]);
        ck_assert_mem_eq(rows[0], rows[1], 256 * width_of(&s, side) * sizeof(float));
    }
    cells_close(&s);
}
END_TEST

START_TEST(test_words_of_the_variable)
{
    options o;
    char problem[400];
    ck_assert(options_parse(&o, NULL, problem, sizeof problem));
    ck_assert_str_eq(o.name, "kv5/kv4");
    ck_assert_int_eq(o.way.first, KVT_SCHEME_kv8);
    ck_assert(options_parse(&o, "compact,report,rotation=128,first=none", problem, sizeof problem));
    ck_assert_str_eq(o.name, "kv4/kv4");
    ck_assert(o.report && o.way.rotation == KVT_ROTATION_128 && o.way.first == KVT_SCHEME_NONE && o.way.centring == KVT_CENTRING_OWN);
    ck_assert(options_parse(&o, "q8_0/kv3,centring=none", problem, sizeof problem));
    ck_assert(o.way.k_scheme == KVT_SCHEME_q8_0 && o.way.v_scheme == KVT_SCHEME_kv3 && o.way.centring == KVT_CENTRING_NONE);
    ck_assert_int_eq(o.way.first, KVT_SCHEME_kv8);
    ck_assert(options_parse(&o, "f32", problem, sizeof problem));
    ck_assert(o.way.rotation == KVT_ROTATION_NONE && o.way.centring == KVT_CENTRING_NONE && o.way.first == KVT_SCHEME_NONE);
    static const char *const wrong[] = { "kv44", "kv5/", "rotation=32", "centring=page", "first=kv44", "balanced,kv" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert(!options_parse(&o, wrong[i], problem, sizeof problem));
        ck_assert(strstr(problem, i == 5 ? "\"kv\"" : wrong[i]) != NULL);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cells");
    TCase *cases = tcase_create("cells");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, test_rows_as_they_come);
    tcase_add_test(cases, test_saved_blocks);
    tcase_add_test(cases, test_sealed_rows);
    tcase_add_test(cases, test_taken_back);
    tcase_add_test(cases, test_streams_apart);
    tcase_add_test(cases, test_unfinished);
    tcase_add_test(cases, test_forms_and_bytes);
    tcase_add_test(cases, test_words_of_the_variable);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
