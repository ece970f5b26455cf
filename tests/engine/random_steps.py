"""Random steps of a recurrence: of what gated cells are made of, and of all operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume, note
from hypothesis import strategies as st

import minigrad as mg
from minigrad import Tensor
from minigrad.testing import strategies

Step = Callable[[Any, Any], tuple[Any, Any]]
#: A step, its first state and xs, and the parameters that it uses.
Case = tuple[Any, ...]

TIME, BATCH, WIDTH = 3, 2, 6

#: Lines that make a (batch, width) of others, {a} and {b}, or of three parts, {p}; of x, the
#: state y, a weight z and a vector u.
WHOLE = (
    "{a} + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "{a} - {a} * {b}",
    "1.0 - {a}",
    "u * {a}",
    "mg.tanh({a})",
    "mg.sigmoid({a})",
    "mg.relu({a})",
    "mg.softmax({a})",
    "mg.where({a} > {b}, {a}, 0.5)",
    "mg.where(mg.round({a}), {b}, 0.5)",
    "mg.take({a}, mg.argmax({b}, axis=0), axis=1)",
    "mg.take_along_axis({a}, mg.argsort({b}), -1)",
    "mg.set_at({a}, (slice(None), mg.argmax({b}, axis=-1)), {b}[:, :2])",
    "mg.scale_gradient({a}, 0.5)",
    "mg.map_gradient({a}, mg.negative)",
    "{a} * {b}[:, :1]",
    "{a} - {a}.mean(axis=-1, keepdims=True)",
    "mg.standardize({a})",
    "mg.standardize({a} @ z) * u",
    "{a} * mg.var({b}, axis=-1, keepdims=True)",
    "{a} @ z",
    "mg.linear({a}, z, u)",
    "mg.linear({a}, z, {b})",
    "{a}.detach()",
    "mg.concatenate({p}, axis=-1)",
    "mg.tanh(z[:2])",
)
#: Lines that make three parts, (batch, width / 3).
PARTS = (
    "mg.split({a}, 3, axis=-1)",
    "[p + q for p, q in zip({p}, {q})]",
    "[p * q for p, q in zip({p}, {q})]",
    "[p * q for p, q in zip({p}, [*{q}[1:], {q}[0]])]",
    "[mg.tanh(p) for p in {p}]",
    "[f(p) for f, p in zip((mg.sigmoid, mg.tanh, mg.sigmoid), {p})]",
)
#: What a state can be: small, however often the step is taken.
STATES = (
    "mg.tanh({a})",
    "mg.tanh({a}).detach()",
    "y + mg.sigmoid({a}) * (mg.tanh({b}) - y)",
    "z[2:4]",
    "mg.concatenate([f(p) for f, p in zip((mg.tanh, mg.sigmoid, mg.tanh), {p})], axis=-1)",
)


def leaf(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Random numbers that want a gradient."""
    return leaf_of(np.random.default_rng(seed).normal(scale=scale, size=shape))


def leaf_of(values: Any) -> Tensor:
    return mg.tensor(values, requires_grad=True)


@st.composite
def gated_steps(draw: st.DrawFn) -> Case:
    """Steps that are put together of gates, products and their parts."""
    wholes, parts = ["x", "y"], ["a"]
    lines = ["a = mg.split(x + y @ z, 3, axis=-1)"]

    def filled_in(form: str) -> str:
        latest_first = st.sampled_from(wholes[::-1]), st.sampled_from(parts[::-1])
        names = zip("abpq", [latest for latest in latest_first for _ in range(2)], strict=True)
        return form.format(**{name: draw(one) for name, one in names if f"{{{name}}}" in form})

    for form in draw(st.lists(st.sampled_from(WHOLE + PARTS), max_size=8)):
        name = f"a{len(lines)}"
        lines.append(f"{name} = {filled_in(form)}")
        (wholes if form in WHOLE else parts).append(name)
    state = draw(st.sampled_from(STATES))
    lines.append(f"b = ({draw(st.sampled_from(wholes[::-1]))}, {filled_in(state)})")
    time = draw(st.sampled_from((TIME, 1)))
    shapes = (BATCH, WIDTH), (BATCH, WIDTH), (WIDTH, WIDTH), (WIDTH,), (time, BATCH, WIDTH)
    *inputs, xs = [leaf(*shape, seed=i, scale=0.5) for i, shape in enumerate(shapes)]
    program = strategies.Program(tuple(inputs), tuple(lines))
    note(repr(program))
    _, h, weight, vector = inputs

    def step(x: Any, h: Any) -> Any:
        return program(x, h, weight, vector)

    return step, h, xs, weight, vector


@st.composite
def steps_of_any_operations(draw: st.DrawFn) -> Case:
    """Steps that leave the state as it is."""
    program = draw(strategies.programs(dtype="float64"))
    note(repr(program))
    *xs, h = program.inputs
    assume(xs)

    def step(x: Any, h: Any) -> Any:
        return program(*x, h), h

    # Different at every step, but as far from kinks as those for which the program was drawn.
    scales = 1.0 + 2.0**-10 * np.arange(TIME)
    return step, h, [leaf_of(np.multiply.outer(scales, x.numpy())) for x in xs]
