# SPDX-License-Identifier: MIT
"""Metadata of small models, one or more of each architecture of llama.cpp that has a cache of its own kind.

Widths are small, everything that decides about caches is as in real models: which layers slide, share, are recurrent or latent, and MTP layers.
Keys are those that llama.cpp's own converter writes for such models, so that what is measured is what people load.
"""

EMBEDDING = 256
FEED_FORWARD = 320
VOCABULARY = 64


class Model:
    """`never` are weights, by a part of their names, that the file shall not have: where a model has one or the other, it cannot have both."""

    def __init__(self, architecture, label="", never="attn_qkv", **keys):
        self.architecture = architecture
        self.label = label or architecture
        self.keys = keys
        self.never = never


def common(layers, heads=8, kv_heads=2, head=32, context=131072, **more):
    keys = {
        "vocab_size": VOCABULARY,
        "context_length": context,
        "embedding_length": EMBEDDING,
        "block_count": layers,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
    }
    if head:
        keys |= {"attention.key_length": head, "attention.value_length": head, "rope.dimension_count": head}
    return keys | {name.replace("__", "."): value for name, value in more.items()}


def experts(**more):
    keys = {
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 64,
        "expert_shared_feed_forward_length": 64,
        "expert_shared_count": 1,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "leading_dense_block_count": 1,
    }
    return keys | {name.replace("__", "."): value for name, value in more.items()}


def window(tokens, pattern=None):
    keys = {"attention.sliding_window": tokens}
    return keys if pattern is None else keys | {"attention.sliding_window_pattern": pattern}


def latent(rank=512, rope=64, k=192, v=128, q=96):
    return {
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": k,
        "attention.value_length_mla": v,
        "attention.kv_lora_rank": rank,
        "attention.q_lora_rank": q,
        "rope.dimension_count": rope,
    }


def indexer(width=128):
    return {"attention.indexer.head_count": 64, "attention.indexer.key_length": width, "attention.indexer.top_k": 64}


