"""Primitive: what an operation is. A forward, and one rule per differentiable operand.

>>> import minigrad as mg
>>> @mg.primitive
... def cube(x, /):
...     return x * x * x
>>> cube.rules(x=lambda g, x: g * 3.0 * x * x)  # (x^3)' = 3 x^2

The forward sees arrays. Its operands stand before the slash, its settings after it. A
rule receives ``g``, the gradient of the result, and returns the gradient of one operand;
*what it names besides, the tape saves*, and nothing else:

=====================  ===================================================
a rule's parameter     what it receives
=====================  ===================================================
the name of an operand the value of that operand
``out``                the result
``operand_shape``      the shape of the operand that the rule is for
``position``           that operand's number, in an operation of any number
the name of a setting  its value, an axis for example
=====================  ===================================================

Rules are written once, with operators and minigrad's own functions, which compute arrays
from arrays and Tensors from Tensors: on arrays they give the first derivative, fast, and
on Tensors a derivative that is itself recorded. Results need not be un-broadcast to the
operand's shape, nor cast to its dtype: the tape does that once, for all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import update_wrapper
from operator import itemgetter
from typing import Any, Final, NoReturn, ParamSpec, Protocol, TypeVar

from minigrad.arrays import as_array, device_of, is_array
from minigrad.listing import short
from minigrad.slots import CONSTANT, NOTHING, active_tape
from minigrad.tape import OUT, Entry
from minigrad.tensor import TapeError, Tensor, as_operand, describe, operations

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

#: What a rule can name besides operands and settings.
_SPECIAL: Final = ("out", "operand_shape", "position")


class Rule:
    """The gradient of one operand, compiled for one plan.

    Attributes:
        operand, position: the name of the operand and its place among the operands.
        play: ``play(g, saved, entry, shape)`` is the gradient of the operand, given that of
            the result, what the entry saved, and the operand's shape.
    """

    __slots__ = ("operand", "play", "position")

    def __init__(
        self,
        function: Callable[..., Any],
        operand: str,
        position: int,
        reads: Sequence[int | tuple[int, ...] | str],
    ) -> None:
        self.operand = operand
        self.position = position
        self.play = _player(function, position, reads)


def _player(
    function: Callable[..., Any], position: int, reads: Sequence[int | tuple[int, ...] | str]
) -> Callable[[Any, Sequence[Any], Entry, tuple[int, ...]], Any]:
    """Call a rule with what it ``reads`` after ``g``: an integer is a place in ``saved`` (a
    tuple of them stands for all operands), a name a setting, the shape or the position.
    """
    match reads:
        case []:
            return lambda g, saved, entry, shape: function(g)
        case [int(i)]:
            return lambda g, saved, entry, shape: function(g, saved[i])
        case [int(i), int(k)]:
            return lambda g, saved, entry, shape: function(g, saved[i], saved[k])

    def play(g: Any, saved: Sequence[Any], entry: Entry, shape: tuple[int, ...]) -> Any:
        known = {**entry.settings, "operand_shape": shape, "position": position}

        def found(read: int | tuple[int, ...] | str) -> Any:
            if isinstance(read, int):
                return saved[read]
            return known[read] if isinstance(read, str) else tuple(saved[i] for i in read)

        return function(g, *map(found, reads))

    return play


class Plan:
    """For one set of operands that want a gradient: what to save, and the rules to play.

    Attributes:
        rules: one for each of those operands.
        keep: which operands (by number) and whether the result (``OUT``) are saved.
        pick: takes them out of the tuple of all operands and the result.
    """

    __slots__ = ("keep", "pick", "rules")

    def __init__(self, keep: list[int], rules: list[Rule]) -> None:
        self.keep = keep
        self.rules = rules
        self.pick = _picker(keep)


def _picker(places: Sequence[Any]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function that takes the items at ``places`` out of a sequence, fast."""
    if len(places) > 1:
        return itemgetter(*places)
    if places:
        (place,) = places
        return lambda row: (row[place],)
    return lambda row: ()


