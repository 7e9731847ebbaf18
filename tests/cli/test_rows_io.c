/* SPDX-License-Identifier: MIT */
/* Readers of row files: what they accept is read right, and nothing in a file makes them crash, leak or read outside it. */
#define _POSIX_C_SOURCE 200809L
#include "tests/lib/support.h"

#include "tools/files/number.h"
#include "tools/files/pickle.h"
#include "tools/rows/formats.h"
#include "tools/rows/kind.h"

#include <dirent.h>
#include <math.h>
#include <minizip/zip.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(_WIN32)
#include <windows.h>
/* psapi.h needs windows.h before it. */
#include <psapi.h>
#else
#include <sys/resource.h>
#include <sys/wait.h>
#endif

/* The most kB that this process had in memory so far. */
static long most_memory(void)
{
#if defined(_WIN32)
    PROCESS_MEMORY_COUNTERS counters;
    ck_assert(K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters));
    return (long)(counters.PeakWorkingSetSize / 1024);
#else
    struct rusage usage;
    ck_assert_int_eq(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
#endif
}

static char folder[] = "/tmp/kvtile_rows_XXXXXX";
static char path[512];

static const char *in_folder(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void save(const char *name, const void *bytes, size_t n)
{
    FILE *file = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

static void expect_error(const char *name, const char *part)
{
    rows_file file;
    error_text error = { "" };
    ck_assert_msg(rows_open(&file, in_folder(name), ROWS_HEAD_TOKEN, &error) == -1, "%s was accepted, expected: %s", name, part);
    ck_assert_msg(strstr(error.text, part) != NULL, "'%s' does not say '%s'", error.text, part);
    ck_assert_ptr_null(strchr(error.text, '\n'));
    ck_assert_ptr_null(file.tensors);
}

/* A file under construction. */
typedef struct bytes {
    uint8_t data[4096];
    size_t size;
} bytes;

static void append(bytes *file, const void *data, size_t n)
{
    ck_assert_uint_le(file->size + n, sizeof file->data);
    memcpy(file->data + file->size, data, n);
    file->size += n;
}

static void append_u(bytes *file, uint64_t value, size_t n)
{
    append(file, &value, n);
}

static void append_f32(bytes *file, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float value = (float)i + 0.5f;
        append(file, &value, sizeof value);
    }
}

static bytes make_npy(unsigned version, const char *header, size_t n_data)
{
    bytes file = { .size = 0 };
    const uint8_t magic[8] = { 0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0 };
    append(&file, magic, 8);
    append_u(&file, strlen(header), version == 1 ? 2 : 4);
    append(&file, header, strlen(header));
    append_f32(&file, n_data);
    return file;
}

static bytes make_safetensors(const char *header, size_t n_data)
{
    bytes file = { .size = 0 };
    append_u(&file, strlen(header), 8);
    append(&file, header, strlen(header));
    append_f32(&file, n_data);
    return file;
}

static bytes make_qvkt(int32_t heads, int32_t tokens, int32_t dim, size_t n_data)
{
    bytes file = { .size = 0 };
    const int32_t header[4] = { 7, heads, tokens, dim };
    append(&file, "QVKT", 4);
    append(&file, header, sizeof header);
    append_f32(&file, n_data);
    return file;
}

static void check_f32(const rows_tensor *tensor, uint32_t heads, size_t tokens, uint32_t dim)
{
    ck_assert_int_eq(tensor->dtype, KVT_F32);
    ck_assert_uint_eq(tensor->heads, heads);
    ck_assert_uint_eq(tensor->tokens, tokens);
    ck_assert_uint_eq(tensor->dim, dim);
    float rows[64];
    ck_assert_uint_le(tokens * dim, 64);
    for (uint32_t head = 0; head < heads; head++) {
        rows_head_to_f32(tensor, head, rows);
        for (size_t i = 0; i < tokens * dim; i++)
            ck_assert(rows[i] == (float)(head * tokens * dim + i) + 0.5f);
    }
}

static void expect_f32(const char *name, const bytes *content, uint32_t heads, size_t tokens, uint32_t dim)
{
    save(name, content->data, content->size);
    rows_file file;
    error_text error = { "" };
    ck_assert_msg(rows_open(&file, in_folder(name), ROWS_HEAD_TOKEN, &error) == 0, "%s: %s", name, error.text);
    ck_assert_uint_eq(file.n_tensors, 1);
    check_f32(&file.tensors[0], heads, tokens, dim);
    rows_close(&file);
}

/* Reads bytes out of memory of exactly that size, so that AddressSanitizer sees every read beyond them, and all rows of them. 0, or -1 with the
 * error. */
static int read_all(const char *name, const uint8_t *data, size_t size, error_text *error)
{
    static float rows[65536];
    uint8_t *copy = malloc(size > 0 ? size : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, size);
    rows_file file;
    const int status = rows_read(&file, copy, size, name, NULL, ROWS_HEAD_TOKEN, error);
    for (size_t t = 0; status == 0 && t < file.n_tensors; t++) {
        ck_assert_uint_le(file.tensors[t].tokens * file.tensors[t].dim, 65536);
        for (uint32_t head = 0; head < file.tensors[t].heads; head++)
            rows_head_to_f32(&file.tensors[t], head, rows);
    }
    if (status == 0)
        rows_close(&file);
    free(copy);
    return status;
}

/* No length but the right one is accepted. */
static void check_truncations(const char *name, bytes content)
{
    error_text error;
    ck_assert_int_eq(read_all(name, content.data, content.size, &error), 0);
    for (size_t n = 0; n < content.size; n++) {
        ck_assert_msg(read_all(name, content.data, n, &error) == -1, "%s of %zu bytes was accepted", name, n);
        ck_assert_ptr_null(strchr(error.text, '\n'));
    }
    append_u(&content, 0, 1);
    ck_assert_int_eq(read_all(name, content.data, content.size, &error), -1);
}

/* Whatever one byte becomes, opening fails, or all rows can be read. */
static void check_mutations(const char *name, const bytes *content)
{
    static const uint8_t values[] = { 0x00, 0x01, 0x20, 0x22, 0x27, 0x28, 0x2c, 0x30, 0x39, 0x5b, 0x7b, 0x7d, 0x7f, 0x80, 0xff };
    error_text error;
    for (size_t at = 0; at < content->size; at++) {
        for (size_t i = 0; i < sizeof values; i++) {
            bytes mutated = *content;
            mutated.data[at] = values[i];
            (void)read_all(name, mutated.data, mutated.size, &error);
        }
    }
}

START_TEST(qvkt_round_trip)
{
    float rows[2 * 20]; /* two heads of 3 x 4, 20 apart */
    for (size_t i = 0; i < 40; i++)
        rows[i] = i % 20 < 12 ? (float)(i / 20 * 12 + i % 20) + 0.5f : NAN;
    error_text error = { "" };
    ck_assert_int_eq(qvkt_write(in_folder("a.qvkt"), 3, 2, 3, 4, rows, 20, &error), 0);
    rows_file file;
    ck_assert_int_eq(rows_open(&file, in_folder("a.qvkt"), ROWS_HEAD_TOKEN, &error), 0);
    check_f32(&file.tensors[0], 2, 3, 4);
    ck_assert_int_eq(load_i32(file.map.data + 4), 3);
    rows_close(&file);
}
END_TEST

START_TEST(qvkt_failed_write_leaves_nothing)
{
    const float row[4] = { 0 };
    error_text error = { "" };
    ck_assert_int_eq(qvkt_write(in_folder("missing/a.qvkt"), 0, 1, 1, 4, row, 4, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "cannot be written"));
    ck_assert_int_eq(mkdir(in_folder("occupied.qvkt"), 0700), 0);
    ck_assert_int_eq(qvkt_write(in_folder("occupied.qvkt"), 0, 1, 1, 4, row, 4, &error), -1);
    DIR *directory = opendir(folder);
    ck_assert_ptr_nonnull(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        ck_assert_ptr_null(strstr(entry->d_name, ".part"));
    closedir(directory);
    rmdir(in_folder("occupied.qvkt"));
}
END_TEST

START_TEST(qvkt_hostile)
{
    static const struct {
        int32_t heads, tokens, dim;
        const char *part;
    } cases[] = {
        { 0, 1, 4, "kv heads is 0" },
        { -1, 1, 4, "kv heads is -1" },
        { 1, 0, 4, "tokens is 0" },
        { 1, INT32_MIN, 4, "tokens is -2147483648" },
        { 1, 1, -7, "head_dim is -7" },
        { 1, 1, 1025, "dim is 1025: 1 to 1024" },
        { INT32_MAX, INT32_MAX, INT32_MAX, "heads is 2147483647: 1 to 65536" },
        { 65536, INT32_MAX, 1024, "rows take 16 bytes" },
        { 1, 2, 4, "rows take 16 bytes: 32 (1 heads x 2 tokens x 4 f32)" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bytes file = make_qvkt(cases[i].heads, cases[i].tokens, cases[i].dim, 4);
        save("h.bin", file.data, file.size);
        expect_error("h.bin", cases[i].part);
    }
    check_truncations("t.qvkt", make_qvkt(2, 3, 4, 24));
    const bytes good = make_qvkt(2, 3, 4, 24);
    check_mutations("m.qvkt", &good);
}
END_TEST

#define NPY_3D "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }          \n"

START_TEST(npy_good)
{
    for (unsigned version = 1; version <= 3; version++) {
        bytes file = make_npy(version, NPY_3D, 24);
        expect_f32("a.npy", &file, 2, 3, 4);
        file = make_npy(version, "{\"shape\":(3,8),\"fortran_order\":False,\"descr\":\"<f4\"}", 24);
        expect_f32("named.bin", &file, 1, 3, 8);
    }
    bytes half = make_npy(1, "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2)}", 0);
    append_u(&half, 0xc0003c00, 4);
    save("half.npy", half.data, half.size);
    rows_file file;
    error_text error;
    ck_assert_int_eq(rows_open(&file, in_folder("half.npy"), ROWS_HEAD_TOKEN, &error), 0);
    ck_assert_int_eq(file.tensors[0].dtype, KVT_F16);
    float row[2];
    rows_head_to_f32(&file.tensors[0], 0, row);
    ck_assert(row[0] == 1 && row[1] == -2);
    rows_close(&file);
}
END_TEST

START_TEST(npy_hostile)
{
    static const struct {
        const char *header;
        const char *part;
    } cases[] = {
        { "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }", "descr is '<f8' (float64)" },
        { "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 2), }", "descr is '>f4'" },
        { "{'descr': '|V2', 'fortran_order': False, 'shape': (2, 2), }", "use .safetensors" },
        { "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 2), }", "descr is not one number format" },
        { "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "fortran_order is True" },
        { "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2, 2), }", "neither True nor False" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", "shape has 1 dimensions" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "shape has 0 dimensions" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1, 2, 2), }", "a batch of 3" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 2, 2), }", "shape has 5 dimensions" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }", "tokens is 0" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 0), }", "dim is 0" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4096), }", "dim is 4096" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (70000, 1, 4), }", "heads is 70000" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }", "more than fits memory" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616, 4), }", "shape is malformed" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }", "shape is malformed" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2", "shape is malformed" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "shape is malformed" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", "numbers take 16 bytes: 24" },
        { "{'descr': '<f4', 'fortran_order': False, }", "lacks 'shape'" },
        { "{'descr': '<f4', 'descr': '<f4', }", "key 'descr' twice" },
        { "{'order': 1}", "'order' twice or too many" },
        { "{'a_key_that_is_far_too_long': 1}", "malformed key" },
        { "{'descr': '<f4' 'fortran_order': False}", "malformed after 'descr'" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)} x", "goes on after" },
        { "[]", "no dictionary" },
        { "", "no dictionary" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bytes file = make_npy(1, cases[i].header, 4);
        save("h.npy", file.data, file.size);
        expect_error("h.npy", cases[i].part);
    }
    bytes file = make_npy(4, NPY_3D, 24);
    save("h.npy", file.data, file.size);
    expect_error("h.npy", "version is 4");
    file = make_npy(2, NPY_3D, 24);
    memset(file.data + 8, 0xff, 4);
    save("h.npy", file.data, file.size);
    expect_error("h.npy", "header length is 4294967295");
    save("h.npy", "not numpy at all", 16);
    expect_error("h.npy", "magic is not that of .npy");
    for (unsigned version = 1; version <= 3; version++)
        check_truncations("t.npy", make_npy(version, NPY_3D, 24));
    file = make_npy(1, NPY_3D, 24);
    check_mutations("m.npy", &file);
}
END_TEST

