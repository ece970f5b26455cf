"""Functions of anything as functions of a list of tensors, whose inputs and outputs have names.

Lists of arrays are vectors, too, of all their elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from minigrad.arrays import Array, is_array, namespace, to_numpy
from minigrad.containers import leaves_of, map_leaves
from minigrad.nn import Module
from minigrad.tensor import Tensor, asarray, describe

#: The parameters that a function uses without being given them.
Parameters: TypeAlias = "Module | Mapping[str, Tensor] | Iterable[Tensor] | None"


@dataclass(frozen=True)
class FlatFunction:
    """A function of a list of tensors that returns a list of tensors.

    Attributes:
        name: what messages call it.
        inputs: a name for each of its inputs.
        points: the arrays, of floats, at which it is looked at.
        constants: the arrays that it is given besides.
        call: computes nested containers of tensors from the list.
        parameters: those among its inputs, the last ones, that it finds by itself.
    """

    name: str
    inputs: list[str]
    points: list[Array]
    call: Callable[[Sequence[Tensor]], Any]
    constants: list[Array]
    parameters: list[Tensor]

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The outputs that are of floats."""
        return list(self.named(tensors).values())

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs that are of floats, by name."""
        self.place(tensors)
        found: dict[str, Tensor] = {}

        def collect(name: str, leaf: Any) -> None:
            if isinstance(leaf, Tensor):
                if leaf.dtype.kind in "fc":  # complex in a complex step
                    found[name] = leaf
            elif is_array(leaf) or isinstance(leaf, float):
                raise TypeError(
                    f"{self.name} returned {name} as {type(leaf).__name__}, where a Tensor is "
                    "needed: compute with minigrad's operations, and without .numpy() or .item()"
                )

        map_leaves(collect, self.call(tensors), "output")
        return found

    def place(self, tensors: Sequence[Tensor]) -> None:
        """Let the parameters be those of the tensors that stand for them."""
        for parameter, tensor in zip(
            self.parameters, tensors[len(tensors) - len(self.parameters) :], strict=True
        ):
            parameter.array, parameter.slot = tensor.array, tensor.slot


def is_variable(leaf: Any) -> bool:
    """Whether a leaf of the inputs is of floats; anything else is a constant."""
    if isinstance(leaf, Tensor) or is_array(leaf):
        return leaf.dtype.kind == "f"
    return isinstance(leaf, float)


@contextmanager
def flattened(
    f: Callable[..., Any], inputs: tuple[Any, ...], parameters: Parameters
) -> Iterator[FlatFunction]:
    """``f`` as a function of the floats in ``inputs``, and of the ``parameters`` after them.

    A parameter stands in the middle of ``f``, where no argument leads. It is given another
    array and slot for each call, and its own at the end of this block.
    """
    if not callable(f):
        raise TypeError(
            f"the first argument is the function that is checked, and not {describe(f)}"
        )
    name = getattr(f, "__name__", type(f).__name__)
    names: list[str] = []
    points: list[Array] = []
    constants: list[Array] = []

    def collect(name: str, leaf: Any) -> None:
        if is_variable(leaf):
            names.append(name)
            number = isinstance(leaf, float) and not is_array(leaf)
            held = asarray(leaf, "float64", device=device) if number else asarray(leaf)
            points.append(held.array)
        elif isinstance(leaf, Tensor) or is_array(leaf):
            constants.append(asarray(leaf).array)

    device = next((leaf.device for leaf in leaves_of(inputs) if isinstance(leaf, Tensor)), None)
    inputs = map_leaves(_placed, inputs)
    map_leaves(collect, inputs, "inputs")
    own = _named_parameters(parameters)

    def call(tensors: Sequence[Tensor]) -> Any:
        following = iter(tensors)
        given = map_leaves(
            lambda name, leaf: next(following) if is_variable(leaf) else leaf, inputs
        )
        return f(*given)

    if not points and not own:
        raise TypeError(
            f"{name} was given no floats, and only floats have a derivative: write 1.0 instead of "
            "1, or cast with .astype('float64')"
        )
    held = [(parameter.array, parameter.slot) for parameter in own.values()]
    names += own
    points += [array for array, _ in held]
    try:
        yield FlatFunction(name, names, points, call, constants, list(own.values()))
    finally:
        for parameter, (array, slot) in zip(own.values(), held, strict=True):
            parameter.array, parameter.slot = array, slot


def _placed(name: str, leaf: Any) -> Any:
    """An input as it is, but for NumPy's constants: they are put where the floats are."""
    constant = isinstance(leaf, numpy.ndarray) and not is_variable(leaf)
    return asarray(leaf).array if constant else leaf


def _named_parameters(parameters: Parameters) -> dict[str, Tensor]:
    """The parameters by the names that messages give them, each once."""
    named: Iterable[tuple[Any, Any]]
    if parameters is None:
        named = ()
    elif isinstance(parameters, Module):
        named = parameters.named_parameters()
    elif isinstance(parameters, Mapping):
        named = parameters.items()
    else:
        named = enumerate(parameters)
    found: dict[str, Tensor] = {}
    for key, parameter in named:
        if not isinstance(parameter, Tensor) or not parameter.is_leaf:
            raise TypeError(
                f"parameters[{key!r}] is {describe(parameter)}, and not a Parameter or a tensor "
                "made with requires_grad=True"
            )
        if all(parameter is not other for other in found.values()):
            found[f"parameters[{key!r}]"] = parameter
    return found


def flat(arrays: Sequence[Array]) -> NDArray[Any]:
    """All elements of the arrays in one vector, of float64 or of complex numbers."""
    joined = numpy.concatenate([to_numpy(array).ravel() for array in arrays])
    return joined if joined.dtype.kind == "c" else joined.astype("float64", copy=False)


def shaped(vector: NDArray[Any], arrays: Sequence[Array]) -> list[Array]:
    """A vector as arrays like those given: of their shape, dtype, device and memory order."""
    parts = numpy.split(vector, numpy.cumsum([array.size for array in arrays])[:-1])
    found = []
    for array, part in zip(arrays, parts, strict=True):
        like = namespace(array).zeros_like(array)
        like[...] = namespace(array).asarray(part.reshape(array.shape))
        found.append(like)
    return found


def element(place: int, names: Sequence[str], arrays: Sequence[Array]) -> str:
    """The name of an element of several arrays, by its place in their vector: ``output[1, 2]``."""
    for name, array in zip(names, arrays, strict=True):
        if place < array.size:
            index = ", ".join(map(str, numpy.unravel_index(place, array.shape)))
            return f"{name}[{index}]" if array.shape else name
        place -= array.size
    raise IndexError(place)
