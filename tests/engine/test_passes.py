"""The passes over a program: what each makes of a small step, what it leaves alone, and that all
of them keep what any step computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import cleandoc
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from random_steps import Case, Step, gated_steps, leaf, steps_of_any_operations
from small_steps import (
    W,
    b,
    column,
    full,
    h,
    joined,
    parts,
    positions,
    recorded,
    s,
    whole_numbers,
    x,
)
from transfer import on_device, to_host

import minigrad as mg
from minigrad import Tensor
from minigrad.containers import map_leaves
from minigrad.scanning import kernels, passes
from minigrad.scanning.gradients import differentiated
from minigrad.scanning.passes import prepared, ready_to_play
from minigrad.scanning.program import Kind, Program
from minigrad.scanning.recording import Recording, record

Pass = Callable[[Program], Program]

square = mg.tensor(np.arange(16).reshape(4, 4))

#: Without an example that is as small as can be.
SEARCH = settings(max_examples=200, phases=[Phase.generate], database=None)


def with_gradients(step: Step, x: Tensor = x, h: Tensor = h) -> Program:
    return gradients_of(recording := record(step, x, h), recording.program)


def gradients_of(recording: Recording, program: Program) -> Program:
    """The program, which was made of what was recorded, with the gradients of all inputs."""
    wanted = [n for n in program.given if program.kinds[n].dtype.kind == "f"]
    return differentiated(program, (recording.arrays, recording.arrays), wanted)


def constant(numbers: Sequence[float], dtype: Any) -> Any:
    return mg.tensor(numbers, dtype).array


def with_gates(program: Program) -> Program:
    return passes.with_gates(program, constant)


def with_centred_weights(program: Program) -> Program:
    return passes.with_centred_weights(passes.without_repeats(passes.with_moments(program)))


def with_means_as_products(program: Program) -> Program:
    return passes.with_means_as_products(program, constant)


def played_program(program: Program, with_factors_outside: bool = True) -> Program:
    return ready_to_play(program, constant, with_factors_outside)


def assert_prints(program: Program, text: str) -> None:
    assert str(program) == cleandoc(text)


def assert_leaves(change: Pass, program: Program) -> None:
    assert str(change(program)) == str(program)


# --------------------------------------------------------------------------------------
# with_products
# --------------------------------------------------------------------------------------


def test_linear_becomes_a_product_and_a_sum() -> None:
    program = recorded(lambda x, h: (h, mg.linear(h, W, x)))
    assert_prints(
        passes.with_products(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4, 4) float64
        #4 = transpose(#2, axes=None)
        #5 = matmul(#1, #4)
        #3 = add(#5, #0)
        y #1, state #3
        """,
    )


def test_what_linear_reads_may_be_detached() -> None:
    program = recorded(lambda x, h: ((), mg.linear(h.detach(), W.detach(), x.detach())))
    assert_prints(
        passes.with_products(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4, 4) float64
        #5 = transpose(#2 detached, axes=None)
        #6 = matmul(#1 detached, #5)
        #3 = add(#6, #0 detached)
        #4 = copy(#3 detached)
        state #4
        """,
    )


def test_products_are_left_as_they_are() -> None:
    assert_leaves(passes.with_products, recorded(lambda x, h: (h, h @ W.T + x)))


# --------------------------------------------------------------------------------------
# without_repeats
# --------------------------------------------------------------------------------------


def test_repeats_and_what_is_made_of_them_are_computed_once() -> None:
    program = recorded(lambda x, h: (mg.tanh(h @ W.T), mg.tanh(h @ W.T)))
    assert_prints(
        passes.without_repeats(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4, 4) float64
        #3 = transpose(#2, axes=None)
        #4 = matmul(#1, #3)
        #5 = tanh(#4)
        y #5, state #5
        """,
    )


