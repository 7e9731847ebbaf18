/* SPDX-License-Identifier: MIT */
/* A model of the Llama family: a Hugging Face folder (folder.c), a GGUF file (gguf.c), or a file in one of two forms, which its size tells apart:
 *
 *   f32  llama2.c's checkpoint: 7 int32 (dim, ffn, layers, heads, kv heads, vocabulary, context), then the tensors in the order of the struct
 *        below, with RoPE cosines and sines [context][head_dim / 2] before the classifier. A negative vocabulary says that the classifier is a
 *        tensor of its own; otherwise it is the embedding.
 *   f16  the same header and tensors as binary16, without the RoPE tables, which follow from the positions.
 */
#ifndef KVT_ENGINE_CHECKPOINT_H
#define KVT_ENGINE_CHECKPOINT_H

#include "tools/files/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a layer's RoPE turns. */
typedef enum layer_rope { ROPE_WHOLE, ROPE_LOCAL, ROPE_NONE } layer_rope;

typedef struct layer_kind {
    uint32_t window; /* tokens that a query sees, its own among them; 0: all before it */
    layer_rope rope;
} layer_kind;

typedef struct checkpoint {
    uint32_t dim, ffn, layers, heads, kv_heads, vocabulary, context;
    bool own_classifier;
    bool gelu;                /* the gate's activation is GELU (by tanh), not SiLU */
    float embedding_scale;    /* 0: 1 */
    float attention_scale;    /* of logits; 0: 1 / sqrt(head_dim) */
    uint32_t bos, eos;        /* tokens that mark the beginning and the end of a text, or NO_TOKEN of tokenizer.h */
    uint32_t head_dim;        /* even */
    uint32_t q_dim;           /* heads * head_dim */
    uint32_t kv_dim;          /* kv_heads * head_dim */
    uint32_t q_bias, kv_bias; /* q_dim and kv_dim where there are biases, or 0 */
    uint32_t head_norm;       /* head_dim where rows of queries and keys are normed before RoPE, or 0 */
    uint32_t after_norm;      /* dim where what attention and the feed-forward part give is normed, or 0 */
    float rms_epsilon;        /* added to the mean square */
    float rope_scale;         /* of what RoPE turns; 0: 1 */
    double *frequencies;      /* of RoPE, radians per token: [2][head_dim / 2], of channels 2i and 2i + 1, by layer_rope */
    layer_kind *kinds;        /* [layer] */
    float *weights;           /* all that follow; matrices are [out][in] */
    size_t n_weights;
    const float *embedding;  /* [vocabulary][dim] */
    const float *rms_att;    /* [layer][dim] */
    const float *wq;         /* [layer][q_dim][dim] */
    const float *wk;         /* [layer][kv_dim][dim] */
    const float *wv;         /* [layer][kv_dim][dim] */
    const float *bq;         /* [layer][q_bias] */
    const float *bk;         /* [layer][kv_bias] */
    const float *bv;         /* [layer][kv_bias] */
    const float *rms_q;      /* [layer][head_norm] */
    const float *rms_k;      /* [layer][head_norm] */
    const float *wo;         /* [layer][dim][q_dim] */
    const float *rms_wo;     /* [layer][after_norm] */
    const float *rms_ffn;    /* [layer][dim] */
    const float *w1;         /* [layer][ffn][dim] */
    const float *w2;         /* [layer][dim][ffn] */
    const float *w3;         /* [layer][ffn][dim] */
    const float *rms_w2;     /* [layer][after_norm] */
    const float *rms_final;  /* [dim] */
    const float *classifier; /* [vocabulary][dim], or the embedding */
} checkpoint;

/* 0, or -1 with the error; `model` then holds nothing. */
int checkpoint_open(checkpoint *model, const char *path, error_text *error);
void checkpoint_close(checkpoint *model);

/* The same for a folder; on failure checkpoint_close is still due. */
int checkpoint_open_folder(checkpoint *model, const char *folder, error_text *error);

/* The same for a GGUF file's bytes, which may be any. `path`: where they are from, for the other parts of a model that is split, which are beside it;
 * or NULL, and such a model is refused. */
int checkpoint_read_gguf(checkpoint *model, const char *path, const uint8_t *bytes, size_t size, error_text *error);

/* The same for the two forms of llama2.c. */
int checkpoint_read_llama2(checkpoint *model, const file_map *map, error_text *error);

/* The same for any bytes of a file; on failure checkpoint_close is still due. */
int checkpoint_read(checkpoint *model, const char *path, const uint8_t *bytes, size_t size, error_text *error);

/* For loaders: how many weights a model of these sizes has, */
uint64_t checkpoint_count(const checkpoint *model);

/* and memory for a model whose sizes are set, none above 2^20; checkpoint_close is due. 0, or -1 with the error. */
int checkpoint_make(checkpoint *model, error_text *error);

/* base^(-2i / head_dim), of both kinds of RoPE. */
void checkpoint_set_frequencies(checkpoint *model, double base);
void checkpoint_set_local_frequencies(checkpoint *model, double base);

/* Writes the f16 form, which has one RoPE and one epsilon. */
int checkpoint_export_f16(const checkpoint *model, const char *path, error_text *error);

#endif
