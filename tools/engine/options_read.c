/* SPDX-License-Identifier: MIT */
/* Words and numbers of the command line, and what they mean for a text. */
#include "tools/engine/commands.h"

#include "tools/files/nearest.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct word {
    const char *name;
    uint32_t value;
} word;

static const word ROTATIONS[] = { { "none", KVT_ROTATION_NONE }, { "0", KVT_ROTATION_NONE }, { "64", KVT_ROTATION_64 }, { "128", KVT_ROTATION_128 } };
static const word CENTRINGS[] = {
    { "none", KVT_CENTRING_NONE }, { "sequence", KVT_CENTRING_SEQUENCE }, { "page", KVT_CENTRING_PAGE }, { "own", KVT_CENTRING_OWN }
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static int read_word(uint32_t *value, const word *words, size_t n, const char *typed, const char *right, error_text *error)
{
    nearest best = { .typed = typed };
    for (size_t i = 0; i < n; i++) {
        if (strcmp(typed, words[i].name) == 0) {
            *value = words[i].value;
            return 0;
        }
        nearest_consider(&best, words[i].name);
    }
    if (best.name != NULL)
        return error_set(error, "\"%.60s\": did you mean %s? %s", typed, best.name, right);
    return error_set(error, "\"%.60s\": %s", typed, right);
}

static int read_scheme(kvt_scheme *scheme, const char *typed, error_text *error)
{
    word names[MOST_SCHEMES];
    size_t n = 0;
    for (const kvt_scheme_info *info; n < MOST_SCHEMES && (info = kvt_scheme_at(n)) != NULL; n++)
        names[n] = (word){ info->name, (uint32_t)info->scheme };
    uint32_t value = 0;
    const int result = read_word(&value, names, n, typed, "a scheme that kvtile info lists would be right", error);
    *scheme = (kvt_scheme)value;
    return result;
}

static int read_schemes(options *chosen, const char *list, error_text *error)
{
    const bool all = strcmp(list, "all") == 0;
    for (const kvt_scheme_info *info; all && chosen->n_schemes < MOST_SCHEMES && (info = kvt_scheme_at(chosen->n_schemes)) != NULL;)
        chosen->schemes[chosen->n_schemes++] = info->scheme;
    for (const char *at = all ? NULL : list; at != NULL;) {
        const size_t length = strcspn(at, ",");
        char typed[32];
        snprintf(typed, sizeof typed, "%.*s", length < sizeof typed ? (int)length : (int)sizeof typed, at);
        if (chosen->n_schemes == MOST_SCHEMES)
            return error_set(error, "more than %d schemes: each once would be right", MOST_SCHEMES);
        if (read_scheme(&chosen->schemes[chosen->n_schemes++], typed, error) != 0)
            return -1;
        at = at[length] == ',' ? at + length + 1 : NULL;
    }
    return 0;
}

static int read_number(uint64_t *value, const char *typed, uint64_t least, uint64_t most, error_text *error)
{
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(typed, &end, 10);
    if (!isdigit((unsigned char)*typed) || *end != '\0' || errno != 0 || number < least || number > most)
        return error_set(error, "\"%.60s\": a whole number from %llu to %llu would be right", typed, (unsigned long long)least,
                         (unsigned long long)most);
    *value = number;
    return 0;
}

static int read_temperature(double *value, const char *typed, error_text *error)
{
    char *end;
    *value = strtod(typed, &end);
    if ((!isdigit((unsigned char)*typed) && *typed != '.') || *end != '\0' || !(*value <= 100))
        return error_set(error, "\"%.60s\": a number from 0 to 100 would be right", typed);
    return 0;
}

static int read_preset(options *chosen, const char *typed, error_text *error)
{
    word names[KVT_PRESET_TIGHT + 1];
    size_t n = 0;
    for (const char *name; n < COUNT(names) && (name = kvt_preset_name((kvt_preset)n)) != NULL; n++)
        names[n] = (word){ name, (uint32_t)n };
    uint32_t value = 0;
    if (read_word(&value, names, n, typed, "balanced, quality, compact or tight would be right", error) != 0)
        return -1;
    kvt_spec spec = { .size = sizeof spec }, first;
    if (kvt_preset_spec((kvt_preset)value, &spec, &first) != KVT_OK)
        abort(); /* all of them are there */
    cache_way *way = &chosen->way;
    way->k_scheme = spec.k_scheme;
    way->v_scheme = spec.v_scheme;
    way->rotation = spec.k_options.rotation;
    way->centring = spec.k_options.centring;
    way->first = first.k_scheme;
    chosen->shows_way = true;
    return 0;
}

/* How the cache stores rows. */
static int read_way(options *chosen, const option_texts *texts, const char **argument, error_text *error)
{
    const struct {
        const char *option, *text;
    } ways[] = { { "--scheme", texts->scheme },
                 { "--k", texts->k },
                 { "--v", texts->v },
                 { "--schemes", texts->schemes },
                 { "--rotation", texts->rotation },
                 { "--centring", texts->centring },
                 { "--first", texts->first },
                 { "--preset", texts->preset } };
    cache_way *way = &chosen->way;
    for (size_t i = 0; i < COUNT(ways); i++) {
        *argument = ways[i].option;
        if (ways[i].text == NULL)
            continue;
        if (way->reference)
            return error_set(error, "\"%.60s\": the reference stores plain f32; one of the two options would be right", ways[i].text);
        if (texts->schemes != NULL && (i < 3 || ways[i].text == texts->preset))
            return error_set(error, "\"%.60s\": --schemes is given too; one of the two options would be right", ways[i].text);
        if (texts->preset != NULL && ways[i].text != texts->preset)
            return error_set(error, "\"%.60s\": --preset is given too; one of the two options would be right", ways[i].text);
    }
    way->k_scheme = way->v_scheme = KVT_SCHEME_f32;
    chosen->shows_way = texts->scheme != NULL || texts->k != NULL || texts->v != NULL;
    uint32_t value = 0;
    *argument = "--scheme";
    if (texts->scheme != NULL && (read_scheme(&way->k_scheme, texts->scheme, error) != 0 || read_scheme(&way->v_scheme, texts->scheme, error) != 0))
        return -1;
    *argument = "--k";
    if (texts->k != NULL && read_scheme(&way->k_scheme, texts->k, error) != 0)
        return -1;
    *argument = "--v";
    if (texts->v != NULL && read_scheme(&way->v_scheme, texts->v, error) != 0)
        return -1;
    *argument = "--schemes";
    if (texts->schemes != NULL && read_schemes(chosen, texts->schemes, error) != 0)
        return -1;
    *argument = "--rotation";
    if (texts->rotation != NULL) {
        if (read_word(&value, ROTATIONS, COUNT(ROTATIONS), texts->rotation, "none (or 0), 64 or 128 would be right", error) != 0)
            return -1;
        way->rotation = (kvt_rotation)value;
    }
    *argument = "--centring";
    if (texts->centring != NULL) {
        if (read_word(&value, CENTRINGS, COUNT(CENTRINGS), texts->centring, "none, sequence, page or own would be right", error) != 0)
            return -1;
        way->centring = (kvt_centring)value;
    }
    *argument = "--first";
    if (texts->first != NULL && read_scheme(&way->first, texts->first, error) != 0)
        return -1;
    if (way->first && (way->centring == KVT_CENTRING_SEQUENCE || way->centring == KVT_CENTRING_PAGE))
        return error_set(error, "\"%.60s\": with centring %s all pages have one scheme; none or own would be right", texts->first, texts->centring);
    *argument = "--preset";
    if (texts->preset != NULL && read_preset(chosen, texts->preset, error) != 0)
        return -1;
    if (way->centring == KVT_CENTRING_OWN)
        way->open = KVT_F16;
    return 0;
}

int options_read(options *chosen, const option_texts *texts, const char **argument, error_text *error)
{
    chosen->source.model = texts->model;
    chosen->source.tokenizer = texts->tokenizer;
    chosen->source.text = texts->text;
    chosen->source.prompt = texts->prompt;
    chosen->out = texts->out;
    chosen->save = texts->save;
    chosen->resume = texts->resume;
    chosen->store = texts->store;
    uint64_t tokens = 0, threads = 1, context = 0;
    *argument = "--tokens";
    if (texts->tokens != NULL && read_number(&tokens, texts->tokens, 1, 1 << 20, error) != 0)
        return -1;
    chosen->tokens = (size_t)tokens;
    *argument = "--context";
    if (texts->context != NULL && read_number(&context, texts->context, KVT_PAGE_TOKENS + FORWARD_LEAST_ROOM, 1 << 20, error) != 0)
        return -1;
    chosen->context = (size_t)context;
    if (chosen->way.reference)
        for (int i = 0; i < 4; i++) {
            const char *const text = i == 0 ? texts->context : i == 1 ? texts->save : i == 2 ? texts->resume : texts->store;
            *argument = i == 0 ? "--context" : i == 1 ? "--save" : i == 2 ? "--resume" : "--store";
            if (text != NULL)
                return error_set(error, "\"%.60s\": the reference has no such cache; one of the two options would be right", text);
        }
    *argument = "--store";
    if (texts->store != NULL && texts->resume != NULL)
        return error_set(error, "\"%.60s\": --resume is given too, and what is saved begins otherwise; one of the two would be right", texts->store);
    *argument = "--threads";
    if (texts->threads != NULL && read_number(&threads, texts->threads, 1, POOL_MOST_WORKERS, error) != 0)
        return -1;
    chosen->source.threads = (unsigned)threads;
    *argument = "--seed";
    if (texts->seed != NULL && read_number(&chosen->seed, texts->seed, 0, UINT64_MAX, error) != 0)
        return -1;
    *argument = "--temperature";
    if (texts->temperature != NULL && read_temperature(&chosen->temperature, texts->temperature, error) != 0)
        return -1;
    return read_way(chosen, texts, argument, error);
}

int run_room(const text_run *job, const options *chosen, const char **argument, error_text *error)
{
    *argument = "--context";
    return chosen->context > job->model.context ? error_set(error, "%zu: %d to %" PRIu32 ", the model's context, would be right", chosen->context,
                                                            KVT_PAGE_TOKENS + FORWARD_LEAST_ROOM, job->model.context)
                                                : 0;
}

int run_limit(text_run *job, const options *chosen, const char **argument, error_text *error)
{
    *argument = "--tokens";
    if (chosen->tokens > job->n_tokens)
        return error_set(error, "%zu: the text has only %zu", chosen->tokens, job->n_tokens);
    if (chosen->tokens > job->model.context && !chosen->context)
        return error_set(error, "%zu: 1 to %" PRIu32 ", the model's context, would be right", chosen->tokens, job->model.context);
    if (chosen->tokens != 0)
        job->n_tokens = chosen->tokens;
    else if (job->n_tokens > job->model.context && !chosen->context)
        job->n_tokens = job->model.context;
    *argument = chosen->source.model; /* what is wrong from now on is the model's */
    return 0;
}
