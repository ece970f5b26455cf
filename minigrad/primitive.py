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
from typing import Any, Final, NoReturn, ParamSpec, Protocol, TypeVar

from minigrad.arrays import as_array, device_of, is_array
from minigrad.diagnosis import check_result, fingerprints
from minigrad.listing import short
from minigrad.slots import CONSTANT, NOTHING, active_tape
from minigrad.tape import ENGINE, LARGE, SEVERAL, users_frame
from minigrad.tensor import TapeError, Tensor, as_operand, describe, operations, with_axes

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

#: What a rule can name besides operands and settings.
_SPECIAL: Final = ("out", "operand_shape", "position")


class Rule:
    """The gradient of one operand, compiled for one plan.

    Attributes:
        function: the rule as it was written.
        operand, position: the name of the operand and its place among the operands.
        place: where in ``Entry.saved`` the only argument after ``g`` is found; ``None`` if
            there is none, ``SEVERAL`` if there are more.
        pick: takes the arguments out of ``Entry.saved`` if there are several.
    """

    __slots__ = ("function", "operand", "pick", "place", "position")

    def __init__(
        self, function: Callable[..., Any], operand: str, position: int, places: list[int]
    ) -> None:
        self.function = function
        self.operand = operand
        self.position = position
        self.place = None if not places else places[0] if len(places) == 1 else SEVERAL
        self.pick = _picker(places)


class Plan:
    """For one set of operands that want a gradient: the rules, and what to save for them.

    All that a rule can name is found in one *row*: the operands; the result; the shapes of
    the operands that want a gradient; the settings; the positions of those operands; and the
    tuple of all operands after the named ones, in an operation of any number. That of
    ``mg.sum(x, axis=0)``, whose rule names operand_shape, axis and keepdims, is

        place   0    1      2              3     4         5         6
        item    x    out    shape of x     axis  keepdims  position  rest

    of which it keeps the places 2, 3 and 4, and nothing of the size of x.

    Attributes:
        operation: whose plan it is.
        rules: one for each operand that wants a gradient.
        keep: the places in the row of what is saved.
        save: takes that out of the row.
        out, rest: the places of the result and of the tuple of operands in the row.
        needs_no_shapes: whether nothing is saved from the row beyond the result.
    """

    __slots__ = ("keep", "needs_no_shapes", "operation", "out", "rest", "rules", "save")

    def __init__(
        self, operation: Primitive, rules: list[Rule], keep: list[int], out: int, rest: int
    ) -> None:
        self.operation = operation
        self.rules = rules
        self.keep = keep
        self.save = _picker(keep)
        self.out = out
        self.rest = rest
        self.needs_no_shapes = max(keep, default=0) <= out


