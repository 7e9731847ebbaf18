/* SPDX-License-Identifier: MIT */
/* NumPy's .npy, versions 1 to 3: a magic, the length of a header, the header (a Python dictionary), the numbers. */
#include "tools/files/number.h"
#include "tools/rows/formats.h"

#include <inttypes.h>

enum { MAX_DIMENSIONS = 8 };

typedef struct header {
    char descr[16];
    bool has_descr, has_order, has_shape;
    bool fortran_order;
    size_t n_sizes;
    uint64_t sizes[MAX_DIMENSIONS];
} header;

typedef struct cursor {
    const uint8_t *at;
    const uint8_t *end;
} cursor;

static void skip_spaces(cursor *text)
{
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\t'))
        text->at++;
}

/* Takes `expected`, after spaces, if it comes next. */
static bool take_text(cursor *text, const char *expected)
{
    const size_t length = strlen(expected);
    skip_spaces(text);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, expected, length) != 0)
        return false;
    text->at += length;
    return true;
}

/* A quoted word; false when there is none or it does not fit. */
static bool take_word(cursor *text, char *word, size_t room)
{
    char quote;
    if (take_text(text, "'"))
        quote = '\'';
    else if (take_text(text, "\""))
        quote = '"';
    else
        return false;
    size_t length = 0;
    for (; text->at < text->end && *text->at != (uint8_t)quote; text->at++) {
        if (length + 1 >= room)
            return false;
        word[length++] = (char)*text->at;
    }
    word[length] = '\0';
    return text->at < text->end && *text->at++ == (uint8_t)quote;
}

static bool take_size(cursor *text, uint64_t *size)
{
    skip_spaces(text);
    const uint8_t *first = text->at;
    *size = 0;
    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        if (__builtin_mul_overflow(*size, UINT64_C(10), size) || __builtin_add_overflow(*size, (uint64_t)(*text->at - '0'), size))
            return false;
    }
    return text->at > first;
}

static bool take_shape(cursor *text, header *head)
{
    if (!take_text(text, "("))
        return false;
    while (!take_text(text, ")")) {
        if (head->n_sizes == MAX_DIMENSIONS || !take_size(text, &head->sizes[head->n_sizes]))
            return false;
        head->n_sizes++;
        if (!take_text(text, ","))
            return take_text(text, ")");
    }
    return true;
}

static int parse_header(cursor text, header *head, error_text *error)
{
    if (!take_text(&text, "{"))
        return error_set(error, "header is no dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (heads, tokens, dim)} would be right");
    while (!take_text(&text, "}")) {
        char key[16];
        if (!take_word(&text, key, sizeof key) || !take_text(&text, ":"))
            return error_set(error, "header has a malformed key: 'descr', 'fortran_order' and 'shape' would be right");
        if (strcmp(key, "descr") == 0 && !head->has_descr) {
            head->has_descr = take_word(&text, head->descr, sizeof head->descr);
            if (!head->has_descr)
                return error_set(error, "descr is not one number format: '<f4' or '<f2' would be right");
        } else if (strcmp(key, "fortran_order") == 0 && !head->has_order) {
            head->fortran_order = take_text(&text, "True");
            head->has_order = head->fortran_order || take_text(&text, "False");
            if (!head->has_order)
                return error_set(error, "fortran_order is neither True nor False");
        } else if (strcmp(key, "shape") == 0 && !head->has_shape) {
            head->has_shape = take_shape(&text, head);
            if (!head->has_shape)
                return error_set(error, "shape is malformed: (tokens, dim) or (heads, tokens, dim) would be right");
        } else {
            return error_set(error, "header has the key '%s' twice or too many: 'descr', 'fortran_order' and 'shape' once each would be right", key);
        }
        if (!take_text(&text, ",")) {
            if (take_text(&text, "}"))
                break;
            return error_set(error, "header is malformed after '%s': a comma or the closing brace would be right", key);
        }
    }
    skip_spaces(&text);
    if (text.at != text.end)
        return error_set(error, "header goes on after its closing brace: only spaces would be right");
    if (!head->has_descr || !head->has_order || !head->has_shape)
        return error_set(error, "header lacks '%s'", !head->has_descr ? "descr" : !head->has_order ? "fortran_order" : "shape");
    return 0;
}

static int dtype_of(const char *descr, kvt_dtype *dtype, error_text *error)
{
    if (strcmp(descr, "<f4") == 0)
        *dtype = KVT_F32;
    else if (strcmp(descr, "<f2") == 0)
        *dtype = KVT_F16;
    else if (strcmp(descr, "<f8") == 0)
        return error_set(error, "descr is '<f8' (float64): '<f4' or '<f2' would be right, as array.astype('float32') gives it");
    else
        return error_set(error, "descr is '%s': '<f4' or '<f2' would be right (bf16 has no .npy form: use .safetensors)", descr);
    return 0;
}

int npy_parse(const uint8_t *data, size_t size, rows_order order, rows_tensor *tensor, error_text *error)
{
    if (size < 10)
        return error_set(error, "file is %zu bytes: an .npy header has at least 10", size);
    if (memcmp(data, "\x93NUMPY", 6) != 0)
        return error_set(error, "magic is not that of .npy: \\x93NUMPY would be right");
    const unsigned version = data[6];
    if (version < 1 || version > 3)
        return error_set(error, "version is %u: 1, 2 or 3 would be right", version);
    const size_t preamble = version == 1 ? 10 : 12;
    if (size < preamble)
        return error_set(error, "file is %zu bytes: an .npy header of version %u has at least %zu", size, version, preamble);
    const size_t length = version == 1 ? load_u16(data + 8) : load_u32(data + 8);
    if (length > size - preamble)
        return error_set(error, "header length is %zu: the file has only %zu bytes after it", length, size - preamble);

    const uint8_t *text = data + preamble;
    header head = { 0 };
    *tensor = (rows_tensor){ .data = text + length };
    uint64_t bytes;
    if (parse_header((cursor){ .at = text, .end = text + length }, &head, error) != 0 || dtype_of(head.descr, &tensor->dtype, error) != 0)
        return -1;
    if (head.fortran_order)
        return error_set(error, "fortran_order is True: False would be right, as numpy.ascontiguousarray gives it");
    if (rows_set_shape(tensor, order, head.n_sizes, head.sizes, &bytes, error) != 0)
        return -1;
    const size_t rest = size - preamble - length;
    if (bytes != rest)
        return error_set(error, "numbers take %zu bytes: %" PRIu64 " would be right for this shape", rest, bytes);
    return 0;
}

int npy_read(rows_file *file, error_text *error)
{
    rows_tensor tensor;
    return npy_parse(file->map.data, file->map.size, file->order, &tensor, error) == 0 ? rows_add(file, &tensor, NULL, error) : -1;
}

void npy_write_header(FILE *stream, kvt_dtype dtype, uint32_t heads, size_t tokens, uint32_t dim)
{
    char heads_text[16] = "", text[128];
    if (heads != 0)
        snprintf(heads_text, sizeof heads_text, "%" PRIu32 ", ", heads);
    const int length = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%zu, %" PRIu32 "), }",
                                dtype == KVT_F32 ? "<f4" : "<f2", heads_text, tokens, dim);
    /* 10 bytes before the header; spaces and a newline fill it to a multiple of 64. */
    const int padded = (10 + length + 1 + 63) / 64 * 64 - 10;
    fwrite("\x93NUMPY\x01\x00", 1, 8, stream);
    fputc(padded & 0xff, stream);
    fputc(padded >> 8, stream);
    fprintf(stream, "%-*s\n", padded - 1, text);
}
