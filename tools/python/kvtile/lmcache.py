# SPDX-License-Identifier: MIT
"""A serde for LMCache (0.5.4 and later, its multiprocess server): what is stored behind L1, in Redis, files or on other machines, becomes kvtile's pages.

An unmodified `lmcache server` finds it through an adapter of type "plugin", which is then the adapter that adapter_params describe:
    --l2-adapter '{"type": "plugin", "module_path": "kvtile.lmcache", "class_name": "Adapter",
                   "adapter_params": {"type": "resp", "host": "127.0.0.1", "port": 6379}, "serde": {"type": "kvtile", "head_dim": 64, "k": "kv4"}}'
"kvtile" takes the arguments of kvtile.chunks.Codec, and max_workers. adapter_params may have a "timeout" in seconds, 10 unless it is given."""
from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import select
import threading
import time
from typing import Any, Callable, Iterator, Optional, Sequence

import torch
from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config
from lmcache.v1.distributed.serde.async_processor import AsyncSerdeProcessor
from lmcache.v1.distributed.serde.base import Deserializer, Serializer
from lmcache.v1.distributed.serde.factory import get_registered_serde_types, register_serde_factory
from lmcache.v1.memory_management import TensorMemoryObj
from lmcache.v1.platform import consume_fd, create_event_notifier

from kvtile._library import Error
from kvtile.chunks import Codec


def arrays(shapes: Any, dtypes: Any) -> Iterator[tuple[tuple[int, ...], str, int]]:
    """(shape, dtype's name, bytes of a number) of an object's arrays, which lie one after the other."""
    for shape, dtype in zip(shapes, dtypes):
        yield tuple(map(int, shape)), str(dtype).split(".")[-1], dtype.itemsize


def name(key: Any) -> bytes:
    """Of the object that a chunk belongs to, for its header: a store that mixes objects up would give one's rows to another."""
    parts = [getattr(key, part, None) for part in ("model_name", "kv_rank", "object_group_id", "chunk_hash", "cache_salt")]
    return repr(parts).encode() if key is not None else b""


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
            at += self.codec.write(shape, dtype, itemsize, rows, at, name(key))
            rows += elements(shape) * itemsize
        return int(at - dst.data_ptr)


