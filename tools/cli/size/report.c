/* SPDX-License-Identifier: MIT */
/* kvtile size: answers as text and as JSON. */
#include "tools/cli/size/size.h"

#include "tools/files/json.h"
#include "tools/files/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers for people ---------------------------------------------------------------------------------------------------------- */

number number_grouped(uint64_t value)
{
    number n;
    char *c = n.text + sizeof n.text - 1;
    *c = '\0';
    unsigned digits = 0;
    do {
        if (digits && digits % 3 == 0)
            *--c = ',';
        *--c = (char)('0' + value % 10);
        value /= 10;
        digits++;
    } while (value);
    memmove(n.text, c, strlen(c) + 1);
    return n;
}

static number grouped_or_dash(uint64_t value)
{
    return value ? number_grouped(value) : (number){ "-" };
}

/* In the largest unit that leaves at least 1. */
number number_binary(uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    number n;
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(n.text, sizeof n.text, "%.2f %s", value, units[unit]);
    return n;
}

number number_growth(const kvt_size_report *report)
{
    number n = number_grouped(report->growing_bytes / report->growing_tokens);
    const uint64_t rest = report->growing_bytes % report->growing_tokens;
    if (rest)
        snprintf(n.text + strlen(n.text), sizeof n.text - strlen(n.text), ".%02u", (unsigned)((double)rest * 100 / (double)report->growing_tokens));
    return n;
}

/* ---- budgets --------------------------------------------------------------------------------------------------------------------- */

/* Of the weights a rank has its share, about. */
static uint64_t share(const size_question *question, uint64_t bytes)
{
    return bytes / question->ranks + (bytes % question->ranks != 0);
}

uint64_t size_cache_budget(const size_question *question, size_t model)
{
    uint64_t other = question->weights;
    if (__builtin_add_overflow(other, question->reserve, &other) || __builtin_add_overflow(other, share(question, question->draft_weights), &other))
        return 0;
    if (model != SIZE_NO_MODEL && __builtin_add_overflow(other, share(question, question->model_weights[model]), &other))
        return 0;
    return other > question->budget ? 0 : question->budget - other;
}

static int fail_sizing(const kvt_model *model, const kvt_size_request *request, kvt_status status)
{
    const char *problem = kvt_size_problem(model, request);
    size_say(model->name, "%s", problem ? problem : kvt_status_text(status));
    return EXIT_FAILURE;
}

/* What the cache takes, and that of a model that drafts beside it. */
static kvt_status total_bytes(const size_answer *answer, const kvt_size_request *request, uint64_t *total)
{
    kvt_size_report report;
    kvt_status status = kvt_size(answer->model, request, &report, NULL);
    *total = status == KVT_OK ? report.total_bytes : 0;
    if (status != KVT_OK || !answer->draft)
        return status;
    status = kvt_size(answer->draft, request, &report, NULL);
    return status == KVT_OK && __builtin_add_overflow(*total, report.total_bytes, total) ? KVT_ERR_OVERFLOW : status;
}

/* The largest value of a field of `request`, from `low` on, that fits; totals never fall as it grows. BUDGET: not even `low` does. */
static kvt_status largest_with_draft(const size_answer *answer, kvt_size_request *request, uint64_t *field, uint64_t low, uint64_t budget)
{
    uint64_t total, high = UINT64_MAX;
    *field = low;
    const kvt_status status = total_bytes(answer, request, &total);
    if (status != KVT_OK || total > budget)
        return status != KVT_OK ? status : KVT_ERR_BUDGET;
    while (low < high) {
        *field = low + (high - low) / 2 + (high - low) % 2;
        if (total_bytes(answer, request, &total) == KVT_OK && total <= budget)
            low = *field;
        else
            high = *field - 1;
    }
    *field = low;
    return KVT_OK;
}

typedef kvt_status find_largest(const kvt_model *model, const kvt_size_request *request, uint64_t budget, uint64_t *value);

