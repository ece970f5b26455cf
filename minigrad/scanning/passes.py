"""What is done to a program before it is played: each pass makes another program of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

from minigrad.arrays import BOOLEAN, Array
from minigrad.containers import map_leaves
from minigrad.primitive import Primitive
from minigrad.scanning import kernels
from minigrad.scanning.program import Instruction, Kind, Program, Ref, changing, frozen, needed_for


def prepared(program: Program, constant: Constant) -> Program:
    """The program of a step, in the form in which it is differentiated."""
    program = without_repeats(with_products(program))
    program = without_dead(with_neighbours_joined(program))
    return with_gates(program, constant)


def ready_to_play(program: Program, constant: Constant, with_factors_outside: bool) -> Program:
    """The differentiated program, in the form in which it is played; see :func:`with_factors`."""
    program = without_repeats(with_moments(with_conditions(program)))
    program = with_means_as_products(with_centred_weights(program), constant)
    if with_factors_outside:
        program = with_factors(program)
    program = without_repeats(with_scaled_weights(program))
    return with_rows_spread(program)


def with_products(program: Program) -> Program:
    """``linear(x, W, b)`` as  x W^T  and  + b,  since the product may be wanted elsewhere."""
    edit = _Edit(program)
    for each in program.instructions:
        if each.primitive is kernels.LINEAR:
            x, weight, bias = each.operands
            shape, dtype = program.kinds[weight.number]
            made: list[Instruction] = []
            kind = Kind(shape[::-1], dtype)
            across = edit.instruction(kernels.TRANSPOSE, (weight,), kind, made, axes=None)
            product = edit.instruction(
                kernels.MATMUL, (x, across), program.kinds[each.results[0]], made
            )
            made.append(Instruction(kernels.ADD, (product, bias), {}, each.results))
            edit.replaced[each] = made
    return edit.done()


def without_repeats(program: Program) -> Program:
    """What is computed twice from the same is computed once."""
    edit = _Edit(program)
    same: dict[int, int] = {}
    made: dict[Any, tuple[int, ...]] = {}

    def renamed(tree: Any) -> Any:
        return map_leaves(
            lambda name, part: (
                replace(part, number=same.get(part.number, part.number))
                if isinstance(part, Ref)
                else part
            ),
            tree,
        )

    for old in program.instructions:
        operands = renamed(old.operands)
        settings = {name: renamed(value) for name, value in old.settings.items()}
        key = old.primitive, frozen(operands), frozen(settings)
        if key in made:
            same |= zip(old.results, made[key], strict=True)
            edit.replaced[old] = []
        else:
            made[key] = old.results
            edit.replaced[old] = [Instruction(old.primitive, operands, settings, old.results)]
    return replace(
        edit.done(),
        ys=[same.get(n, n) for n in program.ys],
        new_states=[same.get(n, n) for n in program.new_states],
        gradients={n: same.get(g, g) for n, g in program.gradients.items()},
    )


#: Makes an array of numbers, of a dtype, where the program is to be played.
Constant = Callable[[Sequence[float], Any], Array]


class _Uses:
    """Who makes and who reads every value of a program."""

    def __init__(self, program: Program) -> None:
        self.maker = {n: each for each in program.instructions for n in each.results}
        self.readers: dict[int, list[Instruction]] = {}
        for each in program.instructions:
            for n in each.reads:
                self.readers.setdefault(n, []).append(each)
        self._returned = {*program.ys, *program.new_states, *program.gradients.values()}

    def only_by(self, number: int, count: int) -> bool:
        """Whether a value is read by so many instructions, and not returned."""
        return len(self.readers.get(number, ())) == count and number not in self._returned

    def only_reader(self, number: int) -> Instruction | None:
        """Who reads a value, if one instruction does and nobody else."""
        return self.readers[number][0] if self.only_by(number, 1) else None

    def only_once(self, operand: Ref) -> bool:
        """Whether a value is read by one instruction alone."""
        return self.only_by(operand.number, 1)


class _Edit:
    """A program that is being changed: new values, and instructions in the place of others."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.kinds = [*program.kinds]
        self.constants = dict(program.constants)
        self.replaced: dict[Any, list[Instruction]] = {}

    def value(self, kind: Kind) -> int:
        """A new value's number."""
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def instruction(
        self,
        primitive: Primitive,
        operands: tuple[Any, ...],
        kind: Kind,
        made: list[Instruction],
        **settings: Any,
    ) -> Ref:
        """Add an instruction to ``made``; its result."""
        result = self.value(kind)
        made.append(Instruction(primitive, operands, settings, (result,)))
        return Ref(result)

    def mean(
        self, x: Ref, axes: tuple[int, ...], count: float, kind: Kind, made: list[Instruction]
    ) -> Ref:
        """Add the mean of so many elements along axes, which stay, to ``made``."""
        total = self.instruction(kernels.SUM, (x,), kind, made, axis=axes, keepdims=True)
        return self.instruction(kernels.DIVIDE, (total, count), kind, made)

    def constant(self, array: Array) -> Ref:
        """A value that is the same at every step, and in every call."""
        number = self.value(Kind(array.shape, array.dtype))
        self.constants[number] = array
        return Ref(number)

    def done(self) -> Program:
        """The changed program."""
        instructions, forward = self.program.instructions, self.program.forward
        halves = [
            [new for old in half for new in self.replaced.get(old, [old])]
            for half in (instructions[:forward], instructions[forward:])
        ]
        return replace(
            self.program,
            kinds=self.kinds,
            constants=self.constants,
            instructions=halves[0] + halves[1],
            forward=len(halves[0]),
        )


