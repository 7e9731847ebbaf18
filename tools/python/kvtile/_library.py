# SPDX-License-Identifier: MIT
"""libkvtile and libkvtile-model: their functions, and their statuses as exceptions."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, Optional

from kvtile import _table
from kvtile._structs import STRUCTS, parameter

def __getattr__(name: str) -> Any:
    """Structs and constants by their C names without `kvt_` and `KVT_`: _library.spec, _library.PAGE_TOKENS."""
    if "kvt_" + name in STRUCTS:
        return STRUCTS["kvt_" + name]
    if "KVT_" + name in _table.CONSTANTS:
        return _table.CONSTANTS["KVT_" + name]
    raise AttributeError(name)


VERSION = "{KVT_VERSION_MAJOR}.{KVT_VERSION_MINOR}.{KVT_VERSION_PATCH}".format(**_table.CONSTANTS)
_SONAME = "{KVT_VERSION_MAJOR}.{KVT_VERSION_MINOR}".format(**_table.CONSTANTS)


def _load(name: str) -> ctypes.CDLL:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.so.{_SONAME}")
    if not os.path.exists(path):
        raise ImportError(f"{path} is missing: kvtile is not installed whole (pip install kvtile, or pip install . in its source)")
    return ctypes.CDLL(path)


class _Functions:
    """Functions by their C names without `kvt_`, of whichever library has them."""

    def __init__(self) -> None:
        self._libraries = [_load("libkvtile"), _load("libkvtile-model")]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        symbol = "kvt_" + name
        if symbol not in _table.FUNCTIONS:
            raise AttributeError(f"{symbol} is no function of the headers")
        result, arguments = _table.FUNCTIONS[symbol]
        for library in self._libraries:
            try:
                function = getattr(library, symbol)
            except AttributeError:
                continue
            function.restype = parameter(result)
            function.argtypes = [parameter(kind) for _, kind in arguments]
            setattr(self, name, function)
            return function  # type: ignore[no-any-return]
        raise AttributeError(f"{symbol} is in neither library")


c = _Functions()
if c.version().decode() != VERSION:
    raise ImportError(f"libkvtile is version {c.version().decode()}, but this package was built for {VERSION}: install kvtile anew")


class Error(ValueError):
    """What the library refuses. `status` is the name of its status, "KVT_ERR_RANGE"; the text says what would be right."""

    def __init__(self, text: str, status: str = "") -> None:
        super().__init__(text)
        self.status = status


_STATUS = {value: name for name, value in _table.ENUMS["kvt_status"].items()}


def check(status: int, what: str = "", problem: Optional[Callable[..., int]] = None, *arguments: Any) -> None:
    """Raises what a status says; problem(*arguments, text, bytes) says it with fields and values."""
    if not status:
        return
    text = ctypes.create_string_buffer(_table.CONSTANTS["KVT_PROBLEM_BYTES"])
    if problem:
        problem(*arguments, text, len(text))
    said = text.value.decode() or c.status_text(status).decode()
    raise Error(f"{what}: {said}" if what else said, _STATUS.get(status, str(status)))


def enum(kind: str, value: Any, what: str) -> int:
    """A word like "own", or a number, as the value of an enum: the last part of its names in C, letter case ignored."""
    names = _table.ENUMS["kvt_" + kind]
    prefix = os.path.commonprefix(list(names)) if len(names) > 1 else ""
    words = {name[prefix.rfind("_") + 1:].lower(): number for name, number in names.items()}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if isinstance(value, int) and not isinstance(value, bool) and value in words.values():
        return value
    raise Error(f"{what} is {value!r}: {', '.join(words)} are right")


def word(kind: str, value: int) -> str:
    names = _table.ENUMS["kvt_" + kind]
    prefix = os.path.commonprefix(list(names))
    return next(name[prefix.rfind("_") + 1:].lower() for name, number in names.items() if number == value)
