"""Mistakes planted in derivatives: what check_gradients is for is to find every one of them.

An operation is written once, for ``xp``: NumPy or CuPy in the forward, minigrad in the rules,
and PyTorch in both for its gradcheck. The name of each mistake says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from transfer import on_device

import minigrad as mg
import minigrad_rnn as rnn
from minigrad.arrays import is_array, namespace
from minigrad.testing import GradientError, check_gradients
from minigrad_rnn.testing import check_bptt, check_truncated_bptt

Array: TypeAlias = "np.ndarray[Any, Any]"
Draw: TypeAlias = Callable[[np.random.Generator], list[Array]]

#: Every mistake is found within so many examples.
EXAMPLES = 20


@dataclass(frozen=True)
class Mistake:
    """A function with a wrong derivative.

    Attributes:
        name: what is wrong.
        inputs: draws an example.
        check: looks at it, with a seed, at the default settings.
        torch: makes the same function for PyTorch; ``None`` if there is no such thing.
    """

    name: str
    inputs: Draw
    check: Callable[..., None]
    torch: Callable[[], Callable[..., Any]] | None

    def found_at(self, look: Callable[[list[Array], int], bool]) -> int | None:
        """The number of the first example, from 1, at which ``look`` finds it."""
        for number in range(1, EXAMPLES + 1):
            if look(self.inputs(np.random.default_rng(number)), number):
                return number
        return None

    def caught(self, inputs: list[Array], seed: int) -> bool:
        """Whether minigrad's check finds the mistake at these inputs."""
        try:
            self.check(*inputs, seed=seed)
        except GradientError:
            return True
        return False


MISTAKES: list[Mistake] = []


def plant(
    name: str,
    inputs: Draw,
    forward: Callable[..., Any],
    *,
    function: Callable[..., Any] = lambda xp, op, *xs: op(*xs),
    torch: bool = True,
    **rules: Callable[..., Any],
) -> None:
    """Enter an operation with wrong rules, or its use in a function."""
    operation: Any = _of_one(forward) if "x" in rules or not rules else _of_two(forward)
    operation.rules(**{operand: partial(rule, mg) for operand, rule in rules.items()})

    def call(*xs: Any) -> Any:
        return function(mg, operation, *xs)

    def in_torch() -> Callable[..., Any]:
        import torch as library

        return partial(function, library, _torch_operation(library, forward, rules))

    check = partial(check_gradients, call)
    MISTAKES.append(Mistake(name, inputs, check, in_torch if torch else None))


def _of_one(forward: Callable[..., Any]) -> Any:
    @mg.primitive
    def planted(x: Any, /) -> Any:
        return forward(namespace(x), x)

    return planted


def _of_two(forward: Callable[..., Any]) -> Any:
    @mg.primitive
    def planted(a: Any, b: Any, /) -> Any:
        return forward(namespace(a), a, b)

    return planted


def compose(name: str, inputs: Draw, function: Callable[..., Any], *, torch: bool = True) -> None:
    """Enter a function of right operations that is wrong by what it leaves out of the tape."""
    plant(name, inputs, lambda xp, x, /: x, function=function, torch=torch)


