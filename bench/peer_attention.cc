// SPDX-License-Identifier: MIT
// Times one ggml_flash_attn_ext of a layer by the ggml of llama.cpp, or, built with -DIK, of ik_llama.cpp, in the shape of `kvtile bench --ops
// attend`. docs/performance.md ("Beside other engines") has the commands; CMake does not know it.
//
//   peer_attention TYPES GROUPS THREADS [TOKENS [QUERIES [ROUNDS]]]
//     TYPES    of the cache: f16,q8_0,q8_KV/q8_0 (keys and values)
//     QUERIES  the last of TOKENS, each of which sees what is before it
//   GGML_CPU   a file of llama.cpp's CPU backend
//   BY_HEAD    rows of a head lie side by side, as no engine has them
//   LAYERS     (default: so many that no cache holds them)
#include <ggml-backend.h>
#include <ggml.h>
#ifndef IK
#include <ggml-cpu.h>
#endif

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <vector>

static const int64_t DIM = 128, KV_HEADS = 8, ROWS_AT_ONCE = 512 * KV_HEADS;
static const size_t LAST_LEVEL_CACHE = 32u << 20, HUGE_PAGE = 2u << 20;
static const bool by_head = getenv("BY_HEAD") != nullptr;

static void fail(const std::string &what)
{
    fprintf(stderr, "peer_attention: %s\n", what.c_str());
    exit(2);
}

static ggml_type type_named(const std::string &name)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *other = ggml_type_name((ggml_type)i);
        if (other && name == other)
            return (ggml_type)i;
    }
    fail("\"" + name + "\" is no type of this ggml");
    return GGML_TYPE_COUNT;
}
static void to_floats(ggml_type type, const void *row, float *to)
{
#ifdef IK
    ggml_internal_get_type_traits(type).to_float(row, to, DIM);
#else
    if (type == GGML_TYPE_F16)
        ggml_fp16_to_fp32_row((const ggml_fp16_t *)row, to, DIM);
    else
        ggml_get_type_traits(type)->to_float(row, to, DIM);
#endif
}

// In huge pages, as bench/buffers.c has them.
static char *allocate(size_t bytes)
{
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *all = mmap(nullptr, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        fail("not enough memory");
    char *aligned = (char *)(((uintptr_t)all + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(aligned, bytes, MADV_HUGEPAGE);
    memset(aligned, 0, bytes);
    return aligned;
}

static void fill_normal(float *x, size_t n)
{
    static uint64_t state = 88172645463325252u;
    double uniform[2];
    for (size_t i = 0; i < n; i += 2) {
        for (double &u : uniform) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u = ((double)(state >> 11) + 0.5) * 0x1p-53;
        }
        const double r = sqrt(-2 * log(uniform[0])), angle = 2 * M_PI * uniform[1];
        x[i] = (float)(r * cos(angle));
        x[i + 1] = (float)(r * sin(angle));
    }
}

static std::vector<std::string> split(const char *text, char at)
{
    std::vector<std::string> parts(1);
    for (; *text; text++) {
        if (*text == at)
            parts.emplace_back();
        else
            parts.back() += *text;
    }
    return parts;
}

static ggml_backend_t open_backend(int threads)
{
#ifdef IK
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, threads);
#else
    const char *path = getenv("GGML_CPU");
    ggml_backend_reg_t reg = path ? ggml_backend_load(path) : nullptr;
    if (!reg)
        fail("GGML_CPU has to name a file of llama.cpp's CPU backend");
    ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), nullptr);
    ((ggml_backend_set_n_threads_t)ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"))(backend, threads);
    auto open_pool = (decltype(ggml_threadpool_new) *)ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new");
    auto use_pool = (decltype(ggml_backend_cpu_set_threadpool) *)ggml_backend_reg_get_proc_address(reg, "ggml_backend_cpu_set_threadpool");
    ggml_threadpool_params pool = ggml_threadpool_params_default(threads);
    use_pool(backend, open_pool(&pool));
#endif
    return backend;
}
static void compute(ggml_backend_t backend, ggml_context *context, ggml_tensor *result)
{
    ggml_cgraph *graph = ggml_new_graph_custom(context, 16, false);
    ggml_build_forward_expand(graph, result);
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS)
        fail("the graph cannot be computed");
}
static ggml_tensor *leaf(ggml_context *context, ggml_type type, const std::vector<int64_t> &shape, void *data)
{
    ggml_tensor *x = ggml_new_tensor(context, type, (int)shape.size(), shape.data());
    x->data = data;
    return x;
}

