#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the layers of published models keep, computed a second time: from each family's modelling code, in plain Python and with nothing taken
from kvtile's reader. tests/model/size_configs.py compares kvtile with it.

    size_reference.py CONFIG.json...     one line for each: bytes that grow / for so many tokens | bytes of a token until windows are full | state

16 bits for keys and values. Sources: huggingface/transformers 5.24 (models/TYPE/configuration_TYPE.py and modeling_TYPE.py), vLLM 0.33
(mamba_utils.py and the models' get_mamba_state_shape_from_config), mlx-lm 0.32 (make_cache of models/TYPE.py), and the repositories' own code
for types that transformers does not have. The states of DeepSeek-V4's compressors were written from memory of DeepSeek's inference code, which
was not at hand; vLLM 0.33 (models/deepseek_v4/compressor.py) has the same number of float32 in them. Cross attention does not grow with context
and is not in the line."""
import json
import sys
from fractions import Fraction

ELEMENT = 2  # bytes of f16 and bf16
SINGLE = 4  # bytes of float32


class Unknown(Exception):
    """The family has no rule here."""


class Sum:
    """What all layers keep together."""

    def __init__(self, longest=None):
        self.growing, self.window, self.state = Fraction(0), 0, 0
        self.longest = longest

    def attention(self, heads, key, value=None, window=None, tokens_per_row=1):
        """A layer's rows. One that sees as far as the model's longest context is an ordinary one."""
        row = heads * (key + (key if value is None else value)) * ELEMENT
        if window is None or (self.longest and window >= self.longest):
            self.growing += Fraction(row, tokens_per_row)
        else:
            self.window += row

    def line(self):
        return f"{self.growing.numerator}/{self.growing.denominator} | {self.window} | {self.state}"


def first(config, *names):
    for name in names:
        if config.get(name) is not None:
            return config[name]
    return None


def shape(config, head_dim=None):
    """Layers, KV heads and head_dim of a plain decoder. Without KV heads each query head has its own."""
    layers = first(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    queries = first(config, "num_attention_heads", "n_head", "n_heads", "num_heads")
    heads = first(config, "num_key_value_heads", "n_head_kv", "num_kv_heads", "n_kv_heads") or queries
    width = config.get("head_dim") or head_dim or first(config, "hidden_size", "n_embd", "hidden_dim", "d_model") // queries
    return layers, heads, width


# ---- states --------------------------------------------------------------------------------------------------------------------------------------


def state_bytes(config, otherwise=ELEMENT):
    """Of an element of a state matrix: what the file names."""
    name = first(config, "mamba_ssm_dtype", "mamba_ssm_cache_dtype")
    return otherwise if name is None else {"float32": SINGLE, "bfloat16": 2, "float16": 2}[name]


def delta_net(c):
    keys, values = c["linear_num_key_heads"] * c["linear_key_head_dim"], c["linear_num_value_heads"] * c["linear_value_head_dim"]
    return (c["linear_conv_kernel_dim"] - 1) * (2 * keys + values) * ELEMENT + values * c["linear_key_head_dim"] * state_bytes(c)


def mamba2(kernel, heads, dim, groups, state, element):
    return (kernel - 1) * (heads * dim + 2 * groups * state) * ELEMENT + heads * dim * state * element


def mamba1(inner, state, kernel, element=ELEMENT):
    return (kernel - 1) * inner * ELEMENT + inner * state * element


# ---- families --------------------------------------------------------------------------------------------------------------------------------------


def plain(c, total, head_dim=None, windows=None):
    """`windows`: the window of each layer, None where it sees everything."""
    layers, heads, width = shape(c, head_dim)
    for window in windows or [None] * layers:
        total.attention(heads, width, window=window)


def by_types(c, default):
    """The window of each layer: layer_types, or the class's own rule (a function of the layer's number that says whether it slides)."""
    layers = shape(c, 1)[0]
    types = c.get("layer_types") or ["sliding_attention" if default(i) else "full_attention" for i in range(layers)]
    window = first(c, "sliding_window", "sliding_window_size")
    return [{"sliding_attention": window, "full_attention": None}[kind] for kind in types[:layers]]


def latent(c, total, each=1):
    """MLA, and the indexer's keys where a model has one."""
    layers = first(c, "num_hidden_layers", "num_layers")
    kinds = c.get("indexer_types") or ["full"] * layers
    for layer in range(layers):
        total.growing += each * (c["kv_lora_rank"] + c["qk_rope_head_dim"]) * ELEMENT
        if c.get("index_head_dim") and kinds[layer] == "full":
            total.growing += c["index_head_dim"] * ELEMENT