/* What fits into the memory of every stage. */
static kvt_status largest_of_stages(const size_answer *answer, find_largest *find, uint64_t budget, uint64_t *value)
{
    kvt_status status = KVT_OK;
    if (!answer->stages)
        return find(answer->model, &answer->request, budget, value);
    *value = UINT64_MAX;
    for (uint32_t i = 0; i < answer->n_stages && status == KVT_OK; i++) {
        uint64_t n = 0;
        status = find(&answer->stages[i].part.model, &answer->request, budget, &n);
        *value = *value < n ? *value : n;
    }
    return status;
}

int size_longest_context(const size_answer *answer, uint64_t budget, uint64_t *context)
{
    kvt_size_request request = answer->request;
    *context = 0;
    const kvt_status status = answer->draft ? largest_with_draft(answer, &request, &request.context, 0, budget)
                                            : largest_of_stages(answer, kvt_size_longest_context, budget, context);
    if (answer->draft && status == KVT_OK)
        *context = request.context;
    return status == KVT_OK || status == KVT_ERR_BUDGET ? 0 : fail_sizing(answer->model, &answer->request, status);
}

int size_most_sequences(const size_answer *answer, uint64_t budget, uint64_t *sequences)
{
    kvt_size_request request = answer->request;
    *sequences = 0;
    const kvt_status status = answer->draft ? largest_with_draft(answer, &request, &request.sequences, 1, budget)
                                            : largest_of_stages(answer, kvt_size_most_sequences, budget, sequences);
    if (answer->draft && status == KVT_OK)
        *sequences = request.sequences;
    return status == KVT_OK || status == KVT_ERR_BUDGET ? 0 : fail_sizing(answer->model, &answer->request, status);
}

/* Several sequences of llama.cpp divide the context among themselves. */
static bool is_shared(const kvt_size_request *request)
{
    return request->engine == KVT_ENGINE_llama_cpp && request->sequences > 1;
}

/* "131,072", "no limit", and whether that is all that the model was made for. */
static number context_text(const size_answer *answer, uint64_t context)
{
    const uint64_t most = answer->model->max_context;
    const bool all = most && context >= most && !is_shared(&answer->request);
    if (context == UINT64_MAX && !all)
        return (number){ "no limit" };
    number n = number_grouped(all ? most : context);
    if (all)
        strcat(n.text, " (all)");
    return n;
}

/* ---- answers --------------------------------------------------------------------------------------------------------------------- */

/* Sets the model of the answer to the largest stage. */
static kvt_status take_largest_stage(size_answer *answer)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < answer->n_stages; i++) {
        const kvt_model *part = &answer->stages[i].part.model;
        kvt_size_report report;
        const kvt_status status = kvt_size(part, &answer->request, &report, NULL);
        if (status != KVT_OK)
            return status;
        if (i == 0 || report.total_bytes > most) {
            answer->model = part;
            answer->largest = i;
            most = report.total_bytes;
        }
    }
    return KVT_OK;
}

int size_answer_make(const size_question *question, size_t model, size_t type, uint64_t context, size_answer *answer)
{
    *answer = (size_answer){ .model = question->models[model],
                             .notes = question->notes[model],
                             .request = question->request,
                             .draft = question->draft,
                             .unknown_type = question->unknown_types[model] };
    answer->request.k_type = question->k_types[type];
    answer->request.v_type = question->v_types[type];
    answer->request.context = context;
    if (question->n_stages > 1) {
        answer->stages = question->stages[model];
        answer->n_stages = question->n_stages;
        const kvt_status failed = take_largest_stage(answer);
        if (failed != KVT_OK)
            return fail_sizing(answer->model, &answer->request, failed);
    }
    answer->groups = calloc(answer->model->n_groups ? answer->model->n_groups : 1, sizeof *answer->groups);
    if (!answer->groups) {
        size_say(answer->model->name, "no memory");
        return EXIT_FAILURE;
    }
    kvt_status status = kvt_size(answer->model, &answer->request, &answer->report, answer->groups);
    const kvt_model *wrong = answer->model;
    if (status == KVT_OK && answer->draft) {
        wrong = answer->draft;
        kvt_size_report draft;
        status = kvt_size(answer->draft, &answer->request, &draft, NULL);
        answer->draft_bytes = status == KVT_OK ? draft.total_bytes : 0;
    }
    if (status == KVT_OK && __builtin_add_overflow(answer->report.total_bytes, answer->draft_bytes, &answer->total))
        status = KVT_ERR_OVERFLOW;
    if (status == KVT_OK)
        return 0;
    const kvt_size_request request = answer->request;
    size_answer_free(answer);
    return fail_sizing(wrong, &request, status);
}

