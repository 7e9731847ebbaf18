/* SPDX-License-Identifier: MIT */
/* kvt_model_open: files, folders and names, and what is said of those that are none. It is linked with the installed library's shared form, and sees
 * only its header. */
#define _POSIX_C_SOURCE 200809L
#include <kvtile/model.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char config[] = "{\"model_type\": \"llama\", \"num_hidden_layers\": 4, \"num_attention_heads\": 8, \"num_key_value_heads\": 2, "
                             "\"hidden_size\": 512, \"max_position_embeddings\": 4096}";
enum { TOKEN_BYTES = 4 * 2 * 2 * 64 * 2 }; /* layers, heads, sides, head_dim, bytes */

static char folder[] = "/tmp/kvtile-find-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void store(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    ck_assert(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static uint64_t token_bytes(const kvt_model_file *model)
{
    const kvt_size_request request = { .size = sizeof request, .engine = KVT_ENGINE_logical, .sequences = 1 };
    kvt_size_report report;
    ck_assert_int_eq(kvt_size(kvt_model_get(model), &request, &report, NULL), KVT_OK);
    ck_assert_uint_eq(report.growing_tokens, 1);
    return report.growing_bytes;
}

static void opens(const char *name, uint64_t bytes)
{
    kvt_model_file *model;
    char problem[KVT_PROBLEM_BYTES] = "";
    ck_assert_msg(kvt_model_open(name, NULL, &model, problem, sizeof problem) == KVT_OK, "%s", problem);
    ck_assert_uint_eq(token_bytes(model), bytes);
    kvt_model_close(model);
}

static void refuses(const char *name, kvt_status status, const char *message)
{
    kvt_model_file *model = (kvt_model_file *)&model;
    char problem[KVT_PROBLEM_BYTES] = "";
    ck_assert_int_eq(kvt_model_open(name, NULL, &model, problem, sizeof problem), status);
    ck_assert_ptr_null(model);
    ck_assert_msg(strcmp(problem, message) == 0, "\"%s\" instead of \"%s\"", problem, message);
}

START_TEST(files_folders_names)
{
    char message[600];
    store("config.json", config, sizeof config - 1);
    opens(in_folder("config.json"), TOKEN_BYTES);
    opens(folder, TOKEN_BYTES);
    opens("google/gemma-4-e2b", 6144);
    refuses("gemma4-E2B", KVT_ERR_NAME, "gemma4-E2B: there is no file and no built-in model of that name: did you mean gemma-4-E2B?");
    refuses("zzzzzz", KVT_ERR_NAME,
            "zzzzzz: there is no file and no built-in model of that name: a config.json, a folder with one, a .gguf file or a name of the catalogue "
            "would be right");
    refuses("/nosuch/config.json", KVT_ERR_FILE, "/nosuch/config.json: cannot be opened: No such file or directory");
    refuses("/", KVT_ERR_FILE, "/: is a folder without a config.json");
    store("bad.json", "{\"model_type\": \"llama\", \"num_hidden_layers\": \"x\"}", 49);
    snprintf(message, sizeof message, "%s: num_hidden_layers is \"x\", but must be a whole number from 1 to 65536", in_folder("bad.json"));
    refuses(in_folder("bad.json"), KVT_ERR_FILE, message);
    store("empty.gguf", "", 0);
    snprintf(message, sizeof message, "%s: is empty", in_folder("empty.gguf"));
    refuses(in_folder("empty.gguf"), KVT_ERR_FILE, message);
}
END_TEST

START_TEST(ignored_fields_and_notes)
{
    static const char strange[] = "{\"model_type\": \"llama\", \"num_hidden_layers\": 4, \"num_attention_heads\": 8, \"hidden_size\": 512, "
                                  "\"max_position_embeddings\": 4096, \"kv_strange_heads\": 7}";
    static const char *const ignored[] = { "kv_strange_heads", NULL };
    kvt_model_file *model;
    char problem[KVT_PROBLEM_BYTES] = "";
    store("strange.json", strange, sizeof strange - 1);
    ck_assert_int_eq(kvt_model_open(in_folder("strange.json"), NULL, &model, problem, sizeof problem), KVT_ERR_FILE);
    ck_assert_msg(strstr(problem, "kv_strange_heads") != NULL, "%s", problem);
    ck_assert_msg(kvt_model_open(in_folder("strange.json"), ignored, &model, problem, sizeof problem) == KVT_OK, "%s", problem);
    ck_assert_msg(strstr(kvt_model_notes(model), "kv_strange_heads") != NULL, "%s", kvt_model_notes(model));
    kvt_model_close(model);
}
END_TEST

/* ---- GGUF files whose metadata do not fit the first megabyte --------------------------------------------------------------------- */

static void put(FILE *file, const void *bytes, size_t size)
{
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
}
static void put_u64(FILE *file, uint64_t value)
{
    put(file, &value, 8);
}
static void put_u32(FILE *file, uint32_t value)
{
    put(file, &value, 4);
}
static void put_text(FILE *file, const char *text)
{
    put_u64(file, strlen(text));
    put(file, text, strlen(text));
}
static void put_number(FILE *file, const char *key, uint32_t value)
{
    put_text(file, key);
    put_u32(file, 4);
    put_u32(file, value);
}