def test_repeats_of_several_results_and_of_what_has_values_among_its_settings() -> None:
    def step(x: Any, h: Any) -> Any:
        (a, _), (_, c) = parts(x), parts(x)
        return h[:, positions], joined(a, c) - h[:, positions]

    assert_prints(
        passes.without_repeats(recorded(step)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #6 (4,) int64
        #2, #3 = split(#0, bounds=(0, 2, 4), axis=1)
        #7 = getitem(#1, index=(:, #6 detached))
        #8 = concatenate(#2, #3, axis=1, bounds=(0, 2, 4))
        #10 = subtract(#8, #7)
        y #7, state #10
        """,
    )


def test_gradients_that_repeat_are_the_same_value() -> None:
    program = with_gradients(lambda x, h: ((), s * h + s * x))
    assert "gradient of #0: #10\ngradient of #1: #15\n" in str(program)
    program = passes.without_repeats(program)
    assert "gradient of #0: #10\ngradient of #1: #10\n" in str(program)


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: (mg.tanh(h.detach()) * 1.0, mg.tanh(h)),
        lambda x, h: (h * 1, h * 1.0),
        lambda x, h: (h[:, :1], joined(h[:, 0:1], h[:, 1:])),
        lambda x, h: (h.sum(axis=0), h.sum(axis=0, keepdims=True) + x),
        lambda x, h: (h - x, x - h),
        lambda x, h: (h * 0.0, h * -0.0),
    ],
)
def test_what_differs_in_the_least_is_not_a_repeat(step: Step) -> None:
    assert_leaves(passes.without_repeats, recorded(step))


# --------------------------------------------------------------------------------------
# without_dead
# --------------------------------------------------------------------------------------


def test_what_nobody_reads_is_not_computed() -> None:
    def step(x: Any, h: Any) -> Any:
        mg.tanh(h @ W)
        first, _ = parts(x)
        return (), joined(first, first)

    assert_prints(
        passes.without_dead(recorded(step)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4, 4) float64
        #5, #6 = split(#0, bounds=(0, 2, 4), axis=1)
        #7 = concatenate(#5, #5, axis=1, bounds=(0, 2, 4))
        state #7
        """,
    )


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: (mg.tanh(h), h * x),
        lambda x, h: ((), mg.tanh(h).detach()),
        lambda x, h: ((), x[mg.argmax(x, axis=0), [0, 1, 2, 3]] * h),
    ],
    ids=["returned", "detached", "among settings"],
)
def test_what_is_read_is_computed(step: Step) -> None:
    assert_leaves(passes.without_dead, recorded(step))


def test_what_a_gradient_reads_is_computed() -> None:
    assert_leaves(passes.without_dead, with_gradients(lambda x, h: ((), mg.tanh(x @ W) * h)))


# --------------------------------------------------------------------------------------
# with_neighbours_joined
# --------------------------------------------------------------------------------------


def test_neighbours_are_added_at_once() -> None:
    def step(x: Any, h: Any) -> Any:
        (a, b, c), (d, e, f) = parts(x, [1, 3]), parts(h, [1, 3])
        return (), joined(a + d, b + e, c * f)

    assert_prints(
        passes.with_neighbours_joined(recorded(step)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #12, #4 = split(#0, bounds=(0, 3, 4), axis=1)
        #2, #3 = split(#12, bounds=(0, 1, 3), axis=1)
        #13, #7 = split(#1, bounds=(0, 3, 4), axis=1)
        #5, #6 = split(#13, bounds=(0, 1, 3), axis=1)
        #14 = add(#12, #13)
        #8, #9 = split(#14, bounds=(0, 1, 3), axis=1)
        #10 = multiply(#4, #7)
        #11 = concatenate(#8, #9, #10, axis=1, bounds=(0, 1, 3, 4))
        state #11
        """,
    )


def test_more_than_two_in_any_order_with_a_number_and_returned() -> None:
    def step(x: Any, h: Any) -> Any:
        a, b, c = parts(h, [1, 2])
        c, b, a = 1.0 - c, 1.0 - b, 1.0 - a
        return b, joined(a, b, c)

    program = passes.with_neighbours_joined(recorded(step))
    assert [str(each) for each in program.instructions if "subtract" in str(each)] == [
        "#12 = subtract(1.0, #11)"
    ]
    assert_prints(
        program,
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #11 = split(#1, bounds=(0, 4), axis=1)
        #2, #9 = split(#11, bounds=(0, 1, 4), axis=1)
        #3, #4 = split(#9, bounds=(0, 1, 3), axis=1)
        #12 = subtract(1.0, #11)
        #7, #10 = split(#12, bounds=(0, 1, 4), axis=1)
        #6, #5 = split(#10, bounds=(0, 1, 3), axis=1)
        #8 = concatenate(#7, #6, #5, axis=1, bounds=(0, 1, 2, 4))
        y #6, state #8
        """,
    )


def of_thirds(f: Callable[..., Any]) -> Step:
    """A step that returns what f makes of three parts of x and of h each."""
    x, h = leaf(2, 6), leaf(2, 6, seed=1)
    return lambda _, state: (f(*parts(x, 3), *parts(h, 3)), state)


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b, c, d, e, f: (a + d, c + f),
        lambda a, b, c, d, e, f: (a + e, b + d),
        lambda a, b, c, d, e, f: (a + d, b - e),
        lambda a, b, c, d, e, f: (a + d, b + d),
        lambda a, b, c, d, e, f: (a + d, (b.detach() + e) * 1.0),
        lambda a, b, c, d, e, f: (1.0 - a, 2.0 - b),
        lambda a, b, c, d, e, f: (a + 1.0, 1.0 + b),
        lambda a, b, c, d, e, f: (a * b, b * c),
        lambda a, b, c, d, e, f: (a * leaf(2, 2), b * leaf(2, 2)),
        lambda a, b, c, d, e, f: (a.sum(axis=-1), b.sum(axis=-1)),
        lambda a, b, c, d, e, f: (a.astype("float32"), b.astype("float32")),
    ],
    ids=[
        "with one between",
        "crosswise",
        "another operation",
        "the same part twice",
        "detached",
        "another number",
        "another place of the number",
        "overlapping",
        "of what is no part",
        "not by element",
        "with settings",
    ],
)
def test_these_are_no_neighbours(f: Callable[..., Any]) -> None:
    assert_leaves(passes.with_neighbours_joined, recorded(of_thirds(f)))


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: ([a + c for a, c in zip(mg.split(x, 2), mg.split(h, 2), strict=True)], h),
        lambda x, h: ([a * c for a, c in zip(parts(x[:, :2]), parts(h), strict=True)], h),
        lambda x, h: ([a + a for a in parts(whole_numbers)], h),
    ],
    ids=["along another axis", "of other widths", "whole numbers"],
)
def test_parts_that_cannot_be_joined_are_left(step: Step) -> None:
    assert_leaves(passes.with_neighbours_joined, recorded(step))


