/* SPDX-License-Identifier: MIT */
/* Sequences as bytes, and back: docs/formats.md, section 12. Little-endian, like pages. */
#include "kernels/api/cache.h"

#include <kvtile/saved.h>

/* The distribution's header, so that the library needs no other at run time; small rather than fast for short inputs. */
#define XXH_INLINE_ALL
#define XXH_NO_INLINE_HINTS   1
#define XXH_FORCE_ALIGN_CHECK 0
#include <xxhash.h>

enum { VERSION = 1, RECORD = 320, GROUP = 384, ALIKE = 2 * KVT_SPEC_BYTES + 8, SPEC_WORDS = 25, LINE = 64 };
enum { KIND_PAGE, KIND_FIRST, KIND_OPEN, KIND_STATE };

static const uint32_t SPEC_MAGIC = 0x5354564b, RECORD_MAGIC = 0x4254564b; /* "KVTS", "KVTB" */
static const uint64_t SAVED_MAGIC = 0x444556415354564b;                   /* "KVTSAVED" */

static void put32(uint8_t *to, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(x >> 8 * i);
}
static void put64(uint8_t *to, uint64_t x)
{
    put32(to, (uint32_t)x);
    put32(to + 4, (uint32_t)(x >> 32));
}
static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}
static uint64_t get64(const uint8_t *from)
{
    return get32(from) | (uint64_t)get32(from + 4) << 32;
}

__attribute__((noinline)) static void hash_add(XXH64_state_t *hash, const void *bytes, size_t n)
{
    (void)XXH64_update(hash, bytes, n);
}
__attribute__((noinline)) static uint64_t hash_end(const XXH64_state_t *hash)
{
    return XXH64_digest(hash);
}

static uint64_t hash_of(const void *bytes, size_t n, uint64_t seed)
{
    XXH64_state_t hash;
    (void)XXH64_reset(&hash, seed);
    hash_add(&hash, bytes, n);
    return hash_end(&hash);
}

uint64_t kvt_prefix_hash(uint64_t previous, const uint32_t *token_ids, size_t n)
{
    for (size_t i = 0; token_ids && i < n; i++) {
        uint8_t bytes[4];
        put32(bytes, token_ids[i]);
        previous = hash_of(bytes, sizeof bytes, previous);
    }
    return previous;
}

/* ---- specs ---- */

static void spec_words(const kvt_spec *s, uint32_t words[SPEC_WORDS])
{
    const uint32_t shape[] = { (uint32_t)s->k_scheme, s->v_dim ? (uint32_t)s->v_scheme : 0,       s->k_dim,   s->v_dim,
                               s->kv_heads,           s->rope_dim ? (uint32_t)s->rope_scheme : 0, s->rope_dim };
    const kvt_side_options *const sides[] = { &s->k_options, s->v_dim ? &s->v_options : NULL, s->rope_dim ? &s->rope_options : NULL };
    memset(words, 0, SPEC_WORDS * sizeof *words);
    memcpy(words, shape, sizeof shape);
    for (int i = 0; i < 3; i++) {
        const kvt_side_options *o = sides[i];
        uint32_t *to = words + 7 + 6 * i;
        if (!o)
            continue;
        to[0] = (uint32_t)o->rotation;
        to[1] = (uint32_t)o->centring;
        to[2] = (uint32_t)o->effort;
        to[3] = o->fp8_block;
        to[4] = (uint32_t)o->fp8_scale;
        memcpy(&to[5], &o->fp8_tensor_scale, 4);
    }
}

kvt_status kvt_spec_to_bytes(const kvt_spec *spec, void *bytes)
{
    if (!bytes)
        return KVT_ERR_NULL;
    kvt_layout layout;
    const kvt_status status = kvt_layout_init(&layout, spec);
    if (status)
        return status;
    uint8_t *to = bytes;
    uint32_t words[SPEC_WORDS];
    spec_words(&layout.spec, words);
    memset(to, 0, KVT_SPEC_BYTES);
    put32(to, SPEC_MAGIC);
    put32(to + 4, VERSION);
    for (int i = 0; i < SPEC_WORDS; i++)
        put32(to + 8 + 4 * i, words[i]);
    put64(to + KVT_SPEC_BYTES - 8, hash_of(to, KVT_SPEC_BYTES - 8, 0));
    return KVT_OK;
}

kvt_status kvt_spec_from_bytes(const void *bytes, kvt_spec *spec)
{
    if (!bytes || !spec)
        return KVT_ERR_NULL;
    const uint8_t *from = bytes;
    if (get32(from) != SPEC_MAGIC || get32(from + 4) != VERSION || get64(from + KVT_SPEC_BYTES - 8) != hash_of(from, KVT_SPEC_BYTES - 8, 0))
        return KVT_ERR_DATA;
    uint32_t w[SPEC_WORDS], again[SPEC_WORDS];
    for (int i = 0; i < SPEC_WORDS; i++)
        w[i] = get32(from + 8 + 4 * i);
    kvt_spec s = { .size = sizeof s,
                   .k_scheme = (kvt_scheme)w[0],
                   .v_scheme = (kvt_scheme)w[1],
                   .k_dim = w[2],
                   .v_dim = w[3],
                   .kv_heads = w[4],
                   .rope_scheme = (kvt_scheme)w[5],
                   .rope_dim = w[6] };
    kvt_side_options *const sides[] = { &s.k_options, &s.v_options, &s.rope_options };
    for (int i = 0; i < 3; i++) {
        const uint32_t *o = w + 7 + 6 * i;
        *sides[i] = (kvt_side_options){ .rotation = (kvt_rotation)o[0],
                                        .centring = (kvt_centring)o[1],
                                        .effort = (kvt_effort)o[2],
                                        .fp8_block = o[3],
                                        .fp8_scale = (kvt_fp8_scale)o[4] };
        memcpy(&sides[i]->fp8_tensor_scale, &o[5], 4);
    }
    kvt_layout layout;
    const kvt_status status = kvt_layout_init(&layout, &s);
    if (status)
        return status;
    spec_words(&s, again);
    for (size_t i = 8 + 4 * SPEC_WORDS; i < KVT_SPEC_BYTES - 8; i++)
        if (from[i])
            return KVT_ERR_DATA;
    if (memcmp(again, w, sizeof w) != 0)
        return KVT_ERR_DATA;
    *spec = s;
    return KVT_OK;
}

