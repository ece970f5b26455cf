"""Random programs: they run, print as what they run, cover the operations, and find bugs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from transfer import on_device, to_host

import minigrad as mg
from minigrad.testing import check_gradients
from minigrad.testing.strategies import Program, programs
from minigrad.testing.strategies.programs import OPERATIONS

PUBLIC = {*mg.ops.__all__, *(f"linalg.{name}" for name in mg.linalg.__all__)}
USED = sorted({row.operation for row in OPERATIONS})

#: The public operations that programs leave out.
LEFT_OUT = {
    "detach": "its gradient is 0 by definition, which is not the derivative of its value",
    "map_gradient": "its gradient is what a function makes of it, not the derivative",
    "scale_gradient": "its gradient is scaled, and so is not the derivative",
}

FEW = ["tanh", "multiply", "sum", "reshape"]
#: A program of few lines takes milliseconds, and there are many of them.
MORE = 8 * settings().max_examples
MANY = settings(
    max_examples=500, database=None, deadline=None, phases=[Phase.generate, Phase.shrink]
)

x = mg.tensor([1.0, 2.0], dtype="float64", requires_grad=True)


def value(program: Program) -> mg.Tensor:
    result: mg.Tensor = program(*program.inputs)
    return result


def test_every_other_public_operation_is_used() -> None:
    assert {*USED} == PUBLIC - {*LEFT_OUT}


@pytest.mark.parametrize("operation", USED)
def test_forms_use_the_operation_that_they_are_listed_under(operation: str) -> None:
    rows = [row for row in OPERATIONS if row.operation == operation]
    call = "[{index}]" if operation == "getitem" else f"mg.{operation}("
    assert all(call in row.form for row in rows)


@pytest.mark.parametrize("operation", USED)
def test_every_operation_can_be_drawn_alone(operation: str) -> None:
    drawn = programs(operations=[operation], max_lines=1)
    first = settings(max_examples=50, phases=[Phase.generate], database=None)
    assert len(find(drawn, lambda program: True, settings=first).lines) == 1


# --------------------------------------------------------------------------------------
# What a program is
# --------------------------------------------------------------------------------------


def test_it_is_called_with_its_inputs() -> None:
    program = Program((x, x), ("a = mg.multiply(x, y)", "b = mg.sum(a)"))
    assert program(x, 3.0).item() == 9.0
    assert program(x.array, on_device(np.array([0.0, 1.0]))) == 2.0
    with pytest.raises(TypeError, match="this program has 2 inputs, not 1"):
        program(x)


def test_it_prints_as_its_source() -> None:
    program = Program((x, x), ("a = mg.multiply(x, y)",))
    assert repr(program) == (
        'x = mg.tensor([1.0, 2.0], dtype="float64", requires_grad=True)\n'
        'y = mg.tensor([1.0, 2.0], dtype="float64", requires_grad=True)\n'
        "a = mg.multiply(x, y)"
    )


@given(programs())
def test_its_source_makes_the_same_value(program: Program) -> None:
    scope: dict[str, Any] = {"mg": mg}
    exec(repr(program), scope)
    printed = scope[program.lines[-1].partition(" = ")[0]]
    expected = value(program)
    np.testing.assert_array_equal(printed.numpy(), expected.numpy(), strict=True)
    assert all(scope[name].is_leaf for name in re.findall(r"^(\w+) = mg.tensor", repr(program)))


@given(programs(max_lines=3))
def test_it_keeps_its_bounds(program: Program) -> None:
    assert 1 <= len(program.lines) <= 3
    assert all(leaf.is_leaf and leaf.dtype == "float64" for leaf in program.inputs)
    result = value(program)
    assert 1 <= result.size <= 64
    assert np.all(np.abs(result.numpy()) <= 50.0)


@given(programs())
def test_every_line_and_every_input_is_needed(program: Program) -> None:
    names = re.findall(r"^(\w+) = ", repr(program), flags=re.MULTILINE)
    text = "\n".join(program.lines)
    for name in names[:-1]:
        assert len(re.findall(rf"\b{name}\b", text)) > (name not in "xyzuvw")


@given(programs(dtype="float32", operations=["tanh", "matmul", "getitem", "sum"]))
def test_its_dtype_and_operations_can_be_chosen(program: Program) -> None:
    assert all(leaf.dtype == "float32" for leaf in program.inputs)
    assert value(program).dtype == "float32"
    assert {*re.findall(r"mg\.(\w+)\(", "\n".join(program.lines))} <= {"tanh", "matmul", "sum"}


@pytest.mark.parametrize("names", [["tanh", "fft"], ["detach"], []], ids=str)
def test_other_operations_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"programs do not use (fft|detach|no operation);"):
        find(programs(operations=names), lambda program: True)


# --------------------------------------------------------------------------------------
# What they find
# --------------------------------------------------------------------------------------


@settings(max_examples=MORE)
@given(programs())
def test_values_on_tensors_are_those_on_arrays(program: Program) -> None:
    on_arrays = program(*[leaf.array for leaf in program.inputs])
    assert not isinstance(on_arrays, mg.Tensor)
    on_tensors = value(program)
    with mg.Tape():
        recorded = value(program)
        assert recorded.requires_grad
    for result in (on_tensors, recorded):
        np.testing.assert_array_equal(result.numpy(), to_host(on_arrays), strict=True)


@settings(max_examples=MORE)
@given(programs())
def test_gradients_are_those_of_differences(program: Program) -> None:
    check_gradients(program, *program.inputs)


@settings(max_examples=MORE)
@given(programs(max_lines=8))
def test_gradients_on_tensors_are_those_on_arrays(program: Program) -> None:
    with mg.Tape() as tape:
        total = mg.sum(mg.square(value(program)))
        recorded = tape.gradient(total, program.inputs, create_graph=True)
        plain = tape.gradient(total, program.inputs)
    for a, b in zip(recorded, plain, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)


def test_a_part_of_no_axes_is_replaced_where_arrays_are_numbers() -> None:
    """Found by programs: NumPy computes numbers from arrays of no axes, which hold nothing."""
    program = Program((x[0], x[1]), ("a = mg.set_at(mg.sinh(x), (None,), y)", "b = mg.sin(a)"))
    check_gradients(program, 1.0, 2.0)
    assert program(np.array(1.0), np.array(2.0)) == np.sin(2.0)


def test_a_mistake_shrinks_to_the_line_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @mg.primitive
    def multiply(a: Any, b: Any, /) -> Any:
        return a * b

    multiply.rules(a=lambda g, b: g * b, b=lambda g, a: -(g * a))
    monkeypatch.setattr(mg, "multiply", multiply)

    def is_wrong(program: Program) -> bool:
        try:
            check_gradients(program, *program.inputs, order=1)
        except AssertionError:
            return True
        return False

    program = find(programs(operations=FEW), is_wrong, settings=MANY)
    assert program.lines == ("a = mg.multiply(x, x)",)
    assert program.inputs[0].tolist() == 1.0


def test_programs_go_on_with_what_they_have() -> None:
    chain = find(programs(operations=FEW), lambda p: len(p.lines) == 5, settings=MANY)
    assert len(chain.inputs) == 1
    shared = find(programs(operations=FEW), lambda p: "multiply(a, a)" in repr(p), settings=MANY)
    assert shared.lines == ("a = mg.tanh(x)", "b = mg.multiply(a, a)")
