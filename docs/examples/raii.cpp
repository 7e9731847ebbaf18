/* SPDX-License-Identifier: MIT */
// kvtile in C++: memory and errors are the language's, the calls are the library's.
//
//     c++ raii.cpp $(pkg-config --cflags --libs kvtile)
#include <kvtile/attend.h>
#include <kvtile/step.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

static void check(kvt_status status)
{
    if (status)
        throw std::runtime_error(kvt_status_text(status));
}

// Keys and values of one sequence in one layer.
class Cache
{
  public:
    Cache(kvt_spec spec, size_t tokens)
    {
        spec.size = sizeof spec;
        char problem[256];
        if (kvt_spec_problem(&spec, problem, sizeof problem))
            throw std::invalid_argument(problem);
        check(kvt_layout_init(&layout_, &spec));
        size_t bytes;
        check(kvt_layout_bytes(&layout_, tokens, &bytes));
        memory_.reset(std::aligned_alloc(64, bytes));
        pages_.resize(spec.kv_heads);
        for (uint32_t head = 0; head < spec.kv_heads; head++)
            check(kvt_head_pages(&layout_, memory_.get(), tokens, head, &pages_[head]));
    }

    // One token's rows of all KV heads, [head][dim].
    void append(const std::vector<float> &keys, const std::vector<float> &values)
    {
        check(kvt_append(&layout_, KVT_K, pages_.data(), stored_, keys.data(), KVT_F32, layout_.k.dim * sizeof(float)));
        check(kvt_append(&layout_, KVT_V, pages_.data(), stored_, values.data(), KVT_F32, layout_.v.dim * sizeof(float)));
        stored_++;
    }

    // What the newest token's queries see, [head][dim].
    std::vector<float> attend(const std::vector<float> &queries, uint32_t heads)
    {
        const uint32_t group = heads / layout_.spec.kv_heads;
        std::vector<float> out(heads * layout_.v.dim);
        for (uint32_t head = 0; head < layout_.spec.kv_heads; head++) {
            kvt_segment all{};
            all.layout = &layout_;
            all.pages = pages_[head];
            kvt_attention a{};
            a.size = sizeof a;
            a.segments = &all, a.n_segments = 1;
            a.end = stored_, a.position = stored_ - 1;
            a.group = group, a.query_tokens = 1;
            a.queries = &queries[head * group * layout_.k.dim];
            a.query_dtype = a.out_dtype = KVT_F32;
            a.query_head_stride = layout_.k.dim * sizeof(float);
            a.out = &out[head * group * layout_.v.dim];
            a.out_head_stride = layout_.v.dim * sizeof(float);
            a.scale = 1 / std::sqrt(static_cast<float>(layout_.k.dim));
            kvt_attend_sizes sizes;
            check(kvt_attend_plan_sizes(&a, &sizes));
            workspace_.resize(sizes.workspace_bytes);
            check(kvt_attend(&a, workspace_.data()));
        }
        return out;
    }

  private:
    kvt_layout layout_;
    size_t stored_ = 0;
    std::unique_ptr<void, decltype(&std::free)> memory_{ nullptr, std::free };
    std::vector<kvt_pages> pages_;
    std::vector<char> workspace_;
};

int main()
{
    kvt_spec spec{};
    spec.k_scheme = KVT_SCHEME_kv5, spec.v_scheme = KVT_SCHEME_kv4, spec.k_dim = spec.v_dim = 64, spec.kv_heads = 2;
    Cache cache(spec, 100);
    std::minstd_rand random;
    std::vector<float> q(8 * 64), k(2 * 64), v(2 * 64), out;
    for (int token = 0; token < 100; token++) {
        for (auto *row : { &q, &k, &v })
            for (float &x : *row)
                x = static_cast<float>(random()) / static_cast<float>(random.max()) - 0.5f;
        cache.append(k, v);
        out = cache.attend(q, 8);
    }
    std::printf("100 tokens; the last result begins with %g\n", out[0]);
}
