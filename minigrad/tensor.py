"""Tensor: an array and its slot on a tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NoReturn

from minigrad import arrays
from minigrad.arrays import Array, DType, TensorLike
from minigrad.slots import BLOCK, CONSTANT, LEAF, in_step, new_leaf, tape_of

#: Every public operation under its NumPy name. The modules of ``minigrad.ops`` fill it as
#: they define them; the methods and operators below, and NumPy's protocols, look there.
operations: dict[str, Callable[..., Any]] = {}


class TapeError(RuntimeError):
    """A tape or a tensor's place on it was used in a way that has no gradient."""


class Tensor:
    """An array and an integer slot; immutable, and without pointers to its history.

    Make one with :func:`minigrad.tensor` (copies) or :func:`minigrad.asarray` (shares).
    Operators, methods and NumPy's own functions (``np.tanh(t)``) compute new tensors, and
    record what they did while a :class:`minigrad.Tape` is open.

    Attributes:
        array: the NumPy or CuPy array. It is never written to.
        slot: where the tensor stands on a tape; see :mod:`minigrad.slots`.

    >>> import minigrad as mg
    >>> x = mg.tensor([1.0, 2.0], requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     y = mg.sum(x * x)
    >>> tape.gradient(y, x)
    tensor([2., 4.])
    """

    __slots__ = ("__weakref__", "_grad", "array", "slot")

    array: Array
    slot: int

    def __init__(self, array: Array, slot: int = CONSTANT) -> None:
        self.array = array
        self.slot = slot

    # ---------------------------------------------------------------- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.array.size

    @property
    def dtype(self) -> DType:
        """The NumPy dtype of the elements."""
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self.array.nbytes

    @property
    def device(self) -> str:
        """``"cpu"``, or ``"cuda:0"`` and so on."""
        return arrays.device_of(self.array)

    @property
    def is_leaf(self) -> bool:
        """Whether the user asked for the gradient of this very tensor."""
        return self.slot >= LEAF

    @property
    def requires_grad(self) -> bool:
        """Whether this tensor wants a gradient.

        True of a leaf, and of a tensor that a tape recorded, until it is cut away.
        """
        if self.slot >= LEAF:
            return True
        tape = tape_of(self.slot)
        return tape is not None and self.slot >= tape.base

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward`` accumulated in this leaf, a constant; or ``None``.

        Raises ``AttributeError`` if the tensor is not a leaf, since it never gets one.
        """
        if self.slot < LEAF:
            raise AttributeError(
                "only a leaf (requires_grad=True, or a Parameter) keeps a gradient; "
                "for a computed tensor write tape.gradient(loss, tensor)"
            )
        try:
            return self._grad
        except AttributeError:
            return None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self.slot < LEAF:
            raise AttributeError("only a leaf (requires_grad=True, or a Parameter) has a gradient")
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"a gradient is a Tensor or None, not {type(value).__name__}")
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(
                    f"the gradient of a {describe(self.array)} leaf must have its shape and "
                    f"dtype; this one is {describe(value.array)}"
                )
            value = value.detach()
        self._grad = value

    def rebind(self, array: TensorLike) -> None:
        """Let this leaf hold ``array`` from now on; what a tape has saved stays as it was.

        This is how optimizers update a parameter: no array is ever written to, so a
        gradient is always that of the values which the forward pass used.

        Raises ``TapeError`` if the tensor is not a leaf, and ``ValueError`` if shape,
        dtype or device differ from what the leaf holds.
        """
        if self.slot < LEAF:
            raise TapeError("only a leaf can be given another array; compute a new tensor instead")
        if in_step():
            raise TapeError(
                "a leaf cannot be given another array in a step that is scanned, which is recorded "
                "once and played for every x: rebind it afterwards"
            )
        old = self.array
        array = arrays.as_array(array) if arrays.is_array(array) else asarray(array).array
        if (
            array.shape != old.shape
            or array.dtype != old.dtype
            or arrays.device_of(array) != self.device
        ):
            raise ValueError(
                f"a leaf keeps its shape, dtype and device: it holds {describe(old)} on "
                f"{self.device}, and was given {describe(array)} on {arrays.device_of(array)}"
            )
        self.array = array

    # ---------------------------------------------------------------- conversions

    def numpy(self) -> Array:
        """The values as a NumPy array, shared on the CPU, copied from a GPU.

        Do not write to it: a tape may still need these values.
        """
        return arrays.to_numpy(self.array)

    def item(self) -> float | int | bool:
        """The only element as a Python number; on a GPU this waits for the device."""
        if self.array.size != 1:
            raise ValueError(f"item() needs exactly one element; this tensor is {self.shape}")
        return self.array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.array.tolist()

    def detach(self) -> Tensor:
        """The same values as a constant: no gradient flows through it."""
        return Tensor(self.array)

    def _remade(self, array: Array) -> Tensor:
        """A new tensor with ``array``, which was made of the own one."""
        return Tensor(array)

    def to(self, device: str) -> Tensor:
        """The values on another device, as a constant (or a new leaf, if this is one)."""
        if self.slot < LEAF and self.requires_grad:
            raise TapeError(
                "a computed tensor cannot move between devices with its gradient; move the "
                "leaves before recording, or write t.detach().to(...)"
            )
        moved = Tensor(arrays.to_device(self.array, device))
        if self.slot >= LEAF:
            moved.slot = new_leaf(moved)
        return moved

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous: reduce it first, "
                "(t > 0).all() for example"
            )
        return bool(self.array.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index, not {self.dtype}")
        return int(self.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise TypeError(
                "turning this tensor into a NumPy array would silently drop its gradient: use "
                "minigrad's functions (or NumPy's, called on the tensor itself), or write "
                "t.numpy() if the gradient is not wanted"
            )
        if self.device != "cpu":
            raise TypeError(f"this tensor is on {self.device}: write t.numpy() to copy it")
        array = self.array if dtype is None else self.array.astype(dtype, copy=False)
        if copy is False and array is not self.array:
            raise ValueError(f"a {self.dtype} tensor cannot be a {dtype} array without a copy")
        return array.copy() if copy else array

    def __dlpack__(self, **settings: Any) -> Any:
        if self.requires_grad:
            raise TypeError(
                "handing this tensor to another library would silently drop its gradient: write "
                "t.detach() if that is meant"
            )
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __copy__(self) -> Tensor:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return _restore(type(self), deepcopy(self.array), self.slot >= LEAF)

    def __reduce__(self) -> Any:
        return _restore, (type(self), self.array, self.slot >= LEAF)

    # ---------------------------------------------------------------- looks

    def __repr__(self) -> str:
        return self._describe("tensor")

    def _describe(self, name: str) -> str:
        library = arrays.namespace(self.array)
        text = library.array2string(self.array, separator=", ", prefix=f"{name}(")
        notes = ""
        if self.dtype not in ("float32", "int64", "bool"):
            notes += f", dtype={self.dtype}"
        if self.size == 0 and self.ndim != 1:
            notes += f", shape={self.shape}"
        if self.device != "cpu":
            notes += f", device={self.device!r}"
        if self.slot >= LEAF:
            notes += ", requires_grad=True" if name == "tensor" else ""
        elif self.requires_grad:
            notes += f", slot={self.slot % BLOCK}"
        return f"{name}({text}{notes})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __len__(self) -> int:
        if not self.array.ndim:
            raise TypeError("a tensor of no dimensions has no len()")
        return len(self.array)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.array.ndim:
            raise TypeError("a tensor of no dimensions cannot be iterated over")
        return iter(operations["unstack"](self))

    def __contains__(self, value: object) -> bool:
        return bool((self.array == getattr(value, "array", value)).any())

    # ---------------------------------------------------------------- differentiation

    def backward(self, seed: TensorLike = None, *, retain: bool = False) -> None:
        """Add the gradient of this tensor to ``.grad`` of every leaf it was computed from.

        The same as ``tape.backward(self)`` on the tape that recorded it.
        """
        tape = tape_of(self.slot)
        if tape is None:
            raise TapeError(f"this tensor {no_history(self)}")
        tape.backward(self, seed, retain=retain)

    # ---------------------------------------------------------------- operators

    if TYPE_CHECKING:
        # These are the operations themselves: minigrad.ops.operators binds them.
        def __add__(self, other: TensorLike) -> Tensor: ...
        def __radd__(self, other: TensorLike) -> Tensor: ...
        def __sub__(self, other: TensorLike) -> Tensor: ...
        def __rsub__(self, other: TensorLike) -> Tensor: ...
        def __mul__(self, other: TensorLike) -> Tensor: ...
        def __rmul__(self, other: TensorLike) -> Tensor: ...
        def __truediv__(self, other: TensorLike) -> Tensor: ...
        def __rtruediv__(self, other: TensorLike) -> Tensor: ...
        def __pow__(self, other: TensorLike) -> Tensor: ...
        def __rpow__(self, other: TensorLike) -> Tensor: ...
        def __matmul__(self, other: TensorLike) -> Tensor: ...
        def __rmatmul__(self, other: TensorLike) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __eq__(self, other: TensorLike) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: TensorLike) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: TensorLike) -> Tensor: ...
        def __le__(self, other: TensorLike) -> Tensor: ...
        def __gt__(self, other: TensorLike) -> Tensor: ...
        def __ge__(self, other: TensorLike) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...

    def __pos__(self) -> Tensor:
        return self

    __hash__ = object.__hash__

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise TypeError(
            "a tensor is never written to, since a tape may need its values: instead of "
            "x[i] = v write x = mg.set_at(x, i, v), instead of x[mask] = v also "
            "x = mg.where(mask, v, x), and build a tensor from pieces with mg.stack or "
            "mg.concatenate"
        )

    # ---------------------------------------------------------------- methods

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.sum`"""
        return operations["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.mean`"""
        return operations["mean"](self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.max`"""
        return operations["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.min`"""
        return operations["min"](self, axis=axis, keepdims=keepdims)

    def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.prod`"""
        return operations["prod"](self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.var`"""
        return operations["var"](self, axis=axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.std`"""
        return operations["std"](self, axis=axis, ddof=ddof, keepdims=keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        """:func:`minigrad.cumsum`"""
        return operations["cumsum"](self, axis=axis)

    def cumprod(self, axis: int | None = None) -> Tensor:
        """:func:`minigrad.cumprod`"""
        return operations["cumprod"](self, axis=axis)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.argmax`"""
        return operations["argmax"](self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.argmin`"""
        return operations["argmin"](self, axis=axis, keepdims=keepdims)

    def argsort(self, axis: int | None = -1) -> Tensor:
        """:func:`minigrad.argsort`"""
        return operations["argsort"](self, axis=axis)

    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.all`"""
        return operations["all"](self, axis=axis, keepdims=keepdims)

    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """:func:`minigrad.any`"""
        return operations["any"](self, axis=axis, keepdims=keepdims)

    def clip(self, low: TensorLike, high: TensorLike) -> Tensor:
        """:func:`minigrad.clip`"""
        return operations["clip"](self, low, high)

    def round(self, decimals: int = 0) -> Tensor:
        """:func:`minigrad.round`"""
        return operations["round"](self, decimals)

    def dot(self, other: TensorLike) -> Tensor:
        """:func:`minigrad.dot`"""
        return operations["dot"](self, other)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """:func:`minigrad.trace`"""
        return operations["trace"](self, offset, axis1, axis2)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """:func:`minigrad.diagonal`"""
        return operations["diagonal"](self, offset, axis1, axis2)

    def take(self, indices: TensorLike, axis: int | None = None) -> Tensor:
        """:func:`minigrad.take`"""
        return operations["take"](self, indices, axis=axis)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        """:func:`minigrad.repeat`"""
        return operations["repeat"](self, repeats, axis=axis)

    def ravel(self) -> Tensor:
        """:func:`minigrad.ravel`"""
        return operations["ravel"](self)

    def flatten(self) -> Tensor:
        """:func:`minigrad.ravel`"""
        return operations["ravel"](self)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """:func:`minigrad.squeeze`"""
        return operations["squeeze"](self, axis=axis)

    def reshape(self, *shape: Any) -> Tensor:
        """:func:`minigrad.reshape`; takes the lengths one by one or as a tuple."""
        return operations["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """:func:`minigrad.transpose`; takes the axes one by one or as a tuple."""
        order = axes[0] if len(axes) == 1 else axes or None
        return operations["transpose"](self, order)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """:func:`minigrad.swapaxes`"""
        return operations["swapaxes"](self, axis1, axis2)

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return operations["transpose"](self)

    def astype(self, dtype: Any) -> Tensor:
        """:func:`minigrad.astype`"""
        return operations["astype"](self, dtype)

    # ---------------------------------------------------------------- NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        if method != "__call__":
            raise TypeError(
                f"np.{ufunc.__name__}.{method} has no gradient rule; "
                "mg.sum, mg.max and their like do the common reductions"
            )
        return _called_through_numpy(ufunc.__name__, inputs, settings)

    def __array_function__(
        self, function: Any, types: Any, args: tuple[Any, ...], settings: dict[str, Any]
    ) -> Any:
        module = function.__module__.removeprefix("numpy").strip(".")
        return _called_through_numpy(
            ".".join(filter(None, (module, function.__name__))), args, settings
        )


#: An axis, several axes, or ``None`` for all of them.
Axis = int | tuple[int, ...] | None

_NUMPY_SPELLINGS: Final = {"absolute": "abs", "amax": "max", "amin": "min", "around": "round"}


def _called_through_numpy(name: str, args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """Run minigrad's operation of NumPy's ``name``, so that it is recorded."""
    operation = operations.get(_NUMPY_SPELLINGS.get(name, name))
    if operation is None:
        raise TypeError(
            f"np.{name} has no gradient rule in minigrad; these have one: "
            f"{', '.join(sorted(operations))}. Write np.{name}(t.numpy()) if no gradient is wanted"
        )
    for unsupported in ("out", "where"):
        if settings.pop(unsupported, None) is not None:
            raise TypeError(f"np.{name} of a tensor takes no {unsupported}=; it makes a new tensor")
    return operation(*args, **settings)


def tensor(
    data: TensorLike,
    dtype: Any = None,
    *,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A new tensor with a copy of ``data``.

    Args:
        data: a number, a nested sequence of numbers, an array, or a Tensor.
        dtype: the dtype; by default that of an array, and float32 for Python floats
            (:func:`minigrad.set_default_dtype`). Python integers and booleans keep theirs.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; by default where ``data`` is, and for
            numbers and NumPy arrays that of the :func:`minigrad.device` scope.
        requires_grad: make it a leaf, whose gradient can be asked for.

    Raises:
        TypeError: for complex or non-numeric data, and for a leaf that is not of a float
            dtype.
        ValueError: for ragged sequences.
        TapeError: if a gradient would be lost: for a tensor that a tape has recorded, and for
            lists of such tensors or of leaves (``mg.stack`` makes one tensor of them).

    >>> import minigrad as mg
    >>> mg.tensor([[1.0, 2.0]], requires_grad=True)
    tensor([[1., 2.]], requires_grad=True)
    """
    return _new_tensor(data, dtype, device, requires_grad, copy=True)


def asarray(
    data: TensorLike,
    dtype: Any = None,
    *,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor that shares memory with ``data`` where dtype and device allow it.

    Takes what :func:`tensor` takes. Do not write to the array afterwards.

    >>> import minigrad as mg, numpy as np
    >>> a = np.zeros(3)
    >>> mg.asarray(a).array is a
    True
    """
    return _new_tensor(data, dtype, device, requires_grad, copy=False)


def from_dlpack(source: Any) -> Tensor:
    """A constant that shares memory with another library's array, such as a torch tensor.

    Nothing is copied, on the CPU as on a GPU; do not write to the memory afterwards. The other
    way, ``torch.from_dlpack(t)`` and its like take a Tensor that has no gradient.

    Raises ``TypeError`` for a source that is not real numbers, or on another kind of device.

    >>> import minigrad as mg, numpy as np
    >>> mg.from_dlpack(np.ones(2))
    tensor([1., 1.], dtype=float64)
    """
    array = arrays.from_dlpack(source)
    return asarray(array, device=arrays.device_of(array))


def _new_tensor(
    data: TensorLike, dtype: Any, device: str | None, requires_grad: bool, *, copy: bool
) -> Tensor:
    if _holds_gradient(data):
        raise TapeError(
            "making a new tensor of one that has a gradient would silently drop it: write "
            "mg.stack([...]) for a list of tensors, t.astype(...) for another dtype, or "
            "t.detach() if the gradient is not wanted"
        )
    if device is None and isinstance(data, Tensor):
        device = data.device
    array = arrays.make_array(_without_tensors(data), dtype, device, copy=copy)
    made = data._remade(array) if isinstance(data, Tensor) else Tensor(array)
    if requires_grad:
        make_leaf(made)
    return made


def _holds_gradient(data: Any) -> bool:
    """Whether ``data`` is a tensor with a gradient, or nested lists that hold one."""
    if isinstance(data, list | tuple):
        return any((isinstance(x, Tensor) and x.is_leaf) or _holds_gradient(x) for x in data)
    return isinstance(data, Tensor) and not data.is_leaf and data.requires_grad


def _without_tensors(data: Any) -> Any:
    """The array of a tensor; nested lists of numbers for nested lists that hold tensors."""
    if isinstance(data, Tensor):
        return data.array
    if isinstance(data, list | tuple):
        return [x.tolist() if isinstance(x, Tensor) else _without_tensors(x) for x in data]
    return data


def make_leaf(made: Tensor) -> None:
    """Turn a constant into a leaf."""
    if made.dtype.kind != "f":
        raise TypeError(
            f"a tensor of {made.dtype} is a constant and has no gradient: "
            "write 1.0 instead of 1, or give dtype='float32'"
        )
    made.slot = new_leaf(made)


def _restore(kind: type[Tensor], array: Array, leaf: bool) -> Tensor:
    """A copied or unpickled tensor: a leaf if it was one, else a constant; no history."""
    made = kind.__new__(kind)
    Tensor.__init__(made, array)
    if leaf:
        make_leaf(made)
    return made


def as_operand(value: Any) -> Any:
    """What an operation computes with: the array of a tensor, an array, or a number."""
    if isinstance(value, Tensor):
        return value.array
    if arrays.is_array(value):
        arrays.check_real(value.dtype)
        return value
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        return _new_tensor(value, None, None, False, copy=False).array
    raise TypeError(f"expected a tensor, an array or a number, not {type(value).__name__}")


def with_axes(value: TensorLike) -> Any:
    """``value``, a tensor or array; a Tensor of a number or nested list, stacked if need be."""
    if isinstance(value, Tensor) or arrays.is_array(value):
        return value
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
        return operations["stack"](value)
    return asarray(value)


def describe(value: Any) -> str:
    """Shape and dtype for a message: ``(3, 4) float32``, or the value of a number."""
    if isinstance(value, Tensor):
        value = value.array
    return f"{value.shape} {value.dtype}" if arrays.is_array(value) else repr(value)


def no_history(tensor: Tensor) -> str:
    """Why a tensor whose tape cannot be found has no gradient; a message begins with its name."""
    if tensor.slot >= LEAF:
        return "is a leaf: nothing was computed from it yet"
    if tensor.slot == CONSTANT:
        return (
            "is a constant, nothing was recorded for it: compute it from a leaf (requires_grad="
            "True, or a Parameter) inside `with mg.Tape() as tape:`, or make it a leaf"
        )
    return "was recorded on a tape that is gone: keep it until the gradient is computed"
