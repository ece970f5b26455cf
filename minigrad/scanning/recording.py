"""Recording a step: it is run once, on the values of the first step, and watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from sys import _getframe
from typing import Any, NoReturn

from minigrad.arrays import Array, as_array, device_of, is_array, namespace, watching_draws
from minigrad.containers import leaves_of, map_leaves
from minigrad.listing import place
from minigrad.primitive import Primitive
from minigrad.scanning.kernels import COPY
from minigrad.scanning.program import Instruction, Program, Ref, ScanError, numbers_in
from minigrad.slots import CONSTANT, NOTHING, active_tape, in_step, new_leaf
from minigrad.tape import Tape, in_engine, users_line
from minigrad.tensor import Tensor, describe

#: What a step computes: (x, state) -> (y, state).
Step = Callable[[Any, Any], tuple[Any, Any]]


#: The attribute of a tensor, which is hidden below.
_attribute: Any = vars(Tensor)["array"]
_get_array, _set_array = _attribute.__get__, _attribute.__set__

_AS_UNROLL = ", as minigrad_rnn.unroll(..., unrolled=True) does"

#: The slots, on no tape, of what is not a constant in a step that is recorded: of what may have a
#: gradient, and of what has none in this call. That is no constant either, or the program would be
#: another one with a tape than without.
_LIVE, _STILL = 0, -2


class Recorded(Tensor):
    """A tensor that was computed in a step that is recorded."""

    __slots__ = ()

    def _array(self) -> Array:
        if self.slot == _LIVE and not in_step():
            _refuse_outside()
        return _get_array(self)

    array = property(_array, _set_array)

    @property
    def requires_grad(self) -> bool:
        """Whether it may want a gradient."""
        return self.slot == _LIVE or super().requires_grad

    def __repr__(self) -> str:
        return f"<{describe(_get_array(self))} in a step that is scanned>"


def _refuse_outside() -> NoReturn:
    raise ScanError(
        "this tensor was made in a step that is scanned, and is not known outside of it: to use "
        "it afterwards, return it in y or in the state"
    )


class Symbol(Recorded):
    """One that is not the same at every step: its values stand for those of all.

    Whoever is not of minigrad cannot look at them, and nobody can once the step is recorded.
    """

    __slots__ = ()

    def _array(self) -> Array:
        if not in_engine[_getframe(1).f_code.co_filename]:
            self._refuse()
        if not in_step():
            _refuse_outside()
        return _get_array(self)

    array = property(_array, _set_array)

    def detach(self) -> Tensor:
        """The same values as a constant."""
        return Symbol(_get_array(self))

    def _remade(self, array: Array) -> Tensor:
        if device_of(array) != self.device:
            self._refuse()
        constant = self.detach()
        return constant if array is constant.array else constant.astype(array.dtype)

    def _refuse(self, *args: Any, **settings: Any) -> NoReturn:
        raise ScanError(
            "a step that is scanned is recorded once and played for every x, so it cannot look at "
            f"the values of a tensor ({place(users_line(_getframe(1)))}): compute with minigrad's "
            f"operations (mg.where instead of if), or write the loop in Python{_AS_UNROLL}"
        )

    def to(self, device: str) -> Tensor:
        """The tensor itself; it cannot move to another device."""
        return self if device_of(self.array) == device else self._refuse()

    item = tolist = numpy = _refuse
    __bool__ = __float__ = __int__ = __index__ = _refuse
    __array__ = __contains__ = __dlpack__ = __format__ = _refuse


class Recorder(Tape):
    """A tape that notes every operation, of constants too, as instructions of a program.

    Values are told apart by their arrays, all of which are kept alive meanwhile.
    """

    __slots__ = (
        *("_known", "_numbers", "_varying"),
        *("arrays", "generators", "live_from", "outside", "paused", "program", "records"),
    )

    in_step = True
    saved_as = Symbol

    def __init__(self, *, records: bool, live_from: int = NOTHING) -> None:
        super().__init__()
        self.watched = True
        #: Whether it is a tape, too, or notes instructions alone.
        self.records = records
        #: From this slot on, tensors from outside the step want a gradient.
        self.live_from = live_from
        if not records:
            self.base = NOTHING
        self.program = Program()
        #: The values of the program, by number.
        self.arrays: list[Array] = []
        #: The tensors from outside the step, in the order of ``program.outside``.
        self.outside: list[Tensor] = []
        #: The generators that the step has drawn from, in the order of ``program.drawn``.
        self.generators: list[Any] = []
        self._numbers: dict[Any, int] = {}
        #: The arrays by id.
        self._known: set[int] = set()
        #: The values that are not the same at every step.
        self._varying: set[int] = set()
        self.paused = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """In this block all operations are noted, whichever tape records outside of it."""
        token, watcher = active_tape.set(self), watching_draws.set(self._drawn)
        try:
            yield
        finally:
            active_tape.reset(token)
            watching_draws.reset(watcher)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """In this block results are constants; what is done is noted all the same."""
        before = self.base, self.paused
        self.base, self.paused = NOTHING, True
        try:
            yield
        finally:
            self.base, self.paused = before

    def _readable(self, name: str, tensor: Tensor) -> int:
        if not self.records:
            raise ScanError(
                "a step that is scanned cannot compute a gradient itself: write the loop in "
                f"Python{_AS_UNROLL}"
            )
        return super()._readable(name, tensor)

    def given(self, array: Array, numbers: list[int], differentiable: bool) -> Symbol:
        """A symbol of a value that goes into the program; its number is added to ``numbers``."""
        array = array[...]
        symbol = Symbol(array)
        if not self.records:
            symbol.slot = self._slot(differentiable, array, _STILL)
        elif differentiable:
            symbol.slot = new_leaf(symbol)
        numbers.append(self._new(array, id(array)))
        self._varying.add(numbers[-1])
        return symbol

    def number(self, tensor: Tensor) -> int:
        """The number of a value, which may come from outside."""
        return self._ref(tensor.array, tensor.slot).number

    def result(self, tensor: Tensor) -> int:
        """The number of what the step returns; a copy of what was detached."""
        ref = self._ref(tensor.array, tensor.slot)
        if ref.detached and tensor.dtype.kind == "f":
            copy = self.program.value(tensor.shape, tensor.dtype)
            self.arrays.append(tensor.array)
            self.program.instructions.append(Instruction(COPY, (ref,), {}, (copy,)))
            return copy
        return ref.number

    def observed(
        self,
        primitive: Primitive,
        slots: Sequence[int],
        values: Sequence[Any],
        settings: dict[str, Any],
        results: list[Tensor],
    ) -> list[Tensor]:
        """Note an operation; its results as symbols."""
        operands = [
            self._ref(value, slot) if _is_value(value) else value
            for value, slot in zip(values, slots, strict=True)
        ]
        reads = [x.number for x in operands if type(x) is Ref]
        plain = {name: self._setting(value) for name, value in settings.items()}
        if plain:
            reads += numbers_in(plain.values())
        if not self.records:
            live = _LIVE in slots or max(slots, default=CONSTANT) >= self.live_from
            otherwise = CONSTANT if slots.count(CONSTANT) == len(slots) else _STILL
            for result in results:
                result.slot = self._slot(live, result.array, otherwise)
        numbers = []
        for result in results:
            if id(result.array) in self._known:  # an operand as it was: another value all the same
                result.array = result.array[...]
            numbers.append(self._new(result.array, id(result.array)))
        self.program.instructions.append(
            Instruction(primitive, tuple(operands), plain, tuple(numbers))
        )
        kind = Recorded
        if not self._varying.isdisjoint(reads):
            self._varying.update(numbers)
            kind = Symbol
        return [kind(result.array, result.slot) for result in results]

    def _slot(self, live: bool, array: Array, otherwise: int) -> int:
        """The slot of a value in a step, whether it is live or not."""
        if self.paused or array.dtype.kind != "f":
            return CONSTANT
        return _LIVE if live else otherwise

    def varies(self, tensor: Tensor) -> bool:
        """Whether a tensor is not the same at every step."""
        return self._numbers.get(id(tensor.array)) in self._varying

    def _drawn(self, generator: Any, numbers: Array) -> None:
        self.program.drawn.append(self._new(numbers, id(numbers)))
        self._varying.add(self.program.drawn[-1])
        self.generators.append(generator)

    def _new(self, array: Array, key: Any) -> int:
        self.arrays.append(array)
        self._known.add(id(array))
        number = self._numbers[key] = self.program.value(array.shape, array.dtype)
        return number

    def _ref(self, array: Array, slot: int) -> Ref:
        number = self._numbers.get(id(array))
        if number is None:  # from outside, where two tensors may share an array
            number = self._numbers.get((id(array), slot))
        if number is None:
            number = self._new(array, (id(array), slot))
            self.program.outside.append(number)
            self.outside.append(Tensor(array, slot))
        # Whether it was detached is known of the step; what it is on this tape is another matter.
        return Ref(number, slot == CONSTANT and not self.records)

    def _setting(self, value: Any) -> Any:
        """A setting, where arrays are replaced by references to them; a copy of its containers."""
        return map_leaves(
            lambda name, part: self._ref(part, CONSTANT) if _is_value(part) else part, value
        )


def _is_value(part: Any) -> bool:
    """Whether it is an array, and not one of NumPy's scalars, which are numbers."""
    return is_array(part) and as_array(part) is part


