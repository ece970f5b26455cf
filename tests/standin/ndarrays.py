"""The array of the stand-in: a NumPy array that nobody may look at without asking."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np

from standin.devices import Device, current, pool, thread, wait
from standin.offered import TABLE, checked, offered

Host = np.ndarray[Any, Any]

#: The operands that have a dtype, and those that take part in a ufunc.
_TYPED = (np.ndarray, np.generic)
_OPERANDS = (*_TYPED, int, float, complex)


class ndarray:  # noqa: N801
    """``cupy.ndarray``"""

    __slots__ = ("__weakref__", "_base", "_device", "_host", "_taken")
    __hash__ = None  # type: ignore[assignment]
    #: CuPy's value, by which NumPy's own operators give way.
    __array_priority__ = 100

    _host: Host
    _device: int
    _base: ndarray | None

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        host = np.empty(shape, dtype)
        host.view(np.uint8).fill(0xA5) if host.ndim else None
        self._hold(host, current(), None)

    def _hold(self, host: Host, device: int, base: ndarray | None) -> None:
        self._host = host
        self._device = device
        self._base = base
        self._taken = 0 if base is not None else pool.take(device, host.nbytes)

    def __del__(self) -> None:
        if getattr(self, "_taken", 0):
            pool.give(self._device, self._taken)

    # ---------------------------------------------------------------- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._host.dtype

    @property
    def itemsize(self) -> int:
        return self._host.itemsize

    @property
    def nbytes(self) -> int:
        return self._host.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return self._host.strides

    @property
    def flags(self) -> Any:
        return self._host.flags

    @property
    def device(self) -> Device:
        return Device(self._device)

    @property
    def base(self) -> ndarray | None:
        return self._base

    @property
    def T(self) -> ndarray:
        return view(self._host.T, self)

    @property
    def mT(self) -> ndarray:
        return view(self._host.mT, self)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __matmul__(self, other: Any) -> Any:
        return _by_protocol("matmul", self, other) if _overrides(other) else _product(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _product(other, self)

    # ---------------------------------------------------------------- to the host

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Host:
        wait("get")
        return self._host.copy()

    def item(self) -> Any:
        wait("item")
        return self._host.item()

    def tolist(self) -> Any:
        wait("tolist")
        return self._host.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        wait("tobytes")
        return self._host.tobytes(order)

    def __bool__(self) -> bool:
        wait("bool")
        return bool(self._host) if self.size else False

    def __int__(self) -> int:
        wait("int")
        return int(self._host)

    def __float__(self) -> float:
        wait("float")
        return float(self._host)

    def __repr__(self) -> str:
        wait("repr")
        return repr(self._host)

    def __str__(self) -> str:
        wait("str")
        return str(self._host)

    def __format__(self, spec: str) -> str:
        wait("format")
        return format(self._host, spec)

    def __reduce__(self) -> Any:
        wait("pickle")
        return _unpickled, (self._host,)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to "
            "construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, settings: Any) -> NoReturn:
        raise TypeError(f"numpy.{function.__name__} was called on a device array")

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        # NumPy's scalars come here by their operators, as in  np.float32(2) * device_array.
        if method != "__call__" or not any(isinstance(x, np.generic) for x in inputs):
            raise TypeError(f"numpy.{function.__name__} was called on a device array")
        return ufunc_of(function.__name__)(*inputs, **settings)

    # ---------------------------------------------------------------- between devices

    def copy(self, order: str = "C") -> ndarray:
        return new(self._host.copy())

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device

    def __dlpack__(self, **settings: Any) -> Any:
        return Capsule(self)

    # ---------------------------------------------------------------- parts

    def __getitem__(self, index: Any) -> Any:
        return made(self._host[_host_index(self, index)], [self])

    def __setitem__(self, index: Any, value: Any) -> None:
        plain, host = _host_index(self, index), host_of(value, [self])
        if np.size(host) > 1:
            _refuse_repeated_positions(self, plain)
        self._host[plain] = host

    def take(self, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
        return made(np.take(self._host, host_of(indices, [self]), axis, mode="wrap"), [self])

    def scatter_add(self, slices: Any, value: Any) -> None:
        self._scatter(np.add, slices, value, "int32 float16 float32 float64 uint32 uint64")

    def scatter_max(self, slices: Any, value: Any) -> None:
        self._scatter(np.maximum, slices, value, "int32 float32 float64 uint32 uint64")

    def scatter_min(self, slices: Any, value: Any) -> None:
        self._scatter(np.minimum, slices, value, "int32 float32 float64 uint32 uint64")

    def _scatter(self, function: np.ufunc, index: Any, value: Any, dtypes: str) -> None:
        plain = _host_index(self, index)
        if _has_positions(plain) and str(self.dtype) not in dtypes.split():
            raise TypeError(f"{function.__name__}.at only supports {dtypes}, not {self.dtype}")
        added = np.asarray(host_of(value, [self])).astype(self.dtype)
        function.at(self._host, plain, added)

    def fill(self, value: Any) -> None:
        self._host.fill(host_of(value, [self]))

    def argsort(self, axis: int | None = -1, kind: str | None = None) -> ndarray:
        _check_kind(kind)
        return made(self._host.argsort(axis, kind="stable"), [self])

    def sort(self, axis: int = -1, kind: str | None = None) -> None:
        _check_kind(kind)
        here(self)
        self._host.sort(axis, kind="stable")


# --------------------------------------------------------------------------------------
# Making them
# --------------------------------------------------------------------------------------


class Capsule:
    """What stands for a DLPack capsule."""

    def __init__(self, array: ndarray) -> None:
        self.array = array


def new(host: Any) -> ndarray:
    """An array with this content, which nothing else refers to, on the current device."""
    array = ndarray.__new__(ndarray)
    array._hold(np.asarray(host), thread.device, None)
    return array


def view(host: Host, of: ndarray) -> ndarray:
    """A view of an array."""
    array = ndarray.__new__(ndarray)
    array._hold(host, of._device, of if of._base is None else of._base)
    return array


def made(result: Any, operands: Sequence[ndarray]) -> Any:
    """What NumPy made of the operands: new arrays, views, or one of them; never scalars."""
    if isinstance(result, tuple | list):
        return (tuple if isinstance(result, tuple) else list)(
            [made(part, operands) for part in result]
        )
    if isinstance(result, np.generic):
        return new(result)
    if not isinstance(result, np.ndarray):
        return result
    for operand in operands:
        if operand._host is result:
            return operand
        if _root(operand._host) is _root(result):
            return view(result, operand)
    return new(result)


def _root(host: Host) -> Host:
    while isinstance(host.base, np.ndarray):
        host = host.base
    return host


def _unpickled(host: Host) -> ndarray:
    return new(host.copy())


# --------------------------------------------------------------------------------------
# Operands
# --------------------------------------------------------------------------------------


def host_of(value: Any, found: list[ndarray]) -> Any:
    """An argument for NumPy. Arrays are added to ``found``; those of NumPy are refused."""
    if isinstance(value, ndarray):
        here(value)
        found.append(value)
        return value._host
    if isinstance(value, tuple | list):
        return type(value)([host_of(part, found) for part in value])
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def here(array: ndarray) -> None:
    """Raise ``ValueError`` unless the array is on the current device."""
    if array._device != thread.device:
        raise ValueError(
            f"The device where the array resides ({array._device}) is different from the current "
            f"device ({current()}). Peer access is unavailable between these devices."
        )


def _host_index(array: ndarray, index: Any) -> Any:
    """An index of NumPy. Integers in arrays wrap around, as in CuPy."""
    parts = index if isinstance(index, tuple) else (index,)
    used = sum(_axes_of(part) for part in parts)
    axis, plain = 0, []
    for part in parts:
        if isinstance(part, list | np.ndarray):
            raise TypeError(f"an index on a device is a device array, not a {type(part).__name__}")
        if part is Ellipsis:
            axis += array.ndim - used
        host = host_of(part, [])
        if isinstance(part, ndarray) and part.dtype.kind == "b":
            wait("boolean index")
        elif isinstance(part, ndarray) and part.dtype.kind in "iu" and axis < array.ndim:
            length = array.shape[axis]
            host = (host.astype(np.int64) % length) if length else host
        axis += _axes_of(part)
        plain.append(host)
    return tuple(plain) if isinstance(index, tuple) else plain[0]


def _axes_of(part: Any) -> int:
    """How many axes a part of an index reads."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, ndarray) and part.dtype.kind == "b" else 1


