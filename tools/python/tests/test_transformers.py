# SPDX-License-Identifier: MIT
"""Generation by transformers on kvtile: tokens beside those of DynamicCache. Random weights; measure_transformers.py takes a real model."""
import kvtile
import kvtile.transformers
import pytest
import torch
import transformers
from kvtile.transformers import KvtileCache
from transformers import DynamicCache

torch.set_grad_enabled(False)
torch.set_num_threads(1)
SMALL = dict(vocab_size=211, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
             max_position_embeddings=1024, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=999)
MODELS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "mistral, sliding": lambda: transformers.MistralConfig(**SMALL, sliding_window=24),
    "gemma2, sliding and full, soft caps": lambda: transformers.Gemma2Config(**SMALL, sliding_window=24, query_pre_attn_scalar=32,
                                                                             attn_logit_softcapping=5.0),
    "gpt-oss, sliding and full, sinks": lambda: transformers.GptOssConfig(**SMALL, sliding_window=24, num_local_experts=4, num_experts_per_tok=2),
}
CACHE = "cache" if int(transformers.__version__.split(".")[0]) > 4 else "past_key_values"  # its argument's name
EXACT = dict(k="f32")  # plain f32 tiles


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.split(",")[0])
def model(request):
    torch.manual_seed(5)
    loaded = transformers.AutoModelForCausalLM.from_config(MODELS[request.param]()).eval()
    for name, parameter in loaded.named_parameters():
        if name.endswith("sinks"):
            parameter.normal_()
    return loaded


def prompt(lengths, seed=1):
    """Token ids with padding on the left."""
    torch.manual_seed(seed)
    ids = torch.randint(2, 211, (len(lengths), max(lengths)))
    attended = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
    return {"input_ids": ids * attended, "attention_mask": attended.long()}


def generate(model, how, cache, inputs, **options):
    model.set_attn_implementation(how)
    torch.manual_seed(7)
    return model.generate(**inputs, **{CACHE: cache}, **{"do_sample": False, "max_new_tokens": 70, **options})


repeated = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 11] * 6]), "attention_mask": torch.ones(1, 42, dtype=torch.long)}


@pytest.mark.parametrize("inputs, options", [
    (prompt([70]), {}), (prompt([3, 75, 1, 40]), {}), (prompt([10]), {"num_beams": 3}), (prompt([9, 30]), {"num_beams": 2, "num_return_sequences": 2}),
    (repeated, {"prompt_lookup_num_tokens": 4}), (prompt([12, 80]), {"do_sample": True, "top_k": 20}),
], ids=["greedy", "left padding", "beams", "beams of a batch", "prompt lookup", "sampling"])
def test_tokens_are_those_of_dynamic_cache(model, inputs, options):
    # Sliding layers of transformers 4 cannot be cropped, as drafts ask for: there the window is the mask's alone.
    config = {} if CACHE == "past_key_values" and "prompt_lookup_num_tokens" in options else {"config": model.config}
    right = generate(model, "eager", DynamicCache(**config), inputs, **options)
    for how, cache in (("kvtile", EXACT), ("kvtile", {**EXACT, "open": "f32"}), ("eager", EXACT)):
        found = generate(model, how, KvtileCache(model.config, **cache), inputs, **options)
        assert found.shape == right.shape and torch.equal(found, right), (how, cache)


def test_threads(model, monkeypatch):
    monkeypatch.setattr(kvtile.transformers, "MANY", 0)
    inputs, found = prompt([3, 75]), []
    model.set_attn_implementation("kvtile")
    for threads in (1, 3):
        found.append(model(**inputs, **{CACHE: KvtileCache(model.config, threads=threads)}).logits)
    assert torch.equal(*found)


@pytest.mark.parametrize("preset", kvtile.presets())
def test_presets_lose_no_more_than_their_rows(model, preset):
    """Beside exact attention to the same rows, decoded, of which the newest are not kept as they came. measure_transformers.py has a real model."""
    inputs, lost = prompt([90, 130]), {}
    for name, how, cache in (("exact", "eager", DynamicCache(config=model.config)), ("blocks", "kvtile", KvtileCache(model.config, preset)),
                             ("rows", "eager", KvtileCache(model.config, preset))):
        model.set_attn_implementation(how)
        found = model(**inputs, **{CACHE: cache}).logits[:, -1].log_softmax(-1)
        right = found if name == "exact" else right
        lost[name] = (right.exp() * (right - found)).sum(-1).mean()
    assert 0 < lost["blocks"] < 1.3 * lost["rows"] + 0.02