class KvtileDeserializer(Deserializer):
    """What it raises is a miss for LMCache."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def deserialize(self, src: Any, dst: Any, key: Any = None) -> None:
        data, rows = src.data_ptr, dst.data_ptr
        for shape, dtype, itemsize in arrays(dst.get_shapes(), dst.get_dtypes()):
            data += self.codec.read(shape, dtype, itemsize, data, src.data_ptr + src.get_size() - data, rows, name(key))
            rows += elements(shape) * itemsize


def create(kwargs: dict[str, Any]) -> Any:
    options = dict(kwargs)
    workers = int(options.pop("max_workers", 1))
    codec = Codec(**options)
    return AsyncSerdeProcessor(KvtileSerializer(codec), KvtileDeserializer(codec), max_workers=workers)


@dataclasses.dataclass
class _Task:
    """A lookup or a load."""

    end: float  # when it is a miss
    keys: Sequence[Any]
    query: Callable[[], Any]  # the other adapter's answer, or None
    objects: Optional[Sequence[Any]] = None  # of a load: where its rows belong
    own: Sequence[Any] = ()                  # of a load: where the other adapter writes them
    missed: bool = False


def _same(name: str) -> Any:
    return lambda self, *arguments, **named: getattr(self.inner_adapter, name)(*arguments, **named)


class TimedAdapter(L2AdapterInterface):
    """Another adapter, of which a lookup or a load is a miss after `timeout` seconds: LMCache waits for its stores without an end, and engines for LMCache.

    After a time-out all else is a miss at once, for `timeout` seconds or until the answer comes. A load's rows come by way of memory of this class: when a
    load is over, LMCache gives its memory to others, and a late answer would be written there."""

    POLL = 0.1  # seconds after which overdue answers are looked for
    ALIGNMENT = 4096

    def __init__(self, inner: Any, timeout: float) -> None:
        super().__init__()
        self.inner_adapter, self.timeout = inner, timeout
        self._ready = {"lookup": create_event_notifier(), "load": create_event_notifier()}
        self._tasks: dict[int, _Task] = {}
        self._answers: dict[int, Any] = {}
        self._next, self._idle = 0, 0.0  # until then all is a miss
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kvtile-timeout", daemon=True)
        self._thread.start()

    get_store_event_fd = _same("get_store_event_fd")
    submit_store_task = _same("submit_store_task")
    pop_completed_store_tasks = _same("pop_completed_store_tasks")
    submit_unlock = _same("submit_unlock")
    delete = _same("delete")
    list_l2_keys = _same("list_l2_keys")
    get_usage = _same("get_usage")
    register_listener = _same("register_listener")
    set_backend_identity = _same("set_backend_identity")
    supports_global_eviction = property(lambda self: self.inner_adapter.supports_global_eviction)

    def get_lookup_and_lock_event_fd(self) -> int:
        return int(self._ready["lookup"].fileno())

    def get_load_event_fd(self) -> int:
        return int(self._ready["load"].fileno())

    def submit_lookup_and_lock_task(self, keys: Sequence[Any], *arguments: Any, **named: Any) -> int:
        inner = self.inner_adapter
        return self._submit(lambda: inner.submit_lookup_and_lock_task(keys, *arguments, **named), inner.query_lookup_and_lock_result, keys)

    def submit_load_task(self, keys: Sequence[Any], objects: Sequence[Any]) -> int:
        own = [self._memory(each) for each in objects]
        return self._submit(lambda: self.inner_adapter.submit_load_task(keys, own), self.inner_adapter.query_load_result, keys, objects, own)

    def query_lookup_and_lock_result(self, task_id: int) -> Any:
        with self._lock:
            return self._answers.pop(task_id, None)

    query_load_result = query_lookup_and_lock_result

    def report_status(self) -> Any:
        with self._lock:
            overdue = sum(task.missed for task in self._tasks.values())
        return {**self.inner_adapter.report_status(), "timeout": self.timeout, "overdue": overdue}

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.inner_adapter.close()
        for each in self._ready.values():
            each.close()

    def _memory(self, like: Any) -> Any:
        size = like.get_physical_size()
        data = torch.empty(size + self.ALIGNMENT, dtype=torch.uint8)
        data = data[-data.data_ptr() % self.ALIGNMENT:][:size]
        return TensorMemoryObj(data, dataclasses.replace(like.metadata, address=data.data_ptr(), phy_size=size, ref_count=0, pin_count=0), None)

    def _submit(self, submit: Callable[[], int], query: Callable[[int], Any], keys: Sequence[Any], objects: Optional[Sequence[Any]] = None,
                own: Sequence[Any] = ()) -> int:
        with self._lock:  # until the task is written down, as its answer may come before `submit` is back
            number, self._next = self._next, self._next + 1
            if time.monotonic() < self._idle:
                self._answer(number, objects is not None, Bitmap(len(keys)))
            else:
                inner = submit()
                self._tasks[number] = _Task(time.monotonic() + self.timeout, keys, lambda: query(inner), objects, own)
        return number

    def _answer(self, number: int, load: bool, found: Any) -> None:
        self._answers[number] = found
        self._ready["load" if load else "lookup"].notify()

    def _watch(self) -> None:
        poller = select.poll()
        for fd in (self.inner_adapter.get_lookup_and_lock_event_fd(), self.inner_adapter.get_load_event_fd()):
            poller.register(fd, select.POLLIN)
        while not self._stop.is_set():
            for fd, _ in poller.poll(1000 * self.POLL):
                consume_fd(fd)
            with self._lock:
                tasks = list(self._tasks.items())
            for number, task in tasks:
                self._look(number, task)

    def _look(self, number: int, task: _Task) -> None:
        found, load = task.query(), task.objects is not None
        if found is None and (task.missed or time.monotonic() < task.end):
            return
        if found is not None and not task.missed:
            for i, (there, here) in enumerate(zip(task.own, task.objects or ())):
                if found.test(i):
                    ctypes.memmove(here.data_ptr, there.data_ptr, here.get_size())
        elif found is not None and not load:  # too late: nobody will load what this lookup has locked
            self.inner_adapter.submit_unlock([key for i, key in enumerate(task.keys) if found.test(i)])
        with self._lock:
            if not task.missed:
                self._answer(number, load, Bitmap(len(task.keys)) if found is None else found)
            if found is None:
                task.missed, self._idle = True, time.monotonic() + self.timeout
            else:
                del self._tasks[number]
                self._idle = 0.0


class Adapter(L2AdapterInterface):
    """Stands for the adapter that `params` describe, with a time-out; LMCache imports this module, and so the serde, to make it."""

    def __new__(cls, params: dict[str, Any], l1_memory_desc: Any = None) -> Any:
        given = dict(params)
        timeout = given.pop("timeout", 10)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise Error(f"timeout is {timeout!r}: seconds are right, or 0 for none")
        parsed = parse_args_to_l2_adapters_config(argparse.Namespace(l2_adapter=[json.dumps(given)]))
        inner = create_l2_adapter(parsed.adapters[0], l1_memory_desc)
        return TimedAdapter(inner, timeout) if timeout else inner


if "kvtile" not in get_registered_serde_types():
    register_serde_factory("kvtile", create)