/* ---- a head ---- */

/* What a record has in it, of each kind. */
static size_t payload_of(const kvt_layout *layout, uint32_t layers)
{
    return layout->page_bytes * layout->spec.kv_heads * layers;
}

/* What all blocks of a group have alike: their layouts, layers and open rows. */
static uint64_t fingerprint_of(const uint8_t *group)
{
    return hash_of(group, ALIKE, 0);
}

/* Where everything is, from what a head says or will say. False: a number is too large. */
static bool place_groups(kvt_saved *s)
{
    uint64_t at = KVT_SAVED_HEADER + (uint64_t)s->n_groups * GROUP;
    for (uint32_t g = 0; g < s->n_groups; g++)
        at += (uint64_t)s->groups[g].pages * 4;
    at += s->token_ids ? (uint64_t)(s->end - s->first) * 4 : 0;
    at = (at + 8 + LINE - 1) / LINE * LINE; /* the head's checksum is its end */
    s->head_bytes = (size_t)at;
    for (uint32_t g = 0; g < s->n_groups; g++) {
        kvt_saved_group *group = &s->groups[g];
        const struct {
            size_t *offset, *stride;
            size_t payload;
            uint32_t n;
        } kinds[] = { { &group->first_records, &group->first_stride, payload_of(&group->first_layout, group->layers), group->n_first },
                      { &group->page_records, &group->page_stride, payload_of(&group->layout, group->layers), group->n_pages },
                      { &group->open_records, &group->open_stride,
                        (group->layout.k.dim + group->layout.v.dim + group->layout.rope.dim) * kvt_dtype_bytes(group->open_dtype) * KVT_PAGE_TOKENS *
                            (size_t)group->layout.spec.kv_heads * group->layers,
                        group->n_open } };
        for (int k = 0; k < 3; k++) {
            uint64_t all;
            *kinds[k].offset = (size_t)at;
            *kinds[k].stride = RECORD + kinds[k].payload;
            if (__builtin_mul_overflow((uint64_t)*kinds[k].stride, kinds[k].n, &all) || __builtin_add_overflow(at, all, &at) || at > PTRDIFF_MAX)
                return false;
        }
    }
    s->state_record = s->state_bytes ? (size_t)at : 0;
    if (s->state_bytes > PTRDIFF_MAX / 2)
        return false;
    at += s->state_bytes ? RECORD + kvt_whole_lines(s->state_bytes) : 0;
    s->bytes = (size_t)at;
    return at <= PTRDIFF_MAX;
}

kvt_status kvt_saved_head_bytes(const void *header, size_t *bytes)
{
    if (!header || !bytes)
        return KVT_ERR_NULL;
    const uint8_t *from = header;
    if (get64(from) != SAVED_MAGIC || get32(from + 8) != VERSION || get64(from + KVT_SAVED_HEADER - 8) != hash_of(from, KVT_SAVED_HEADER - 8, 0) ||
        get64(from + 64) > PTRDIFF_MAX)
        return KVT_ERR_DATA;
    *bytes = (size_t)get64(from + 64);
    return KVT_OK;
}

