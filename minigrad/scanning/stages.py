"""When the instructions of one direction are run: once, before, in or after the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from minigrad.arrays import DType
from minigrad.scanning import kernels
from minigrad.scanning.blocks import Blocks, blocks_of, matmul_in_blocks, shapes_of_matrix
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
        if is_of(2)(each) or not carried_on.isdisjoint(each.results):
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

    See :mod:`minigrad.scanning.blocks`; new values are added to ``kinds``.
    """
    once, loop = [*found.once], []
    cut: dict[Any, Ref] = {}

    def value(shape: tuple[int, ...], dtype: DType) -> Ref:
        kinds.append(Kind(shape, dtype))
        return Ref(len(kinds) - 1)

    for each in found.loop:
        size = _blocks_of(each, kinds, timed)
        if size is None:
            loop.append(each)
            continue
        x, matrix = each.operands
        (inner, columns), dtype = kinds[matrix.number]
        key = matrix.number, size.parts, size.columns
        if key not in cut:
            shape, axes, turned = shapes_of_matrix(inner, columns, size)
            apart, cut[key] = value(shape, dtype), value(turned, dtype)
            once += [
                Instruction(kernels.RESHAPE, (matrix,), {"shape": shape}, (apart.number,)),
                Instruction(kernels.TRANSPOSE, (apart,), {"axes": axes}, (cut[key].number,)),
            ]
        product = Ref(each.results[0])
        if size.parts > 1:
            product = value((size.parts, *kinds[product.number].shape), dtype)
        operands, settings = (x, cut[key]), size._asdict()
        loop.append(Instruction(matmul_in_blocks, operands, settings, (product.number,)))
        if size.parts > 1:
            settings = {"axis": (0,), "keepdims": False}
            loop.append(Instruction(kernels.SUM, (product,), settings, each.results))
    return found._replace(once=once, loop=loop)


def _blocks_of(instruction: Instruction, kinds: list[Kind], timed: set[int]) -> Blocks | None:
    """How to cut a product of matrices, of which the second is always the same."""
    if instruction.primitive is not kernels.MATMUL or instruction.operands[1].number in timed:
        return None
    (shape, dtype), matrix = [kinds[x.number] for x in instruction.operands]
    matrices = len(shape) == len(matrix.shape) == 2
    if not matrices or dtype not in ("float32", "float64") or dtype != matrix.dtype:
        return None
    return blocks_of(shape[0], *matrix.shape)
