#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvtile's caches beside those of transformers, on SmolLM2: the tables of docs/python.md.

   measure_transformers.py accuracy MODEL TEXT [--tokens 512,640] [--sequences 4]     MODEL as smollm2.py writes it
   measure_transformers.py speed [--tokens 2000]                                      one thread; in turns, medians

`accuracy` reads the first tokens of each sequence at once and then one by one, and compares predictions with those of the exact cache; `--perplexity N`
instead compares the perplexity of N tokens at once, of kvtile's f32 tiles beside eager attention, and fails where it differs by more than 1e-4. Caches of
others need `pip install --no-deps optimum-quanto==0.2.7 hqq==0.2.8.post1 accelerate einops termcolor ninja psutil` and g++."""
import argparse
import math
import statistics
import sys
import time
import types
import warnings

import kvtile.transformers
import torch
import transformers
from kvtile.transformers import KvtileCache
from transformers import DynamicCache, QuantizedCache

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_grad_enabled(False)
NAME = "cache" if int(transformers.__version__.split(".")[0]) > 4 else "past_key_values"

CACHES = {  # how it is shown: (attention, the cache for a config, bits of a number in whole pages or groups, head_dim 64)
    "exact": ("sdpa", lambda config: DynamicCache(config=config), 32),
    "kvtile balanced": ("kvtile", lambda config: KvtileCache(config), 4.94),
    "kvtile compact": ("kvtile", lambda config: KvtileCache(config, "compact"), 4.44),
    "kvtile tight": ("kvtile", lambda config: KvtileCache(config, "tight"), 3.94),
    "kvtile kv8": ("kvtile", lambda config: KvtileCache(config, k="kv8", rotation=64), 8.25),
    "quanto int4": ("sdpa", lambda config: QuantizedCache("quanto", config, nbits=4), 5.0),
    "quanto int2": ("sdpa", lambda config: QuantizedCache("quanto", config, nbits=2), 3.0),
    "hqq int4": ("sdpa", lambda config: QuantizedCache("hqq", config, nbits=4, axis_key=1, axis_value=1), 5.0),
    "hqq int2": ("sdpa", lambda config: QuantizedCache("hqq", config, nbits=2, axis_key=1, axis_value=1), 3.0),
}


def token_ids(model, text, count):
    with open(text, encoding="utf-8") as file:
        ids = transformers.AutoTokenizer.from_pretrained(model)(file.read(), add_special_tokens=False, return_tensors="pt").input_ids[0]
    if len(ids) < count:
        raise SystemExit(f"{text} has {len(ids)} tokens, not {count}")
    return ids[:count]


def perplexity(model, path, text, tokens):
    ids = token_ids(path, text, tokens)[None]
    found = {}
    for name, how, cache in (("eager", "eager", DynamicCache(config=model.config)), ("kvtile f32", "kvtile", KvtileCache(model.config, k="f32"))):
        model.set_attn_implementation(how)
        logits = model(ids, **{NAME: cache}).logits[0, :-1]
        found[name] = math.exp(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
        print(f"{name}: perplexity of {tokens} tokens {found[name]:.6f}")
    difference = abs(found["kvtile f32"] / found["eager"] - 1)
    print(f"relative difference {difference:.1e}")
    return 1 if difference > 1e-4 else 0


def accuracy(model, path, text, begin, end, sequences, names):
    ids = token_ids(path, text, sequences * end).view(sequences, end)
    exact = None
    print("| cache | bits | perplexity | divergence | same top token |\n|---|---:|---:|---:|---:|")
    for name in names:
        how, make, bits = CACHES[name]
        model.set_attn_implementation(how)
        cache = make(model.config)
        model(ids[:, :begin], **{NAME: cache})
        predicted = torch.stack([model(ids[:, i:i + 1], **{NAME: cache}).logits[:, -1] for i in range(begin, end - 1)], 1).log_softmax(-1)
        exact = predicted if exact is None else exact
        loss = torch.nn.functional.nll_loss(predicted.flatten(0, 1), ids[:, begin + 1:].flatten())
        divergence = (exact.exp() * (exact - predicted)).sum(-1).mean()
        same = (exact.argmax(-1) == predicted.argmax(-1)).float().mean()
        print(f"| {name} | {bits} | {math.exp(loss):.4f} | {divergence:.3g} | {100 * same:.1f} % |", flush=True)


def speed(tokens, names, rounds):
    """Update and attention of all layers for one token, with random rows: shapes of SmolLM2-135M in f32."""
    torch.set_num_threads(1)
    layers, heads, kv_heads, dim = 30, 9, 3, 64
    config = transformers.LlamaConfig(num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, hidden_size=heads * dim)
    module = types.SimpleNamespace(is_causal=True, num_key_value_groups=heads // kv_heads, training=False, layer_idx=0)
    rows = torch.randn(2, layers, 1, tokens, kv_heads, dim).transpose(3, 4)
    new, query = torch.randn(2, layers, 1, 1, kv_heads, dim).transpose(3, 4), torch.randn(layers, 1, 1, heads, dim).transpose(2, 3)
    caches, times = {}, {name: [] for name in names}

    def step(name, states, q):
        how, cache = CACHES[name][0], caches[name]
        config._attn_implementation = how
        attend = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS[how]
        for layer in range(layers):
            k, v = cache.update(states[0, layer], states[1, layer], layer)
            attend(module, q[layer], k, v, None, scaling=dim ** -0.5)

    for name in names:
        caches[name] = CACHES[name][1](config)
        step(name, rows, torch.randn(layers, 1, tokens, heads, dim).transpose(2, 3) if CACHES[name][0] == "kvtile" else query)
        step(name, new, query)
    for _ in range(rounds):
        for name in names:
            began = time.perf_counter()
            step(name, new, query)
            times[name].append(1000 * (time.perf_counter() - began))
    print(f"| cache and attention of a token at {tokens} | ms | of sdpa | of quanto int4 |\n|---|---:|---:|---:|")
    found = {name: statistics.median(each) for name, each in times.items()}
    for name, each in found.items():
        print(f"| {name} | {each:.2f} | {each / found['exact']:.3f} | {each / found.get('quanto int4', math.nan):.3f} |")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("accuracy", "speed"):
        each = commands.add_parser(command)
        if command == "accuracy":
            each.add_argument("model")
            each.add_argument("text")
            each.add_argument("--sequences", type=int, default=4)
            each.add_argument("--perplexity", type=int)
        each.add_argument("--tokens", default="512,640" if command == "accuracy" else "2000")
        each.add_argument("--rounds", type=int, default=40)
        each.add_argument("--caches", default=",".join(CACHES if command == "accuracy" else ("exact", "kvtile balanced", "kvtile compact", "quanto int4")))
    given = parser.parse_args()
    if given.command == "speed":
        return speed(int(given.tokens), given.caches.split(","), given.rounds)
    model = transformers.AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    if given.perplexity:
        return perplexity(model, given.model, given.text, given.perplexity)
    begin, end = map(int, given.tokens.split(","))
    return accuracy(model, given.model, given.text, begin, end, given.sequences, given.caches.split(","))


sys.exit(main())