static kvt_status open_group(const kvt_problem *why, const uint8_t *from, kvt_saved *s, uint32_t g)
{
    kvt_saved_group *group = &s->groups[g];
    kvt_spec spec, first;
    if (kvt_spec_from_bytes(from, &spec) || kvt_layout_init(&group->layout, &spec))
        return kvt_fail(why, KVT_ERR_DATA, "group %u has no layout that this version knows", g);
    const uint32_t has_first = get32(from + 272);
    if (has_first && (kvt_spec_from_bytes(from + KVT_SPEC_BYTES, &first) || kvt_layout_init(&group->first_layout, &first)))
        return kvt_fail(why, KVT_ERR_DATA, "group %u has no layout of first pages that this version knows", g);
    group->layers = get32(from + 256);
    group->open_dtype = (kvt_dtype)get32(from + 260);
    group->pages = get32(from + 264);
    group->kept = get32(from + 268);
    group->n_pages = get32(from + 276);
    group->n_first = get32(from + 280);
    group->n_open = get32(from + 284);
    const size_t held = group->open_dtype ? s->end / KVT_PAGE_TOKENS : kvt_pages_of(s->end);
    const bool has_open = group->open_dtype && kvt_dtype_bytes(group->open_dtype);
    uint64_t row = (uint64_t)(group->layout.k.dim + group->layout.v.dim + group->layout.rope.dim) * 4 * KVT_PAGE_TOKENS, all;
    if (group->layers < 1 || has_first > 1 || (group->open_dtype && !has_open) || group->pages != held - s->first / KVT_PAGE_TOKENS ||
        group->n_first > (has_first && !s->first) || (uint64_t)group->n_pages + group->n_first > group->pages ||
        group->n_open > (has_open ? 2u : 0u) || (group->n_open && group->kept + group->n_open != kvt_pages_of(s->end)) ||
        (!group->n_open && has_open && s->end % KVT_PAGE_TOKENS) ||
        __builtin_mul_overflow(row, (uint64_t)group->layers * group->layout.spec.kv_heads, &all) || all > PTRDIFF_MAX ||
        __builtin_mul_overflow((uint64_t)kvt_larger(group->layout.page_bytes, group->first_layout.page_bytes),
                               (uint64_t)group->layers * group->layout.spec.kv_heads, &all) ||
        all > PTRDIFF_MAX)
        return kvt_fail(why, KVT_ERR_DATA, "group %u has %u layers, %zu pages, %u first and %u others saved, %u open: they do not go together", g,
                        group->layers, group->pages, group->n_first, group->n_pages, group->n_open);
    return KVT_OK;
}

/* The pages' records. */
static kvt_status open_table(const kvt_problem *why, const kvt_saved *s, uint32_t g)
{
    const kvt_saved_group *group = &s->groups[g];
    uint32_t first = 0, others = 0;
    for (size_t p = 0; p < group->pages; p++) {
        const uint32_t id = group->table[p];
        if (id == KVT_NO_BLOCK)
            continue;
        uint32_t *next = p == 0 && s->first == 0 && group->first_layout.size ? &first : &others;
        if (id != (*next)++)
            return kvt_fail(why, KVT_ERR_DATA, "group %u: page %zu is said to be record %u, not %u", g, p, id, *next - 1);
    }
    return first == group->n_first && others == group->n_pages
               ? KVT_OK
               : kvt_fail(why, KVT_ERR_DATA, "group %u has %u and %u records, but its table names %u and %u", g, group->n_first, group->n_pages,
                          first, others);
}

kvt_status kvt_saved_open(const void *head, size_t bytes, kvt_saved *saved, char *text, size_t room)
{
    const kvt_problem why = { text, room };
    if (text && room)
        *text = '\0';
    if (!head || !saved)
        return KVT_ERR_NULL;
    if ((uintptr_t)head % 4 || bytes < KVT_SAVED_HEADER)
        return kvt_fail(&why, KVT_ERR_RANGE, "%zu bytes, not aligned or less than the %d of a header", bytes, KVT_SAVED_HEADER);
    const uint8_t *from = head;
    size_t head_bytes;
    if (kvt_saved_head_bytes(head, &head_bytes))
        return kvt_fail(&why, KVT_ERR_DATA, "%s",
                        get64(from) != SAVED_MAGIC   ? "no saved sequence: it does not begin as one does"
                        : get32(from + 8) != VERSION ? "a saved sequence of another version"
                                                     : "the header is damaged: its checksum is another");
    kvt_saved s = { .head = head, .model = get64(from + 16), .prefix = get64(from + 24), .n_groups = get32(from + 48) };
    const uint64_t first = get64(from + 32), end = get64(from + 40), state = get64(from + 56);
    if (get32(from + 12) != KVT_FORMAT_VERSION)
        return kvt_fail(&why, KVT_ERR_DATA, "pages are of format version %u, not %d", get32(from + 12), KVT_FORMAT_VERSION);
    if (s.n_groups > KVT_CACHE_MAX_GROUPS || first % KVT_PAGE_TOKENS || first > end || end > INT32_MAX || state > PTRDIFF_MAX / 4 ||
        get32(from + 52) > 1)
        return kvt_fail(&why, KVT_ERR_DATA, "tokens %llu to %llu, %u groups, a state of %llu bytes: this cannot be", (unsigned long long)first,
                        (unsigned long long)end, s.n_groups, (unsigned long long)state);
    if (bytes < head_bytes)
        return kvt_fail(&why, KVT_ERR_RANGE, "%zu bytes: the head has %zu", bytes, head_bytes);
    s.first = (size_t)first;
    s.end = (size_t)end;
    s.state_bytes = (size_t)state;
    if (head_bytes < KVT_SAVED_HEADER + (size_t)s.n_groups * GROUP + 8 || head_bytes % 8 ||
        get64(from + head_bytes - 8) != hash_of(from, head_bytes - 8, 0))
        return kvt_fail(&why, KVT_ERR_DATA, "the head is damaged: its checksum is another");
    kvt_status status = KVT_OK;
    for (uint32_t g = 0; g < s.n_groups && !status; g++)
        status = open_group(&why, from + KVT_SAVED_HEADER + (size_t)g * GROUP, &s, g);
    if (status)
        return status;
    s.token_ids = get32(from + 52) ? (const uint32_t *)head : NULL;
    if (!place_groups(&s) || s.head_bytes != head_bytes || s.bytes != get64(from + 72))
        return kvt_fail(&why, KVT_ERR_DATA, "the head has %zu bytes, not %zu, or the whole is not as long as it says", head_bytes, s.head_bytes);
    const uint32_t *words = (const uint32_t *)(const void *)(from + KVT_SAVED_HEADER + (size_t)s.n_groups * GROUP);
    for (uint32_t g = 0; g < s.n_groups && !status; g++) {
        s.groups[g].table = words;
        words += s.groups[g].pages;
        status = open_table(&why, &s, g);
    }
    s.token_ids = s.token_ids ? words : NULL;
    if (!status)
        *saved = s;
    return status;
}