void size_answer_free(size_answer *answer)
{
    free(answer->groups);
    answer->groups = NULL;
}

/* ---- one model ------------------------------------------------------------------------------------------------------------------- */

static void print_total(const char *what, uint64_t bytes)
{
    printf("%-34s %20s bytes  %11s\n", what, number_grouped(bytes).text, number_binary(bytes).text);
}

static void print_part(const char *what, uint64_t bytes)
{
    if (bytes)
        print_total(what, bytes);
}

const char *size_engine_note(kvt_engine engine, const kvt_model *model, char text[SIZE_ENGINE_NOTE])
{
    const char *type = model->model_type ? model->model_type : model->architecture ? model->architecture : "";
    text[0] = '\0';
    if (!kvt_engine_knows(engine, model))
        snprintf(text, SIZE_ENGINE_NOTE, "%s: no rule is known for models of type \"%s\": sized as if it stored what the model declares",
                 kvt_engine_name(engine), type);
    return text;
}

static uint32_t total_layers(const size_answer *answer)
{
    const model_stage *last = &answer->stages[answer->n_stages - 1];
    return last->first + last->count;
}

/* What was asked, in a line, and whose rules are followed. */
static void print_heading(const size_question *question, const size_answer *answer)
{
    const kvt_size_request *r = &answer->request;
    if (answer->unknown_type)
        printf("model_type \"%s\" is not known: sized by the plain rule, from its fields alone\n",
               answer->model->model_type ? answer->model->model_type : answer->model->architecture);
    printf("%s: keys %s, values %s, %s%s%s%s token%s of context%s %s sequence%s\n%s\n", answer->model->name, r->k_type, r->v_type,
           r->rope_type ? "rotary parts of latents " : "", r->rope_type ? r->rope_type : "", r->rope_type ? ", " : "",
           number_grouped(r->context).text, text_plural(r->context), is_shared(r) ? ", shared by" : ",", number_grouped(r->sequences).text,
           text_plural(r->sequences), kvt_engine_title(r->engine));
    char text[SIZE_ENGINE_NOTE];
    if (*size_engine_note(r->engine, answer->model, text))
        printf("%s\n", text);
    printf("\n");
    if (answer->stages) {
        const model_stage *stage = &answer->stages[answer->largest];
        printf("the largest of %u pipeline stages is stage %u of 0 to %u, with layers %u to %u of 0 to %u:\n\n", (unsigned)answer->n_stages,
               (unsigned)answer->largest, (unsigned)(answer->n_stages - 1), (unsigned)stage->first, (unsigned)(stage->first + stage->count - 1),
               (unsigned)(total_layers(answer) - 1));
    }
    if (question->ranks > 1)
        printf("each of %u ranks of tensor parallelism holds:\n\n", (unsigned)question->ranks);
}

