#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvtile's serde beside LMCache's own, on keys and values of SmolLM2 in bfloat16: the table of docs/python.md. One thread, the best of some rounds.

   measure_lmcache.py MODEL TEXT [--rounds 15]     MODEL as smollm2.py writes it

LMCache's turboquant needs CUDA, its kivi stores nothing. cachegen belongs to its older engine; here it runs as LMCache has it for CPUs."""
import argparse
import os
import time
import warnings

os.environ.update(LMCACHE_TRACK_USAGE="false", LMCACHE_LOG_LEVEL="ERROR")
warnings.filterwarnings("ignore")

import torch
from kvtile.chunks import Codec
from kvtile.lmcache import KvtileDeserializer, KvtileSerializer
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.distributed.api import MemoryLayoutDesc
from lmcache.v1.distributed.serde.fp8 import Fp8QuantizationDeserializer, Fp8QuantizationSerializer
from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj
from lmcache.v1.metadata import LMCacheMetadata
from lmcache.v1.storage_backend.naive_serde import CreateSerde
from lmcache_engine import CHUNK, Model


def memory(shape, dtype, data=None):
    data = torch.empty(shape, dtype=dtype) if data is None else data
    size = data.numel() * data.element_size()
    kind = MemoryObjMetadata(shape=data.shape, dtype=dtype, address=data.data_ptr(), phy_size=size, ref_count=1, fmt=MemoryFormat.KV_2LTD,
                             shapes=[data.shape], dtypes=[dtype])
    return TensorMemoryObj(data.flatten().view(torch.uint8), kind, None)


def new(serializer, deserializer):
    """(chunk -> bytes, the way back) of a serde of the multiprocess server."""
    def there(chunk):
        layout = MemoryLayoutDesc([chunk.get_shape()], [chunk.get_dtype()])
        out = memory((serializer.estimate_serialized_size(layout),), torch.uint8)
        return lambda: serializer.serialize(chunk, out, None), lambda _: out, lambda size: size

    def back(data, like):
        out = memory(like.get_shape(), like.get_dtype())
        return lambda: deserializer.deserialize(data, out, None), lambda _: out
    return there, back


def old(name, folder, shape):
    """The same of the older engine, whose serdes allocate what they return."""
    sides, layers, tokens, heads, dim = shape
    config = LMCacheEngineConfig.from_defaults(chunk_size=tokens)
    metadata = LMCacheMetadata(model_name=folder, world_size=1, local_world_size=1, worker_id=0, local_worker_id=0, kv_dtype=torch.bfloat16,
                               kv_shape=(layers, sides, tokens, heads, dim))
    serializer, deserializer = CreateSerde(name, metadata, config)
    return (lambda chunk: (lambda: serializer.serialize(chunk), lambda output: output, lambda output: len(output.byte_array)),
            lambda data, like: (lambda: deserializer.deserialize(data), lambda output: output))


def best(work, rounds):
    seconds, result = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    model = Model(given.model, given.text)
    sides, layers, tokens, heads, dim = model.rows.shape
    rows = model.rows.to(torch.bfloat16)
    chunks = [memory(None, torch.bfloat16, rows[:, :, i:i + CHUNK].reshape(sides, layers, CHUNK, heads * dim).contiguous()) for i in range(0, tokens, CHUNK)]

    def kvtile(**options):
        codec = Codec(dim, **options)
        return new(KvtileSerializer(codec), KvtileDeserializer(codec))

    serdes = {"LMCache fp8": (new(Fp8QuantizationSerializer(), Fp8QuantizationDeserializer()), 1),
              "LMCache cachegen": (old("cachegen", given.model, (sides, layers, CHUNK, heads, dim)), 5), "kvtile kv8": (kvtile(k="kv8"), 1),
              **{f"kvtile {preset}": (kvtile(preset=preset), 1) for preset in ("quality", "balanced", "compact", "tight")},
              "kvtile kv4, no page in kv8": (kvtile(k="kv4"), 1)}
    print("| serde | bits | error of keys | error of values | divergence | serialize, MB/s | deserialize, MB/s |\n|---|---:|---:|---:|---:|---:|---:|")
    for name, ((there, back), less) in serdes.items():
        sizes, slow, fast, found = 0, 0.0, 0.0, torch.empty_like(model.rows)
        for i, chunk in enumerate(chunks):
            work, data, size = there(chunk)
            seconds, output = best(work, -(-given.rounds // (5 * less)))
            sizes, slow = sizes + size(output), slow + seconds
            work, result = back(data(output), chunk)
            seconds, output = best(work, -(-given.rounds // (5 * less)))
            fast += seconds
            found[:, :, i * CHUNK:(i + 1) * CHUNK] = result(output).tensor.reshape(sides, layers, CHUNK, heads, dim).float()
        errors = [float((found[side] - rows[side].float()).norm() / rows[side].float().norm()) for side in range(2)]
        megabytes = rows.numel() * 2 / 1e6
        print(f"| {name} | {8 * sizes / rows.numel():.2f} | {errors[0]:.4f} | {errors[1]:.4f} | {model.divergence(found):.3g} | {megabytes / slow:.0f} | "
              f"{megabytes / fast:.0f} |", flush=True)


main()
