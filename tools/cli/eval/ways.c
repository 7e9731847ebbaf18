/* SPDX-License-Identifier: MIT */
/* kvtile eval: which ways of storing are compared. */
#include "tools/cli/eval/eval.h"

#include "tools/cli/presets.h"
#include "tools/files/nearest.h"
#include "tools/program/program.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct word {
    const char *name;
    uint32_t value;
} word;

static const word ROTATIONS[] = { { "none", KVT_ROTATION_NONE }, { "64", KVT_ROTATION_64 }, { "128", KVT_ROTATION_128 } };
static const word CENTRINGS[] = {
    { "none", KVT_CENTRING_NONE }, { "sequence", KVT_CENTRING_SEQUENCE }, { "page", KVT_CENTRING_PAGE }, { "own", KVT_CENTRING_OWN }
};
static const word EFFORTS[] = { { "fast", KVT_EFFORT_FAST }, { "default", KVT_EFFORT_DEFAULT }, { "best", KVT_EFFORT_BEST } };
static const word FP8_BLOCKS[] = { { "row", 0 }, { "32", 32 }, { "64", 64 }, { "128", 128 } };
static const word FP8_SCALES[] = { { "f32", KVT_FP8_SCALE_F32 }, { "e8m0", KVT_FP8_SCALE_E8M0 } };

enum { MOST_WORDS = 64 };

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- lists of words ---- */

/* Words that may be listed, and which of them are. */
typedef struct choice {
    const char *option; /* "--rotation" */
    const char *what;   /* "rotation" */
    const char *where;  /* what would be right, in words */
    const word *words;
    size_t n;
    size_t n_all;     /* of them are "all"; 0: all of them */
    const char *rest; /* the word for the others */
    bool chosen[MOST_WORDS];
} choice;

static int unknown_word(const choice *c, const char *typed, const char *who)
{
    nearest best = { .typed = typed };
    for (size_t i = 0; i < c->n; i++)
        nearest_consider(&best, c->words[i].name);
    nearest_consider(&best, "all");
    if (c->rest != NULL)
        nearest_consider(&best, c->rest);
    if (strcmp(typed, "fp8") == 0 && strcmp(c->what, "scheme") == 0)
        best.name = "e4m3";
    char text[200];
    preset_schemes preset;
    if (strcmp(c->what, "scheme") == 0 && (strchr(typed, '/') != NULL || preset_find(&preset, typed)))
        snprintf(text, sizeof text, "\"%s\" is a pair: one scheme would be right; --attention and --model alone take pairs", typed);
    else
        snprintf(text, sizeof text, "\"%s\" is no %s: %s%s%s%s", typed, c->what, best.name ? "did you mean " : "", best.name ? best.name : "",
                 best.name ? "? " : "", c->where);
    error_print(who, c->option, text);
    return -1;
}

/* `list` NULL: the word `standard`, or all of them when that is NULL too. */
static int choose_listed(choice *c, const char *list, const char *standard, const char *who)
{
    if (list == NULL)
        list = standard != NULL ? standard : "all";
    for (const char *at = list; at != NULL;) {
        const size_t length = strcspn(at, ",");
        char typed[32];
        snprintf(typed, sizeof typed, "%.*s", length < sizeof typed ? (int)length : (int)sizeof typed, at);
        const size_t n_all = c->n_all > 0 ? c->n_all : c->n;
        const bool all = strcmp(typed, "all") == 0, rest = c->rest != NULL && strcmp(typed, c->rest) == 0;
        bool known = all || rest;
        for (size_t i = 0; i < c->n; i++) {
            const bool same = strcmp(typed, c->words[i].name) == 0;
            c->chosen[i] = c->chosen[i] || same || (i < n_all ? all : rest);
            known = known || same;
        }
        if (!known)
            return unknown_word(c, typed, who);
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    return 0;
}

static size_t count_chosen(const choice *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        n += c->chosen[i] ? 1 : 0;
    return n;
}

/* ---- numbers ---- */

int eval_choose_count(size_t *to, const char *text, const char *option, size_t least, const char *who)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end != '\0' || errno != 0 || value > SIZE_MAX || value < least) {
        char what[96];
        snprintf(what, sizeof what, "a whole number%s would be right for %s", least > 0 ? " from 1 on" : ", the first token to measure,", option);
        error_print(who, text, what);
        return -1;
    }
    *to = (size_t)value;
    return 0;
}

/* ---- combinations ---- */

static bool is_fp8(const eval_way *way)
{
    return way->scheme != NULL && way->scheme->is_fp8;
}