/* ---- records ---- */

/* What a record says of itself. */
typedef struct record {
    uint32_t kind, group, page, tokens;
    uint64_t model, layout, prefix, payload;
    const uint32_t *ids; /* [tokens], or NULL */
} record;

static void put_record(uint8_t bytes[RECORD], const record *r)
{
    memset(bytes, 0, RECORD);
    put32(bytes, RECORD_MAGIC);
    put32(bytes + 4, VERSION);
    put64(bytes + 16, r->model);
    put64(bytes + 24, r->layout);
    put64(bytes + 32, r->prefix);
    put32(bytes + 40, r->kind);
    put32(bytes + 44, r->group);
    put32(bytes + 48, r->page);
    put32(bytes + 52, r->tokens);
    put64(bytes + 56, r->payload);
    for (uint32_t i = 0; r->ids && i < r->tokens; i++)
        put32(bytes + 64 + 4 * i, r->ids[i]);
}

/* The prefix and the ids of page p, which ends with its last token or the sequence's. */
static void describe(const kvt_saved *s, record *r, size_t p, uint64_t prefix)
{
    r->page = (uint32_t)p;
    r->tokens = (uint32_t)kvt_smaller(KVT_PAGE_TOKENS, s->end - p * KVT_PAGE_TOKENS);
    r->ids = s->token_ids ? s->token_ids + (p * KVT_PAGE_TOKENS - s->first) : NULL;
    r->prefix = s->token_ids ? prefix : 0;
}

/* Calls of all records, in their order. Stops with the first status that is not OK. */
typedef kvt_status record_fn(void *context, const record *r, size_t offset);

static const uint8_t *group_bytes(const kvt_saved *s, uint32_t g)
{
    return (const uint8_t *)s->head + KVT_SAVED_HEADER + (size_t)g * GROUP;
}

static kvt_status each_page(const kvt_saved *s, uint32_t g, uint32_t kind, record_fn *call, void *context)
{
    const kvt_saved_group *group = &s->groups[g];
    record r = { .kind = kind, .group = g, .model = s->model, .layout = fingerprint_of(group_bytes(s, g)) };
    const size_t begin = s->first / KVT_PAGE_TOKENS, stride = kind == KIND_FIRST  ? group->first_stride
                                                              : kind == KIND_PAGE ? group->page_stride
                                                                                  : group->open_stride;
    size_t offset = kind == KIND_FIRST ? group->first_records : kind == KIND_PAGE ? group->page_records : group->open_records;
    r.payload = stride - RECORD;
    uint64_t prefix = s->prefix;
    kvt_status status = KVT_OK;
    for (size_t p = begin; p < kvt_pages_of(s->end) && !status; p++) {
        const size_t tokens = kvt_smaller(KVT_PAGE_TOKENS, s->end - p * KVT_PAGE_TOKENS);
        prefix = s->token_ids ? kvt_prefix_hash(prefix, s->token_ids + (p * KVT_PAGE_TOKENS - s->first), tokens) : 0;
        const bool is_first = p == 0 && group->first_layout.size, is_there = p - begin < group->pages && group->table[p - begin] != KVT_NO_BLOCK;
        if (kind == KIND_OPEN ? !group->n_open || p < group->kept : !is_there || (kind == KIND_FIRST) != is_first)
            continue;
        describe(s, &r, p, prefix);
        status = call(context, &r, offset);
        offset += stride;
    }
    return status;
}

static kvt_status each_record(const kvt_saved *s, record_fn *call, void *context)
{
    static const uint32_t kinds[] = { KIND_FIRST, KIND_PAGE, KIND_OPEN };
    kvt_status status = KVT_OK;
    for (uint32_t g = 0; g < s->n_groups; g++)
        for (int k = 0; k < 3 && !status; k++)
            status = each_page(s, g, kinds[k], call, context);
    if (status || !s->state_bytes)
        return status;
    const record r = { .kind = KIND_STATE, .model = s->model, .payload = kvt_whole_lines(s->state_bytes) };
    return call(context, &r, s->state_record);
}

/* ---- saving ---- */

/* Bytes on their way: to the checksum first, then to the caller. */
typedef struct sink {
    XXH64_state_t hash;
    kvt_write_fn *write; /* NULL: only the checksum */
    void *context;
    bool has_failed;
} sink;

static void sink_add(sink *to, const void *bytes, size_t n)
{
    if (!n || to->has_failed)
        return;
    if (to->write)
        to->has_failed = to->write(to->context, bytes, n) != 0;
    else
        hash_add(&to->hash, bytes, n);
}

static void add_zeros(sink *to, size_t n)
{
    static const uint8_t zeros[LINE * 4];
    for (; n > sizeof zeros; n -= sizeof zeros)
        sink_add(to, zeros, sizeof zeros);
    sink_add(to, zeros, n);
}

typedef struct saving {
    const kvt_cache *cache;
    const kvt_record *r;
    kvt_saved saved;
    uint32_t state;
    uint8_t *page; /* for a page with tokens that are not there */
    sink to;
} saving;

