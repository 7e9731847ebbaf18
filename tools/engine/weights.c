/* See weights.h. */
#include "tools/engine/weights.h"

#include "tools/files/number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32 }; /* channels, of q8_0 and q4_0 */

/* ---- what a tensor is called, and where it goes ---- */

typedef struct slot {
    const char *names[2]; /* by weights_naming; in a layer: behind its number */
    bool in_layer;
    size_t place;         /* in the struct, the pointer to its numbers in layer 0 */
    size_t rows, columns; /* in the struct, their number; or VECTOR */
    bool turned;          /* by RoPE */
} slot;

#define AT(field) offsetof(checkpoint, field)
#define VECTOR    SIZE_MAX

enum { EMBEDDING = 0, CLASSIFIER = 1 };
static const slot SLOTS[] = {
    { { "model.embed_tokens.weight", "token_embd.weight" }, false, AT(embedding), AT(vocabulary), AT(dim), false },
    { { "lm_head.weight", "output.weight" }, false, AT(classifier), AT(vocabulary), AT(dim), false }, /* of tied ones it may be the only one */
    { { "model.norm.weight", "output_norm.weight" }, false, AT(rms_final), VECTOR, AT(dim), false },
    { { "input_layernorm.weight", "attn_norm.weight" }, true, AT(rms_att), VECTOR, AT(dim), false },
    { { "self_attn.q_proj.weight", "attn_q.weight" }, true, AT(wq), AT(q_dim), AT(dim), true },
    { { "self_attn.k_proj.weight", "attn_k.weight" }, true, AT(wk), AT(kv_dim), AT(dim), true },
    { { "self_attn.v_proj.weight", "attn_v.weight" }, true, AT(wv), AT(kv_dim), AT(dim), false },
    { { "self_attn.o_proj.weight", "attn_output.weight" }, true, AT(wo), AT(dim), AT(q_dim), false },
    { { "post_attention_layernorm.weight", "ffn_norm.weight" }, true, AT(rms_ffn), VECTOR, AT(dim), false },
    { { "mlp.gate_proj.weight", "ffn_gate.weight" }, true, AT(w1), AT(ffn), AT(dim), false },
    { { "mlp.down_proj.weight", "ffn_down.weight" }, true, AT(w2), AT(dim), AT(ffn), false },
    { { "mlp.up_proj.weight", "ffn_up.weight" }, true, AT(w3), AT(ffn), AT(dim), false },
};
enum { N_SLOTS = sizeof SLOTS / sizeof *SLOTS };

static const struct {
    const char *layers;    /* before a layer's number */
    const char *sizes_are; /* where the sizes of tensors come from */
    const char *tied;      /* what says that one tensor is embedding and classifier */
} NAMINGS[] = {
    { "model.layers.", "config.json", ", and tie_word_embeddings of config.json is not true: one of the two would be right" },
    { "blk.", "the metadata", "" },
};

static uint32_t number_in(const checkpoint *model, size_t place)
{
    uint32_t number;
    memcpy(&number, (const char *)model + place, sizeof number);
    return number;
}

static float *numbers_of(const checkpoint *model, const slot *one)
{
    const float *numbers;
    memcpy(&numbers, (const char *)model + one->place, sizeof numbers);
    return model->weights + (numbers - model->weights);
}

/* The slot of a name, and its layer (0 where it has none); N_SLOTS when there is none. */
static size_t find_slot(const weights *of, const char *name, size_t *layer)
{
    const char *prefix = NAMINGS[of->naming].layers, *rest = name;
    const bool in_layer = strncmp(name, prefix, strlen(prefix)) == 0;
    *layer = 0;
    if (in_layer) {
        char *end;
        *layer = strtoul(name + strlen(prefix), &end, 10);
        if (*end != '.' || *layer >= of->model->layers)
            return N_SLOTS;
        rest = end + 1;
    }
    for (size_t i = 0; i < N_SLOTS; i++)
        if (SLOTS[i].in_layer == in_layer && strcmp(SLOTS[i].names[of->naming], rest) == 0)
            return i;
    return N_SLOTS;
}

/* ---- numbers ---- */

static uint64_t bytes_of_row(weights_number number, uint64_t columns)
{
    switch (number) {
    case WEIGHTS_F32:
        return 4 * columns;
    case WEIGHTS_F16:
    case WEIGHTS_BF16:
        return 2 * columns;
    case WEIGHTS_Q8_0:
        return columns / BLOCK * (2 + BLOCK);
    case WEIGHTS_Q4_0:
        return columns / BLOCK * (2 + BLOCK / 2);
    case WEIGHTS_OTHER:
        break;
    }
    return 0;
}

/* Blocks of ggml: an f16 scale, then codes; of q4_0 channels i and i + 16 share byte i, the first one its low nibble, and 8 stands for 0. */
static void decode_block(weights_number number, const uint8_t *block, float *out)
{
    const float scale = f16_to_f32(load_u16(block));
    const uint8_t *codes = block + 2;
    for (size_t i = 0; i < BLOCK; i++) {
        const int nibble = i < BLOCK / 2 ? codes[i % (BLOCK / 2)] & 15 : codes[i % (BLOCK / 2)] >> 4;
        const int code = number == WEIGHTS_Q4_0 ? nibble - 8 : (int8_t)codes[i];
        out[i] = (float)code * scale;
    }
}