/* Whether the encoder searches, so that efforts differ. */
static bool has_effort(const eval_way *way)
{
    return way->scheme != NULL && way->scheme->scale_bytes == 1 &&
           !way->scheme->is_fp8; /* the signed byte of the kv schemes, which is searched for */
}

/* The efforts, or blocks and scales of FP8, of one scheme, rotation and centring. */
static void add_details(eval_ways *ways, const eval_way *way, const choice *effort, const choice *block, const choice *scale)
{
    if (has_effort(way)) {
        for (size_t i = 0; i < effort->n; i++) {
            if (effort->chosen[i]) {
                ways->ways[ways->n] = *way;
                ways->ways[ways->n++].options.effort = (kvt_effort)effort->words[i].value;
            }
        }
    } else if (is_fp8(way)) {
        for (size_t i = 0; i < block->n * scale->n; i++) {
            const size_t b = i / scale->n;
            const size_t s = i % scale->n;
            if (block->chosen[b] && scale->chosen[s]) {
                ways->ways[ways->n] = *way;
                ways->ways[ways->n].options.fp8_block = block->words[b].value;
                ways->ways[ways->n++].options.fp8_scale = (kvt_fp8_scale)scale->words[s].value;
            }
        }
    } else {
        ways->ways[ways->n++] = *way;
    }
}

static size_t list_schemes(word names[MOST_WORDS])
{
    size_t n = 0;
    for (const kvt_scheme_info *info; n < MOST_WORDS && (info = kvt_scheme_at(n)) != NULL; n++)
        names[n] = (word){ info->name, (uint32_t)n };
    return n;
}

/* Schemes, and behind them other engines' formats. */
static size_t list_formats(word names[MOST_WORDS], size_t *n_schemes)
{
    size_t n = *n_schemes = list_schemes(names);
    for (size_t i = 0; n < MOST_WORDS && peer_at(i) != NULL; i++)
        names[n++] = (word){ peer_at(i)->name, (uint32_t)i };
    return n;
}

int eval_choose_schemes(kvt_scheme *schemes, size_t *n, size_t most, const char *list, const char *option, const char *who)
{
    word names[MOST_WORDS];
    choice scheme = { .option = option, .what = "scheme", .where = "kvtile info lists them", .words = names, .n = list_schemes(names) };
    if (choose_listed(&scheme, list, NULL, who) != 0)
        return -1;
    *n = 0;
    for (size_t i = 0; i < scheme.n && *n < most; i++)
        if (scheme.chosen[i])
            schemes[(*n)++] = kvt_scheme_at(i)->scheme;
    return 0;
}

enum { ROTATION_WAYS = COUNT(ROTATIONS) };

/* Others have no centring: once with each rotation, or once if they have one of their own. `both`: plain and with the smaller rotation. */
static void add_peer(eval_ways *ways, const peer_format *peer, const choice *rotation, bool both)
{
    for (size_t i = 0; i < (peer->rotates ? 1 : rotation->n); i++)
        if (peer->rotates || rotation->chosen[i] || (both && rotation->words[i].value == KVT_ROTATION_64))
            ways->ways[ways->n++] =
                (eval_way){ .peer = peer, .options = { .rotation = peer->rotates ? KVT_ROTATION_NONE : (kvt_rotation)rotation->words[i].value } };
}

