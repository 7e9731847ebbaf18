/* SPDX-License-Identifier: MIT */
/* Cutting and shifting: which tokens of a sequence stay, which blocks their rows will be in, and the workers who move and turn the rows.
 *
 * Tokens keep their order, so the page that is to be made comes from tokens at its own place or behind it. Pages are made in order, and each may lie
 * in a block whose tokens no later page needs. */
#include "kernels/api/cache.h"

/* ---- tokens that stay ---- */

static bool stays(const kvt_record *r, size_t token)
{
    return r->map[token / KVT_PAGE_TOKENS] >> token % KVT_PAGE_TOKENS & 1;
}

/* Counts them; the tail of the last page is no token. */
static void finish_map(kvt_record *r)
{
    const size_t pages = kvt_pages_of(r->stored), rest = r->stored % KVT_PAGE_TOKENS;
    if (rest)
        r->map[pages - 1] &= (UINT64_C(1) << rest) - 1;
    uint32_t n = 0;
    for (size_t p = 0; p < pages; p++) {
        r->before[p] = n;
        n += (uint32_t)__builtin_popcountll(r->map[p]);
    }
    r->before[pages] = n;
    r->new_stored = n;
}

/* Where the token that will be token `token` is now. */
static size_t source_of(const kvt_record *r, size_t token)
{
    size_t low = 0, high = kvt_pages_of(r->stored); /* the last page that begins at `token` or before */
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        if (r->before[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    uint64_t bits = r->map[low];
    for (size_t n = token - r->before[low]; n; n--)
        bits &= bits - 1;
    return low * KVT_PAGE_TOKENS + (size_t)__builtin_ctzll(bits);
}

/* Tokens that stay, from `token` on without a gap, at most n and within its page. */
static size_t run_from(const kvt_record *r, size_t token, size_t n)
{
    const uint64_t gaps = ~(r->map[token / KVT_PAGE_TOKENS] >> token % KVT_PAGE_TOKENS);
    const size_t room = KVT_PAGE_TOKENS - token % KVT_PAGE_TOKENS, run = gaps ? (size_t)__builtin_ctzll(gaps) : KVT_PAGE_TOKENS;
    return kvt_smaller(kvt_smaller(run, room), n);
}

/* By how many positions the key of token `from`, which will be `to`, is turned. */
static int64_t turn_of(const kvt_record *r, size_t from, size_t to)
{
    const int64_t closed = r->positions == KVT_POSITIONS_CLOSE ? (int64_t)to - (int64_t)from : 0;
    return closed + (from >= r->shift_first && from < r->shift_end ? r->shift : 0);
}

/* ---- pages ---- */

typedef struct page_plan {
    size_t first, n; /* tokens that it will have */
    size_t source;   /* its first token's now */
    bool is_whole;   /* all of one page, which may stay as it is */
    bool is_turned;  /* some keys are */
} page_plan;

static page_plan page_at(const kvt_group *group, const kvt_record *r, size_t p)
{
    page_plan page = { .first = p * KVT_PAGE_TOKENS, .n = kvt_smaller(KVT_PAGE_TOKENS, r->new_stored - p * KVT_PAGE_TOKENS) };
    page.source = source_of(r, page.first);
    const size_t from = page.source / KVT_PAGE_TOKENS, there = kvt_smaller(KVT_PAGE_TOKENS, r->stored - from * KVT_PAGE_TOKENS);
    const bool is_same_kind = !group->view.v.first_layout || (from == 0) == (p == 0);
    page.is_whole = is_same_kind && page.source % KVT_PAGE_TOKENS == 0 && page.n == there && run_from(r, page.source, there) == there;
    size_t source = page.source;
    for (size_t done = 0, n; group->has_rope && !page.is_turned && done < page.n; done += n) {
        if (done)
            source = source_of(r, page.first + done);
        n = run_from(r, source, page.n - done);
        const size_t first = kvt_larger(source, r->shift_first), end = kvt_smaller(source + n, r->shift_end);
        page.is_turned = turn_of(r, source, page.first + done) || (r->shift && first < end);
    }
    return page;
}

/* The page of the new sequence that old page q becomes as a whole, or SIZE_MAX. */
static size_t whole_target(const kvt_group *group, const kvt_record *r, size_t q)
{
    const size_t to = r->before[q];
    if (to % KVT_PAGE_TOKENS || !stays(r, q * KVT_PAGE_TOKENS))
        return SIZE_MAX;
    return page_at(group, r, to / KVT_PAGE_TOKENS).is_whole ? to / KVT_PAGE_TOKENS : SIZE_MAX;
}

/* Whether all rows of a page to be are there. Those that are kept in open blocks are. */
static bool has_rows(const kvt_group *group, const kvt_record *r, const kvt_holding *h, const page_plan *page)
{
    size_t source = page->source;
    for (size_t done = 0, n; done < page->n; done += n) {
        if (done)
            source = source_of(r, page->first + done);
        n = run_from(r, source, page->n - done);
        const size_t from = source / KVT_PAGE_TOKENS;
        const bool is_open = group->view.v.open_dtype && from >= h->kept;
        if (!is_open && h->table[from] == KVT_NO_BLOCK)
            return false;
    }
    return true;
}

/* A block for page p: one whose rows no later page needs, or a free one. *used: pages before it were considered. */
static uint32_t take_block(kvt_group *group, const kvt_record *r, kvt_holding *h, size_t p, size_t *used)
{
    kvt_blocks *kind = kvt_kind_of(group, p);
    const size_t next = (p + 1) * KVT_PAGE_TOKENS;
    const size_t needed = next < r->new_stored ? source_of(r, next) : r->stored;
    for (; *used < h->n && ((*used + 1) * KVT_PAGE_TOKENS <= needed || needed == r->stored); ++*used) {
        const uint32_t id = h->table[*used];
        if (id == KVT_NO_BLOCK || kvt_kind_of(group, *used) != kind || kvt_block_is_shared(kind, id) || whole_target(group, r, *used) != SIZE_MAX)
            continue;
        kvt_block_hold(kind, id);
        ++*used;
        return id;
    }
    return kvt_block_take(kind);
}

/* Errors: FULL, RANGE. What was taken is returned by the caller. */
static kvt_status plan_moves(const kvt_problem *why, kvt_group *group, const kvt_record *r, kvt_holding *h, uint32_t g)
{
    const size_t pages = kvt_pages_held(group, r->new_stored);
    size_t used = 0;
    h->new_n = h->new_given = 0;
    h->new_open[0] = h->new_open[1] = KVT_NO_BLOCK;
    for (size_t p = 0; p < pages; p++) {
        const page_plan page = page_at(group, r, p);
        kvt_blocks *kind = kvt_kind_of(group, p);
        uint32_t id = KVT_NO_BLOCK;
        if (!has_rows(group, r, h, &page)) {
            if (p < kvt_pages_of(group->first_kept))
                return kvt_fail(why, KVT_ERR_RANGE, "a window of group %u has given back tokens that would be among the first %zu", g,
                                group->first_kept);
            h->new_given = p + 1;
        } else if (page.is_whole && !(page.is_turned && kvt_block_is_shared(kind, h->table[page.source / KVT_PAGE_TOKENS]))) {
            id = h->table[page.source / KVT_PAGE_TOKENS];
            kvt_block_hold(kind, id);
        } else if ((id = take_block(group, r, h, p, &used)) == KVT_NO_BLOCK) {
            return kvt_fail(why, KVT_ERR_FULL, "group %u has no free block for a page that is shared, and would change", g);
        }
        h->other[p] = id;
        h->new_n = p + 1;
    }
    const size_t missing = kvt_first_missing(group, r->new_stored, h->new_given);
    if (missing < h->new_given)
        return kvt_fail(why, KVT_ERR_RANGE, "a window of group %u has given back tokens that the %zu that stay would see", g, r->new_stored);
    h->new_kept = h->kept;
    const size_t own = r->new_stored / KVT_PAGE_TOKENS;
    if (!group->view.v.open_dtype)
        return KVT_OK;
    /* Rows of the newest page, and of the one before where they are kept, may be what they were. */
    bool is_same = r->new_stored == r->stored;
    for (size_t p = h->kept; is_same && p < kvt_pages_of(r->new_stored); p++) {
        const page_plan page = page_at(group, r, p);
        is_same = page.is_whole && !page.is_turned;
    }
    if (is_same)
        return KVT_OK;
    h->new_kept = own;
    if (r->new_stored % KVT_PAGE_TOKENS == 0)
        return KVT_OK;
    const page_plan page = page_at(group, r, own);
    if (!has_rows(group, r, h, &page))
        return kvt_fail(why, KVT_ERR_RANGE, "a window of group %u has given back rows of the last page of the %zu tokens that stay", g,
                        r->new_stored);
    const uint32_t open = h->open[own % 2];
    if ((open == KVT_NO_BLOCK || kvt_block_is_shared(&group->open_pages, open)) &&
        (h->new_open[own % 2] = kvt_block_take(&group->open_pages)) == KVT_NO_BLOCK)
        return kvt_fail(why, KVT_ERR_FULL, "group %u has no free block for rows of an open page", g);
    return KVT_OK;
}

static kvt_status plan_record(kvt_cache *cache, kvt_record *r)
{
    const kvt_problem why = kvt_why(r);
    finish_map(r);
    kvt_status status = KVT_OK;
    uint32_t planned = 0;
    for (; planned < cache->n_groups && !status; planned++)
        status = plan_moves(&why, &cache->groups[planned], r, &r->groups[planned], planned);
    for (uint32_t g = 0; status && g < planned; g++) {
        kvt_holding *h = &r->groups[g];
        kvt_give_pages(&cache->groups[g], h->other, 0, h->new_n);
        kvt_give_new_open(&cache->groups[g], h);
    }
    if (status)
        return status;
    atomic_store_explicit(&r->ready, 0, memory_order_relaxed);
    r->is_pending = true;
    return KVT_OK;
}

/* The sequence, with a map of all its tokens and nothing to turn; or NULL with the status. */
static kvt_record *begin_change(kvt_cache *cache, uint32_t id, kvt_positions positions, kvt_status *status)
{
    kvt_record *r = kvt_record_of(cache, id, status);
    if (!r)
        return NULL;
    const kvt_problem why = kvt_why(r);
    if (r->fresh)
        *status = kvt_fail(&why, KVT_ERR_RANGE, "%u new tokens are not committed", r->fresh);
    else if ((unsigned)positions > KVT_POSITIONS_CLOSE)
        *status = kvt_fail(&why, KVT_ERR_OPTIONS, "positions is %d: KVT_POSITIONS_KEEP and KVT_POSITIONS_CLOSE are known", (int)positions);
    if (*status)
        return NULL;
    r->positions = positions;
    r->shift_first = r->shift_end = 0;
    r->shift = 0;
    memset(r->map, 0xff, kvt_pages_of(r->stored) * sizeof *r->map);
    return r;
}

static kvt_status check_range(kvt_record *r, size_t first, size_t end)
{
    const kvt_problem why = kvt_why(r);
    return first > end || end > r->stored
               ? kvt_fail(&why, KVT_ERR_RANGE, "tokens %zu to %zu, this one not, of a sequence of %zu", first, end, r->stored)
               : KVT_OK;
}

kvt_status kvt_cache_remove(kvt_cache *cache, uint32_t id, size_t first, size_t end, kvt_positions positions)
{
    kvt_status status;
    kvt_record *r = begin_change(cache, id, positions, &status);
    if (!r || (status = check_range(r, first, end)))
        return status;
    for (size_t t = first; t < end; t++)
        r->map[t / KVT_PAGE_TOKENS] &= ~(UINT64_C(1) << t % KVT_PAGE_TOKENS);
    return plan_record(cache, r);
}

kvt_status kvt_cache_shift(kvt_cache *cache, uint32_t id, size_t first, size_t end, int64_t positions)
{
    kvt_status status;
    kvt_record *r = begin_change(cache, id, KVT_POSITIONS_KEEP, &status);
    if (!r || (status = check_range(r, first, end)))
        return status;
    const kvt_problem why = kvt_why(r);
    if (positions > INT64_C(1) << 31 || positions < -(INT64_C(1) << 31))
        return kvt_fail(&why, KVT_ERR_RANGE, "positions is %lld: at most 2^31 either way are possible", (long long)positions);
    r->shift_first = first;
    r->shift_end = end;
    r->shift = positions;
    return plan_record(cache, r);
}

/* Integers in the order of the scores; a NaN is below all. */
static uint32_t rank_of(const float *scores, size_t t)
{
    uint32_t bits;
    memcpy(&bits, &scores[t], 4);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return 0;
    return bits >> 31 ? ~bits : bits | 0x80000000;
}

kvt_status kvt_cache_evict(kvt_cache *cache, uint32_t id, const float *scores, size_t kept, kvt_positions positions)
{
    kvt_status status;
    kvt_record *r = begin_change(cache, id, positions, &status);
    if (!r)
        return status;
    const kvt_problem why = kvt_why(r);
    if (!scores)
        return kvt_fail(&why, KVT_ERR_NULL, "scores is NULL");
    if (kept > r->stored)
        return kvt_fail(&why, KVT_ERR_RANGE, "kept is %zu: the sequence has %zu tokens", kept, r->stored);
    /* The lowest rank that stays, byte by byte: how many there are of each byte behind those that were found. */
    uint32_t lowest = 0;
    size_t left = kept; /* of those whose upper bytes are `lowest`'s */
    for (int shift = 24; shift >= 0; shift -= 8) {
        size_t counts[256] = { 0 };
        for (size_t t = 0; t < r->stored; t++) {
            const uint32_t rank = rank_of(scores, t);
            if (shift == 24 || rank >> (shift + 8) == lowest >> (shift + 8))
                counts[rank >> shift & 255]++;
        }
        uint32_t byte = 255;
        while (byte && left > counts[byte])
            left -= counts[byte--];
        lowest |= byte << shift;
    }
    for (size_t t = r->stored; t-- > 0;) {
        const uint32_t rank = rank_of(scores, t);
        const bool is_equal = rank == lowest && left > 0;
        left -= is_equal;
        if (rank < lowest || (rank == lowest && !is_equal))
            r->map[t / KVT_PAGE_TOKENS] &= ~(UINT64_C(1) << t % KVT_PAGE_TOKENS);
    }
    return plan_record(cache, r);
}

/* ---- rows ---- */

/* A worker at one head of a layer. */
typedef struct mover {
    const kvt_group *group;
    const kvt_record *r;
    const kvt_holding *h;
    kvt_sequence before, after; /* by the old table, and by the new */
    uint32_t layer, head;
    float *rows, *cosines, *sines;
    int64_t turned; /* by which cosines and sines do; 0: they are not there */
} mover;

/* n rows of side i from token `from` on, all in one page, as floats. */
static kvt_status read_rows(const mover *m, uint32_t i, size_t from, size_t n, float *rows)
{
    const kvt_checked_view *v = &m->group->view;
    const size_t page = from / KVT_PAGE_TOKENS, skipped = from % KVT_PAGE_TOKENS;
    const ptrdiff_t stride = (ptrdiff_t)(kvt_layout_side(v->v.layout, v->sides[i])->dim * sizeof *rows);
    if (v->v.open_dtype && page >= m->h->kept) {
        const uint8_t *open = kvt_view_open(v, &m->before, m->layer, page, m->head, i) + skipped * v->row_bytes[i];
        kvt_convert_rows(v, i, (uint32_t)n, open, (ptrdiff_t)v->row_bytes[i], v->v.open_dtype, (uint8_t *)rows, stride, KVT_F32);
        return KVT_OK;
    }
    void *at = kvt_view_page(v, &m->before, m->layer, page, m->head, v->sides[i]);
    return kvt_read(kvt_layout_at(v, page), v->sides[i], &(kvt_pages){ .table = &at, .count = 1 }, skipped, n, rows, KVT_F32, stride);
}

/* Rows of side i that a page will have, as floats, keys turned. */
static kvt_status gather(mover *m, const page_plan *page, uint32_t i)
{
    const kvt_checked_view *v = &m->group->view;
    const uint32_t dim = kvt_layout_side(v->v.layout, v->sides[i])->dim;
    const bool has_positions = m->group->has_rope && v->sides[i] == (v->v.layout->rope.dim ? KVT_ROPE : KVT_K);
    size_t source = page->source;
    kvt_status status = KVT_OK;
    for (size_t done = 0, n; done < page->n && !status; done += n) {
        if (done)
            source = source_of(m->r, page->first + done);
        n = run_from(m->r, source, page->n - done);
        /* A shift may begin or end within the run. */
        if (source < m->r->shift_first)
            n = kvt_smaller(n, m->r->shift_first - source);
        else if (source < m->r->shift_end)
            n = kvt_smaller(n, m->r->shift_end - source);
        float *rows = m->rows + done * dim;
        status = read_rows(m, i, source, n, rows);
        const int64_t positions = has_positions ? turn_of(m->r, source, page->first + done) : 0;
        if (!positions || status)
            continue;
        if (positions != m->turned)
            kvt_rope_angles(&m->group->rope, positions, m->cosines, m->sines);
        m->turned = positions;
        kvt_rope_apply(&m->group->rope, m->cosines, m->sines, rows, n, (ptrdiff_t)(dim * sizeof *rows));
    }
    return status;
}

static kvt_status move_page(mover *m, size_t p)
{
    const kvt_checked_view *v = &m->group->view;
    const page_plan page = page_at(m->group, m->r, p);
    if (m->h->other[p] == KVT_NO_BLOCK || (page.is_whole && !page.is_turned))
        return KVT_OK;
    const uint32_t from = m->h->table[page.source / KVT_PAGE_TOKENS];
    if (page.is_whole && from != m->h->other[p])
        memcpy(kvt_view_page(v, &m->after, m->layer, p, m->head, KVT_K),
               kvt_view_page(v, &m->before, m->layer, page.source / KVT_PAGE_TOKENS, m->head, KVT_K), kvt_layout_at(v, p)->page_bytes);
    kvt_status status = KVT_OK;
    for (uint32_t i = 0; i < v->n_sides && !status; i++) {
        const kvt_side turned = v->v.layout->rope.dim ? KVT_ROPE : KVT_K;
        if (page.is_whole && v->sides[i] != turned)
            continue;
        status = gather(m, &page, i);
        const ptrdiff_t stride = (ptrdiff_t)(kvt_layout_side(v->v.layout, v->sides[i])->dim * sizeof *m->rows);
        if (!status)
            status = kvt_write_page(v, &m->after, m->layer, p, m->head, i, 0, page.n, (const uint8_t *)m->rows, KVT_F32, stride);
    }
    return status;
}

/* The rows of the newest page. */
static kvt_status move_open(mover *m)
{
    const kvt_checked_view *v = &m->group->view;
    const size_t own = m->r->new_stored / KVT_PAGE_TOKENS;
    if (!v->v.open_dtype || m->h->new_kept != own || m->r->new_stored % KVT_PAGE_TOKENS == 0)
        return KVT_OK;
    const page_plan page = page_at(m->group, m->r, own);
    if (own == m->h->kept && m->r->new_stored == m->r->stored && page.is_whole && !page.is_turned)
        return KVT_OK;
    kvt_status status = KVT_OK;
    for (uint32_t i = 0; i < v->n_sides && !status; i++) {
        status = gather(m, &page, i);
        const ptrdiff_t stride = (ptrdiff_t)(kvt_layout_side(v->v.layout, v->sides[i])->dim * sizeof *m->rows);
        if (!status)
            kvt_convert_rows(v, i, (uint32_t)page.n, (const uint8_t *)m->rows, stride, KVT_F32,
                             kvt_view_open(v, &m->after, m->layer, own, m->head, i), (ptrdiff_t)v->row_bytes[i], v->v.open_dtype);
    }
    return status;
}

static kvt_status move_head(const kvt_group *group, const kvt_record *r, const kvt_holding *h, uint32_t unit, void *scratch)
{
    const size_t widest = kvt_larger(group->layout.k.dim, kvt_larger(group->layout.v.dim, group->layout.rope.dim));
    mover m = { .group = group, .r = r, .h = h, .layer = unit / group->view.kv_heads, .head = unit % group->view.kv_heads, .rows = scratch };
    m.cosines = m.rows + KVT_PAGE_TOKENS * widest;
    m.sines = m.cosines + group->rope.pairs;
    m.before = kvt_entry_of(h, h->table, h->n, 0, 0);
    m.after = kvt_entry_of(h, h->other, h->new_n, 0, 0);
    for (int i = 0; i < 2; i++)
        if (h->new_open[i] != KVT_NO_BLOCK)
            m.after.open[i] = h->new_open[i];
    kvt_status status = KVT_OK;
    for (size_t p = 0; p < h->new_n && !status; p++)
        status = move_page(&m, p);
    return status ? status : move_open(&m);
}

static void finish_record(kvt_cache *cache, kvt_record *r)
{
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        kvt_group *group = &cache->groups[g];
        kvt_holding *h = &r->groups[g];
        kvt_give_pages(group, h->table, 0, h->n);
        uint32_t *table = h->table;
        h->table = h->other;
        h->other = table;
        h->n = h->new_n;
        h->given = h->new_given;
        h->kept = h->new_kept;
        for (uint32_t i = 0; i < 2; i++)
            kvt_keep_new_open(group, h, i);
    }
    while (r->n_marks)
        kvt_block_release(&cache->states, r->marks[--r->n_marks]);
    r->stored = r->new_stored;
    r->is_pending = false;
}

size_t kvt_cache_work_bytes(const kvt_cache *cache)
{
    return cache ? cache->scratch_bytes : 0;
}

kvt_status kvt_cache_work(kvt_cache *cache, uint32_t id, uint32_t worker, uint32_t workers, void *workspace, size_t bytes)
{
    if (!cache || !workspace)
        return KVT_ERR_NULL;
    if (id >= cache->n_sequences || !atomic_load_explicit(&cache->records[id].is_used, memory_order_acquire))
        return KVT_ERR_SEQUENCE;
    if (worker >= workers || bytes < cache->scratch_bytes || (uintptr_t)workspace % 64)
        return KVT_ERR_RANGE;
    kvt_record *r = &cache->records[id];
    if (!r->is_pending)
        return KVT_OK;
    size_t all = 0, first = 0;
    for (uint32_t g = 0; g < cache->n_groups; g++)
        all += (size_t)cache->groups[g].view.v.layers * cache->groups[g].view.kv_heads;
    kvt_status status = KVT_OK;
    for (uint32_t g = 0; g < cache->n_groups && !status; g++) {
        const kvt_group *group = &cache->groups[g];
        const uint32_t units = group->view.v.layers * group->view.kv_heads;
        for (uint32_t unit = 0; unit < units && !status; unit++)
            if ((first + unit) * workers / all == worker)
                status = move_head(group, r, &r->groups[g], unit, workspace);
        first += units;
    }
    if (!status && atomic_fetch_add_explicit(&r->ready, 1, memory_order_acq_rel) + 1 == workers)
        finish_record(cache, r);
    return status;
}
