/* SPDX-License-Identifier: MIT */
/* NumPy's .npz: a zip archive of .npy files, as savez stores them, or deflated by savez_compressed. */
#include "tools/files/pickle.h"
#include "tools/rows/formats.h"

#include <minizip/unzip.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_NAME = 256, STORED = 0, ENCRYPTED = 1 };

/* A member of the archive. */
typedef struct member {
    char name[MAX_NAME];
    unz_file_info64 info;
    const uint8_t *data;
    bool is_inflated; /* the file's last block */
} member;

/* ---- the archive's bytes, as minizip reads them ---- */

typedef struct stream {
    const file_map *map;
    uint64_t at; /* at most the map's size */
} stream;

static voidpf open_stream(voidpf opaque, const void *name, int mode)
{
    (void)name;
    return mode & ZLIB_FILEFUNC_MODE_WRITE ? NULL : opaque;
}

static uLong read_stream(voidpf opaque, voidpf context, void *to, uLong n)
{
    (void)opaque;
    stream *from = context;
    const uint64_t left = from->map->size - from->at;
    const uLong taken = n < left ? n : (uLong)left;
    memcpy(to, from->map->data + from->at, taken);
    from->at += taken;
    return taken;
}

static ZPOS64_T tell_stream(voidpf opaque, voidpf context)
{
    (void)opaque;
    return ((const stream *)context)->at;
}

static long seek_stream(voidpf opaque, voidpf context, ZPOS64_T offset, int origin)
{
    (void)opaque;
    stream *from = context;
    const uint64_t base = origin == ZLIB_FILEFUNC_SEEK_SET ? 0 : origin == ZLIB_FILEFUNC_SEEK_CUR ? from->at : from->map->size;
    uint64_t to;
    if (__builtin_add_overflow(base, offset, &to) || to > from->map->size)
        return -1;
    from->at = to;
    return 0;
}

static int nothing_to_do(voidpf opaque, voidpf context)
{
    (void)opaque;
    (void)context;
    return 0;
}

/* ---- members ---- */

static int fail_damaged(const member *m, error_text *error)
{
    return error_set(error, "%.120s: is damaged: its bytes or their sum are not what the archive says", m->name);
}

/* What is only stored is looked at where it lies, so that archives may be larger than memory. */
static int find_stored(const file_map *map, unzFile archive, member *m, error_text *error)
{
    const ZPOS64_T at = unzGetCurrentFileZStreamPos64(archive);
    const uint64_t size = m->info.uncompressed_size;
    if (at > map->size || size > map->size - at || crc32_z(0, map->data + at, (size_t)size) != m->info.crc)
        return fail_damaged(m, error);
    m->data = map->data + at;
    return 0;
}

static int inflate_member(rows_file *file, unzFile archive, member *m, error_text *error)
{
    enum { MOST_RATIO = 1032, PART = 1 << 30 }; /* deflate makes no more of a byte */
    const uint64_t size = m->info.uncompressed_size;
    if (size / MOST_RATIO > m->info.compressed_size || size > SIZE_MAX)
        return fail_damaged(m, error);
    uint8_t *data = rows_block(file, (size_t)size);
    if (data == NULL)
        return error_set(error, "%.120s: takes %llu bytes when inflated: more than memory holds (numpy.savez does not deflate)", m->name,
                         (unsigned long long)size);
    for (uint64_t done = 0; done < size;) {
        const int got = unzReadCurrentFile(archive, data + done, size - done < PART ? (unsigned)(size - done) : PART);
        if (got <= 0)
            return fail_damaged(m, error);
        done += (uint64_t)got;
    }
    m->data = data;
    m->is_inflated = true;
    return 0;
}

static int read_member(rows_file *file, unzFile archive, member *m, error_text *error)
{
    const uLong method = m->info.compression_method;
    if ((m->info.flag & ENCRYPTED) != 0 || (method != STORED && method != Z_DEFLATED))
        return error_set(error, "%.120s: is encrypted, or packed otherwise than numpy does it: savez or savez_compressed would be right", m->name);
    if (unzOpenCurrentFile(archive) != UNZ_OK)
        return fail_damaged(m, error);
    const int result = method == STORED ? find_stored(&file->map, archive, m, error) : inflate_member(file, archive, m, error);
    const int closed = unzCloseCurrentFile(archive); /* which compares the sum of what was inflated */
    return result == 0 && closed != UNZ_OK ? fail_damaged(m, error) : result;
}

/* Adds the array if its rows can be stored, and returns 0. Otherwise 1, or -1 when the archive is of no use; `error` says why. */
static int use_member(rows_file *file, unzFile archive, uint64_t *packed_bytes, error_text *error)
{
    member m = { .data = NULL };
    if (unzGetCurrentFileInfo64(archive, &m.info, m.name, sizeof m.name, NULL, 0, NULL, 0) != UNZ_OK)
        return error_set(error, "is a damaged zip archive");
    m.name[sizeof m.name - 1] = '\0';
    /* Members that share bytes would take memory without end. */
    if (__builtin_add_overflow(*packed_bytes, m.info.compressed_size, packed_bytes) || *packed_bytes > file->map.size)
        return error_set(error, "%.120s: overlaps other members: together they take more bytes than the archive has", m.name);
    if (pickle_is_member(m.name))
        return pickle_refuse(error);
    const size_t length = strlen(m.name);
    if (length < 4 || strcmp(m.name + length - 4, ".npy") != 0) {
        error_set(error, "%.120s: is no .npy file", m.name);
        return 1;
    }
    if (read_member(file, archive, &m, error) != 0)
        return -1;
    rows_tensor tensor;
    error_text why;
    if (npy_parse(m.data, (size_t)m.info.uncompressed_size, file->order, &tensor, &why) != 0) {
        if (m.is_inflated)
            rows_drop_block(file);
        error_set(error, "%.120s: %.200s", m.name, why.text);
        return 1;
    }
    m.name[length - 4] = '\0';
    return rows_add(file, &tensor, m.name, error);
}

int npz_read(rows_file *file, error_text *error)
{
    stream bytes = { .map = &file->map };
    zlib_filefunc64_def functions = { open_stream, read_stream, NULL, tell_stream, seek_stream, nothing_to_do, nothing_to_do, &bytes };
    unzFile archive = unzOpen2_64("", &functions);
    if (archive == NULL)
        return error_set(error, "is no zip archive, which .npz is, or a damaged one");
    rows_skipped skipped = { 0 };
    uint64_t packed_bytes = 0;
    int used = 0;
    for (int at = unzGoToFirstFile(archive); used >= 0 && at == UNZ_OK; at = unzGoToNextFile(archive)) {
        used = use_member(file, archive, &packed_bytes, error);
        if (used > 0)
            rows_skip(&skipped, error);
    }
    unzClose(archive);
    return used < 0 ? -1 : rows_finish(file, &skipped, "array", error);
}