/* A page as it is saved: what is behind its centres is zero, and so are tokens that are not there. */
static void add_page(saving *s, const kvt_checked_view *v, const kvt_layout *layout, const uint8_t *page, uint32_t tokens)
{
    size_t used = 0;
    for (kvt_side side = KVT_K; side <= KVT_ROPE; side++)
        used += (size_t)kvt_layout_side(layout, side)->row_bytes * KVT_PAGE_TOKENS + kvt_layout_side(layout, side)->centre_bytes;
    if (tokens < KVT_PAGE_TOKENS) {
        const float zeros[KVT_MAX_DIM] = { 0 };
        memcpy(s->page, page, used);
        void *copy = s->page;
        for (uint32_t i = 0; i < v->n_sides; i++)
            for (uint32_t t = tokens; t < KVT_PAGE_TOKENS; t++)
                (void)!kvt_write(layout, v->sides[i], &(kvt_pages){ .table = &copy, .count = 1 }, t, 1, zeros, KVT_F32, 0);
        page = s->page;
    }
    sink_add(&s->to, page, used);
    add_zeros(&s->to, layout->page_bytes - used);
}

static void add_payload(saving *s, const record *r)
{
    if (r->kind == KIND_STATE) {
        sink_add(&s->to, kvt_block_at(&s->cache->states, s->state), s->saved.state_bytes);
        add_zeros(&s->to, (size_t)r->payload - s->saved.state_bytes);
        return;
    }
    const kvt_group *group = &s->cache->groups[r->group];
    const kvt_checked_view *v = &group->view;
    const kvt_holding *h = &s->r->groups[r->group];
    const kvt_sequence entry = kvt_entry_of(h, h->table, h->n, 0, 0);
    for (uint32_t layer = 0; layer < v->v.layers; layer++)
        for (uint32_t head = 0; head < v->kv_heads; head++) {
            if (r->kind != KIND_OPEN) {
                add_page(s, v, kvt_layout_at(v, r->page), kvt_view_page(v, &entry, layer, r->page, head, KVT_K), r->tokens);
                continue;
            }
            for (uint32_t i = 0; i < v->n_sides; i++) {
                sink_add(&s->to, kvt_view_open(v, &entry, layer, r->page, head, i), r->tokens * v->row_bytes[i]);
                add_zeros(&s->to, (KVT_PAGE_TOKENS - r->tokens) * v->row_bytes[i]);
            }
        }
}

static kvt_status save_record(void *context, const record *r, size_t offset)
{
    (void)offset;
    saving *s = context;
    uint8_t bytes[RECORD];
    put_record(bytes, r);
    kvt_write_fn *write = s->to.write;
    (void)XXH64_reset(&s->to.hash, 0);
    s->to.write = NULL;
    sink_add(&s->to, bytes + 16, RECORD - 16);
    add_payload(s, r);
    s->to.write = write;
    put64(bytes + 8, hash_end(&s->to.hash));
    sink_add(&s->to, bytes, RECORD);
    add_payload(s, r);
    return s->to.has_failed ? KVT_ERR_IO : KVT_OK;
}

/* What has to be alike in a cache that loads it. */
static void put_alike(const kvt_group *group, uint8_t bytes[ALIKE])
{
    memset(bytes, 0, ALIKE);
    (void)!kvt_spec_to_bytes(&group->layout.spec, bytes);
    if (group->view.v.first_layout)
        (void)!kvt_spec_to_bytes(&group->first_layout.spec, bytes + KVT_SPEC_BYTES);
    put32(bytes + 256, group->view.v.layers);
    put32(bytes + 260, (uint32_t)group->view.v.open_dtype);
}

static void put_group(const saving *s, uint32_t g, uint8_t bytes[GROUP])
{
    const kvt_group *group = &s->cache->groups[g];
    const kvt_saved_group *saved = &s->saved.groups[g];
    memset(bytes, 0, GROUP);
    put_alike(group, bytes);
    put32(bytes + 264, (uint32_t)saved->pages);
    put32(bytes + 268, (uint32_t)saved->kept);
    put32(bytes + 272, group->view.v.first_layout != NULL);
    put32(bytes + 276, saved->n_pages);
    put32(bytes + 280, saved->n_first);
    put32(bytes + 284, saved->n_open);
}

static void put_header(const kvt_saved *s, uint8_t bytes[KVT_SAVED_HEADER])
{
    memset(bytes, 0, KVT_SAVED_HEADER);
    put64(bytes, SAVED_MAGIC);
    put32(bytes + 8, VERSION);
    put32(bytes + 12, KVT_FORMAT_VERSION);
    put64(bytes + 16, s->model);
    put64(bytes + 24, s->prefix);
    put64(bytes + 32, s->first);
    put64(bytes + 40, s->end);
    put32(bytes + 48, s->n_groups);
    put32(bytes + 52, s->token_ids != NULL);
    put64(bytes + 56, s->state_bytes);
    put64(bytes + 64, s->head_bytes);
    put64(bytes + 72, s->bytes);
    put64(bytes + KVT_SAVED_HEADER - 8, hash_of(bytes, KVT_SAVED_HEADER - 8, 0));
}

