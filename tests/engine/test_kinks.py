"""What a derivative is where there is none: one test for every written convention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.testing import check_gradients

ORDERS = pytest.mark.parametrize("create_graph", [False, True], ids=["arrays", "tensors"])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])


def gradients(
    call: Callable[..., mg.Tensor], *points: Any, create_graph: bool = False, dtype: str = "float64"
) -> list[Any]:
    """The gradients of the sum of what ``call`` returns, as lists."""
    leaves = [mg.tensor(point, dtype=dtype, requires_grad=True) for point in points]
    with mg.Tape() as tape:
        found = tape.gradient(mg.sum(call(*leaves)), leaves, create_graph=create_graph)
    return [gradient.tolist() for gradient in found]


def second(call: Callable[[mg.Tensor], mg.Tensor], point: float) -> float:
    """The second derivative at a point."""
    x = mg.tensor(point, dtype="float64", requires_grad=True)
    with mg.Tape() as tape:
        first = tape.gradient(call(x), x, create_graph=True)
        return float(tape.gradient(first * 1.0 + 0.0 * x, x))


# --------------------------------------------------------------------------------------
# Ties
# --------------------------------------------------------------------------------------


@ORDERS
@DTYPES
@pytest.mark.parametrize("reduce", [mg.max, mg.min])
def test_elements_that_tie_share_equally(
    reduce: Callable[..., mg.Tensor], dtype: str, create_graph: bool
) -> None:
    """Exactly so: a third is a third in the operand's own dtype."""
    (gradient,) = gradients(reduce, [5.0, 5.0, 5.0], create_graph=create_graph, dtype=dtype)
    third = float(np.dtype(dtype).type(1.0) / np.dtype(dtype).type(3.0))
    assert gradient == [third, third, third]


@ORDERS
@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        (mg.max, [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]),
        (mg.min, [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]),
    ],
)
@pytest.mark.parametrize("keepdims", [False, True])
def test_ties_are_shared_within_each_reduced_part(
    reduce: Callable[..., mg.Tensor], expected: Any, keepdims: bool, create_graph: bool
) -> None:
    x = [[2.0, -1.0, 2.0], [-3.0, 0.0, -3.0]]
    assert gradients(
        lambda t: reduce(t, axis=1, keepdims=keepdims), x, create_graph=create_graph
    ) == [expected]


def test_ties_over_several_axes_are_counted_over_all_of_them() -> None:
    x = [[[1.0, 7.0], [7.0, 0.0]], [[7.0, 7.0], [2.0, 3.0]]]
    expected = [[[0.0, 1 / 3], [1.0, 0.0]], [[1 / 3, 1 / 3], [0.0, 0.0]]]
    assert gradients(lambda t: mg.max(t, axis=(0, 2)), x) == [expected]


def test_more_ties_than_float16_can_count_still_share() -> None:
    many = 1 << 17
    (gradient,) = gradients(mg.max, np.zeros(many), dtype="float16")
    assert set(gradient) == {float(np.float16(1.0 / many))}


@ORDERS
@pytest.mark.parametrize("choose", [mg.maximum, mg.minimum])
def test_two_operands_that_tie_get_half_each(
    choose: Callable[..., mg.Tensor], create_graph: bool
) -> None:
    assert gradients(choose, [1.0], [1.0], create_graph=create_graph) == [[0.5], [0.5]]


@ORDERS
def test_without_a_tie_the_chosen_operand_gets_all(create_graph: bool) -> None:
    a, b = [1.0, 3.0], [2.0, 2.0]
    assert gradients(mg.maximum, a, b, create_graph=create_graph) == [[0.0, 1.0], [1.0, 0.0]]
    assert gradients(mg.minimum, a, b, create_graph=create_graph) == [[1.0, 0.0], [0.0, 1.0]]


def test_a_tie_with_a_number_gives_half() -> None:
    assert gradients(lambda x: mg.maximum(x, 0.0), [0.0]) == [[0.5]]


def test_an_operand_that_meets_itself_gets_both_halves() -> None:
    assert gradients(lambda x: mg.maximum(x, x), [2.0]) == [[1.0]]


# --------------------------------------------------------------------------------------
# Clipping
# --------------------------------------------------------------------------------------


@ORDERS
def test_clip_at_a_bound_gives_half(create_graph: bool) -> None:
    x = [-2.0, -1.0, 0.0, 1.0, 2.0]
    (gradient,) = gradients(lambda t: mg.clip(t, -1.0, 1.0), x, create_graph=create_graph)
    assert gradient == [0.0, 0.5, 1.0, 0.5, 0.0]


@ORDERS
def test_a_bound_of_clip_gets_what_the_operand_does_not(create_graph: bool) -> None:
    x, low, high = [-2.0, -1.0, 0.0, 1.0, 2.0], -1.0, 1.0
    gradient, at_low, at_high = gradients(mg.clip, x, low, high, create_graph=create_graph)
    assert gradient == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert (at_low, at_high) == (1.5, 1.5)