class Primitive:
    """What the tape knows of an operation: its name, forward, rules, and plans made so far."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.name = forward.__name__.strip("_")
        self.forward = forward
        parameters = inspect.signature(forward).parameters.values()
        self.operands = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.defaults = {
            p.name: p.default
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        if not self.operands and self.variadic is None:
            raise TypeError(
                f"{self.name} has no operands: put a slash after them, def {self.name}(x, /, ...)"
            )
        for name in (*self.operands, *self.defaults):
            if name in _SPECIAL:
                raise TypeError(f"{self.name}: {name} means something else in a rule; rename it")
        self.functions: dict[str, Callable[..., Any]] = {}
        self.plans: dict[int, Plan] = {}

    def rules(self, **rules: Callable[..., Any]) -> None:
        """Give the gradient of operands, by name; see the module's description.

        Raises ``TypeError`` for a rule that names something which does not exist.
        """
        names = [*self.operands, *([self.variadic] if self.variadic else [])]
        readable = {*names, *self.defaults, *_SPECIAL}
        for operand, rule in rules.items():
            if operand not in names:
                raise TypeError(f"{self.name} has no operand {operand!r}; it has {names}")
            unknown = [name for name in _named_by(rule) if name not in readable]
            if unknown:
                raise TypeError(
                    f"the rule of {self.name} for {operand} names {', '.join(unknown)}; a rule "
                    f"can name {', '.join(sorted(readable))}"
                )
        self.functions |= rules
        self.plans.clear()

    def plan(self, wanted: int, end: int) -> Plan:
        """Work out what to save for the operands in the set of bits ``wanted``.

        ``end`` is the bit after those of the operands.
        """
        keep: list[int] = []
        count = end.bit_length() - 1

        def saved(i: int) -> int:
            if i not in keep:
                keep.append(i)
            return keep.index(i)

        def source(name: str) -> Any:
            if name == "out":
                return saved(OUT)
            if name == self.variadic:
                return tuple(saved(i) for i in range(count))
            return saved(self.operands.index(name)) if name in self.operands else name

        rules = []
        for i in range(count):
            if not wanted >> i & 1:
                continue
            operand = self.operands[i] if i < len(self.operands) else str(self.variadic)
            function = self.functions.get(operand)
            if function is None:
                raise TapeError(
                    f"{self.name} has no gradient rule for {operand}: write t.detach() if that "
                    f"operand is to be a constant, or give one with {self.name}.rules(...)"
                )
            reads = [source(name) for name in _named_by(function)]
            rules.append(Rule(function, operand, i, reads))
        plan = self.plans[wanted | end] = Plan(keep, rules)
        return plan

    def bind(
        self, args: tuple[Any, ...], settings: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Separate operands from settings, and complete the settings by their defaults."""
        operands, named = args, settings
        if self.variadic is None:
            operands, rest = args[: len(self.operands)], args[len(self.operands) :]
            named = dict(zip(self.defaults, rest, strict=False)) | settings
        bound = self.defaults | named
        missing = any([value is inspect.Parameter.empty for value in bound.values()])
        if missing or len(bound) != len(self.defaults):
            inspect.signature(self.forward).bind(*args, **settings)  # raises, saying which
        return operands, bound

    def explain(
        self, error: Exception, values: Sequence[Any], settings: dict[str, Any]
    ) -> NoReturn:
        """Raise an error that names the operation and what it was given."""
        devices = {device_of(value) for value in values if is_array(value)}
        if len(devices) > 1:
            raise TypeError(
                f"{self.name}: the operands are on different devices, "
                f"{' and '.join(sorted(devices))}; move them with t.to(...) first"
            ) from error
        kind = type(error) if type(error) in (ValueError, TypeError, IndexError) else ValueError
        given = [describe(value) for value in values]
        given += [f"{name}={short(value)}" for name, value in settings.items()]
        raise kind(f"{self.name}({', '.join(given)}): {error}") from error


def _named_by(rule: Callable[..., Any]) -> list[str]:
    """What a rule asks for besides the gradient of the result."""
    return list(inspect.signature(rule).parameters)[1:]


# --------------------------------------------------------------------------------------
# Calling an operation
#
# _any says what a call does. _unary and _binary are the same thing unrolled for operations
# of one and two operands without settings, most of what a tape records: they take a third
# of the time.
# --------------------------------------------------------------------------------------