static void add_head(saving *s)
{
    uint8_t bytes[GROUP];
    size_t n = KVT_SAVED_HEADER + (size_t)s->saved.n_groups * GROUP;
    put_header(&s->saved, bytes);
    sink_add(&s->to, bytes, KVT_SAVED_HEADER);
    for (uint32_t g = 0; g < s->saved.n_groups; g++) {
        put_group(s, g, bytes);
        sink_add(&s->to, bytes, GROUP);
    }
    for (uint32_t g = 0; g < s->saved.n_groups; g++) {
        const kvt_holding *h = &s->r->groups[g];
        uint32_t next = 0;
        for (size_t p = s->saved.first / KVT_PAGE_TOKENS, i = 0; i < s->saved.groups[g].pages; i++, p++) {
            const bool is_first = p == 0 && s->cache->groups[g].view.v.first_layout;
            put32(bytes, h->table[p] == KVT_NO_BLOCK ? KVT_NO_BLOCK : is_first ? 0 : next++);
            sink_add(&s->to, bytes, 4);
        }
        n += s->saved.groups[g].pages * 4;
    }
    for (size_t i = 0; s->saved.token_ids && i < s->saved.end - s->saved.first; i++, n += 4) {
        put32(bytes, s->saved.token_ids[i]);
        sink_add(&s->to, bytes, 4);
    }
    add_zeros(&s->to, s->saved.head_bytes - n - 8);
}

static void plan_blocks(saving *s, uint32_t g, size_t stored)
{
    const kvt_group *group = &s->cache->groups[g];
    const kvt_holding *h = &s->r->groups[g];
    kvt_saved_group *to = &s->saved.groups[g];
    const size_t begin = s->saved.first / KVT_PAGE_TOKENS, end = kvt_pages_held(group, s->saved.end);
    *to = (kvt_saved_group){ .layout = group->layout, .layers = group->view.v.layers, .open_dtype = group->view.v.open_dtype };
    if (group->view.v.first_layout)
        to->first_layout = group->first_layout;
    to->pages = end - begin;
    to->table = h->table + begin; /* its numbers are not the saved ones, but the same are there */
    for (size_t p = begin; p < end; p++)
        if (h->table[p] != KVT_NO_BLOCK)
            ++*(p == 0 && to->first_layout.size ? &to->n_first : &to->n_pages);
    to->kept = kvt_pages_of(s->saved.end);
    if (to->open_dtype && s->saved.end == stored) {
        to->kept = kvt_smaller(kvt_larger(h->kept, begin), to->kept);
        to->n_open = (uint32_t)(kvt_pages_of(s->saved.end) - to->kept);
    }
}

static kvt_status plan_save(const kvt_cache *cache, uint32_t id, const kvt_save *given, saving *s)
{
    kvt_save save;
    kvt_status status;
    const kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r || !given)
        return r ? KVT_ERR_NULL : status;
    if (KVT_TAKE_STRUCT(kvt_save, prefix, &save, given))
        return KVT_ERR_STRUCT_SIZE;
    const size_t end = save.end ? save.end : r->stored;
    if (end > r->stored || save.first > end || save.first % KVT_PAGE_TOKENS || (end % KVT_PAGE_TOKENS && end != r->stored))
        return KVT_ERR_RANGE;
    memset(s, 0, sizeof *s);
    s->cache = cache;
    s->r = r;
    s->saved.model = save.model;
    s->saved.prefix = save.prefix;
    s->saved.first = save.first;
    s->saved.end = end;
    s->saved.token_ids = save.token_ids;
    s->saved.n_groups = cache->n_groups;
    s->saved.state_bytes = cache->state_bytes;
    s->state = r->state;
    if (cache->state_bytes && end < r->stored) {
        uint32_t i = 0;
        while (i < r->n_marks && r->marked[i] != end)
            i++;
        if (i == r->n_marks)
            return KVT_ERR_RANGE;
        s->state = r->marks[i];
    }
    for (uint32_t g = 0; g < cache->n_groups; g++)
        plan_blocks(s, g, r->stored);
    return place_groups(&s->saved) ? KVT_OK : KVT_ERR_OVERFLOW;
}

kvt_status kvt_cache_save_bytes(const kvt_cache *cache, uint32_t id, const kvt_save *save, size_t *bytes)
{
    if (!bytes)
        return KVT_ERR_NULL;
    saving s;
    const kvt_status status = plan_save(cache, id, save, &s);
    if (!status)
        *bytes = s.saved.bytes;
    return status;
}

kvt_status kvt_cache_save(const kvt_cache *cache, uint32_t id, const kvt_save *save, kvt_write_fn *write, void *context, void *workspace,
                          size_t workspace_bytes)
{
    if (!write || !workspace)
        return KVT_ERR_NULL;
    saving s;
    const kvt_status status = plan_save(cache, id, save, &s);
    if (status)
        return status;
    if (workspace_bytes < cache->scratch_bytes || (uintptr_t)workspace % LINE)
        return KVT_ERR_RANGE;
    s.page = workspace;
    (void)XXH64_reset(&s.to.hash, 0);
    add_head(&s);
    uint8_t checksum[8], groups[KVT_CACHE_MAX_GROUPS * GROUP + KVT_SAVED_HEADER];
    put64(checksum, hash_end(&s.to.hash));
    s.to.write = write;
    s.to.context = context;
    add_head(&s);
    sink_add(&s.to, checksum, sizeof checksum);
    for (uint32_t g = 0; g < s.saved.n_groups; g++)
        put_group(&s, g, groups + KVT_SAVED_HEADER + (size_t)g * GROUP);
    s.saved.head = groups; /* of which records have fingerprints */
    return s.to.has_failed ? KVT_ERR_IO : each_record(&s.saved, save_record, &s);
}