static void decode_row(weights_number number, const uint8_t *row, size_t columns, float *out)
{
    if (number == WEIGHTS_Q8_0 || number == WEIGHTS_Q4_0) {
        for (size_t c = 0; c < columns; c += BLOCK)
            decode_block(number, row + bytes_of_row(number, c), out + c);
        return;
    }
    for (size_t c = 0; c < columns; c++) {
        if (number == WEIGHTS_F32)
            out[c] = load_f32(row + 4 * c);
        else
            out[c] = number == WEIGHTS_F16 ? f16_to_f32(load_u16(row + 2 * c)) : bf16_to_f32(load_u16(row + 2 * c));
    }
}

/* Hugging Face has the pairs of RoPE half a head apart, in rows of queries and keys; they are needed next to each other, as llama.cpp has them. */
static size_t row_in_file(weights_naming naming, uint32_t head_dim, const slot *of, size_t row)
{
    if (!of->turned || naming != WEIGHTS_HUGGING_FACE)
        return row;
    const size_t channel = row % head_dim;
    return row - channel + channel / 2 + channel % 2 * (head_dim / 2);
}

/* ---- tensors ---- */

int weights_open(weights *to, checkpoint *model, weights_naming naming, error_text *error)
{
    *to = (weights){ .model = model, .naming = naming, .seen = calloc((size_t)model->layers * N_SLOTS, sizeof(bool)) };
    return to->seen != NULL ? 0 : error_set(error, "needs memory for %" PRIu32 " layers: more than there is", model->layers);
}

void weights_close(weights *to)
{
    free(to->seen);
    to->seen = NULL;
}

static int check_tensor(const weights *to, const weights_tensor *tensor, const slot *one, uint32_t rows, uint32_t columns, error_text *error)
{
    static const char *const right[] = { "F32, F16 or BF16", "F32, F16, BF16, Q8_0 or Q4_0" };
    const char *from = NAMINGS[to->naming].sizes_are;
    const bool has_rows = one->rows != VECTOR;
    if (has_rows && (tensor->n_sizes != 2 || tensor->rows != rows || tensor->columns != columns))
        return error_set(error, "tensor %.120s: shape is not [%" PRIu32 ", %" PRIu32 "], which would be right for %s", tensor->name, rows, columns,
                         from);
    if (!has_rows && (tensor->n_sizes != 1 || tensor->columns != columns))
        return error_set(error, "tensor %.120s: shape is not [%" PRIu32 "], which would be right for %s", tensor->name, columns, from);
    if (tensor->number == WEIGHTS_OTHER)
        return error_set(error, "tensor %.120s: dtype is %.40s: %s would be right", tensor->name, tensor->number_name, right[to->naming]);
    if ((tensor->number == WEIGHTS_Q8_0 || tensor->number == WEIGHTS_Q4_0) && columns % BLOCK != 0)
        return error_set(error, "tensor %.120s: rows are %" PRIu32 " numbers: blocks of %d would be right for %.40s", tensor->name, columns, BLOCK,
                         tensor->number_name);
    const uint64_t bytes = rows * bytes_of_row(tensor->number, columns); /* at most 2^42 */
    if (bytes > tensor->bytes)
        return error_set(error, "tensor %.120s: takes %" PRIu64 " bytes, and the file has %" PRIu64, tensor->name, bytes, tensor->bytes);
    return 0;
}

int weights_use(weights *to, const weights_tensor *tensor, error_text *error)
{
    checkpoint *model = to->model;
    size_t layer;
    const size_t index = find_slot(to, tensor->name, &layer);
    if (index == N_SLOTS)
        return error_set(error, "tensor %.120s: a Llama model of %" PRIu32 " layers has no such tensor", tensor->name, model->layers);
    const slot *one = &SLOTS[index];
    const uint32_t rows = one->rows != VECTOR ? number_in(model, one->rows) : 1, columns = number_in(model, one->columns);
    if (check_tensor(to, tensor, one, rows, columns, error) != 0)
        return -1;
    if (index == CLASSIFIER && !model->own_classifier && to->seen[EMBEDDING])
        return 0; /* tied: the same numbers again */
    float *out = numbers_of(model, one) + layer * rows * columns;
    const size_t bytes = (size_t)bytes_of_row(tensor->number, columns);
    for (size_t row = 0; row < rows; row++)
        decode_row(tensor->number, tensor->data + row_in_file(to->naming, model->head_dim, one, row) * bytes, columns, out + row * columns);
    to->seen[layer * N_SLOTS + index] = true;
    return 0;
}

int weights_check(const weights *of, error_text *error)
{
    const bool tied = !of->model->own_classifier;
    for (size_t i = 0; i < (size_t)of->model->layers * N_SLOTS; i++) {
        const slot *one = &SLOTS[i % N_SLOTS];
        const char *name = one->names[of->naming];
        const bool either = tied && i < 2 && (of->seen[EMBEDDING] || of->seen[CLASSIFIER]);
        if (of->seen[i] || (!one->in_layer && i >= N_SLOTS) || either)
            continue;
        if (one->in_layer)
            return error_set(error, "tensor %s%zu.%s is missing", NAMINGS[of->naming].layers, i / N_SLOTS, name);
        return error_set(error, "tensor %s is missing%s", name, i == CLASSIFIER ? NAMINGS[of->naming].tied : "");
    }
    return 0;
}