def _any(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(*args: Any, **settings: Any) -> Any:
        if not any([isinstance(operand, Tensor) for operand in args]):
            return forward(*args, **settings)  # arrays from arrays
        operands, settings = primitive.bind(args, settings)
        slots = [x.slot if isinstance(x, Tensor) else CONSTANT for x in operands]
        values = [x.array if isinstance(x, Tensor) else as_operand(x) for x in operands]
        try:
            out = forward(*values, **settings)
        except Exception as error:
            primitive.explain(error, values, settings)
        several = type(out) is tuple
        out = tuple([as_array(result) for result in out]) if several else as_array(out)
        tape = active_tape.get()
        base = NOTHING if tape is None else tape.base
        wanted = sum([1 << i for i, slot in enumerate(slots) if slot >= base])
        if tape is None or not wanted:
            return tuple([Tensor(result) for result in out]) if several else Tensor(out)
        end = 1 << len(slots)
        plan = plans.get(wanted | end) or primitive.plan(wanted, end)
        slot = tape.record(primitive, plan, slots, values, out, settings)
        if several:
            return tuple([Tensor(result, slot + i) for i, result in enumerate(out)])
        return Tensor(out, slot)

    return call


def _unary(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(x: Any, /) -> Any:
        if not isinstance(x, Tensor):
            return forward(x)
        slot, x = x.slot, x.array
        try:
            out = forward(x)
        except Exception as error:
            primitive.explain(error, (x,), {})
        if not out.shape:
            out = as_array(out)
        tape = active_tape.get()
        if tape is None or slot < tape.base:
            return Tensor(out)
        plan = plans.get(3) or primitive.plan(1, 2)
        return Tensor(out, tape.record(primitive, plan, (slot,), (x,), out, _NO_SETTINGS))

    return call


def _binary(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(a: Any, b: Any, /) -> Any:
        slot_a = slot_b = CONSTANT
        if isinstance(a, Tensor):
            slot_a, a = a.slot, a.array
            if isinstance(b, Tensor):
                slot_b, b = b.slot, b.array
            else:
                b = as_operand(b)
        elif isinstance(b, Tensor):
            slot_b, b = b.slot, b.array
            a = as_operand(a)
        else:
            return forward(a, b)
        try:
            out = forward(a, b)
        except Exception as error:
            primitive.explain(error, (a, b), {})
        if not out.shape:
            out = as_array(out)
        tape = active_tape.get()
        if tape is None:
            return Tensor(out)
        wanted = (slot_a >= tape.base) + 2 * (slot_b >= tape.base)
        if not wanted:
            return Tensor(out)
        plan = plans.get(wanted | 4) or primitive.plan(wanted, 4)
        return Tensor(
            out, tape.record(primitive, plan, (slot_a, slot_b), (a, b), out, _NO_SETTINGS)
        )

    return call


_NO_SETTINGS: Final[dict[str, Any]] = {}


# --------------------------------------------------------------------------------------
# Defining operations
# --------------------------------------------------------------------------------------


class Operation(Protocol[P, R]):
    """A function that the tape can differentiate; see :func:`primitive`."""

    __name__: str
    primitive: Primitive

    def __call__(self, *args: P.args, **settings: P.kwargs) -> R:
        """Compute, and record what was done if a tape wants it."""

    def rules(self, **rules: Callable[..., Any]) -> None:
        """Give the gradient of operands, by name; see the module's description."""


def primitive(forward: Callable[P, R]) -> Operation[P, R]:
    """Make an operation of a function on arrays, to be given its ``rules``.

    The result can be called with tensors, arrays and numbers; it computes arrays if there
    is no tensor among its operands. A forward that returns a tuple has several results,
    and its rules receive a tuple of gradients.

    Raises ``TypeError`` if the function has no positional-only operands (before a slash).

    >>> import minigrad as mg, numpy as np
    >>> @mg.primitive
    ... def shifted_tanh(x, /, shift=0.0):
    ...     return np.tanh(x + shift)
    >>> shifted_tanh.rules(x=lambda g, out: g * (1.0 - out * out))
    >>> x = mg.tensor(0.5, requires_grad=True)
    >>> with mg.Tape() as tape:
    ...     y = shifted_tanh(x, shift=-0.5)
    >>> tape.gradient(y, x)
    tensor(1.)
    """
    defined = Primitive(forward)
    kinds = {1: _unary, 2: _binary}
    fixed = not defined.defaults and defined.variadic is None
    call: Any = (kinds.get(len(defined.operands), _any) if fixed else _any)(defined)
    update_wrapper(call, forward)
    call.primitive = defined
    call.rules = defined.rules
    return call


def operation(function: F) -> F:
    """Enter a public operation in the table of operations, under its own name."""
    operations[function.__name__] = function
    return function


def constant(forward: Callable[P, R]) -> Callable[P, R]:
    """A public operation whose result is a constant: comparisons, signs, positions."""

    def call(*args: P.args, **settings: P.kwargs) -> Any:
        if not any([isinstance(operand, Tensor) for operand in args]):
            return forward(*args, **settings)
        values: Any = [as_operand(a) if isinstance(a, Tensor) else a for a in args]
        return Tensor(as_array(forward(*values, **settings)))

    return operation(update_wrapper(call, forward))