# --------------------------------------------------------------------------------------
# with_gates
# --------------------------------------------------------------------------------------


def test_sigmoids_and_tanhs_of_all_parts_are_one_operation() -> None:
    def step(x: Any, h: Any) -> Any:
        i, g = parts(h, [3])
        return (), joined(mg.sigmoid(i), mg.tanh(g))

    program = with_gates(recorded(step))
    assert_prints(
        program,
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #9 = squash(#1, #7, #8)
        #4, #5 = split(#9, bounds=(0, 3, 4), axis=1)
        #6 = concatenate(#4, #5, axis=1, bounds=(0, 3, 4))
        state #6
        """,
    )
    scale, shift = [to_host(array) for array in program.constants.values()]
    assert scale.tolist() == [0.5, 0.5, 0.5, 1.0]
    assert shift.tolist() == [0.5, 0.5, 0.5, 0.0]
    assert scale.dtype == shift.dtype == "float64"


def squashed_parts(f: Callable[[Any, Any], Any], whole: Any = None, axis: int = -1) -> Step:
    """A step that returns what f makes of a part, and the tanh of the other."""

    def step(x: Any, h: Any) -> Any:
        part, other = mg.split(h if whole is None else whole, 2, axis=axis)
        return (f(part, other), mg.tanh(other)), h

    return step


@pytest.mark.parametrize(
    "step",
    [
        squashed_parts(lambda part, other: (part, mg.sigmoid(part))),
        squashed_parts(lambda part, other: part * mg.sigmoid(part)),
        squashed_parts(lambda part, other: mg.tanh(part) * mg.sigmoid(part)),
        squashed_parts(lambda part, other: mg.sigmoid(part.detach()) * 1.0),
        squashed_parts(lambda part, other: mg.relu(part)),
        squashed_parts(lambda part, other: ()),
        squashed_parts(lambda part, other: mg.sigmoid(part), axis=0),
        squashed_parts(lambda part, other: mg.sigmoid(part), whole=whole_numbers),
    ],
    ids=[
        "returned",
        "read twice",
        "squashed twice",
        "detached",
        "another function",
        "not read",
        "along another axis",
        "whole numbers",
    ],
)
def test_these_are_no_gates(step: Step) -> None:
    assert_leaves(with_gates, recorded(step))


# --------------------------------------------------------------------------------------
# with_conditions
# --------------------------------------------------------------------------------------


def test_conditions_become_true_or_false() -> None:
    program = recorded(lambda x, h: (mg.where(2.5, x, 0.0), mg.where(whole_numbers, h, 1.0)))
    assert_prints(
        passes.with_conditions(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #3 (2, 4) int64
        #2 = where(True, #0, 0.0)
        #5 = not_equal(#3 detached, 0)
        #4 = where(#5, #1, 1.0)
        y #2, state #4
        """,
    )