def _has_positions(plain: Any) -> bool:
    parts = plain if isinstance(plain, tuple) else (plain,)
    return any(isinstance(part, np.ndarray) and part.dtype.kind in "iu" for part in parts)


def _refuse_repeated_positions(array: ndarray, plain: Any) -> None:
    if _has_positions(plain):
        named = np.arange(array.size).reshape(array.shape)[plain].ravel()
        if np.unique(named).size < named.size:
            raise AssertionError(
                "an assignment names a position twice: what CuPy then leaves there is undefined"
            )


def _check_kind(kind: str | None) -> None:
    if kind not in (None, "stable"):
        raise ValueError(f"kind is None or 'stable' in CuPy, not {kind!r}")


def _product(a: Any, b: Any) -> Any:
    found: list[ndarray] = []
    return made(operator.matmul(host_of(a, found), host_of(b, found)), found)


def _overrides(operand: Any) -> bool:
    """Whether an operand of another library has a say in what operators do with it."""
    return not isinstance(operand, (ndarray, *_TYPED)) and hasattr(operand, "__array_ufunc__")


def _by_protocol(name: str, array: ndarray, other: Any) -> Any:
    """What such an operand makes of an operator, as NumPy's function, which CuPy calls, asks it."""
    return other.__array_ufunc__(getattr(np, name), "__call__", array, other)


