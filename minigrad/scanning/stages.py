"""When the instructions of one direction are run: once, before, in or after the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from minigrad.scanning import kernels
from minigrad.scanning.program import Instruction, Kind, Ref, needed_for, read_by


class Stages(NamedTuple):
    """Instructions by when they are run, each in an order in which they can be."""

    #: Once, since they depend on nothing that changes with time.
    once: list[Instruction]
    #: For all steps at once, before the loop.
    before: list[Instruction]
    #: Step by step: what the next step depends on.
    loop: list[Instruction]
    #: For all steps at once, after the loop.
    after: list[Instruction]


def stages(
    instructions: Sequence[Instruction],
    is_view: Callable[[Instruction], bool],
    in_loop: Callable[[Instruction], bool],
    timed: Iterable[int],
    carried: Iterable[int],
    carried_on: Iterable[int],
    wanted: Iterable[int],
) -> Stages:
    """Sort the instructions of one direction into stages; what nobody wants is left out.

    Args:
        is_view: whether an instruction only looks at its operand: it is then repeated in every
            stage that needs it.
        in_loop: whether to run an instruction in the loop that could be run before or after it.
        timed: the values that are given at every step, and do not depend on the step before.
        carried: the values that the step before has left.
        carried_on: the values that are left to the next step.
        wanted: the values that are wanted besides.
    """
    carried_on, wanted = set(carried_on), set(wanted)
    level = dict.fromkeys(timed, 1) | dict.fromkeys(carried, 2)
    for each in instructions:
        highest = max([level.get(n, 0) for n in each.reads], default=0)
        level |= dict.fromkeys(each.results, highest)

    def is_of(*levels: int) -> Callable[[Instruction], bool]:
        return lambda each: level[each.results[0]] in levels

    #: What is needed before the loop.
    early = needed_for(
        instructions,
        read_by([i for i in filter(is_of(1), instructions) if not (is_view(i) or in_loop(i))]),
    )

    def runs_in_loop(each: Instruction) -> bool:
        if each.primitive is kernels.COPY or is_of(2)(each):
            return True
        cheap = is_view(each) or (in_loop(each) and early.isdisjoint(each.results))
        return is_of(1)(each) and cheap

    def joining() -> Iterator[int]:
        """What the next step does not need, but is computed in the loop all the same."""
        needed, passed_on = needed_for(instructions, wanted), needed_for(instructions, carried_on)
        late: set[int] = set()
        for each in filter(is_of(2), instructions):
            free = passed_on.isdisjoint(each.results) and not is_view(each)
            if not late.isdisjoint(each.reads) or (free and not in_loop(each)):
                late.update(each.results)
            elif free:
                yield from needed.intersection(each.results)

    computed: set[int] = set()

    def stage(belongs: Callable[[Instruction], bool], needed: Iterable[int]) -> list[Instruction]:
        """Those that belong here, are needed, and are not computed by a stage before."""
        needs = set(needed)
        found = []
        for each in reversed(instructions):
            if needs.isdisjoint(each.results) or not computed.isdisjoint(each.results):
                continue
            if belongs(each):
                found.append(each)
                needs.update(each.reads)
        computed.update(n for each in found if not is_view(each) for n in each.results)
        return found[::-1]

    loop = stage(runs_in_loop, carried_on.union(joining()))
    before = stage(is_of(1), read_by(loop).difference(*[each.results for each in loop]))
    after = stage(is_of(1, 2), wanted)
    once = stage(is_of(0), read_by([*before, *loop, *after]) | wanted)
    return Stages(once, before, loop, after)


def with_products_in_blocks(found: Stages, kinds: list[Kind], timed: set[int]) -> Stages:
    """Stages whose loop multiplies by a matrix that is the same at all steps block by block.

    See :func:`minigrad.scanning.kernels.size_of_blocks`; new values are added to ``kinds``.
    """
    once, loop = [*found.once], []
    cut: dict[Any, Ref] = {}
    for each in found.loop:
        size = None
        if each.primitive is kernels.MATMUL and each.operands[1].number not in timed:
            x, matrix = each.operands
            shapes, dtype = [kinds[n].shape for n in each.reads], kinds[matrix.number].dtype
            if [len(shape) for shape in shapes] == [2, 2] and dtype in ("float32", "float64"):
                inner, columns = shapes[1]
                size = kernels.size_of_blocks(shapes[0][0], inner, columns)
        if size is None:
            loop.append(each)
            continue
        rows, width = size
        if (matrix.number, width) not in cut:
            apart, blocks = Ref(len(kinds)), Ref(len(kinds) + 1)
            shape = inner, columns // width, 1, width
            kinds += [Kind(shape, dtype), Kind((columns // width, 1, inner, width), dtype)]
            once += [
                Instruction(kernels.RESHAPE, (matrix,), {"shape": shape}, (apart.number,)),
                Instruction(kernels.TRANSPOSE, (apart,), {"axes": (1, 2, 0, 3)}, (blocks.number,)),
            ]
            cut[matrix.number, width] = blocks
        operands, settings = (x, cut[matrix.number, width]), {"rows": rows, "columns": width}
        loop.append(Instruction(kernels.matmul_in_blocks, operands, settings, each.results))
    return found._replace(once=once, loop=loop)
