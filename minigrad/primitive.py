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
from sys import _getframe
from typing import Any, Final, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar

from minigrad.arrays import as_array, current_device, device_of, is_array
from minigrad.diagnosis import check_result, fingerprints
from minigrad.listing import short
from minigrad.slots import CONSTANT, NOTHING, active_tape, in_step, without_tape
from minigrad.tape import LARGE, users_frame
from minigrad.tensor import TapeError, Tensor, as_operand, describe, operations, with_axes

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

#: What a rule can name besides operands and settings.
_SPECIAL: Final = ("out", "operand_shape", "position")


class Rule(NamedTuple):
    """The gradient of one operand, compiled for one plan."""

    #: Computes it of the gradient of the result and of ``Entry.saved``, or of one item of it.
    function: Callable[[Any, Any], Any]
    #: Where in ``Entry.saved`` that item is; ``None`` for all of them.
    place: int | None
    #: The place of the operand among the operands.
    position: int
    #: The place of the rule among the plan's.
    number: int
    #: The name of the operand.
    operand: str


class Plan:
    """For one set of operands that want a gradient: the rules, and what to save for them.

    Attributes:
        operation: whose plan it is.
        rules: one for each operand that wants a gradient.
        keep: what is saved, in terms of the operands, ``out`` and the settings. That of
            ``mg.sum(x, axis=0)``, whose rule names operand_shape, axis and keepdims, is
            ``["x.shape", "axis", "keepdims"]``, and so nothing of the size of x.
        save: computes it, ``save(*operands, out=out, **settings)``.
    """

    __slots__ = ("keep", "operation", "rules", "save")

    def __init__(self, operation: Primitive, rules: list[Rule], keep: list[str]) -> None:
        self.operation = operation
        self.rules = rules
        self.keep = keep
        parameters = ", ".join([*operation.starred, "out", *operation.defaults])
        self.save: Callable[..., tuple[Any, ...]] = eval(
            f"lambda {parameters}: ({''.join(f'{name}, ' for name in keep)})"
        )


def _of_saved(rule: Callable[..., Any], places: list[int]) -> Callable[[Any, Any], Any]:
    """The rule as a function of the gradient of the result and of all that was saved."""
    # Unpacking what itemgetter picks takes longer than all the rest, so two have their own case.
    if not places:
        return lambda g, saved: rule(g)
    if len(places) == 2:
        i, j = places
        return lambda g, saved: rule(g, saved[i], saved[j])
    pick = itemgetter(*places)
    return lambda g, saved: rule(g, *pick(saved))