def _torch_operation(
    library: Any, forward: Callable[..., Any], rules: dict[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """The operation as a ``torch.autograd.Function``, which sums broadcast gradients itself."""
    code = forward.__code__
    operands = code.co_varnames[1 : code.co_argcount]

    class Planted(library.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, *xs: Any) -> Any:
            out = forward(library, *xs)
            context.save_for_backward(*xs, out)
            return out

        @staticmethod
        def backward(context: Any, g: Any) -> Any:
            *xs, out = context.saved_tensors
            known = dict(zip(operands, xs, strict=True)) | {"out": out}
            gradients: list[Any] = []
            for operand, x in zip(operands, xs, strict=True):
                rule = rules.get(operand)
                if rule is None:
                    gradients.append(None)
                    continue
                wanted = rule.__code__.co_varnames[2 : rule.__code__.co_argcount]
                gradient = rule(library, g, *[known[name] for name in wanted])
                gradients.append(
                    gradient if gradient.shape == x.shape else gradient.sum_to_size(x.shape)
                )
            return tuple(gradients)

    return Planted.apply


# --------------------------------------------------------------------------------------
# Inputs, and what the three libraries call by different names
# --------------------------------------------------------------------------------------


def numbers(low: float = -2.0, high: float = 2.0, count: int = 1, least: int = 0) -> Draw:
    """``count`` arrays of one shape, of ``least`` to 3 axes."""

    def draw(rng: np.random.Generator) -> list[Array]:
        shape = tuple(rng.integers(1, 5, rng.integers(least, 4)))
        return [np.asarray(rng.uniform(low, high, shape)) for _ in range(count)]

    return draw


def matrix(low: float = -2.0, high: float = 2.0) -> Draw:
    """One matrix, of 1 to 4 rows and columns."""
    return lambda rng: [rng.uniform(low, high, rng.integers(1, 5, 2))]


def factors(rng: np.random.Generator) -> list[Array]:
    """Two matrices that can be multiplied; often square."""
    n, k, m = rng.integers(1, 4, 3)
    return [rng.normal(size=(n, k)), rng.normal(size=(k, m))]


def square(rng: np.random.Generator) -> list[Array]:
    """One well-conditioned matrix that is not symmetric."""
    n = int(rng.integers(2, 4))
    return [rng.normal(size=(n, n)) + 4.0 * np.eye(n)]


def with_row(rng: np.random.Generator) -> list[Array]:
    """A matrix and a row that broadcasts to it."""
    n, m = rng.integers(1, 5, 2)
    return [rng.normal(size=(n, m)), rng.normal(size=m)]


def with_column(rng: np.random.Generator) -> list[Array]:
    """A matrix and a column that broadcasts to it."""
    n, m = rng.integers(1, 4, 2)
    return [rng.normal(size=(n, m)), rng.normal(size=(n, 1))]


def vector(rng: np.random.Generator) -> list[Array]:
    """One vector of 1 to 4 elements."""
    return [rng.normal(size=rng.integers(1, 5))]


def constant(x: Any) -> Any:
    """A tensor cut off from its history; an array as it is."""
    return x.detach() if hasattr(x, "detach") else x


def single(x: Any) -> Any:
    """x rounded to float32."""
    if isinstance(x, mg.Tensor) or is_array(x):
        return x.astype("float32").astype("float64")
    return x.float().double()


def softmax(xp: Any, x: Any) -> Any:
    return xp.exp(x) / xp.sum(xp.exp(x), axis=-1, keepdims=True)


def sigmoid(xp: Any, x: Any) -> Any:
    return 1.0 / (1.0 + xp.exp(-x))


def sine(xp: Any, x: Any, /) -> Any:
    return xp.sin(x)


def product(xp: Any, a: Any, b: Any, /) -> Any:
    return a * b


def matmul(xp: Any, a: Any, b: Any, /) -> Any:
    return a @ b


# --------------------------------------------------------------------------------------
# Formulas
# --------------------------------------------------------------------------------------

plant("wrong sign", numbers(), sine, x=lambda xp, g, x: -g * xp.cos(x))
plant("a factor of 2 forgotten", numbers(), lambda xp, x, /: x * x, x=lambda xp, g, x: g * x)
plant(
    "the output not squared",
    numbers(),
    lambda xp, x, /: xp.tanh(x),
    x=lambda xp, g, out: g * (1.0 - out),
)
plant(
    "one of two factors forgotten",
    numbers(),
    lambda xp, x, /: sigmoid(xp, x),
    x=lambda xp, g, out: g * (1.0 - out),
)
plant("the input for the output", numbers(), lambda xp, x, /: xp.exp(x), x=lambda xp, g, x: g * x)
plant(
    "a wrong power",
    numbers(0.5, 2.0),
    lambda xp, x, /: 1.0 / x,
    x=lambda xp, g, out: -g * out,
)
plant(
    "the output for the input",
    numbers(0.5, 2.0),
    lambda xp, x, /: xp.sqrt(x),
    x=lambda xp, g, x: g / (2.0 * x),
)
plant(
    "a quotient without its minus",
    numbers(0.5, 2.0, count=2),
    lambda xp, a, b, /: a / b,
    a=lambda xp, g, b: g / b,
    b=lambda xp, g, a, b: g * a / (b * b),
)
plant(
    "a dropped term of a product rule",
    numbers(),
    lambda xp, x, /: x * xp.exp(x),
    x=lambda xp, g, x: g * xp.exp(x),
)
plant(
    "a dropped term of a quotient rule",
    numbers(),
    lambda xp, x, /: xp.sin(x) / (2.0 + x * x),
    x=lambda xp, g, x: g * xp.cos(x) / (2.0 + x * x),
)
plant("the seed is ignored", numbers(), sine, x=lambda xp, g, x: xp.cos(x))
plant("the seed is squared", numbers(), sine, x=lambda xp, g, x: g * g * xp.cos(x))
plant("the seed loses its sign", numbers(), sine, x=lambda xp, g, x: xp.abs(g) * xp.cos(x))
plant(
    "operands swapped",
    numbers(count=2),
    product,
    a=lambda xp, g, a: g * a,
    b=lambda xp, g, b: g * b,
)
plant(
    "a constant with three digits",
    numbers(0.5, 2.0),
    lambda xp, x, /: xp.log10(x),
    x=lambda xp, g, x: g * 0.434 / x,
)
plant(
    "a constant that differs between forward and rule",
    numbers(),
    lambda xp, x, /: x * xp.tanh(x + 0.044715 * x * x * x),
    x=lambda xp, g, x: (
        g
        * (
            xp.tanh(x + 0.0447 * x * x * x)
            + x * (1.0 - xp.tanh(x + 0.0447 * x * x * x) ** 2) * (1.0 + 0.1341 * x * x)
        )
    ),
)
plant(
    "an epsilon forgotten in the rule",
    numbers(0.5, 2.0),
    lambda xp, x, /: xp.sqrt(x * x + 1e-4),
    x=lambda xp, g, x: g * xp.sign(x),
)

# --------------------------------------------------------------------------------------
# Inputs that are shared or broadcast
# --------------------------------------------------------------------------------------

plant(
    "a shared input counted twice",
    numbers(),
    product,
    function=lambda xp, op, x: op(x, x),
    a=lambda xp, g, a, b: g * (a + b),
    b=lambda xp, g, a, b: g * (a + b),
)
plant(
    "a shared input counted once",
    numbers(),
    product,
    function=lambda xp, op, x: op(x, x),
    a=lambda xp, g, b: g * b,
    b=lambda xp, g, b: 0.0 * g * b,
)
plant(
    "no sum over a broadcast axis",
    with_row,
    lambda xp, a, b, /: a + b,
    a=lambda xp, g: g,
    b=lambda xp, g: g[0],
)
plant(
    "a mean over a broadcast axis",
    with_row,
    lambda xp, a, b, /: a + b,
    a=lambda xp, g: g,
    b=lambda xp, g: xp.mean(g, axis=0),
)
plant(
    "a sum over the wrong axis",
    with_column,
    product,
    a=lambda xp, g, b: g * b,
    b=lambda xp, g, a: xp.sum(g * a, axis=0).reshape((-1, 1)),
)
plant(
    "a gradient of the wrong shape",
    vector,
    lambda xp, x, /: xp.sum(x),
    x=lambda xp, g: g,
    function=lambda xp, op, x: op(x) * 2.0,
)

# --------------------------------------------------------------------------------------
# Reductions
# --------------------------------------------------------------------------------------

plant(
    "a mean that is not divided",
    matrix(),
    lambda xp, x, /: xp.mean(x, axis=0),
    x=lambda xp, g, x: g + 0.0 * x,
)
plant(
    "a mean divided by the size of all axes",
    matrix(),
    lambda xp, x, /: xp.mean(x, axis=0),
    x=lambda xp, g, x: (g + 0.0 * x) / float(np.prod(x.shape)),
)
plant(
    "spread along the wrong axis",
    matrix(),
    lambda xp, x, /: xp.sum(x, axis=1),
    x=lambda xp, g, x: g + 0.0 * x,
)
plant(
    "a maximum whose gradient reaches all elements",
    vector,
    lambda xp, x, /: xp.sum(xp.where(x == x.max(), x, 0.0)),
    x=lambda xp, g, x: g + 0.0 * x,
)
plant(
    "a product of all elements without the element itself",
    numbers(0.5, 2.0),
    lambda xp, x, /: xp.exp(xp.sum(xp.log(x))),
    x=lambda xp, g, x: g / x,
)
plant(
    "a running sum that runs forwards in the rule",
    vector,
    lambda xp, x, /: xp.cumsum(x, 0),
    x=lambda xp, g: xp.cumsum(g, 0),
)
plant(
    "a variance divided by n - 1 in the rule",
    lambda rng: [rng.normal(size=rng.integers(2, 5))],
    lambda xp, x, /: xp.mean((x - xp.mean(x)) ** 2),
    x=lambda xp, g, x: g * 2.0 * (x - xp.mean(x)) / (x.shape[0] - 1.0),
)
plant(
    "weights that are not normalized",
    vector,
    lambda xp, x, /: xp.log(xp.sum(xp.exp(x))),
    x=lambda xp, g, x: g * xp.exp(x),
)
plant(
    "a norm that is not divided by",
    vector,
    lambda xp, x, /: xp.sqrt(xp.sum(x * x)),
    x=lambda xp, g, x: g * x,
)
plant(
    "the diagonal of a Jacobian alone",
    matrix(),
    lambda xp, x, /: softmax(xp, x),
    x=lambda xp, g, out: g * out * (1.0 - out),
)
plant(
    "a softmax's sum over the wrong axis",
    matrix(),
    lambda xp, x, /: softmax(xp, x),
    x=lambda xp, g, out: out * (g - xp.sum(g * out, axis=0, keepdims=True)),
)
plant(
    "a log softmax without the sum of the seed",
    matrix(),
    lambda xp, x, /: xp.log(softmax(xp, x)),
    x=lambda xp, g, out: g - xp.exp(out),
)
plant(
    "a normalization that takes its mean for a constant",
    matrix(),
    lambda xp, x, /: x - xp.mean(x, axis=-1, keepdims=True),
    x=lambda xp, g: g,
)

# --------------------------------------------------------------------------------------
# Products of matrices
# --------------------------------------------------------------------------------------

plant(
    "a matrix product's rule without its transpose, right in shape for square matrices",
    factors,
    matmul,
    a=lambda xp, g, b: g @ b,
    b=lambda xp, g, a: a.T @ g,
)
plant(
    "a matrix product's rule that is transposed as a whole",
    factors,
    matmul,
    a=lambda xp, g, b: g @ b.T,
    b=lambda xp, g, a: g.T @ a,
)
plant(
    "a matrix product's rules in the wrong order",
    factors,
    matmul,
    a=lambda xp, g, b: b.T @ g,
    b=lambda xp, g, a: g @ a.T,
)
plant(
    "right for square matrices alone",
    factors,
    matmul,
    a=lambda xp, g, b: g @ b.T,
    b=lambda xp, g, a: (a.T @ g) * (a.shape[0] / a.shape[1]),
)
plant(
    "right for symmetric matrices alone",
    square,
    lambda xp, x, /: xp.linalg.inv(x),
    x=lambda xp, g, out: -(out @ g @ out),
)
plant(
    "an outer product's operands confused",
    lambda rng: [*vector(rng), *vector(rng)],
    lambda xp, a, b, /: a[:, None] * b,
    a=lambda xp, g, b: g @ b,
    b=lambda xp, g: xp.sum(g, axis=0),
)

# --------------------------------------------------------------------------------------
# Elements moved about
# --------------------------------------------------------------------------------------

#: Rows of the identity: taking rows 0, 0 and 1 is a product with this, and its rule, that with
#: its transpose, adds up what row 0 received twice.
TAKEN = np.eye(2)[[0, 0, 1]]


def _like(matrix: Array, x: Any) -> Any:
    """A constant matrix in the library of x."""
    return x.new_tensor(matrix) if hasattr(x, "new_tensor") else on_device(matrix)


plant(
    "an index that occurs twice, assigned in place of added",
    lambda rng: [rng.normal(size=(2, rng.integers(1, 4)))],
    lambda xp, x, /: _like(TAKEN, x) @ x,
    x=lambda xp, g: _like(np.eye(3)[[1, 2]], g) @ g,
)
plant("a reversal that is not undone", vector, lambda xp, x, /: xp.flip(x, (0,)), x=lambda xp, g: g)
plant(
    "a shift in the same direction again",
    vector,
    lambda xp, x, /: xp.roll(x, 1, 0),
    x=lambda xp, g: xp.roll(g, 1, 0),
)
plant(
    "the same part of a joined gradient for both",
    lambda rng: [*vector(rng), *vector(rng)],
    lambda xp, a, b, /: xp.concatenate((a, b)),
    a=lambda xp, g, a: g[: a.shape[0]],
    b=lambda xp, g, b: g[: b.shape[0]],
)
plant(
    "a reshape where a transpose is due",
    matrix(),
    lambda xp, x, /: x.T * 1.0,
    x=lambda xp, g, x: g.reshape(x.shape),
)
plant(
    "the last element dropped",
    lambda rng: [rng.normal(size=rng.integers(2, 6))],
    lambda xp, x, /: x[1:] - x[:-1],
    x=lambda xp, g: xp.concatenate((-g[:1], g[:-1] - g[1:], 0.0 * g[:1])),
)

# --------------------------------------------------------------------------------------
# Wrong for some values or shapes alone
# --------------------------------------------------------------------------------------

plant(
    "wrong for negative numbers",
    numbers(),
    lambda xp, x, /: xp.where(x > 0, x, 0.1 * x),
    x=lambda xp, g: g,
)
plant(
    "a clip whose gradient passes outside",
    numbers(),
    lambda xp, x, /: xp.clip(x, -1.0, 1.0),
    x=lambda xp, g: g,
)
plant(
    "both branches of a choice receive the gradient",
    numbers(count=2),
    lambda xp, a, b, /: xp.where(a > b, a, b),
    a=lambda xp, g: g,
    b=lambda xp, g: g,
)
plant(
    "wrong at size one",
    vector,
    lambda xp, x, /: xp.mean(x * x),
    x=lambda xp, g, x: g * 2.0 * x / max(x.shape[0], 2),
)
plant(
    "wrong without axes",
    numbers(),
    sine,
    x=lambda xp, g, x: g * xp.cos(x) * (1.0 if x.ndim else 2.0),
)
plant(
    "wrong from four elements on",
    vector,
    sine,
    x=lambda xp, g, x: xp.where(_like(np.arange(float(x.shape[0])), x) < 3.0, g * xp.cos(x), g),
)
plant(
    "an overflow where the function is flat",
    numbers(-1000.0, 1000.0),
    lambda xp, x, /: sigmoid(xp, xp.clip(x, -600.0, 600.0)),
    x=lambda xp, g, x: g * xp.exp(x) / (1.0 + xp.exp(x)) ** 2,
)

# --------------------------------------------------------------------------------------
# Precision
# --------------------------------------------------------------------------------------

plant("a rule in float32", numbers(), sine, x=lambda xp, g, x: g * single(xp.cos(x)))
plant(
    "a forward in float32",
    numbers(),
    lambda xp, x, /: single(xp.sin(x)),
    x=lambda xp, g, x: g * xp.cos(x),
)

# --------------------------------------------------------------------------------------
# Second order
# --------------------------------------------------------------------------------------

plant("a constant in the rule", numbers(), sine, x=lambda xp, g, x: g * xp.cos(constant(x)))
plant("a seed that is cut off", numbers(), sine, x=lambda xp, g, x: constant(g) * xp.cos(x))
plant(
    "a sum in the rule that is cut off",
    matrix(),
    lambda xp, x, /: softmax(xp, x),
    x=lambda xp, g, out: out * (g - constant(xp.sum(g * out, axis=-1, keepdims=True))),
)


def _wrong_cosine(xp: Any, x: Any) -> Any:
    """cos(x) in value, and 3 cos(x) - 2 cos(x) with a part that does not move."""
    return 3.0 * xp.cos(x) - 2.0 * constant(xp.cos(x))


plant(
    "a wrong factor in second order", numbers(), sine, x=lambda xp, g, x: g * _wrong_cosine(xp, x)
)
plant(
    "another formula for tensors than for arrays",
    numbers(),
    sine,
    x=lambda xp, g, x: g * (1.0 - 0.5 * x * x if isinstance(x, mg.Tensor) else xp.cos(x)),
    torch=False,
)

# --------------------------------------------------------------------------------------
# What is written to, kept, or left out
# --------------------------------------------------------------------------------------


def _doubled_in_place(xp: Any, g: Any, x: Any) -> Any:
    """The right gradient, and twice the seed left behind."""
    out = g * xp.cos(x)
    if is_array(g):
        g *= 2.0
    elif not isinstance(g, mg.Tensor):
        g.mul_(2.0)
    return out


def _moved_in_place(xp: Any, g: Any, x: Any) -> Any:
    """The right gradient, once."""
    out = g * xp.cos(x)
    if is_array(x):
        x += 1.0
    elif not isinstance(x, mg.Tensor):
        x.data.add_(1.0)
    return out


plant("a rule that writes to its seed", numbers(least=1), sine, x=_doubled_in_place)
plant("a rule that writes to what was saved", numbers(least=1), sine, x=_moved_in_place)
plant(
    "a rule that writes to what was saved of an inner tensor",
    numbers(least=1),
    sine,
    function=lambda xp, op, x: op(x * 2.0),
    x=_moved_in_place,
)

_kept: dict[str, Any] = {}


def _keeping(xp: Any, x: Any, /) -> Any:
    _kept["x"] = x
    return xp.sin(x)


plant(
    "a stale array, kept outside of the tape",
    numbers(),
    _keeping,
    x=lambda xp, g: g * xp.cos(_kept["x"]),
)
plant(
    "a stale array, of an operation used twice",
    numbers(),
    _keeping,
    function=lambda xp, op, x: op(op(x)),
    x=lambda xp, g: g * xp.cos(_kept["x"]),
)

_rng = np.random.default_rng(0)

plant(
    "a forward that draws random numbers",
    numbers(),
    lambda xp, x, /: x * _rng.uniform(0.5, 1.5),
    x=lambda xp, g: g,
)
plant(
    "a rule that draws random numbers",
    numbers(),
    sine,
    x=lambda xp, g, x: g * xp.cos(x) * _rng.uniform(1.0, 1.0 + 1e-6),
)
compose("a factor that is cut off", numbers(), lambda xp, op, x: constant(xp.exp(x)) * xp.sin(x))
compose("an input that is cut off", numbers(count=2), lambda xp, op, x, y: xp.sin(x) * constant(y))
compose("all of it cut off", numbers(), lambda xp, op, x: constant(xp.sin(x)) + 0.0 * x)


def _leaves_the_tape(xp: Any, op: Any, x: Any) -> Any:
    return x * _like(np.sin(constant(x).numpy()), x)


def _writes_to_its_input(xp: Any, op: Any, x: Any) -> Any:
    if xp is mg:
        x.array[...] = abs(x.array)
    else:
        x.data.abs_()
    return xp.sin(x)


compose("a part computed by NumPy", numbers(), _leaves_the_tape)
compose("a function that writes to its input", numbers(least=1), _writes_to_its_input)

# --------------------------------------------------------------------------------------
# Clipping
# --------------------------------------------------------------------------------------


def _clip_by_norm(xp: Any, x: Any, /) -> Any:
    """x, shortened to length 1 if it is longer."""
    norm = xp.sqrt(xp.sum(x * x))
    return xp.where(norm > 1.0, x / norm, x)


plant(
    "a clip that changes the direction",
    vector,
    _clip_by_norm,
    x=lambda xp, g, x: xp.clip(g, -1.0, 1.0),
)
plant(
    "a clip that takes the norm for a constant",
    vector,
    _clip_by_norm,
    x=lambda xp, g, x: xp.where(xp.sum(x * x) > 1.0, g / xp.sqrt(xp.sum(x * x)), g),
)

# --------------------------------------------------------------------------------------
# Training steps, which have no counterpart in torch's gradcheck
# --------------------------------------------------------------------------------------

K1, K2, STEPS = 2, 3, 8


def sequence(rng: np.random.Generator) -> list[Array]:
    """The inputs of STEPS steps."""
    return [rng.normal(size=(STEPS, 2, 2))]


def plant_truncation(name: str, truncation: Callable[..., Any], cell: Any = rnn.LSTMCell) -> None:
    """Enter a truncated backpropagation through time that is wrong."""

    def check(xs: Array, seed: int) -> None:
        made = cell(2, 3, rng=seed, dtype="float64")
        check_truncated_bptt(made, None, xs, k1=K1, k2=K2, truncation=truncation, seed=seed)

    MISTAKES.append(Mistake(name, sequence, check, None))


def plant_step(name: str, step: Callable[..., Any]) -> None:
    """Enter a step of a recurrence, with weights (2, 2), that is wrong."""

    def check(xs: Array, seed: int) -> None:
        rng = np.random.default_rng(seed)
        weight = mg.tensor(rng.normal(size=(2, 2)), requires_grad=True)
        state = rng.normal(size=(2, 2))
        check_bptt(partial(step, weight), state, xs[:3], parameters={"weight": weight}, seed=seed)

    MISTAKES.append(Mistake(name, sequence, check, None))


class _LeakyBoundary(rnn.TBPTT):
    """Reaches one step further back than it should."""

    def __init__(self, k1: int, k2: int, **settings: Any) -> None:
        super().__init__(k1, k2 + 1, **settings)


class _ShortWindow(rnn.TBPTT):
    """Reaches one step less far than it should."""

    def __init__(self, k1: int, k2: int, **settings: Any) -> None:
        super().__init__(k1, k2 - 1, **settings)


class _CountedTwice(rnn.TBPTT):
    """Takes all losses of the window each time, in which the overlap counts twice."""

    def __init__(self, k1: int, k2: int, **settings: Any) -> None:
        super().__init__(k1, k2, **(settings | {"losses": "window"}))


class _Summed(rnn.TBPTT):
    """Forgets to divide by the number of steps."""

    def __init__(self, k1: int, k2: int, **settings: Any) -> None:
        super().__init__(k1, k2, **(settings | {"normalize": "sum"}))


class _NeverCut:
    """Takes the gradient when it is due, and cuts nothing."""

    def __init__(self, k1: int, k2: int, **settings: Any) -> None:
        self.k1 = k1
        self.losses: list[mg.Tensor] = []
        self.tape = mg.Tape()

    def __enter__(self) -> _NeverCut:
        self.tape.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.tape.__exit__(*error)

    def step(self, loss: mg.Tensor) -> mg.Tensor | None:
        self.losses.append(loss)
        if len(self.losses) < self.k1:
            return None
        total = mg.stack(self.losses).mean()
        self.losses = []
        self.tape.backward(total, retain=True)
        return total.detach()


class _LeakyCell(rnn.LSTMCell):
    """Keeps c to itself, besides the state, where no boundary reaches it."""

    c: Any = None

    def forward(self, x: Any, state: Any = None) -> Any:
        h = None if state is None else (state, self.c)
        y, (h, self.c) = super().forward(x, h)
        return y, h


plant_truncation("a truncated boundary that leaks one step", _LeakyBoundary)
plant_truncation("a truncated boundary that is never cut", _NeverCut)
plant_truncation("a truncated window that is one step short", _ShortWindow)
plant_truncation("losses of a truncated window counted twice", _CountedTwice)
plant_truncation("a truncated window's losses added up for their mean", _Summed)
plant_truncation("a state that a truncated boundary does not see", rnn.TBPTT, _LeakyCell)
plant_step(
    "a recurrence whose state is cut off",
    lambda weight, x, h: (mg.tanh(x + h.detach() @ weight),) * 2,
)
plant_step(
    "a recurrence whose weight is cut off",
    lambda weight, x, h: (mg.tanh(x + h @ weight.detach()) + weight.sum(),) * 2,
)
plant_step(
    "a gradient clipped on its way through time",
    lambda weight, x, h: (
        (mg.tanh(x + mg.map_gradient(h, lambda g: mg.clip(g, -0.1, 0.1)) @ weight),) * 2
    ),
)
