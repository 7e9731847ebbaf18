# SPDX-License-Identifier: MIT
"""ctypes' classes of the library's structs, and types of its functions, from the generated table."""
from __future__ import annotations

import ctypes
from typing import Any

from kvtile import _table

SCALARS = {"size_t": ctypes.c_size_t, "ptrdiff_t": ctypes.c_ssize_t, "uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64, "int": ctypes.c_int,
           "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "uint8_t": ctypes.c_uint8, "unsigned": ctypes.c_uint, "float": ctypes.c_float,
           "double": ctypes.c_double, "_Bool": ctypes.c_bool, **{name: ctypes.c_int for name in _table.ENUMS}}


def _structs() -> dict[str, Any]:
    """A ctypes class for each struct; a field that is a pointer to one of them has its type."""
    structs: dict[str, Any] = {name: type(name, (ctypes.Structure,), {}) for name in _table.STRUCTS}

    def field(kind: str) -> Any:
        words = [word for word in kind.split() if word != "const"]
        if "*" not in words:
            return structs[words[0]] if words[0] in structs else SCALARS[words[0]]
        if words == ["char", "*"]:
            return ctypes.c_char_p
        return ctypes.POINTER(structs[words[0]]) if len(words) == 2 and words[0] in structs else ctypes.c_void_p

    for name, fields in _table.STRUCTS.items():
        structs[name]._fields_ = [(label, field(kind) * length if length else field(kind)) for label, kind, length in fields]
    return structs


STRUCTS = _structs()


def parameter(kind: str) -> Any:
    words = [word for word in kind.split() if word != "const"]
    if words == ["void"]:
        return None
    if "*" not in words:
        return SCALARS[words[0]]
    if words == ["char", "*"]:
        return ctypes.c_char_p
    if len(words) == 2 and words[0] in STRUCTS:
        return ctypes.POINTER(STRUCTS[words[0]])
    if len(words) == 2 and words[0] in SCALARS and words[0] != "float":
        return ctypes.POINTER(SCALARS[words[0]])
    return ctypes.c_void_p
