"""The random numbers of the stand-in: the generator that CuPy has, which lacks much of NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from standin.ndarrays import ndarray, new
from standin.offered import TABLE, checked


class XORWOW:
    """``cupy.random.XORWOW``: a source of bits, seeded by a number."""

    def __init__(self, seed: Any = None) -> None:
        self.generator = np.random.default_rng(seed)


class Philox4x3210(XORWOW):
    """``cupy.random.Philox4x3210``"""


class Generator:
    """``cupy.random.Generator``: no normal, permutation, shuffle or choice, and no state."""

    def __init__(self, bit_generator: XORWOW) -> None:
        self._drawn = bit_generator.generator

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"CuPy's Generator has no attribute {name!r}, or the stand-in's has not"
        )


def default_rng(seed: Any = None) -> Generator:
    """``cupy.random.default_rng``"""
    if isinstance(seed, np.random.Generator):
        raise TypeError("a generator of NumPy is no seed of one of CuPy")
    return seed if isinstance(seed, Generator) else Generator(XORWOW(seed))


def _bind_methods() -> None:
    def method(name: str) -> Callable[..., ndarray]:
        check = checked("cupy.random.Generator", name)

        def call(self: Generator, *args: Any, **settings: Any) -> ndarray:
            check(self, *args, **settings)
            return new(getattr(self._drawn, name)(*args, **settings))

        return call

    for name in ("integers", "random", "standard_normal"):
        assert name in TABLE["cupy.random.Generator"]
        setattr(Generator, name, method(name))


_bind_methods()
