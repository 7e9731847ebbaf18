# SPDX-License-Identifier: MIT
"""Bytes of a model's cache, of any config.json, GGUF file or name of the catalogue (kvtile/model.h)."""
from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any, Iterator, NamedTuple, Optional, Union

from kvtile import _library, _table
from kvtile._library import c, check
from kvtile.layouts import Pair, _pair, positive


class Group(NamedTuple):
    """Layers that are alike: docs/sizing.md has the words."""

    kind: str
    layers: int
    kv_heads: int
    k_dim: int
    v_dim: int
    window: int
    bytes_per_token: int
    bytes: int


class Size(NamedTuple):
    """What a cache takes: all of its bytes at the context that was asked for, and what each further token adds."""

    model: str
    k: str
    v: str
    context: int
    total_bytes: int
    bytes_per_token: float
    window_bytes: int
    state_bytes: int
    groups: tuple[Group, ...]
    notes: str


Model = Union[str, "os.PathLike[str]"]
_OPTIONS = [name for name, _, _ in _table.STRUCTS["kvt_size_request"]
            if name not in ("size", "engine", "k_type", "v_type", "context", "sequences", "k_options", "v_options", "rope_type")]


@contextlib.contextmanager
def _opened(model: Model) -> Iterator[tuple[Any, str]]:
    file, text = ctypes.c_void_p(), ctypes.create_string_buffer(_library.PROBLEM_BYTES)
    status = c.model_open(os.fsencode(model), None, ctypes.byref(file), text, len(text))
    if status:
        raise _library.Error(text.value.decode() or f"model is {model!r}: {c.status_text(status).decode()}")
    try:
        yield c.model_get(file), c.model_notes(file).decode()
    finally:
        c.model_close(file)


def _request(k: str, v: Optional[str], centring: Pair, rope: Optional[str], engine: str, context: int, sequences: int, options: dict[str, Any]) -> Any:
    presets = [name[len("KVT_PRESET_"):].lower() for name in _table.ENUMS["kvt_preset"]]
    if k in presets:
        if v is not None:
            raise _library.Error(f"v is {v!r}, but k is the preset {k!r}, which says both")
        spec, first = _library.spec(size=ctypes.sizeof(_library.spec), k_dim=64, v_dim=64, kv_heads=1), _library.spec()
        check(c.preset_spec(_library.enum("preset", k, "k"), spec, first), "k")
        k, v = (c.scheme_get(each).contents.name.decode() for each in (spec.k_scheme, spec.v_scheme))
        centring = "own" if centring == "none" else centring
    number = next((value for value in _table.ENUMS["kvt_engine"].values() if (c.engine_name(value) or b"").decode() == engine), None)
    if number is None:
        names = [(c.engine_name(value) or b"").decode() for value in _table.ENUMS["kvt_engine"].values()]
        raise _library.Error(f"engine is {engine!r}: {', '.join(filter(None, names))} are right")
    request = _library.size_request(size=ctypes.sizeof(_library.size_request), engine=number, k_type=k.encode(), v_type=(v or k).encode(),
                                    context=positive(context, "context"), sequences=positive(sequences, "sequences", 1),
                                    rope_type=rope.encode() if rope else None)
    request.k_options.centring, request.v_options.centring = (_library.enum("centring", part, "centring") for part in _pair(centring, "centring"))
    for name, value in options.items():
        if name not in _OPTIONS:
            raise TypeError(f"{name} is no argument: {', '.join(_OPTIONS)} are options of engines")
        setattr(request, name, value)
    return request


def _check(status: int, model: Any, request: Any) -> None:
    if status:
        why = c.size_problem(model, request)
        what = f"k is {request.k_type.decode()!r}, v is {request.v_type.decode()!r}, model is {model.contents.name.decode()!r}"
        if why:
            raise _library.Error(f"{what}: {why.decode()}", "KVT_ERR_ENGINE")
        check(status, what)


def size(model: Model, *, k: str = "f16", v: Optional[str] = None, context: int = 0, sequences: int = 1, centring: Pair = "none",
         rope: Optional[str] = None, engine: str = "kvtile", **options: Any) -> Size:
    """The bytes of a model's cache, exactly as an engine allocates them.

    model     a config.json, a folder that has one, a GGUF file, or a name of kvtile.models()
    k, v      types of keys and values: a scheme of kvtile, a preset, or another engine's own; v is k's unless it is said
    options   engines' own: batch_tokens, block_tokens, shared_prefix and the others of kvt_size_request in kvtile/model.h
    """
    request = _request(k, v, centring, rope, engine, context, sequences, options)
    with _opened(model) as (found, notes):
        report, groups = _library.size_report(), (_library.group_size * found.contents.n_groups)()
        _check(c.size(found, request, report, groups), found, request)
        return Size(found.contents.name.decode(), request.k_type.decode(), request.v_type.decode(), context, report.total_bytes,
                    report.growing_bytes / report.growing_tokens, report.window_bytes, report.state_bytes,
                    tuple(Group(c.layer_kind_name(group.kind).decode(), group.layers, group.kv_heads, group.k_dim, group.v_dim, group.window,
                                group.bytes_per_token, group.bytes) for group in groups), notes)


def longest_context(model: Model, budget: int, *, k: str = "f16", v: Optional[str] = None, sequences: int = 1, centring: Pair = "none",
                    rope: Optional[str] = None, engine: str = "kvtile", **options: Any) -> int:
    """The most tokens of context whose cache is at most `budget` bytes."""
    request, tokens = _request(k, v, centring, rope, engine, 0, sequences, options), ctypes.c_uint64()
    with _opened(model) as (found, _):
        _check(c.size_longest_context(found, request, positive(budget, "budget"), ctypes.byref(tokens)), found, request)
    return tokens.value


def models() -> list[str]:
    """Names of the catalogue."""
    names: list[str] = []
    while c.catalogue_at(len(names)):
        names.append(c.catalogue_at(len(names)).contents.name.decode())
    return names
