/* SPDX-License-Identifier: MIT */
/* safetensors: u64 length of a JSON header, the header {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...}, the numbers. */
#include "tools/files/safetensors.h"

#include "tools/files/number.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

/* The longest header that the format allows. */
static const uint64_t MAX_HEADER_BYTES = 100000000;

static const struct dtype {
    const char *name;
    unsigned bits;
    kvt_dtype dtype; /* 0: not rows */
} DTYPES[] = {
    { "F32", 32, KVT_F32 }, { "F16", 16, KVT_F16 }, { "BF16", 16, KVT_BF16 }, { "F64", 64, 0 },    { "I64", 64, 0 }, { "I32", 32, 0 },
    { "I16", 16, 0 },       { "I8", 8, 0 },         { "U64", 64, 0 },         { "U32", 32, 0 },    { "U16", 16, 0 }, { "U8", 8, 0 },
    { "BOOL", 8, 0 },       { "F8_E4M3", 8, 0 },    { "F8_E5M2", 8, 0 },      { "F8_E8M0", 8, 0 }, { "C64", 64, 0 },
};

static const struct dtype *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++) {
        if (strcmp(DTYPES[i].name, name) == 0)
            return &DTYPES[i];
    }
    return NULL;
}

static bool natural(const json_t *value, uint64_t *number)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *number = (uint64_t)json_integer_value(value);
    return true;
}

static int parse_entry(const char *name, const json_t *value, safetensors_entry *tensor, error_text *error)
{
    const json_t *dtype = json_object_get(value, "dtype");
    const json_t *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (!json_is_string(dtype))
        return error_set(error, "tensor %.120s: dtype is missing or no text: \"F32\", \"F16\" or \"BF16\" would be right", name);
    if (!json_is_array(shape))
        return error_set(error, "tensor %.120s: shape is missing or no array: [heads, tokens, dim] would be right", name);
    *tensor = (safetensors_entry){ .name = name, .dtype = json_string_value(dtype), .n_sizes = json_array_size(shape), .elements = 1 };
    for (size_t i = 0; i < tensor->n_sizes; i++) {
        uint64_t size;
        if (!natural(json_array_get(shape, i), &size))
            return error_set(error, "tensor %.120s: shape[%zu] is not a natural number", name, i);
        if (__builtin_mul_overflow(tensor->elements, size, &tensor->elements))
            return error_set(error, "tensor %.120s: shape is too large for 64 bits", name);
        if (i < SAFETENSORS_SIZES)
            tensor->sizes[i] = size;
    }
    if (json_array_size(offsets) != 2 || !natural(json_array_get(offsets, 0), &tensor->begin) || !natural(json_array_get(offsets, 1), &tensor->end) ||
        tensor->begin > tensor->end)
        return error_set(error, "tensor %.120s: data_offsets is not two natural numbers, the first not above the second", name);
    return 0;
}

/* The offsets must lie in the file and fit the shape. */
static int check_entry(safetensors_entry *tensor, const uint8_t *data, uint64_t data_bytes, error_text *error)
{
    const char *name = tensor->name;
    if (tensor->end > data_bytes)
        return error_set(error, "tensor %.120s: data_offsets end at %" PRIu64 ": the file has only %" PRIu64 " bytes of data", name, tensor->end,
                         data_bytes);
    const struct dtype *dtype = find_dtype(tensor->dtype);
    uint64_t bytes;
    if (dtype != NULL && (__builtin_mul_overflow(tensor->elements, (uint64_t)dtype->bits / 8, &bytes) || tensor->end - tensor->begin != bytes))
        return error_set(error, "tensor %.120s: data_offsets span %" PRIu64 " bytes, which its shape and dtype %s do not take", name,
                         tensor->end - tensor->begin, tensor->dtype);
    tensor->number = dtype != NULL ? dtype->dtype : 0;
    tensor->data = data + tensor->begin;
    return 0;
}

static int walk_header(json_t *header, const uint8_t *data, uint64_t data_bytes, safetensors_visit *visit, void *owner, error_text *error)
{
    uint64_t data_end = 0;
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value)
    {
        safetensors_entry tensor;
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (parse_entry(name, value, &tensor, error) != 0 || check_entry(&tensor, data, data_bytes, error) != 0)
            return -1;
        if (tensor.end > data_end)
            data_end = tensor.end;
        const int ended = visit(owner, &tensor, error);
        if (ended != 0)
            return ended;
    }
    if (data_end != data_bytes)
        return error_set(error, "data_offsets end at %" PRIu64 ": the file has %" PRIu64 " bytes of data", data_end, data_bytes);
    return 0;
}

int safetensors_walk(const file_map *map, safetensors_visit *visit, void *owner, error_text *error)
{
    if (map->size < 8)
        return error_set(error, "file is %zu bytes: a safetensors header length alone has 8", map->size);
    const uint64_t length = load_u64(map->data);
    if (length > MAX_HEADER_BYTES || length > map->size - 8)
        return error_set(error, "header length is %" PRIu64 ": the file has %zu bytes after it, and the format allows %" PRIu64, length,
                         map->size - 8, MAX_HEADER_BYTES);
    json_error_t where;
    json_t *header = json_loadb((const char *)map->data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &where);
    if (header == NULL)
        return error_set(error, "header is not JSON: %s (byte %d)", where.text, where.position);
    int result;
    if (json_is_object(header))
        result = walk_header(header, map->data + 8 + length, map->size - 8 - length, visit, owner, error);
    else
        result = error_set(error, "header is not a JSON object: {\"name\": {\"dtype\", \"shape\", \"data_offsets\"}} would be right");
    json_decref(header);
    return result;
}
