/* SPDX-License-Identifier: MIT */
/* See gguf.h. Values of the metadata have no index: they are walked once, and looked up by key from then on. */
#include "tools/files/gguf.h"

#include "tools/files/number.h"
#include "tools/files/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_KEYS      65536 /* files have about fifty */
#define MOST_KEY_BYTES 65535
#define MOST_TENSORS   (1 << 20)

/* ---- the metadata ---------------------------------------------------------------------------------------------------------------- */

static const uint8_t type_bytes[GGUF_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

typedef struct cursor {
    const uint8_t *at;
    uint64_t left;
} cursor;

/* NULL when fewer are left. */
static const uint8_t *next_bytes(cursor *c, uint64_t bytes)
{
    if (bytes > c->left)
        return NULL;
    const uint8_t *taken = c->at;
    c->at += bytes;
    c->left -= bytes;
    return taken;
}

static const uint8_t *take_string(cursor *c, uint64_t *length)
{
    const uint8_t *bytes = next_bytes(c, 8);
    if (!bytes)
        return NULL;
    *length = load_u64(bytes);
    return next_bytes(c, *length);
}

const char *gguf_shown(const void *bytes, uint64_t length, char text[64])
{
    text_shown_bytes(text, 64, bytes, length < 64 ? (size_t)length : 64); /* 64 take more room than there is */
    return text;
}

static void note_end(gguf *file)
{
    file->is_short = file->whole > file->size;
}

static bool fail_end(gguf *file)
{
    note_end(file);
    return error_set(file->error, "the file ends inside its metadata") == 0;
}

/* Strings have no index: a list of them can only be walked. */
static bool skip_strings(cursor *c, uint64_t count)
{
    if (count > c->left / 8)
        return false;
    uint64_t length;
    for (uint64_t i = 0; i < count; i++) {
        if (!take_string(c, &length))
            return false;
    }
    return true;
}

static bool read_value(gguf *file, cursor *c, gguf_entry *entry)
{
    char key[64];
    const uint8_t *bytes = next_bytes(c, 4);
    if (!bytes)
        return fail_end(file);
    entry->type = load_u32(bytes);
    entry->list = entry->type == GGUF_LIST;
    entry->count = 1;
    if (entry->list) {
        bytes = next_bytes(c, 12);
        if (!bytes)
            return fail_end(file);
        entry->type = load_u32(bytes);
        entry->count = load_u64(bytes + 4);
    }
    if (entry->type >= GGUF_TYPES || entry->type == GGUF_LIST)
        return error_set(file->error, "%s has a value of type %" PRIu32 "%s, but must have one of 0 to 12, or a list of those but 9",
                         gguf_shown(entry->key, entry->key_length, key), entry->type, entry->list ? " in a list" : "") == 0;
    entry->data = c->at;
    if (entry->type != GGUF_STRING)
        return (entry->count <= c->left / type_bytes[entry->type] && next_bytes(c, entry->count * type_bytes[entry->type])) || fail_end(file);
    if (entry->list)
        return skip_strings(c, entry->count) || fail_end(file);
    entry->data = take_string(c, &entry->count);
    return entry->data || fail_end(file);
}

static int compare_keys(const void *a, const void *b)
{
    const gguf_entry *x = a, *y = b;
    const int order = memcmp(x->key, y->key, x->key_length < y->key_length ? x->key_length : y->key_length);
    return order ? order : (x->key_length > y->key_length) - (x->key_length < y->key_length);
}

static bool read_entries(gguf *file, cursor *c, uint64_t count)
{
    if (count > MOST_KEYS)
        return error_set(file->error, "the metadata has %" PRIu64 " keys, but may have %d", count, MOST_KEYS) == 0;
    if (count > c->left / 13) /* an empty key, a type, a byte */
        return fail_end(file);
    file->entries = calloc(count ? (size_t)count : 1, sizeof *file->entries);
    if (!file->entries)
        return error_set(file->error, "no memory for %" PRIu64 " keys", count) == 0;
    for (; file->n_entries < count; file->n_entries++) {
        gguf_entry *entry = &file->entries[file->n_entries];
        uint64_t length;
        const uint8_t *key = take_string(c, &length);
        if (!key)
            return fail_end(file);
        if (length > MOST_KEY_BYTES)
            return error_set(file->error, "a key of the metadata has %" PRIu64 " bytes, but may have %d", length, MOST_KEY_BYTES) == 0;
        entry->key = (const char *)key;
        entry->key_length = (size_t)length;
        if (!read_value(file, c, entry))
            return false;
    }

    qsort(file->entries, file->n_entries, sizeof *file->entries, compare_keys);
    for (size_t i = 1; i < file->n_entries; i++) {
        char key[64];
        const gguf_entry *entry = &file->entries[i];
        if (compare_keys(entry - 1, entry) == 0)
            return error_set(file->error, "the metadata has %s twice", gguf_shown(entry->key, entry->key_length, key)) == 0;
    }
    return true;
}

static bool read_header(gguf *file, cursor *c)
{
    const uint8_t *bytes = next_bytes(c, 4);
    if (!bytes || memcmp(bytes, "GGUF", 4) != 0)
        return error_set(file->error, "not GGUF: it does not begin with \"GGUF\"") == 0;
    bytes = next_bytes(c, 20); /* version, tensors, keys */
    if (!bytes)
        return fail_end(file);
    const uint32_t version = load_u32(bytes);
    if (version && (version & 0xffff) == 0)
        return error_set(file->error, "a big-endian GGUF file: only little-endian ones are read") == 0;
    if (version != 2 && version != 3)
        return error_set(file->error, "the GGUF version is %" PRIu32 ", but must be 2 or 3%s", version,
                         version == 1 ? ": convert the model again, as llama.cpp asks too" : "") == 0;
    file->n_tensors = load_u64(bytes + 4);
    return read_entries(file, c, load_u64(bytes + 12));
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------------ */

gguf_entry *gguf_key(const gguf *file, const char *key)
{
    const gguf_entry wanted = { .key = key, .key_length = strlen(key) };
    return bsearch(&wanted, file->entries, file->n_entries, sizeof wanted, compare_keys);
}

gguf_entry *gguf_look(const gguf *file, const char *name)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", file->architecture, name);
    return gguf_key(file, key);
}

const gguf_entry *gguf_find(const gguf *file, const char *name)
{
    gguf_entry *found = gguf_look(file, name);
    if (found)
        found->used = true;
    return found;
}

bool gguf_number(const gguf_entry *entry, uint64_t index, int64_t *value)
{
    if (entry->type == GGUF_F32 || entry->type == GGUF_F64 || entry->type == GGUF_STRING)
        return false;
    const uint32_t size = type_bytes[entry->type];
    const bool is_signed = entry->type == GGUF_I8 || entry->type == GGUF_I16 || entry->type == GGUF_I32 || entry->type == GGUF_I64;
    const uint64_t sign = is_signed ? (uint64_t)1 << (8 * size - 1) : 0;
    uint64_t bits = 0;
    memcpy(&bits, entry->data + index * size, size);
    bits = entry->type == GGUF_BOOL ? bits != 0 : (bits ^ sign) - sign;
    memcpy(value, &bits, sizeof bits);
    return is_signed || *value >= 0;
}

bool gguf_is_text(const gguf_entry *entry, const char *text)
{
    return entry && entry->type == GGUF_STRING && !entry->list && entry->count == strlen(text) && memcmp(entry->data, text, strlen(text)) == 0;
}

const char *gguf_text(const gguf_entry *entry, uint64_t index, bool whole, char text[80])
{
    int64_t number;
    char string[64];
    if (entry->list && whole)
        snprintf(text, 80, "a list of %" PRIu64, entry->count);
    else if (entry->type == GGUF_STRING)
        snprintf(text, 80, "\"%s\"", entry->list ? "..." : gguf_shown(entry->data, entry->count, string));
    else if (entry->type == GGUF_BOOL)
        snprintf(text, 80, "%s", entry->data[index] ? "true" : "false");
    else if (gguf_number(entry, index, &number))
        snprintf(text, 80, "%" PRId64, number);
    else
        snprintf(text, 80, "%s", entry->type == GGUF_U64 ? "too large" : "not a whole number");
    return text;
}

bool gguf_fail(const gguf *file, const char *name, const gguf_entry *entry, const char *right)
{
    char text[80];
    if (!entry)
        return error_set(file->error, "%s.%s is missing: %s would be right", file->architecture, name, right) == 0;
    return error_set(file->error, "%s.%s is %s, but must be %s", file->architecture, name, gguf_text(entry, 0, true, text), right) == 0;
}

bool gguf_get(const gguf *file, const char *name, uint32_t low, uint32_t high, uint32_t missing, uint32_t *result)
{
    const gguf_entry *entry = gguf_find(file, name);
    int64_t value;
    if (!entry && missing != GGUF_NEEDED) {
        *result = missing;
        return true;
    }
    if (!entry || entry->list || entry->type == GGUF_BOOL || !gguf_number(entry, 0, &value) || value < low || value > high) {
        char right[80];
        snprintf(right, sizeof right, "a whole number from %" PRIu32 " to %" PRIu32, low, high);
        return gguf_fail(file, name, entry, right);
    }
    *result = (uint32_t)value;
    return true;
}

/* general.architecture */
static bool get_architecture(gguf *file)
{
    static const char name[] = "general.architecture";
    const gguf_entry *entry = gguf_key(file, name), *part = gguf_key(file, "split.no");
    int64_t number = 0;
    char text[80];
    if (part && !part->list)
        gguf_number(part, 0, &number);
    if (entry && entry->type == GGUF_STRING && !entry->list && entry->count > 0 && entry->count < sizeof file->architecture)
        snprintf(file->architecture, sizeof file->architecture, "%.*s", (int)entry->count, (const char *)entry->data);
    if (number > 0 && !gguf_look(file, "block_count"))
        return error_set(file->error, "split.no is %" PRId64 ": only the first part of a split model says what it is", number) == 0;
    if (!entry)
        return error_set(file->error, "%s is missing: without it the other keys have no names", name) == 0;
    if (!*file->architecture || strlen(file->architecture) != entry->count)
        return error_set(file->error, "%s is %s, but must be a name of 1 to 64 characters", name, gguf_text(entry, 0, true, text)) == 0;
    for (const char *c = file->architecture; *c; c++) {
        if (*c <= ' ' || *c > '~')
            return error_set(file->error, "%s is %s, but must be of plain characters", name, gguf_text(entry, 0, true, text)) == 0;
    }
    return true;
}

bool gguf_is(const void *bytes, size_t size)
{
    return size >= 4 && memcmp(bytes, "GGUF", 4) == 0;
}

bool gguf_open_part(gguf *file, const void *bytes, size_t size)
{
    cursor c = { bytes, size };
    file->bytes = bytes;
    file->size = size;
    const bool good = read_header(file, &c);
    file->tensors_at = size - (size_t)c.left;
    return good;
}

bool gguf_open(gguf *file, const void *bytes, size_t size)
{
    return gguf_open_part(file, bytes, size) && get_architecture(file);
}

static bool get_split(const gguf *file, const char *name, int64_t missing, int64_t *number)
{
    const gguf_entry *entry = gguf_key(file, name);
    char text[80];
    *number = missing;
    if (!entry || (!entry->list && gguf_number(entry, 0, number) && *number >= 0 && *number <= UINT16_MAX))
        return true;
    return error_set(file->error, "%s is %s, but must be a whole number from 0 to %d", name, gguf_text(entry, 0, true, text), UINT16_MAX) == 0;
}

bool gguf_get_part(const gguf *file, uint32_t *part, uint32_t *parts)
{
    int64_t number, count;
    if (!get_split(file, "split.no", 0, &number) || !get_split(file, "split.count", 1, &count))
        return false;
    count = count > 0 ? count : 1; /* 0 stands in files that are whole, too */
    if (number >= count)
        return error_set(file->error, "split.no is %" PRId64 ", but must be below split.count, %" PRId64, number, count) == 0;
    *part = (uint32_t)number;
    *parts = (uint32_t)count;
    return true;
}

void gguf_free(gguf *file)
{
    free(file->entries);
    file->entries = NULL;
    file->n_entries = 0;
}

const uint8_t *gguf_string(const uint8_t *at, const char **string, uint64_t *length)
{
    *length = load_u64(at);
    *string = (const char *)at + 8;
    return at + 8 + *length;
}

/* ---- tensors --------------------------------------------------------------------------------------------------------------------- */

static int fail_list(gguf *file)
{
    note_end(file);
    return error_set(file->error, "the file ends inside its list of tensors");
}

/* One entry of the list; `data` is where it says that its numbers begin, from the beginning of all. */
static int take_tensor(gguf *file, cursor *c, gguf_tensor *tensor, uint64_t *data)
{
    uint64_t length;
    *tensor = (gguf_tensor){ .sizes = { 1, 1, 1, 1 } };
    const uint8_t *name = take_string(c, &length), *bytes = name ? next_bytes(c, 4) : NULL;
    if (!bytes)
        return fail_list(file);
    gguf_shown(name, length, tensor->name);
    tensor->n_sizes = load_u32(bytes);
    if (tensor->n_sizes > GGUF_SIZES)
        return error_set(file->error, "tensor %s has %" PRIu32 " dimensions, but may have %d", tensor->name, tensor->n_sizes, GGUF_SIZES);
    for (uint32_t i = 0; i < tensor->n_sizes; i++) {
        if (!(bytes = next_bytes(c, 8)))
            return fail_list(file);
        tensor->sizes[i] = load_u64(bytes);
    }
    if (!(bytes = next_bytes(c, 12)))
        return fail_list(file);
    tensor->type = load_u32(bytes);
    *data = load_u64(bytes + 4);
    return 0;
}

static uint64_t all_bytes(const gguf *file)
{
    return file->whole ? file->whole : file->size;
}

/* Where the numbers of all tensors begin: behind their list, at a multiple of general.alignment. */
static int find_data(gguf *file, cursor *c, uint64_t *begin)
{
    static const char name[] = "general.alignment";
    const gguf_entry *entry = gguf_key(file, name);
    gguf_tensor tensor;
    uint64_t data;
    int64_t alignment = 32;
    char text[80];
    if (entry && (entry->list || !gguf_number(entry, 0, &alignment) || alignment < 1 || alignment > 1 << 20))
        return error_set(file->error, "%s is %s, but must be a whole number from 1 to %d", name, gguf_text(entry, 0, true, text), 1 << 20);
    for (uint64_t i = 0; i < file->n_tensors; i++)
        if (take_tensor(file, c, &tensor, &data) != 0)
            return -1;
    const uint64_t end = file->size - c->left, gap = end % (uint64_t)alignment ? (uint64_t)alignment - end % (uint64_t)alignment : 0;
    *begin = end + gap;
    return *begin > all_bytes(file) ? error_set(file->error, "the file ends inside its list of tensors") : 0;
}

bool gguf_tensor_bytes(const gguf_tensor *tensor, uint64_t *bytes)
{
    /* ggml's types by their numbers, as gguf-py/gguf/constants.py of ggml-org/llama.cpp lists them: numbers of a block, and its bytes. */
    static const struct {
        uint16_t numbers, bytes;
    } types[] = {
        [0] = { 1, 4 },      [1] = { 1, 2 },      [2] = { 32, 18 },   [3] = { 32, 20 },    [6] = { 32, 22 },    [7] = { 32, 24 },
        [8] = { 32, 34 },    [9] = { 32, 36 },    [10] = { 256, 84 }, [11] = { 256, 110 }, [12] = { 256, 144 }, [13] = { 256, 176 },
        [14] = { 256, 210 }, [15] = { 256, 292 }, [16] = { 256, 66 }, [17] = { 256, 74 },  [18] = { 256, 98 },  [19] = { 256, 50 },
        [20] = { 32, 18 },   [21] = { 256, 110 }, [22] = { 256, 82 }, [23] = { 256, 136 }, [24] = { 1, 1 },     [25] = { 1, 2 },
        [26] = { 1, 4 },     [27] = { 1, 8 },     [28] = { 1, 8 },    [29] = { 256, 56 },  [30] = { 1, 2 },     [34] = { 256, 54 },
        [35] = { 256, 66 },  [39] = { 32, 17 },   [40] = { 64, 36 },
    };
    if (tensor->type >= sizeof types / sizeof types[0] || types[tensor->type].numbers == 0)
        return false;
    const uint64_t block = types[tensor->type].numbers;
    *bytes = types[tensor->type].bytes;
    if (__builtin_mul_overflow(*bytes, tensor->sizes[0] / block + (tensor->sizes[0] % block != 0), bytes))
        return false;
    for (int i = 1; i < GGUF_SIZES; i++)
        if (__builtin_mul_overflow(*bytes, tensor->sizes[i], bytes))
            return false;
    return true;
}

int gguf_walk_tensors(gguf *file, gguf_visit *visit, void *owner)
{
    const cursor list = { file->bytes + file->tensors_at, file->size - file->tensors_at };
    cursor c = list;
    gguf_tensor tensor;
    uint64_t data = 0;
    uint64_t begin = 0;
    const uint64_t size = all_bytes(file);
    if (file->n_tensors > MOST_TENSORS)
        return error_set(file->error, "the file has %" PRIu64 " tensors, but may have %d", file->n_tensors, MOST_TENSORS);
    int result = find_data(file, &c, &begin);
    c = list;
    for (uint64_t i = 0; result == 0 && i < file->n_tensors; i++) {
        if (take_tensor(file, &c, &tensor, &data) != 0)
            return -1;
        if (data > size - begin)
            return error_set(file->error, "tensor %s begins at byte %" PRIu64 " of the numbers, which are %" PRIu64 " bytes", tensor.name, data,
                             size - begin);
        tensor.data = file->whole ? NULL : file->bytes + begin + data;
        tensor.left = size - begin - data;
        result = visit(owner, &tensor, file->error);
    }
    return result;
}