int eval_choose_ways(eval_ways *ways, const eval_words *words, const char *who)
{
    word names[MOST_WORDS];
    size_t n_schemes;
    const size_t n_formats = list_formats(names, &n_schemes);
    choice scheme = { .option = "--schemes",
                      .what = "scheme",
                      .where = "kvtile info and kvtile eval --help-all list them",
                      .words = names,
                      .n = n_formats,
                      .n_all = n_schemes,
                      .rest = "peers" };
    choice rotation = { "--rotation", "rotation", "none, 64, 128 or all would be right", ROTATIONS, COUNT(ROTATIONS), 0, NULL, { false } };
    choice centring = {
        "--centring", "centring", "none, sequence, page, own or all would be right", CENTRINGS, COUNT(CENTRINGS), 0, NULL, { false }
    };
    choice effort = { "--effort", "effort", "fast, default, best or all would be right", EFFORTS, COUNT(EFFORTS), 0, NULL, { false } };
    choice block = { "--fp8-block", "block", "row, 32, 64, 128 or all would be right", FP8_BLOCKS, COUNT(FP8_BLOCKS), 0, NULL, { false } };
    choice scale = { "--fp8-scale", "number format of scales", "f32, e8m0 or all would be right", FP8_SCALES, COUNT(FP8_SCALES), 0, NULL, { false } };
    if (choose_listed(&scheme, words->schemes, NULL, who) != 0 || choose_listed(&rotation, words->rotation, "none", who) != 0 ||
        choose_listed(&centring, words->centring, "none", who) != 0 || choose_listed(&effort, words->effort, "default", who) != 0 ||
        choose_listed(&block, words->fp8_block, "row", who) != 0 || choose_listed(&scale, words->fp8_scale, "f32", who) != 0)
        return -1;

    /* Neither was asked for: as plain as can be, and with both. */
    const bool both = words->rotation == NULL && words->centring == NULL;
    const size_t pairs = both ? 2 : count_chosen(&rotation) * count_chosen(&centring);
    const size_t most_details =
        count_chosen(&effort) > count_chosen(&block) * count_chosen(&scale) ? count_chosen(&effort) : count_chosen(&block) * count_chosen(&scale);
    *ways = (eval_ways){ .ways = malloc(count_chosen(&scheme) * (pairs * most_details + ROTATION_WAYS) * sizeof *ways->ways) };
    if (ways->ways == NULL) {
        program_lacks_memory();
        error_print(who, "--schemes", "out of memory");
        return -1;
    }
    for (size_t i = 0; i < scheme.n; i++) {
        if (!scheme.chosen[i])
            continue;
        if (i >= n_schemes) {
            add_peer(ways, peer_at(names[i].value), &rotation, both);
            continue;
        }
        for (size_t pair = 0; pair < rotation.n * centring.n; pair++) {
            const word *r = &rotation.words[pair / centring.n];
            const word *c = &centring.words[pair % centring.n];
            const bool chosen = rotation.chosen[pair / centring.n] && centring.chosen[pair % centring.n];
            if (chosen || (both && r->value == KVT_ROTATION_64 && c->value == KVT_CENTRING_PAGE)) {
                const eval_way way = { .scheme = kvt_scheme_at(i),
                                       .options = { .rotation = (kvt_rotation)r->value, .centring = (kvt_centring)c->value } };
                add_details(ways, &way, &effort, &block, &scale);
            }
        }
    }
    return 0;
}

/* ---- schemes alone ---- */

int eval_choose_end(kvt_scheme *scheme, const char *text, kvt_scheme standard, const char *option, const char *who)
{
    size_t n;
    *scheme = standard;
    if (text != NULL && strcmp(text, "none") == 0)
        *scheme = KVT_SCHEME_NONE;
    else if (text != NULL && strchr(text, ',') == NULL && strcmp(text, "all") != 0)
        return eval_choose_schemes(scheme, &n, 1, text, option, who);
    else if (text != NULL) {
        error_print(who, option, "one scheme, or none, would be right");
        return -1;
    }
    return 0;
}

/* ---- pairs ---- */

/* What both have is the same. */
static bool go_together(const eval_way *k, const eval_way *v)
{
    const kvt_side_options *a = &k->options, *b = &v->options;
    const bool searches = has_effort(k) && has_effort(v), fp8 = is_fp8(k) && is_fp8(v), peers = k->peer != NULL || v->peer != NULL;
    const bool rotates = (k->peer != NULL && k->peer->rotates) || (v->peer != NULL && v->peer->rotates);
    return (rotates || a->rotation == b->rotation) && (peers || a->centring == b->centring) && (!searches || a->effort == b->effort) &&
           (!fp8 || (a->fp8_block == b->fp8_block && a->fp8_scale == b->fp8_scale));
}

static int append_pairs(eval_pairs *pairs, const eval_ways *k, const eval_ways *v, bool same, const char *who)
{
    eval_pair *list = realloc(pairs->pairs, (pairs->n + k->n * v->n) * sizeof *list);
    if (list == NULL) {
        program_lacks_memory();
        error_print(who, "--schemes", "out of memory");
        return -1;
    }
    pairs->pairs = list;
    for (size_t i = 0; i < k->n; i++)
        for (size_t j = 0; j < v->n; j++)
            if (same ? i == j : go_together(&k->ways[i], &v->ways[j]))
                list[pairs->n++] = (eval_pair){ k->ways[i], v->ways[j] };
    return 0;
}

