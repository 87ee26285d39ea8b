"""Products of a few rows with weights that were packed once, by the OpenBLAS inside numpy.

BLAS brings its larger factor into the order in which its kernel reads it, anew at every product. For a handful of rows
that is a good part of the work, and it reads memory in strides. So the weights of a model are packed once, by
OpenBLAS's own copying routine, and multiplied by its own kernel (Goto and van de Geijn, "Anatomy of high-performance
matrix multiplication", 2008). All lie in one array, which numpy asks the system to keep in large pages.

Kernel and routine are not BLAS's public interface: they are taken only where an OpenBLAS for AVX2 has them by name and
they pass :func:`_right`. Anywhere else :class:`PlainWeight` multiplies, as numpy does.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from embedders.projection import Matrix

ROWS_AT_ONCE = 4
"""Rows should come in multiples of it: the kernel is slower with 7 rows than with 8."""
_CORES = ("HASWELL", "ZEN")
"""OpenBLAS's names of processors whose kernels were tried; those with AVX-512 need no packing for few rows."""
_NAMED_BY = ("scipy_openblas_get_corename64_", "scipy_openblas_get_corename", "openblas_get_corename")
_INNER = 384
"""Columns of the rows that are packed together: twelve rows of them stay in a processor's first cache."""
_FEW_ROWS = 12
"""The kernel reads the weights once for so many rows, and again for the next ones."""
_BLOCK = 192
"""Columns of the result computed together for more rows, so that the second reading is from a processor's cache; a
multiple of every strip in which a kernel reads."""
_FLOAT = 4


class Rows(NamedTuple):
    """An array and where it is."""

    array: Matrix
    """[rows, columns], C-contiguous"""
    address: int

    @classmethod
    def zeros(cls, rows: int, columns: int) -> Rows:
        """Zeros, ``rows`` rounded up to a multiple of :data:`ROWS_AT_ONCE`.

        Rows that nobody fills stay zero, as a product adds zeros to them.
        """
        return cls.of(np.zeros((rows + -rows % ROWS_AT_ONCE, columns), np.float32))

    @classmethod
    def of(cls, array: Matrix) -> Rows:
        """A C-contiguous ``array``."""
        return cls(array, array.ctypes.data)


class Product(Protocol):
    """A linear layer's weight."""

    def add(self, rows: Rows, place: Rows, packed: Rows) -> None:
        """Add ``rows`` [m, in] times the weight to ``place`` [m, out].

        :param packed: a place for work, as :func:`work_place` makes it.
        :raises ValueError: if the shapes do not fit.
        """
        ...


@dataclass(frozen=True, eq=False)
class PlainWeight:
    """Multiplied by numpy."""

    weight: Matrix
    """[in, out]"""

    def add(self, rows: Rows, place: Rows, packed: Rows) -> None:
        """As :meth:`Product.add`; needs no place for work."""
        place.array.__iadd__(rows.array @ self.weight)


@dataclass(frozen=True)
class _Kernel:
    """Routines of OpenBLAS; each matrix is as C has it, so that OpenBLAS sees its transpose."""

    pack_weight: Callable[[int, int, int, int, int], int]
    """Columns, rows, address and row length of a part of a weight [out, in], and where to put it."""
    pack_rows: Callable[[int, int, int, int, int], int]
    """The same for the other factor [m, in]."""
    multiply: Callable[[int, int, int, float, int, int, int, int], int]
    """Outputs, rows, columns, factor, both packed factors, the result that is added to, and its row length."""


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """Multiplied by OpenBLAS's kernel, without packing."""

    shape: tuple[int, int]
    """in, out"""
    numbers: Matrix
    """[in * out], packed in parts of :data:`_INNER` inputs"""
    address: int
    kernel: _Kernel

    @classmethod
    def pack(cls, weight: Matrix, numbers: Matrix, kernel: _Kernel) -> PackedWeight:
        """Pack ``weight`` [out, in] into ``numbers`` [in * out]."""
        out, inner = weight.shape
        weight = np.ascontiguousarray(weight)
        source, target = weight.ctypes.data, numbers.ctypes.data
        for start in range(0, inner, _INNER):
            width = min(_INNER, inner - start)
            kernel.pack_weight(width, out, source + _FLOAT * start, inner, target + _FLOAT * start * out)
        return cls((inner, out), numbers, target, kernel)

    def add(self, rows: Rows, place: Rows, packed: Rows) -> None:
        """As :meth:`Product.add`."""
        inner, out = self.shape
        count = len(rows.array)
        if (
            rows.array.shape != (count, inner)
            or place.array.shape != (count, out)
            or packed.array.size < count * _INNER
        ):
            raise ValueError(f"{rows.array.shape} times {self.shape} does not fit {place.array.shape}.")
        block = out if count <= _FEW_ROWS else _BLOCK
        for start in range(0, inner, _INNER):
            width = min(_INNER, inner - start)
            self.kernel.pack_rows(width, count, rows.address + _FLOAT * start, inner, packed.address)
            part = self.address + _FLOAT * start * out
            for column in range(0, out, block):
                self.kernel.multiply(
                    min(block, out - column),
                    count,
                    width,
                    1.0,
                    part + _FLOAT * column * width,
                    packed.address,
                    place.address + _FLOAT * column,
                    out,
                )