# --------------------------------------------------------------------------------------
# Universal functions
# --------------------------------------------------------------------------------------

_SCATTERS = {"add": "scatter_add", "maximum": "scatter_max", "minimum": "scatter_min"}


class ufunc:  # noqa: N801
    """``cupy.ufunc``: the keywords out, dtype and casting, and some methods of a few."""

    def __init__(self, name: str) -> None:
        known = offered("cupy", name)
        self.__name__ = name
        self.nin: int = known["nin"]
        self.nout: int = known["nout"]
        self.types: list[str] = known["types"]
        self._numpys = getattr(np, name)

    def __call__(
        self,
        *args: Any,
        out: ndarray | None = None,
        dtype: Any = None,
        casting: Any = "same_kind",
    ) -> Any:
        if out is None and len(args) == self.nin + self.nout == self.nin + 1:
            *args, out = args  # type: ignore[assignment]
        if len(args) != self.nin:
            raise TypeError(f"{self.__name__} takes {self.nin} arguments, not {len(args)}")
        found: list[ndarray] = []
        hosts = [host_of(x, found) for x in args]
        for host in hosts:
            if not isinstance(host, _OPERANDS):
                raise TypeError(f"Unsupported type {type(host)}")
        result_type = self._result_type(hosts)
        to = None if out is None else host_of(out, found)
        with np.errstate(all="ignore"):
            result = self._numpys(*hosts, out=to, dtype=dtype, casting=casting)
        if out is not None:
            return out
        if dtype is None and self.nout == 1 and result.dtype != result_type:
            result = result.astype(result_type)
        return made(result, ())

    def _result_type(self, hosts: Sequence[Any]) -> np.dtype[Any]:
        """The type that CuPy's list of types gives; Python's numbers follow the others."""
        strong = [x.dtype for x in hosts if isinstance(x, _TYPED)]
        dtypes = [x.dtype if isinstance(x, _TYPED) else np.result_type(*strong, x) for x in hosts]
        return _result_type(self, tuple(dtypes))

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        if self.__name__ not in _SCATTERS:
            raise NotImplementedError(f"`at` is not supported for {self.__name__}")
        getattr(a, _SCATTERS[self.__name__])(indices, b)

    def reduce(
        self,
        array: ndarray,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
    ) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`reduce` is not supported for {self.__name__}")
        reduction = array.sum if self.__name__ == "add" else array.prod  # type: ignore[attr-defined]
        return reduction(axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def accumulate(self, array: ndarray, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`accumulate` is not supported for {self.__name__}")
        running = array.cumsum if self.__name__ == "add" else array.cumprod  # type: ignore[attr-defined]
        return running(axis, dtype=dtype, out=out)


@cache
def _result_type(function: ufunc, dtypes: tuple[np.dtype[Any], ...]) -> np.dtype[Any]:
    for loop in function.types:
        inputs, _, outputs = loop.partition("->")
        if all(np.can_cast(d, c) for d, c in zip(dtypes, inputs, strict=True)):
            return np.dtype(outputs[0])
    raise TypeError(f"Wrong type {tuple(map(str, dtypes))} of arguments for {function.__name__}")


@cache
def ufunc_of(name: str) -> ufunc:
    """The ufunc of that name."""
    return ufunc(name)


# --------------------------------------------------------------------------------------
# Operators and methods
# --------------------------------------------------------------------------------------

_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}


def _bind_operators() -> None:
    def binary(name: str) -> Callable[..., Any]:
        def compute(self: ndarray, other: Any) -> Any:
            if other is None and name in ("equal", "not_equal"):
                return new(np.full(self.shape, name == "not_equal"))
            if _overrides(other):
                return _by_protocol(name, self, other)
            return ufunc_of(name)(self, other)

        return compute

    def reflected(name: str) -> Callable[..., Any]:
        return lambda self, other: ufunc_of(name)(other, self)

    def in_place(name: str) -> Callable[..., Any]:
        return lambda self, other: ufunc_of(name)(self, other, out=self)

    for short, name in _OPERATORS.items():
        setattr(ndarray, f"__{short}__", binary(name))
        setattr(ndarray, f"__r{short}__", reflected(name))
        setattr(ndarray, f"__i{short}__", in_place(name))
    for short, name in _COMPARISONS.items():
        setattr(ndarray, f"__{short}__", binary(name))
    for short, name in (("neg", "negative"), ("abs", "absolute"), ("invert", "invert")):
        setattr(ndarray, f"__{short}__", lambda self, name=name: ufunc_of(name)(self))


#: Methods that do what NumPy's do.
_METHODS = (
    "all any argmax argmin astype clip conj cumprod cumsum diagonal dot flatten max mean "
    "min prod ravel repeat reshape round squeeze std sum swapaxes trace transpose var view"
)


def _bind_methods() -> None:
    def method(name: str) -> Callable[..., Any]:
        check = checked("cupy.ndarray", name)

        def call(self: ndarray, *args: Any, **settings: Any) -> Any:
            check(self, *args, **settings)
            found: list[ndarray] = []
            host = host_of(self, found)
            plain = [host_of(x, found) for x in args]
            named = {key: host_of(x, found) for key, x in settings.items()}
            with np.errstate(all="ignore"):
                return made(getattr(host, name)(*plain, **named), found)

        return call

    for name in _METHODS.split():
        setattr(ndarray, name, method(name))
    for name in vars(ndarray):
        assert name.startswith("_") or name in TABLE["cupy.ndarray"], f"CuPy has no {name}"


_bind_operators()
_bind_methods()
ndarray.__module__ = "cupy"