/* A word of the list: a preset, "kv5/kv4", or one that eval_choose_ways knows. */
static int add_word(eval_pairs *pairs, const char *typed, size_t length, const eval_words *words, const char *who)
{
    char both[64];
    snprintf(both, sizeof both, "%.*s", length < sizeof both ? (int)length : (int)sizeof both, typed);
    preset_schemes preset;
    if (preset_find(&preset, both)) {
        const bool is_one = strcmp(preset.k, preset.v) == 0;
        snprintf(both, sizeof both, "%s%s%s", preset.k, is_one ? "" : "/", is_one ? "" : preset.v);
    }
    char *slash = strchr(both, '/');
    if (slash != NULL)
        *slash = '\0';
    eval_words of_k = *words, of_v = *words;
    of_k.schemes = both;
    of_v.schemes = slash != NULL ? slash + 1 : both;
    eval_ways k = { 0 }, v = { 0 };
    int status = eval_choose_ways(&k, &of_k, who);
    if (status == 0)
        status = eval_choose_ways(&v, &of_v, who);
    if (status == 0)
        status = append_pairs(pairs, &k, &v, slash == NULL, who);
    free(k.ways);
    free(v.ways);
    return status;
}

int eval_choose_pairs(eval_pairs *pairs, const eval_words *words, const char *who)
{
    *pairs = (eval_pairs){ 0 };
    for (const char *at = words->schemes != NULL ? words->schemes : "all"; at != NULL;) {
        const size_t length = strcspn(at, ",");
        if (add_word(pairs, at, length, words, who) != 0)
            return -1;
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    return 0;
}

bool eval_has_peer(const eval_pair *pair)
{
    return pair->k.peer != NULL || pair->v.peer != NULL;
}

kvt_status eval_pair_layout(kvt_layout *layout, const eval_pair *pair, uint32_t k_dim, uint32_t v_dim, uint32_t kv_heads, uint32_t tiers)
{
    kvt_spec spec = {
        .size = sizeof spec, .k_scheme = KVT_SCHEME_q4_0, .v_scheme = KVT_SCHEME_q4_0, .k_dim = 1, .v_dim = 1, .kv_heads = kv_heads, .tiers = tiers
    };
    if (pair->k.scheme != NULL) {
        spec.k_scheme = pair->k.scheme->scheme;
        spec.k_dim = k_dim;
        spec.k_options = pair->k.options;
    }
    if (pair->v.scheme != NULL) {
        spec.v_scheme = pair->v.scheme->scheme;
        spec.v_dim = v_dim;
        spec.v_options = pair->v.options;
    }
    return kvt_layout_init(layout, &spec);
}

/* Of one side alone. */
static size_t way_page(const eval_way *way, kvt_side side, uint32_t dim)
{
    if (way->peer != NULL)
        return eval_peer_page(way->peer, side, dim);
    const kvt_spec spec = { .size = sizeof spec, .k_scheme = way->scheme->scheme, .k_dim = dim, .kv_heads = 1, .k_options = way->options };
    kvt_layout layout;
    return kvt_layout_init(&layout, &spec) == KVT_OK ? layout.page_bytes : 0;
}

size_t eval_pair_page(const eval_pair *pair, uint32_t k_dim, uint32_t v_dim)
{
    kvt_layout layout;
    if (eval_has_peer(pair))
        return way_page(&pair->k, KVT_K, k_dim) + way_page(&pair->v, KVT_V, v_dim);
    return eval_pair_layout(&layout, pair, k_dim, v_dim, 1, 0) == KVT_OK ? layout.page_bytes : 0;
}

size_t eval_open_tokens(const eval_way *way)
{
    return way->peer != NULL && way->peer->unit > KVT_PAGE_TOKENS ? way->peer->unit : KVT_PAGE_TOKENS;
}

size_t eval_open_from(const eval_way *way, bool keeps_first, size_t newest)
{
    const size_t begin = keeps_first && newest >= KVT_PAGE_TOKENS ? KVT_PAGE_TOKENS : 0;
    return newest - (newest - begin) % eval_open_tokens(way);
}

/* What the open pages of a side take more, but for the last one, than they would if they were stored. */
static size_t more_open(const eval_way *way, kvt_side side, const kvt_side_layout *open, bool keeps_first, size_t newest)
{
    const size_t pages = newest / KVT_PAGE_TOKENS - eval_open_from(way, keeps_first, newest) / KVT_PAGE_TOKENS;
    return pages > 0 ? pages * (KVT_PAGE_TOKENS * open->row_bytes - way_page(way, side, open->dim)) : 0;
}

size_t eval_all_pages(const eval_pair *pair, uint32_t k_dim, uint32_t v_dim, const kvt_layout *first, const kvt_layout *open, size_t tokens)
{
    const size_t pages = (tokens + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS, page = eval_pair_page(pair, k_dim, v_dim);
    size_t bytes = pages * page;
    if (first != NULL && (pages > 1 || open == NULL))
        bytes += first->page_bytes - page;
    if (open != NULL)
        bytes += open->page_bytes - page + more_open(&pair->k, KVT_K, &open->k, first != NULL, tokens - 1) +
                 more_open(&pair->v, KVT_V, &open->v, first != NULL, tokens - 1);
    return bytes;
}

/* ---- ways that are the same ---- */

static kvt_side_options within(const eval_way *way, uint32_t padded_dim)
{
    kvt_side_options options = way->options;
    if (options.rotation == KVT_ROTATION_128 && (padded_dim < 128 || (way->peer != NULL && padded_dim % 128 != 0)))
        options.rotation = KVT_ROTATION_64; /* no block of 128 fits, or other engines' formats have blocks of one size */
    if (options.fp8_block >= padded_dim)
        options.fp8_block = 0; /* one block is the row */
    return options;
}

bool eval_same_way(const eval_way *a, const eval_way *b, uint32_t padded_dim)
{
    const kvt_side_options options = within(a, padded_dim);
    const kvt_side_options other = within(b, padded_dim);
    return a->scheme == b->scheme && a->peer == b->peer && options.rotation == other.rotation && options.centring == other.centring &&
           options.effort == other.effort && options.fp8_block == other.fp8_block && options.fp8_scale == other.fp8_scale;
}

bool eval_same_pair(const eval_pair *a, const eval_pair *b, uint32_t padded_dim)
{
    return eval_same_way(&a->k, &b->k, padded_dim) && eval_same_way(&a->v, &b->v, padded_dim);
}

/* ---- names ---- */

static const char *word_name(const word *words, size_t n, uint32_t value)
{
    for (size_t i = 0; i < n; i++) {
        if (words[i].value == value)
            return words[i].name;
    }
    return NULL;
}

const char *eval_way_name(const eval_way *way)
{
    return way->scheme != NULL ? way->scheme->name : way->peer->name;
}

bool eval_is_too_short(const eval_way *way, size_t tokens)
{
    return way->peer != NULL && tokens < way->peer->unit;
}

void eval_say_too_short(const eval_way *way, size_t tokens, const char *input)
{
    char text[120];
    snprintf(text, sizeof text, "%s stores %u tokens at a time, and there are %zu: left out", way->peer->name, way->peer->unit, tokens);
    error_print("kvtile eval", input, text);
}

size_t eval_peer_page(const peer_format *peer, kvt_side side, uint32_t dim)
{
    return (size_t)(peer_bits(peer, side, dim) * dim * KVT_PAGE_TOKENS / 8 + 0.999);
}

uint32_t eval_padded_dim(uint32_t dim)
{
    return (dim + 15) / 16 * 16;
}

const char *eval_rotation_name(const eval_way *way)
{
    if (way->peer != NULL && way->peer->rotates)
        return "own";
    return word_name(ROTATIONS, COUNT(ROTATIONS), way->options.rotation);
}

const char *eval_centring_name(const eval_way *way)
{
    return word_name(CENTRINGS, COUNT(CENTRINGS), way->options.centring);
}

const char *eval_effort_name(const eval_way *way)
{
    return has_effort(way) ? word_name(EFFORTS, COUNT(EFFORTS), way->options.effort) : NULL;
}

const char *eval_fp8_block_name(const eval_way *way)
{
    return is_fp8(way) ? word_name(FP8_BLOCKS, COUNT(FP8_BLOCKS), way->options.fp8_block) : NULL;
}

const char *eval_fp8_scale_name(const eval_way *way)
{
    return is_fp8(way) ? word_name(FP8_SCALES, COUNT(FP8_SCALES), way->options.fp8_scale) : NULL;
}

eval_detail eval_detail_of(const eval_way *way)
{
    eval_detail detail = { "-" };
    if (has_effort(way))
        snprintf(detail.text, sizeof detail.text, "%s", eval_effort_name(way));
    if (is_fp8(way))
        snprintf(detail.text, sizeof detail.text, "%s %s", eval_fp8_block_name(way), eval_fp8_scale_name(way));
    return detail;
}

eval_pair_text eval_pair_name(const eval_pair *pair)
{
    eval_pair_text name;
    const bool same = pair->k.scheme == pair->v.scheme && pair->k.peer == pair->v.peer;
    snprintf(name.text, sizeof name.text, "%s%s%s", eval_way_name(&pair->k), same ? "" : "/", same ? "" : eval_way_name(&pair->v));
    return name;
}