def deepseek_v4(c, total):
    """Each layer has a window of rows that are key and value in one. A compressor makes one more row of `ratio` tokens; what it has gathered for
    the next row is kept in float32 with its gates, twice as much of it at ratio 4, where a row covers two stretches. There an indexer has a
    compressor and rows of its own."""
    for ratio in c["compress_ratios"][:c["num_hidden_layers"]]:
        total.attention(1, c["head_dim"], 0, window=c["sliding_window"])
        if not ratio:
            continue
        stretches = 2 if ratio == 4 else 1
        for width in [c["head_dim"]] + ([c["index_head_dim"]] if ratio == 4 else []):
            total.attention(1, width, 0, tokens_per_row=ratio)
            total.state += 2 * (stretches * ratio) * (stretches * width) * SINGLE


def gemma4(c, total):
    kinds = c["layer_types"]
    for kind in kinds[:c["num_hidden_layers"] - (c.get("num_kv_shared_layers") or 0)]:
        if kind == "sliding_attention":
            total.attention(c["num_key_value_heads"], c["head_dim"], window=c["sliding_window"])
        else:
            heads = first(c, "num_global_key_value_heads") if c.get("attention_k_eq_v") else None
            total.attention(heads or c["num_key_value_heads"], c.get("global_head_dim") or c["head_dim"])


def gemma3n(c, total):
    for kind in c["layer_types"][:c["num_hidden_layers"] - c["num_kv_shared_layers"]]:
        total.attention(c["num_key_value_heads"], c["head_dim"], window=c["sliding_window"] if kind == "sliding_attention" else None)


def llama4(c, total):
    """Layers without rotary positions see everything; the others a chunk."""
    layers, heads, width = shape(c)
    rotary = c.get("no_rope_layers") or [(i + 1) % c.get("no_rope_layer_interval", 4) for i in range(layers)]
    plain(c, total, windows=[c.get("attention_chunk_size", 8192) if use else None for use in rotary])


def mimo_v2(c, total):
    for slides in c["hybrid_layer_pattern"]:
        if slides:
            total.attention(c["swa_num_key_value_heads"], c["swa_head_dim"], c["swa_v_head_dim"],
                            window=first(c, "sliding_window", "sliding_window_size"))
        else:
            total.attention(c["num_key_value_heads"], c["head_dim"], c["v_head_dim"])


def minimax_m3(c, total):
    plain(c, total)
    sparse = c["sparse_attention_config"]
    total.growing += sum(map(bool, sparse["sparse_attention_freq"])) * sparse["sparse_index_dim"] * ELEMENT


def minimax(c, total):
    """Lightning attention keeps a matrix of each query head; which layers have it the file says (1 in attn_type_list: attention)."""
    layers, heads, width = shape(c)
    for kind in first(c, "layer_types", "attn_type_list"):
        if kind in ("full_attention", 1):
            total.attention(heads, width)
        else:
            total.state += c["num_attention_heads"] * width * width * state_bytes(c)


