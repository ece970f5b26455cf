"""NumPy or CuPy: the one room that knows which.

The rest of minigrad asks :func:`namespace` for the library that an array belongs to and
calls NumPy's names on it. CuPy is imported when a device array is first asked for, never
before. Where the two libraries differ, the difference is settled here.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from os import environ
from typing import Any, TypeAlias

import numpy

from minigrad.slots import debugging

#: A NumPy or a CuPy array.
Array: TypeAlias = Any
#: What the operations accept: a Tensor, an array, a number, or a nested list of numbers.
TensorLike: TypeAlias = Any
DType: TypeAlias = "numpy.dtype[Any]"

#: The dtype of what is true or false.
BOOLEAN: DType = numpy.dtype("bool")


class _Namespaces(dict[type, Any]):
    """Array type -> array library; CuPy's types are entered when first seen."""

    def __missing__(self, kind: type) -> Any:
        if kind.__module__.partition(".")[0] == "cupy":
            # Between devices that can read each other's memory CuPy only warns of operands on
            # another one than the current, and puts the result on the current one.
            warnings.filterwarnings("error", "The device where the array resides")
            self[kind] = cupy()
            return self[kind]
        if issubclass(kind, numpy.ndarray | numpy.generic):
            return numpy
        return None


_namespaces = _Namespaces({numpy.ndarray: numpy, float: None, int: None, bool: None})


def cupy() -> Any:
    """The CuPy module, or an error that names the extra to install."""
    try:
        import cupy as module
    except ImportError as error:
        raise ImportError(
            "arrays on a GPU need CuPy: install minigrad[cuda13], or minigrad[cuda12] "
            "for a driver of CUDA 12"
        ) from error
    return module


def namespace(operand: Any) -> Any:
    """The array library of an array; NumPy's for anything else."""
    return _namespaces[type(operand)] or numpy


def common_namespace(*operands: Any) -> Any:
    """The array library of the first array among the operands; NumPy if there is none."""
    return next(filter(None, (_namespaces[type(operand)] for operand in operands)), numpy)


def is_array(value: object) -> bool:
    """Whether ``value`` is an array (or an array scalar) of a known library."""
    return _namespaces[type(value)] is not None


def as_array(value: Any) -> Array:
    """``value`` unless it is an array scalar, which becomes an array of no dimensions."""
    return numpy.asarray(value) if isinstance(value, numpy.generic) else value


# --------------------------------------------------------------------------------------
# Making arrays
# --------------------------------------------------------------------------------------

_default_dtype: DType = numpy.dtype("float32")


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype that :func:`minigrad.tensor` gives to Python floats (float32).

    Raises ``TypeError`` for a dtype that is not float16, float32 or float64.

    >>> import minigrad as mg
    >>> mg.set_default_dtype("float64")
    >>> mg.tensor(0.5).dtype
    dtype('float64')
    >>> mg.set_default_dtype("float32")
    """
    global _default_dtype
    wanted = numpy.dtype(dtype)
    if wanted not in ("float16", "float32", "float64"):
        raise TypeError(f"the default dtype is float16, float32 or float64, not {wanted}")
    _default_dtype = wanted


def floating_dtype(dtype: Any | None) -> DType:
    """``dtype`` as a float dtype object; the default dtype for ``None``."""
    if dtype is None:
        return _default_dtype
    wanted = numpy.dtype(dtype)
    if wanted.kind != "f":
        raise TypeError(f"a float dtype is needed here (float16, float32, float64), not {wanted}")
    return wanted


def make_array(data: Any, dtype: Any = None, device: str | None = None, *, copy: bool) -> Array:
    """An array of ``data`` on ``device``; Python floats take the default dtype.

    Without a device, what is not on a GPU is put on that of the :func:`device` scope.
    ``copy=False`` shares memory with ``data`` where dtype and device allow it.
    """
    if is_array(data):
        array = data
    else:
        try:
            array = numpy.asarray(data)
        except ValueError as error:
            raise ValueError(
                "a tensor needs nested sequences of equal lengths; these are ragged"
            ) from error
        if dtype is None and array.dtype.kind == "f" and not hasattr(data, "__array__"):
            dtype = _default_dtype  # of numbers; another library's array keeps its own
        copy = copy and not isinstance(data, list)  # a buffer of another kind may be shared
    check_real(array.dtype)
    check_real(numpy.dtype(dtype or array.dtype))
    if dtype is not None and array.dtype != dtype:
        array, copy = array.astype(dtype), False
    here = device_of(array)
    if device is None:
        device = _default_device.get() if here == "cpu" else here
    if device != here:
        moved = to_device(array, device)
        array, copy = moved, copy and moved is array
    return as_array(array.copy() if copy else array)


def check_real(dtype: DType) -> None:
    """Raise ``TypeError`` unless tensors can hold ``dtype``."""
    if dtype.kind not in "biuf":
        raise TypeError(
            f"a tensor holds real numbers or booleans, not {dtype}"
            + ("; split it into .real and .imag" if dtype.kind == "c" else "")
        )


# --------------------------------------------------------------------------------------
# Devices
# --------------------------------------------------------------------------------------


def device_of(array: Array) -> str:
    """``"cpu"``, or ``"cuda:0"`` and so on for a CuPy array."""
    if isinstance(array, numpy.ndarray | numpy.generic):
        return "cpu"
    return f"cuda:{array.device.id}"


def to_device(array: Array, device: str) -> Array:
    """``array`` on ``device``: ``"cpu"``, ``"cuda"`` (the current one) or ``"cuda:N"``."""
    if device == "cpu":
        return to_numpy(array)
    with cuda_device(device):
        return cupy().asarray(array, order="K")


def cuda_device(name: str | None) -> Any:
    """CuPy's device of a name; the current one for ``"cuda"`` and ``None``.

    Raises ``ValueError`` for another name, ``ImportError`` without CuPy, and ``RuntimeError`` if
    there is no such device.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", "cuda" if name is None else name)
    if match is None:
        raise ValueError(f"unknown device {name!r}: write 'cpu', 'cuda' or 'cuda:0'")
    library = cupy()
    if not library.is_available():
        raise RuntimeError(f"device {name!r} was asked for, but CuPy finds no usable GPU")
    found = library.cuda.Device(None if match[1] is None else int(match[1]))
    count = library.cuda.runtime.getDeviceCount()
    if found.id >= count:
        raise RuntimeError(f"device {name!r} was asked for, but CuPy finds only {count}")
    return found


