# SPDX-License-Identifier: MIT
"""A serde for LMCache (0.5.4 and later, its multiprocess server): what is stored behind L1, in Redis, files or on other machines, becomes kvtile's pages.

An unmodified `lmcache server` finds it through an adapter of type "plugin", which is then the adapter that adapter_params describe:
    --l2-adapter '{"type": "plugin", "module_path": "kvtile.lmcache", "class_name": "Adapter",
                   "adapter_params": {"type": "resp", "host": "127.0.0.1", "port": 6379}, "serde": {"type": "kvtile", "head_dim": 64, "k": "kv4"}}'
"kvtile" takes the arguments of kvtile.chunks.Codec, and max_workers."""
from __future__ import annotations

import argparse
import json
from typing import Any, Iterator

from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config
from lmcache.v1.distributed.serde.async_processor import AsyncSerdeProcessor
from lmcache.v1.distributed.serde.base import Deserializer, Serializer
from lmcache.v1.distributed.serde.factory import get_registered_serde_types, register_serde_factory

from kvtile._library import Error
from kvtile.chunks import Codec


def arrays(shapes: Any, dtypes: Any) -> Iterator[tuple[tuple[int, ...], str, int]]:
    """(shape, dtype's name, bytes of a number) of an object's arrays, which lie one after the other."""
    for shape, dtype in zip(shapes, dtypes):
        yield tuple(map(int, shape)), str(dtype).split(".")[-1], dtype.itemsize


def elements(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


class KvtileSerializer(Serializer):
    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def estimate_serialized_size(self, layout_desc: Any) -> int:
        return sum(self.codec.stored_bytes(*array) for array in arrays(layout_desc.shapes, layout_desc.dtypes))

    def serialize(self, src: Any, dst: Any, key: Any = None) -> int:
        rows, at = src.data_ptr, dst.data_ptr
        for shape, dtype, itemsize in arrays(src.get_shapes(), src.get_dtypes()):
            size = self.codec.stored_bytes(shape, dtype, itemsize)
            if at + size > dst.data_ptr + dst.get_size():
                raise Error(f"dst has {dst.get_size()} bytes: {at + size - dst.data_ptr} are needed")
            at += self.codec.write(shape, dtype, itemsize, rows, at)
            rows += elements(shape) * itemsize
        return int(at - dst.data_ptr)


class KvtileDeserializer(Deserializer):
    """What it raises is a miss for LMCache."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def deserialize(self, src: Any, dst: Any, key: Any = None) -> None:
        data, rows = src.data_ptr, dst.data_ptr
        for shape, dtype, itemsize in arrays(dst.get_shapes(), dst.get_dtypes()):
            data += self.codec.read(shape, dtype, itemsize, data, src.data_ptr + src.get_size() - data, rows)
            rows += elements(shape) * itemsize


def create(kwargs: dict[str, Any]) -> Any:
    options = dict(kwargs)
    workers = int(options.pop("max_workers", 1))
    codec = Codec(**options)
    return AsyncSerdeProcessor(KvtileSerializer(codec), KvtileDeserializer(codec), max_workers=workers)


class Adapter(L2AdapterInterface):
    """Stands for the adapter that `params` describe; LMCache imports this module, and so the serde, to make it."""

    def __new__(cls, params: dict[str, Any], l1_memory_desc: Any = None) -> Any:
        given = argparse.Namespace(l2_adapter=[json.dumps(params)])
        return create_l2_adapter(parse_args_to_l2_adapters_config(given).adapters[0], l1_memory_desc)


if "kvtile" not in get_registered_serde_types():
    register_serde_factory("kvtile", create)