def without_dead(program: Program) -> Program:
    """What nobody reads is not computed."""
    edit = _Edit(program)
    ends = {*program.ys, *program.new_states, *program.gradients.values()}
    needed = needed_for(program.instructions, ends)
    edit.replaced |= {i: [] for i in program.instructions if needed.isdisjoint(i.results)}
    return edit.done()


def with_neighbours_joined(program: Program) -> Program:
    """The same operation on neighbouring parts of the same values is done to both at once."""
    while True:
        pair = _neighbours(program)
        if pair is None:
            return program
        program = _joined(program, *pair)


#: A part of a value: the instruction that splits it, and which of the parts it is.
_Part = tuple[Instruction, int]


def _neighbours(program: Program) -> tuple[Instruction, Instruction, list[_Part | None]] | None:
    """Two instructions that can be joined, and the parts that the first one reads."""
    parts: dict[int, _Part] = {}
    seen: dict[Any, tuple[Instruction, list[_Part | None]]] = {}
    for each in program.instructions:
        if each.primitive is kernels.SPLIT:
            last = len(program.kinds[each.operands[0].number].shape) - 1
            if each.settings["axis"] == last:
                parts |= {n: (each, i) for i, n in enumerate(each.results)}
        elif each.primitive in kernels.ELEMENTWISE and not each.settings:
            refs = [x for x in each.operands if isinstance(x, Ref)]
            if not all([x.number in parts and not x.detached for x in refs]):
                continue
            # Of one width, and of each split one part: what is joined fits together then.
            splits = {parts[x.number][0] for x in refs}
            widths = {program.kinds[x.number].shape[-1] for x in refs}
            if len(widths) != 1 or len(splits) != len({x.number for x in refs}):
                continue
            read = [parts[x.number] if isinstance(x, Ref) else None for x in each.operands]
            plain = tuple([None if isinstance(x, Ref) else frozen(x) for x in each.operands])
            for ahead in (1, -1):
                beside = tuple([(split, i - ahead) for split, i in filter(None, read)])
                first = seen.get((each.primitive, plain, beside))
                if first is not None:
                    pair = (first[0], each) if ahead == 1 else (each, first[0])
                    return *pair, first[1] if ahead == 1 else read
            seen[each.primitive, plain, tuple(filter(None, read))] = each, read
    return None


def _joined(
    program: Program, left: Instruction, right: Instruction, read: list[_Part | None]
) -> Program:
    """The program with two such instructions as one."""
    edit = _Edit(program)

    def together(one: int, other: int) -> tuple[int, Instruction]:
        """A value that two make up, and the instruction that splits it into them."""
        (shape, dtype), (more, _) = edit.kinds[one], edit.kinds[other]
        ends = (0, shape[-1], shape[-1] + more[-1])
        whole = edit.value(Kind((*shape[:-1], ends[-1]), dtype))
        settings = {"bounds": ends, "axis": len(shape) - 1}
        return whole, Instruction(kernels.SPLIT, (Ref(whole),), settings, (one, other))

    operands: list[Any] = []
    for x, part in zip(left.operands, read, strict=True):
        if part is None:
            operands.append(x)
            continue
        split, i = part
        if split not in edit.replaced:
            one, other = split.results[i : i + 2]
            whole, again = together(one, other)
            bounds = split.settings["bounds"]
            settings = split.settings | {"bounds": (*bounds[: i + 1], *bounds[i + 2 :])}
            results = (*split.results[:i], whole, *split.results[i + 2 :])
            edit.replaced[split] = [
                Instruction(kernels.SPLIT, split.operands, settings, results),
                again,
            ]
        operands.append(edit.replaced[split][1].operands[0])
    result, again = together(left.results[0], right.results[0])
    first, second = sorted((left, right), key=program.instructions.index)
    edit.replaced[first] = [Instruction(left.primitive, tuple(operands), {}, (result,)), again]
    edit.replaced[second] = []
    return edit.done()