@pytest.mark.parametrize("options, most", [({"k": "f32"}, 1e-4), ({"k": "f32", "open": "f32"}, 1e-4), ({}, 0.02)], ids=["f32", "f32, open", "balanced"])
def test_pieces_give_what_the_whole_does(model, options, most):
    """A prefill at once and token by token; then tokens that are taken back, near and far, and come again. (torch's matrix products depend on the number
    of rows in their last bits, and codes may depend on these.)"""
    ids = prompt([200])["input_ids"]
    model.set_attn_implementation("kvtile")

    def run(cuts, cache):
        return torch.cat([kvtile_rows(model, cache, ids[:, a:b]) for a, b in zip(cuts, cuts[1:])], 1)

    def close(found, right):
        return (found - right).abs().mean() < most * right.abs().mean()

    whole = run([0, 200], KvtileCache(model.config, **options))
    cache = KvtileCache(model.config, **options)
    assert close(run([0, 60, 61, 62, 66, 140, 199, 200], cache), whole)
    for back in (1, 40):
        cache.crop(-back)
        assert cache.get_seq_length() == 200 - back
        assert close(kvtile_rows(model, cache, ids[:, 200 - back:]), whole[:, 200 - back:])
    if any(getattr(layer, "is_sliding", False) for layer in cache.layers):
        for _ in range(3):
            kvtile_rows(model, cache, ids[:, :100])
        with pytest.raises(kvtile.Error, match="given back"):
            cache.crop(-450)
    else:
        cache.crop(-130)
        found = kvtile_rows(model, cache, ids[:, 70:])
        assert close(found, whole[:, 70:]) or options == {}  # rows that were closed come back as they are stored
        cache.crop(-200)
        assert close(kvtile_rows(model, cache, ids), whole)


def kvtile_rows(model, cache, ids):
    length = cache.get_seq_length()
    return model(ids, attention_mask=torch.ones(ids.shape[0], length + ids.shape[1], dtype=torch.long), **{CACHE: cache}).logits


def test_batches():
    """Repeating, choosing and reordering share blocks, and nobody writes to what another has."""
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"](), attn_implementation="kvtile").eval()
    for options in (EXACT, {"preset": "balanced"}):
        ids = prompt([100])["input_ids"]
        cache = KvtileCache(model.config, **options)
        kvtile_rows(model, cache, ids)
        alone = cache.nbytes()
        cache.batch_repeat_interleave(3)
        assert cache.nbytes() < 3 * alone
        more = torch.randint(2, 211, (3, 70))
        found = kvtile_rows(model, cache, more)
        cache.reorder_cache(torch.tensor([2, 2, 0]))
        last = kvtile_rows(model, cache, more[:, :5])
        cache.batch_select_indices(torch.tensor([2]))
        for b, source in enumerate([2, 2, 0]):
            single = KvtileCache(model.config, **options)
            kvtile_rows(model, single, ids)
            assert (kvtile_rows(model, single, more[source:source + 1]) - found[source]).abs().max() < 1e-3
            assert (kvtile_rows(model, single, more[b:b + 1, :5]) - last[b]).abs().max() < 1e-3
        assert cache.nbytes() == single.nbytes()
        assert (kvtile_rows(model, cache, more[:1]) - kvtile_rows(model, single, more[:1])).abs().max() < 1e-3


@pytest.mark.parametrize("dtype, scheme", [(torch.bfloat16, "bf16"), (torch.float16, "f16")])
def test_shorter_types(dtype, scheme):
    """No further from the model in f32 than eager attention in that type is."""
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"](), attn_implementation="eager").eval()
    inputs = prompt([4, 90])
    exact = model(**inputs).logits[:, -1]
    model.to(dtype)
    eager = model(**inputs).logits[:, -1].float()
    model.set_attn_implementation("kvtile")
    found = model(**inputs, **{CACHE: KvtileCache(model.config, k=scheme)}).logits[:, -1].float()
    assert 0 < (found - exact).norm() < 1.3 * (eager - exact).norm()


def test_what_it_says():
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"](), attn_implementation="kvtile").eval()
    inputs = prompt([5, 9])

    def refuses(said, call):
        with pytest.raises(kvtile.Error, match=said):
            call()

    refuses("needs a KvtileCache", lambda: model(**inputs))
    turned = {name: value.flip(1) for name, value in inputs.items()}
    refuses("padding_side = \"left\"", lambda: model(**turned, **{CACHE: KvtileCache(model.config)}))
    refuses("preset is 'best': balanced", lambda: KvtileCache(model.config, "best"))
    refuses("k is 'kv7': a scheme is right", lambda: KvtileCache(model.config, k="kv7"))
    refuses("open is 'f64'", lambda: KvtileCache(model.config, open="f64"))
    refuses("give k, or a preset alone", lambda: KvtileCache(model.config, v="kv4"))
    cache = KvtileCache(model.config)
    model(**inputs, **{CACHE: cache})
    refuses("has 3 sequences, but the cache 2", lambda: model(torch.ones(3, 1, dtype=torch.long), **{CACHE: cache}))
    with torch.enable_grad():
        refuses("no gradients", lambda: model(**inputs, **{CACHE: KvtileCache(model.config)}))
    chunked = {"input_ids": inputs["input_ids"][1:], CACHE: KvtileCache(model.config)}
    with pytest.raises(kvtile.Error, match="asks for the mask"):
        kvtile.transformers.mask(1, mask_function=lambda b, h, q, k: k >= 0)
    model.set_attn_implementation("eager")
    model(**chunked)


def test_reset():
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"](), attn_implementation="kvtile").eval()
    cache = KvtileCache(model.config)
    ids = prompt([100])["input_ids"]
    first = kvtile_rows(model, cache, ids)
    cache.reset()
    assert cache.get_seq_length() == 0 and torch.equal(kvtile_rows(model, cache, ids), first)