@dataclass
class Recording:
    """What was recorded of one step.

    Attributes:
        program: its instructions.
        arrays: the values of the program, by number.
        outside: the tensors that it has used from outside, in the order of ``program.outside``.
        generators: what it has drawn random numbers from, in the order of ``program.drawn``.
        y, new_state: what it has returned.
    """

    program: Program
    arrays: list[Array]
    outside: list[Tensor]
    generators: list[Any]
    y: Any
    new_state: Any


def record(step: Step, x: Any, state: Any, live_from: int = NOTHING) -> Recording:
    """Run a step once and note what it computes.

    Tensors want a gradient from the slot ``live_from`` on.

    Raises ``TypeError`` if it does not return a pair of tensors in containers, ``ValueError`` if
    the state changes its nesting, shapes or dtypes, and ``ScanError`` if it looks at a value.
    """
    tape = Recorder(records=False, live_from=live_from)
    with tape.recording():
        return _recorded(tape, step, x, state)


def _recorded(tape: Recorder, step: Step, x: Any, state: Any) -> Recording:
    program = tape.program
    recurs = tape.live_from < NOTHING  # with a tape outside the state may come to want a gradient
    given_x = map_leaves(
        lambda name, part: tape.given(part.array, program.xs, part.slot >= tape.live_from), x
    )
    given_state = map_leaves(
        lambda name, part: tape.given(part.array, program.states, recurs), state
    )
    result = step(given_x, given_state)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"a step returns the pair (y, state), not a {type(result).__name__}")
    y, new_state = result
    program.ys = [tape.result(part) for part in _returned(y, "y")]
    program.new_states = [tape.result(part) for part in _returned(new_state, "the state")]
    old, new = ([program.kinds[n] for n in ns] for ns in (program.states, program.new_states))
    if old != new or _frame(state) != _frame(new_state):
        raise ValueError(
            "a step keeps the nesting, shapes and dtypes of its state; it was given "
            f"{_described(state)} and returned {_described(new_state)}"
        )
    program.forward = len(program.instructions)
    return Recording(program, tape.arrays, tape.outside, tape.generators, y, new_state)