def with_gates(program: Program, constant: Constant) -> Program:
    """Sigmoids and tanhs of all parts of a value become one operation on the whole.

    ``constant`` makes arrays of numbers.
    """
    uses = _Uses(program)
    edit = _Edit(program)
    for split in program.instructions:
        if split.primitive is not kernels.SPLIT:
            continue
        (whole,) = split.operands
        kind = program.kinds[whole.number]
        squashes = [uses.only_reader(n) for n in split.results]
        if split.settings["axis"] == len(kind.shape) - 1 and all(
            [
                each is not None
                and each.primitive in kernels.SQUASHING
                and not each.operands[0].detached
                for each in squashes
            ]
        ):
            widths = [stop - start for start, stop in pairwise(split.settings["bounds"])]
            scales = [kernels.SQUASHING[each.primitive] for each in squashes if each is not None]
            scale = [x for x, width in zip(scales, widths, strict=True) for _ in range(width)]
            vectors = (
                edit.constant(constant(scale, kind.dtype)),
                edit.constant(constant([1.0 - x for x in scale], kind.dtype)),
            )
            made: list[Instruction] = []
            gates = edit.instruction(kernels.SQUASH, (whole, *vectors), kind, made)
            results = tuple([each.results[0] for each in squashes if each is not None])
            made.append(Instruction(kernels.SPLIT, (gates,), split.settings, results))
            edit.replaced |= {each: [] for each in squashes}
            # The parts may be read before the last of them was computed.
            edit.replaced[split] = made
    return edit.done()


def with_conditions(program: Program) -> Program:
    """What ``where`` chooses by is true or false: of numbers, whether they are not 0."""
    edit = _Edit(program)
    for each in program.instructions:
        if each.primitive is not kernels.WHERE:
            continue
        condition, *choice = each.operands
        made: list[Instruction] = []
        if not isinstance(condition, Ref):
            condition = bool(condition)
        elif program.kinds[condition.number].dtype != BOOLEAN:
            kind = Kind(program.kinds[condition.number].shape, BOOLEAN)
            condition = edit.instruction(kernels.NOT_EQUAL, (condition, 0), kind, made)
        made.append(Instruction(kernels.WHERE, (condition, *choice), {}, each.results))
        edit.replaced[each] = made
    return edit.done()


def with_moments(program: Program) -> Program:
    """A variance, and what is standardized by it, is written out: both are found once then."""
    edit = _Edit(program)
    for each in program.instructions:
        if _is_root(each, program.kinds):
            root = Instruction(kernels.SQRT, each.operands[:1], {}, each.results)
            edit.replaced[each] = [root]
        if each.primitive not in (kernels.VAR, kernels.STANDARDIZE):
            continue
        (x,), settings = each.operands, each.settings
        shape, dtype = kind = program.kinds[x.number]
        if dtype not in ("float32", "float64") or not settings.get("keepdims", True):
            continue
        axes = kernels.axes_of(each, program.kinds)
        count = prod([shape[axis] for axis in axes])
        narrow = Kind(tuple([1 if i in axes else n for i, n in enumerate(shape)]), dtype)
        made: list[Instruction] = []

        mean = edit.mean(x, axes, count, narrow, made)
        centred = edit.instruction(kernels.SUBTRACT, (x, mean), kind, made)
        square = edit.instruction(kernels.SQUARE, (centred,), kind, made)
        freedom = count - settings.get("ddof", 0)
        variance = edit.mean(square, axes, freedom, narrow, made)
        if each.primitive is kernels.VAR:
            made[-1] = replace(made[-1], results=each.results)
        else:
            shifted = edit.instruction(kernels.ADD, (variance, settings["eps"]), narrow, made)
            deviation = edit.instruction(kernels.SQRT, (shifted,), narrow, made)
            made.append(Instruction(kernels.DIVIDE, (centred, deviation), {}, each.results))
        edit.replaced[each] = made
    return edit.done()


