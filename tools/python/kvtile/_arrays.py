# SPDX-License-Identifier: MIT
"""Arrays of callers: where their numbers are, by the buffer protocol or DLPack. No copy, and no other package."""
from __future__ import annotations

import ctypes
import sys
from typing import Any, Callable, NamedTuple, Optional, Sequence, Union

from kvtile import _library

Array = Any  # numpy arrays, torch tensors, memoryviews, array.array, and whatever else has the buffer protocol or DLPack


class Numbers(NamedTuple):
    """Where an array's numbers are. Strides are bytes; `owner` keeps them there."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    readonly: bool
    owner: Any


class _PyBuffer(ctypes.Structure):  # of CPython's stable interface
    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
                ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
                ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p)]


class _DLTensor(ctypes.Structure):  # dlpack.h, versions 0 and 1
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


_PyBUF_FULL_RO = 0x011C
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_capsule_pointer.restype = ctypes.c_void_p

_FORMATS = {"f": "f32", "e": "f16", "B": "u8", "b": "i8", "c": "u8", "H": "u16", "h": "i16", "d": "f64", "i": "i32", "l": "i64", "q": "i64",
            "I": "u32", "L": "u64", "Q": "u64", "?": "bool"}
_DL_CODES = {0: "i", 1: "u", 2: "f", 4: "bf", 6: "bool"}
_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
_CPU = (1, 3)  # kDLCPU, kDLCUDAHost


def _of_buffer(array: Any) -> Numbers:
    view = memoryview(array)
    raw = _PyBuffer()
    _get_buffer(view, ctypes.byref(raw), _PyBUF_FULL_RO)
    address = raw.buf or 0
    _release_buffer(ctypes.byref(raw))
    native = "<" if sys.byteorder == "little" else ">"
    form = view.format
    plain = form[1:] if form[:1] in ("@", "=", native) else form
    return Numbers(address, view.shape or (), view.strides or (), _FORMATS.get(plain, f"of format {form!r}"), view.readonly, view)


def _of_dlpack(array: Any, name: str) -> Numbers:
    try:
        device, number = array.__dlpack_device__()
        if device not in _CPU:
            raise _library.Error(f"{name} is on DLPack device {int(device)}:{number}: memory of the CPU is right ({name}.cpu())")
        capsule = array.__dlpack__()
    except _library.Error:
        raise
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _library.Error(f"{name} gives no numbers: {error}") from error
    tensor = _DLTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    n = tensor.ndim
    shape = tuple(tensor.shape[:n])
    elements = tuple(tensor.strides[:n]) if tensor.strides else contiguous(shape, 1)
    dtype = _DL_CODES.get(tensor.code, f"DLPack {tensor.code}/") + (str(tensor.bits) if tensor.code != 6 else "")
    if tensor.lanes != 1:
        dtype += f"x{tensor.lanes}"
    size = tensor.bits * tensor.lanes // 8
    return Numbers((tensor.data or 0) + tensor.byte_offset, shape, tuple(stride * size for stride in elements), dtype, False, (array, capsule))


def contiguous(shape: Sequence[int], size: int) -> tuple[int, ...]:
    strides, at = [], size
    for n in reversed(shape):
        strides.append(at)
        at *= n
    return tuple(reversed(strides))


def numbers(array: Array, name: str) -> Numbers:
    try:
        return _of_buffer(array)
    except (TypeError, BufferError, ValueError):
        pass
    if hasattr(array, "__dlpack__"):
        return _of_dlpack(array, name)
    raise _library.Error(f"{name} is a {type(array).__name__}: an array with the buffer protocol or DLPack is right (numpy, torch, memoryview)")


def _text(shape: Sequence[Union[int, str]]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def rows(array: Array, name: str, shape: Sequence[Union[int, str]], dtypes: Sequence[str] = ("f32", "f16", "bf16"), *, writable: bool = False,
         bf16: bool = False, hint: Callable[[tuple[int, ...]], str] = lambda have: "") -> Numbers:
    """An array of numbers whose shape is `shape`, in which words stand for any number, and whose last axis is without gaps."""
    found = numbers(array, name)
    if bf16 and found.dtype in ("u16", "i16"):
        found = found._replace(dtype="bf16")
    if found.dtype not in dtypes:
        raise _library.Error(f"{name} is {found.dtype}: {' or '.join(dtypes)} is right")
    if len(found.shape) != len(shape) or any(n != m for n, m in zip(found.shape, shape) if not isinstance(m, str)):
        raise _library.Error(f"{name} has shape {_text(found.shape)}: {_text(shape)} is right{hint(found.shape)}")
    size = _BYTES.get(found.dtype) or int("".join(filter(str.isdigit, found.dtype))) // 8
    if found.shape[-1] > 1 and found.strides[-1] != size:
        raise _library.Error(f"{name} has strides of {found.strides} bytes: the last axis has to be without gaps, {size} bytes from number to number")
    if writable and found.readonly:
        raise _library.Error(f"{name} is read-only: results cannot be written there")
    return found


def memory(array: Array, name: str, bytes_: int) -> Numbers:
    """A writable block of at least so many bytes, without gaps."""
    found = numbers(array, name)
    have = 1
    for n in found.shape:
        have *= n
    if found.dtype not in ("u8", "i8"):
        raise _library.Error(f"{name} is {found.dtype}: u8 is right")
    if found.strides != contiguous(found.shape, 1):
        raise _library.Error(f"{name} has strides of {found.strides} bytes: memory without gaps is right")
    if have < bytes_:
        raise _library.Error(f"{name} has {have} bytes: at least {bytes_} are right")
    if found.readonly:
        raise _library.Error(f"{name} is read-only: pages cannot be written there")
    return found


def empty(shape: Sequence[int], dtype: str, like: Optional[Array] = None) -> Array:
    """An array for results: of torch for torch's tensors, otherwise of numpy, and without numpy a memoryview of f32."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.empty(tuple(shape), dtype={"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype])
    try:
        import numpy
    except ImportError:
        numpy = None
    if numpy is not None and dtype in ("f32", "f16"):
        return numpy.empty(tuple(shape), dtype={"f32": "float32", "f16": "float16"}[dtype])
    if dtype != "f32":
        raise _library.Error(f"dtype is {dtype}: without an `out` of that dtype, or torch, f32 is right")
    count = 1
    for n in shape:
        count *= n
    if count == 0:
        raise _library.Error(f"a result of shape {_text(shape)} has no numbers: without numpy, give `out`")
    return memoryview(bytearray(4 * count)).cast("f", tuple(shape))