def check_repeatable(one: Recording, other: Recording) -> None:
    """Raise ``ScanError`` unless two steps have done the same, to different values."""
    pairs = zip(one.outside, other.outside, strict=False)
    if one.program.key() != other.program.key() or not all(
        same_values(a.array, b.array) for a, b in pairs
    ):
        raise ScanError(
            "a step that is scanned does the same every time that it is called, with minigrad's "
            "operations; this one has used other numbers, tensors or operations the second time "
            "(of a random generator, a counter, a list, a mask that reads more or less?): pass "
            f"them in xs or in the state, or write the loop in Python{_AS_UNROLL}"
        )


def same_values(a: Array, b: Array) -> bool:
    """Whether two arrays of one shape have the same values; NaN is the same as NaN."""
    return a is b or bool(((a == b) | ((a != a) & (b != b))).all())


def other_values(array: Array) -> Array:
    """Values that all differ from those of an array, and can stand where these do.

    Positive numbers stay so, a positive definite matrix stays one, and whole numbers are among
    those that there were, or 0, which is a position wherever another is.
    """
    xp, kind = namespace(array), array.dtype.kind
    if kind == "b" or not array.size:
        return ~array if kind == "b" else array
    # Without looking at any: on a GPU that would wait.
    if kind != "f":
        one = xp.where(array.max() != 0, array.max(), array.min())
        return xp.where(array == 0, xp.where(one != 0, one, 1), 0).astype(array.dtype)
    finite = xp.where(xp.isfinite(array), array, xp.zeros_like(array))
    step = abs(finite).max() / 16.0
    return xp.where(step > 0.0, finite * (33.0 / 32.0) + step, finite + 1.0).astype(array.dtype)


def _returned(tree: Any, name: str) -> list[Tensor]:
    """The tensors that a step has returned."""
    parts: list[Tensor] = leaves_of(tree)
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(f"{name} of a step is of tensors, not of a {type(part).__name__}")
    return parts


def _frame(tree: Any) -> Any:
    return map_leaves(lambda name, part: None, tree)


def _described(tree: Any) -> str:
    parts = [describe(part) for part in leaves_of(tree)]
    return parts[0] if isinstance(tree, Tensor) else f"({', '.join(parts)})"