def test_conditions_that_are_true_or_false_stay() -> None:
    assert_leaves(passes.with_conditions, recorded(lambda x, h: (h, mg.where(x > h, h, 1.0))))


# --------------------------------------------------------------------------------------
# with_moments
# --------------------------------------------------------------------------------------


def test_what_is_standardized_is_written_out_and_found_by_its_gradient() -> None:
    program = with_gradients(lambda x, h: ((), mg.standardize(h, eps=0.5)))
    assert_prints(
        passes.without_repeats(passes.with_moments(program)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #16 = sum(#1, axis=(1,), keepdims=True)
        #17 = divide(#16, 4)
        #18 = subtract(#1, #17)
        #19 = square(#18)
        #20 = sum(#19, axis=(1,), keepdims=True)
        #21 = divide(#20, 4)
        #22 = add(#21, 0.5)
        #23 = sqrt(#22)
        #2 = divide(#18, #23)
        #7 = multiply(#3, #2)
        #8 = sum(#7, axis=-1, keepdims=True)
        #9 = divide(#8, 4)
        #10 = sum(#3, axis=-1, keepdims=True)
        #11 = divide(#10, 4)
        #12 = subtract(#3, #11)
        #13 = multiply(#2, #9)
        #14 = subtract(#12, #13)
        #15 = divide(#14, #23)
        state #2
        gradient of #1: #15
        """,
    )


def test_so_is_a_variance_over_any_axes_with_any_freedom() -> None:
    program = recorded(lambda x, h: (mg.var(h, axis=0, ddof=1, keepdims=True), h))
    assert_prints(
        passes.with_moments(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #3 = sum(#1, axis=(0,), keepdims=True)
        #4 = divide(#3, 2)
        #5 = subtract(#1, #4)
        #6 = square(#5)
        #7 = sum(#6, axis=(0,), keepdims=True)
        #2 = divide(#7, 1)
        y #2, state #1
        """,
    )


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: (mg.var(h, axis=-1), h),
        lambda x, h: (mg.standardize(h.astype("float16")), h),
        lambda x, h: (h**3.0, h),
        lambda x, h: (whole_numbers**0.5, h),
    ],
    ids=["without its axis", "of half precision", "another power", "of whole numbers"],
)
def test_other_moments_are_left(step: Step) -> None:
    assert_leaves(passes.with_moments, recorded(step))


# --------------------------------------------------------------------------------------
# with_centred_weights, with_means_as_products
# --------------------------------------------------------------------------------------


