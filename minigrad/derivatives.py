"""Derivatives of functions: gradients, products with Jacobians, Jacobians, Hessians.

Each opens a tape of its own, or, where one is recording already, uses that one with
``create_graph``, so that all of them nest freely and can be differentiated through. The
arguments to be differentiated may be tensors, arrays or numbers, and nested tuples, lists
and dictionaries of these; results come in the same containers.

Forward mode needs no rules of its own: the vector-Jacobian product is linear in the vector,
and its derivative with respect to that vector is the Jacobian-vector product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from minigrad.arrays import TensorLike, namespace
from minigrad.containers import leaves_of, map_leaves
from minigrad.ops import reshape, stack
from minigrad.primitive import primitive
from minigrad.slots import active_tape
from minigrad.tape import Tape
from minigrad.tensor import Tensor, asarray, describe

Unconnected = Literal["error", "zero"]


@primitive
def _alias(x: TensorLike, /) -> Tensor:
    """x itself, at a slot of its own."""
    return x


_alias.rules(x=lambda g: g)


@contextmanager
def _recording() -> Iterator[tuple[Tape, bool]]:
    """The tape that is recording, or a new one; and whether it is the former."""
    active = active_tape.get()
    if active is not None:
        yield active, True
    else:
        with Tape() as tape:
            yield tape, False


def _variables(tape: Tape, arguments: Any) -> Any:
    """The arguments as tensors at slots of their own, so that only this use of them counts."""

    def variable(name: str, value: Any) -> Tensor:
        held = value if isinstance(value, Tensor) else asarray(value)
        if held.dtype.kind != "f":
            raise TypeError(
                f"{name} is {describe(held)}, and only floats have a derivative: write 1.0 "
                "instead of 1, or cast with .astype('float32')"
            )
        on_tape = held.slot >= tape.base
        return _alias(held if on_tape else asarray(held.array, requires_grad=True))

    return map_leaves(variable, arguments, "the argument")


def _one_tensor(value: Any, function: Callable[..., Any]) -> Tensor:
    if not isinstance(value, Tensor):
        name = getattr(function, "__name__", "the function")
        raise TypeError(f"{name} returned {type(value).__name__}, where a Tensor is needed")
    return value


def value_and_grad(
    function: Callable[..., Tensor],
    argnums: int | Sequence[int] = 0,
    *,
    unconnected: Unconnected = "error",
) -> Callable[..., tuple[Tensor, Any]]:
    """A function that computes the value of ``function`` and its gradient.

    Args:
        function: returns one number, as a Tensor.
        argnums: the position of the argument to differentiate, or several of them.
        unconnected: whether an argument that the value does not depend on is an error, or
            has a gradient of zeros.

    The gradient has the form of the argument; it is a tuple if ``argnums`` is a sequence.

    Raises what :meth:`Tape.gradient` raises, and ``TypeError`` for an argument that is not of
    floats.

    >>> import minigrad as mg
    >>> mg.value_and_grad(lambda p: p["a"] * p["b"])({"a": 2.0, "b": 3.0})
    (tensor(6.), {'a': tensor(3.), 'b': tensor(2.)})
    """
    several = not isinstance(argnums, int)
    places: Sequence[int] = argnums if isinstance(argnums, Sequence) else (argnums,)

    def computed(*args: Any, **settings: Any) -> tuple[Tensor, Any]:
        for place in places:
            if not -len(args) <= place < len(args):
                raise TypeError(
                    f"argument {place} is to be differentiated, but {len(args)} were given by "
                    "position"
                )
        with _recording() as (tape, outer):
            variables = _variables(tape, tuple(args[place] for place in places))
            given = list(args)
            for place, variable in zip(places, variables, strict=True):
                given[place] = variable
            value = _one_tensor(function(*given, **settings), function)
            gradients = _gradient(tape, value, variables, None, outer, unconnected)
        return value if outer else value.detach(), gradients if several else gradients[0]

    return computed


def grad(
    function: Callable[..., Tensor],
    argnums: int | Sequence[int] = 0,
    *,
    unconnected: Unconnected = "error",
) -> Callable[..., Any]:
    """A function that computes the gradient of ``function``; see :func:`value_and_grad`.

    >>> import minigrad as mg
    >>> mg.grad(mg.grad(lambda x: x**3))(2.0)
    tensor(12.)
    """
    computed = value_and_grad(function, argnums, unconnected=unconnected)

    def gradient(*args: Any, **settings: Any) -> Any:
        return computed(*args, **settings)[1]

    return gradient


def vjp(function: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The value of ``function`` at ``args``, and its vector-Jacobian product.

    The second result maps u, of the form and shapes of the value, to the tuple of  u^T J
    for every argument, of their forms. It can be called again and again.

    Raises ``TypeError`` for arguments or values that are not of floats.

    >>> import minigrad as mg
    >>> value, pull = mg.vjp(lambda x: x * x, mg.tensor([1.0, 2.0]))
    >>> pull(mg.tensor([1.0, 10.0]))
    (tensor([ 2., 40.]),)
    """
    with _recording() as (tape, outer):
        variables = _variables(tape, args)
        value = function(*variables)

    def pull(cotangent: Any) -> tuple[Any, ...]:
        graph = outer and active_tape.get() is tape
        return _pulled(tape, value, variables, cotangent, graph)

    if outer:
        return value, pull
    return map_leaves(lambda name, part: part.detach(), value), pull