/* ---- reading ---- */

/* Whether the bytes of a record are those of `r`, but for its checksum. */
static bool is_record(const uint8_t bytes[RECORD], const record *r)
{
    uint8_t expected[RECORD];
    put_record(expected, r);
    return memcmp(bytes, expected, 8) == 0 && memcmp(bytes + 16, expected + 16, RECORD - 16) == 0;
}

static uint64_t checksum_of(const uint8_t bytes[RECORD], const void *payload, size_t n)
{
    XXH64_state_t hash;
    (void)XXH64_reset(&hash, 0);
    hash_add(&hash, bytes + 16, RECORD - 16);
    hash_add(&hash, payload, n);
    return hash_end(&hash);
}

static kvt_status damaged(const kvt_problem *why, const record *r)
{
    static const char *const names[] = { "page", "first page", "rows of page", "state, page" };
    return kvt_fail(why, KVT_ERR_DATA, "group %u: the record of %s %u is damaged, or another's", r->group, names[r->kind], r->page);
}

typedef struct verifying {
    const kvt_saved *saved;
    kvt_problem why;
} verifying;

static kvt_status verify_record(void *context, const record *r, size_t offset)
{
    const verifying *v = context;
    const uint8_t *at = (const uint8_t *)v->saved->head + offset;
    return is_record(at, r) && get64(at + 8) == checksum_of(at, at + RECORD, (size_t)r->payload) ? KVT_OK : damaged(&v->why, r);
}

kvt_status kvt_saved_verify(const kvt_saved *saved, size_t bytes, char *text, size_t room)
{
    if (text && room)
        *text = '\0';
    if (!saved)
        return KVT_ERR_NULL;
    verifying v = { saved, { text, room } };
    if (bytes < saved->bytes)
        return kvt_fail(&v.why, KVT_ERR_RANGE, "%zu bytes: there should be %zu", bytes, saved->bytes);
    return each_record(saved, verify_record, &v);
}

static kvt_pool saved_pool(const kvt_saved *s, const kvt_saved_group *group, size_t offset, size_t stride, uint32_t n)
{
    const size_t layer = (stride - RECORD) / group->layers;
    const uintptr_t base = (uintptr_t)s->head + offset + RECORD; /* nobody writes to it */
    return (kvt_pool){
        .base = (void *)base, .blocks = n, .layer_stride = layer, .block_stride = stride, .head_stride = layer / group->layout.spec.kv_heads
    };
}

kvt_status kvt_saved_view(const kvt_saved *saved, size_t bytes, uint32_t g, kvt_view *view, kvt_sequence *entry)
{
    if (!saved || !view || !entry)
        return KVT_ERR_NULL;
    if (g >= saved->n_groups || bytes < saved->bytes || saved->first)
        return KVT_ERR_RANGE;
    const kvt_saved_group *group = &saved->groups[g];
    if (!kvt_is_sealed(&group->layout) || (group->first_layout.size && !kvt_is_sealed(&group->first_layout)))
        return KVT_ERR_LAYOUT;
    *view = (kvt_view){ .size = sizeof *view,
                        .layout = &group->layout,
                        .first_layout = group->first_layout.size ? &group->first_layout : NULL,
                        .pages = saved_pool(saved, group, group->page_records, group->page_stride, group->n_pages),
                        .first_pages = saved_pool(saved, group, group->first_records, group->first_stride, group->n_first),
                        .open_pages = saved_pool(saved, group, group->open_records, group->open_stride, group->n_open),
                        .open_dtype = group->open_dtype,
                        .layers = group->layers };
    *entry = (kvt_sequence){ .blocks = group->table, .n_blocks = group->pages, .stored = saved->end };
    for (uint32_t i = 0; i < group->n_open; i++)
        entry->open[(group->kept + i) % 2] = i;
    return KVT_OK;
}

/* ---- loading ---- */

typedef struct loading {
    kvt_cache *cache;
    kvt_record *r;
    const kvt_saved *saved;
    kvt_read_fn *read;
    void *context;
    kvt_problem why;
} loading;

static uint8_t *target_of(const loading *l, const record *r)
{
    if (r->kind == KIND_STATE)
        return kvt_block_at(&l->cache->states, l->r->new_state);
    kvt_group *group = &l->cache->groups[r->group];
    const kvt_holding *h = &l->r->groups[r->group];
    if (r->kind == KIND_OPEN)
        return kvt_block_at(&group->open_pages, h->new_open[r->page % 2]);
    return kvt_block_at(kvt_kind_of(group, r->page), h->table[r->page]);
}

static kvt_status load_record(void *context, const record *r, size_t offset)
{
    (void)offset;
    loading *l = context;
    uint8_t bytes[RECORD];
    uint8_t *to = target_of(l, r);
    if (l->read(l->context, bytes, RECORD) != 0 || l->read(l->context, to, (size_t)r->payload) != 0)
        return kvt_fail(&l->why, KVT_ERR_IO, "group %u, page %u: its record could not be read", r->group, r->page);
    return is_record(bytes, r) && get64(bytes + 8) == checksum_of(bytes, to, (size_t)r->payload) ? KVT_OK : damaged(&l->why, r);
}