def test_a_centred_product_is_one_with_a_centred_weight() -> None:
    program = recorded(lambda x, h: ((), mg.standardize(h @ W, eps=0.5)))
    assert_prints(
        passes.without_dead(with_centred_weights(program)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4, 4) float64
        #13 = sum(#2, axis=(1,), keepdims=True)
        #14 = divide(#13, 4)
        #15 = subtract(#2, #14)
        #7 = matmul(#1, #15)
        #8 = square(#7)
        #9 = sum(#8, axis=(1,), keepdims=True)
        #10 = divide(#9, 4)
        #11 = add(#10, 0.5)
        #12 = sqrt(#11)
        #4 = divide(#7, #12)
        state #4
        """,
    )


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: (z := h @ W, z - z.mean(axis=-1, keepdims=True)),
        lambda x, h: ((), (z := h @ W) - x.mean(axis=-1, keepdims=True) + z),
        lambda x, h: ((), (z := h @ W) - z.mean(axis=0, keepdims=True)),
        lambda x, h: ((), (z := h @ W) - z.sum(axis=-1, keepdims=True) / 3.0),
        lambda x, h: ((), (z := h * 2.0) - z.mean(axis=-1, keepdims=True)),
        lambda x, h: ((), (z := h @ W) - (m := z.mean(axis=-1, keepdims=True)) + m),
        lambda x, h: ((z := mg.stack([h, x]) @ b) - z.mean(axis=-1, keepdims=True), h),
        lambda x, h: ((), (z := h @ square) - z.mean(axis=-1, keepdims=True)),
    ],
    ids=[
        "returned besides",
        "less another's mean",
        "less the mean of columns",
        "less something else",
        "no product",
        "its mean is read besides",
        "with a vector",
        "with whole numbers",
    ],
)
def test_other_products_are_not_centred(step: Step) -> None:
    assert_leaves(passes.with_centred_weights, recorded(step))


def test_a_mean_along_the_rows_is_a_product_with_a_column() -> None:
    def step(x: Any, h: Any) -> Any:
        means = [(h * k).mean(axis=-1, keepdims=True) for k in (2.0, 3.0)]
        others = h.mean(axis=0, keepdims=True), h.mean(axis=-1), whole_numbers.mean(-1, True)
        return (means, *others), h

    program = with_means_as_products(recorded(step))
    assert_prints(
        program,
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #12 (2, 4) int64
        #2 = multiply(#1, 2.0)
        #4 = matmul(#2, #16)
        #5 = multiply(#1, 3.0)
        #7 = matmul(#5, #16)
        #8 = sum(#1, axis=0, keepdims=True)
        #9 = divide(#8, 2)
        #10 = sum(#1, axis=-1, keepdims=False)
        #11 = divide(#10, 4)
        #13 = sum(#12 detached, axis=-1, keepdims=True)
        #14 = divide(#13 detached, 4)
        #15 = copy(#14 detached)
        y #4, y #7, y #9, y #11, y #15, state #1
        """,
    )
    np.testing.assert_array_equal(to_host(program.constants[16]), np.full((4, 1), 0.25))


# --------------------------------------------------------------------------------------
# with_scaled_weights
# --------------------------------------------------------------------------------------


def gates_of(z: Callable[[Any, Any], Any]) -> Step:
    """A step whose gates are made of z."""

    def step(x: Any, h: Any) -> Any:
        i, g = parts(z(x, h))
        return (), joined(mg.sigmoid(i), mg.tanh(g))

    return step


def test_the_scale_of_gates_is_in_the_weights_and_in_all_terms() -> None:
    program = with_gates(recorded(gates_of(lambda x, h: h @ W + (x + b))))
    assert_prints(
        passes.without_dead(passes.with_scaled_weights(program)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4, 4) float64, outside #4 (4,) float64
        #15 = multiply(#2, #12)
        #16 = matmul(#1, #15)
        #17 = multiply(#0, #12)
        #18 = multiply(#4, #12)
        #19 = add(#17, #18)
        #20 = add(#16, #19)
        #21 = tanh(#20)
        #22 = multiply(#21, #12)
        #14 = add(#22, #13)
        #9, #10 = split(#14, bounds=(0, 2, 4), axis=1)
        #11 = concatenate(#9, #10, axis=1, bounds=(0, 2, 4))
        state #11
        """,  # noqa: E501
    )


def test_a_weight_that_is_itself_a_product_has_its_last_factor_scaled() -> None:
    program = with_gates(recorded(gates_of(lambda x, h: h @ (W @ W))))
    found = passes.without_dead(passes.with_scaled_weights(program)).instructions
    assert [str(each) for each in found[:3]] == [
        "#13 = multiply(#2, #10)",
        "#14 = matmul(#2, #13)",
        "#15 = matmul(#1, #14)",
    ]


def returned_too(x: Any, h: Any) -> Any:
    z = h @ W
    i, g = parts(z)
    return z, joined(mg.sigmoid(i), mg.tanh(g))


def test_a_term_that_is_read_twice_is_scaled_itself() -> None:
    program = with_gates(recorded(gates_of(lambda x, h: (z := h @ W) + z)))
    found = passes.without_dead(passes.with_scaled_weights(program)).instructions
    assert [str(each) for each in found[:4]] == [
        "#3 = matmul(#1, #2)",
        "#13 = multiply(#3, #10)",
        "#14 = multiply(#3, #10)",
        "#15 = add(#13, #14)",
    ]


@pytest.mark.parametrize(
    ("step", "h"),
    [
        (gates_of(lambda x, h: h), h),
        (gates_of(lambda x, h: mg.relu(h)), h),
        (returned_too, h),
        (gates_of(lambda x, h: h @ W + column), h),
        (gates_of(lambda x, h: h @ W + s), h),
        (gates_of(lambda x, h: h @ W + 1.0), h),
        (gates_of(lambda x, h: h + whole_numbers), h),
        (gates_of(lambda x, h: h @ mg.tensor(np.ones((4, 4), int))), h),
        (gates_of(lambda x, h: h @ leaf(2, 4, 4)), leaf(2, 1, 4)),
    ],
    ids=[
        "given",
        "made otherwise",
        "returned",
        "with a column",
        "with a scalar",
        "with a number",
        "with whole numbers",
        "whole weights",
        "a stack of weights",
    ],
)
def test_otherwise_what_the_gates_are_made_of_is_scaled_itself(step: Step, h: Tensor) -> None:
    program = with_gates(recorded(step, h=h))
    (squash,) = [each for each in program.instructions if each.primitive is kernels.SQUASH]
    found = passes.with_scaled_weights(program).instructions
    z, scale, shift = map(str, squash.operands)
    n = len(program.kinds)
    i = program.instructions.index(squash)
    assert [str(each) for each in found[i : i + 4]] == [
        f"#{n} = multiply({z}, {scale})",
        f"#{n + 1} = tanh(#{n})",
        f"#{n + 2} = multiply(#{n + 1}, {scale})",
        f"#{squash.results[0]} = add(#{n + 2}, {shift})",
    ]


def test_what_is_no_gate_is_not_scaled() -> None:
    assert_leaves(passes.with_scaled_weights, recorded(lambda x, h: ((), mg.tanh(h @ W))))


# --------------------------------------------------------------------------------------
# with_factors
# --------------------------------------------------------------------------------------


def test_the_gradient_of_tanh_is_a_product_with_a_factor() -> None:
    program = with_gradients(lambda x, h: ((), mg.tanh(x + h)))
    assert_prints(
        passes.with_factors(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #2 = add(#0, #1)
        #3 = tanh(#2)
        #5 = multiply(#3, #3)
        #6 = multiply(#4, #5)
        #8 = subtract(1.0, #5)
        #7 = multiply(#4, #8)
        state #3
        gradient of #0: #7
        gradient of #1: #7
        """,
    )


