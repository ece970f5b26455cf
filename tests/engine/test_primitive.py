"""Operations that a user defines: settings, several results, any number of operands, misuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from transfer import ARRAY, on_device

import minigrad as mg
from minigrad.arrays import namespace
from minigrad.testing import check_gradients


def operation(forward: Callable[..., Any], **rules: Callable[..., Any]) -> Any:
    """A primitive with its rules."""
    made: Any = mg.primitive(forward)
    made.rules(**rules)
    return made


def _scaled_sine(x: Any, /, rate: Any, offset: Any = 0.0) -> Any:
    return namespace(x).sin(rate * x + offset)


def _scaled_cosine(x: Any, /, rate: Any, offset: Any = 0.0) -> Any:
    return namespace(x).cos(rate * x + offset)


scaled_sine: Any = operation(
    _scaled_sine, x=lambda g, x, rate, offset: g * rate * scaled_cosine(x, rate, offset)
)
scaled_cosine: Any = operation(
    _scaled_cosine, x=lambda g, x, rate, offset: -g * rate * scaled_sine(x, rate, offset)
)


def _polar(x: Any, y: Any, /) -> Any:
    return namespace(x).hypot(x, y), namespace(x).arctan2(y, x)


polar = operation(
    _polar,
    x=lambda g, x, y, out: (g[0] * x - g[1] * y / out[0]) / out[0],
    y=lambda g, x, y, out: (g[0] * y + g[1] * x / out[0]) / out[0],
)


def _product(*factors: Any) -> Any:
    return math.prod(factors)


product = operation(_product, factors=lambda g, factors, position, out: g * out / factors[position])


def _spread_sum(x: Any, /, times: int = 2) -> Any:
    return times * x.sum()


spread_sum = operation(
    _spread_sum, x=lambda g, operand_shape, times: mg.broadcast_to(g * times, operand_shape)
)


class Pair(NamedTuple):
    double: Any
    triple: Any


POINT = np.array([0.3, -0.7, 1.1])


def gradient_of(call: Callable[..., mg.Tensor], **options: Any) -> Any:
    """The gradient at a float32 point of the sum of what ``call`` returns."""
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    with mg.Tape() as tape:
        return tape.gradient(mg.sum(call(x)), x, **options)


# --------------------------------------------------------------------------------------
# What can be defined
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda x: scaled_sine(x, 2.0),
        lambda x: scaled_sine(x, rate=2.0, offset=0.5),
        lambda x: scaled_sine(x, 2.0, offset=0.5),
        lambda x: scaled_sine(x, 2.0, 0.5),
    ],
    ids=["default", "named", "mixed", "in order"],
)
def test_settings_reach_forward_and_rule(call: Callable[..., mg.Tensor]) -> None:
    check_gradients(call, POINT)


def test_settings_are_shown_to_the_tape_with_their_defaults() -> None:
    with mg.Tape() as tape:
        scaled_sine(mg.tensor(POINT, requires_grad=True), 2.0)
    (entry,) = tape
    assert entry.settings == {"rate": 2.0, "offset": 0.0}
    assert entry.operation is scaled_sine.primitive


def test_each_of_several_results_has_its_gradient() -> None:
    def spiral(x: Any, y: Any) -> mg.Tensor:
        radius, angle = polar(x, y)
        return radius * radius * angle

    check_gradients(spiral, np.abs(POINT), POINT + 0.1)


@pytest.mark.parametrize("used", [0, 1])
def test_one_of_several_results_can_be_used_alone(used: int) -> None:
    check_gradients(lambda x, y: polar(x, y)[used] ** 2, np.abs(POINT), POINT + 0.1)


def test_several_results_on_arrays_are_arrays() -> None:
    radius, angle = polar(*on_device([np.array([3.0]), np.array([4.0])]))
    assert (type(radius), type(angle)) == (ARRAY, ARRAY)
    assert radius.tolist() == [5.0]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_operands_is_differentiated(count: int) -> None:
    check_gradients(product, *[POINT + i for i in range(1, 1 + count)])


def test_operands_of_any_number_broadcast_and_repeat() -> None:
    check_gradients(lambda x, y: product(x, y, x, 2.0), POINT[:, None], POINT[:2])


def test_a_rule_can_name_the_shape_of_its_operand() -> None:
    check_gradients(lambda x: spread_sum(x, times=3) ** 2, POINT.reshape(3, 1))


def test_only_what_a_rule_names_is_saved() -> None:
    x = mg.tensor(POINT, requires_grad=True)
    with mg.Tape() as tape:
        y = spread_sum(x)
        assert tape.nbytes == 0
        scaled_sine(x, 1.0)
        assert tape.nbytes == x.nbytes
    assert tape.gradient(y, x).tolist() == [2.0, 2.0, 2.0]


def test_what_only_the_rule_of_a_constant_names_is_not_saved() -> None:
    x, y = mg.tensor(POINT, requires_grad=True), mg.tensor(POINT + 1.0)
    weighted = operation(lambda a, b, /: a * b, a=lambda g, b: g * b, b=lambda g, a: g * a)
    with mg.Tape() as tape:
        weighted(x, y)
    ((saved,),) = [entry.saved for entry in tape]
    assert saved is y.array


def test_a_result_without_dimensions_is_an_array() -> None:
    assert type(spread_sum(mg.tensor(POINT)).array) is ARRAY


def test_a_result_of_integers_is_a_constant_beside_one_of_floats() -> None:
    top = operation(
        lambda x, /: (x.max(), x.argmax()),
        x=lambda g, x, out: mg.where(x == out[0], g[0], 0.0),
    )
    x = mg.tensor(POINT, requires_grad=True)
    for create_graph in (False, True):
        with mg.Tape() as tape:
            value, place = top(x)
            assert not place.requires_grad
            gradient = tape.gradient(value * place, x, create_graph=create_graph)
        assert gradient.tolist() == [0.0, 0.0, 2.0]


def test_a_named_tuple_of_results_is_several_results() -> None:
    """NumPy's decompositions return such."""
    both = operation(lambda x, /: Pair(2.0 * x, 3.0 * x), x=lambda g: 2.0 * g[0] + 3.0 * g[1])
    assert gradient_of(lambda x: both(x)[1]).tolist() == [3.0, 3.0]