static void print_groups(const size_answer *answer)
{
    printf("%-10s %5s %8s %5s %5s %6s %11s %10s %18s\n", "caches", "count", "KV heads", "K dim", "V dim", "window", "bytes/token", "rows", "bytes");
    for (size_t i = 0; i < answer->model->n_groups; i++) {
        const kvt_layer_group *g = &answer->model->groups[i];
        const kvt_group_size *size = &answer->groups[i];
        printf("%-10s %5" PRIu64 " %8s %5s %5s %6s %11s %10s %18s", kvt_layer_kind_name(size->kind), size->layers,
               grouped_or_dash(size->kv_heads).text, grouped_or_dash(size->k_dim).text, grouped_or_dash(size->v_dim).text,
               grouped_or_dash(size->window).text, grouped_or_dash(size->bytes_per_token).text, grouped_or_dash(size->allocated_rows).text,
               number_grouped(size->bytes).text);
        if (size->bytes)
            printf("  %11s", number_binary(size->bytes).text);
        if (g->tokens_per_row > 1)
            printf("  a row for %" PRIu32 " tokens", g->tokens_per_row);
        printf("\n");
    }
}

/* Widths that are not a multiple of 16 are stored with zero channels, which the reader would not expect. */
static void print_padding(const size_answer *answer)
{
    if (answer->request.engine != KVT_ENGINE_kvtile && answer->request.engine != KVT_ENGINE_logical)
        return;
    for (size_t i = 0; i < answer->model->n_groups; i++) {
        const kvt_layer_group *g = &answer->model->groups[i];
        const uint32_t dims[] = { g->k_dim, g->v_dim };
        for (size_t side = 0; side < 2; side++) {
            if (dims[side] % 16 != 0)
                printf("%s layers: %s of %" PRIu32 " channels are stored as %" PRIu32 "\n", kvt_layer_kind_name(g->kind),
                       side == 0 ? "keys" : "values", dims[side], (dims[side] + 15) / 16 * 16);
        }
    }
}

/* Bytes that one layer's row takes, and how many rows there are: the sum that makes a group's bytes. */
static void print_formula(const kvt_size_request *r, const kvt_group_size *size)
{
    printf("%s: %s layer%s", kvt_layer_kind_name(size->kind), number_grouped(size->layers).text, text_plural(size->layers));
    if (size->bytes == 0) {
        printf(" that store nothing\n");
        return;
    }
    const uint64_t row = size->layers ? size->bytes_per_token / size->layers : 0, rows = row * size->layers * size->allocated_rows;
    if (row) {
        printf(" * %s bytes a row (%" PRIu32 " head%s * ", number_grouped(row).text, size->kv_heads, text_plural(size->kv_heads));
        if (size->v_dim)
            printf("(%" PRIu32 " channels in %s + %" PRIu32 " in %s)", size->k_dim, r->k_type, size->v_dim, r->v_type);
        else
            printf("%" PRIu32 " channels in %s", size->k_dim, r->k_type);
        printf(") * %s rows", number_grouped(size->allocated_rows).text);
    }
    if (size->state_bytes)
        printf("%s%s bytes of state", row ? " + " : ": ", number_grouped(size->state_bytes).text);
    const uint64_t rest = size->bytes - rows - size->state_bytes;
    if (rest)
        printf(" + %s bytes that pages and states are filled up with", number_grouped(rest).text);
    printf(" = %s bytes\n", number_grouped(size->bytes).text);
}

static void print_formulas(const size_answer *answer)
{
    printf("\n");
    for (size_t i = 0; i < answer->model->n_groups; i++)
        print_formula(&answer->request, &answer->groups[i]);
}