/* ---- .npz ---- */

typedef struct archived {
    const char *name;
    const bytes *content;
    int level; /* 0: only stored */
} archived;

/* The archive as numpy makes it, in memory too. */
static bytes make_npz(const char *name, const archived *members, size_t n)
{
    const zipFile archive = zipOpen64(in_folder(name), APPEND_STATUS_CREATE);
    ck_assert_ptr_nonnull(archive);
    for (size_t i = 0; i < n; i++) {
        const zip_fileinfo info = { .dosDate = 0 };
        ck_assert_int_eq(
            zipOpenNewFileInZip(archive, members[i].name, &info, NULL, 0, NULL, 0, NULL, members[i].level ? Z_DEFLATED : 0, members[i].level),
            ZIP_OK);
        ck_assert_int_eq(zipWriteInFileInZip(archive, members[i].content->data, (unsigned)members[i].content->size), ZIP_OK);
        ck_assert_int_eq(zipCloseFileInZip(archive), ZIP_OK);
    }
    ck_assert_int_eq(zipClose(archive, NULL), ZIP_OK);
    bytes content = { .size = 0 };
    FILE *file = fopen(in_folder(name), "rb");
    ck_assert_ptr_nonnull(file);
    content.size = fread(content.data, 1, sizeof content.data, file);
    ck_assert(content.size < sizeof content.data);
    fclose(file);
    return content;
}

