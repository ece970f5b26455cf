"""check_gradients: gradients against differences, to first and second order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, get_args

import numpy

from minigrad.containers import leaves_of
from minigrad.tape import no_grad
from minigrad.tensor import asarray
from minigrad.testing.check import Check, Mode
from minigrad.testing.differences import Method
from minigrad.testing.flattening import Parameters, flattened
from minigrad.testing.report import KinkError

Kinks = Literal["reject", "raise"]

MODES: Final = ("vjp", "jvp")


def check_gradients(
    f: Callable[..., Any],
    *inputs: Any,
    parameters: Parameters = None,
    order: int = 2,
    modes: Sequence[Mode] = MODES,
    seed: int = 0,
    method: Method = "central",
    jacobian: bool = False,
    kinks: Kinks = "reject",
) -> None:
    """Compare the gradients of ``f`` with differences of its values.

    For every input x, with a random direction v whose components all matter and a random
    covector u, the gradient  (u J) . v  and in forward mode all elements of  J v  are
    compared with what float64 differences of f along v give. The tolerance is the error of
    these differences, estimated from the values at several steps; there is none to choose.
    The gradient  x -> u J  is then checked in the same way for the second order, in a direction
    through all inputs at once.

    A gradient of float32 or float16 is compared with the one in float64, which differences
    have confirmed: half of the digits of the dtype must agree.

    Found besides: values that are not finite, that differ from call to call or have fewer
    digits than float64; an ``f`` or a rule that writes to what it was given; gradients
    of another shape or dtype, or that differ when computed again; an input on which ``f``
    depends without the tape's knowing.

    Args:
        f: a function of Tensors that returns a Tensor, or nested containers of Tensors.
        inputs: its arguments: arrays, Tensors, numbers, and nested tuples, lists and
            dictionaries of them. Integers, booleans and other objects are constants. On a GPU
            ``f`` is computed there, and the differences on the host; NumPy's arrays are put
            where the scope of ``mg.device`` says, and floats where the first Tensor is.
        parameters: what ``f`` is differentiated by besides, without its being an argument: a
            Module, or the Parameters as a dictionary or list.
        order: the highest order of derivative that is checked.
        modes: the first compares the gradient that ``tape.gradient`` computes, the second
            what ``mg.jvp`` does, for which the rules are recorded and differentiated.
        seed: of the directions.
        method: ``"central"`` differences; ``"five-point"``, with twice the calls and an error
            some 100 times smaller; or ``"complex"`` steps, exact to the last digits, for an
            ``f`` of analytic operations alone, which is then called with Tensors of complex
            numbers. The second order takes central differences in place of complex steps.
        jacobian: check every entry of the Jacobian by itself, in place of random directions.
        kinks: what is done with a sample at which ``f`` has no derivative. ``"reject"`` lets
            hypothesis draw another one, and outside of hypothesis does what ``"raise"`` does.

    Raises:
        GradientError: if a gradient is wrong, which is an ``AssertionError``. Its text says
            where and by how much.
        KinkError: if ``f`` has no derivative at these inputs.
        TypeError, ValueError: for inputs without floats, results that are no Tensors, and
            settings that do not exist.

    >>> import minigrad as mg, numpy as np
    >>> mg.testing.check_gradients(lambda x, y: mg.tanh(x) @ y, np.eye(2), np.array([2.0, 3.0]))
    >>> mg.testing.check_gradients(lambda x: x * x.detach(), 3.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    minigrad.testing.report.GradientError: the gradient of <lambda> with respect to inputs[0]...
    """
    _choice("method", method, Method)
    _choice("kinks", kinks, Kinks)
    for mode in modes:
        _choice("a mode", mode, Mode)
    if not modes:
        raise ValueError("modes is empty: nothing would be checked")
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"order is 1 or more, not {order!r}")
    rng = numpy.random.default_rng(seed)
    with no_grad(), _kinks(kinks), flattened(f, inputs, parameters) as function:
        check = Check(function, 1, rng, method, jacobian)
        for _ in range(order):
            check = check.run(modes)


def compare_gradients(
    f: Callable[..., Any],
    *inputs: Any,
    gradients: Any,
    parameters: Parameters = None,
    seed: int = 0,
    method: Method = "central",
    kinks: Kinks = "reject",
) -> None:
    """Compare ``gradients`` that were computed elsewhere with differences of ``f``.

    They may come from a training loop, from formulas, or from another library. Unlike in
    :func:`check_gradients` the tape is not asked for any.

    Args:
        f: a function that returns one number, as a Tensor.
        inputs, parameters, seed, method, kinks: as for :func:`check_gradients`.
        gradients: one for each input of floats, and then for each of the parameters, in any
            containers.

    Raises what :func:`check_gradients` raises, and ``ValueError`` if the gradients are not as
    many as the inputs or the value is not one number.

    >>> import minigrad as mg, numpy as np
    >>> x = np.array([1.0, 2.0])
    >>> mg.testing.compare_gradients(lambda x: mg.sum(x * x), x, gradients=[2.0 * x])
    """
    _choice("method", method, Method)
    _choice("kinks", kinks, Kinks)
    rng = numpy.random.default_rng(seed)
    with no_grad(), _kinks(kinks), flattened(f, inputs, parameters) as function:
        given = [asarray(gradient).array for gradient in leaves_of(gradients)]
        if len(given) != len(function.points):
            raise ValueError(
                f"{len(given)} gradients were given for {len(function.points)} inputs: "
                f"{', '.join(function.inputs)}"
            )
        Check(function, 1, rng, method).compare_with(given)


@contextmanager
def _kinks(kinks: Kinks) -> Iterator[None]:
    """Lets hypothesis draw another example at a kink, if it is drawing and that is wished."""
    try:
        yield
    except KinkError:
        hypothesis = sys.modules.get("hypothesis")
        if kinks == "reject" and hypothesis and hypothesis.currently_in_test_context():
            hypothesis.reject()
        raise


def _choice(name: str, value: Any, literal: Any) -> None:
    choices = get_args(literal)
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}, not {value!r}")