static int print_budget(const size_question *question, const size_answer *answer)
{
    const uint64_t budget = size_cache_budget(question, 0);
    uint64_t context, sequences;
    int code = size_longest_context(answer, budget, &context);
    if (code == 0 && !answer->request.separate_streams)
        code = size_most_sequences(answer, budget, &sequences);
    if (code)
        return code;

    printf("\n");
    if (question->model_weights[0])
        print_total("weights", share(question, question->model_weights[0]));
    if (question->draft_weights)
        print_total("weights of the draft model", share(question, question->draft_weights));
    print_total("budget for the cache", budget);
    printf("%-34s %20s\n", "does this fit", answer->total <= budget ? "yes" : "no");
    if (context == 0)
        printf("%-34s %20s\n", "longest context that fits", "none");
    else
        printf("%-34s %20s\n", "longest context that fits", context_text(answer, context).text);
    if (answer->request.separate_streams)
        return 0;
    if (sequences == UINT64_MAX)
        printf("%-34s %20s\n", "most sequences at this context", "no limit");
    else
        printf("%-34s %20s\n", "most sequences at this context", sequences ? number_grouped(sequences).text : "none");
    return 0;
}

int size_print_model(const size_question *question)
{
    size_answer answer;
    int code = size_answer_make(question, 0, 0, question->contexts[0], &answer);
    if (code)
        return code;

    const kvt_size_report *report = &answer.report;
    print_heading(question, &answer);
    print_groups(&answer);
    printf("\n%-34s %20s bytes\n", "each further token", number_growth(report).text);
    if (report->window_bytes_per_token)
        printf("%-34s %20s bytes\n", "and until the windows are full", number_grouped(report->window_bytes_per_token).text);
    printf("\n");
    print_part("payload", report->payload_bytes);
    print_part("scales", report->scale_bytes);
    print_part("padding", report->padding_bytes);
    print_part("rounding up to pages or cells", report->rounding_bytes);
    print_part("sliding windows", report->window_bytes);
    print_part("recurrent state", report->state_bytes);
    print_part("cross attention", report->cross_bytes);
    print_total("total", report->total_bytes);
    if (answer.draft) {
        print_total(answer.draft->name, answer.draft_bytes);
        print_total("total with the draft model", answer.total);
    }
    print_padding(&answer);
    if (question->explain)
        print_formulas(&answer);
    if (question->budget_given)
        code = print_budget(question, &answer);
    size_answer_free(&answer);
    return code;
}

/* ---- several models, types or contexts ------------------------------------------------------------------------------------------- */

static number type_text(const size_question *question, size_t type)
{
    const char *k = question->k_types[type], *v = question->v_types[type];
    number n;
    if (strcmp(k, v) == 0)
        snprintf(n.text, sizeof n.text, "%.30s", k);
    else
        snprintf(n.text, sizeof n.text, "%.18s/%.18s", k, v);
    return n;
}

typedef struct table_widths {
    int name;
    int type;
} table_widths;

static table_widths column_widths(const size_question *question)
{
    table_widths w = { 5, 6 };
    for (size_t i = 0; i < question->n_models; i++) {
        const int length = (int)strlen(question->models[i]->name);
        w.name = length > w.name ? length : w.name;
    }
    for (size_t i = 0; i < question->n_types; i++) {
        const int length = (int)strlen(type_text(question, i).text);
        w.type = length > w.type ? length : w.type;
    }
    return w;
}

/* How many sequences fit is told where there is a budget, and more sequences take more memory. */
static bool counts_users(const size_question *question)
{
    return question->budget_given && !question->request.separate_streams;
}

