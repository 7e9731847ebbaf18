# SPDX-License-Identifier: MIT
"""kvtile: a language model's KV cache in fewer bytes, the same bytes on every CPU. docs/python.md begins with examples."""
from __future__ import annotations

from typing import Any, NamedTuple

from kvtile._library import VERSION as __version__
from kvtile._library import Error, c
from kvtile.cache import Cache, Group
from kvtile.layouts import PAGE_TOKENS, Layout, Store, attend
from kvtile.sizes import Size, longest_context, models, size
from kvtile.steps import NO_BLOCK, Sequence, View

__all__ = ["CPU", "Cache", "Error", "Group", "Layout", "NO_BLOCK", "PAGE_TOKENS", "Scheme", "Sequence", "Size", "Store", "View", "attend", "cpu",
           "longest_context", "models", "presets", "schemes", "size", "__version__"]


class Scheme(NamedTuple):
    """How numbers are stored."""

    name: str
    title: str
    bits: int


class CPU(NamedTuple):
    """What this CPU runs: its features that some kernels ask for, the tiers that it can run, and the tier that serves each scheme."""

    features: tuple[str, ...]
    tiers: tuple[str, ...]
    schemes: dict[str, str]


def _all(function: Any) -> list[Any]:
    found: list[Any] = []
    while function(len(found)):
        found.append(function(len(found)))
    return found


def schemes() -> list[Scheme]:
    """All schemes, as Layout and size take them."""
    return [Scheme(info.contents.name.decode(), info.contents.title.decode(), info.contents.bits) for info in _all(c.scheme_at)]


def presets() -> list[str]:
    """Names of recommended pairs of schemes, as Layout.preset and size take them."""
    return [name.decode() for name in _all(c.preset_name)]


def cpu() -> CPU:
    usable = c.tiers_usable()
    return CPU(tuple(feature.decode() for feature in _all(c.cpu_feature)),
               tuple(c.tier_name(bit).decode() for bit in range(32) if usable >> bit & 1),
               {info.contents.name.decode(): c.scheme_tier(info.contents.scheme, 0).decode() for info in _all(c.scheme_at)})
