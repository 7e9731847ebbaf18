#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares `kvtile size --engine transformers` with the caches of small random models in Hugging Face transformers.

    transformers_caches.py --kvtile build/release/bin/kvtile [--only NAME] [--table]

Run by hand, by a Python that has torch and transformers (5.24.0; CPU is enough), and for the quantized caches optimum-quanto or hqq. Each model is a
config.json of few layers and random weights in bfloat16: a prompt of CONTEXT tokens goes through it, for SEQUENCES sequences, and the bytes of all
tensors of its cache are added up. The same config.json goes to kvtile. Any difference is an error. --table prints the Markdown table of
docs/sizing.md.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, QuantizedCache, StaticCache  # noqa: E402

CONTEXT = 100
SEQUENCES = 2
QUANTIZED = ("quanto4", "quanto2", "hqq8", "hqq4", "hqq2", "hqq1", "fp8")
QUANTIZED_MODELS = ("llama", "mistral", "gemma2", "deepseek_v3")

COMMON = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
    "shared_expert_intermediate_size": 32, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "decoder_sparse_step": 1,
}
LATENT = {"q_lora_rank": 48, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 64, "v_head_dim": 32, "num_key_value_heads": 4, "head_dim": 64}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 16}
DELTA = {"linear_conv_kernel_dim": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
HALF_SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 24}
HALF_LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}

MODELS = {
    "llama": {},
    "qwen3": {},
    "mistral": {"sliding_window": 24},
    "phi3": {"sliding_window": 24, "original_max_position_embeddings": 512},
    "starcoder2": {"sliding_window": 24},
    "gemma2": HALF_SLIDING,
    "gemma3_text": HALF_SLIDING,
    "gpt_oss": HALF_SLIDING | EXPERTS,
    "cohere2": HALF_SLIDING,
    "olmo3": HALF_SLIDING,
    "exaone4": HALF_SLIDING,
    "gemma4_text": HALF_SLIDING | {"num_kv_shared_layers": 2, "global_head_dim": 64, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 128,
                                   "attention_k_eq_v": False, "num_global_key_value_heads": None},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 24, "num_kv_shared_layers": 2, "altup_num_inputs": 2,
                     "laurel_rank": 8, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 128,
                     "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [64] * 4},
    "glm4_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "deepseek_v2": EXPERTS | LATENT,
    "deepseek_v3": EXPERTS | LATENT,
    "glm4_moe_lite": EXPERTS | LATENT,
    "minicpm3": LATENT,
    "qwen3_next": EXPERTS | DELTA | HALF_LINEAR,
    "qwen3_5_text": DELTA | HALF_LINEAR,
    "jamba": EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 8,
                        "use_mamba_kernels": False, "expert_layer_period": 2, "expert_layer_offset": 1},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 256},
    "granitemoehybrid": EXPERTS | MAMBA | {"layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 32},
    "bamba": MAMBA | {"attn_layer_indices": [1, 3]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3},
    "mamba": {"state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": 8},
    "mamba2": {"state_size": 16, "conv_kernel": 4, "expand": 2, "num_heads": 8, "head_dim": 32, "n_groups": 1, "chunk_size": 16},
    "nemotron_h": EXPERTS | {"hybrid_override_pattern": "M*M-", "mamba_num_heads": 8, "mamba_head_dim": 32, "n_groups": 1, "ssm_state_size": 16,
                             "conv_kernel": 4, "chunk_size": 16, "expand": 2},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 128, "attention_window_size": 24, "conv1d_width": 4,
                        "block_types": ["recurrent", "recurrent", "attention"], "num_key_value_heads": 1},
    "zamba2": MAMBA | {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3], "num_mem_blocks": 1,
                       "n_mamba_heads": 8, "mamba_ngroups": 1, "num_key_value_heads": 4, "use_mem_rope": False, "adapter_rank": 8},
}


def tensors(value, seen):
    """All tensors that hang on a cache, each counted once."""
    if hasattr(value, "__tensor_flatten__") and type(value).__module__.startswith("optimum"):
        for name in value.__tensor_flatten__()[0]:
            tensors(getattr(value, name), seen)
    elif isinstance(value, torch.Tensor):
        seen[id(value)] = value
    elif isinstance(value, dict):
        for item in value.values():
            tensors(item, seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            tensors(item, seen)
    elif type(value).__module__.startswith("transformers.cache_utils"):
        for item in vars(value).values():
            tensors(item, seen)
    return seen


def bytes_of(cache):
    """But for the few numbers of bookkeeping (a window's length, the tokens so far), which are no data of the model."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(cache, {}).values() if tensor.dim() > 1)


def caches_of(folder, kind):
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    if kind == "dynamic":
        cache = DynamicCache(config=config)
    elif kind == "static":
        cache = StaticCache(config=config, max_cache_len=CONTEXT)
    else:
        backend = kind.rstrip("0123456789") if kind != "fp8" else kind
        cache = QuantizedCache(backend, config, **({} if kind == "fp8" else {"nbits": int(kind[len(backend):])}))
    tokens = torch.randint(3, 100, (SEQUENCES, CONTEXT))
    with torch.no_grad():
        model(input_ids=tokens, cache=cache, use_cache=True)
    # RecurrentGemma keeps its states in the modules, beside the cache.
    beside = [getattr(module, name, None) for module in model.modules() for name in ("conv1d_state", "recurrent_states")]
    return bytes_of(cache) + sum(tensor.numel() * tensor.element_size() for tensor in beside if tensor is not None)


def said(kvtile, folder, kind):
    command = [kvtile, "size", folder / "config.json", "--engine", "transformers", "--scheme", kind if kind in QUANTIZED else "bf16", "--ctx", CONTEXT, "--seqs", SEQUENCES, "--json"]
    command += ["--static"] if kind == "static" else []
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["error"])[0]
    return json.loads(done.stdout)["total_bytes"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kvtile", required=True, type=pathlib.Path)
    arguments.add_argument("--only")
    arguments.add_argument("--table", action="store_true")
    options = arguments.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", file=sys.stderr)

    wrong = compared = refused = 0
    with tempfile.TemporaryDirectory() as work:
        for name, fields in MODELS.items():
            if options.only and options.only not in name:
                continue
            folder = pathlib.Path(work) / name
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(COMMON | {"model_type": name} | fields))
            row = []
            for kind in ("dynamic", "static") + (QUANTIZED if name in QUANTIZED_MODELS else ()):
                ours = said(options.kvtile, folder, kind)
                try:
                    allocated = caches_of(folder, kind)
                except Exception as error:  # noqa: BLE001 - what transformers cannot do, kvtile shall refuse
                    refused += 1
                    wrong += not isinstance(ours, str)
                    if not isinstance(ours, str):
                        print(f"{name}, {kind}: transformers cannot, kvtile {ours}: {type(error).__name__}: {str(error)[:160]}", file=sys.stderr)
                    continue
                compared += 1
                wrong += ours != allocated
                row.append(f"{kind} {allocated:,}" + ("" if ours == allocated else f", but kvtile says {ours}"))
            if options.table:
                print(f"| {name} | {'; '.join(row)} |")
            else:
                print("\n".join(f"{name}: {column}" for column in row if "but" in column), end="\n" if any("but" in column for column in row) else "")
    print(f"{compared} caches compared, {refused} refused, {wrong} differ", file=sys.stderr)
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
