"""The module of the stand-in: the functions of CuPy that minigrad and its tests use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from standin.devices import COUNT, CUDARuntimeError, Device, current, pool, properties, wait
from standin.generators import XORWOW, Generator, Philox4x3210, default_rng
from standin.ndarrays import Capsule, host_of, made, ndarray, new, ufunc_of, view
from standin.offered import TABLE, checked, offered

#: Functions that do what NumPy's do, with CuPy's parameters.
_SAME = (
    "all any argmax argmin asfortranarray broadcast_to can_cast clip concatenate copyto "
    "count_nonzero cumprod cumsum diag diagonal diff dot expand_dims flip inner max mean min "
    "moveaxis nan_to_num outer pad prod promote_types ravel repeat reshape result_type roll "
    "round split squeeze stack std sum swapaxes take_along_axis tensordot tile trace transpose "
    "tri tril triu var vdot"
)

#: Functions that do what NumPy's do, after the host has waited.
_WAITING = "argwhere flatnonzero nonzero unique"

#: Functions that make new arrays.
_NEW = "arange eye full full_like identity linspace ones ones_like zeros zeros_like"

_SAME_OBJECTS = (
    "bool_ dtype e euler_gamma finfo float16 float32 float64 iinfo inf int16 int32 int64 "
    "int8 nan newaxis pi uint16 uint32 uint64 uint8"
)


class _Module(ModuleType):
    """A module that says what it lacks: what CuPy does not have, or what the stand-in does not."""

    def __getattr__(self, name: str) -> Any:
        offered(self.__name__, name)
        if isinstance(TABLE[self.__name__][name], dict):
            return ufunc_of(name)
        raise NotImplementedError(
            f"CuPy has {self.__name__}.{name}, and the stand-in has not yet: add it, with a probe"
        )


@cache
def modules() -> dict[str, ModuleType]:
    """The module and its submodules, by name: to be entered in ``sys.modules``."""
    root = _Module("cupy")
    linalg, random, cuda = _Module("cupy.linalg"), _Module("cupy.random"), _Module("cupy.cuda")
    runtime = ModuleType("cupy.cuda.runtime")
    functions = {
        **{name: getattr(np, name) for name in _SAME_OBJECTS.split()},
        **{name: _like_numpys("cupy", name, getattr(np, name)) for name in _SAME.split()},
        **{name: _like_numpys("cupy", name, _waiting(name)) for name in _WAITING.split()},
        **{name: _like_numpys("cupy", name, getattr(np, name)) for name in _NEW.split()},
        "abs": ufunc_of("absolute"),
        **{name: _like_numpys("cupy", name, _truth(name)) for name in ("allclose", "array_equal")},
        "array": array,
        "array2string": array2string,
        "argsort": argsort,
        "asarray": asarray,
        "asnumpy": asnumpy,
        "einsum": einsum,
        "empty": empty,
        "empty_like": empty_like,
        "from_dlpack": from_dlpack,
        "get_array_module": get_array_module,
        "get_default_memory_pool": lambda: pool,
        "is_available": lambda: True,
        "matmul": matmul,
        "sort": sort,
        "take": take,
        "where": where,
    }
    for name, function in functions.items():
        offered("cupy", name)
        setattr(root, name, function)
    root.__dict__.update(ndarray=ndarray, linalg=linalg, random=random, cuda=cuda)
    root.__file__, root.__spec__ = __file__, ModuleSpec("cupy", None)
    root.__version__ = f"{TABLE['version']} (stand-in)"  # type: ignore[attr-defined]
    for name in ("cholesky", "det", "inv", "norm", "slogdet", "solve"):
        setattr(linalg, name, _like_numpys("cupy.linalg", name, _LINALG.get(name) or _linear(name)))
    linalg.LinAlgError = np.linalg.LinAlgError  # type: ignore[attr-defined]
    random.__dict__.update(
        Generator=Generator, Philox4x3210=Philox4x3210, XORWOW=XORWOW, default_rng=default_rng
    )
    cuda.__dict__.update(Device=Device, get_device_id=current, runtime=runtime)
    runtime.__dict__.update(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: 0,
        getDeviceCount=lambda: COUNT,
        getDeviceProperties=properties,
        runtimeGetVersion=lambda: 0,
    )
    return {module.__name__: module for module in (root, linalg, random, cuda, runtime)}


def _like_numpys(owner: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    check = checked(owner, name)

    def call(*args: Any, **settings: Any) -> Any:
        check(*args, **settings)
        found: list[ndarray] = []
        plain = [host_of(x, found) for x in args]
        named = {key: host_of(x, found) for key, x in settings.items()}
        with np.errstate(all="ignore"):
            return made(function(*plain, **named), found)

    call.__name__ = call.__qualname__ = name
    return call


def _waiting(name: str) -> Callable[..., Any]:
    def call(*args: Any, **settings: Any) -> Any:
        wait(name)
        return getattr(np, name)(*args, **settings)

    return call


def _truth(name: str) -> Callable[..., Any]:
    return lambda *args, **settings: np.bool_(getattr(np, name)(*args, **settings))


# --------------------------------------------------------------------------------------
# To the device, and back
# --------------------------------------------------------------------------------------


def array(obj: Any, dtype: Any = None, copy: bool = True, order: Any = "K", **rest: Any) -> ndarray:
    checked("cupy", "array")(obj, dtype, copy, order, **rest)
    if isinstance(obj, ndarray) and not copy and obj._device == current():
        return obj if dtype is None or obj.dtype == dtype else new(obj._host.astype(dtype))
    host = obj._host if isinstance(obj, ndarray) else np.asarray(obj)
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    if not isinstance(obj, ndarray):  # strides of NumPy never reach the device
        order = {None: "C", "K": "A"}.get(order, order)
    return new(host.astype(dtype or host.dtype, order=order))


def asarray(a: Any, dtype: Any = None, order: str | None = None, **rest: Any) -> ndarray:
    checked("cupy", "asarray")(a, dtype, order, **rest)
    return array(a, dtype, copy=False, order=order)


def asnumpy(a: Any, **settings: Any) -> Any:
    checked("cupy", "asnumpy")(a, **settings)
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def array2string(a: Any, *args: Any, **settings: Any) -> str:
    return np.array2string(asnumpy(a), *args, **settings)


def from_dlpack(array: Any, **settings: Any) -> ndarray:
    checked("cupy", "from_dlpack")(array, **settings)
    capsule = array.__dlpack__()
    if not isinstance(capsule, Capsule):
        raise TypeError(f"there is no device memory behind {type(array)}")
    return view(capsule.array._host.view(), capsule.array)


def get_array_module(*args: Any) -> Any:
    return sys.modules["cupy"] if any(isinstance(x, ndarray) for x in args) else np


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype)


def empty_like(a: ndarray, dtype: Any = None) -> ndarray:
    return ndarray(a.shape, dtype or a.dtype)


# --------------------------------------------------------------------------------------
# What differs from NumPy
# --------------------------------------------------------------------------------------


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        wait("where")
        return made(np.nonzero(host_of(condition, [])), [])
    if not isinstance(condition, ndarray | np.generic):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    found: list[ndarray] = []
    condition, x, y = (host_of(part, found) for part in (condition, x, y))
    return made(np.where(condition, x, y), found)


def take(a: ndarray, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
    return a.take(indices, axis, out)


def argsort(a: ndarray, axis: int | None = -1, kind: str | None = None) -> ndarray:
    return a.argsort(axis, kind)


def sort(a: ndarray, axis: int | None = -1, kind: str | None = None) -> ndarray:
    ordered = a.flatten() if axis is None else a.copy()  # type: ignore[attr-defined]
    ordered.sort(-1 if axis is None else axis, kind)
    return ordered


def einsum(*operands: Any, **settings: Any) -> Any:
    if unknown := settings.keys() - {"dtype", "optimize"}:
        raise TypeError(f"Did not understand the following kwargs: {sorted(unknown)}")
    found: list[ndarray] = []
    return made(np.einsum(*[host_of(x, found) for x in operands], **settings), found)


def matmul(a: Any, b: Any, *, out: Any = None) -> Any:
    product = a @ b
    if out is None:
        return product
    out[...] = product
    return out


# --------------------------------------------------------------------------------------
# Linear algebra, which does not look whether a matrix is singular
# --------------------------------------------------------------------------------------


def _linear(name: str) -> Callable[..., Any]:
    function = getattr(np.linalg, name)

    def call(*args: Any, **settings: Any) -> Any:
        try:
            result = function(*args, **settings)
        except np.linalg.LinAlgError as error:
            if "ingular" not in str(error) and "definite" not in str(error):
                raise
            return np.full(args[-1].shape, np.nan, np.result_type(*args, np.float32))
        return tuple(result) if isinstance(result, tuple) else result

    return call


def _solve(a: Any, b: Any) -> Any:
    if b.ndim != 1 and a.shape[:-1] != b.shape[:-1]:
        raise ValueError(
            "a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b"
        )
    return _linear("solve")(a, b)


_LINALG = {"solve": _solve}