/* A model in one type: what a token costs, the total at each context, the longest context that fits. */
static int print_size_row(const size_question *question, table_widths w, size_t model, size_t type, uint64_t budget)
{
    kvt_size_request request = question->request;
    request.k_type = question->k_types[type];
    request.v_type = question->v_types[type];
    const char *problem = kvt_size_problem(question->models[model], &request);
    if (problem) {
        printf("%-*s  %-*s   %s\n", w.name, type == 0 ? question->models[model]->name : "", w.type, type_text(question, type).text, problem);
        return 0;
    }
    for (size_t c = 0; c < question->n_contexts; c++) {
        size_answer answer;
        const int code = size_answer_make(question, model, type, question->contexts[c], &answer);
        if (code)
            return code;
        if (c == 0)
            printf("%-*s  %-*s %11s", w.name, type == 0 ? answer.model->name : "", w.type, type_text(question, type).text,
                   number_growth(&answer.report).text);
        printf(" %13s%s", number_binary(answer.total).text, answer.total > budget ? "*" : " ");
        const bool last = c + 1 == question->n_contexts, users = last && counts_users(question);
        uint64_t longest, most = 0;
        int failed = last ? size_longest_context(&answer, budget, &longest) : 0;
        if (users && !failed)
            failed = size_most_sequences(&answer, budget, &most);
        if (last && !failed)
            printf(" %18s", longest ? context_text(&answer, longest).text : "none");
        if (users && !failed)
            printf(" %14s", most == UINT64_MAX ? "no limit" : most ? number_grouped(most).text : "none");
        if (last && !failed)
            printf("\n");
        size_answer_free(&answer);
        if (failed)
            return failed;
    }
    return 0;
}

/* Finds what cannot be answered before half a table is printed. */
static int check_all(const size_question *question)
{
    for (size_t i = 0; i < question->n_models * question->n_types * question->n_contexts; i++) {
        const size_t type = i / question->n_contexts % question->n_types;
        const kvt_model *model = question->models[i / question->n_contexts / question->n_types];
        kvt_size_request request = question->request;
        request.k_type = question->k_types[type];
        request.v_type = question->v_types[type];
        request.context = question->contexts[i % question->n_contexts];
        kvt_size_report report;
        const kvt_status status = kvt_size(model, &request, &report, NULL);
        if (status != KVT_OK && status != KVT_ERR_ENGINE)
            return fail_sizing(model, &request, status);
    }
    return 0;
}

int size_print_table(const size_question *question)
{
    int code = check_all(question);
    if (code)
        return code;
    const table_widths w = column_widths(question);
    const uint64_t budget = size_cache_budget(question, SIZE_NO_MODEL);
    const kvt_size_request *r = &question->request;
    for (size_t i = 0; i < question->n_models; i++) {
        if (question->unknown_types[i])
            printf("model_type \"%s\" of %s is not known: sized by the plain rule, from its fields alone\n",
                   question->models[i]->model_type ? question->models[i]->model_type : question->models[i]->architecture, question->models[i]->name);
    }
    if (question->n_stages > 1)
        printf("The largest of %u pipeline stages of each model.\n", (unsigned)question->n_stages);
    printf("KV cache of %s sequence%s%s: %s\n\n", number_grouped(r->sequences).text, text_plural(r->sequences),
           is_shared(r) ? " that share the context" : "", kvt_engine_title(r->engine));

    printf("%-*s  %-*s %11s %*s %18s%s\n", w.name, "", w.type, "", "bytes for", 14 * (int)question->n_contexts + (int)question->n_contexts - 1,
           "total at a context of", "longest context", counts_users(question) ? " most sequences" : "");
    printf("%-*s  %-*s %11s", w.name, "model", w.type, "scheme", "each token");
    for (size_t c = 0; c < question->n_contexts; c++)
        printf(" %13s ", number_grouped(question->contexts[c]).text);
    char within[64];
    snprintf(within, sizeof within, "in %s", number_binary(budget).text);
    printf(" %18s", within);
    if (counts_users(question)) {
        snprintf(within, sizeof within, "of %s", number_grouped(question->contexts[question->n_contexts - 1]).text);
        printf(" %14s", within);
    }
    printf("\n");

    for (size_t i = 0; i < question->n_models * question->n_types && code == 0; i++) {
        if (i && question->n_types > 1 && i % question->n_types == 0)
            printf("\n");
        code = print_size_row(question, w, i / question->n_types, i % question->n_types, size_cache_budget(question, i / question->n_types));
    }
    if (code)
        return code;
    printf("\n* more than %s for the cache: %s.\n", number_binary(budget).text,
           question->budget_given ? "the budget less weights and reserve" : "about what a phone of 8 GB can spare (--budget)");
    printf("Totals include sliding windows and recurrent state. (all): what the model was made for.\n");
    for (size_t i = 0; i < question->n_models; i++) {
        char text[SIZE_ENGINE_NOTE];
        if (*size_engine_note(question->request.engine, question->models[i], text))
            printf("%s: %s\n", question->models[i]->name, text);
    }
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------ */

static json_int_t integer(uint64_t value)
{
    return (json_int_t)value;
}

static json_t *layers_json(const size_answer *answer)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < answer->model->n_groups; i++) {
        const kvt_layer_group *g = &answer->model->groups[i];
        const kvt_group_size *s = &answer->groups[i];
        json_t *layer =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "kind",
                      kvt_layer_kind_name(s->kind), "count", integer(s->layers), "conv_kernel", integer(g->conv_kernel), "conv_channels",
                      integer(g->conv_channels), "recurrent_elements", integer(g->recurrent_elements), "kv_heads", integer(s->kv_heads), "k_dim",
                      integer(s->k_dim), "v_dim", integer(s->v_dim), "rope_dim", integer(s->kind == g->kind ? g->rope_dim : 0), "window",
                      integer(s->window), "tokens_per_row", integer(g->tokens_per_row), "bytes_per_token", integer(s->bytes_per_token), "rows",
                      integer(s->rows), "allocated_rows", integer(s->allocated_rows), "payload_bytes", integer(s->payload_bytes), "scale_bytes",
                      integer(s->scale_bytes), "padding_bytes", integer(s->padding_bytes), "rounding_bytes", integer(s->rounding_bytes),
                      "state_bytes", integer(s->state_bytes), "bytes", integer(s->bytes));
        if (json_array_append_new(layers, layer) != 0) {
            json_decref(layers);
            return NULL;
        }
    }
    return layers;
}

