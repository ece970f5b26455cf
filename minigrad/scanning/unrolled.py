"""A program run operation by operation, so that a tape records what it does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from minigrad.arrays import Array
from minigrad.primitive import finished
from minigrad.scanning.kernels import resolved
from minigrad.scanning.program import Instruction, Program, Ref
from minigrad.slots import CONSTANT
from minigrad.tensor import Tensor, operations


def loop(
    program: Program,
    xs: Sequence[Tensor],
    drawn: Sequence[Array],
    states: Sequence[Tensor],
    outside: Sequence[Tensor],
    reverse: bool,
) -> list[Tensor]:
    """Run the step's operations for every x; the y of all steps, and the last state.

    All that they use is what it was when the step was recorded.
    """
    steps = zip(*[operations["unstack"](x) for x in xs], strict=True)
    draws = zip(*drawn, strict=True) if drawn else repeat(())
    values = dict(zip(program.outside, outside, strict=True))
    ys: list[list[Tensor]] = []
    for x, numbers in [*zip(steps, draws, strict=False)][:: -1 if reverse else 1]:
        values |= zip(program.xs, x, strict=True)
        values |= zip(program.drawn, map(Tensor, numbers), strict=True)
        values |= zip(program.states, states, strict=True)
        for each in program.instructions:
            values |= zip(each.results, run(each, values), strict=True)
        ys.append([values[n] for n in program.ys])
        states = [values[n] for n in program.new_states]
    columns = zip(*ys[:: -1 if reverse else 1], strict=True)
    # A state that is handed on as it was given is a result of the loop all the same.
    return [*[operations["stack"](each) for each in columns], *map(_itself, states)]


def _itself(tensor: Tensor) -> Tensor:
    return operations["scale_gradient"](tensor, 1.0) if tensor.dtype.kind == "f" else tensor


def run(instruction: Instruction, values: dict[int, Tensor]) -> Sequence[Tensor]:
    """Run an instruction as an operation, so that the tape records it."""

    def array(number: int) -> Array:
        return values[number].array

    primitive = instruction.primitive
    slots = [
        values[x.number].slot if isinstance(x, Ref) and not x.detached else CONSTANT
        for x in instruction.operands
    ]
    operands = [resolved(x, array) for x in instruction.operands]
    settings = {name: resolved(x, array) for name, x in instruction.settings.items()}
    made = finished(primitive, slots, operands, settings, primitive.forward(*operands, **settings))
    return made if isinstance(made, tuple) else (made,)