START_TEST(npz_good)
{
    const bytes npy = make_npy(1, NPY_3D, 24), other = make_npy(1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", 2),
                text = { .data = "read me", .size = 7 };
    for (int level = 0; level <= 9; level += 9) {
        const archived members[] = {
            { "layer0_keys.npy", &npy, level }, { "step.npy", &other, level }, { "layer0_values.npy", &npy, 9 - level }, { "notes.txt", &text, level }
        };
        make_npz("a.npz", members, 4);
        rows_file file;
        error_text error = { "" };
        ck_assert_msg(rows_open(&file, in_folder("a.npz"), ROWS_HEAD_TOKEN, &error) == 0, "%s", error.text);
        ck_assert_uint_eq(file.n_tensors, 2);
        ck_assert_str_eq(file.tensors[0].name, "layer0_keys");
        ck_assert_str_eq(file.tensors[1].name, "layer0_values");
        ck_assert_ptr_nonnull(strstr(file.note, "2 of 4 arrays skipped: step.npy: descr is '<i8'"));
        check_f32(&file.tensors[0], 2, 3, 4);
        check_f32(&file.tensors[1], 2, 3, 4);
        ck_assert_uint_eq(file.n_blocks, 1); /* what is deflated and has rows */
        rows_close(&file);
    }
    const archived array = { "k.npy", &npy, 0 };
    const bytes content = make_npz("b.npz", &array, 1);
    expect_f32("named.bin", &content, 2, 3, 4);
}
END_TEST

START_TEST(npz_hostile)
{
    const bytes npy = make_npy(1, NPY_3D, 24), text = { .data = "read me", .size = 7 };
    const archived none = { "notes.txt", &text, 0 };
    make_npz("h.npz", &none, 1);
    expect_error("h.npz", "no array holds rows; notes.txt: is no .npy file");
    save("n.npz", "PK\x03\x04 and no more", 16);
    expect_error("n.npz", "is no zip archive");
    for (int level = 0; level <= 9; level += 9) {
        const archived array = { "k.npy", &npy, level };
        const bytes content = make_npz("m.npz", &array, 1);
        for (size_t n = 1; n <= content.size - 22; n++) { /* of the last record, 22 bytes, minizip does not need all */
            rows_file file;
            error_text error;
            save("t.npz", content.data, n);
            ck_assert_msg(rows_open(&file, in_folder("t.npz"), ROWS_HEAD_TOKEN, &error) == -1, "%zu bytes were accepted", n);
        }
        bytes damaged = content;
        damaged.data[level ? 60 : 200] ^= 1; /* in the numbers */
        save("d.npz", damaged.data, damaged.size);
        expect_error("d.npz", "k.npy: is damaged");
        check_mutations("x.npz", &content);
        damaged = content;
        const size_t central = content.size - 22 - 46 - strlen(array.name);
        damaged.data[central + 8] |= 1;
        save("c.npz", damaged.data, damaged.size);
        expect_error("c.npz", "encrypted");
        damaged = content;
        memset(damaged.data + central + 24, 0xf0, 4); /* 4 GB */
        save("l.npz", damaged.data, damaged.size);
        expect_error("l.npz", "k.npy: is damaged");
    }
}
END_TEST

/* A member of 2 MB of zeros, 2 kB when deflated, and a directory that has it many times over: as many bytes as it says, each time again. */
START_TEST(npz_overlap)
{
    enum { SIDE = 700, TIMES = 600 };
    static uint8_t zeros[SIDE * SIDE * 4 + 80];
    bytes header = { .size = 0 };
    const char text[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (700, 700)}";
    const uint8_t magic[10] = { 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, sizeof text - 1, 0 };
    append(&header, magic, sizeof magic);
    append(&header, text, sizeof text - 1);
    memcpy(zeros, header.data, header.size);
    zipFile zip = zipOpen(in_folder("once.npz"), APPEND_STATUS_CREATE);
    const zip_fileinfo info = { 0 };
    ck_assert_int_eq(zipOpenNewFileInZip(zip, "k.npy", &info, NULL, 0, NULL, 0, NULL, Z_DEFLATED, 9), ZIP_OK);
    ck_assert_int_eq(zipWriteInFileInZip(zip, zeros, (unsigned)header.size + SIDE * SIDE * 4), ZIP_OK);
    zipCloseFileInZip(zip);
    ck_assert_int_eq(zipClose(zip, NULL), ZIP_OK);

    static uint8_t once[65536], many[65536 + TIMES * 64];
    FILE *file = fopen(in_folder("once.npz"), "rb");
    const size_t size = fread(once, 1, sizeof once, file);
    fclose(file);
    ck_assert(size > 100 && size < sizeof once);
    const size_t entry = 46 + 5, central = size - 22 - entry;
    memcpy(many, once, central);
    for (size_t i = 0; i < TIMES; i++)
        memcpy(many + central + i * entry, once + central, entry);
    uint8_t *end = many + central + TIMES * entry;
    memcpy(end, once + size - 22, 22);
    const uint16_t n = TIMES;
    const uint32_t directory = TIMES * entry;
    memcpy(end + 8, &n, 2);
    memcpy(end + 10, &n, 2);
    memcpy(end + 12, &directory, 4);

    rows_file rows;
    error_text error = { "" };
    ck_assert_msg(rows_read(&rows, once, size, "once.npz", NULL, ROWS_HEAD_TOKEN, &error) == 0, "%s", error.text);
    rows_close(&rows);
    const long before = most_memory();
    ck_assert_int_eq(rows_read(&rows, many, central + TIMES * entry + 22, "many.npz", NULL, ROWS_HEAD_TOKEN, &error), -1);
    ck_assert_msg(strstr(error.text, "overlaps other members") != NULL, "%s", error.text);
    ck_assert_int_lt(most_memory() - before, 100 * 1024); /* all of it would be 1.2 GB */
}
END_TEST

/* ---- nothing but numbers ---- */

START_TEST(raw)
{
    bytes content = { .size = 0 };
    append_f32(&content, 24);
    save("raw.f32", content.data, content.size);
    rows_file file;
    error_text error;
    rows_shape shape = { KVT_F32, 3, { 2, 3, 4 } };
    ck_assert_int_eq(rows_open_raw(&file, in_folder("raw.f32"), &shape, ROWS_HEAD_TOKEN, &error), 0);
    check_f32(&file.tensors[0], 2, 3, 4);
    rows_close(&file);
    shape.dtype = KVT_BF16;
    ck_assert_int_eq(rows_open_raw(&file, in_folder("raw.f32"), &shape, ROWS_HEAD_TOKEN, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "has 96 bytes: 48 (2 heads x 3 tokens x 4 bf16) would be right"));
    shape = (rows_shape){ KVT_F32, 2, { UINT32_MAX, 1025 } };
    ck_assert_int_eq(rows_open_raw(&file, in_folder("raw.f32"), &shape, ROWS_HEAD_TOKEN, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "dim is 1025"));
}
END_TEST

/* [token][head][dim] is the same rows in another order; a batch of 1 is none. */
START_TEST(orders)
{
    float numbers[2 * 3 * 4], rows[3 * 4], want[3 * 4];
    for (int i = 0; i < 24; i++)
        numbers[i] = (float)i;
    const uint8_t *bytes_of = (const uint8_t *)numbers;
    error_text error;
    rows_file file;
    for (size_t batch = 0; batch < 2; batch++) {
        rows_shape shape = { KVT_F32, 3 + batch, { 1, 2, 3, 4 } };
        memmove(shape.sizes, shape.sizes + 1 - batch, (3 + batch) * sizeof *shape.sizes);
        ck_assert_int_eq(rows_read(&file, bytes_of, sizeof numbers, "", &shape, ROWS_HEAD_TOKEN, &error), 0);
        ck_assert_uint_eq(file.tensors[0].heads, 2);
        ck_assert_uint_eq(file.tensors[0].tokens, 3);
        rows_to_f32(&file.tensors[0], 1, 1, 2, rows);
        ck_assert_mem_eq(rows, numbers + 12 + 4, 8 * sizeof *rows);
        rows_close(&file);
        ck_assert_int_eq(rows_read(&file, bytes_of, sizeof numbers, "", &shape, ROWS_TOKEN_HEAD, &error), 0);
        ck_assert_uint_eq(file.tensors[0].heads, 3);
        ck_assert_uint_eq(file.tensors[0].tokens, 2);
        for (uint32_t head = 0; head < 3; head++) {
            rows_head_to_f32(&file.tensors[0], head, rows);
            for (size_t t = 0; t < 2; t++)
                memcpy(want + 4 * t, numbers + (t * 3 + head) * 4, 4 * sizeof *want);
            ck_assert_mem_eq(rows, want, 8 * sizeof *rows);
        }
        rows_close(&file);
    }
    rows_shape shape = { KVT_F32, 4, { 2, 1, 3, 4 } };
    ck_assert_int_eq(rows_read(&file, bytes_of, sizeof numbers, "", &shape, ROWS_HEAD_TOKEN, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "a batch of 2"));
    shape = (rows_shape){ KVT_F32, 3, { 70000, 1, 4 } };
    ck_assert_int_eq(rows_read(&file, bytes_of, sizeof numbers, "", &shape, ROWS_HEAD_TOKEN, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "heads is 70000"));
    ck_assert_ptr_nonnull(strstr(error.text, "--order token,head,dim"));
    bytes qvkt = make_qvkt(2, 3, 4, 24);
    ck_assert_int_eq(rows_read(&file, qvkt.data, qvkt.size, "", NULL, ROWS_TOKEN_HEAD, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "--order is of the other formats"));
}
END_TEST

/* docs/eval.md has the rule. */
START_TEST(names)
{
    static const struct {
        const char *name;
        rows_kind kind;
    } table[] = {
        { "past_key_values.0.key", ROWS_KEYS },
        { "past_key_values.0.value", ROWS_VALUES },
        { "past_key_values.11.decoder.value", ROWS_VALUES },
        { "present.3.key", ROWS_KEYS },
        { "present.3.value", ROWS_VALUES },
        { "past_key_values", ROWS_UNKNOWN },
        { "pastKeyValues.0", ROWS_UNKNOWN },
        { "keyvalues", ROWS_UNKNOWN },
        { "kv", ROWS_UNKNOWN },
        { "kv_cache.npy", ROWS_UNKNOWN },
        { "k_v", ROWS_UNKNOWN },
        { "kv_cache.k", ROWS_KEYS },
        { "kv_cache.v", ROWS_VALUES },
        { "key_value_states.value", ROWS_VALUES },
        { "keys", ROWS_KEYS },
        { "VALUES", ROWS_VALUES },
        { "keys_v2.npy", ROWS_KEYS },
        { "k_cache_v2.npy", ROWS_KEYS },
        { "v_cache_v2.npy", ROWS_VALUES },
        { "cache_v2.npy", ROWS_UNKNOWN },
        { "v2_rows.npy", ROWS_UNKNOWN },
        { "rows_q8_0.npy", ROWS_UNKNOWN },
        { "q4_0_keys.npy", ROWS_KEYS },
        { "values_q8_0", ROWS_VALUES },
        { "layer3_v", ROWS_VALUES },
        { "layer3_k_f16.npy", ROWS_KEYS },
        { "layer0_queries.qvkt", ROWS_QUERIES },
        { "cache.v", ROWS_VALUES },
        { "cache_k_l0", ROWS_KEYS },
        { "cache_v_l0", ROWS_VALUES },
        { "Kcur-0", ROWS_KEYS },
        { "Vcur-0", ROWS_VALUES },
        { "Qcur-0", ROWS_QUERIES },
        { "k_cur-31", ROWS_KEYS },
        { "kcache.npy", ROWS_KEYS },
        { "keyCache", ROWS_KEYS },
        { "valueCache.7", ROWS_VALUES },
        { "key_cache.0", ROWS_KEYS },
        { "value_cache.0", ROWS_VALUES },
        { "query_states", ROWS_QUERIES },
        { "key_states", ROWS_KEYS },
        { "model.layers.0.self_attn.k_proj", ROWS_KEYS },
        { "model.layers.0.self_attn.v_proj", ROWS_VALUES },
        { "model.layers.0.self_attn.q_proj", ROWS_QUERIES },
        { "v0", ROWS_VALUES },
        { "k12", ROWS_KEYS },
        { "q3", ROWS_QUERIES },
        { "layer.3.v0.npy", ROWS_VALUES },
        { "V", ROWS_VALUES },
        { "l0_keys", ROWS_KEYS },
        { "eval.npy", ROWS_UNKNOWN },
        { "vectors.npy", ROWS_UNKNOWN },
        { "arr_0", ROWS_UNKNOWN },
        { "", ROWS_UNKNOWN },
        { "\xc3\xa9_v", ROWS_VALUES },
        { "\xff\x80", ROWS_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(rows_kind_of(table[i].name) == table[i].kind, "%s: %d, not %d", table[i].name, rows_kind_of(table[i].name), table[i].kind);
}
END_TEST

START_TEST(pickles)
{
    static const struct {
        const char *bytes;
        size_t size;
        bool is;
    } table[] = {
        { "\x80\x02}q\x00.", 6, true },
        { "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", 9, true }, /* torch.save of old */
        { "\x80\x04\x95\x00\x00", 5, true },
        { "\x80\x02\x00\x00\x00\x02\x00\x00", 8, false }, /* a checkpoint of 640 channels */
        { "\x80\x02", 2, false },
        { "GGUF\x03", 5, false },
        { "PK\x03\x04", 4, false },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const file_map map = { (const uint8_t *)table[i].bytes, table[i].size };
        ck_assert_msg(pickle_is(&map) == table[i].is, "%zu", i);
    }
    const bytes text = { .data = "x", .size = 1 };
    const archived first[] = { { "archive/data.pkl", &text, 0 }, { "archive/data/0", &text, 0 } },
                   last[] = { { "archive/version", &text, 0 }, { "archive/data.pkl", &text, 0 } }, other = { "mydata.pkl.npy", &text, 0 };
    make_npz("first.pt", first, 2);
    expect_error("first.pt", "a pickle, which runs code");
    make_npz("last.pt", last, 2);
    expect_error("last.pt", "a pickle, which runs code");
    make_npz("other.npz", &other, 1);
    expect_error("other.npz", "no array holds rows");
}
END_TEST

/* A file that others make shorter while it is read: a message and exit status 1, and no signal. Windows lets nobody do so. */
START_TEST(shrinking)
{
    static float zeros[16384];
    save("shrinking.raw", zeros, sizeof zeros);
    rows_file file;
    error_text error;
    const rows_shape shape = { KVT_F32, 2, { 1024, 16 } };
    ck_assert_int_eq(rows_open_raw(&file, in_folder("shrinking.raw"), &shape, ROWS_HEAD_TOKEN, &error), 0);
#if defined(_WIN32)
    ck_assert_int_eq(truncate(in_folder("shrinking.raw"), 100), -1);
#else
    ck_assert_int_eq(truncate(in_folder("shrinking.raw"), 100), 0);
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        rows_head_to_f32(&file.tensors[0], 0, zeros);
        _exit(0);
    }
    close(ends[1]);
    char said[512] = "";
    size_t n = 0;
    for (ssize_t got; n < sizeof said - 1 && (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    close(ends[0]);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x: %s", status, said);
    ck_assert_msg(strstr(said, "shrinking.raw: became shorter while it was read") != NULL, "%s", said);
#endif
    rows_close(&file);
}
END_TEST

#define TENSOR(name, dtype, shape, begin, end) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

START_TEST(safetensors_good)
{
    bytes content = make_safetensors("{" TENSOR("only", "F32", "[2,3,4]", "0", "96") "}   ", 24);
    expect_f32("a.safetensors", &content, 2, 3, 4);

    content = make_safetensors(
        "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR("k", "F16", "[1,2]", "0", "4") "," TENSOR("bias", "F32", "[1]", "4", "8") "," TENSOR(
            "v", "BF16", "[1,1,2]", "8", "12") "," TENSOR("ids", "I64", "[0,2]", "12", "12") "}",
        0);
    append_u(&content, 0xc0003c00, 4);
    append_u(&content, 0, 4);
    append_u(&content, 0xc0003f80, 4);
    save("several.safetensors", content.data, content.size);
    rows_file file;
    error_text error = { "" };
    ck_assert_msg(rows_open(&file, in_folder("several.safetensors"), ROWS_HEAD_TOKEN, &error) == 0, "%s", error.text);
    ck_assert_uint_eq(file.n_tensors, 2);
    ck_assert_ptr_nonnull(strstr(file.note, "2 of 4 tensors skipped: tensor bias: shape has 1 dimensions"));
    for (size_t i = 0; i < 2; i++) {
        float row[2];
        ck_assert_str_eq(file.tensors[i].name, i == 0 ? "k" : "v");
        ck_assert_int_eq(file.tensors[i].dtype, i == 0 ? KVT_F16 : KVT_BF16);
        rows_head_to_f32(&file.tensors[i], 0, row);
        ck_assert(row[0] == 1 && row[1] == -2);
    }
    rows_close(&file);
}
END_TEST

START_TEST(safetensors_hostile)
{
    static const struct {
        const char *header;
        const char *part;
    } cases[] = {
        { "{" TENSOR("a", "F32", "[2,2]", "0", "20") "}", "data_offsets end at 20: the file has only 16" },
        { "{" TENSOR("a", "F32", "[2,2]", "0", "12") "}", "data_offsets span 12 bytes" },
        { "{" TENSOR("a", "F32", "[1,2]", "0", "8") "}", "data_offsets end at 8: the file has 16" },
        { "{" TENSOR("a", "F32", "[2,2]", "16", "0") "}", "data_offsets is not two" },
        { "{" TENSOR("a", "F32", "[2,2]", "-16", "0") "}", "data_offsets is not two" },
        { "{" TENSOR("a", "F32", "[2,2]", "0", "9223372036854775807") "}", "data_offsets end at 9223372036854775807" },
        { "{" TENSOR("a", "F32", "[2,2]", "0", "9223372036854775808") "}", "not JSON" },
        { "{" TENSOR("a", "F32", "[4294967296,4294967296]", "0", "16") "}", "too large for 64 bits" },
        { "{" TENSOR("a", "F32", "[4611686018427387905,4]", "0", "16") "}", "too large for 64 bits" },
        { "{" TENSOR("a", "F32", "[4611686018427387904,1]", "0", "16") "}", "data_offsets span 16 bytes" },
        { "{" TENSOR("a", "F32", "[2,-2]", "0", "16") "}", "shape[1] is not a natural number" },
        { "{" TENSOR("a", "F32", "[2,2.5]", "0", "16") "}", "shape[1] is not a natural number" },
        { "{" TENSOR("a", "F32", "4", "0", "16") "}", "shape is missing or no array" },
        { "{" TENSOR("a", "F32", "[4]", "0", "16") "}", "no tensor holds rows; tensor a: shape has 1 dimensions" },
        { "{" TENSOR("a", "F32", "[]", "0", "4") "," TENSOR("b", "F32", "[1,3]", "8", "16") "}", "data_offsets span 8 bytes" },
        { "{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1,4]", "0", "16") "}", "shape has 10 dimensions" },
        { "{" TENSOR("a", "F64", "[1,2]", "0", "16") "}", "no tensor holds rows; tensor a: dtype is F64" },
        { "{" TENSOR("a", "FNEW", "[1,2]", "0", "16") "}", "dtype is FNEW" },
        { "{" TENSOR("a\\nb", "F64", "[1,2]", "0", "16") "}", "tensor a\\x0ab" },
        { "{\"a\":{\"shape\":[2,2],\"data_offsets\":[0,16]}}", "dtype is missing" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2]}}", "data_offsets is not two" },
        { "{\"a\":7}", "dtype is missing" },
        { "{" TENSOR("a", "F32", "[2,2]", "0", "16") "," TENSOR("a", "F32", "[2,2]", "0", "16") "}", "duplicate" },
        { "{}", "data_offsets end at 0" },
        { "[]", "not a JSON object" },
        { "{", "not JSON" },
        { "", "not JSON" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bytes file = make_safetensors(cases[i].header, 4);
        save("h.safetensors", file.data, file.size);
        expect_error("h.safetensors", cases[i].part);
    }
    bytes file = make_safetensors("{\"__metadata__\":{}}", 0);
    save("h.safetensors", file.data, file.size);
    expect_error("h.safetensors", "has no tensor");
    memset(file.data, 0xff, 8);
    save("h.safetensors", file.data, file.size);
    expect_error("h.safetensors", "header length is 18446744073709551615");
    check_truncations("t.safetensors", make_safetensors("{" TENSOR("only", "F32", "[2,3,4]", "0", "96") "}", 24));
    file = make_safetensors("{" TENSOR("only", "F32", "[2,3,4]", "0", "96") "}", 24);
    check_mutations("m.safetensors", &file);
}
END_TEST

START_TEST(not_a_file_of_rows)
{
    expect_error("missing.npy", "cannot be opened");
    ck_assert_int_eq(mkdir(in_folder("folder.npy"), 0700), 0);
    expect_error("folder.npy", "is a directory");
    rmdir(in_folder("folder.npy"));
#if !defined(_WIN32) /* whose pipes are not in folders */
    ck_assert_int_eq(mkfifo(in_folder("pipe.npy"), 0600), 0);
    expect_error("pipe.npy", "is a device or a pipe");
#endif
    save("empty.npy", "", 0);
    expect_error("empty.npy", "is empty");
    save("text.txt", "hello", 5);
    expect_error("text.txt", "begins neither with QVKT");
}
END_TEST

/* The tools' own conversions agree with the library's. */
START_TEST(half_numbers)
{
    enum { DIM = 1024, TOKENS = 64 };
    static uint16_t halves[TOKENS * DIM];
    static float wide[TOKENS * DIM];
    static uint16_t back[TOKENS * DIM];
    for (size_t i = 0; i < TOKENS * DIM; i++)
        halves[i] = (uint16_t)i;
    kvt_layout layout;
    const kvt_spec spec = { .size = sizeof spec, .k_scheme = KVT_SCHEME_f32, .k_dim = DIM, .kv_heads = 1 };
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    void *memory = malloc(layout.page_bytes);
    ck_assert_ptr_nonnull(memory);
    const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = 1 };

    const kvt_dtype dtypes[2] = { KVT_F16, KVT_BF16 };
    for (size_t d = 0; d < 2; d++) {
        ck_assert_int_eq(kvt_write(&layout, KVT_K, &pages, 0, TOKENS, halves, dtypes[d], DIM * 2), KVT_OK);
        ck_assert_int_eq(kvt_read(&layout, KVT_K, &pages, 0, TOKENS, wide, KVT_F32, DIM * 4), KVT_OK);
        for (size_t i = 0; i < TOKENS * DIM; i++) {
            const float mine = d == 0 ? f16_to_f32(halves[i]) : bf16_to_f32(halves[i]);
            if (isnan(wide[i]))
                ck_assert(isnan(mine));
            else
                ck_assert_msg(memcmp(&mine, &wide[i], 4) == 0, "%zu: %a is not %a", i, (double)mine, (double)wide[i]);
        }
    }
    /* All f16 numbers, their neighbours in f32, and the middles between them. */
    for (uint32_t offset = 0; offset < 5; offset++) {
        static const uint32_t steps[5] = { 0, 0xfff, 0x1000, 0x1001, 0x1fff };
        for (size_t i = 0; i < TOKENS * DIM; i++) {
            const float value = f16_to_f32((uint16_t)i);
            const uint32_t bits = load_u32(&value) + (isfinite(value) ? steps[offset] : 0);
            wide[i] = load_float(&bits);
        }
        ck_assert_int_eq(kvt_write(&layout, KVT_K, &pages, 0, TOKENS, wide, KVT_F32, DIM * 4), KVT_OK);
        ck_assert_int_eq(kvt_read(&layout, KVT_K, &pages, 0, TOKENS, back, KVT_F16, DIM * 2), KVT_OK);
        for (size_t i = 0; i < TOKENS * DIM; i++)
            ck_assert_msg(f32_to_f16(wide[i]) == back[i], "%a: %04x is not %04x", (double)wide[i], f32_to_f16(wide[i]), back[i]);
    }
    free(memory);
}
END_TEST

static void remove_folder(void)
{
    DIR *directory = opendir(folder);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        remove(in_folder(entry->d_name)); /* "." and ".." stay */
    if (directory != NULL)
        closedir(directory);
    rmdir(folder);
}

int main(void)
{
    if (mkdtemp(folder) == NULL)
        return EXIT_FAILURE;
    Suite *suite = suite_create("rows_io");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 600); /* for emulators */
    tcase_add_test(all, qvkt_round_trip);
    tcase_add_test(all, qvkt_failed_write_leaves_nothing);
    tcase_add_test(all, qvkt_hostile);
    tcase_add_test(all, npy_good);
    tcase_add_test(all, npy_hostile);
    tcase_add_test(all, npz_good);
    tcase_add_test(all, npz_hostile);
    tcase_add_test(all, npz_overlap);
    tcase_add_test(all, raw);
    tcase_add_test(all, orders);
    tcase_add_test(all, names);
    tcase_add_test(all, pickles);
    tcase_add_test(all, shrinking);
    tcase_add_test(all, safetensors_good);
    tcase_add_test(all, safetensors_hostile);
    tcase_add_test(all, not_a_file_of_rows);
    tcase_add_test(all, half_numbers);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    remove_folder();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
