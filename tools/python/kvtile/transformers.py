# SPDX-License-Identifier: MIT
"""Hugging Face transformers on kvtile: a Cache whose keys and values are kvtile's blocks, and an attention function that reads them where they are.

    import kvtile.transformers
    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="kvtile")
    model.generate(**inputs, past_key_values=kvtile.transformers.KvtileCache(model.config))

With any other attn_implementation the cache gives decoded rows back, which is slower. A sequence's padding on the left is not stored at all."""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Optional, Sequence, Tuple

import torch
import transformers
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kvtile import _library
from kvtile._library import Error, c, check
from kvtile.layouts import PAGE_TOKENS, Layout, positive
from kvtile.steps import NO_BLOCK, run_step

NAME = "kvtile"
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
DTYPE_NUMBERS = {kind: _library.enum("dtype", name, "dtype") for kind, name in DTYPES.items()}
MANY = 1 << 24  # multiplications of a step from which on several threads are worth their start
POSITIVE_CROP = int(transformers.__version__.split(".")[0]) < 5  # crop(n > 0): so many tokens stay; from 5 on, crop(-n) alone: so many go
Place = Tuple[int, int, int, torch.Tensor]  # address, strides of tokens and of heads in bytes, and what keeps it there


class _Pool:
    """Blocks of all layers of a group, [layer][block][head]; which sequences have them is counted."""

    def __init__(self, layers: int, heads: int, bytes_: int) -> None:
        self.heads, self.bytes = heads, bytes_
        self.memory = torch.empty(layers, 0, heads * bytes_, dtype=torch.uint8)
        self.users: list[int] = []
        self.free: list[int] = []

    def take(self) -> int:
        if not self.free:
            have = self.memory.shape[1]
            grown = torch.empty(self.memory.shape[0], max(4, have + have // 2), self.memory.shape[2], dtype=torch.uint8)
            grown[:, :have] = self.memory
            self.free = list(range(grown.shape[1] - 1, have - 1, -1))
            self.users += [0] * len(self.free)
            self.memory = grown
        block = self.free.pop()
        self.users[block] = 1
        return block

    def share(self, block: int) -> int:
        self.users[block] += 1
        return block

    def give(self, block: int) -> None:
        self.users[block] -= 1
        if not self.users[block]:
            self.free.append(block)

    def copy(self, block: int) -> int:
        new = self.take()
        self.memory[:, new] = self.memory[:, block]
        return new

    def fill(self, pool: Any) -> None:
        layers, blocks, width = self.memory.shape
        pool.base, pool.blocks, pool.layer_stride, pool.block_stride, pool.head_stride = self.memory.data_ptr(), blocks, max(1, blocks) * width, width, self.bytes

    def used(self) -> int:
        return sum(1 for users in self.users if users) * int(self.memory.shape[0]) * int(self.memory.shape[2])


class _Row:
    """A sequence of the batch."""

    def __init__(self) -> None:
        self.table: list[int] = []
        self.open: list[int] = []
        self.stored = 0
        self.kept = 0  # from this token on, a multiple of 64, rows are in open pages as they came


class _Group:
    """Layers that store alike, and the blocks of their sequences."""

    def __init__(self, layouts: tuple[Layout, Optional[Layout]], opened: Optional[str], window: int, layers: int, threads: Optional[int]) -> None:
        self.layout, self.first = layouts
        self.window, self.threads = window, threads
        heads = self.layout.kv_heads
        self.view = _library.view(size=ctypes.sizeof(_library.view), layout=ctypes.pointer(self.layout.c), layers=layers)
        self.pages = _Pool(layers, heads, self.layout.page_bytes)
        self.first_pages = self.pages
        if self.first:
            self.view.first_layout = ctypes.pointer(self.first.c)
            self.first_pages = _Pool(layers, heads, self.first.page_bytes)
        self.open_pages: Optional[_Pool] = None
        if opened:
            size = ctypes.c_size_t()
            self.view.open_dtype = _library.enum("dtype", opened, "open")
            check(c.view_open_bytes(self.layout.c, self.view.open_dtype, ctypes.byref(size)), "open")
            self.open_pages = _Pool(layers, heads, size.value)
        self.rows: list[_Row] = []
        self.padding: list[int] = []
        self.length = 0     # tokens before the step, padding among them
        self.fresh = 0      # of the step, in every sequence; 0: no step has begun
        self.step: Any = None
        self.pointer: Any = None         # to the step, for calls
        self.keep: list[Any] = []        # what the step points to
        self.new: list[int] = []         # tokens of the step that each sequence stores: without those of padding
        self.tokens = 0                  # of the longest sequence, with those of the step
        self.whole = True                # no sequence of the step has padding in it
        self.form: Any = None            # what the step was filled for: the next layer has other addresses alone
        self.placed: tuple[int, int] = (0, 0)  # heads and workers that the step's workspace is large enough for
        self.limits: tuple[int, ...] = (0, 0, 0, 0, 0)
        self.workspace = torch.empty(0, dtype=torch.uint8)

    def pool(self, page: int) -> _Pool:
        return self.first_pages if page == 0 else self.pages

    def start(self, batch: int) -> None:
        if not self.rows:
            self.rows, self.padding = [_Row() for _ in range(batch)], [0] * batch
            for row in self.rows:
                row.open = [self.open_pages.take(), self.open_pages.take()] if self.open_pages else [NO_BLOCK, NO_BLOCK]
        if len(self.rows) != batch:
            raise Error(f"key_states has {batch} sequences, but the cache {len(self.rows)}: a new cache, or batch_repeat_interleave, is right")

    def begin(self, batch: int, fresh: int, padding: Optional[list[int]], frees: bool) -> None:
        """Blocks for `fresh` more tokens of every sequence, and the struct that the layers of a step share."""
        self.end()
        self.start(batch)
        if padding is not None and padding != self.padding:
            if self.length:
                raise Error(f"attention_mask has {padding} tokens of padding on the left, but the cache was begun with {self.padding}")
            self.padding = padding
        sequences = (_library.sequence * batch)()
        self.keep, self.new, self.placed, self.form = [sequences], [], (0, 0), None
        for b, row in enumerate(self.rows):
            new = min(fresh, max(0, self.length + fresh - self.padding[b]))
            total = row.stored + new
            if row.stored % PAGE_TOKENS and not self.open_pages:  # the newest page's block is written to, so it must be this sequence's own
                page = row.stored // PAGE_TOKENS
                if self.pool(page).users[row.table[page]] > 1:
                    shared = row.table[page]
                    row.table[page] = self.pool(page).copy(shared)
                    self.pool(page).give(shared)
            while len(row.table) < (total // PAGE_TOKENS if self.open_pages else -(-total // PAGE_TOKENS)):
                row.table.append(self.pool(len(row.table)).take())
            if frees and self.window:  # two pages more than the window, for tokens that are taken back
                for page in range(max(0, row.stored - self.window) // PAGE_TOKENS - 2):
                    if row.table[page] != NO_BLOCK:
                        self.pool(page).give(row.table[page])
                        row.table[page] = NO_BLOCK
            table = (ctypes.c_uint32 * len(row.table))(*row.table)
            self.keep.append(table)
            self.new.append(new)
            sequences[b] = _library.sequence(ctypes.addressof(table), len(row.table), tuple(row.open), row.stored, new, None)
        self.fresh, self.tokens = fresh, max(row.stored + new for row, new in zip(self.rows, self.new))
        self.whole = sum(self.new) == batch * fresh
        self.pages.fill(self.view.pages)
        if self.first:
            self.first_pages.fill(self.view.first_pages)
        if self.open_pages:
            self.open_pages.fill(self.view.open_pages)
        self.step = _library.step(size=ctypes.sizeof(_library.step), view=ctypes.pointer(self.view), n_sequences=batch, sequences=sequences,
                                  heads=self.layout.kv_heads, scale=1.0)
        self.pointer = ctypes.byref(self.step)

    def end(self) -> None:
        """The step's tokens count as stored."""
        if self.fresh:
            for row, new in zip(self.rows, self.new):
                row.stored += new
                row.kept = max(row.kept, (row.stored // PAGE_TOKENS - 1) * PAGE_TOKENS)
            self.length, self.fresh = self.length + self.fresh, 0

    def room(self, heads: int, workers: int) -> None:
        """The step's workspace."""
        want = (len(self.rows), self.tokens, sum(self.new), heads, workers)
        if any(a > b for a, b in zip(want, self.limits)):
            most = [max(a, b) for a, b in zip(want, self.limits)]
            most[1] += most[1] // 2
            size = ctypes.c_size_t()
            check(c.step_workspace(self.view, _library.step_limits(*most), ctypes.byref(size)), "workspace")
            self.limits = tuple(most)
            self.workspace = torch.empty(size.value + 64, dtype=torch.uint8)
        at = self.workspace.data_ptr()
        self.step.workspace = -(-at // 64) * 64
        self.step.workspace_bytes = self.workspace.numel() - 64
        self.placed = (heads, workers)

    def store(self, layer: int, k: Place, v: Place, number: int) -> None:
        """Keys and values of a layer's new tokens. `number` is that of their dtype."""
        step, self.form = self.step, None
        step.layer, step.dtype, step.heads, step.q = layer, number, self.layout.kv_heads, None
        step.k, step.k_token_stride, step.k_head_stride = k[:3]
        step.v, step.v_token_stride, step.v_head_stride = v[:3]
        self.room(step.heads, 1)
        check(c.step_append(self.pointer, 0, 1), "", c.step_problem, step)

    def again(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        """A layer's step, by one worker, where `form` is what the layer before had: calls and addresses are all that Python does then."""
        step, pointer = self.step, self.pointer
        step.layer, step.q, step.k, step.v, step.out = layer, q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()
        status = c.step_append(pointer, 0, 1) or c.step_attend(pointer, 0, 1) or c.step_merge(pointer, 0, 1)
        if status:
            check(status, "", c.step_problem, step)

    def attend(self, layer: int, heads: int, q: Place, k: Optional[Place], v: Optional[Place], out: torch.Tensor, number: int) -> int:
        """A layer's step, of `heads` query heads. k and v are None where the layer shares the cache of another. out: [..., head, dim]. How many workers
        it took."""
        step = self.step
        step.layer, step.heads, step.dtype, step.out_dtype = layer, heads, number, number
        step.q, step.q_token_stride, step.q_head_stride, _ = q
        step.out = out.data_ptr()
        workers = 1
        if self.fresh * len(self.rows) * heads * self.layout.k_dim * (min(self.tokens, self.window) if self.window else self.tokens) > MANY:
            workers = self.threads or torch.get_num_threads()
        if self.placed != (heads, workers):
            self.room(heads, workers)
        if k is not None and v is not None:
            step.k, step.k_token_stride, step.k_head_stride, _ = k
            step.v, step.v_token_stride, step.v_head_stride, _ = v
            run_step(step, workers, True, self.pointer)
        else:
            step.k = step.v = None
            run_step(step, workers, False, self.pointer)
        return workers

    def read(self, layer: int, b: int, first: int, end: int, out: torch.Tensor) -> None:
        """Stored rows into [side][token][head][dim]."""
        self._rows(c.view_read, layer, b, first, end, out)

    def _rows(self, call: Callable[..., int], layer: int, b: int, first: int, end: int, rows: torch.Tensor) -> None:
        row, size = self.rows[b], rows.element_size()
        table = (ctypes.c_uint32 * max(1, len(row.table)))(*row.table)
        sequence = _library.sequence(ctypes.addressof(table), len(row.table), tuple(row.open), row.stored, 0, None)
        question = _library.view_rows(
            size=ctypes.sizeof(_library.view_rows), view=ctypes.pointer(self.view), sequence=ctypes.pointer(sequence), first_token=first,
            n_tokens=end - first, first_layer=layer, layers=1, rows=rows.data_ptr(), dtype=DTYPE_NUMBERS[rows.dtype],
            side_stride=rows.stride(0) * size, layer_stride=0, token_stride=rows.stride(1) * size, head_stride=rows.stride(2) * size)
        check(call(question, 0, 1), f"tokens {first} to {end - 1} of layer {layer}")

    def crop(self, length: int) -> None:
        self.end()
        for b, row in enumerate(self.rows):
            stored = max(0, length - self.padding[b])
            if stored >= row.stored:
                continue
            page = stored // PAGE_TOKENS
            if stored % PAGE_TOKENS and NO_BLOCK in row.table[page:]:
                raise Error(f"crop to {length} tokens: a sliding layer has given back what was before its window")
            reopened = []
            if self.open_pages and stored % PAGE_TOKENS and page * PAGE_TOKENS < row.kept:  # a page that was closed is open again, from what is stored
                for layer in range(self.view.layers):
                    rows = torch.empty(2, stored % PAGE_TOKENS, self.layout.kv_heads, max(self.layout.k_dim, self.layout.v_dim))
                    self.read(layer, b, page * PAGE_TOKENS, stored, rows)
                    reopened.append(rows)
            for old in range(page if self.open_pages else -(-stored // PAGE_TOKENS), len(row.table)):
                if row.table[old] != NO_BLOCK:
                    self.pool(old).give(row.table[old])
            del row.table[page if self.open_pages else -(-stored // PAGE_TOKENS):]
            row.stored = stored
            if reopened:
                row.stored = row.kept = page * PAGE_TOKENS
                for layer, rows in enumerate(reopened):
                    self._rows(c.view_write, layer, b, row.stored, stored, rows)
                row.stored = stored
            row.kept = min(row.kept, page * PAGE_TOKENS)
        self.length = min(self.length, length)

    def choose(self, indices: Sequence[int]) -> None:
        """The batch becomes these of its sequences; those that come more than once share their blocks."""
        self.end()
        if not self.rows:
            return
        old, new = self.rows, []
        moved: set[int] = set()
        for index in indices:
            row, source = _Row(), old[index]
            row.stored, row.kept = source.stored, source.kept
            row.table = [block if block == NO_BLOCK else self.pool(page).share(block) for page, block in enumerate(source.table)]
            if self.open_pages and index in moved:
                row.open = [self.open_pages.copy(block) for block in source.open]
            else:
                row.open = source.open
            moved.add(index)
            new.append(row)
        for index, row in enumerate(old):
            for page, block in enumerate(row.table):
                if block != NO_BLOCK:
                    self.pool(page).give(block)
            if self.open_pages and index not in moved:
                for block in row.open:
                    self.open_pages.give(block)
        self.rows, self.padding = new, [self.padding[index] for index in indices]

    def reset(self) -> None:
        self.end()
        self.crop(0)
        self.length, self.padding = 0, [0] * len(self.rows)

    def used(self) -> int:
        pools = {id(pool): pool for pool in (self.pages, self.first_pages, self.open_pages) if pool}
        return sum(pool.used() for pool in pools.values())


class KvtileLayer(CacheLayerMixin):
    """A layer of a KvtileCache. Its pages belong to the group of layers that store alike."""

    is_croppable, is_compileable = True, False

    def __init__(self, cache: KvtileCache, window: int = 0) -> None:
        super().__init__()
        self.cache, self.window, self.is_sliding = cache, window, window > 0
        self.group: Any = None
        self.number = 0  # in its group's view
        self.length = 0
        self.waiting: Optional[tuple[torch.Tensor, torch.Tensor]] = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: Optional[torch.Tensor] = None) -> None:
        values = key_states if value_states is None else value_states
        if key_states.device.type != "cpu":
            raise Error(f"key_states is on {key_states.device}: memory of the CPU is right")
        if key_states.dtype not in DTYPES:
            raise Error(f"key_states is {key_states.dtype}: float32, float16 or bfloat16 is right")
        self.dtype, self.device = key_states.dtype, key_states.device
        self.group, self.number = self.cache._join(self, key_states.shape[1], key_states.shape[-1], values.shape[-1], key_states.dtype)
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.waiting is not None:
            raise Error("a layer's keys and values were never attended to: its attention does not go through attn_implementation, so set \"sdpa\"")
        if key_states.dtype != self.dtype or key_states.shape[1] != self.group.layout.kv_heads:
            raise Error(f"key_states is {key_states.dtype} of {key_states.shape[1]} heads: {self.dtype} of {self.group.layout.kv_heads} is right")
        fresh = key_states.shape[-2]
        if self.number == 0:
            self.cache._attends = self.cache.config._attn_implementation == NAME
        if self.cache._attends:
            self.waiting = (key_states, value_states)
            self.length += fresh
            key_states.kvtile = self  # how the attention function finds the blocks
            return key_states, value_states
        group = self.group
        self._begin(key_states.shape[0], self.length, fresh, None)
        group.store(self.number, _place(key_states), _place(value_states), DTYPE_NUMBERS[self.dtype])
        self.length += fresh
        return self._decoded()

    def _begin(self, batch: int, before: int, fresh: int, padding: Optional[list[int]]) -> None:
        group = self.group
        if not group.fresh or before != group.length or fresh != group.fresh:
            if before != group.length + group.fresh:
                raise Error(f"a layer has {before} tokens and others like it {group.length + group.fresh}: all layers have to see all tokens")
            group.begin(batch, fresh, padding, padding is not None)

    def _decoded(self) -> tuple[torch.Tensor, torch.Tensor]:
        group = self.group
        layout, batch, total = group.layout, len(group.rows), self.length
        out = torch.empty(batch, 2, total, layout.kv_heads, max(layout.k_dim, layout.v_dim), dtype=self.dtype)
        for b, row in enumerate(group.rows):
            pad = total - row.stored - group.new[b]
            row.stored += group.new[b]
            out[b, :, :pad] = 0
            try:
                group.read(self.number, b, 0, row.stored, out[b, :, pad:])
            finally:
                row.stored -= group.new[b]
        keys, values = out.transpose(2, 3).unbind(1)
        return keys[..., :layout.k_dim], values[..., :layout.v_dim]

    def get_seq_length(self, *args: Any) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in transformers 4

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """Of all tokens: windows are the attention function's. (transformers 4 gives positions, not their number.)"""
        return self.length + (query_length if isinstance(query_length, int) else query_length.shape[0]), 0

    def offload(self) -> None:
        raise Error("a KvtileCache is in the CPU's memory already: it is not offloaded")

    def reset(self) -> None:
        self.length, self.waiting = 0, None


class KvtileCache(Cache):
    """Keys and values of all layers in kvtile's blocks.

    config     the model's
    preset     "balanced", "quality", "compact" or "tight": schemes, rotation, own centres; a sequence's first page is kept in kv8
    k, v       schemes instead of a preset, with `rotation` and `centring`; first: the scheme of a sequence's first page, where it is another
    open       dtype of the newest two pages' rows: "f32", "f16" or "bf16". Unless it is given: that of the model, and f16 for f32
    threads    of a step with much to multiply; torch.get_num_threads() unless it is given
    """

    def __init__(self, config: Any, preset: str = "balanced", *, k: Optional[str] = None, v: Optional[str] = None, rotation: int = 0,
                 centring: str = "none", first: Optional[str] = None, open: Optional[str] = None, threads: Optional[int] = None) -> None:
        self.config = config.get_text_config(decoder=True)
        self.preset, self.schemes = preset, (k, v if v is not None else k)
        self.rotation, self.centring, self.first, self.open = rotation, centring, first, open
        self.threads = positive(threads, "threads", 1) if threads is not None else None
        if k is None and (v is not None or rotation or centring != "none" or first is not None):
            raise Error("v, rotation, centring and first belong to k: give k, or a preset alone")
        self._layouts("f32", 1, 64, 64)  # words that are wrong are found here
        self._groups: dict[Any, _Group] = {}
        self._attends = False  # in this step: by the attention function below
        self._mask: Any = None
        self._padding: Optional[list[int]] = None
        layers: list[Any] = []
        for layer in DynamicCache(config=config).layers:
            if type(layer) is DynamicLayer:
                layers.append(KvtileLayer(self))
            elif type(layer) is DynamicSlidingWindowLayer:
                layers.append(KvtileLayer(self, layer.sliding_window))
            elif isinstance(layer, DynamicLayer):
                raise Error(f"the model has a {type(layer).__name__}, which keeps more than keys and values: use DynamicCache")
            else:
                layers.append(layer)
        if not any(isinstance(layer, KvtileLayer) for layer in layers):
            raise Error("the model has no layer that keeps keys and values")
        super().__init__(layers=layers)

    def _layouts(self, dtype: str, heads: int, k_dim: int, v_dim: int) -> tuple[Layout, Optional[Layout], Optional[str]]:
        k, v = self.schemes
        kept = self.open or ("f16" if dtype == "f32" else dtype)
        _library.enum("dtype", kept, "open")
        if k is None:
            return (*Layout.preset(self.preset, head_dim=k_dim, v_dim=v_dim, kv_heads=heads), kept)
        widths: dict[str, Any] = {"head_dim": k_dim, "v_dim": v_dim, "kv_heads": heads}
        options: dict[str, Any] = {"rotation": self.rotation, "centring": self.centring}
        layout = Layout(k, v, **widths, **options)
        first = Layout(self.first, **widths, rotation=self.rotation) if self.first else None  # without centres, as presets have it
        return layout, first, kept if self.open or self.centring == "own" else None

    def _join(self, layer: KvtileLayer, heads: int, k_dim: int, v_dim: int, dtype: torch.dtype) -> tuple[_Group, int]:
        """The group of layers of that kind. All that could belong to it have room there, as widths are known when rows come."""
        key = (layer.window, heads, k_dim, v_dim, dtype)
        if key not in self._groups:
            alike = [each for each in self.layers if isinstance(each, KvtileLayer) and each.window == layer.window]
            layout, first, opened = self._layouts(DTYPES[dtype], heads, k_dim, v_dim)
            self._groups[key] = _Group((layout, first), opened, layer.window, len(alike), self.threads)
        group = self._groups[key]
        members = [each for each in self.layers if isinstance(each, KvtileLayer) and each.group is group]
        return group, len(members)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor] = self.layers[layer_idx].update(key_states, value_states, *args, **kwargs)
        return found

    def padding(self, mask: Optional[torch.Tensor], batch: int, length: int) -> list[int]:
        """Tokens of padding at the left of each sequence; a mask is looked at once for all layers of a step."""
        if mask is None:
            return [0] * batch
        if self._mask is None or mask is not self._mask[0] or length != self._mask[1]:
            if mask.dim() != 2 or mask.shape[0] != batch or mask.shape[1] != length:
                raise Error(f"attention_mask has shape {tuple(mask.shape)}: ({batch}, {length}) is right, tokens of the cache and new ones")
            seen = mask.bool()
            padding = (~seen).sum(-1)
            if not torch.equal(seen, torch.arange(length) >= padding[:, None]):
                raise Error("attention_mask has padding that is not at the left: tokenizer.padding_side = \"left\" is right")
            self._mask, self._padding = (mask, length), padding.tolist()
        assert self._padding is not None
        return self._padding

    def _others(self) -> list[Any]:
        return [layer for layer in self.layers if not isinstance(layer, KvtileLayer)]

    def crop(self, tokens: int) -> None:
        """Takes back tokens: crop(-3) the newest three. crop(100) of transformers 4: 100 tokens stay."""
        if tokens > 0 and not POSITIVE_CROP:
            raise Error(f"tokens is {tokens}: a negative number, of tokens that are taken back, is right")
        if tokens == 0 and not POSITIVE_CROP:
            return
        length = max((layer.length for layer in self.layers if isinstance(layer, KvtileLayer)), default=0)
        stay = tokens if tokens >= 0 else max(0, length + tokens)
        for group in self._groups.values():
            group.crop(stay)
        for layer in self.layers:
            if isinstance(layer, KvtileLayer):
                layer.length = min(layer.length, stay)
        for layer in self._others():
            layer.crop(tokens)

    def _choose(self, indices: Sequence[int], method: str, argument: Any) -> None:
        for group in self._groups.values():
            group.choose(indices)
        for layer in self._others():
            getattr(layer, method)(argument)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._choose(beam_idx.tolist(), "reorder_cache", beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        batch = max((len(group.rows) for group in self._groups.values()), default=0)
        self._choose([b for b in range(batch) for _ in range(repeats)], "batch_repeat_interleave", repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        batch = max((len(group.rows) for group in self._groups.values()), default=0)
        self._choose(torch.arange(batch)[indices].tolist(), "batch_select_indices", indices)

    def reset(self) -> None:
        for group in self._groups.values():
            group.reset()
        for layer in self.layers:
            layer.reset()
        self._mask = self._padding = None

    def nbytes(self) -> int:
        """Bytes of the blocks that sequences have: pages, first pages, and the open ones."""
        return sum(group.used() for group in self._groups.values())


def _place(states: torch.Tensor) -> Place:
    """Where [batch][head][token][dim] is as rows of tokens that are numbered through the batch; a copy only where strides ask for it."""
    batch, heads, tokens, dim = states.shape
    of_batch, of_head, of_token, of_dim = states.stride()
    if of_dim != 1 or (batch > 1 and tokens > 1 and of_batch != tokens * of_token):
        states = states.transpose(1, 2).contiguous().transpose(1, 2)
        of_batch, of_head, of_token, of_dim = states.stride()
    size = states.element_size()
    return states.data_ptr(), size * (of_batch if tokens == 1 else of_token), size * of_head, states


def _pack(states: torch.Tensor, chosen: torch.Tensor) -> Place:
    """The chosen tokens alone, as rows that follow each other."""
    batch, heads, tokens, dim = states.shape
    rows = states.transpose(1, 2).reshape(batch * tokens, heads, dim)[chosen]
    return rows.data_ptr(), rows.stride(0) * rows.element_size(), dim * rows.element_size(), rows


def attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Optional[torch.Tensor],
              scaling: Optional[float] = None, dropout: float = 0.0, sliding_window: Optional[int] = None, softcap: Optional[float] = None,
              s_aux: Optional[torch.Tensor] = None, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """attn_implementation="kvtile": queries attend to the blocks that the layer's keys and values went to."""
    layer: Optional[KvtileLayer] = getattr(key, "kvtile", None)
    if layer is None:
        raise Error("attn_implementation \"kvtile\" needs a KvtileCache: pass past_key_values=KvtileCache(model.config)")
    if dropout or kwargs.get("is_causal") is False or not getattr(module, "is_causal", True):
        raise Error("attn_implementation \"kvtile\" is causal and has no dropout")
    if query.requires_grad:
        raise Error("attn_implementation \"kvtile\" has no gradients: torch.no_grad() is right")
    if query.dtype != layer.dtype:
        raise Error(f"query is {query.dtype}: {layer.dtype} is right, as key is")
    batch, heads, fresh, dim = query.shape
    group, waiting = layer.group, layer.waiting
    if sliding_window and layer.window and sliding_window != layer.window:
        raise Error(f"sliding_window is {sliding_window}, but the cache was made for {layer.window}")
    if group.fresh != fresh or group.length + fresh != layer.length:
        layer._begin(batch, layer.length - fresh, fresh, layer.cache.padding(attention_mask, batch, layer.length))
    out = torch.empty(batch, fresh, heads, group.layout.v_dim, dtype=layer.dtype)
    form = None
    if waiting is not None and group.whole and s_aux is None:
        form = (query.shape, query.stride(), waiting[0].stride(), waiting[1].stride(), scaling, softcap, sliding_window)
        if form == group.form:
            layer.waiting = None
            group.again(layer.number, query, *waiting, out)
            return out, None
    step, number, group.form = group.step, DTYPE_NUMBERS[query.dtype], None
    step.scale = scaling if scaling is not None else dim ** -0.5
    step.soft_cap, step.window = softcap or 0.0, sliding_window or 0
    sinks = s_aux.detach().float().contiguous() if s_aux is not None else None
    step.sinks = sinks.data_ptr() if sinks is not None else None
    layer.waiting = None
    if group.whole:
        k, v = (_place(waiting[0]), _place(waiting[1])) if waiting is not None else (None, None)
        q = _place(query)
        workers = group.attend(layer.number, heads, q, k, v, out, number)
        if workers == 1 and waiting is not None and all(place is not None and place[3] is given for place, given in zip((q, k, v), (query, *waiting))):
            group.form = form  # and nothing had to be copied
    else:  # padding is not stored, so its rows are left out
        packed = torch.cat([torch.arange((b + 1) * fresh - new, (b + 1) * fresh) for b, new in enumerate(group.new)])
        k, v = (_pack(waiting[0], packed), _pack(waiting[1], packed)) if waiting is not None else (None, None)
        result = torch.empty(len(packed), heads, group.layout.v_dim, dtype=query.dtype)
        group.attend(layer.number, heads, _pack(query, packed), k, v, result, number)
        out.zero_()
        out.view(batch * fresh, heads, -1)[packed] = result
    return out, None


def _plain(function: Any) -> bool:
    """Whether a mask is causal, with or without a sliding window: what the attention function computes by itself."""
    if function is causal_mask_function:
        return True
    name = getattr(function, "__qualname__", "")
    if name.startswith("sliding_window_overlay."):
        return True
    if name.startswith("and_masks."):
        parts = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
        return "mask_functions" in parts and all(_plain(part) for part in parts["mask_functions"].cell_contents)
    return False


def mask(batch_size: int, *arguments: Any, mask_function: Any = causal_mask_function, attention_mask: Optional[torch.Tensor] = None,
         **kwargs: Any) -> Optional[torch.Tensor]:
    """What attn_implementation="kvtile" gets as attention_mask: tokens that are not padding, or None where all are."""
    if not _plain(mask_function):
        raise Error(f"the model asks for the mask {getattr(mask_function, '__qualname__', mask_function)!r}: attn_implementation \"kvtile\" knows causal masks, "
                    "windows and padding on the left; use \"sdpa\"")
    return None if attention_mask is None or attention_mask.all() else attention_mask


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, mask)