def nemotron_nas(c, total):
    for block in c["block_configs"]:
        attention = block["attention"]
        if not attention.get("no_op") and not attention.get("replace_with_linear"):
            total.attention(c["num_attention_heads"] // attention["n_heads_in_group"], c["hidden_size"] // c["num_attention_heads"])


def nemotron_h(c, total):
    """The class keeps the state in float32 unless the file says otherwise."""
    for kind in first(c, "hybrid_override_pattern", "layers_block_type"):
        if kind in ("M", "mamba"):
            total.state += mamba2(c["conv_kernel"], c["mamba_num_heads"], c["mamba_head_dim"], c["n_groups"], c["ssm_state_size"],
                                  state_bytes(c, SINGLE))
        elif kind in ("*", "attention"):
            width = first(c, "head_dim", "attention_head_dim") or c["hidden_size"] // c["num_attention_heads"]
            total.attention(c["num_key_value_heads"], width)


def qwen3_next(c, total):
    layers, heads, width = shape(c, 256)
    every = c.get("full_attention_interval", 4)
    types = c.get("layer_types") or ["linear_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    for kind in types:
        if kind == "full_attention":
            total.attention(heads, width)
        else:
            total.state += delta_net(c)


def kimi_linear(c, total):
    linear = c["linear_attn_config"]
    for layer in range(1, c["num_hidden_layers"] + 1):
        if layer in linear["kda_layers"]:
            inner = linear["num_heads"] * linear["head_dim"]
            total.state += (linear["short_conv_kernel_size"] - 1) * 3 * inner * ELEMENT + inner * linear["head_dim"] * SINGLE
        else:
            total.growing += (c["kv_lora_rank"] + c["qk_rope_head_dim"]) * ELEMENT


def granite_hybrid(c, total):
    layers, heads, width = shape(c)
    for kind in c["layer_types"]:
        if kind == "mamba":
            total.state += mamba2(c["mamba_d_conv"], c["mamba_n_heads"], c["mamba_d_head"], c["mamba_n_groups"], c["mamba_d_state"], state_bytes(c))
        else:
            total.attention(heads, width)


def jamba(c, total):
    layers, heads, width = shape(c)
    for layer in range(layers):
        if layer % c["attn_layer_period"] == c["attn_layer_offset"]:
            total.attention(heads, width)
        else:
            total.state += mamba1(c["mamba_expand"] * c["hidden_size"], c["mamba_d_state"], c["mamba_d_conv"])


def lfm2(c, total):
    layers, heads, width = shape(c)
    for kind in c["layer_types"]:
        if kind == "full_attention":
            total.attention(heads, width)
        else:
            total.state += (c["conv_L_cache"] - 1) * (c.get("conv_dim") or c["hidden_size"]) * ELEMENT


def pure_mamba2(c, total):
    """Codestral Mamba's file leaves out what the class has."""
    inner = c.get("expand", 2) * c["hidden_size"]
    heads, dim = c.get("num_heads", 128), c.get("head_dim", 64)
    assert heads * dim == inner or "expand" not in c
    total.state += c["num_hidden_layers"] * mamba2(c.get("conv_kernel", 4), heads, dim, c.get("n_groups", 8), c.get("state_size", 128), ELEMENT)


def rwkv(c, total):
    """Versions 5 and 7: two last inputs, and a matrix of each head in float32."""
    size = first(c, "head_size", "head_dim")
    total.state += c["num_hidden_layers"] * (2 * c["hidden_size"] * ELEMENT + (c.get("attention_hidden_size") or c["hidden_size"]) * size * SINGLE)


def zamba2(c, total):
    """Attention of twice the width in the hybrid layers, a state in all: their blocks begin with Mamba-2 of expand * hidden_size channels."""
    heads = c.get("num_key_value_heads") or c["num_attention_heads"]
    inner, count = c.get("mamba_expand", 2) * c["hidden_size"], c.get("n_mamba_heads", 8)
    for kind in c["layers_block_type"]:
        total.state += mamba2(c.get("mamba_d_conv", 4), count, inner // count, c.get("mamba_ngroups", 1), c.get("mamba_d_state", 64), state_bytes(c))
        if kind == "hybrid":
            total.attention(heads, 2 * c["hidden_size"] // c["num_attention_heads"])


def ring(c, total):
    """The last layer of each group is attention, and so are layers beyond the last whole group; the others keep a matrix of each head in float32."""
    layers, heads, width = shape(c)
    group = c["layer_group_size"]
    for layer in range(layers):
        if (layer + 1) % group == 0 or layer >= layers // group * group:
            total.attention(heads, width)
        else:
            total.state += c["num_attention_heads"] * width * width * SINGLE


def mllama(c, total):
    """Cross attention in place of attention."""
    layers, heads, width = shape(c)
    for layer in range(layers):
        if layer not in c["cross_attention_layers"]:
            total.attention(heads, width)


def chatglm(c, total):
    heads = c["multi_query_group_num"] if c.get("multi_query_attention") else c["num_attention_heads"]
    total.growing += c["num_layers"] * heads * 2 * c["kv_channels"] * ELEMENT


def gpt_bigcode(c, total):
    total.growing += c["n_layer"] * (1 if c.get("multi_query", True) else c["n_head"]) * 2 * (c["n_embd"] // c["n_head"]) * ELEMENT


def everywhere(c, total):
    """One window for all layers, or none."""
    window = first(c, "sliding_window", "sliding_window_size")
    plain(c, total, windows=[window] * shape(c)[0])


def qwen2(c, total):
    """Windows only where they are switched on, and then from max_window_layers on."""
    layers, heads, width = shape(c, 128 if text_type(c).startswith("qwen3") and text_type(c) != "qwen3_moe" else None)
    slides = c.get("use_sliding_window", False)
    plain(c, total, width, by_types(c, lambda layer: slides and layer >= c.get("max_window_layers", 28)) if slides else None)


def ouro(c, total):
    for _ in range(c["total_ut_steps"]):
        plain(c, total)


def afm7(c, total):
    """The last layers read what the layers before them have stored."""
    layers = c["num_layers"] - c["num_kv_reuse_layers"]
    total.growing += layers * c["num_kv_heads"] * 2 * (c["hidden_dim"] // c["num_heads"]) * ELEMENT


def llama(c, total):
    """The class's own shape (Llama-2 7B) where a nested file leaves it out."""
    plain({"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, **c}, total)


def exaone4(c, total):
    """sliding_window_pattern is a word whose letters repeat, L for local, or a number; the last layer is global."""
    layers, pattern = c["num_hidden_layers"], c.get("sliding_window_pattern")
    windows = [None] * layers
    if c.get("sliding_window"):
        letters = pattern if isinstance(pattern, str) else "L" * ((pattern or 4) - 1) + "G"
        windows = by_types(c, lambda i: letters[i % len(letters)] == "L" and i + 1 < layers)
    plain(c, total, windows=windows)


def every(number):
    """All layers slide but each `number`th."""
    return lambda c, total: plain(c, total, windows=by_types(c, lambda layer: (layer + 1) % number != 0))


def second(c, total):
    """Every second layer slides, from the first."""
    plain(c, total, windows=by_types(c, lambda layer: layer % 2 == 0))


PLAIN = ("apertus baichuan bailing_moe cohere deepseek dots1 ernie4_5 ernie4_5_moe glm glm4 glm4_moe gpt2 gpt_neox gptj granite granitemoe "
         "helium internlm internlm2 klear lille-130m mimo minicpm minimax_m2 ministral3 olmo olmo2 olmoe orion phi-msft seed_oss stablelm telechat3")
FAMILIES = {
    **{name: plain for name in PLAIN.split()},
    "qwen": lambda c, total: plain(c, total, c["kv_channels"]),
    "llama": llama, "llava": llama, "mistral": everywhere, "mixtral": everywhere, "starcoder2": everywhere, "phi3": everywhere, "phi3_v": everywhere,
    "qwen2": qwen2, "qwen2_moe": qwen2, "qwen3": qwen2, "qwen3_moe": qwen2, "qwen3_vl": qwen2, "qwen3_vl_moe": qwen2,
    "gemma": plain, "gemma2": second, "gemma3": every(6), "gemma3n": gemma3n, "gemma4": gemma4, "gpt_oss": second,
    "olmo3": every(4), "exaone4": exaone4, "exaone_moe": exaone4, "laguna": every(4), "step3p7": every(4), "llama4": llama4,
    "mimo_v2_flash": mimo_v2, "minimax_m3": minimax_m3, "minimax_m3_vl": minimax_m3, "minimax": minimax,
    "deepseek_v2": latent, "deepseek_v3": latent, "deepseek_v32": latent, "glm_moe_dsa": latent, "glm4_moe_lite": latent, "kimi_k2": latent,
    "minicpm3": latent, "kimi_vl": latent, "longcat_flash": lambda c, total: latent(c, total, 2),
    "longcat_flash_ngram": lambda c, total: latent(c, total, 2), "deepseek_v4": deepseek_v4, "deepseek_ref": deepseek_v4,
    "nemotron-nas": nemotron_nas, "nemotron_h": nemotron_h, "qwen3_next": qwen3_next, "qwen3_5": qwen3_next, "qwen3_5_moe": qwen3_next,
    "kimi_linear": kimi_linear, "granitemoehybrid": granite_hybrid, "jamba": jamba, "lfm2": lfm2, "mamba2": pure_mamba2, "rwkv5": rwkv,
    "rwkv7": rwkv, "zamba2": zamba2, "bailing_moe_linear": ring, "mllama": mllama, "chatglm": chatglm, "gpt_bigcode": gpt_bigcode,
    "ouro": ouro, "afm7": afm7,
}


def text_type(c):
    name = (c.get("model_type") or "").lower()
    for ending in ("_text_model", "_text"):
        name = name.removesuffix(ending)
    return name


def text_part(config):
    """The language model of a file that nests it, with the outer type where it has none of its own."""
    inner = first(config, "text_config", "llm_config", "language_config")
    return config if inner is None else {"model_type": config.get("model_type"), **inner}


def reference(config):
    """The line of a config.json, as a dict. Raises Unknown for a type that has no rule here, KeyError for a field that its rule needs."""
    c = text_part(config)
    if text_type(c) not in FAMILIES:
        raise Unknown(text_type(c))
    total = Sum(first(c, "max_position_embeddings"))
    FAMILIES[text_type(c)](c, total)
    return total.line()


def main():
    for path in sys.argv[1:] or sys.exit(__doc__):
        with open(path, encoding="utf-8") as file:
            print(path, reference(json.load(file)))


if __name__ == "__main__":
    main()