def _apart(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward whose own operations on tensors, if it has any, are no part of a recorded step."""

    def apart(*args: Any, **settings: Any) -> Any:
        if not in_step():
            return forward(*args, **settings)
        with without_tape():
            return forward(*args, **settings)

    return update_wrapper(apart, forward)


class _Plans(dict[int, Plan]):
    """The plans of an operation by the set of operands that want a gradient, made on demand."""

    def __init__(self, operation: Primitive) -> None:
        super().__init__()
        self.operation = operation

    def __missing__(self, wanted: int) -> Plan:
        plan = self[wanted] = self.operation.plan(wanted)
        return plan


class Primitive:
    """What the tape knows of an operation: its name, forward, rules, and plans made so far."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.name = forward.__name__.strip("_")
        #: Whether its rules are minigrad's.
        self.is_own = (forward.__module__ or "").partition(".")[0] == "minigrad"
        self.forward = forward if self.is_own else _apart(forward)
        parameters = inspect.signature(forward).parameters.values()
        self.operands = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        #: The name of any number of operands more; of none, in most operations.
        self.variadic = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
        self.defaults = {
            p.name: p.default
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        if not self.operands and not self.variadic:
            raise TypeError(
                f"{self.name} has no operands: put a slash after them, def {self.name}(x, /, ...)"
            )
        for name in (*self.operands, *self.variadic, *self.defaults):
            if name in _SPECIAL:
                raise TypeError(f"{self.name}: {name} means something else in a rule; rename it")
        self.starred = [*self.operands, *[f"*{name}" for name in self.variadic]]
        self.bind = _binder(self)
        self.functions: dict[str, Callable[..., Any]] = {}
        self.plans = _Plans(self)

    def rules(self, **rules: Callable[..., Any]) -> None:
        """Give the gradient of operands, by name; see the module's description.

        Raises ``TypeError`` for a rule that names something which does not exist.
        """
        names = [*self.operands, *self.variadic]
        readable = {*names, *self.defaults, *_SPECIAL}
        for operand, rule in rules.items():
            if operand not in names:
                raise TypeError(f"{self.name} has no operand {operand!r}; it has {names}")
            if not inspect.signature(rule).parameters:
                raise TypeError(
                    f"the rule of {self.name} for {operand} has no parameter: its first is the "
                    "gradient of the result"
                )
            unknown = [name for name in _named_by(rule) if name not in readable]
            if unknown:
                raise TypeError(
                    f"the rule of {self.name} for {operand} names {', '.join(unknown)}; a rule "
                    f"can name {', '.join(sorted(readable))}"
                )
        self.functions |= rules
        self.plans.clear()

    def plan(self, wanted: int) -> Plan:
        """Work out what to save for the operands in the set of bits ``wanted``."""
        rules: list[Rule] = []
        keep: list[str] = []
        for position in [i for i in range(wanted.bit_length()) if wanted >> i & 1]:
            number = position - len(self.operands)
            operand = self.operands[position] if number < 0 else self.variadic[0]
            function = self.functions.get(operand)
            if function is None:
                raise TapeError(
                    f"{self.name} has no gradient rule for {operand}: write t.detach() if that "
                    f"operand is to be a constant, or give one with {self.name}.rules(...)"
                )
            value = operand if number < 0 else f"{operand}[{number}]"
            special = {"operand_shape": f"{value}.shape", "position": str(position)}
            named = [special.get(name, name) for name in _named_by(function)]
            keep += [name for name in named if name not in keep]
            places = [keep.index(name) for name in named]
            place = places[0] if len(places) == 1 else None
            compiled = _of_saved(function, places) if place is None else function
            rules.append(Rule(compiled, place, position, len(rules), operand))
        return Plan(self, rules, keep)

    def constant_setting(self, name: str, value: Tensor) -> Any:
        """The array of a tensor that is given as a setting, if it has no gradient to lose."""
        if value.requires_grad:
            raise TapeError(
                f"{self.name}: {name} is a setting, through which no gradient flows; "
                "write t.detach() if that is meant"
            )
        return value.array

    def explain(
        self, error: Exception, values: Sequence[Any], settings: dict[str, Any]
    ) -> NoReturn:
        """Raise an error that names the operation and what it was given."""
        arrays = [v for v in values if is_array(v) and as_array(v) is v]  # scalars go anywhere
        devices = {device_of(array) for array in arrays}
        if len(devices) > 1:
            raise TypeError(
                f"{self.name}: the operands are on different devices, "
                f"{' and '.join(sorted(devices))}; move them with t.to(...) first"
            ) from error
        here = next(iter(devices), "cpu")
        if here != "cpu" and here != current_device():
            raise ValueError(
                f"{self.name}: the operands are on {here}, and the current device is "
                f"{current_device()}: compute with them inside `with mg.device(...):`"
            ) from error
        given = [describe(value) for value in values]
        given += [f"{name}={short(value)}" for name, value in settings.items()]
        call = f"{self.name}({', '.join(given)})"
        for kind in (TypeError, ValueError, IndexError, AttributeError):
            if isinstance(error, kind):
                raise kind(f"{call}: {str(error).strip() or kind.__name__}") from error
        error.add_note(f"in {call}")  # out of memory, a warning that is an error, ...
        raise error


def _binder(
    primitive: Primitive,
) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """A function with the signature of the forward, which returns its operands and settings.

    So Python itself binds the arguments of a call: no other way is as fast.
    """
    forward = inspect.unwrap(primitive.forward)
    operands = ", ".join(primitive.starred)
    settings = ", ".join([f"{name!r}: {name}" for name in primitive.defaults])
    signature = inspect.signature(forward)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    bare = [p if p.default is p.empty else p.replace(default=None) for p in bare]
    parameters = str(signature.replace(parameters=bare, return_annotation=signature.empty))
    bind = eval(f"lambda {parameters[1:-1]}: (({operands},), {{{settings}}})")
    bind.__defaults__, bind.__kwdefaults__ = forward.__defaults__, forward.__kwdefaults__
    bind.__qualname__ = primitive.name
    return bind


def _named_by(rule: Callable[..., Any]) -> list[str]:
    """What a rule asks for besides the gradient of the result."""
    return list(inspect.signature(rule).parameters)[1:]


# --------------------------------------------------------------------------------------
# Calling an operation
#
# _any and finished say what a call does. _unary and _binary are the same thing unrolled for
# the arrays of operations of one and two operands without settings, most of what a tape
# records: they take a quarter of the time.
# --------------------------------------------------------------------------------------

NO_SETTINGS: Final[dict[str, Any]] = {}

#: The types of operands that become arrays before an operation sees them.
NESTED: Final = (list, tuple)

#: ``_new(Tensor)`` and two assignments take two thirds of the time of ``Tensor(array, slot)``.
_new: Final = object.__new__

#: Keys of plans: a bit for every operand that wants a gradient.
_ONLY: Final = 0b1
_FIRST, _SECOND, _BOTH = 0b01, 0b10, 0b11


def _are_arrays(operands: Sequence[Any]) -> bool:
    """Whether the first is an array, or another beside numbers, as where(True, g, 0.0) has it."""
    arrays = [is_array(value) for value in operands]
    return arrays[0] or (True in arrays and isinstance(operands[0], int | float))


def _any(primitive: Primitive) -> Callable[..., Any]:
    forward, bind = primitive.forward, primitive.bind
    named = None if primitive.variadic else len(primitive.operands)

    def call(*args: Any, **settings: Any) -> Any:
        for value in args:
            if isinstance(value, Tensor):
                break
        else:
            if not args or _are_arrays(args[:named]):
                return forward(*args, **settings)  # arrays from arrays
            rest = () if named is None else args[named:]
            return call(*map(with_axes, args[:named]), *rest, **settings)
        operands, settings = bind(*args, **settings)
        for name, value in settings.items():
            if isinstance(value, Tensor):
                settings[name] = primitive.constant_setting(name, value)
        slots: list[int] = []
        values: list[Any] = []
        try:
            for operand in operands:
                if isinstance(operand, Tensor):
                    slots.append(operand.slot)
                    values.append(operand.array)
                else:
                    slots.append(CONSTANT)
                    values.append(as_operand(operand))
            out = forward(*values, **settings)
        except Exception as error:
            primitive.explain(error, values or operands, settings)
        return finished(primitive, slots, values, settings, out)

    return call


def finished(
    primitive: Primitive,
    slots: Sequence[int],
    values: Sequence[Any],
    settings: dict[str, Any],
    out: Any,
) -> Any:
    """The results of an operation as tensors, recorded if a tape wants them."""
    several = isinstance(out, tuple)
    results = [as_array(result) for result in out] if several else [as_array(out)]
    for result in results:
        if not is_array(result):
            raise TypeError(
                f"{primitive.name}: the forward is to return an array, or a tuple of arrays, "
                f"not {type(result).__name__}"
            )
    tape = active_tape.get()
    shapes, dtypes = [], []
    if tape is not None:
        # A result that is not of floats is a constant.
        floats = [result.dtype.kind == "f" for result in results]
        base = tape.base if True in floats else NOTHING
        key = 0
        for i, slot in enumerate(slots):
            if slot >= base:
                key += 1 << i
                shapes.append(values[i].shape)
                dtypes.append(values[i].dtype)
    if tape is None or not shapes:
        tensors = list(map(Tensor, results))
    else:
        plan = primitive.plans[key]
        made: Any = tuple(results) if several else results[0]
        frame = users_frame(_getframe(2))
        entry = (
            plan,
            slots,
            plan.save(*values, out=made, **settings),
            (shapes, dtypes),
            [result.shape for result in results] if several else made.shape,
            [result.dtype for result in results] if several else made.dtype,
            settings,
            frame.f_code,
            frame.f_lasti,
        )
        first = tape.mark()
        if tape.checked:
            check_result(primitive.name, values, results, entry[-2:])
            tape.fingerprints[first] = fingerprints(entry)
        entries = tape.entries
        before = len(entries)
        entries.extend([entry] * len(results))
        if before < LARGE <= len(entries):
            tape.warn_of_growth()
        tensors = [
            Tensor(result, first + i if floats[i] else CONSTANT) for i, result in enumerate(results)
        ]
    if tape is not None and tape.watched:
        tensors = tape.observed(primitive, slots, values, settings, tensors)
    if not several:
        return tensors[0]
    return out._make(tensors) if hasattr(out, "_make") else tuple(tensors)


def _unary(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(x: Any, /) -> Any:
        if not isinstance(x, Tensor):
            return call(with_axes(x)) if type(x) in NESTED else forward(x)
        slot, x = x.slot, x.array
        try:
            out = forward(x)
        except Exception as error:
            primitive.explain(error, (x,), {})
        shape = getattr(out, "shape", None)
        if not shape:  # no axes, several results, or no array at all
            return finished(primitive, (slot,), (x,), NO_SETTINGS, out)
        tape = active_tape.get()
        if tape is None:
            return Tensor(out)
        if tape.watched:
            return finished(primitive, (slot,), (x,), NO_SETTINGS, out)
        if slot < tape.base:
            return Tensor(out)
        dtype = out.dtype
        like = None
        if x.shape != shape or x.dtype is not dtype:
            if dtype.kind != "f":
                return Tensor(out)
            like = [x.shape], [x.dtype]
        plan = plans[_ONLY]
        frame = _getframe(1)
        code = frame.f_code
        if code is not tape.code:  # not that which recorded last
            frame = users_frame(frame)
            code = tape.code = frame.f_code
        made = _new(Tensor)
        made.array = out
        entries = tape.entries
        count = len(entries)
        if count == LARGE:
            tape.warn_of_growth()
        made.slot = tape.first + count
        entries.append(
            (
                plan,
                (slot,),
                plan.save(x, out),
                like,
                shape,
                dtype,
                NO_SETTINGS,
                code,
                frame.f_lasti,
            )
        )
        return made

    return call


def _binary(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(a: Any, b: Any, /) -> Any:
        try:
            if isinstance(a, Tensor):
                slot_a, a = a.slot, a.array
                if isinstance(b, Tensor):
                    slot_b, b = b.slot, b.array
                else:
                    slot_b, b = CONSTANT, as_operand(b)
            elif isinstance(b, Tensor):
                slot_a, a = CONSTANT, as_operand(a)
                slot_b, b = b.slot, b.array
            elif type(a) in NESTED or type(b) in NESTED:
                return call(with_axes(a), with_axes(b))
            else:
                return forward(a, b)
            out = forward(a, b)
        except Exception as error:
            primitive.explain(error, (a, b), {})
        shape = getattr(out, "shape", None)
        if not shape:  # no axes, several results, or no array at all
            return finished(primitive, (slot_a, slot_b), (a, b), NO_SETTINGS, out)
        tape = active_tape.get()
        if tape is None:
            return Tensor(out)
        if tape.watched:
            return finished(primitive, (slot_a, slot_b), (a, b), NO_SETTINGS, out)
        base = tape.base
        dtype = out.dtype
        if slot_a >= base and slot_b >= base:
            wanted = _BOTH
            same = a.shape == shape == b.shape and a.dtype is dtype is b.dtype
        elif slot_a >= base:
            wanted = _FIRST
            same = a.shape == shape and a.dtype is dtype
        elif slot_b >= base:
            wanted = _SECOND
            same = b.shape == shape and b.dtype is dtype
        else:
            return Tensor(out)
        like = None
        if not same:
            if dtype.kind != "f":
                return Tensor(out)
            operands = [x for slot, x in ((slot_a, a), (slot_b, b)) if slot >= base]
            like = [x.shape for x in operands], [x.dtype for x in operands]
        frame = _getframe(1)
        code = frame.f_code
        if code is not tape.code:  # not that which recorded last
            frame = users_frame(frame)
            code = tape.code = frame.f_code
        plan = plans[wanted]
        made = _new(Tensor)
        made.array = out
        entries = tape.entries
        count = len(entries)
        if count == LARGE:
            tape.warn_of_growth()
        made.slot = tape.first + count
        entries.append(
            (
                plan,
                (slot_a, slot_b),
                plan.save(a, b, out),
                like,
                shape,
                dtype,
                NO_SETTINGS,
                code,
                frame.f_lasti,
            )
        )
        return made

    return call


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
    fixed = not defined.defaults and not defined.variadic
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
    """A public operation of floats whose result is a constant, such as a sign."""

    compute = _any(Primitive(forward))

    def call(*args: P.args, **settings: P.kwargs) -> Any:
        return compute(*[x.detach() if isinstance(x, Tensor) else x for x in args], **settings)

    return operation(update_wrapper(call, forward))
