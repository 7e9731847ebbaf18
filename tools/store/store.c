/* SPDX-License-Identifier: MIT */
/* The folder holds one file for each block, named by its key; STATE, whose lock writers hold and which says what the folder takes; and PART, which
 * becomes a block when its writer has finished. As there is one writer at a time, there is one PART at most, whoever was killed. */
#define _GNU_SOURCE /* flock, O_NOFOLLOW */
#include "tools/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__APPLE__)
#define st_mtim st_mtimespec
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

#define STATE "kvtile-store"
#define PART  "kvtile-store.part"

enum { DIGITS = 32, NAME = DIGITS + sizeof ".block" };

/* What the first bytes of a block's file are; then come its bytes. */
typedef struct header {
    uint64_t magic, bytes; /* the latter without this header */
    store_key previous, key, checksum;
    uint32_t ids[STORE_TOKENS];
} header;
_Static_assert(sizeof(header) == STORE_HEADER, "a header is as many bytes as store.h says");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold little-endian numbers");

/* What STATE holds. `changes` is set while files come and go: who finds it set counts them. */
typedef struct state {
    uint64_t magic, changes, budget, bytes, blocks, checksum;
} state;

static const uint64_t BLOCK_MAGIC = 0x314b4c4254564b, STATE_MAGIC = 0x3154535354564b; /* "KVTBLK1", "KVTSST1" */

struct store {
    int folder, lock;
    state now; /* right while the lock is held */
};

/* ---- keys ---- */

static store_key key_of(const XXH3_state_t *hash)
{
    store_key key;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash));
    memcpy(key.bytes, canonical.digest, sizeof key.bytes);
    return key;
}

