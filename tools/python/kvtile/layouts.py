# SPDX-License-Identifier: MIT
"""Layouts, and the pages of one sequence in one layer: rows in, rows out, attention."""
from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import mmap
from typing import Any, Callable, Iterable, Optional, Sequence, Union

from kvtile import _arrays, _library
from kvtile._arrays import Array
from kvtile._library import c, check

PAGE_TOKENS: int = _library.PAGE_TOKENS
Pair = Union[str, int, Sequence[Any]]


def allocate(bytes_: int) -> mmap.mmap:
    """Zeroed memory, aligned to a page of the system, that takes none until it is written."""
    return mmap.mmap(-1, max(1, bytes_))


@functools.lru_cache(maxsize=None)
def _threads(count: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(count, "kvtile")


def in_threads(work: Callable[[int], Any], count: int, threads: int) -> None:
    """work(0) to work(count - 1); the library's calls let other threads run."""
    if threads == 1 or count == 1:
        for i in range(count):
            work(i)
    else:
        for _ in _threads(threads).map(work, range(count)):
            pass


def positive(value: Any, name: str, least: int = 0) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__") or value < least:
        raise _library.Error(f"{name} is {value!r}: a whole number of at least {least} is right")
    return int(value.__index__())


def scheme(name: Any, what: str) -> int:
    found = c.scheme_find(name.encode()) if isinstance(name, str) else None
    if not found:
        names: list[str] = []
        while c.scheme_at(len(names)):
            names.append(c.scheme_at(len(names)).contents.name.decode())
        raise _library.Error(f"{what} is {name!r}: a scheme is right: {', '.join(names)}")
    return int(found.contents.scheme)


def _pair(value: Pair, name: str) -> tuple[Any, Any]:
    if isinstance(value, (str, int)):
        return value, value
    if len(value) != 2:
        raise _library.Error(f"{name} is {value!r}: one value, or two, of keys and of values, are right")
    return value[0], value[1]


def address(array: Optional[_arrays.Numbers]) -> Optional[int]:
    return array.address if array is not None else None


class Layout:
    """How rows of a layer are stored: schemes of keys and values, widths, rotation and centres.

    k, v        schemes, as kvtile.schemes() lists them; v is k's unless it is said. MLA's latents: v=None with v_dim=0, and rope with rope_dim
    head_dim    channels of a key, and of a value unless v_dim says otherwise
    rotation, centring, effort   0, 64 or 128; "none", "sequence", "page" or "own"; "default", "fast" or "best". Two values are of keys and of values
    tiers       kernels that may run: "avx2", "-avx512"; all that this CPU has unless it is said
    """

    __slots__ = ("c", "kv_heads", "k_dim", "v_dim", "rope_dim")

    def __init__(self, k: str = "f16", v: Optional[str] = None, *, head_dim: int, kv_heads: int, v_dim: Optional[int] = None, rotation: Pair = 0,
                 centring: Pair = "none", effort: Pair = "default", rope: str = "bf16", rope_dim: int = 0, tiers: Optional[str] = None) -> None:
        spec = self._spec(head_dim, kv_heads, v_dim, rope_dim, tiers)
        spec.k_scheme, spec.v_scheme = scheme(k, "k"), scheme(k if v is None else v, "v")
        spec.rope_scheme = scheme(rope, "rope")
        for field, value in (("rotation", rotation), ("centring", centring), ("effort", effort)):
            for options, part in zip((spec.k_options, spec.v_options), _pair(value, field)):
                setattr(options, field, _library.enum(field, part, field))
        self._init(spec)

    @staticmethod
    def _spec(head_dim: int, kv_heads: int, v_dim: Optional[int], rope_dim: int, tiers: Optional[str]) -> Any:
        spec = _library.spec(size=ctypes.sizeof(_library.spec), k_dim=positive(head_dim, "head_dim", 1), kv_heads=positive(kv_heads, "kv_heads", 1),
                             v_dim=positive(head_dim if v_dim is None else v_dim, "v_dim"), rope_dim=positive(rope_dim, "rope_dim"))
        if tiers is not None:
            mask = ctypes.c_uint32()
            check(c.tiers_parse(tiers.encode(), ctypes.byref(mask)), f"tiers is {tiers!r}")
            spec.tiers = mask
        return spec

    def _init(self, spec: Any) -> None:
        self.c = _library.layout()
        check(c.layout_init(self.c, spec), "", c.spec_problem, spec)
        self.kv_heads, self.k_dim, self.v_dim, self.rope_dim = int(spec.kv_heads), int(spec.k_dim), int(spec.v_dim), int(spec.rope_dim)

    @classmethod
    def preset(cls, name: str, *, head_dim: int, kv_heads: int, v_dim: Optional[int] = None, rope_dim: int = 0,
               tiers: Optional[str] = None) -> tuple[Layout, Layout]:
        """The layout of "quality", "balanced", "compact" or "tight", and that of a sequence's first page, which is kept in kv8."""
        spec, first = cls._spec(head_dim, kv_heads, v_dim, rope_dim, tiers), _library.spec()
        check(c.preset_spec(_library.enum("preset", name, "preset"), spec, first), "", c.spec_problem, spec)
        found = []
        for each in (spec, first):
            layout = cls.__new__(cls)
            layout._init(each)
            found.append(layout)
        return found[0], found[1]

    def __repr__(self) -> str:
        spec, parts = self.c.spec, []
        for side, options, dim in (("k", spec.k_options, self.k_dim), ("v", spec.v_options, self.v_dim), ("rope", spec.rope_options, self.rope_dim)):
            if dim:
                name = c.scheme_get(getattr(spec, side + "_scheme")).contents.name.decode()
                extra = f" rotation {options.rotation}" if options.rotation else ""
                extra += f" centring {_library.word('centring', options.centring)}" if options.centring else ""
                parts.append(f"{side} {name}{extra} {dim}")
        return f"<kvtile.Layout {', '.join(parts)}, {self.kv_heads} KV heads, {self.page_bytes} bytes a page>"

    @property
    def page_bytes(self) -> int:
        """Of 64 tokens of one KV head."""
        return int(self.c.page_bytes)

    @property
    def token_bytes(self) -> int:
        """Of one token in one KV head, without centres."""
        return int(self.c.token_bytes)

    def bytes(self, tokens: int) -> int:
        """Of all KV heads' pages for so many tokens."""
        found = ctypes.c_size_t()
        check(c.layout_bytes(self.c, positive(tokens, "tokens"), ctypes.byref(found)), f"tokens is {tokens}")
        return found.value

    def dim(self, side: str) -> int:
        """Channels of a row of "k", "v" or "rope"."""
        found = (self.k_dim, self.v_dim, self.rope_dim)[_library.enum("side", side, "side")]
        if not found:
            raise _library.Error(f"side is {side!r}, which this layout does not store: {self!r}", "KVT_ERR_SIDE")
        return found


def rows_of(array: Array, name: str, heads: int, dim: int, order: str, tokens: Optional[int] = None, *, writable: bool = False,
            bf16: bool = False) -> tuple[_arrays.Numbers, int, int, int]:
    """An array [head][token][dim] or [token][head][dim]: its numbers, its tokens, and the strides of tokens and heads."""
    if order not in ("head,token,dim", "token,head,dim"):
        raise _library.Error(f"order is {order!r}: 'head,token,dim' or 'token,head,dim' is right")
    at = order.split(",").index("token")
    shape: list[Union[int, str]] = [heads, heads, dim]
    shape[at] = "tokens" if tokens is None else tokens
    other = "token,head,dim" if at else "head,token,dim"

    def hint(have: tuple[int, ...]) -> str:
        if len(have) == 3 and have[2] == dim and have[at] == heads and (tokens is None or have[1 - at] == tokens):
            return f" for order={order!r}; order={other!r} takes it as it is"
        return f" for order={order!r}"

    found = _arrays.rows(array, name, shape, writable=writable, bf16=bf16, hint=hint)
    return found, found.shape[at], found.strides[at], found.strides[1 - at]


class Store:
    """Pages of one sequence in one layer, for all KV heads: room for `tokens` tokens.

    memory  a writable block of at least layout.bytes(tokens) bytes, ordered [KV head][page]; the store's own unless it is given
    """

    def __init__(self, layout: Layout, tokens: int, memory: Optional[Array] = None) -> None:
        self.layout, self.capacity, self.stored = layout, positive(tokens, "tokens"), 0
        size = layout.bytes(tokens)
        self.memory = allocate(size) if memory is None else memory
        self._numbers = _arrays.memory(self.memory, "memory", size)
        self.pages = (_library.pages * layout.kv_heads)()
        for head in range(layout.kv_heads):
            check(c.head_pages(layout.c, self._numbers.address, tokens, head, self.pages[head]), "memory")

    def write(self, rows: Array, side: str = "k", first: int = 0, *, order: str = "head,token,dim", bf16: bool = False) -> None:
        """Stores rows of tokens first, first + 1 and so on. bf16: rows of u16 are bfloat16."""
        layout, number = self.layout, _library.enum("side", side, "side")
        found, tokens, token_stride, head_stride = rows_of(rows, "rows", layout.kv_heads, layout.dim(side), order, bf16=bf16)
        dtype, first = _library.enum("dtype", found.dtype, "rows"), positive(first, "first")
        if first + tokens > self.capacity:
            raise _library.Error(f"first is {first} and rows has {tokens} tokens: the store has room for {self.capacity}", "KVT_ERR_RANGE")
        what = f"rows of side {side} from token {first} on, {tokens} tokens"
        if tokens == 1:
            check(c.append(layout.c, number, self.pages, first, found.address, dtype, head_stride), what)
        else:
            for head in range(layout.kv_heads):
                check(c.write(layout.c, number, self.pages[head], first, tokens, found.address + head * head_stride, dtype, token_stride), what)
        if number == 0:
            self.stored = max(self.stored, first + tokens)

    def read(self, side: str = "k", first: int = 0, tokens: Optional[int] = None, *, out: Optional[Array] = None, dtype: str = "f32",
             order: str = "head,token,dim") -> Array:
        """Rows of tokens that were stored, into `out` or a new array of that dtype."""
        layout, number, first = self.layout, _library.enum("side", side, "side"), positive(first, "first")
        n = max(0, self.stored - first) if tokens is None else positive(tokens, "tokens")
        if first + n > self.capacity:
            raise _library.Error(f"first is {first} and tokens {n}: the store has room for {self.capacity}", "KVT_ERR_RANGE")
        if out is None:
            _library.enum("dtype", dtype, "dtype")
            shape = (layout.kv_heads, n) if order == "head,token,dim" else (n, layout.kv_heads)
            out = _arrays.empty((*shape, layout.dim(side)), dtype)
        found, _, token_stride, head_stride = rows_of(out, "out", layout.kv_heads, layout.dim(side), order, n, writable=True)
        for head in range(layout.kv_heads):
            check(c.read(layout.c, number, self.pages[head], first, n, found.address + head * head_stride, _library.enum("dtype", found.dtype, "out"),
                         token_stride), "out")
        return out


def attend(q: Array, stores: Union[Store, Iterable[tuple[Store, int]]], *, out: Optional[Array] = None, scale: Optional[float] = None,
           position: Optional[int] = None, begin: int = 0, end: Optional[int] = None, window: int = 0, sinks: Optional[Array] = None,
           soft_cap: float = 0.0, slopes: Optional[Array] = None, causal: bool = True, order: str = "head,token,dim", threads: int = 1) -> Array:
    """softmax(scale * q k') v of queries over stored tokens, without reading rows back. The result is an array like q.

    q         query heads, a multiple of the KV heads; those that share a KV head follow each other
    stores    a Store, or [(Store, first token)] where a sequence's parts are stored in different ways
    scale     1 / sqrt(channels of a key) unless it is given
    position  of q's first token in the sequence; unless it is given, q's tokens are the last that are stored
    begin, end, window, sinks, soft_cap, slopes   as in kvtile/attend.h
    """
    parts = [(stores, 0)] if isinstance(stores, Store) else list(stores)
    if not parts:
        raise _library.Error("stores is empty: at least one Store is right")
    layout = parts[0][0].layout
    channels, width = layout.k_dim + layout.rope_dim, layout.v_dim or layout.k_dim
    for store, _ in parts:
        if store.layout.kv_heads != layout.kv_heads:
            raise _library.Error(f"stores have {layout.kv_heads} and {store.layout.kv_heads} KV heads: the same number is right")
    shape = _arrays.numbers(q, "q").shape
    heads = shape[order.split(",").index("head")] if len(shape) == 3 and "head" in order else layout.kv_heads
    if heads % layout.kv_heads or heads == 0:
        raise _library.Error(f"q has {heads} heads: a multiple of the {layout.kv_heads} KV heads is right; its order is {order!r}")
    queries, tokens, q_token, q_head = rows_of(q, "q", heads, channels, order)
    if out is None:
        out = _arrays.empty((*shape[:2], width), queries.dtype, q)
    results, _, out_token, out_head = rows_of(out, "out", heads, width, order, tokens, writable=True)
    group = heads // layout.kv_heads
    last = parts[-1][0].stored + parts[-1][1] if end is None else positive(end, "end")
    where = last - tokens if position is None else positive(position, "position")
    if position is None and causal and where < 0:
        raise _library.Error(f"q has {tokens} tokens, but {last} are stored: give `position`")
    extra = {}
    for name, array in (("sinks", sinks), ("slopes", slopes)):
        extra[name] = _arrays.rows(array, name, (heads,), ("f32",)) if array is not None else None

    def fill(head: int) -> Any:
        segments = (_library.segment * len(parts))(*[_library.segment(ctypes.pointer(store.layout.c), store.pages[head], first) for store, first in parts])
        return _library.attention(
            size=ctypes.sizeof(_library.attention), segments=segments, n_segments=len(parts), begin=positive(begin, "begin"), end=last,
            position=where if causal else _library.NO_MASK, window=positive(window, "window"), group=group, query_tokens=tokens,
            queries=queries.address + head * group * q_head, query_dtype=_library.enum("dtype", queries.dtype, "q"),
            out_dtype=_library.enum("dtype", results.dtype, "out"), query_token_stride=q_token, query_head_stride=q_head,
            out=results.address + head * group * out_head, out_token_stride=out_token, out_head_stride=out_head,
            sinks=extra["sinks"].address + 4 * head * group if extra["sinks"] else None,
            slopes=extra["slopes"].address + 4 * head * group if extra["slopes"] else None,
            scale=channels ** -0.5 if scale is None else scale, soft_cap=soft_cap)

    def work(head: int) -> None:
        question, sizes = fill(head), _library.attend_sizes()
        check(c.attend_plan_sizes(question, sizes), "", c.attention_problem, question)
        workspace = ctypes.create_string_buffer(sizes.workspace_bytes)
        check(c.attend(question, workspace), "", c.attention_problem, question)

    if tokens:
        in_threads(work, layout.kv_heads, positive(threads, "threads", 1))
    return out