// Keys or values: of each token the rows of all heads, or of each head those of all tokens.
struct side {
    ggml_type type;
    size_t row_bytes;
    char *rows; // of the first layer

    size_t token_stride() const { return by_head ? row_bytes : row_bytes * KV_HEADS; }
    size_t head_stride(int64_t tokens) const { return by_head ? row_bytes * tokens : row_bytes; }
    ggml_tensor *view(ggml_context *context, int64_t tokens, size_t layer) const
    {
        ggml_tensor *all = leaf(context, type, { DIM, KV_HEADS * tokens }, rows + layer);
        return ggml_view_3d(context, all, DIM, tokens, KV_HEADS, token_stride(), head_stride(tokens), 0);
    }
};

// Rows as an engine stores them: copied into the cache by ggml.
static void store_rows(ggml_backend_t backend, const side &s, int64_t tokens)
{
    float *source = (float *)allocate(ROWS_AT_ONCE * DIM * sizeof(float));
    for (int64_t row = 0; row < tokens * KV_HEADS; row += ROWS_AT_ONCE) {
        const int64_t n = std::min(ROWS_AT_ONCE, tokens * KV_HEADS - row);
        fill_normal(source, n * DIM);
        ggml_context *context = ggml_init({ (size_t)4 << 20, nullptr, true });
        compute(backend, context,
                ggml_cpy(context, leaf(context, GGML_TYPE_F32, { DIM, n }, source), leaf(context, s.type, { DIM, n }, s.rows + row * s.row_bytes)));
        ggml_free(context);
    }
}