# --------------------------------------------------------------------------------------
# Zero
# --------------------------------------------------------------------------------------


@ORDERS
@DTYPES
@pytest.mark.parametrize("operation", [mg.abs, mg.relu])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_derivative_at_zero_is_zero(
    operation: Callable[..., mg.Tensor], zero: float, dtype: str, create_graph: bool
) -> None:
    assert gradients(operation, [zero], dtype=dtype, create_graph=create_graph) == [[0.0]]


@pytest.mark.parametrize(("point", "slope"), [(-2.0, -1.0), (2.0, 1.0)])
def test_abs_has_the_slope_of_its_side(point: float, slope: float) -> None:
    assert gradients(mg.abs, point) == [slope]
    assert second(mg.abs, point) == 0.0


@pytest.mark.parametrize(("point", "slope"), [(-2.0, 0.0), (2.0, 1.0)])
def test_relu_has_the_slope_of_its_side(point: float, slope: float) -> None:
    assert gradients(mg.relu, point) == [slope]
    assert second(mg.relu, point) == 0.0


@ORDERS
@DTYPES
@pytest.mark.parametrize(
    ("operation", "point"),
    [
        (mg.linalg.norm, [0.0, 0.0]),
        (lambda x: mg.linalg.norm(x, axis=1, keepdims=True), [[0.0, 0.0], [0.0, -0.0]]),
        (mg.std, [3.0, 3.0, 3.0]),
        (lambda x: mg.std(x, axis=0, ddof=1), [[3.0, 1.0], [3.0, 1.0]]),
    ],
    ids=["norm", "norms", "std", "stds"],
)
def test_the_derivative_of_a_root_of_squares_is_zero_where_it_is_zero(
    operation: Callable[..., mg.Tensor], point: Any, dtype: str, create_graph: bool
) -> None:
    (gradient,) = gradients(operation, point, dtype=dtype, create_graph=create_graph)
    assert gradient == np.zeros_like(point).tolist()


def test_a_norm_of_zero_beside_others_does_not_disturb_them() -> None:
    (gradient,) = gradients(lambda x: mg.linalg.norm(x, axis=1), [[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-15)


@pytest.mark.parametrize("operation", [mg.linalg.norm, mg.std])
def test_roots_of_squares_have_no_curvature_where_they_are_zero(
    operation: Callable[..., mg.Tensor],
) -> None:
    assert second(lambda x: operation(x * [1.0, 1.0] * 0.0), 1.0) == 0.0
    assert second(lambda x: operation(x * [1.0, 1.0]), 0.0) == 0.0


@ORDERS
def test_the_angle_of_the_origin_has_the_derivative_zero(create_graph: bool) -> None:
    assert mg.arctan2(0.0, 0.0) == 0.0
    found = gradients(mg.arctan2, [0.0, 1.0], [0.0, 0.0], create_graph=create_graph)
    assert found == [[0.0, 0.0], [0.0, -1.0]]


@ORDERS
@pytest.mark.parametrize(
    ("operation", "slope"),
    [
        (mg.leaky_relu, 0.01),
        (lambda x: mg.leaky_relu(x, 0.5), 0.5),
        (mg.elu, 1.0),
        (lambda x: mg.elu(x, 0.5), 0.5),
    ],
)
def test_bent_units_have_the_slope_of_the_left_side_at_zero(
    operation: Callable[..., mg.Tensor], slope: float, create_graph: bool
) -> None:
    assert gradients(operation, [0.0, -0.0], create_graph=create_graph) == [[slope, slope]]


@ORDERS
def test_hard_units_have_half_the_slope_at_their_bends(create_graph: bool) -> None:
    found = gradients(mg.hard_tanh, [-2.0, -1.0, 0.0, 1.0, 2.0], create_graph=create_graph)
    assert found == [[0.0, 0.5, 1.0, 0.5, 0.0]]
    (found,) = gradients(mg.hard_sigmoid, [-4.0, -3.0, 0.0, 3.0, 4.0], create_graph=create_graph)
    np.testing.assert_allclose(found, np.array([0.0, 0.5, 1.0, 0.5, 0.0]) / 6.0, rtol=1e-15)


@ORDERS
def test_equal_elements_keep_their_gradients_when_sorted(create_graph: bool) -> None:
    x = [2.0, 1.0, 2.0, 1.0]
    weights = [1.0, 2.0, 3.0, 4.0]
    found = gradients(lambda t: mg.sort(t) * weights, x, create_graph=create_graph)
    assert found == [[3.0, 1.0, 4.0, 2.0]]
    assert mg.argsort(mg.tensor(x)).tolist() == [1, 3, 0, 2]
    assert mg.argmin(mg.tensor(x)).item() == 1


@ORDERS
def test_the_last_of_several_values_set_at_one_position_counts(create_graph: bool) -> None:
    def update(x: mg.Tensor, values: Any) -> mg.Tensor:
        return mg.set_at(x, [0, 2, 0], values)

    assert update(mg.tensor([1.0, 2.0, 3.0]), [7.0, 8.0, 9.0]).tolist() == [9.0, 2.0, 8.0]
    found = gradients(update, [1.0, 2.0, 3.0], [7.0, 8.0, 9.0], create_graph=create_graph)
    assert found == [[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]]


# --------------------------------------------------------------------------------------
# Steps
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [mg.floor, mg.ceil, mg.round, mg.sign, mg.isnan, mg.isfinite])
def test_steps_are_constants(step: Callable[..., mg.Tensor]) -> None:
    x = mg.tensor([0.5, 1.0], requires_grad=True)
    with mg.Tape() as tape:
        assert not step(x).requires_grad
    assert len(tape) == 0


# --------------------------------------------------------------------------------------
# Products with zeros among the elements
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elements",
    [[0.0], [0.0, 2.0, 3.0], [2.0, 0.0, 3.0, 0.0], [2.0, -1.0, 0.0, 0.0, 3.0], [0.0] * 4],
    ids=str,
)
@pytest.mark.parametrize("operation", [mg.prod, mg.cumprod])
def test_products_with_zeros_have_exact_derivatives(
    operation: Callable[..., mg.Tensor], elements: list[float]
) -> None:
    check_gradients(operation, np.array(elements))
    check_gradients(lambda x: operation(x, axis=0), np.array([elements, elements[::-1]]).T)
    assert np.isfinite(gradients(operation, elements, create_graph=True)).all()