static bool is_same_key(const store_key *a, const store_key *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

store_key store_first_key(const void *fingerprint, size_t n)
{
    XXH3_state_t hash;
    XXH3_INITSTATE(&hash);
    XXH3_128bits_reset_withSeed(&hash, BLOCK_MAGIC);
    XXH3_128bits_update(&hash, fingerprint, n);
    return key_of(&hash);
}

store_key store_next_key(const store_key *previous, const uint32_t *ids)
{
    XXH3_state_t hash;
    XXH3_INITSTATE(&hash);
    XXH3_128bits_reset(&hash);
    XXH3_128bits_update(&hash, previous->bytes, sizeof previous->bytes);
    XXH3_128bits_update(&hash, ids, STORE_TOKENS * sizeof *ids);
    return key_of(&hash);
}

const char *store_key_text(const store_key *key, char text[33])
{
    for (size_t i = 0; i < sizeof key->bytes; i++) {
        text[2 * i] = "0123456789abcdef"[key->bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[key->bytes[i] & 15];
    }
    text[DIGITS] = '\0';
    return text;
}

static const char *block_name(const store_key *key, char name[NAME])
{
    store_key_text(key, name);
    strcpy(name + DIGITS, ".block");
    return name;
}

static bool is_block(const char *name)
{
    return strlen(name) == NAME - 1 && strspn(name, "0123456789abcdef") == DIGITS && strcmp(name + DIGITS, ".block") == 0;
}

static store_key block_checksum(const header *head, const void *bytes)
{
    XXH3_state_t hash;
    XXH3_INITSTATE(&hash);
    XXH3_128bits_reset(&hash);
    XXH3_128bits_update(&hash, head, offsetof(header, checksum));
    XXH3_128bits_update(&hash, head->ids, sizeof head->ids);
    XXH3_128bits_update(&hash, bytes, head->bytes);
    return key_of(&hash);
}

/* ---- files ---- */

static int fail_errno(error_text *error, const char *what)
{
    return error_set(error, "%s: %s", what, strerror(errno));
}

/* All n bytes; -1 with errno, which is 0 at the end of a file. */
static int read_all(int file, void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = read(file, (char *)bytes + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got == 0 ? 0 : errno;
            return -1;
        }
        done += (size_t)got;
    }
    return 0;
}

static int write_parts(int file, struct iovec *parts, int n)
{
    while (n > 0) {
        ssize_t done = writev(file, parts, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        for (; n > 0 && (size_t)done >= parts->iov_len; parts++, n--)
            done -= (ssize_t)parts->iov_len;
        if (n > 0) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= (size_t)done;
        }
    }
    return 0;
}

/* Its time is that of its last use, with more digits than the system's own stamps have. Who may not set it leaves it. */
static void stamp(int file)
{
    struct timespec now[2];
    clock_gettime(CLOCK_REALTIME, &now[0]);
    now[1] = now[0];
    if (futimens(file, now) != 0)
        (void)futimens(file, NULL);
}

/* -1 with errno. */
static int open_block_file(const store *folder, const char *name, struct stat *status)
{
    const int file = openat(folder->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file >= 0 && (fstat(file, status) != 0 || !S_ISREG(status->st_mode))) {
        close(file);
        errno = ENOENT;
        return -1;
    }
    return file;
}

/* ---- what the folder takes ---- */

typedef struct entry {
    char name[NAME];
    uint64_t bytes;
    struct timespec used;
} entry;

typedef struct entries {
    entry *list;
    size_t n, room;
} entries;

static int add_entry(entries *all, const char *name, const struct stat *status)
{
    if (all->n == all->room) {
        const size_t room = all->room != 0 ? 2 * all->room : 256;
        entry *list = realloc(all->list, room * sizeof *list);
        if (list == NULL)
            return -1;
        all->list = list;
        all->room = room;
    }
    entry *new = &all->list[all->n++];
    memcpy(new->name, name, NAME);
    new->bytes = (uint64_t)status->st_size;
    new->used = status->st_mtim;
    return 0;
}

/* All blocks to `all`, which the caller frees in any case. `others`: whether there is anything else. -1 with errno. */
static int list_blocks(const store *folder, entries *all, bool *others)
{
    *all = (entries){ 0 };
    *others = false;
    const int copy = openat(folder->folder, ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    DIR *names = copy >= 0 ? fdopendir(copy) : NULL;
    if (names == NULL) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    int result = 0;
    errno = 0;
    for (const struct dirent *found; result == 0 && (found = readdir(names)) != NULL; errno = 0) {
        struct stat status;
        const char *name = found->d_name;
        if (!is_block(name))
            *others = *others || (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, STATE) != 0 && strcmp(name, PART) != 0);
        else if (fstatat(folder->folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode))
            result = add_entry(all, name, &status);
    }
    const int why = result != 0 ? ENOMEM : errno;
    closedir(names);
    errno = why;
    return why != 0 ? -1 : 0;
}

static uint64_t state_checksum(const state *now)
{
    return XXH3_64bits(now, offsetof(state, checksum));
}

static int write_state(store *folder)
{
    folder->now.magic = STATE_MAGIC;
    folder->now.checksum = state_checksum(&folder->now);
    const state now = folder->now; /* a copy: gcc 12 takes the struct's address for that of its first member, with -fsanitize=thread */
    return pwrite(folder->lock, &now, sizeof now, 0) == (ssize_t)sizeof now ? 0 : -1;
}

static int begin_changes(store *folder)
{
    folder->now.changes = 1;
    return write_state(folder);
}
static int end_changes(store *folder)
{
    folder->now.changes = 0;
    return write_state(folder);
}

/* Counts, and removes what a writer left. */
static int count_all(store *folder)
{
    entries all;
    bool others;
    int result = list_blocks(folder, &all, &others);
    folder->now.bytes = 0;
    folder->now.blocks = all.n;
    for (size_t i = 0; i < all.n; i++)
        folder->now.bytes += all.list[i].bytes;
    free(all.list);
    if (result == 0 && unlinkat(folder->folder, PART, 0) != 0 && errno != ENOENT)
        result = -1;
    return result == 0 ? end_changes(folder) : -1;
}

static void unlock(store *folder)
{
    flock(folder->lock, LOCK_UN);
}

/* From here to `unlock` nobody else writes, and `now` is right. -1 with errno, and nothing to unlock. */
static int lock(store *folder)
{
    while (flock(folder->lock, LOCK_EX) != 0)
        if (errno != EINTR)
            return -1;
    state *now = &folder->now;
    const ssize_t got = pread(folder->lock, now, sizeof *now, 0);
    int result = got < 0 ? -1 : 0;
    if (result == 0 && (got != (ssize_t)sizeof *now || now->magic != STATE_MAGIC || now->checksum != state_checksum(now)))
        *now = (state){ .changes = 1, .budget = UINT64_MAX }; /* new, or a loss of power */
    if (result == 0 && now->changes != 0)
        result = count_all(folder);
    if (result != 0) {
        const int why = errno;
        unlock(folder);
        errno = why;
    }
    return result;
}

static int by_use(const void *a, const void *b)
{
    const struct timespec x = ((const entry *)a)->used, y = ((const entry *)b)->used;
    if (x.tv_sec != y.tv_sec)
        return x.tv_sec < y.tv_sec ? -1 : 1;
    return x.tv_nsec != y.tv_nsec ? (x.tv_nsec < y.tv_nsec ? -1 : 1) : strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* Room for n more bytes, at most the budget, inside of changes. When blocks have to go, a sixteenth more than needed does, as looking at all of them
 * takes its time. -1 with errno. */
static int make_room(store *folder, uint64_t n)
{
    state *now = &folder->now;
    if (now->bytes <= now->budget - n)
        return 0;
    entries all;
    bool others;
    int result = list_blocks(folder, &all, &others);
    const uint64_t spare = now->budget - n < now->budget / 16 ? now->budget - n : now->budget / 16;
    if (result == 0)
        qsort(all.list, all.n, sizeof *all.list, by_use);
    for (size_t i = 0; result == 0 && i < all.n && now->bytes > now->budget - n - spare; i++) {
        result = unlinkat(folder->folder, all.list[i].name, 0) == 0 || errno == ENOENT ? 0 : -1;
        if (result == 0) {
            now->bytes -= all.list[i].bytes;
            now->blocks--;
        }
    }
    int why = errno;
    free(all.list);
    if (result == 0 && now->bytes > now->budget - n) {
        result = -1;
        why = ENOSPC;
    }
    errno = why;
    return result;
}

/* ---- opening ---- */

/* 0, or -1 with the error. A folder that is no store may hold nothing: it is somebody's. */
static int open_lock(store *folder, error_text *error)
{
    folder->lock = openat(folder->folder, STATE, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (folder->lock >= 0)
        return 0;
    entries all = { 0 };
    bool others = false;
    if (errno != ENOENT || list_blocks(folder, &all, &others) != 0) {
        free(all.list);
        return fail_errno(error, "cannot be opened");
    }
    free(all.list);
    if (others)
        return error_set(error, "holds other files: an empty folder, a new one or a store would be right");
    folder->lock = openat(folder->folder, STATE, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_CREAT, 0666);
    return folder->lock >= 0 ? 0 : fail_errno(error, "cannot be opened");
}

int store_open(store **opened, const char *path, uint64_t budget, error_text *error)
{
    store *folder = malloc(sizeof *folder);
    *opened = NULL;
    if (folder == NULL)
        return error_set(error, "cannot be opened: out of memory");
    *folder = (store){ .folder = -1, .lock = -1 };
    int result = 0;
    if (budget != 0 && budget < STORE_HEADER)
        result = error_set(error, "a budget of %" PRIu64 " bytes: at least %d would be right", budget, STORE_HEADER);
    if (result == 0 && mkdir(path, 0700) != 0 && errno != EEXIST) /* what people asked a model is theirs */
        result = fail_errno(error, "cannot be made");
    if (result == 0) {
        folder->folder = open(path, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
        result = folder->folder >= 0 ? open_lock(folder, error) : fail_errno(error, "cannot be opened");
    }
    if (result == 0 && lock(folder) != 0)
        result = fail_errno(error, "cannot be read");
    else if (result == 0) {
        /* Counted at each opening, so whatever a loss of power or people did to the files is known. */
        folder->now.budget = budget != 0 ? budget : folder->now.budget;
        if (begin_changes(folder) != 0 || count_all(folder) != 0 || begin_changes(folder) != 0 || make_room(folder, 0) != 0 ||
            end_changes(folder) != 0)
            result = fail_errno(error, "cannot be read");
        unlock(folder);
    }
    if (result != 0)
        store_close(folder);
    else
        *opened = folder;
    return result;
}

int store_open_limited(store **opened, const char *path, error_text *error)
{
    int result = store_open(opened, path, 0, error);
    if (result == 0 && store_budget(*opened) == UINT64_MAX) {
        store_close(*opened);
        result = store_open(opened, path, UINT64_C(1) << 30, error);
    }
    return result;
}

void store_close(store *folder)
{
    if (folder == NULL)
        return;
    if (folder->lock >= 0)
        close(folder->lock);
    if (folder->folder >= 0)
        close(folder->folder);
    free(folder);
}

uint64_t store_budget(const store *folder)
{
    return folder->now.budget;
}

/* ---- blocks ---- */

/* Whether an open file of `size` bytes is the block `key`: its header, and its bytes for free(). 1, 0 or -1: no memory. */
static int read_block(int file, const store_key *key, uint64_t size, header *head, void **bytes)
{
    *bytes = NULL;
    if (size < sizeof *head || read_all(file, head, sizeof *head) != 0 || head->magic != BLOCK_MAGIC || head->bytes != size - sizeof *head)
        return 0;
    if (!is_same_key(&head->key, key))
        return 0;
    *bytes = malloc(head->bytes != 0 ? (size_t)head->bytes : 1);
    if (*bytes == NULL)
        return -1;
    if (read_all(file, *bytes, (size_t)head->bytes) == 0) {
        const store_key checksum = block_checksum(head, *bytes), right = store_next_key(&head->previous, head->ids);
        if (is_same_key(&checksum, &head->checksum) && is_same_key(&right, key))
            return 1;
    }
    free(*bytes);
    *bytes = NULL;
    return 0;
}

/* Removes the file that has a block's name, if it still is the one that was read. */
static int remove_damaged(store *folder, const char *name, const struct stat *damaged, error_text *error)
{
    struct stat status;
    if (lock(folder) != 0)
        return fail_errno(error, "cannot be written");
    int result = 0;
    if (fstatat(folder->folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_ino == damaged->st_ino) {
        result = begin_changes(folder) == 0 && unlinkat(folder->folder, name, 0) == 0 && count_all(folder) == 0 ? 0 : -1;
        if (result != 0)
            fail_errno(error, "cannot be written");
    }
    unlock(folder);
    return result;
}

/* What the file `name` holds, which must be the block `key`: 1; 0: there is none, or it was damaged, which is counted then; -1 with the error. */
static int take_block_file(store *folder, const char *name, const store_key *key, header *head, void **bytes, struct stat *status, uint64_t *damaged,
                           error_text *error)
{
    const int file = open_block_file(folder, name, status);
    if (file < 0)
        return errno == ENOENT || errno == ELOOP ? 0 : fail_errno(error, "cannot be read");
    const int result = read_block(file, key, (uint64_t)status->st_size, head, bytes);
    close(file);
    if (result < 0)
        return error_set(error, "block of %lld bytes: out of memory", (long long)status->st_size);
    if (result == 0) {
        ++*damaged;
        return remove_damaged(folder, name, status, error);
    }
    return 1;
}

int store_get(store *folder, const store_key *previous, const uint32_t *ids, void **bytes, size_t *n, error_text *error)
{
    const store_key key = store_next_key(previous, ids);
    char name[NAME];
    struct stat status;
    uint64_t damaged = 0;
    header head;
    const int result = take_block_file(folder, block_name(&key, name), &key, &head, bytes, &status, &damaged, error);
    if (result != 1)
        return result;
    *n = (size_t)head.bytes;
    if (is_same_key(&head.previous, previous) && memcmp(head.ids, ids, sizeof head.ids) == 0)
        return 1;
    free(*bytes);
    return 0;
}

/* The new file, as PART. -1 with errno, and it is not there. */
static int write_part(const store *folder, const header *head, const void *bytes)
{
    union {
        const void *in;
        void *out;
    } body = { bytes }; /* iovec is for reading too */
    header copy = *head;
    struct iovec parts[] = { { &copy, sizeof copy }, { body.out, (size_t)head->bytes } };
    const int file = openat(folder->folder, PART, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0)
        return -1;
    const int result = write_parts(file, parts, 2);
    const int why = errno;
    if (result == 0)
        stamp(file);
    if (close(file) == 0 && result == 0)
        return 0;
    unlinkat(folder->folder, PART, 0);
    errno = result != 0 ? why : EIO;
    return -1;
}

/* Inside of changes. -1 with errno. */
static int add_block(store *folder, const char *name, const header *head, const void *bytes)
{
    struct stat before;
    const uint64_t size = sizeof *head + head->bytes;
    if (unlinkat(folder->folder, PART, 0) != 0 && errno != ENOENT)
        return -1;
    if (make_room(folder, size) != 0 || write_part(folder, head, bytes) != 0)
        return -1;
    const bool replaces = fstatat(folder->folder, name, &before, AT_SYMLINK_NOFOLLOW) == 0;
    if (renameat(folder->folder, PART, folder->folder, name) != 0)
        return -1;
    folder->now.bytes += size - (replaces ? (uint64_t)before.st_size : 0);
    folder->now.blocks += !replaces;
    return 0;
}

/* Whether the block is there, in this size; then it was used. */
static bool use_block(const store *folder, const char *name, uint64_t size)
{
    struct stat status;
    const int file = open_block_file(folder, name, &status);
    if (file < 0)
        return false;
    const bool is_it = size == 0 || (uint64_t)status.st_size == size;
    if (is_it)
        stamp(file);
    close(file);
    return is_it;
}

int store_put(store *folder, const store_key *previous, const uint32_t *ids, const void *bytes, size_t n, error_text *error)
{
    header head = { .magic = BLOCK_MAGIC, .bytes = n, .previous = *previous, .key = store_next_key(previous, ids) };
    memcpy(head.ids, ids, sizeof head.ids);
    const uint64_t size = sizeof head + (uint64_t)n;
    char name[NAME];
    if (use_block(folder, block_name(&head.key, name), size))
        return 0;
    head.checksum = block_checksum(&head, bytes);
    if (lock(folder) != 0)
        return fail_errno(error, "cannot be written");
    int result = 0;
    if (size > folder->now.budget)
        result = error_set(error, "a block of %" PRIu64 " bytes: the budget is %" PRIu64, size, folder->now.budget);
    else if (begin_changes(folder) != 0 || add_block(folder, name, &head, bytes) != 0)
        result = fail_errno(error, "cannot be written"); /* the next writer counts */
    else if (end_changes(folder) != 0)
        result = fail_errno(error, "cannot be written");
    unlock(folder);
    return result;
}

void store_use(store *folder, const store_key *keys, size_t n)
{
    char name[NAME];
    while (n > 0)
        (void)use_block(folder, block_name(&keys[--n], name), 0);
}

/* ---- all of them ---- */

int store_count(store *folder, store_measure *measure, error_text *error)
{
    if (lock(folder) != 0)
        return fail_errno(error, "cannot be read");
    const int result = begin_changes(folder) == 0 && count_all(folder) == 0 ? 0 : fail_errno(error, "cannot be read");
    *measure = (store_measure){ folder->now.budget, folder->now.bytes, folder->now.blocks };
    unlock(folder);
    return result;
}

/* 1 and the block, 0: it is gone, or was damaged, or -1 with the error. */
static int look_at_entry(store *folder, const entry *file, store_block *block, uint64_t *damaged, error_text *error)
{
    struct stat status;
    header head;
    store_key key;
    void *bytes;
    for (size_t i = 0; i < sizeof key.bytes; i++) {
        const char pair[] = { file->name[2 * i], file->name[2 * i + 1], '\0' };
        key.bytes[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    const int result = take_block_file(folder, file->name, &key, &head, &bytes, &status, damaged, error);
    if (result != 1)
        return result;
    free(bytes);
    *block = (store_block){ .key = head.key, .previous = head.previous, .bytes = (uint64_t)status.st_size, .used = status.st_mtim };
    memcpy(block->ids, head.ids, sizeof head.ids);
    return 1;
}

int store_walk(store *folder, store_visit *visit, void *owner, uint64_t *damaged, error_text *error)
{
    entries all;
    bool others;
    int result = list_blocks(folder, &all, &others) == 0 ? 0 : fail_errno(error, "cannot be read");
    if (result == 0)
        qsort(all.list, all.n, sizeof *all.list, by_use);
    for (size_t i = all.n; result == 0 && i > 0; i--) {
        store_block block;
        result = look_at_entry(folder, &all.list[i - 1], &block, damaged, error);
        if (result == 1)
            result = visit != NULL ? visit(owner, &block) : 0;
    }
    free(all.list);
    return result;
}
