"""The gradient of a step: its program is run on a tape, which is played back and watched, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minigrad.arrays import Array, ignoring_floating_point_errors
from minigrad.scanning.program import Program, Ref, ScanError
from minigrad.scanning.recording import Recorder, other_values, same_values
from minigrad.scanning.unrolled import run
from minigrad.tensor import TapeError, Tensor


def differentiated(
    program: Program,
    samples: tuple[Sequence[Array], Sequence[Array]],
    wanted: Iterable[int],
) -> Program:
    """The program with the gradients of the ``wanted`` values that are given to it.

    It is run on a tape, which is then played back with ``create_graph``: so the rules are noted
    as the operations are. The values have other numbers then.

    Args:
        program: of a step.
        samples: values of its inputs, by number, and others: what a rule makes of them by itself
            is to differ.
        wanted: those of its inputs whose gradients are wanted.

    Raises ``ScanError`` if a rule fails, or computes with arrays from elsewhere.
    """
    arrays, others = samples
    one = with_gradients(program, arrays, wanted)
    with ignoring_floating_point_errors():
        other = None if program.is_own else _with_other_parameters(program, one, samples, wanted)
        if other is None:
            other = with_gradients(program, others, wanted)
    if not are_alike(one, other):
        raise ScanError(
            "the gradient of this step cannot be played: the rule of one of its operations looks "
            "at values, or computes with something other than minigrad's operations"
        )
    return one


def _with_other_parameters(
    program: Program,
    one: Program,
    samples: tuple[Sequence[Array], Sequence[Array]],
    wanted: Iterable[int],
) -> Program | None:
    """What comes from outside is the same in both samples: with that, too, of other values.

    ``None`` if an operation does not take these, or they give results of other shapes.
    """
    arrays, others = samples[0], [*samples[1]]
    try:
        for n in program.outside:
            others[n] = other_values(arrays[n])
        other = with_gradients(program, others, wanted)
    except Exception:
        return None
    return other if other.kinds == one.kinds else None


def are_alike(one: Program, other: Program) -> bool:
    """Whether two programs do the same, with the same constants."""
    pairs = zip(one.constants.values(), other.constants.values(), strict=False)
    return one.key() == other.key() and all([same_values(a, b) for a, b in pairs])


def with_gradients(program: Program, arrays: Sequence[Array], wanted: Iterable[int]) -> Program:
    """What :func:`differentiated` gives, of one sample and unchecked."""
    tape = Recorder(records=True)
    new = tape.program
    live = _live(program, wanted)
    constants: list[int] = []
    values: dict[int, Tensor] = {}
    for old_numbers, numbers in (
        (program.xs, new.xs),
        (program.drawn, new.drawn),
        (program.states, new.states),
        (program.outside, new.outside),
        (list(program.constants), constants),
    ):
        for n in old_numbers:
            array = program.constants[n] if n in program.constants else arrays[n]
            values[n] = tape.given(array, numbers, n in live)
    given = [*new.xs, *new.states, *new.outside]
    inputs = [values[n] for n in (*program.xs, *program.states, *program.outside)]
    outside = len(new.outside)
    with tape.recording():
        for each in program.instructions:
            values |= zip(each.results, run(each, values), strict=True)
        new.ys = [tape.number(values[n]) for n in program.ys]
        new.new_states = [tape.number(values[n]) for n in program.new_states]
        new.forward = len(new.instructions)
        targets = []
        for n in (*program.ys, *program.new_states):
            seeds: list[int] = []
            if values[n].slot >= tape.base:
                targets.append((values[n], tape.given(values[n].array.copy(), seeds, True)))
            new.seeds.append(seeds[0] if seeds else None)
        slots = {tensor.slot for tensor in inputs if tensor.slot >= tape.base}
        try:
            found = tape.play_back(targets, slots, True, True) if targets else {}
        except TapeError as error:
            raise ScanError(f"the gradient of this step cannot be played: {error}") from error
        for number, tensor in zip(given, inputs, strict=True):
            if tensor.slot in found:
                new.gradients[number] = tape.number(found[tensor.slot])
    # Arrays that the rules make by themselves, zeros for instance, are the same in every call.
    constants += new.outside[outside:]
    new.constants = {n: tape.arrays[n] for n in constants}
    return new


def _live(program: Program, wanted: Iterable[int]) -> set[int]:
    """The inputs whose gradients are wanted, and the states by which these come in."""
    inputs = {*wanted}
    while True:
        found = {*inputs}
        for each in program.instructions:
            if any(
                [isinstance(x, Ref) and not x.detached and x.number in found for x in each.operands]
            ):
                found.update([n for n in each.results if program.kinds[n].dtype.kind == "f"])
        pairs = zip(program.states, program.new_states, strict=True)
        more = {old for old, new in pairs if new in found} - inputs
        if not more:
            return inputs
        inputs |= more