def test_the_gradient_of_a_product_is_that_of_the_other_elements() -> None:
    assert gradients(mg.prod, [0.0, 2.0, 3.0]) == [[6.0, 0.0, 0.0]]
    assert gradients(mg.prod, [0.0, 2.0, 0.0]) == [[0.0, 0.0, 0.0]]
    x = mg.tensor([0.0, 2.0, 0.0], requires_grad=True)
    with mg.Tape() as tape:
        (first,) = tape.gradient(mg.prod(x), [x], create_graph=True)
        (mixed,) = tape.gradient(first[0], [x])
    assert mixed.tolist() == [0.0, 0.0, 2.0]


@pytest.mark.parametrize("length", range(10))
def test_running_products_of_any_length_with_a_zero_in_the_middle(length: int) -> None:
    x = np.linspace(0.5, 1.5, length)
    x[length // 2 : length // 2 + 1] = 0.0
    check_gradients(mg.cumprod, x)


# --------------------------------------------------------------------------------------
# Powers of zero
# --------------------------------------------------------------------------------------


@ORDERS
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_derivative_of_a_power_of_zero_by_its_exponent_is_zero(
    exponent: float, create_graph: bool
) -> None:
    (gradient,) = gradients(lambda b: mg.power(0.0, b), [exponent], create_graph=create_graph)
    assert gradient == [0.0]
    (gradient,) = gradients(lambda b: mg.power([0.0], b), [exponent])
    assert gradient == [0.0]


def test_other_bases_are_not_touched_by_that() -> None:
    base, exponent = [0.0, 2.0], [3.0, 3.0]
    (gradient,) = gradients(lambda b: mg.power(base, b), exponent)
    np.testing.assert_allclose(gradient, [0.0, 8.0 * np.log(2.0)], rtol=1e-15)


@ORDERS
@pytest.mark.parametrize(
    ("exponent", "slope"), [(0, 0.0), (0.0, 0.0), (1, 1.0), (2, 0.0), (3.0, 0.0)]
)
def test_a_power_has_its_slope_at_zero(exponent: float, slope: float, create_graph: bool) -> None:
    (gradient,) = gradients(lambda x: x**exponent, [0.0], create_graph=create_graph)
    assert gradient == [slope]


@pytest.mark.parametrize(("exponent", "expected"), [(1, 0.0), (2, 2.0), (3, 0.0)])
def test_a_power_has_its_curvature_at_zero(exponent: int, expected: float) -> None:
    assert second(lambda x: x**exponent, 0.0) == expected


@pytest.mark.parametrize("exponent", [2, 3, 3.0])
def test_negative_bases_have_integer_powers(exponent: float) -> None:
    (gradient,) = gradients(lambda x: x**exponent, [-2.0])
    assert gradient == [exponent * (-2.0) ** (exponent - 1)]


# --------------------------------------------------------------------------------------
# Choices
# --------------------------------------------------------------------------------------


def test_where_passes_the_gradient_to_the_chosen_side_alone() -> None:
    """The other side may be infinite: its gradient is zero, and not NaN."""
    x = [0.0, 4.0]
    (gradient,) = gradients(lambda t: mg.where(t > 0, mg.sqrt(mg.where(t > 0, t, 1.0)), 0.0), x)
    assert gradient == [0.0, 0.25]


def test_argmax_names_the_first_of_those_that_tie() -> None:
    assert mg.argmax(mg.tensor([1.0, 3.0, 3.0])).item() == 1


def test_sign_of_zero_is_zero() -> None:
    assert mg.sign(mg.tensor([0.0, -0.0])).tolist() == [0.0, 0.0]
