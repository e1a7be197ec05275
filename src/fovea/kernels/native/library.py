"""The shared library and its C interface (``fovea_native.h``), by ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ISA_VARIABLE = "FOVEA_ISA"
"""Environment variable that names the variant to run: ``baseline``, ``avx2`` or ``avx512``; read at each call."""

HERE = Path(__file__).parent


class Array(Structure):
    """``fovea_tensor``."""

    _fields_ = [("data", c_void_p), ("size", c_int64), ("stride", c_int64 * 5)]


class Axis(Structure):
    """``fovea_axis``."""

    _fields_ = [
        *((name, c_int64) for name in ("queries", "keys", "step", "before", "after", "bias_low", "bias_count")),
        *((name, c_void_p) for name in ("start", "stop", "position")),
    ]


class BlockLists(Structure):
    """``fovea_blocks``."""

    _fields_ = [
        *((name, c_int64) for name in ("size", "queries", "keys", "position", "rows", "tables", "pairs", "causal")),
        *((name, c_void_p) for name in ("indptr", "index", "table_of")),
    ]


class Question(Structure):
    """``fovea_problem``."""

    _fields_ = [
        *((name, c_int32) for name in ("dtype", "axes", "threads", "isa")),
        *((name, c_int64) for name in ("batch", "heads", "kv_heads", "head_dim", "value_dim", "extra")),
        ("scale", c_double),
        ("axis", Axis * 3),
        ("blocks", POINTER(BlockLists)),
    ]


class Operands(Structure):
    """``fovea_operands``."""

    _fields_ = [
        *((name, Array) for name in ("query", "key", "value", "extra_key", "extra_value", "out")),
        ("bias", c_void_p),
        ("lse", c_void_p),
    ]


class GradientArrays(Structure):
    """``fovea_gradients``."""

    _fields_ = [
        *((f"grad_{name}", Array) for name in ("out", "query", "key", "value", "extra_key", "extra_value")),
        ("grad_lse", c_void_p),
        ("grad_bias", c_void_p),
    ]


def _openmp() -> int | None:
    """Address of ``GOMP_parallel`` in the OpenMP runtime that PyTorch has loaded; none where there is none."""
    paths: list[str | None] = []
    if sys.platform == "linux":
        with open("/proc/self/maps") as maps:
            names = {line.split(maxsplit=5)[-1].strip() for line in maps if "omp" in line}
        paths += sorted(name for name in names if Path(name).name.startswith(("libgomp", "libomp", "libiomp")))
    for path in paths:
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    found = [path for suffix in EXTENSION_SUFFIXES if (path := HERE / f"_kernels{suffix}").exists()]
    if not found:
        return "the package was installed without a C++ compiler; install one and reinstall fovea"
    try:
        loaded = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return f"its library cannot be loaded: {error}"
    text = [c_char_p, c_int64]
    loaded.fovea_forward.argtypes = [POINTER(Question), POINTER(Operands), *text]
    loaded.fovea_backward.argtypes = [POINTER(Question), POINTER(Operands), POINTER(GradientArrays), *text]
    loaded.fovea_work.argtypes = [POINTER(Question), POINTER(c_int64), *text]
    loaded.fovea_isa_name.restype = c_char_p
    loaded.fovea_set_parallel.argtypes = [c_void_p]
    loaded.fovea_set_parallel.restype = None
    loaded.fovea_set_parallel(_openmp())
    return loaded


def loaded() -> ctypes.CDLL:
    """The library; ``RuntimeError`` where there is none."""
    found = library()
    if isinstance(found, str):
        raise RuntimeError(f"the native backend is missing: {found}")
    return found


def variants() -> dict[str, int]:
    """Names and numbers of the variants that this machine can run, the plainest first."""
    names = ((loaded().fovea_isa_name(c_int(isa)), isa) for isa in range(3))
    return {name.decode(): isa for name, isa in names if name}


def variant() -> int:
    """The variant to run: that of ``FOVEA_ISA``, or the best the machine has."""
    wanted = os.environ.get(ISA_VARIABLE, "")
    if not wanted:
        return -1
    known = variants()
    if wanted not in known:
        raise ValueError(f"{ISA_VARIABLE}={wanted!r}; this machine runs {', '.join(known)}")
    return known[wanted]


def call(name: str, *arguments: Structure | ctypes.Array[c_int64]) -> None:
    """Call a function of the library; ``ValueError`` with its words where it refuses."""
    message = ctypes.create_string_buffer(512)
    references = [a if isinstance(a, ctypes.Array) else byref(a) for a in arguments]
    if getattr(loaded(), name)(*references, message, len(message)):
        text = message.value.decode()
        raise MemoryError(text) if text == "not enough memory" else ValueError(text)