def _is_root(each: Instruction, kinds: Sequence[Kind]) -> bool:
    """Whether it is x**0.5 of floats: of whole numbers NumPy's sqrt may be less exact."""
    if each.primitive is not kernels.POWER or each.operands[1] != 0.5:
        return False
    return kinds[each.operands[0].number].dtype.kind == "f"


def _mean_along_rows(operand: Any, uses: _Uses, kinds: Sequence[Kind]) -> Ref | None:
    """What the operand is the mean of, along the last axis of matrices, which stays."""
    mean = uses.maker.get(operand.number) if isinstance(operand, Ref) else None
    if mean is None or mean.primitive is not kernels.DIVIDE or isinstance(mean.operands[1], Ref):
        return None
    total = uses.maker.get(mean.operands[0].number)
    if total is None or total.primitive is not kernels.SUM or not uses.only_once(mean.operands[0]):
        return None
    (x,) = total.operands
    shape, dtype = kinds[x.number]
    along = kernels.axes_of(total, kinds) == (1,) and total.settings["keepdims"]
    fits = len(shape) == 2 and mean.operands[1] == shape[1] and dtype in ("float32", "float64")
    return x if along and fits else None


def with_centred_weights(program: Program) -> Program:
    """x W - mean(x W)  along the rows becomes  x (W - mean(W))."""
    uses = _Uses(program)
    edit = _Edit(program)
    for each in program.instructions:
        if each.primitive is not kernels.SUBTRACT:
            continue
        x, mean = each.operands
        if _mean_along_rows(mean, uses, program.kinds) != x or not uses.only_once(mean):
            continue
        product = uses.maker.get(x.number)
        if (
            product is None
            or product.primitive is not kernels.MATMUL
            or not uses.only_by(x.number, 2)
        ):
            continue
        left, weight = product.operands
        kind = program.kinds[weight.number]
        if len(kind.shape) != 2 or kind.dtype != program.kinds[x.number].dtype:
            continue
        narrow = Kind((kind.shape[0], 1), kind.dtype)
        made: list[Instruction] = []
        mean = edit.mean(weight, (1,), kind.shape[1], narrow, made)
        centred = edit.instruction(kernels.SUBTRACT, (weight, mean), kind, made)
        made.append(Instruction(kernels.MATMUL, (left, centred), {}, each.results))
        edit.replaced[each] = made
    return edit.done()


def with_means_as_products(program: Program, constant: Constant) -> Program:
    """A mean along the rows of a matrix becomes its product with a column of 1/n.

    That takes a third of the time of NumPy's sum.
    """
    uses = _Uses(program)
    edit = _Edit(program)
    columns: dict[Any, Ref] = {}
    for each in program.instructions:
        x = _mean_along_rows(Ref(each.results[0]), uses, program.kinds)
        if x is None:
            continue
        (_, count), dtype = program.kinds[x.number]
        if (count, dtype) not in columns:
            column = constant([1.0 / count] * count, dtype).reshape(count, 1)
            columns[count, dtype] = edit.constant(column)
        operands = x, columns[count, dtype]
        edit.replaced[each] = [Instruction(kernels.MATMUL, operands, {}, each.results)]
    return without_dead(edit.done())


def with_scaled_weights(program: Program) -> Program:
    """scale tanh(scale z) + shift,  where the inner scale is multiplied into what z is made of."""
    uses = _Uses(program)
    edit = _Edit(program)
    for each in program.instructions[: program.forward]:
        if each.primitive is kernels.SQUASH:
            z, scale, shift = each.operands
            kind = program.kinds[each.results[0]]
            made: list[Instruction] = []
            t = edit.instruction(kernels.TANH, (_scaled(z, scale, uses, edit, made),), kind, made)
            out = edit.instruction(kernels.MULTIPLY, (t, scale), kind, made)
            made.append(Instruction(kernels.ADD, (out, shift), {}, each.results))
            edit.replaced[each] = made
    return edit.done()