/* NULL when there is one stage. */
static json_t *stages_json(const size_answer *answer)
{
    json_t *stages = answer->stages ? json_array() : NULL;
    for (uint32_t i = 0; i < answer->n_stages; i++) {
        const model_stage *stage = &answer->stages[i];
        kvt_size_report report;
        const kvt_status status = kvt_size(&stage->part.model, &answer->request, &report, NULL);
        json_t *item = status != KVT_OK ? NULL
                                        : json_pack("{s:I, s:I, s:I}", "first_layer", integer(stage->first), "layers", integer(stage->count),
                                                    "total_bytes", integer(report.total_bytes));
        if (json_array_append_new(stages, item) != 0) {
            json_decref(stages);
            return NULL;
        }
    }
    return stages;
}

/* null: there is none; JSON has no number for "no limit", which is as many as fit its integers. */
static json_t *count_or_null(uint64_t count)
{
    return count ? json_integer(count > INT64_MAX ? INT64_MAX : integer(count)) : json_null();
}

static int budget_json(const size_question *question, size_t model, const size_answer *answer, json_t **object)
{
    const uint64_t budget = size_cache_budget(question, model);
    uint64_t context, sequences = 0;
    int code = size_longest_context(answer, budget, &context);
    if (code == 0 && !answer->request.separate_streams)
        code = size_most_sequences(answer, budget, &sequences);
    if (code == 0)
        *object = json_pack("{s:I, s:I, s:I, s:I, s:b, s:o, s:o}", "bytes", integer(question->budget), "weights", integer(question->weights),
                            "reserve", integer(question->reserve), "for_cache", integer(budget), "fits", answer->total <= budget, "longest_context",
                            count_or_null(context), "most_sequences", count_or_null(sequences));
    return code;
}

static json_t *growth_json(const kvt_size_report *report)
{
    if (report->growing_tokens == 1)
        return json_integer(integer(report->growing_bytes));
    return json_real((double)report->growing_bytes / (double)report->growing_tokens);
}

