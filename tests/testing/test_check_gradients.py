"""check_gradients: what it accepts, what it finds, and what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer import on_device

import minigrad as mg
from minigrad import nn
from minigrad.arrays import is_array, namespace
from minigrad.testing import GradientError, KinkError, check_gradients, compare_gradients
from minigrad.testing.differences import Method, differentiate

METHODS: tuple[Method, ...] = get_args(Method)
X = np.random.default_rng(0).normal(size=(2, 3))


def message(f: Callable[..., Any], *inputs: Any, **settings: Any) -> str:
    with pytest.raises(GradientError) as raised:
        check_gradients(f, *inputs, **settings)
    return str(raised.value)


@mg.primitive
def wrong_matmul(a: Any, b: Any, /) -> Any:
    return a @ b


wrong_matmul.rules(a=lambda g, b: g @ b.T, b=lambda g, a: -(a.T @ g))


# --------------------------------------------------------------------------------------
# Differences
# --------------------------------------------------------------------------------------

SMOOTH: dict[str, tuple[Callable[[Any], Any], float]] = {
    "constant": (lambda t: 3.0 + 0.0 * t, 0.0),
    "line": (lambda t: 1e6 + t, 1.0),
    "parabola": (lambda t: (1.0 + t) ** 2, 2.0),
    "exponential": (np.exp, 1.0),
    "fast wave": (lambda t: np.sin(1000.0 * t + 1.0), 1000.0 * np.cos(1.0)),
    "near a pole": (lambda t: np.log(1e-3 + t), 1000.0),
    "large": (lambda t: 1e200 * np.exp(t), 1e200),
    "small": (lambda t: 1e-200 * np.exp(t), 1e-200),
    "a kink close by": (lambda t: np.where(np.real(t) > -1e-4, 2.0 * t, 0.0), 2.0),
    "a kink of second order": (lambda t: np.where(np.real(t) > 0.0, t * t, -t * t), 0.0),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("careful", [False, True], ids=["first look", "second look"])
@pytest.mark.parametrize("method", METHODS)
def test_the_error_of_differences_is_bounded(name: str, careful: bool, method: Method) -> None:
    function, exact = SMOOTH[name]
    with np.errstate(all="ignore"):
        found = differentiate(lambda t: np.array([function(t)]), method, careful=careful)
    assert not found.trouble
    assert abs(found.value[0] - exact) <= found.error[0]
    assert found.error[0] <= 1e-6 * max(abs(exact), abs(function(0.0)), 1e-3)


@pytest.mark.parametrize("name", ["exponential", "large", "fast wave"])
def test_five_points_and_complex_steps_are_more_exact(name: str) -> None:
    function, _ = SMOOTH[name]
    errors = [
        differentiate(lambda t: np.array([function(t)]), method).error[0] for method in METHODS
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "function",
    [
        abs,
        lambda t: max(t, 0.0),
        lambda t: np.floor(t),
        lambda t: np.sqrt(t),
        lambda t: abs(t) ** 0.5,
    ],
    ids=["kink", "half kink", "jump", "edge", "cusp"],
)
@pytest.mark.parametrize("careful", [False, True], ids=["first look", "second look"])
def test_what_has_no_derivative_is_noticed(function: Any, careful: bool) -> None:
    with np.errstate(all="ignore"):
        found = differentiate(lambda t: np.array([function(t)]), careful=careful)
    assert found.trouble


def test_values_of_float32_are_noticed() -> None:
    found = differentiate(
        lambda t: np.array([np.float32(np.sin(1.0 + t))], dtype=np.float64), careful=True
    )
    assert found.digits is not None
    assert 6.0 < found.digits < 9.0


def test_the_error_bounds_the_rounding_of_values_whatever_they_are_rounded_to() -> None:
    known = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        unit, offset = 2.0 ** rng.integers(-53, -33), rng.uniform(0.5, 1.0)
        slope = 10.0 ** rng.uniform(-8.0, 1.0)

        def rounded(t: float, unit: Any = unit, c: float = offset, s: float = slope) -> Any:
            return np.array([np.round((c + s * np.expm1(t)) / unit) * unit])

        found = differentiate(rounded, careful=True)
        if not found.trouble and found.digits is None:
            known += 1
            assert abs(found.value[0] - slope) <= found.error[0]
    assert known > 270


# --------------------------------------------------------------------------------------
# What is accepted
# --------------------------------------------------------------------------------------


def test_nested_inputs_and_outputs() -> None:
    def f(tree: dict[str, Any], pair: tuple[Any, Any], number: float) -> Any:
        return {"y": tree["w"] @ pair[0], "more": [mg.tanh(pair[1]), (pair[1] * number,)]}

    check_gradients(f, {"w": X, "n": 3}, (mg.tensor(X[0]), [X][0]), 0.5)


def test_integers_and_other_objects_are_constants() -> None:
    def f(x: Any, rows: Any, flag: Any, name: str, nothing: None) -> Any:
        assert is_array(rows)
        assert (flag, name, nothing) == (True, "sin", None)
        return getattr(mg, name)(x[rows])

    check_gradients(f, X, np.array([0, 1, 0]), True, "sin", None)


@pytest.mark.host  # it has a device of its own
def test_inputs_on_a_device_are_checked_there(cuda: None) -> None:
    x, rows = mg.tensor(X), mg.tensor([0, 1, 0])
    seen = set()

    def f(x: Any, rows: Any, number: Any) -> Any:
        seen.update([x.device, rows.device, number.device])
        return mg.tanh(x[rows]) * number

    with mg.device("cpu"):
        check_gradients(f, x, rows, 0.5)
    assert seen == {"cuda:0"}


def test_a_function_that_calls_numpy_through_the_protocols() -> None:
    check_gradients(lambda x, y: np.tanh(np.concatenate([x, y])).sum(axis=0) ** 2, X, X + 1.0)


def test_outputs_of_integers_are_passed_over() -> None:
    check_gradients(lambda x: (mg.argmax(x), mg.tanh(x)), X)


def test_an_output_may_be_an_input_or_a_constant() -> None:
    check_gradients(lambda x: [x, mg.tensor(1.0), mg.sign(x)], X)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,), (1, 1)])
def test_shapes_at_the_edge(shape: tuple[int, ...]) -> None:
    check_gradients(lambda x: mg.tanh(x) * 2.0, np.full(shape, 0.5))
    check_gradients(lambda x: mg.tanh(x) * 2.0, np.full(shape, 0.5), jacobian=True)


def test_inputs_keep_their_memory_order() -> None:
    orders = []

    def f(x: Any) -> Any:
        orders.append(x.array.flags.f_contiguous)
        return mg.tanh(x)

    check_gradients(f, np.asfortranarray(X))
    assert all(orders)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("modes", [("vjp",), ("jvp",), ("vjp", "jvp")])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_all_settings_agree_that_a_gradient_is_right(
    method: Method, jacobian: bool, modes: Any, order: int
) -> None:
    check_gradients(
        lambda a, b: mg.sin(a @ b),
        X,
        X.T,
        method=method,
        jacobian=jacobian,
        modes=modes,
        order=order,
    )


@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_all_settings_find_a_wrong_one(mode: Any, jacobian: bool) -> None:
    for method in METHODS:
        text = message(wrong_matmul, X, X.T, method=method, jacobian=jacobian, modes=[mode])
        assert "with respect to inputs[1], (3, 2) float64, is wrong" in text


def test_parameters_of_a_module_are_inputs_and_keep_their_values() -> None:
    layer = nn.Linear(3, 2, rng=0)
    before = [(parameter.array, parameter.slot) for parameter in layer.parameters()]
    check_gradients(layer, X, parameters=layer)
    check_gradients(layer, X.astype("float32"), parameters=list(layer.parameters()))
    assert before == [(p.array, p.slot) for p in layer.parameters()]


def test_a_mistake_in_a_parameter_is_named() -> None:
    layer = nn.Linear(3, 2, rng=0)
    bias = layer.bias
    assert bias is not None
    text = message(lambda x: layer(x) + bias.detach(), X, parameters=layer)
    assert "with respect to parameters['bias'], (2,) float32, is wrong" in text
    assert "every entry is 0.5 times what it should be" in text


def test_it_works_while_a_tape_is_recording_and_leaves_that_alone() -> None:
    with mg.Tape() as tape:
        check_gradients(mg.tanh, X)
        assert len(tape) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gradients_in_small_dtypes(dtype: str) -> None:
    check_gradients(lambda a, b: mg.tanh(a @ b), X.astype(dtype), X.T.astype(dtype))


def test_a_gradient_wrong_in_float32_alone_is_found() -> None:
    @mg.primitive
    def sine(x: Any, /) -> Any:
        return namespace(x).sin(x)

    sine.rules(x=lambda g, x: g * mg.cos(x) * (1.01 if x.dtype == "float32" else 1.0))
    check_gradients(sine, X)
    assert "the inputs are of float32" in message(sine, X.astype("float32"))


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e6, 1e30]))
def test_scales_do_not_matter(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 2.0, 3) * scale
    check_gradients(lambda x: mg.log(x) * 3.0, x, seed=seed)
    check_gradients(lambda x: mg.sqrt(x) * x, x, seed=seed, order=1)
    with pytest.raises(GradientError):
        check_gradients(lambda x: mg.log(x) * 3.0 + mg.log(x.detach()) * 1e-3, x, seed=seed)


def test_a_saturated_function_is_smooth() -> None:
    x = np.array([0.7, 1.3, -0.4])
    check_gradients(lambda x: mg.tanh(30.0 * x), x)
    check_gradients(lambda x: mg.softmax(200.0 * x), x)
    check_gradients(lambda x: mg.log(1.0 + mg.exp(x)), np.array([-30.0, -20.0, -36.0]))


def test_values_that_are_steps_by_rounding_make_no_gradient_wrong() -> None:
    x = np.array([20.0, 25.0, 30.0, 35.0])
    check_gradients(lambda x: 1.0 - mg.sigmoid(x), x)
    with pytest.raises(KinkError, match="its values are too rough"):
        check_gradients(lambda x: (1e-12 * x + 1e3) - 1e3, x)


LINKS: list[Callable[[Any], Any]] = [
    mg.tanh,
    mg.softmax,
    mg.sigmoid,
    lambda y: mg.exp(mg.tanh(y)),
    lambda y: mg.sin(5.0 * y),
    lambda y: y / (1.0 + mg.sum(y * y)),
    lambda y: y * mg.sum(y),
    lambda y: mg.log(y * y + 0.1),
    lambda y: mg.cumsum(y) - mg.mean(y),
    lambda y: (y + 100.0) - 100.0,
]


@pytest.mark.parametrize("seed", range(40))
def test_a_mistake_of_a_millionth_in_one_element_is_found_at_any_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, low = 10.0 ** rng.uniform(-6.0, 6.0), 10.0 ** rng.uniform(-8.0, 8.0)
    chain = [LINKS[i] for i in rng.integers(len(LINKS), size=2)]
    weight = mg.tensor(rng.normal(size=(4, 4)))
    x = size * rng.uniform(0.5, 1.5, 4)

    def f(x: Any) -> Any:
        y = weight @ (x / size)
        for link in chain:
            y = link(y)
        return low * y

    check_gradients(f, x, seed=seed)
    for error in (1e-2, 1e-4, 1e-6):
        factor = on_device(np.array([1.0, 1.0, 1.0 + error, 1.0]))
        with pytest.raises(GradientError, match="order 1"):
            check_gradients(lambda x, m=factor: f(mg.map_gradient(x, lambda g: g * m)), x)
    for error in (1e-2, 1e-4, 1e-5):  # of J, while what is compared is J', which is larger
        bent = on_device(np.array([0.0, 0.0, error, 0.0]))
        with pytest.raises(GradientError, match="order 2"):
            check_gradients(lambda x, m=bent: f(slightly_bent(x, size, m)), x)


@mg.primitive
def slightly_bent(x: Any, /, size: float, error: Any) -> Any:
    """x, with a gradient that is right and whose derivative is not."""
    return x


slightly_bent.rules(x=lambda g, x, size, error: g * (1.0 + error * (x - mg.detach(x)) / size))


@mg.primitive
def wrong_square(x: Any, /) -> Any:
    return x * x


wrong_square.rules(x=lambda g, x: g * on_device(np.array([2.0, 2.0, 3.0])) * x)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_the_worst_entry_is_right_for_inputs_of_any_size(scale: float, mode: Any) -> None:
    text = message(wrong_square, np.array([1.0, 2.0, 0.5]) * scale, modes=[mode])
    assert "worst entry: d output[2] / d inputs[0][2]" in text
    entry = text[text.index("worst entry") :]
    numbers = re.findall(r"by (?:the gradient|differences) +(\S+)", entry)
    np.testing.assert_allclose(np.array(numbers, "float64"), [1.5 * scale, scale], rtol=1e-7)


def test_a_small_output_counts_beside_a_large_one() -> None:
    text = message(lambda x: (1e10 * mg.tanh(x), 1e-2 * wrong_square(x)), X[0])
    assert "worst entry: d output[1][2] / d inputs[0][2]" in text
    assert "every entry" not in text


@pytest.mark.parametrize("ratio", [1.0, 1e6, 1e12, 1e18])
def test_the_second_order_is_checked_for_inputs_of_different_sizes(ratio: float) -> None:
    def f(x: Any, y: Any) -> Any:
        return mg.sum(slightly_bent(mg.tanh(x / ratio), 1.0, 1e-3) * y)

    text = message(f, X[0] * ratio, X[1])
    assert "order 2" in text
    assert "d (the gradient for inputs[0])[" in text
    check_gradients(f, X[0] * ratio, X[1], order=1)


# --------------------------------------------------------------------------------------
# Kinks
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinks", ["reject", "raise"])
@pytest.mark.parametrize("f", [mg.relu, mg.abs, mg.floor, mg.sign], ids=lambda f: f.__name__)
def test_a_kink_raises_outside_of_hypothesis(f: Any, kinks: Any) -> None:
    with pytest.raises(KinkError, match=r"no derivative at this sample.*output\[1\].*inputs\[0\]"):
        check_gradients(f, np.array([1.5, 0.0, 2.5]), kinks=kinks)


def test_hypothesis_draws_another_example_at_a_kink() -> None:
    seen = []

    @given(x=st.sampled_from([0.0, 1.0]))
    def check(x: float) -> None:
        check_gradients(mg.relu, x)
        seen.append(x)

    check()
    assert set(seen) == {1.0}


def test_a_kink_can_be_made_to_raise_under_hypothesis() -> None:
    @given(x=st.just(0.0))
    def check(x: float) -> None:
        check_gradients(mg.relu, x, kinks="raise")

    with pytest.raises(KinkError):
        check()


def test_a_kink_beside_the_sample_does_no_harm() -> None:
    check_gradients(mg.relu, np.array([1e-4, -1e-4, 1.0]))
    assert "is wrong" in message(lambda x: mg.relu(x) + mg.relu(x).detach(), np.array([1e-4, 1.0]))


# --------------------------------------------------------------------------------------
# What is found besides
# --------------------------------------------------------------------------------------


def test_values_that_are_not_finite() -> None:
    assert "is -inf at output[1]" in message(mg.log, np.array([1.0, 0.0]))


def test_a_random_function() -> None:
    rng = np.random.default_rng(0)
    assert "two values for the same inputs" in message(lambda x: x * rng.normal(), X)


def test_a_function_that_writes_to_its_input() -> None:
    def f(x: Any) -> Any:
        x.array[0] = 0.0
        return mg.tanh(x)

    assert "f wrote to inputs[0]" in message(f, X.copy())


def test_a_function_that_loses_digits() -> None:
    text = message(lambda x: mg.tanh(x.astype("float32")).astype("float64"), X)
    assert re.search(r"have about [78] digits", text)


@pytest.mark.parametrize("order", [1, 2])
def test_a_missing_path_is_named(order: int) -> None:
    @mg.primitive
    def sine(x: Any, /) -> Any:
        return namespace(x).sin(x)

    sine.rules(x=lambda g, x: g * mg.cos(x.array if isinstance(x, mg.Tensor) else x))
    if order == 1:
        text = message(lambda x: mg.asarray(np.sin(x.numpy())), X)
        assert "the tape finds no path from inputs[0] to the outputs" in text
    else:
        check_gradients(sine, X, order=1, modes=["vjp"])
        text = message(sine, X, modes=["vjp"])
        assert "the tape finds no path from inputs[0] to the gradient" in text


def test_an_input_that_is_not_used_is_right_to_have_no_gradient() -> None:
    check_gradients(lambda x, y: mg.tanh(x) + 0.0 * y, X, X)
    check_gradients(lambda x, y: mg.tanh(x), X, X)


def test_a_rule_of_the_wrong_shape_is_named() -> None:
    @mg.primitive
    def total(x: Any, /) -> Any:
        return x.sum()

    total.rules(x=lambda g, x: g * x[0])
    assert "the rule of total for x returned a gradient of shape (3,)" in message(total, X)


def test_a_rule_that_is_not_linear_in_its_gradient() -> None:
    @mg.primitive
    def double(x: Any, /) -> Any:
        return 2.0 * x

    double.rules(x=lambda g: 2.0 * g * g)
    assert "every entry by itself is right: a rule is not linear" in message(double, X)


def test_a_mistake_of_the_ninth_digit_is_not_called_nonlinear() -> None:
    text = message(
        lambda x: mg.map_gradient(mg.sin(x), lambda g: g * (1.0 + 1e-9)), X, method="complex"
    )
    assert "not linear" not in text


def test_a_gradient_that_is_not_finite() -> None:
    text = message(lambda x: mg.where(x > 0.0, mg.sqrt(x), 0.0), np.array([-1.0, 2.0]))
    assert "the values are finite, and the gradient is not" in text
    x = np.random.default_rng(0).uniform(0.5, 2.0, 60)
    x[41] *= -1.0
    text = message(lambda x: mg.where(x > 0.0, mg.sqrt(x), 0.0), x)
    assert "/ d inputs[0][41]\n    by the gradient   nan" in text
    text = message(lambda x, y: mg.tanh(x) + mg.where(y > 0.0, mg.sqrt(y), 0.0), x, -x)
    assert "with respect to inputs[1], (60,) float64, is wrong" in text


# --------------------------------------------------------------------------------------
# What a failure says
# --------------------------------------------------------------------------------------


def test_the_report_of_a_wrong_gradient() -> None:
    text = message(wrong_matmul, X, X.T)
    assert text.startswith("the gradient of wrong_matmul with respect to inputs[1], (3, 2) float64")
    assert "order 1, vjp" in text
    assert "every entry is -1 times what it should be" in text
    assert text.count("by the gradient") == text.count("by differences") == 2
    steps = re.findall(r"^  \d\.\de-\d\d  .* 2$", text, flags=re.MULTILINE)
    assert len(steps) >= 2
    assert "direction:  [[" in text


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
@pytest.mark.parametrize("size", [4, 60])
def test_the_worst_entry_is_found(size: int, mode: Any) -> None:
    @mg.primitive
    def scaled(x: Any, /) -> Any:
        return 2.0 * x

    factor = np.full((2, size), 2.0)
    factor[1, 2] = 3.0
    scaled.rules(x=lambda g: g * on_device(factor))
    x = np.random.default_rng(0).normal(size=(2, size))
    text = message(lambda t: scaled(t["x"]), {"x": x}, modes=[mode])
    assert "worst entry: d output[1, 2] / d inputs[0]['x'][1, 2]" in text
    assert re.search(r"by the gradient   3\n    by differences    2", text)


def test_the_second_order_is_named() -> None:
    text = message(lambda x: mg.sin(x) + mg.cos(mg.detach(x)) * 0.0 + bent(x), X)
    assert "the gradient of the gradient of <lambda> with respect to inputs[0]" in text
    assert "order 2, vjp" in text
    assert "d (the gradient for inputs[0])[" in text


@mg.primitive
def bent(x: Any, /) -> Any:
    return x * x


bent.rules(x=lambda g, x: 2.0 * g * mg.detach(x))


def test_the_same_seed_gives_the_same_report() -> None:
    first, again, other = (message(wrong_matmul, X, X.T, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


# --------------------------------------------------------------------------------------
# Gradients from elsewhere
# --------------------------------------------------------------------------------------


def test_given_gradients_are_compared() -> None:
    weight = mg.tensor(X[0], requires_grad=True)
    for dtype in ("float32", "float64"):
        x = X.astype(dtype)
        compare_gradients(
            lambda x: (x @ weight).sum(),
            x,
            gradients=[x * 0 + X[0].astype(dtype), x.sum(axis=0).astype("float64")],
            parameters=[weight],
        )
    with pytest.raises(GradientError, match=r"parameters\[0\]"):
        compare_gradients(
            lambda x: (x @ weight).sum(),
            X,
            gradients=[X * 0 + X[0], X.mean(axis=0)],
            parameters=[weight],
        )


def test_given_gradients_must_fit() -> None:
    with pytest.raises(ValueError, match="1 gradients were given for 2 inputs"):
        compare_gradients(lambda x, y: (x * y).sum(), X, X, gradients=[X])
    with pytest.raises(GradientError, match=r"for inputs\[0\] is \(3,\) float64"):
        compare_gradients(lambda x: x.sum(), X, gradients=[X[0]])
    with pytest.raises(ValueError, match="is to return one number, not 6"):
        compare_gradients(lambda x: x, X, gradients=[X])


# --------------------------------------------------------------------------------------
# Refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"order": 0}, "order is 1 or more, not 0"),
        ({"modes": ["hvp"]}, "a mode is one of 'vjp', 'jvp', not 'hvp'"),
        ({"modes": []}, "modes is empty"),
        ({"method": "forward"}, "method is one of 'central', 'five-point', 'complex'"),
        ({"kinks": "ignore"}, "kinks is one of 'reject', 'raise', not 'ignore'"),
    ],
)
def test_settings_that_do_not_exist(settings: Any, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        check_gradients(mg.tanh, X, **settings)


def test_complex_steps_need_an_analytic_function() -> None:
    with pytest.raises(ValueError, match="needs a function that is analytic"):
        check_gradients(lambda x: mg.abs(x), X, method="complex")


def test_the_function_comes_first() -> None:
    told = r"the first argument is the function that is checked, and not \(2, 3\) float64"
    with pytest.raises(TypeError, match=told):
        check_gradients(X, mg.tanh)  # type: ignore[arg-type]


def test_there_must_be_something_to_differentiate() -> None:
    with pytest.raises(TypeError, match="was given no floats"):
        check_gradients(lambda n: mg.tensor(1.0), 3)
    with pytest.raises(TypeError, match="returns no Tensor of floats"):
        check_gradients(lambda x: mg.argmax(x), X)
    with pytest.raises(TypeError, match="returned output as ndarray, where a Tensor is needed"):
        check_gradients(lambda x: x.numpy(), X)
    with pytest.raises(TypeError, match=r"parameters\[0\] is .* and not a Parameter"):
        check_gradients(mg.tanh, X, parameters=[mg.tensor(1.0)])


def test_it_needs_numpy_alone() -> None:
    code = (
        "import sys, numpy as np, minigrad as mg\n"
        "mg.testing.check_gradients(mg.tanh, np.ones(2))\n"
        "assert not {'hypothesis', 'pytest', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
