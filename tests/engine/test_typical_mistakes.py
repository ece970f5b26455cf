"""What people get wrong with every framework, and the sentence that each mistake ends in here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transfer import on_device

import minigrad as mg
from minigrad import Tape, TapeError, Tensor


def leaf(value: Any = (1.0, 2.0, 3.0), dtype: str = "float32") -> Tensor:
    return mg.tensor(value, dtype, requires_grad=True)


def gradient_of_a_vector() -> None:
    x = leaf()
    with Tape() as tape:
        y = x * x
    tape.backward(y)


def backward_twice() -> None:
    x = leaf()
    with Tape() as tape:
        y = mg.sum(x * x)
    tape.backward(y)
    tape.backward(y)


def through_a_used_part() -> None:
    x = leaf()
    with Tape() as tape:
        y = x * x
        tape.backward(mg.sum(y))
        tape.backward(mg.sum(y * x))


def writing_into_a_tensor() -> None:
    leaf()[0] = 5.0


def writing_into_an_array_that_a_tape_keeps() -> None:
    factor = on_device(np.ones(3, "float32"))
    x = leaf()
    with mg.debug(), Tape() as tape:
        y = mg.sum(x * factor)
        factor *= 2.0
        tape.backward(y)


def matmul_of_the_wrong_shapes() -> None:
    mg.tensor(np.ones((3, 4))) @ mg.tensor(np.ones((3, 4)))


def add_of_the_wrong_shapes() -> None:
    mg.tensor(np.ones((3, 4))) + mg.tensor(np.ones((2, 5)))


def into_a_numpy_buffer() -> None:
    np.zeros(3)[:] = leaf()


def a_numpy_function_without_rule() -> None:
    np.linalg.svd(leaf([[1.0, 2.0], [3.0, 4.0]]))


def an_integer_leaf() -> None:
    mg.tensor([1, 2, 3], requires_grad=True)


def an_integer_argument() -> None:
    mg.grad(lambda x: x * x)(3)


def a_loss_that_does_not_depend_on_the_source() -> None:
    x, y = leaf(), leaf()
    with Tape() as tape:
        loss = mg.sum(x * x)
    tape.gradient(loss, [x, y])


def an_optimizer_without_gradient() -> None:
    mg.optim.SGD([("encoder.weight", leaf())], lr=0.1).step()


def a_rule_of_the_wrong_shape() -> None:
    @mg.primitive
    def double(x: Any, /) -> Any:
        return 2.0 * x

    double.rules(x=lambda g: 2.0 * g[:2])
    x = leaf()
    with Tape() as tape:
        loss = mg.sum(double(x))
    tape.backward(loss)


def no_tape_at_all() -> None:
    x = leaf()
    mg.sum(x * x).backward()


def the_truth_of_a_vector() -> None:
    if leaf() > 0:
        pass


def the_square_root_of_zero() -> None:
    x = leaf([0.0])
    with np.errstate(all="ignore"), mg.debug(), Tape() as tape:
        tape.backward(mg.sum(mg.sqrt(x) * 0.0))


#: The mistake, the error, and what its sentence says: what was wrong, and what to write.
MISTAKES: dict[Callable[[], None], tuple[type[Exception], tuple[str, ...]]] = {
    gradient_of_a_vector: (ValueError, ("shape (3,)", "mg.sum", "seed")),
    backward_twice: (TapeError, ("consumed", "test_typical_mistakes.py:", "retain=True")),
    through_a_used_part: (TapeError, ("depends on was consumed", "retain=True", "tape.cut()")),
    writing_into_a_tensor: (TypeError, ("never written to", "mg.where")),
    writing_into_an_array_that_a_tape_keeps: (TapeError, ("multiply", "was written to")),
    matmul_of_the_wrong_shapes: (ValueError, ("matmul", "(3, 4)", "4 and 3")),
    add_of_the_wrong_shapes: (ValueError, ("add", "(3, 4)", "(2, 5)")),
    into_a_numpy_buffer: (TypeError, ("silently drop its gradient", "t.numpy()")),
    a_numpy_function_without_rule: (TypeError, ("svd has no gradient rule", "t.numpy()")),
    an_integer_leaf: (TypeError, ("int64", "write 1.0 instead of 1")),
    an_integer_argument: (TypeError, ("only floats have a derivative", "write 1.0")),
    a_loss_that_does_not_depend_on_the_source: (
        TapeError,
        ("does not depend on source[1]", "unconnected='zero'"),
    ),
    an_optimizer_without_gradient: (ValueError, ("encoder.weight", "tape.backward(loss)")),
    a_rule_of_the_wrong_shape: (
        TapeError,
        ("the rule of double for x", "shape (2,)", "shape (3,)", "test_typical_mistakes.py:"),
    ),
    no_tape_at_all: (TapeError, ("nothing was recorded", "with mg.Tape() as tape:")),
    the_truth_of_a_vector: (ValueError, ("ambiguous", "(t > 0).all()")),
    the_square_root_of_zero: (
        FloatingPointError,
        ("the gradient of sqrt for x", "NaN", "test_typical_mistakes.py:"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_typical_mistake_ends_in_a_helpful_sentence(mistake: Callable[[], None]) -> None:
    kind, fragments = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        mistake()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, f"{fragment!r} is not in: {message}"


def test_mixed_dtypes_are_no_mistake_and_every_gradient_keeps_its_own() -> None:
    x, w = leaf([[1.0, 2.0]]), leaf([[3.0], [4.0]], "float64")
    with Tape() as tape:
        loss = mg.sum(x @ w)
    assert [str(g.dtype) for g in tape.gradient(loss, [x, w])] == ["float32", "float64"]
