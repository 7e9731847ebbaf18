/* SPDX-License-Identifier: MIT */
/* A folder of blocks: what a prompt's first tokens became in the cache of some model, for whoever begins with the same tokens again, after a restart
 * or in another process.
 *
 * A block is 64 tokens, in all layers, as bytes that mean nothing to the store. Its key is a hash (XXH3, 128 bits) of the key before it and of its
 * token ids; the first key is one of everything else that the bytes depend on. So equal keys mean equal tokens from the first on:
 *
 *     store_key key = store_first_key(fingerprint, n);
 *     for (i = 0; i + 64 <= tokens && store_get(folder, &key, ids + i, &bytes, &n, &error) == 1; i += 64, free(bytes))
 *         key = store_next_key(&key, ids + i);
 *
 * A block is a file. It appears whole or not at all, and is only believed when its key, its token ids and a checksum over all of it are right. The
 * folder's files together never take more bytes than its budget: the blocks that were not used for longest go. Any number of processes use a folder
 * at the same time; readers wait for nobody, writers for each other. Whoever is killed at whatever moment leaves it usable.
 *
 * xxHash is quick, not cryptographic: share a folder among those whose prompts you would trust with each other.
 *
 * Threads: a store is used from one thread at a time, and by one side of a fork; a folder may be opened many times. */
#ifndef KVT_TOOLS_STORE_H
#define KVT_TOOLS_STORE_H

#include "tools/files/error.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { STORE_TOKENS = 64, STORE_HEADER = 320 };

typedef struct store_key {
    unsigned char bytes[16];
} store_key;

typedef struct store store;

/* Of the model, the layout of its cache, and whatever else the bytes of a block depend on. */
store_key store_first_key(const void *fingerprint, size_t n);

/* Of STORE_TOKENS more tokens. */
store_key store_next_key(const store_key *previous, const uint32_t *ids);

/* Opens a folder, which is made where it does not exist, and counts its blocks. `budget`, at least STORE_HEADER, is that of all processes from then
 * on; 0: what it was, or none. A folder with other files in it is refused. 0, or -1 with the error. */
int store_open(store **opened, const char *folder, uint64_t budget, error_text *error);
/* The same, for engines: with the budget that it has, or 1 GiB where it has none. */
int store_open_limited(store **opened, const char *folder, error_text *error);

void store_close(store *folder);

/* The budget when this process looked last; UINT64_MAX: none. */
uint64_t store_budget(const store *folder);

/* The block of 64 tokens behind `previous`. 1: its n bytes, for free(); 0: there is none; -1 with the error, no memory among them. A damaged block is
 * removed, and is none. */
int store_get(store *folder, const store_key *previous, const uint32_t *ids, void **bytes, size_t *n, error_text *error);

/* Keeps a block, as the one that was used last. 0 also when it was there before; -1 with the error, and no other block has changed: it is larger than
 * the budget, the disk is full. */
int store_put(store *folder, const store_key *previous, const uint32_t *ids, const void *bytes, size_t n, error_text *error);

/* The blocks with these keys were used just now, the first of them last: a chain loses its end before its beginning. Those that are not there are
 * passed over. */
void store_use(store *folder, const store_key *keys, size_t n);

typedef struct store_measure {
    uint64_t budget, bytes, blocks; /* bytes of files, with their headers */
} store_measure;

/* Counts anew. 0, or -1 with the error. */
int store_count(store *folder, store_measure *measure, error_text *error);

typedef struct store_block {
    store_key key, previous;
    uint32_t ids[STORE_TOKENS];
    uint64_t bytes;       /* of its file */
    struct timespec used; /* when it was last */
} store_block;

/* Returns 0 to go on; anything else ends the walk. */
typedef int store_visit(void *owner, const store_block *block);

/* Reads every block, that used last first, and removes those that are damaged, whose number is added to *damaged. 0, what `visit` ended with (NULL:
 * nobody looks), or -1 with the error. */
int store_walk(store *folder, store_visit *visit, void *owner, uint64_t *damaged, error_text *error);

/* As many hexadecimal digits as keys have, and a zero. Returns `text`. */
const char *store_key_text(const store_key *key, char text[33]);

#endif