// The relative error of results beside attention in double precision on the rows as they are stored; of many queries every 61st counts.
static double relative_error(const side &keys, const side &values, const float *x, const float *result, int64_t tokens, int64_t queries, int group)
{
    double error = 0, all = 0;
    std::vector<float> k(tokens * DIM), v(tokens * DIM);
    std::vector<double> weight(tokens), sum(DIM);
    for (int64_t head = 0; head < KV_HEADS; head++) {
        for (int64_t t = 0; t < tokens; t++) {
            to_floats(keys.type, keys.rows + t * keys.token_stride() + head * keys.head_stride(tokens), &k[t * DIM]);
            to_floats(values.type, values.rows + t * values.token_stride() + head * values.head_stride(tokens), &v[t * DIM]);
        }
        for (int64_t row = head * group; row < (head + 1) * group; row++)
            for (int64_t i = queries - 1; i >= 0; i -= 61) {
                const int64_t at = (i * KV_HEADS * group + row) * DIM, seen = tokens - queries + i + 1;
                double largest = -INFINITY, weights = 0;
                for (int64_t t = 0; t < seen; t++) {
                    weight[t] = 0;
                    for (int64_t c = 0; c < DIM; c++)
                        weight[t] += (double)x[at + c] * k[t * DIM + c] / sqrt((double)DIM);
                    largest = std::max(largest, weight[t]);
                }
                std::fill(sum.begin(), sum.end(), 0.0);
                for (int64_t t = 0; t < seen; t++) {
                    const double w = exp(weight[t] - largest);
                    weights += w;
                    for (int64_t c = 0; c < DIM; c++)
                        sum[c] += w * v[t * DIM + c];
                }
                for (int64_t c = 0; c < DIM; c++) {
                    const double exact = sum[c] / weights, difference = exact - result[at + c];
                    error += difference * difference;
                    all += exact * exact;
                }
            }
    }
    return sqrt(error / all);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        fail("TYPES GROUPS THREADS [TOKENS [QUERIES [ROUNDS]]] would be right, as f16,q8_0 1,4 1");
    const int64_t tokens = argc > 4 ? atoll(argv[4]) : 32768, queries = argc > 5 ? atoll(argv[5]) : 1;
    const int rounds = argc > 6 ? atoi(argv[6]) : 15;
    ggml_backend_t backend = open_backend(atoi(argv[3]));
    printf("%-16s %5s %10s %12s %10s\n", "types", "group", "bytes", "us", "error");
    for (const std::string &name : split(argv[1], ',')) {
        const std::vector<std::string> two = split(name.c_str(), '/');
        side keys = { type_named(two.front()), 0, nullptr }, values = { type_named(two.back()), 0, nullptr };
        keys.row_bytes = ggml_row_size(keys.type, DIM);
        values.row_bytes = ggml_row_size(values.type, DIM);
        const size_t key_bytes = keys.row_bytes * KV_HEADS * tokens,
                     layer_bytes = (key_bytes + values.row_bytes * KV_HEADS * tokens + 4095) & ~(size_t)4095;
        const size_t layers =
            getenv("LAYERS") ? (size_t)atoi(getenv("LAYERS")) : std::max<size_t>(2, (3 * LAST_LEVEL_CACHE + layer_bytes - 1) / layer_bytes);
        keys.rows = allocate(layer_bytes * layers);
        values.rows = keys.rows + key_bytes;
        store_rows(backend, keys, tokens);
        store_rows(backend, values, tokens);
        for (size_t i = 1; i < layers; i++)
            memcpy(keys.rows + i * layer_bytes, keys.rows, layer_bytes);
        for (const std::string &group_text : split(argv[2], ',')) {
            const int group = atoi(group_text.c_str());
            const size_t numbers = (size_t)(KV_HEADS * group * queries * DIM);
            float *x = (float *)allocate(numbers * sizeof(float)), *result = (float *)allocate(numbers * sizeof(float));
            fill_normal(x, numbers);
            const int64_t mask_rows = (queries + 63) / 64 * 64;
            ggml_fp16_t *mask = (ggml_fp16_t *)allocate(mask_rows * tokens * sizeof(ggml_fp16_t));
            for (int64_t i = 0; i < queries; i++)
                std::fill(mask + i * tokens + tokens - queries + i + 1, mask + (i + 1) * tokens, ggml_fp32_to_fp16(-INFINITY));
            std::vector<double> us;
            for (int round = -1; round < rounds; round++) // the first is not counted
                for (size_t layer = 0; layer < layers; layer++) {
                    ggml_context *context = ggml_init({ (size_t)1 << 20, nullptr, true });
                    ggml_tensor *q = ggml_permute(context, leaf(context, GGML_TYPE_F32, { DIM, KV_HEADS * group, queries }, x), 0, 2, 1, 3);
                    ggml_tensor *attention = ggml_flash_attn_ext(
                        context, q, keys.view(context, tokens, layer * layer_bytes), values.view(context, tokens, layer * layer_bytes),
                        leaf(context, GGML_TYPE_F16, { tokens, mask_rows }, mask), 1 / sqrtf((float)DIM), 0, 0);
#ifndef IK
                    ggml_flash_attn_ext_set_prec(attention, GGML_PREC_F32); // as llama.cpp's graphs have it
#endif
                    attention->data = result;
                    const auto start = std::chrono::steady_clock::now();
                    compute(backend, context, attention);
                    if (round >= 0)
                        us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
                    ggml_free(context);
                }
            std::sort(us.begin(), us.end());
            printf("%-16s %5d %10zu %12.1f %10.2g\n", name.c_str(), group, keys.row_bytes + values.row_bytes, us[us.size() / 2],
                   relative_error(keys, values, x, result, tokens, queries, group));
            fflush(stdout);
        }
    }
}