def current_device() -> str:
    """The GPU that CuPy computes on in this thread; ``"cpu"`` without CuPy."""
    library = sys.modules.get("cupy")
    return "cpu" if library is None else f"cuda:{library.cuda.get_device_id()}"


_default_device: ContextVar[str] = ContextVar("default_device", default="cpu")


def default_device() -> str:
    """The device of the innermost :func:`device` scope, ``"cpu"`` outside of all."""
    return _default_device.get()


@contextmanager
def device(name: str) -> Iterator[None]:
    """In this block tensors, parameters, layers and states are made on that device.

    What is already on a device stays where it is: a Tensor, and a CuPy array. ``device=`` in a
    call comes first. Computing on another GPU than the first needs such a block, too, for it
    makes the device CuPy's current one. The scope is that of the thread (or asyncio task): a new
    thread begins on the CPU.

    Args:
        name: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        ValueError: for a name that is none of these.
        ImportError: if CuPy is not installed; the error names the extra.
        RuntimeError: if there is no such device.

    >>> import minigrad as mg
    >>> with mg.device("cpu"):
    ...     x = mg.tensor([1.0])
    >>> x.device
    'cpu'
    """
    with nullcontext() if name == "cpu" else cuda_device(name) as found:
        token = _default_device.set("cpu" if found is None else f"cuda:{found.id}")
        try:
            yield
        finally:
            _default_device.reset(token)


def from_dlpack(source: Any) -> Array:
    """The array of another library, sharing its memory, on the device where it is."""
    kind, _ = source.__dlpack_device__()
    cpu, cuda = 1, 2
    if kind not in (cpu, cuda):
        raise TypeError(f"DLPack device {kind} is neither the CPU nor a CUDA device")
    return (numpy if kind == cpu else cupy()).from_dlpack(source)


def to_numpy(array: Array) -> numpy.ndarray[Any, Any]:
    """``array`` as a NumPy array; a CuPy array is copied to the host."""
    return numpy.asarray(array if device_of(array) == "cpu" else array.get())


# --------------------------------------------------------------------------------------
# Random numbers, always from an explicit generator
# --------------------------------------------------------------------------------------


def generator(rng: Any) -> numpy.random.Generator:
    """A NumPy generator of a generator, of a seed, or of fresh entropy for ``None``."""
    return numpy.random.default_rng(rng)


def random_like(rng: numpy.random.Generator, array: Array, shape: Sequence[int]) -> Array:
    """Uniform numbers in [0, 1), of ``array``'s library and device, float32.

    On a GPU they are drawn there, by a generator that ``rng`` seeds.
    """
    states = _states_before_drawing.get()
    if states is not None:
        states.setdefault(id(rng), (rng, rng.bit_generator.state))
    library = namespace(array)
    source: Any = rng
    if library is not numpy:
        # Of CuPy's sources of random bits this one takes the least time to seed.
        bits = library.random.Philox4x3210(int(rng.integers(1 << 63)))
        source = library.random.Generator(bits)
    numbers = source.random(shape, dtype="float32")
    watcher = watching_draws.get()
    if watcher is not None:
        watcher(rng, numbers)
    return numbers


#: Is told of every draw: of the generator, and of the numbers.
watching_draws: ContextVar[Callable[[numpy.random.Generator, Array], None] | None] = ContextVar(
    "watching_draws", default=None
)


#: Generators by id, and the states in which they were when :func:`remembered_draws` began.
States: TypeAlias = "dict[int, tuple[numpy.random.Generator, Any]]"