def ssm(inner, state, groups, ranks, kernel=4):
    keys = {"ssm.conv_kernel": kernel, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": ranks}
    return keys if groups is None else keys | {"ssm.group_count": groups}


def every(layers, period, yes, no):
    """The last of each period is `yes`."""
    return [yes if i % period == period - 1 else no for i in range(layers)]


def plain():
    for name in ("llama", "qwen2", "stablelm", "internlm2", "granite", "exaone", "smollm3", "seed_oss", "arcee", "apertus",
                 "nemotron", "orion", "xverse", "olmo", "chatglm", "glm4", "ernie4_5", "hunyuan-dense", "command-r", "gemma", "starcoder2",
                 "jais2", "mistral3", "pangu-embedded", "maincoder"):
        more = {}
        if name in ("granite",):
            more = {"logit_scale": 8.0, "residual_scale": 0.2, "embedding_scale": 12.0, "attention.scale": 0.01}
        if name == "command-r":
            more = {"logit_scale": 0.06}
        if name == "apertus":
            more = {f"/xielu.{key}": [1.0] * 4 for key in ("alpha_n", "alpha_p", "beta", "eps")}
        yield Model(name, **common(4, **({"kv_heads": 8} if name in ("orion", "xverse", "jais2") else {})), **more)
    yield Model("qwen3", **common(5, head=128))
    yield Model("llama", "llama with attention.sliding_window (Mistral-7B-v0.1)", **common(4), **window(4096))
    yield Model("phi3", "phi3 with attention.sliding_window (Phi-3-mini)", **common(4, kv_heads=8), **window(2047))
    yield Model("starcoder2", "starcoder2 with attention.sliding_window", **common(4), **window(4096))
    yield Model("phi2", **common(4, kv_heads=8))
    yield Model("gpt2", **common(4, kv_heads=8))
    yield Model("gptneox", **common(4, kv_heads=8), use_parallel_residual=True)
    yield Model("bloom", **common(4, kv_heads=8))
    yield Model("mpt", never="attn_qkv,attn_q_norm,attn_k_norm", **common(4, kv_heads=8), **{"attention.max_alibi_bias": 8.0})
    yield Model("falcon", **common(4, kv_heads=1))
    yield Model("minicpm", **common(4), embedding_scale=12.0, residual_scale=0.2, logit_scale=9.0)
    yield Model("minicpm3", **common(4, kv_heads=8, head=0),
                **{"attention.q_lora_rank": 96, "attention.kv_lora_rank": 64, "attention.key_length": 96, "attention.value_length": 64,
                   "rope.dimension_count": 32})
    yield Model("deci", **common(4) | {"attention.head_count": [8, 0, 8, 8], "attention.head_count_kv": [2, 0, 4, 1],
                                       "feed_forward_length": [320, 320, 0, 320]})
    yield Model("openelm", **common(4) | {"attention.head_count": [8, 8, 12, 16], "attention.head_count_kv": [2, 2, 3, 4],
                                          "feed_forward_length": [128, 192, 256, 320]})
    yield Model("nanbeige", "nanbeige, three loops", **common(3), num_loops=3)


def mixtures():
    for name in ("qwen2moe", "qwen3moe", "olmoe", "bailingmoe", "bailingmoe2", "dots1", "minimax-m2", "hunyuan-moe", "ernie4_5-moe", "granitemoe",
                 "grovemoe", "phimoe", "dbrx", "glm4moe", "deepseek", "hy_v3"):
        more = experts()
        if name == "ernie4_5-moe":
            more |= {"interleave_moe_layer_step": 1}
        if name == "granitemoe":
            more |= {"logit_scale": 8.0, "residual_scale": 0.2, "embedding_scale": 12.0, "attention.scale": 0.01}
        if name == "grovemoe":
            more |= {"expert_chunk_feed_forward_length": 32, "experts_per_group": 1, "expert_group_scale": 0.05}
        if name == "dbrx":
            more |= {"attention.clamp_kqv": 8.0}
        yield Model(name, **common(4, kv_heads=8 if name in ("olmoe", "dots1") else 2), **more)
    yield Model("glm4moe", "glm4moe with an MTP layer", **common(5), **experts(), nextn_predict_layers=1)
    yield Model("bailingmoe2", "bailingmoe2 with an MTP layer", **common(5), **experts(), nextn_predict_layers=1)
    yield Model("hy_v3", "hy_v3 with an MTP layer", **common(5), **experts(), nextn_predict_layers=1)


def sliding():
    yield Model("gemma2", **common(6), **window(4096))
    yield Model("gemma3", **common(14), **window(1024))
    yield Model("gemma3", "gemma3 with a list that is not every sixth", **common(7), **window(1024, [True] * 6 + [False]))
    yield Model("gemma3", "gemma3 without a window", **common(4))
    yield Model("gemma3n", **common(30), **window(512, [i % 5 != 4 for i in range(30)]), **{
        "embedding_length_per_layer_input": 32, "altup.num_inputs": 4, "altup.active_idx": 0, "attention.shared_kv_layers": 10})
    yield Model("gemma4", "gemma4 (E2B: 20 of 35 layers share)", **common(35, kv_heads=1, head=128), **window(512, [i % 5 != 4 for i in range(35)]), **{
        "attention.key_length_swa": 64, "attention.value_length_swa": 64, "rope.dimension_count_swa": 64, "attention.shared_kv_layers": 20,
        "embedding_length_per_layer_input": 32, "rope.freq_base_swa": 10000.0})
    yield Model("gemma4", "gemma4 (26B: fewer heads in full layers)", **common(12, head=128) | experts() | {
        "attention.head_count_kv": [8 if i % 6 != 5 else 2 for i in range(12)]}, **window(1024, [i % 6 != 5 for i in range(12)]), **{
        "attention.key_length_swa": 64, "attention.value_length_swa": 64, "rope.dimension_count_swa": 64, "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": 0, "rope.freq_base_swa": 10000.0})
    yield Model("cohere2", **common(8), **window(4096), logit_scale=0.25)
    yield Model("cohere2moe", "cohere2moe with an MTP layer", **common(9), **experts(), **window(1024, [i % 4 != 0 for i in range(8)]), logit_scale=0.25,
                nextn_predict_layers=1)
    yield Model("gpt-oss", **common(6), **experts(), **window(128))
    yield Model("llama4", **common(8), **experts(interleave_moe_layer_step=1))
    yield Model("olmo2", **common(4))
    yield Model("olmo2", "olmo2 with a window (OLMo 3)", **common(8), **window(4096, [i % 4 != 3 for i in range(8)]))
    yield Model("exaone4", "exaone4 of 30 layers", **common(30))
    yield Model("exaone4", "exaone4 of 64 layers", **common(64), **window(4096, [i % 4 != 3 for i in range(64)]))
    yield Model("exaone-moe", "exaone-moe with an MTP layer", **common(9), **experts(), **window(128, [i % 4 != 3 for i in range(9)]),
                nextn_predict_layers=1)
    yield Model("afmoe", **common(8), **experts(), **window(2048))
    yield Model("smallthinker", **common(8), **experts(), **window(4096))
    yield Model("plamo3", **common(8), **window(2048, 8))
    yield Model("laguna", **common(8), **experts(), **window(512))
    yield Model("mellum", **common(8), **experts(), **window(1024, [i % 4 != 3 for i in range(8)]))
    yield Model("mimo2", **common(7, head=96) | {"attention.value_length": 64, "attention.head_count_kv": [2, 4, 4, 4, 4, 4, 2]}, **experts(),
                **window(128, [0, 1, 1, 1, 1, 1, 0]))
    yield Model("mimo2", "mimo2 with an MTP layer", never=",".join(f"blk.{i}.attn_qkv" for i in range(6)), **common(7, head=96) | {"attention.value_length": 64, "attention.head_count_kv": [2, 4, 4, 4, 4, 2, 4]},
                **experts(), **window(128, [0, 1, 1, 1, 1, 0]), nextn_predict_layers=1)
    yield Model("step35", "step35 with an MTP layer", **common(9) | {"attention.head_count": [8, 12, 12, 12, 8, 12, 12, 12, 12]}, **experts(),
                **window(512, [0, 1, 1, 1, 0, 1, 1, 1, 1]), nextn_predict_layers=1)
    yield Model("granite_swa", **common(8), **window(1024, [i % 4 != 3 for i in range(8)]), logit_scale=8.0)
    yield Model("muse-glimmer", **common(8), **window(512, [i % 4 != 3 for i in range(8)]), logit_scale=1.0)


def latents():
    for name in ("deepseek2", "mistral4"):
        yield Model(name, name + " (MLA)", **common(4, kv_heads=1, head=0, heads=4) | latent(), **experts())
    yield Model("deepseek2", "deepseek2 without key_length_mla (old files)",
                **common(4, kv_heads=4, heads=4, head=0) | {"attention.key_length": 192, "attention.value_length": 128, "attention.kv_lora_rank": 512,
                                                            "attention.q_lora_rank": 96, "rope.dimension_count": 64}, **experts())
    yield Model("deepseek2", "deepseek2 (MLA) with an MTP layer", **common(5, kv_heads=1, head=0, heads=4) | latent(), **experts(),
                nextn_predict_layers=1)
    yield Model("deepseek32", "deepseek32 with an MTP layer", **common(5, kv_heads=1, head=0, heads=4) | latent(), **experts(), **indexer(),
                nextn_predict_layers=1)
    yield Model("glm-dsa", "glm-dsa with an MTP layer (GLM-5)", **common(6, kv_heads=1, head=0, heads=4, context=202752) | latent(), **experts(),
                **indexer(), nextn_predict_layers=1)
    yield Model("glm-dsa", "glm-dsa of 2^20 tokens without a list", **common(12, kv_heads=1, head=0, heads=4, context=1 << 20) | latent(), **experts(),
                **indexer())
    yield Model("glm-dsa", "glm-dsa with a list of indexers (GLM-5.2)", **common(8, kv_heads=1, head=0, heads=4, context=1 << 20) | latent(), **experts(),
                **indexer(), **{"attention.indexer.types": [1, 1, 0, 0, 1, 0, 0, 1]})
    yield Model("dots3note", **common(6, kv_heads=1, head=0, heads=4) | latent() | experts() | indexer(), **window(512, [0, 1, 1, 0, 1, 1]), **{
        "attention.indexer.types": [1, 0, 0, 1, 0, 0], "attention.kv_lora_rank_swa": 256, "attention.key_length_swa": 320,
        "attention.value_length_swa": 256, "attention.key_length_mla_swa": 128, "attention.value_length_mla_swa": 64, "rope.freq_base_swa": 10000.0,
        "rope.dimension_count_swa": 64})
    yield Model("minimax-m3", **common(5, heads=8, kv_heads=2) | experts() | indexer() | {
        "attention.indexer.head_count": 2, "attention.indexer.block_size": 128, "attention.indexer.local_blocks": 1})
    for label, layers, nextn in (("deepseek4", 6, 0), ("deepseek4 with an MTP layer", 7, 1)):
        yield Model("deepseek4", label, **common(layers, heads=8, kv_heads=1, head=128) | experts(expert_gating_func=4) | indexer(64) | {
            "attention.q_lora_rank": 64, "rope.dimension_count": 32, "attention.compress_ratios": ([0, 0, 4, 128, 4, 128] + [0])[:layers],
            "attention.sliding_window": 128, "attention.output_group_count": 8, "attention.output_lora_rank": 32,
            "attention.compress_rope_freq_base": 160000.0, "hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 2,
            "hyper_connection.epsilon": 1e-6, "hash_layer_count": 0, "swiglu_clamp_exp": [10.0] * layers},
            **({"nextn_predict_layers": nextn} if nextn else {}))


def states():
    yield Model("mamba", **common(4, heads=0, kv_heads=0, head=0), **ssm(512, 16, None, 16))
    yield Model("mamba2", **common(4, heads=0, kv_heads=0, head=0), **ssm(512, 64, 2, 8))
    yield Model("jamba", **common(8) | {"attention.head_count_kv": every(8, 4, 2, 0)}, **experts(), **ssm(512, 16, None, 16))
    yield Model("falcon-h1", **common(4), **ssm(512, 64, 2, 8))
    yield Model("plamo2", **common(4) | {"attention.head_count_kv": every(4, 2, 2, 0), "attention.head_count": every(4, 2, 8, 0)},
                **ssm(512, 64, 0, 8))
    yield Model("granitehybrid", **common(8) | {"attention.head_count_kv": every(8, 4, 2, 0)}, **ssm(512, 64, 1, 8), logit_scale=8.0,
                residual_scale=0.2, embedding_scale=12.0, **{"attention.scale": 0.01, "rope.scaling.finetuned": False})
    yield Model("lfm2", **common(6) | {"attention.head_count_kv": every(6, 3, 2, 0)}, **{"shortconv.l_cache": 3})
    yield Model("lfm2", "lfm2 with a window", **common(6) | {"attention.head_count_kv": every(6, 3, 2, 0)}, **{"shortconv.l_cache": 3},
                **window(1024))
    yield Model("lfm2moe", **common(6) | experts() | {"attention.head_count_kv": every(6, 3, 2, 0)}, **{"shortconv.l_cache": 3})
    for name, moe in (("nemotron_h", {}), ("nemotron_h_moe", experts() | {"expert_latent_size": 64})):
        yield Model(name, **common(9) | moe | {"attention.head_count_kv": [0, 0, 2, 0, 0, 0, 2, 0, 0],
                                                        "feed_forward_length": [0, 320, 0, 0, 320, 0, 0, 0, 320]}, **ssm(512, 64, 2, 8))
    for name, moe in (("qwen3next", experts()), ("qwen35", {}), ("qwen35moe", experts())):
        more = {} if name == "qwen3next" else {"rope.dimension_sections": [11, 11, 10, 0]}
        for nextn in (0, 1):
            never = "attn_qkv" if name == "qwen3next" else "blk.3.attn_qkv,blk.7.attn_qkv,blk.8.attn_qkv"
            yield Model(name, name + " with an MTP layer" * nextn, never=never, **common(8 + nextn), **moe, **ssm(256, 64, 2, 4), **more,
                        **{"full_attention_interval": 4} | ({"nextn_predict_layers": 1} if nextn else {}))
    for name in ("kimi-linear", "kimi-k3", "bailingmoe3"):
        more = {"expert_latent_size": 64, "attn_res.block_size": 12, "activation.situ_beta": 4.0, "activation.situ_linear_beta": 25.0,
                "kda.gate_lower_bound": -5.0}
        yield Model(name, never="attn_qkv,attn_kv_b", **common(8, heads=4, head=0) | experts() | latent() | {"attention.head_count_kv": every(8, 4, 1, 0)},
                    **{"ssm.conv_kernel": 4, "kda.head_dim": 64}, **({} if name == "kimi-linear" else more))
    yield Model("minimax-01", **common(8), **experts(), residual_scale=3.5, **{"full_attention_interval": 4})
    yield Model("qwen4exp", **common(8, head=64) | experts() | indexer(64) | ssm(256, 64, 2, 4) | {
        "rope.dimension_sections": [11, 11, 10, 0], "full_attention_interval": 4, "hyper_connection.count": 4, "hyper_connection.low_rank": 8,
        "attention.compress_ratios": [4] * 8, "attention.indexer.block_size": 4, "attention.indexer.local_blocks": 1})
    for name in ("rwkv6", "rwkv7"):
        yield Model(name, **common(4, heads=0, kv_heads=0, head=0), **{"wkv.head_size": 64, "time_mix_extra_dim": 32, "time_decay_extra_dim": 64,
                                                                       "rescale_every_n_layers": 6, "attention.decay_lora_rank": 64,
                                                                       "attention.iclr_lora_rank": 64, "attention.value_residual_mix_lora_rank": 32,
                                                                       "attention.gate_lora_rank": 64, "token_shift_count": 2})
    yield Model("t5", **common(4, kv_heads=8), **{"attention.relative_buckets_count": 32, "decoder_start_token_id": 0,
                                                           "decoder_block_count": 4})


def models():
    for group in (plain, mixtures, sliding, latents, states):
        yield from group()