def _pulled(tape: Tape, value: Any, variables: Any, cotangent: Any, create_graph: bool) -> Any:
    """The sum over all parts of ``value`` of cotangent^T d part / d variables."""
    parts, seeds = leaves_of(value), leaves_of(cotangent)
    if len(parts) != len(seeds):
        raise ValueError(
            f"the value has {len(parts)} tensors and the vector {len(seeds)}; they are to have "
            "the same form"
        )
    totals = _zeros(variables)
    for part, seed in zip(parts, seeds, strict=True):
        gradients = iter(leaves_of(_gradient(tape, part, variables, seed, create_graph, "zero")))
        totals = _added(totals, gradients)
    return totals


def _added(tree: Any, summands: Iterator[Tensor]) -> Any:
    return map_leaves(lambda name, total: total + next(summands), tree)


def _gradient(
    tape: Tape,
    value: Tensor,
    variables: Any,
    seed: TensorLike,
    create_graph: bool,
    unconnected: Unconnected,
) -> Any:
    """The gradient of ``value``; zeros, if they are asked for, also if it is a constant."""
    if unconnected == "zero" and not value.requires_grad:
        return _zeros(variables)
    return tape.gradient(
        value, variables, seed, retain=True, create_graph=create_graph, unconnected=unconnected
    )


def _zeros(tree: Any) -> Any:
    """Zeros for every tensor."""
    return map_leaves(lambda name, x: Tensor(namespace(x.array).zeros_like(x.array)), tree)