def work_place(rows: int) -> Rows:
    """Where :meth:`Product.add` packs so many rows, or fewer."""
    return Rows.zeros(rows, _INNER)


class Weights:
    """Room for weights of ``size`` numbers in all, in the order in which a model reads them."""

    def __init__(self, size: int) -> None:
        self._kernel = find_kernel()
        self._room = np.empty(size if self._kernel else 0, np.float32)
        self._used = 0

    def keep(self, weight: Matrix) -> Product:
        """A copy of ``weight`` [out, in], as it is multiplied fastest here."""
        if self._kernel is None:
            return PlainWeight(np.ascontiguousarray(weight.T))
        start, self._used = self._used, self._used + weight.size
        return PackedWeight.pack(weight, self._room[start : self._used], self._kernel)


@cache
def find_kernel() -> _Kernel | None:
    """The routines of the OpenBLAS that numpy has loaded; None if there are none, or they do not do as expected."""
    if platform.machine() not in ("x86_64", "AMD64") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        # Names are also looked up in the libraries that this one needs.
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError):
        return None
    core = _core(library)
    names = ("incopy", "oncopy", "kernel")
    if core not in _CORES or not all(hasattr(library, f"sgemm_{name}_{core}") for name in names):
        return None
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    copies = (size, size, pointer, size, pointer)
    kernel = _Kernel(
        _routine(library, f"sgemm_incopy_{core}", copies),
        _routine(library, f"sgemm_oncopy_{core}", copies),
        _routine(library, f"sgemm_kernel_{core}", (size, size, size, ctypes.c_float, pointer, pointer, pointer, size)),
    )
    return kernel if _right(kernel) else None


def _core(library: ctypes.CDLL) -> str | None:
    """The processor whose kernels this OpenBLAS uses."""
    for name in _NAMED_BY:
        if hasattr(library, name):
            ask = getattr(library, name)
            ask.restype = ctypes.c_char_p
            return (ask() or b"").decode(errors="replace").upper()
    return None


def _routine(library: ctypes.CDLL, name: str, arguments: Sequence[Any]) -> Callable[..., int]:
    routine = getattr(library, name)
    routine.argtypes = arguments
    return routine  # type: ignore[no-any-return]


def _right(kernel: _Kernel) -> bool:
    """Whether products are those of numpy: few and many rows, whole and partial blocks."""
    random = np.random.default_rng(1)
    for out, inner in ((_BLOCK + 40, 48), (24, _INNER + 8)):
        weight = random.standard_normal((out, inner), np.float32)
        product = PackedWeight.pack(weight, np.empty(weight.size, np.float32), kernel)
        for count in (ROWS_AT_ONCE, _FEW_ROWS, 2 * _FEW_ROWS + ROWS_AT_ONCE):
            rows = random.standard_normal((count, inner), np.float32)
            place = Rows.of(np.ones((count, out), np.float32))
            product.add(Rows.of(rows), place, work_place(count))
            if not np.allclose(place.array, 1 + rows @ weight.T, atol=1e-3):
                return False
    return True
