/* SPDX-License-Identifier: MIT */
/* Saved sequences: blocks of a cache as bytes that say themselves what they are, the same on every CPU, with a checksum for each.
 *
 * A saved sequence is a *head* (KVT_SAVED_HEADER bytes first, which say how long it is), then records of one block each. docs/formats.md has every
 * byte. This library reads and writes no files: bytes go through the caller's functions, or lie in memory, for example in a file that is mapped
 * read-only and attended to where it lies, by as many processes as like. Any bytes are safe to open: what is damaged is KVT_ERR_DATA.
 */
#ifndef KVTILE_SAVED_H
#define KVTILE_SAVED_H

#include <kvtile/cache.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- specs as bytes -------------------------------------------------------------------------------------------------------------- */

/* A kvt_spec as KVT_SPEC_BYTES bytes, little-endian, with a version and a checksum; tiers are left out, they are the machine's affair. Errors: those
 * of kvt_layout_init. */
#define KVT_SPEC_BYTES 128
KVT_API KVT_MUST_CHECK kvt_status kvt_spec_to_bytes(const kvt_spec *spec, void *bytes);

/* The same spec again, with `size` set and tiers 0. Errors: NULL, DATA (not such bytes, damaged, or of a newer version); those of kvt_layout_init. */
KVT_API KVT_MUST_CHECK kvt_status kvt_spec_from_bytes(const void *bytes, kvt_spec *spec);

/* ---- saving ---------------------------------------------------------------------------------------------------------------------- */

/* Takes n bytes, all of them, or returns anything but 0. */
typedef int kvt_write_fn(void *context, const void *bytes, size_t n);
/* Fills n bytes, all of them, or returns anything but 0. */
typedef int kvt_read_fn(void *context, void *bytes, size_t n);

/* A number for the tokens from a sequence's first on: `previous` is that of the tokens before (0: there are none). A store finds blocks by it. */
KVT_API uint64_t kvt_prefix_hash(uint64_t previous, const uint32_t *token_ids, size_t n);

/* What is to be saved. Zero it, then fill it. */
typedef struct kvt_save {
    size_t size;               /* sizeof(kvt_save) */
    uint64_t model;            /* the caller's number for the model and whatever else rows depend on: kvt_cache_load compares it */
    size_t first, end;         /* tokens; end 0: all that are stored. first is a multiple of 64, and so is end unless it is all */
    const uint32_t *token_ids; /* [end - first]; NULL: they are not saved */
    uint64_t prefix;           /* with first: kvt_prefix_hash of the tokens before it */
} kvt_save;

/* Bytes that kvt_cache_save writes. Errors: as below. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_save_bytes(const kvt_cache *cache, uint32_t id, const kvt_save *save, size_t *bytes);

/* Writes them in order. Rows of open pages go along where `end` is all, states where `end` is all or has a mark. The workspace is kvt_cache_work's.
 * Errors: NULL, STRUCT_SIZE, SEQUENCE, RANGE (first, end; a state that was not marked there; a workspace), IO. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_save(const kvt_cache *cache, uint32_t id, const kvt_save *save, kvt_write_fn *write, void *context,
                                                 void *workspace, size_t workspace_bytes);

/* ---- loading --------------------------------------------------------------------------------------------------------------------- */

#define KVT_SAVED_HEADER 128

/* How long the head is whose first KVT_SAVED_HEADER bytes these are. Errors: NULL, DATA. */
KVT_API KVT_MUST_CHECK kvt_status kvt_saved_head_bytes(const void *header, size_t *bytes);

/* A group of a saved sequence. Offsets count from the first byte of the head. */
typedef struct kvt_saved_group {
    kvt_layout layout, first_layout; /* first_layout.size 0: there is none */
    uint32_t layers;
    kvt_dtype open_dtype;
    size_t pages;                      /* entries of the table: from the sequence's first page on */
    const uint32_t *table;             /* in the head: the record of each page, or KVT_NO_BLOCK: a window gave it back */
    size_t kept;                       /* first page of the sequence whose rows are there */
    uint32_t n_pages, n_first, n_open; /* records */
    size_t page_records, first_records, open_records;
    size_t page_stride, first_stride, open_stride;
} kvt_saved_group;

typedef struct kvt_saved {
    const void *head;
    size_t head_bytes, bytes; /* of the whole */
    uint64_t model, prefix;
    size_t first, end;                /* tokens */
    const uint32_t *token_ids;        /* in the head; NULL: they were not saved */
    size_t state_bytes, state_record; /* 0: there is none */
    uint32_t n_groups;
    kvt_saved_group groups[KVT_CACHE_MAX_GROUPS];
} kvt_saved;

/* Looks at a head, which has to stay where it is, aligned to 4: alone, or with all that follows. Errors: NULL, DATA, RANGE (fewer bytes than the head
 * has, or not aligned). `why`, of `room` bytes, says which field is wrong and what would be right; NULL: not wanted. */
KVT_API KVT_MUST_CHECK kvt_status kvt_saved_open(const void *head, size_t bytes, kvt_saved *saved, char *why, size_t room);

/* Compares the checksum of every record that follows the head. Errors: NULL, RANGE (fewer bytes than the whole), DATA. */
KVT_API KVT_MUST_CHECK kvt_status kvt_saved_verify(const kvt_saved *saved, size_t bytes, char *why, size_t room);

/* The view of a group whose records follow the head in memory, and the sequence's entry in it, of all of its tokens: for kvt_step_attend and
 * kvt_view_read, which write nothing. Checksums are not compared. The view points into *saved. Errors: NULL, RANGE (no such group; fewer bytes than
 * the whole; a sequence that does not begin with its first token), LAYOUT (one of *saved that was changed). */
KVT_API KVT_MUST_CHECK kvt_status kvt_saved_view(const kvt_saved *saved, size_t bytes, uint32_t group, kvt_view *view, kvt_sequence *entry);

/* Reads the records that follow the head, to a sequence of the cache that has exactly saved->first tokens: it has saved->end then. With an error it
 * is as it was. Errors: NULL, SEQUENCE, FULL, IO, RANGE (tokens), DATA (another model, groups that differ from the cache's, damage).
 * kvt_cache_problem says more. */
KVT_API KVT_MUST_CHECK kvt_status kvt_cache_load(kvt_cache *cache, uint32_t id, const kvt_saved *saved, uint64_t model, kvt_read_fn *read,
                                                 void *context);

#ifdef __cplusplus
}
#endif

#endif