def test_factors_of_factors_are_multiplied_with_each_other() -> None:
    program = with_gradients(lambda x, h: ((), mg.tanh(h) * x.detach()))
    assert_prints(
        passes.without_dead(passes.with_factors(program)),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #2 = tanh(#1)
        #3 = multiply(#2, #0)
        #6 = multiply(#2, #2)
        #9 = subtract(1.0, #6)
        #10 = multiply(#0, #9)
        #8 = multiply(#4, #10)
        state #3
        gradient of #1: #8
        """,
    )


def with_gradient(function: Callable[[Any], Any]) -> Step:
    """A step that makes something else of its gradient."""
    return lambda x, h: ((), mg.map_gradient(x + h, function))


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: (mg.tanh(x + h), h),
        lambda x, h: ((), s.detach() * (s.detach() * (x + h))),
        lambda x, h: ((), b.detach() * (b.detach() * (x + h))),
        lambda x, h: ((), column.detach() * (column.detach() * (x + h))),
        lambda x, h: ((), 2.0 * (3.0 * (x + h))),
        lambda x, h: ((), x * (h * (h + 1.0))),
        with_gradient(lambda g: (g * (g + g)) * full),
        with_gradient(lambda g: (g - (product := g * full)) + product),
        with_gradient(lambda g: (g + g) - g * full),
    ],
    ids=[
        "of y alone",
        "scalars",
        "rows",
        "columns",
        "numbers",
        "of what is read twice",
        "what depends on the step after",
        "a product that is read twice",
        "a product of something else",
    ],
)
def test_these_are_no_factors(step: Step) -> None:
    assert_leaves(passes.with_factors, with_gradients(step))


# --------------------------------------------------------------------------------------
# with_rows_spread
# --------------------------------------------------------------------------------------


def test_a_vector_that_meets_rows_is_spread_out_once() -> None:
    program = recorded(lambda x, h: (b * x, b * h + column))
    assert_prints(
        passes.with_rows_spread(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64, outside #2 (4,) float64, outside #5 (2, 1) float64
        #7 = broadcast_to(#2, shape=(2, 4))
        #3 = multiply(#7, #0)
        #4 = multiply(#7, #1)
        #8 = broadcast_to(#5, shape=(2, 4))
        #6 = add(#4, #8)
        y #3, state #6
        """,  # noqa: E501
    )