/* A long vocabulary before the keys that matter, and one tensor of `numbers` f32 numbers; the file may have fewer. */
static void store_gguf(const char *name, uint64_t words, uint64_t numbers, uint64_t stored)
{
    FILE *file = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(file);
    put(file, "GGUF", 4);
    put_u32(file, 3);
    put_u64(file, 1);
    put_u64(file, 7);
    put_text(file, "general.architecture");
    put_u32(file, 8);
    put_text(file, "llama");
    put_text(file, "tokenizer.ggml.tokens");
    put_u32(file, 9);
    put_u32(file, 8);
    put_u64(file, words);
    for (uint64_t i = 0; i < words; i++)
        put_text(file, "word");
    put_number(file, "llama.block_count", 4);
    put_number(file, "llama.context_length", 4096);
    put_number(file, "llama.attention.head_count", 8);
    put_number(file, "llama.attention.head_count_kv", 2);
    put_number(file, "llama.embedding_length", 512);
    put_text(file, "w");
    put_u32(file, 1);
    put_u64(file, numbers);
    put_u32(file, 0);
    put_u64(file, 0);
    const long end = ftell(file);
    ck_assert_int_eq(fseek(file, (end + 31) / 32 * 32 + (long)(4 * stored) - 1, SEEK_SET), 0);
    put(file, "", 1);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(long_metadata)
{
    char problem[KVT_PROBLEM_BYTES];
    uint64_t bytes = 0;
    for (uint64_t words = 10; words <= 1000000; words *= 100) { /* 12 MB at last */
        store_gguf("long.gguf", words, 1000000, 1000000);
        opens(in_folder("long.gguf"), TOKEN_BYTES);
        ck_assert_msg(kvt_model_weights(in_folder("long.gguf"), &bytes, problem, sizeof problem) == KVT_OK, "%s", problem);
        ck_assert_uint_eq(bytes, 4000000);
    }
    /* The file ends before the tensor does, which is not read. */
    store_gguf("long.gguf", 100000, 1000000, 999999);
    opens(in_folder("long.gguf"), TOKEN_BYTES);
    bytes = 5;
    ck_assert_int_eq(kvt_model_weights(in_folder("long.gguf"), &bytes, problem, sizeof problem), KVT_ERR_FILE);
    ck_assert_msg(strstr(problem, "long.gguf: is cut short: tensor w takes 4000000 bytes, and the file ends 4 bytes before its end") != NULL, "%s",
                  problem);
    ck_assert_uint_eq(bytes, 5);
    /* It ends inside the metadata, beyond the first megabyte. */
    ck_assert_int_eq(truncate(in_folder("long.gguf"), 1100000), 0);
    kvt_model_file *model;
    ck_assert_int_eq(kvt_model_open(in_folder("long.gguf"), NULL, &model, problem, sizeof problem), KVT_ERR_FILE);
    ck_assert_msg(strstr(problem, "the file ends inside its metadata") != NULL, "%s", problem);
    /* A terabyte. Nobody needs to read more than its metadata claim to take, and that is too much. Windows has no files of holes alone. */
#if !defined(_WIN32)
    ck_assert_int_eq(truncate(in_folder("long.gguf"), (off_t)1 << 40), 0);
    ck_assert_int_eq(kvt_model_open(in_folder("long.gguf"), NULL, &model, problem, sizeof problem), KVT_ERR_FILE);
#endif
}
END_TEST

START_TEST(wrong_arguments)
{
    kvt_model_file *model = (kvt_model_file *)&model;
    char problem[KVT_PROBLEM_BYTES], name[9000];
    uint64_t bytes;
    ck_assert_int_eq(kvt_model_open(NULL, NULL, &model, problem, sizeof problem), KVT_ERR_NULL);
    ck_assert_ptr_null(model);
    ck_assert_str_eq(problem, "name: is NULL");
    ck_assert_int_eq(kvt_model_open("gemma-4-E2B", NULL, NULL, problem, sizeof problem), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_model_open("nosuch", NULL, &model, NULL, 0), KVT_ERR_NAME);
    ck_assert_int_eq(kvt_model_weights(NULL, &bytes, problem, sizeof problem), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_model_weights(folder, NULL, problem, sizeof problem), KVT_ERR_NULL);
    ck_assert_ptr_null(kvt_model_get(NULL));
    ck_assert_str_eq(kvt_model_notes(NULL), "");
    kvt_model_close(NULL);

    /* Any room, and names of any length and bytes: a message ends within the room, and is one line. */
    memset(name, 'x', sizeof name - 1);
    name[3] = '\n';
    name[5] = '\xff';
    for (size_t length = 10; length < sizeof name; length = length * 5 / 3) {
        name[length] = '\0';
        for (size_t room = 0; room < sizeof problem; room = room < 200 ? room + 1 : room + 97) {
            memset(problem, '~', sizeof problem);
            ck_assert_int_eq(kvt_model_open(name, NULL, &model, problem, room), KVT_ERR_NAME);
            ck_assert(room == 0 || memchr(problem, '\0', room) != NULL);
            ck_assert(room == 0 || strchr(problem, '\n') == NULL);
            ck_assert(room == sizeof problem || problem[room] == '~');
            if (room > 250) /* the reason is whole, however long the name is */
                ck_assert_msg(strstr(problem, "a name of the catalogue would be right") != NULL, "%s", problem);
        }
        name[length] = 'x';
    }
}
END_TEST

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    Suite *suite = suite_create("find");
    TCase *cases = tcase_create("find");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, files_folders_names);
    tcase_add_test(cases, ignored_fields_and_notes);
    tcase_add_test(cases, long_metadata);
    tcase_add_test(cases, wrong_arguments);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    static const char *const names[] = { "config.json", "bad.json", "empty.gguf", "strange.json", "long.gguf" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_folder(names[i]));
    rmdir(folder);
    return failed != 0;
}
