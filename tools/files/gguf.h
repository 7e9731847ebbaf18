/* SPDX-License-Identifier: MIT */
/* GGUF files: metadata and tensors, laid out as ggml's docs/gguf.md says. Nothing is copied out of the bytes: entries and tensors point into them. */
#ifndef KVT_TOOLS_GGUF_H
#define KVT_TOOLS_GGUF_H

#include "tools/files/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_LIST,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
};

typedef struct gguf_entry {
    const char *key; /* not terminated */
    size_t key_length;
    uint32_t type; /* of a list: its elements' */
    bool list;
    bool used;      /* gguf_find has found it */
    uint64_t count; /* elements of a list, bytes of a string */
    const uint8_t *data;
} gguf_entry;

typedef struct gguf {
    const uint8_t *bytes;
    size_t size;
    uint64_t whole;      /* bytes of the file when `bytes` are only its beginning; 0: they are all of it */
    bool is_short;       /* set when the beginning ended too early, and not the file: more of it may do */
    gguf_entry *entries; /* by key */
    size_t n_entries;
    uint64_t n_tensors;
    size_t tensors_at; /* their list */
    char architecture[65];
    error_text *error;
} gguf;

/* Starts as { .error = ... }, where reasons go, perhaps with `whole`. Reads the metadata, with general.architecture; false: something is wrong.
 * gguf_free is due in any case; `bytes` must stay as long as the struct is used, and any bytes are safe. */
bool gguf_open(gguf *file, const void *bytes, size_t size);
void gguf_free(gguf *file);

/* The same for a part of a split model, which need not have more metadata than which part it is. */
bool gguf_open_part(gguf *file, const void *bytes, size_t size);

/* Which part of a split model it is, from 0, and of how many: 0 of 1 when it is whole. false, with the error: its keys say neither. */
bool gguf_get_part(const gguf *file, uint32_t *part, uint32_t *parts);

bool gguf_is(const void *bytes, size_t size);

/* ---- keys. NULL when they are not there. */

gguf_entry *gguf_key(const gguf *file, const char *key);
gguf_entry *gguf_look(const gguf *file, const char *name);       /* "architecture.name" */
const gguf_entry *gguf_find(const gguf *file, const char *name); /* the same, and marks it as used */

/* A whole number; true and false are 1 and 0. */
bool gguf_number(const gguf_entry *entry, uint64_t index, int64_t *value);

/* Whether it is there and this string. */
bool gguf_is_text(const gguf_entry *entry, const char *text);

/* A value as people can read it; `whole`: of a list how long it is. Returns `text`. */
const char *gguf_text(const gguf_entry *entry, uint64_t index, bool whole, char text[80]);

/* `length` bytes as people can read them: keys and strings of a file may hold anything. Returns `text`. */
const char *gguf_shown(const void *bytes, uint64_t length, char text[64]);

/* Sets "architecture.name is <value>, but must be <right>", or that it is missing. Returns false. */
bool gguf_fail(const gguf *file, const char *name, const gguf_entry *entry, const char *right);

/* "architecture.name" from `low` to `high`; `missing` is what it is when the key is not there, GGUF_NEEDED that it must be. */
#define GGUF_NEEDED UINT32_MAX
bool gguf_get(const gguf *file, const char *name, uint32_t low, uint32_t high, uint32_t missing, uint32_t *result);

/* A string of a list of strings, and where the next one begins; the first one begins at list->data. */
const uint8_t *gguf_string(const uint8_t *at, const char **string, uint64_t *length);

/* ---- tensors */

enum { GGUF_SIZES = 4 };

typedef struct gguf_tensor {
    char name[65]; /* as people can read it: llama.cpp's are shorter */
    uint32_t type; /* ggml's number */
    uint32_t n_sizes;
    uint64_t sizes[GGUF_SIZES]; /* that of neighbours in memory first; 1 beyond n_sizes */
    const uint8_t *data;        /* NULL where the file's `whole` is set: its numbers are not looked at */
    uint64_t left;              /* bytes of the file from there on */
} gguf_tensor;

/* Bytes that its numbers take. False: its type is not known here, or 64 bits do not count them. */
bool gguf_tensor_bytes(const gguf_tensor *tensor, uint64_t *bytes);

/* Returns 0 to go on; anything else ends the walk. */
typedef int gguf_visit(void *owner, const gguf_tensor *tensor, error_text *error);

/* Calls `visit` for each tensor. 0, what `visit` ended with, or -1 with the error: the list is not in order. */
int gguf_walk_tensors(gguf *file, gguf_visit *visit, void *owner);

#endif