static kvt_status check_groups(const kvt_problem *why, const kvt_cache *cache, const kvt_saved *saved)
{
    if (saved->n_groups != cache->n_groups)
        return kvt_fail(why, KVT_ERR_DATA, "%u groups are saved, and the cache has %u", saved->n_groups, cache->n_groups);
    if (saved->state_bytes != cache->state_bytes)
        return kvt_fail(why, KVT_ERR_DATA, "a state of %zu bytes is saved, and the cache's has %zu", saved->state_bytes, cache->state_bytes);
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        uint8_t ours[ALIKE];
        put_alike(&cache->groups[g], ours);
        if (memcmp(ours, group_bytes(saved, g), ALIKE) != 0)
            return kvt_fail(why, KVT_ERR_DATA,
                            "group %u was saved with other schemes, options, widths, heads, layers or open rows than the cache has", g);
    }
    return KVT_OK;
}

/* Blocks for what is to come. Errors: FULL, DATA. */
static kvt_status load_saved_group(const kvt_problem *why, loading *l, uint32_t g)
{
    kvt_group *group = &l->cache->groups[g];
    kvt_holding *h = &l->r->groups[g];
    const kvt_saved_group *saved = &l->saved->groups[g];
    h->new_given = h->given;
    for (size_t i = 0; i < saved->pages; i++, h->new_n++) {
        h->table[h->new_n] = KVT_NO_BLOCK;
        if (saved->table[i] == KVT_NO_BLOCK)
            h->new_given = h->new_n + 1;
        else if ((h->table[h->new_n] = kvt_block_take(kvt_kind_of(group, h->new_n))) == KVT_NO_BLOCK)
            return kvt_fail(why, KVT_ERR_FULL, "group %u has no free block: %zu pages are saved", g, saved->pages);
    }
    if (kvt_first_missing(group, l->saved->end, h->new_given) < h->new_given)
        return kvt_fail(why, KVT_ERR_DATA, "group %u: a window had given back pages that the cache's window sees", g);
    for (uint32_t i = 0; i < saved->n_open; i++)
        if ((h->new_open[(saved->kept + i) % 2] = kvt_block_take(&group->open_pages)) == KVT_NO_BLOCK)
            return kvt_fail(why, KVT_ERR_FULL, "group %u has no free block for rows of an open page", g);
    return KVT_OK;
}

static void unload_group(kvt_group *group, kvt_holding *h)
{
    kvt_give_pages(group, h->table, h->n, h->new_n);
    kvt_give_new_open(group, h);
}

static void count_loaded(kvt_group *group, kvt_holding *h, const kvt_saved_group *saved, size_t end)
{
    h->n = h->new_n;
    h->given = h->new_given;
    h->kept = saved->n_open ? saved->kept : end / KVT_PAGE_TOKENS;
    for (uint32_t i = 0; i < 2; i++)
        kvt_keep_new_open(group, h, i);
}

static kvt_status load_all(loading *l)
{
    kvt_cache *cache = l->cache;
    kvt_record *r = l->r;
    kvt_status status = KVT_OK;
    r->new_state = KVT_NO_BLOCK;
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        kvt_holding *h = &r->groups[g];
        h->new_n = h->n;
        h->new_open[0] = h->new_open[1] = KVT_NO_BLOCK;
    }
    for (uint32_t g = 0; g < cache->n_groups && !status; g++)
        status = load_saved_group(&l->why, l, g);
    if (!status && cache->state_bytes && (r->new_state = kvt_block_take(&cache->states)) == KVT_NO_BLOCK)
        status = kvt_fail(&l->why, KVT_ERR_FULL, "there is no free state, of %u", cache->states.all);
    if (!status)
        status = each_record(l->saved, load_record, l);
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        if (status)
            unload_group(&cache->groups[g], &r->groups[g]);
        else
            count_loaded(&cache->groups[g], &r->groups[g], &l->saved->groups[g], l->saved->end);
    }
    if (r->new_state != KVT_NO_BLOCK)
        kvt_block_release(&cache->states, status ? r->new_state : r->state);
    if (status)
        return status;
    if (r->new_state != KVT_NO_BLOCK)
        r->state = r->new_state;
    r->stored = l->saved->end;
    return KVT_OK;
}

kvt_status kvt_cache_load(kvt_cache *cache, uint32_t id, const kvt_saved *saved, uint64_t model, kvt_read_fn *read, void *context)
{
    kvt_status status;
    kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r || !saved || !read)
        return r ? KVT_ERR_NULL : status;
    loading l = { cache, r, saved, read, context, kvt_why(r) };
    if (r->fresh || r->stored != saved->first || saved->end > cache->tokens)
        return kvt_fail(&l.why, KVT_ERR_RANGE, "tokens %zu to %zu are saved: the sequence has %zu and %u new, and may have %zu", saved->first,
                        saved->end, r->stored, r->fresh, cache->tokens);
    if (model != saved->model)
        return kvt_fail(&l.why, KVT_ERR_DATA, "model is %016llx, but %016llx was saved", (unsigned long long)model, (unsigned long long)saved->model);
    status = check_groups(&l.why, cache, saved);
    /* What was appended and taken back may have left blocks. */
    if (!status)
        status = kvt_cache_truncate(cache, id, r->stored);
    return status ? status : load_all(&l);
}