def test_the_name_and_description_are_those_of_the_forward() -> None:
    def tilted(x: Any, /) -> Any:
        """x on a slope."""
        return x

    made: Any = mg.primitive(tilted)
    assert (made.__name__, made.__doc__, made.primitive.name) == (
        "tilted",
        "x on a slope.",
        "tilted",
    )


def test_rules_can_be_given_one_after_another_and_replaced() -> None:
    scaled: Any = mg.primitive(lambda a, b, /: a * b)
    scaled.rules(a=lambda g, b: g * b)
    assert gradient_of(lambda x: scaled(x, 3.0)).tolist() == [3.0, 3.0]
    scaled.rules(b=lambda g, a: g * a)
    assert gradient_of(lambda x: scaled(x, x)).tolist() == [2.0, 4.0]
    scaled.rules(a=lambda g: -g)
    assert gradient_of(lambda x: scaled(x, 3.0)).tolist() == [-1.0, -1.0]


# --------------------------------------------------------------------------------------
# What cannot be defined
# --------------------------------------------------------------------------------------


def named(out: Any, /) -> Any:
    return out


def named_any(*position: Any) -> Any:
    return position[0]


def named_setting(x: Any, /, operand_shape: Any = None) -> Any:
    return x


@pytest.mark.parametrize(
    ("define", "fragments"),
    [
        (lambda: mg.primitive(lambda x: x), ["no operands", "slash"]),
        (lambda: mg.primitive(lambda: 1.0), ["no operands", "slash"]),
        (lambda: mg.primitive(named), ["named", "out", "rename"]),
        (lambda: mg.primitive(named_any), ["named_any", "position", "rename"]),
        (lambda: mg.primitive(named_setting), ["named_setting", "operand_shape", "rename"]),
        (lambda: operation(_product, x=lambda g: g), ["product", "'x'", "factors"]),
        (lambda: operation(_polar, z=lambda g: g), ["polar", "'z'", "'x'", "'y'"]),
        (lambda: operation(_scaled_sine, rate=lambda g: g), ["scaled_sine", "'rate'"]),
        (
            lambda: operation(_polar, x=lambda g, z, w: g),
            ["polar", "for x", "z, w", "operand_shape, out, position, x, y"],
        ),
        (lambda: operation(_polar, x=lambda: 1.0), ["polar", "for x"]),
    ],
    ids=[
        "no slash",
        "no parameters",
        "operand out",
        "operands position",
        "setting operand_shape",
        "rule of no operand",
        "rule of another operand",
        "rule of a setting",
        "rule of unknown names",
        "rule without g",
    ],
)
def test_a_wrong_definition_is_refused(define: Callable[[], Any], fragments: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        define()
    for fragment in fragments:
        assert fragment in str(caught.value)


# --------------------------------------------------------------------------------------
# What goes wrong later
# --------------------------------------------------------------------------------------


def _halved(x: Any, /) -> Any:
    return x / 2


def _raise(g: Any, x: Any) -> Any:
    raise ZeroDivisionError("no such luck")


RULES = [
    pytest.param(lambda g: mg.sum(g), ["returned", "shape ()", "(2,)"], id="too few axes"),
    pytest.param(lambda g: mg.stack([g, g, g], axis=1), ["(2, 3)", "(2,)"], id="wrong length"),
    pytest.param(lambda g: mg.expand_dims(g, 1), ["(2, 1)", "(2,)"], id="axis added at the end"),
    pytest.param(_raise, ["ZeroDivisionError", "no such luck"], id="raises"),
    pytest.param(lambda g: 0.5, ["returned", "float"], id="float"),
    pytest.param(lambda g: None, ["returned", "None"], id="None"),
    pytest.param(lambda g: [g], ["returned", "list"], id="list"),
    pytest.param(lambda g: mg.astype(g, "int64"), ["int64", "float32"], id="integers"),
    pytest.param(lambda g: g > 0, ["bool", "float32"], id="booleans"),
]


@pytest.mark.parametrize("create_graph", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize(("rule", "fragments"), RULES)
def test_a_failing_rule_is_named_with_the_line_that_recorded_it(
    rule: Callable[..., Any], fragments: list[str], create_graph: bool
) -> None:
    halved = operation(_halved, x=rule)
    with pytest.raises(mg.TapeError) as caught:
        gradient_of(halved, create_graph=create_graph)
    message = str(caught.value)
    for fragment in ["halved", "for x", "test_primitive.py:", *fragments]:
        assert fragment in message, f"{fragment!r} is missing from: {message}"
    assert "\n" not in message


def test_a_rule_that_raises_is_the_cause_of_the_error() -> None:
    halved = operation(_halved, x=_raise)
    with pytest.raises(mg.TapeError) as caught:
        gradient_of(halved)
    assert type(caught.value.__cause__) is ZeroDivisionError


def test_a_float64_gradient_is_cast_to_the_operands_dtype() -> None:
    halved = operation(_halved, x=lambda g: np.float64(0.5) * g)
    for create_graph in (False, True):
        gradient = gradient_of(halved, create_graph=create_graph)
        assert (gradient.dtype, gradient.tolist()) == (np.float32, [0.5, 0.5])


def test_a_broadcast_gradient_is_summed_to_the_operands_shape() -> None:
    tripled = operation(lambda x, /: x * on_device(np.ones((3, 1), x.dtype)), x=lambda g: g)
    for create_graph in (False, True):
        assert gradient_of(tripled, create_graph=create_graph).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "rule",
    [
        lambda g: g * on_device(np.ones((4, 1, 1), g.dtype)),  # an axis too many
        lambda g: g.reshape(2, 1) * g,
        lambda g: mg.broadcast_to(g, (5, 2)),
    ],
)
def test_what_broadcasting_did_not_add_is_not_summed_away(rule: Callable[..., Any]) -> None:
    same = operation(lambda x, /: x * 1.0, x=rule)
    with pytest.raises(mg.TapeError, match=r"returned a gradient of shape .* of shape \(2,\)"):
        gradient_of(same)


def test_a_missing_rule_is_told_when_it_is_needed() -> None:
    halved: Any = mg.primitive(_halved)
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    assert halved(x).tolist() == [0.5, 1.0]
    with mg.Tape(), pytest.raises(mg.TapeError) as caught:
        halved(x)
    for fragment in ("halved", "no gradient rule for x", "detach", "halved.rules"):
        assert fragment in str(caught.value)


def test_a_missing_rule_is_not_needed_for_a_constant() -> None:
    scaled = operation(lambda a, b, /: a * b, a=lambda g, b: g * b)
    assert gradient_of(lambda x: scaled(x, mg.tensor([3.0, 4.0]))).tolist() == [3.0, 4.0]
    with pytest.raises(mg.TapeError, match="no gradient rule for b"):
        gradient_of(lambda x: scaled(3.0, x))


def test_a_forward_that_raises_is_named_with_its_operands_and_settings() -> None:
    x = mg.tensor(POINT, requires_grad=True)
    with mg.Tape(), pytest.raises(ValueError, match=r"scaled_sine\(\(3,\) float64, rate=.*\(2,\)"):
        scaled_sine(x, on_device(np.ones(2)))


@pytest.mark.parametrize(
    ("forward", "given"),
    [
        (lambda x, /: [x, x], "list"),
        (lambda x, /: None, "None"),
        (lambda x, /, scale=2: [x], "list"),
        (lambda x, /: "text", "str"),
        (lambda x, /: float(x.sum()), "float"),
    ],
    ids=["list", "None", "list with a setting", "text", "number"],
)
@pytest.mark.parametrize("recording", [False, True], ids=["no tape", "tape"])
def test_a_forward_that_returns_no_array_is_named(
    forward: Callable[..., Any], given: str, recording: bool
) -> None:
    odd = operation(forward, x=lambda g: g)
    with pytest.raises((TypeError, ValueError), match=f"<lambda>.*{given}"):
        if recording:
            gradient_of(odd)
        else:
            odd(mg.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda x: scaled_sine(x), "rate"),
        (lambda x: scaled_sine(x, 1.0, speed=2.0), "speed"),
        (lambda x: scaled_sine(x, 1.0, 2.0, 3.0), "scaled_sine"),
        (lambda x: scaled_sine(x, 1.0, rate=2.0), "rate"),
        (lambda x: polar(x), "missing"),
    ],
    ids=["missing setting", "unknown setting", "too many", "twice", "missing operand"],
)
def test_a_wrong_call_names_the_operation(call: Callable[[mg.Tensor], Any], fragment: str) -> None:
    with pytest.raises(TypeError) as caught:
        call(mg.tensor(POINT))
    message = str(caught.value)
    assert "scaled_sine" in message or "polar" in message
    assert fragment in message


def test_a_setting_with_a_gradient_is_refused() -> None:
    x, rate = (mg.tensor(2.0, requires_grad=True) for _ in range(2))
    with mg.Tape(), pytest.raises(mg.TapeError, match="scaled_sine: rate is a setting"):
        scaled_sine(x, rate)
    assert scaled_sine(x, rate.detach()).item() == pytest.approx(np.sin(4.0))
