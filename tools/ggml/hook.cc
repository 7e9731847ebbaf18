/* SPDX-License-Identifier: MIT */
#include "tools/ggml/hook.h"

#include "tools/ggml/ops.h"
#include "tools/ggml/prefix.h"

#include <vector>

/* As in ggml-cpu/traits.h. */
namespace ggml::cpu
{
class tensor_traits
{
  public:
    virtual ~tensor_traits() = default;
    virtual bool work_size(int threads, const ggml_tensor *op, size_t &bytes) = 0;
    virtual bool compute_forward(ggml_workers *with, ggml_tensor *op) = 0;
};

class extra_buffer_type
{
  public:
    virtual ~extra_buffer_type() = default;
    virtual bool supports_op(ggml_backend_dev_t device, const ggml_tensor *op) = 0;
    virtual tensor_traits *get_tensor_traits(const ggml_tensor *op) = 0;
};
} // namespace ggml::cpu

namespace
{
struct traits final : ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor *op, size_t &bytes) override
    {
        if (prefix_is_on())
            prefix_plan(op);
        return ops_concerns(op) && ops_plan(threads, op, &bytes);
    }
    bool compute_forward(ggml_workers *with, ggml_tensor *op) override
    {
        return (prefix_is_on() && prefix_compute(with, op)) || (ops_concerns(op) && ops_compute(with, op));
    }
} cache_traits;

struct buffer_type final : ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor *op) override { return ops_supports(op); }
    ggml::cpu::tensor_traits *get_tensor_traits(const ggml_tensor *op) override
    {
        return prefix_is_on() || ops_concerns(op) ? &cache_traits : nullptr;
    }
} cache_buffer_type;
} // namespace

void *hook_context(void)
{
    return static_cast<ggml::cpu::extra_buffer_type *>(&cache_buffer_type);
}

void hook_add(void *list, ggml_backend_buffer_type_t type)
{
    auto &types = reinterpret_cast<std::vector<ggml_backend_buffer_type_t> &(*)()>(list)();
    types.insert(types.begin(), type);
}