def test_a_vector_is_spread_out_to_every_shape_that_it_meets() -> None:
    program = passes.with_rows_spread(recorded(lambda x, h: (b * x[None], b * h)))
    assert [str(each) for each in program.instructions[1:]] == [
        "#6 = broadcast_to(#3, shape=(1, 2, 4))",
        "#4 = multiply(#6, #2)",
        "#7 = broadcast_to(#3, shape=(2, 4))",
        "#5 = multiply(#7, #1)",
    ]


def test_the_gradient_reads_the_vector_that_was_spread_out_before() -> None:
    program = passes.with_rows_spread(with_gradients(lambda x, h: ((), b.detach() * h)))
    assert [str(each) for each in program.instructions] == [
        "#6 = broadcast_to(#2, shape=(2, 4))",
        "#3 = multiply(#6, #1)",
        "#5 = multiply(#4, #6)",
    ]


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: ((), (b * b) @ h.T @ h + x),
        lambda x, h: ((), x[:, :1] * h + h[0]),
        lambda x, h: ((), s * h + s.reshape((1, 1))),
        lambda x, h: ((), h * 2.0),
        lambda x, h: ((), h + full),
        lambda x, h: ((), mg.linear(h, W, b)),
        lambda x, h: ((), mg.where(positions > 0, h, x)),
    ],
    ids=[
        "it meets no rows",
        "what changes with time",
        "one number",
        "a number of Python",
        "what has all rows",
        "a product",
        "no ufunc",
    ],
)
def test_these_are_not_spread_out(step: Step) -> None:
    assert_leaves(passes.with_rows_spread, recorded(step))


# --------------------------------------------------------------------------------------
# The order of the passes
# --------------------------------------------------------------------------------------


def gru(x: Any, h: Any) -> Any:
    """Of weights for both gates and the candidate."""
    weight, recurrent = leaf(12, 4), leaf(4, 12)
    x_r, x_z, x_n = parts(mg.linear(x, weight, leaf(12)), 3)
    h_r, h_z, h_n = parts(h @ recurrent, 3)
    r, z = mg.sigmoid(x_r + h_r), mg.sigmoid(x_z + h_z)
    n = mg.tanh(x_n + r * h_n)
    return mg.tanh(x_n + r * h_n), n + z * (h - n)


def prepared_on_device(program: Program) -> Program:
    return prepared(program, constant)


def test_both_gates_of_a_gru_are_one_operation() -> None:
    program = prepared_on_device(recorded(gru))
    assert [str(each) for each in program.instructions[3:9]] == [
        "#28, #7 = split(#4, bounds=(0, 8, 12), axis=1)",
        "#9 = matmul(#1, #8)",
        "#29, #12 = split(#9, bounds=(0, 8, 12), axis=1)",
        "#30 = add(#28, #29)",
        "#35 = squash(#30, #33, #34)",
        "#32 = split(#35, bounds=(0, 8), axis=1)",
    ]
    assert str(program).count("tanh") == 1


def test_the_squash_of_the_gates_is_read_by_the_gradient_and_scaled_before() -> None:
    recording = record(gates_of(lambda x, h: h @ W + x @ W), x, h)
    program = played_program(gradients_of(recording, prepared_on_device(recording.program)))
    played = [str(each) for each in passes.without_dead(program).instructions]
    assert played[:9] == [
        "#30 = multiply(#2, #3)",
        "#31 = matmul(#1, #30)",
        "#33 = matmul(#0, #30)",
        "#34 = add(#31, #33)",
        "#35 = tanh(#34)",
        "#37 = broadcast_to(#3, shape=(2, 4))",
        "#36 = multiply(#35, #37)",
        "#38 = broadcast_to(#4, shape=(2, 4))",
        "#8 = add(#36, #38)",
    ]
    assert "#17 = subtract(#8, #38)" in played


def test_what_is_read_twice_after_repeats_are_found_is_no_factor() -> None:
    program = with_gradients(with_gradient(lambda g: (g * full) * full - g * full))
    assert str(passes.with_factors(program)) != str(program)
    assert_prints(
        played_program(program),
        """
        x #0 (2, 4) float64, state #1 (2, 4) float64
        #2 = add(#0, #1)
        #3 = map_gradient(#2, function=<lambda>)
        #6 = multiply(#4, #5)
        #7 = multiply(#6, #5)
        #9 = subtract(#7, #6)
        state #3
        gradient of #0: #9
        gradient of #1: #9
        """,
    )