def _scaled(operand: Ref, scale: Ref, uses: _Uses, edit: _Edit, made: list[Instruction]) -> Ref:
    """The operand with its columns scaled: a sum or product is made of scaled operands."""
    kind = edit.kinds[operand.number]
    maker = uses.maker.get(operand.number) if uses.only_once(operand) else None

    def is_wide(x: Any) -> bool:
        """Whether it has all columns, not broadcast along them, and can be scaled in its dtype."""
        shape, dtype = edit.kinds[x.number] if isinstance(x, Ref) else ((), None)
        return (shape[-1:], dtype) == edit.kinds[scale.number]

    if maker is not None and maker.primitive is kernels.ADD and all(map(is_wide, maker.operands)):
        terms = tuple([_scaled(x, scale, uses, edit, made) for x in maker.operands])
        return edit.instruction(kernels.ADD, terms, kind, made)
    if maker is not None and maker.primitive is kernels.MULTIPLY:
        for x, row in (maker.operands, maker.operands[::-1]):
            if isinstance(row, Ref) and edit.kinds[row.number] == edit.kinds[scale.number]:
                row = _scaled(row, scale, uses, edit, made)
                return edit.instruction(kernels.MULTIPLY, (x, row), kind, made)
    if maker is not None and maker.primitive is kernels.MATMUL:
        x, weight = maker.operands
        if len(edit.kinds[weight.number].shape) == 2 and is_wide(weight):
            weight = _scaled(weight, scale, uses, edit, made)
            return edit.instruction(kernels.MATMUL, (x, weight), kind, made)
    return edit.instruction(kernels.MULTIPLY, (operand, scale), kind, made)


def with_factors(program: Program) -> Program:
    """In the gradient  x - x y  becomes  x (1 - y),  and  (x y) z  becomes  x (y z).

    That is done where x alone depends on the step after: the factor can then be computed for all
    steps at once.
    """
    uses = _Uses(program)
    edit = _Edit(program)
    depends = set(program.seeds_of_states().values())
    #: What is x times a factor, as such.
    products: dict[int, tuple[Ref, Ref]] = {}
    for each in program.instructions[program.forward :]:
        if depends.isdisjoint(each.reads):
            continue
        depends.update(each.results)
        kind = program.kinds[each.results[0]]
        operands = [x for x in each.operands if isinstance(x, Ref) and edit.kinds[x.number] == kind]
        if len(operands) != 2 or len(each.operands) != 2:
            continue
        made: list[Instruction] = []
        x, other = operands
        readers = 1
        if (
            each.primitive is kernels.SUBTRACT
            and uses.only_once(other)
            and other.number in products
        ):
            inner, factor = products[other.number]
            if inner != x:
                continue
            factor = edit.instruction(kernels.SUBTRACT, (1.0, factor), kind, made)
            readers = 2  # the product is the other one
        elif each.primitive is kernels.MULTIPLY and len(depends & {x.number, other.number}) == 1:
            x, factor = (x, other) if x.number in depends else (other, x)
        else:
            continue
        if x.number in products and len(uses.readers[x.number]) == readers:
            x, before = products[x.number]
            factor = edit.instruction(kernels.MULTIPLY, (before, factor), kind, made)
        products[each.results[0]] = x, factor
        made.append(Instruction(kernels.MULTIPLY, (x, factor), {}, each.results))
        edit.replaced[each] = made
    return edit.done()


def with_rows_spread(program: Program) -> Program:
    """A vector that meets every row of what changes with time is spread out before.

    NumPy computes with two whole arrays twice as fast as with an array and a row.
    """
    edit = _Edit(program)
    seeds = [seed for seed in program.seeds if seed is not None]
    given = [*program.xs, *program.drawn, *program.states, *seeds]
    timed = changing(program.instructions, given)
    wide: dict[Any, Ref] = {}
    for each in program.instructions:
        if each.primitive not in kernels.UFUNCS or timed.isdisjoint(each.results):
            continue
        shape = program.kinds[each.results[0]].shape
        made: list[Instruction] = []

        def spread(x: Any, made: list[Instruction] = made, shape: Any = shape) -> Any:
            own = program.kinds[x.number] if isinstance(x, Ref) else None
            if own is None or x.number in timed or own.shape == shape or prod(own.shape) == 1:
                return x
            key = x.number, shape
            if key not in wide:
                kind = Kind(shape, own.dtype)
                wide[key] = edit.instruction(kernels.BROADCAST, (x,), kind, made, shape=shape)
            return wide[key]

        operands = tuple([spread(x) for x in each.operands])
        made.append(Instruction(each.primitive, operands, each.settings, each.results))
        edit.replaced[each] = made
    return edit.done()