static int answer_json(const size_question *question, size_t model, const size_answer *answer, json_t **object)
{
    const kvt_size_request *request = &answer->request;
    const kvt_size_report *r = &answer->report;
    json_t *budget = NULL;
    int code = 0;
    if (question->budget_given)
        code = budget_json(question, model, answer, &budget);
    if (code)
        return code;
    char text[SIZE_ENGINE_NOTE];
    json_t *draft = answer->draft ? json_pack("{s:s, s:I, s:I}", "model", answer->draft->name, "bytes", integer(answer->draft_bytes), "total_bytes",
                                              integer(answer->total))
                                  : NULL;
    *object =
        json_pack("{s:s, s:s, s:s, s:s, s:s*, s:I, s:I, s:{s:o, s:I, s:I, s:I}, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:o, s:o*, "
                  "s:s, s:s, s:s?, s:b, s:I, s:o*, s:o*, s:o*}",
                  "model", answer->model->name, "engine", kvt_engine_name(request->engine), "k_scheme", request->k_type, "v_scheme", request->v_type,
                  "rope_scheme", request->rope_type, "context", integer(request->context), "sequences", integer(request->sequences),
                  "bytes_per_token", "growing", growth_json(r), "growing_bytes", integer(r->growing_bytes), "growing_tokens",
                  integer(r->growing_tokens), "window", integer(r->window_bytes_per_token), "state_bytes_per_sequence",
                  integer(r->state_bytes_per_sequence), "breakdown", "payload", integer(r->payload_bytes), "scales", integer(r->scale_bytes),
                  "padding", integer(r->padding_bytes), "rounding", integer(r->rounding_bytes), "window", integer(r->window_bytes), "state",
                  integer(r->state_bytes), "cross", integer(r->cross_bytes), "total_bytes", integer(r->total_bytes), "layers", layers_json(answer),
                  "budget", budget, "notes", answer->notes, "engine_note", size_engine_note(request->engine, answer->model, text), "model_type",
                  answer->model->model_type ? answer->model->model_type : answer->model->architecture, "known_type", !answer->unknown_type, "ranks",
                  integer(question->ranks), "draft", draft, "largest_stage", answer->stages ? json_integer(answer->largest) : NULL, "stages",
                  stages_json(answer));
    if (answer->stages && *object && !json_object_get(*object, "stages")) { /* no memory: size_print_json says it */
        json_decref(*object);
        *object = NULL;
    }
    return 0;
}

/* One object for one answer, a list of them for more. */
int size_print_json(const size_question *question)
{
    const size_t n = question->n_models * question->n_types * question->n_contexts;
    json_t *list = json_array(), *object = NULL;
    int code = 0;
    for (size_t i = 0; i < n && code == 0; i++) {
        size_answer answer;
        const size_t context = i % question->n_contexts, type = i / question->n_contexts % question->n_types;
        code = size_answer_make(question, i / question->n_contexts / question->n_types, type, question->contexts[context], &answer);
        if (code)
            break;
        /* The other numbers are never larger than these. */
        if (answer.request.context > INT64_MAX || answer.request.sequences > INT64_MAX || answer.report.total_bytes > INT64_MAX ||
            question->budget > INT64_MAX) {
            size_say("--json", "cannot hold numbers above %" PRId64 ": ask for less context or fewer sequences", INT64_MAX);
            code = EXIT_FAILURE;
        } else {
            code = answer_json(question, i / question->n_contexts / question->n_types, &answer, &object);
        }
        size_answer_free(&answer);
        if (code == 0 && json_array_append_new(list, object) != 0) {
            size_say("--json", "no memory");
            code = EXIT_FAILURE;
        }
    }
    if (code == 0) {
        json_print(n == 1 ? json_array_get(list, 0) : list, stdout, JSON_INDENT(2)); /* program_start looks for errors */
        putchar('\n');
    }
    json_decref(list);
    return code;
}