def test_factors_can_be_left_inside() -> None:
    program = with_gradients(lambda x, h: ((), mg.tanh(x + h)))
    assert_leaves(lambda program: played_program(program, False), program)
    outside = played_program(program)
    assert str(outside) == str(passes.with_factors(program)) != str(program)


# --------------------------------------------------------------------------------------
# Any step
# --------------------------------------------------------------------------------------

OF_STEPS: dict[str, Pass] = {
    "with_products": passes.with_products,
    "without_repeats": passes.without_repeats,
    "without_dead": passes.without_dead,
    "with_neighbours_joined": passes.with_neighbours_joined,
    "with_gates": with_gates,
    "prepared": prepared_on_device,
}
OF_GRADIENTS: dict[str, Pass] = {
    "without_repeats": passes.without_repeats,
    "with_moments": passes.with_moments,
    "with_centred_weights": with_centred_weights,
    "with_means_as_products": with_means_as_products,
    "with_factors": passes.with_factors,
    "with_scaled_weights": passes.with_scaled_weights,
    "with_rows_spread": passes.with_rows_spread,
    "ready_to_play": played_program,
    "ready_to_play, factors inside": lambda program: played_program(program, False),
}


def inputs_of(program: Program) -> list[int]:
    return [*program.xs, *program.drawn, *program.states, *program.outside]


def run(program: Program, given: list[Any]) -> dict[str, np.ndarray]:
    """What a program computes of what a step is given, and gradients of its results."""
    rng = np.random.default_rng(0)
    values = dict(zip(inputs_of(program), given, strict=False)) | program.constants
    for seed in program.seeds:
        if seed is not None:
            values[seed] = on_device(rng.normal(size=program.kinds[seed].shape))
    for each in program.instructions:
        made = kernels.computed(each, values.__getitem__)
        assert [Kind(a.shape, a.dtype) for a in made] == [program.kinds[n] for n in each.results]
        values |= zip(each.results, made, strict=True)
    results = enumerate([*program.ys, *program.new_states])
    found = {f"result {i}": n for i, n in results}
    found |= {f"gradient of #{n}": g for n, g in program.gradients.items()}
    return {name: to_host(values[n]) for name, n in found.items()}


def recording_of(case: Case) -> Recording:
    step, h, xs, *_ = case
    return record(step, map_leaves(lambda name, part: part[0], xs), h)


def assert_are(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], change: str) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        message = f"{name} after {change}"
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12, err_msg=message)


@given(case=gated_steps() | steps_of_any_operations())
def test_passes_over_a_step_keep_its_values_and_its_gradient(case: Case) -> None:
    recording = recording_of(case)
    given = [recording.arrays[n] for n in inputs_of(recording.program)]
    values = run(recording.program, given)
    gradients = run(gradients_of(recording, recording.program), given)
    for name, change in OF_STEPS.items():
        program = change(recording.program)
        assert_are(run(program, given), values, name)
        assert_are(run(gradients_of(recording, program), given), gradients, name)


@given(case=gated_steps() | steps_of_any_operations())
def test_passes_over_the_gradient_keep_all_values(case: Case) -> None:
    recording = recording_of(case)
    given = [recording.arrays[n] for n in inputs_of(recording.program)]
    program = gradients_of(recording, prepared_on_device(recording.program))
    values = run(program, given)
    for name, change in OF_GRADIENTS.items():
        assert_are(run(change(program), given), values, name)


@pytest.mark.parametrize("name", OF_STEPS)
def test_a_pass_changes_some_of_these_steps(name: str) -> None:
    def changes(case: Case) -> bool:
        program = recording_of(case).program
        return str(OF_STEPS[name](program)) != str(program)

    find(gated_steps(), changes, settings=SEARCH)


@pytest.mark.parametrize("name", OF_GRADIENTS)
def test_a_pass_changes_some_of_their_gradients(name: str) -> None:
    def changes(case: Case) -> bool:
        recording = recording_of(case)
        program = gradients_of(recording, prepared_on_device(recording.program))
        return str(OF_GRADIENTS[name](program)) != str(program)

    find(gated_steps(), changes, settings=SEARCH)