def _picker(places: list[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function that takes the items at these places out of a sequence, fast."""
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
        for name in (*self.operands, *self.defaults, self.variadic):
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
        """Work out what to save for the operands in the set of bits ``wanted``.

        The bit above those of the operands is set, too, and so tells their number.
        """
        count = wanted.bit_length() - 1
        positions = [i for i in range(count) if wanted >> i & 1]
        names = [*self.operands[:count], *[self.variadic] * (count - len(self.operands))]
        settings = count + 1 + len(positions)
        end = settings + len(self.defaults) + len(positions)
        row = {name: i for i, name in enumerate(self.operands)} | {"out": count}
        row |= {name: settings + i for i, name in enumerate(self.defaults)}
        row |= {self.variadic: end} if self.variadic else {}
        rules: list[Rule] = []
        keep: list[int] = []
        for i, position in enumerate(positions):
            operand = str(names[position])
            function = self.functions.get(operand)
            if function is None:
                raise TapeError(
                    f"{self.name} has no gradient rule for {operand}: write t.detach() if that "
                    f"operand is to be a constant, or give one with {self.name}.rules(...)"
                )
            row |= {"operand_shape": count + 1 + i, "position": end - len(positions) + i}
            named = [row[name] for name in _named_by(function)]
            keep += [place for place in named if place not in keep]
            rules.append(Rule(function, operand, position, [keep.index(place) for place in named]))
        plan = self.plans[wanted] = Plan(self, rules, keep, count, end)
        return plan

    def bind(
        self, args: tuple[Any, ...], settings: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Separate operands from settings, and complete the settings by their defaults."""
        operands, rest = args, ()
        if self.variadic is None:
            operands, rest = args[: len(self.operands)], args[len(self.operands) :]
        given: dict[str, Any] = dict(zip(self.defaults, rest, strict=False))
        bound = self.defaults | given | settings
        missing = any([value is inspect.Parameter.empty for value in bound.values()])
        if (
            missing
            or len(bound) > len(self.defaults)
            or len(rest) > len(given)
            or given.keys() & settings.keys()
        ):
            try:
                inspect.signature(self.forward).bind(*args, **settings)
            except TypeError as error:
                raise TypeError(f"{self.name}: {error}") from None
        for name, value in bound.items():
            if isinstance(value, Tensor):
                if value.requires_grad:
                    raise TapeError(
                        f"{self.name}: {name} is a setting, through which no gradient flows; "
                        "write t.detach() if that is meant"
                    )
                bound[name] = value.array
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
        given = [describe(value) for value in values]
        given += [f"{name}={short(value)}" for name, value in settings.items()]
        call = f"{self.name}({', '.join(given)})"
        for kind in (TypeError, ValueError, IndexError, AttributeError):
            if isinstance(error, kind):
                raise kind(f"{call}: {str(error).strip() or kind.__name__}") from error
        error.add_note(f"in {call}")  # out of memory, a warning that is an error, ...
        raise error


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

#: Keys of plans: a bit for every operand that wants a gradient, and one above for their number.
_ONLY: Final = 0b11
_FIRST, _SECOND, _BOTH = 0b101, 0b110, 0b111


def _any(primitive: Primitive) -> Callable[..., Any]:
    forward = primitive.forward
    named = len(primitive.operands) if primitive.variadic is None else None

    def call(*args: Any, **settings: Any) -> Any:
        if not any([isinstance(operand, Tensor) for operand in args]):
            if not args or is_array(args[0]):
                return forward(*args, **settings)  # arrays from arrays
            rest = () if named is None else args[named:]
            return call(*map(with_axes, args[:named]), *rest, **settings)
        operands, settings = primitive.bind(args, settings)
        slots = [x.slot if isinstance(x, Tensor) else CONSTANT for x in operands]
        values: Sequence[Any] = operands
        try:
            values = [as_operand(x) for x in operands]
            out = forward(*values, **settings)
        except Exception as error:
            primitive.explain(error, values, settings)
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
    results = [as_array(result) for result in (out if several else (out,))]
    for result in results:
        if not is_array(result):
            raise TypeError(
                f"{primitive.name}: the forward is to return an array, or a tuple of arrays, "
                f"not {type(result).__name__}"
            )
    places = [CONSTANT] * len(results)
    tape = active_tape.get()
    base = NOTHING if tape is None else tape.base
    wanted = [i for i, slot in enumerate(slots) if slot >= base]
    if tape is not None and wanted and any([a.dtype.kind == "f" for a in results]):
        key = (1 << len(slots)) + sum([1 << i for i in wanted])
        plan = primitive.plans.get(key) or primitive.plan(key)
        shapes = [values[i].shape for i in wanted]
        rest = tuple(values[len(primitive.operands) :])
        made: Any = tuple(results) if several else results[0]
        frame = users_frame(_getframe(2))
        entry = (
            plan,
            slots,
            plan.save((*values, made, *shapes, *settings.values(), *wanted, rest)),
            (shapes, [values[i].dtype for i in wanted]),
            [a.shape for a in results] if several else made.shape,
            [a.dtype for a in results] if several else made.dtype,
            settings,
            frame.f_code,
            frame.f_lasti,
        )
        first = tape.mark()
        if tape.checked:
            check_result(primitive.name, values, results, entry[-2:])
            tape.fingerprints[first] = fingerprints(entry)
        before = len(tape.entries)
        tape.entries.extend([entry] * len(results))
        if before < LARGE <= len(tape.entries):
            tape.warn_of_growth()
        # A result that is not of floats is a constant.
        places = [first + i if a.dtype.kind == "f" else CONSTANT for i, a in enumerate(results)]
    tensors = [Tensor(a, slot) for a, slot in zip(results, places, strict=True)]
    if not several:
        return tensors[0]
    return out._make(tensors) if hasattr(out, "_make") else tuple(tensors)


def _unary(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(x: Any, /) -> Any:
        if not isinstance(x, Tensor):
            return call(with_axes(x)) if isinstance(x, list | tuple) else forward(x)
        slot = x.slot
        x = x.array
        try:
            out = forward(x)
        except Exception as error:
            primitive.explain(error, (x,), {})
        shape = getattr(out, "shape", None)
        if not shape:  # no axes, several results, or no array at all
            return finished(primitive, (slot,), (x,), NO_SETTINGS, out)
        tape = active_tape.get()
        dtype = out.dtype
        if tape is None or slot < tape.base or dtype.kind != "f":
            return Tensor(out)
        if tape.checked:
            return finished(primitive, (slot,), (x,), NO_SETTINGS, out)
        plan = plans.get(_ONLY) or primitive.plan(_ONLY)
        operand_shape = x.shape
        operand_dtype = x.dtype
        like = None
        if operand_shape != shape or operand_dtype is not dtype:
            like = (operand_shape,), (operand_dtype,)
        frame = _getframe(1)
        if frame.f_code.co_filename.startswith(ENGINE):
            frame = users_frame(frame)
        entries = tape.entries
        entries.append(
            (
                plan,
                (slot,),
                plan.save((x, out) if plan.needs_no_shapes else (x, out, operand_shape)),
                like,
                shape,
                dtype,
                NO_SETTINGS,
                frame.f_code,
                frame.f_lasti,
            )
        )
        count = len(entries)
        if count == LARGE:
            tape.warn_of_growth()
        return Tensor(out, tape.first + count - 1)

    return call


def _binary(primitive: Primitive) -> Callable[..., Any]:
    forward, plans = primitive.forward, primitive.plans

    def call(a: Any, b: Any, /) -> Any:
        slot_a = slot_b = CONSTANT
        try:
            if isinstance(a, Tensor):
                slot_a = a.slot
                a = a.array
                if isinstance(b, Tensor):
                    slot_b = b.slot
                    b = b.array
                else:
                    b = as_operand(b)
            elif isinstance(b, Tensor):
                slot_b = b.slot
                b = b.array
                a = as_operand(a)
            else:
                if isinstance(a, list | tuple) or isinstance(b, list | tuple):
                    return call(with_axes(a), with_axes(b))
                return forward(a, b)
            out = forward(a, b)
        except Exception as error:
            primitive.explain(error, (a, b), {})
        shape = getattr(out, "shape", None)
        if not shape:  # no axes, several results, or no array at all
            return finished(primitive, (slot_a, slot_b), (a, b), NO_SETTINGS, out)
        tape = active_tape.get()
        dtype = out.dtype
        if tape is None or dtype.kind != "f":
            return Tensor(out)
        if tape.checked:
            return finished(primitive, (slot_a, slot_b), (a, b), NO_SETTINGS, out)
        base = tape.base
        shapes: tuple[Any, ...]
        dtypes: tuple[Any, ...]
        if slot_a >= base:
            if slot_b >= base:
                plan = plans.get(_BOTH) or primitive.plan(_BOTH)
                shapes, dtypes = (a.shape, b.shape), (a.dtype, b.dtype)
            else:
                plan = plans.get(_FIRST) or primitive.plan(_FIRST)
                shapes, dtypes = (a.shape,), (a.dtype,)
        elif slot_b >= base:
            plan = plans.get(_SECOND) or primitive.plan(_SECOND)
            shapes, dtypes = (b.shape,), (b.dtype,)
        else:
            return Tensor(out)
        like: Any = (shapes, dtypes)
        if shapes[0] == shape == shapes[-1] and dtypes[0] is dtype is dtypes[-1]:
            like = None
        frame = _getframe(1)
        if frame.f_code.co_filename.startswith(ENGINE):
            frame = users_frame(frame)
        entries = tape.entries
        entries.append(
            (
                plan,
                (slot_a, slot_b),
                plan.save((a, b, out) if plan.needs_no_shapes else (a, b, out, *shapes)),
                like,
                shape,
                dtype,
                NO_SETTINGS,
                frame.f_code,
                frame.f_lasti,
            )
        )
        count = len(entries)
        if count == LARGE:
            tape.warn_of_growth()
        return Tensor(out, tape.first + count - 1)

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
    """A public operation of floats whose result is a constant, such as a sign."""

    compute = _any(Primitive(forward))

    def call(*args: P.args, **settings: P.kwargs) -> Any:
        return compute(*[x.detach() if isinstance(x, Tensor) else x for x in args], **settings)

    return operation(update_wrapper(call, forward))