_states_before_drawing: ContextVar[States | None] = ContextVar("states", default=None)


@contextmanager
def remembered_draws() -> Iterator[States]:
    """Collects the state that every generator had before it drew in this block."""
    states: States = {}
    outer = _states_before_drawing.get()
    token = _states_before_drawing.set(states)
    try:
        yield states
    finally:
        _states_before_drawing.reset(token)
        if outer is not None:
            outer |= {key: state for key, state in states.items() if key not in outer}


@contextmanager
def repeated_draws(states: States) -> Iterator[None]:
    """In this block the generators draw again what they drew from those states on."""
    now = {key: (rng, rng.bit_generator.state) for key, (rng, _) in states.items()}
    rewind(states)
    try:
        yield
    finally:
        rewind(now)


def rewind(states: States) -> None:
    """Let generators draw again what they drew from those states on."""
    for rng, state in states.values():
        rng.bit_generator.state = state


# --------------------------------------------------------------------------------------
# What the two libraries do differently
# --------------------------------------------------------------------------------------


def ignoring_floating_point_errors() -> Any:
    """In this block NumPy does not warn of overflow and NaN; CuPy never does."""
    return numpy.errstate(all="ignore")


def add_at(target: Array, index: Any, values: Array) -> None:
    """``target[index] += values`` where positions that ``index`` repeats add up.

    Rows gathered by one array of integers, the gradient of an embedding, are by far the
    most common case, and NumPy's ``add.at`` is slow at it: they are sorted by position
    and each run of equals is summed at once.
    """
    library = namespace(target)
    if library is numpy and isinstance(index, numpy.ndarray) and index.dtype.kind in "iu":
        if values.size:
            positions = index.ravel().astype(numpy.intp) % len(target)
            order = numpy.argsort(positions, kind="stable")
            positions = positions[order]
            starts = numpy.flatnonzero(numpy.diff(positions, prepend=-1))
            rows = values.reshape(index.size, -1)[order]
            if rows.shape[1] <= 64:
                sums = numpy.add.reduceat(rows, starts, axis=0)
            else:  # reduceat goes down the columns, which in long rows are far apart
                sums = rows[starts]
                stops = numpy.append(starts[1:], len(rows))
                (several,) = numpy.nonzero(stops - starts > 1)
                for i in several.tolist():
                    numpy.add.reduce(rows[starts[i] : stops[i]], axis=0, out=sums[i])
            target.reshape(len(target), -1)[positions[starts]] += sums
    else:
        library.add.at(target, index, values)


def small_products_are_fast() -> bool:
    """Whether NumPy multiplies small matrices faster than large ones: on one thread, with AVX-512.

    Its OpenBLAS has other code for them then. On several threads large ones are as fast.
    """
    config: Any = numpy.show_config(mode="dicts")
    openblas = "openblas" in config["Build Dependencies"]["blas"]["name"]
    avx512 = {"X86_V4", "AVX512_SKX"}.intersection(config["SIMD Extensions"]["found"])
    if not openblas or not avx512:
        return False
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "1" in (environ.get("OPENBLAS_NUM_THREADS"), environ.get("OMP_NUM_THREADS"))
    libraries = [each for each in threadpool_info() if each["internal_api"] == "openblas"]
    return all([each["num_threads"] == 1 for each in libraries])


def check_positions(positions: Array, length: int, what: str) -> None:
    """Raise ``IndexError`` unless all ``positions`` are integers in ``0 .. length - 1``.

    The range is not checked on a GPU, where looking at a value waits for the device, unless
    in the debug scope.
    """
    if positions.dtype.kind not in "iu":
        raise TypeError(f"{what} are integers, not {positions.dtype}; cast with .astype('int64')")
    if positions.size and (device_of(positions) == "cpu" or debugging.get()):
        low, high = int(positions.min()), int(positions.max())
        if low < 0 or high >= length:
            raise IndexError(
                f"{what} lie between 0 and {length - 1}; there is a {low if low < 0 else high}"
            )


def check_index(index: Any, shape: Sequence[int]) -> None:
    """Raise ``IndexError`` for an index out of range, which CuPy wraps around; this waits."""
    parts = index if isinstance(index, tuple) else (index,)
    numpy.broadcast_to(False, shape)[tuple([to_numpy(p) if is_array(p) else p for p in parts])]


def owner(array: Array) -> Array:
    """The array that owns the memory that ``array`` views."""
    while is_array(array.base):
        array = array.base
    return array


def solve(a: Array, b: Array) -> Array:
    """The x with  a x = b,  where stacks broadcast (as CuPy does not let them)."""
    columns = b[:, None] if b.ndim == 1 else b
    stacks = numpy.broadcast_shapes(a.shape[:-2], columns.shape[:-2])
    library = namespace(a)
    x = library.linalg.solve(
        library.broadcast_to(a, stacks + a.shape[-2:]),
        library.broadcast_to(columns, stacks + columns.shape[-2:]),
    )
    return x[..., 0] if b.ndim == 1 else x