def jvp(function: Callable[..., Any], args: Any, tangents: Any) -> tuple[Any, Any]:
    """The value of ``function`` at ``args``, and the Jacobian-vector product  J v.

    Args:
        function: of any number of positional arguments.
        args: the tuple of its arguments (or the only one).
        tangents: v, of the same form and shapes.

    Raises ``ValueError`` if the forms or shapes differ, ``TypeError`` if an argument is not
    of floats.

    >>> import minigrad as mg
    >>> mg.jvp(lambda x: x * x, mg.tensor([1.0, 2.0]), mg.tensor([1.0, 1.0]))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    args = args if isinstance(args, tuple) else (args,)
    tangents = tangents if isinstance(tangents, tuple) else (tangents,)
    with _recording() as (tape, outer):
        variables = _variables(tape, args)
        directions = _directions(variables, tangents)
        value = function(*variables)
        # u^T J is linear in u, whatever u is; its derivative in the direction v is J v.
        seeds = map_leaves(lambda name, part: asarray(part.array, requires_grad=True), value)
        pulled = _pulled(tape, value, variables, seeds, create_graph=True)
        products = [(p * d).sum() for p, d in zip(leaves_of(pulled), directions, strict=True)]
        pushed = _gradient(tape, stack(products).sum(), seeds, None, outer, "zero")
    if outer:
        return value, pushed
    return map_leaves(lambda name, part: part.detach(), value), pushed


def _directions(variables: Any, tangents: Any) -> list[Tensor]:
    """The tangents as a list of tensors that fit the variables one by one."""
    found, expected = leaves_of(tangents), leaves_of(variables)
    shapes = [getattr(t, "shape", ()) for t in found]  # numbers have none
    if shapes != [x.shape for x in expected]:
        raise ValueError(
            "the vector is to have the form and shapes of the arguments; they are "
            f"{[x.shape for x in expected]}, and those of the vector {shapes}"
        )
    pairs = zip(found, expected, strict=True)
    there = [(t if isinstance(t, Tensor) else asarray(t, device=x.device), x) for t, x in pairs]
    return [t.astype(x.dtype) if t.dtype != x.dtype else t for t, x in there]


def jacobian(function: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Any]:
    """A function that computes the Jacobian of ``function``: all partial derivatives.

    ``J[i, j] = d function(x)[i] / d x[j]``, of shape  (*shape of the value, *shape of x),
    in the form of the argument at ``argnums``. It takes one backward pass per element of the
    value.

    >>> import minigrad as mg
    >>> mg.jacobian(lambda x: x * x)(mg.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """

    def computed(*args: Any, **settings: Any) -> Any:
        with _recording() as (tape, outer):
            (variable,) = _variables(tape, (args[argnums],))
            given = list(args)
            given[argnums] = variable
            value = _one_tensor(function(*given, **settings), function)
            library = namespace(value.array)
            rows = []
            for i in range(value.size):
                seed = library.zeros(value.size, value.dtype)
                seed[i] = 1.0
                seed = seed.reshape(value.shape)
                rows.append(_gradient(tape, value, variable, seed, outer, "zero"))
            columns = iter(zip(*map(leaves_of, rows), strict=True))

            def joined(name: str, x: Tensor) -> Tensor:
                shape = (*value.shape, *x.shape)
                if not rows:
                    return Tensor(library.zeros(shape, x.dtype))
                return reshape(stack(next(columns)), shape)

            return map_leaves(joined, variable)

    return computed


def hessian(function: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Any]:
    """A function that computes the Hessian of ``function``, the Jacobian of its gradient.

    ``H[i, j] = d^2 function(x) / d x[i] d x[j]``, of shape (*shape of x, *shape of x). The
    argument is one tensor; for products with H use :func:`hvp`, which never builds it.

    >>> import minigrad as mg
    >>> mg.hessian(lambda x: (x**3).sum())(mg.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacobian(grad(function, argnums, unconnected="zero"), argnums)


def hvp(function: Callable[..., Tensor], args: Any, tangents: Any) -> Any:
    """The product of the Hessian of ``function`` with v, without building the Hessian.

    H v  is the gradient of  <gradient, v>. ``args`` and ``tangents`` are as for :func:`jvp`;
    the result has the form of ``args``. Pearlmutter, Fast exact multiplication by the
    Hessian, 1994.

    >>> import minigrad as mg
    >>> mg.hvp(lambda x: (x**3).sum(), mg.tensor([1.0, 2.0]), mg.tensor([1.0, 1.0]))
    tensor([ 6., 12.])
    """
    several = isinstance(args, tuple)
    args = args if isinstance(args, tuple) else (args,)
    tangents = tangents if isinstance(tangents, tuple) else (tangents,)
    gradient = grad(function, range(len(args)), unconnected="zero")

    def slope(*variables: Any) -> Any:
        parts = leaves_of(gradient(*variables))
        pairs = zip(parts, _directions(variables, tangents), strict=True)
        return stack([(part * direction).sum() for part, direction in pairs]).sum()

    products = grad(slope, range(len(args)), unconnected="zero")(*args)
    return products if several else products[0]
