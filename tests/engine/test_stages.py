"""The stages of a program: what is run when, and products that are computed in blocks."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from inspect import cleandoc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_steps import Step, leaf
from small_steps import W, b, joined, parts, positions, recorded, s
from transfer import on_device, to_host

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, scanning
from minigrad.arrays import small_products_are_fast
from minigrad.scanning import kernels, playing, pool
from minigrad.scanning.blocks import Blocks, blocks_of, matmul_in_blocks, shapes_of_matrix
from minigrad.scanning.playing import _place_operands
from minigrad.scanning.program import Instruction, Kind, Program, changing
from minigrad.scanning.stages import Stages, stages, with_products_in_blocks


def staged(
    program: Program,
    in_loop: Callable[[Instruction], bool] = lambda each: False,
    wanted: list[int] | None = None,
) -> Stages:
    """The stages of a step without a gradient."""
    return stages(
        program.instructions,
        lambda each: kernels.viewed(each, program.kinds) is not None,
        in_loop,
        program.xs,
        program.states,
        program.new_states,
        program.ys if wanted is None else wanted,
    )


def assert_stages(found: Stages, text: str) -> None:
    lines = [f"{name}: {each}" for name, stage in found._asdict().items() for each in stage]
    assert lines == cleandoc(text).splitlines()


def test_what_does_not_depend_on_the_state_is_not_in_the_loop() -> None:
    def step(x: Any, h: Any) -> Any:
        h = mg.tanh(mg.exp(x) @ W.T + h @ (s * W).T)
        return (h * x, s * b), h

    assert_stages(
        staged(recorded(step)),
        """
        once: #4 = transpose(#3, axes=None)
        once: #7 = multiply(#6, #3)
        once: #8 = transpose(#7, axes=None)
        once: #14 = multiply(#6, #13)
        before: #2 = exp(#0)
        before: #5 = matmul(#2, #4)
        loop: #9 = matmul(#1, #8)
        loop: #10 = add(#5, #9)
        loop: #11 = tanh(#10)
        after: #12 = multiply(#11, #0)
        """,
    )


def test_what_is_computed_in_a_place_is_computed_of_what_lies_there() -> None:
    program = recorded(lambda x, h: ((), mg.tanh(h + x * (s * W[:2] + mg.exp(x)))))
    found = staged(program)
    numbers = {each.primitive.name: each.results[0] for each in found.before}
    assert [*numbers] == ["exp", "add", "multiply"]
    places: dict[int, Any] = {numbers["multiply"]: "there"}
    _place_operands(found, places, set(), program.kinds)
    assert places == dict.fromkeys(numbers.values(), "there")


def test_a_view_is_in_every_stage_that_reads_it() -> None:
    def step(x: Any, h: Any) -> Any:
        first, second = parts(mg.exp(x))
        return first, joined(second, second) * h

    assert_stages(
        staged(recorded(step)),
        """
        before: #2 = exp(#0)
        before: #3, #4 = split(#2, bounds=(0, 2, 4), axis=1)
        before: #5 = concatenate(#4, #4, axis=1, bounds=(0, 2, 4))
        loop: #6 = multiply(#5, #1)
        after: #3, #4 = split(#2, bounds=(0, 2, 4), axis=1)
        """,
    )


def test_what_could_run_before_the_loop_may_run_in_it() -> None:
    program = recorded(lambda x, h: ((), mg.tanh(mg.exp(x)) * h))
    assert_stages(
        staged(program, lambda each: each.primitive is kernels.TANH),
        """
        before: #2 = exp(#0)
        loop: #3 = tanh(#2)
        loop: #4 = multiply(#3, #1)
        """,
    )


def test_unless_something_else_before_the_loop_needs_it() -> None:
    program = recorded(lambda x, h: ((), (e := mg.tanh(mg.exp(x))) * h + e @ W))
    assert_stages(
        staged(program, lambda each: each.primitive in kernels.ELEMENTWISE),
        """
        before: #2 = exp(#0)
        before: #3 = tanh(#2)
        before: #6 = matmul(#3, #5)
        loop: #4 = multiply(#3, #1)
        loop: #7 = add(#4, #6)
        """,
    )


def test_what_could_run_after_the_loop_may_run_in_it_if_all_it_reads_is_there() -> None:
    def step(x: Any, h: Any) -> Any:
        first, _ = parts(square := mg.square(h))
        return (mg.tanh(first), mg.tanh(mg.sin(h)), mg.tanh(x), mg.tanh(square @ W)), x * h

    assert_stages(
        staged(recorded(step), lambda each: each.primitive in (kernels.TANH, kernels.SQUARE)),
        """
        loop: #2 = square(#1)
        loop: #3, #4 = split(#2, bounds=(0, 2, 4), axis=1)
        loop: #5 = tanh(#3)
        loop: #12 = multiply(#0, #1)
        after: #6 = sin(#1)
        after: #7 = tanh(#6)
        after: #8 = tanh(#0)
        after: #10 = matmul(#2, #9)
        after: #11 = tanh(#10)
        """,
    )


def test_a_copy_is_made_in_the_loop_and_what_nobody_wants_nowhere() -> None:
    program = recorded(lambda x, h: (mg.tanh(h), x.detach()))
    assert_stages(staged(program, wanted=[]), "loop: #3 = copy(#0 detached)")
    assert_stages(staged(program), "loop: #3 = copy(#0 detached)\nafter: #2 = tanh(#1)")


# -------------------------------------------------------------------------- products in blocks

whole_wide = mg.tensor(np.arange(192 * 768).reshape(192, 768))
wide, long = leaf(192, 768, seed=7), leaf(2048, 64, seed=10)
many, many_more = leaf(32, 192, seed=8), leaf(32, 768, seed=9)


def in_blocks(step: Step, x: Tensor, h: Tensor) -> tuple[Stages, list[Kind]]:
    program = recorded(step, x, h)
    timed = changing(program.instructions, [*program.xs, *program.states])
    kinds = [*program.kinds]
    return with_products_in_blocks(staged(program), kinds, timed), kinds


def test_a_product_of_a_step_is_cut_into_blocks() -> None:
    found, kinds = in_blocks(lambda x, h: ((), (x + h @ wide) @ wide.T), many_more, many)
    assert_stages(
        found,
        """
        once: #5 = transpose(#2, axes=None)
        once: #7 = reshape(#2, shape=(1, 192, 12, 1, 64))
        once: #8 = transpose(#7, axes=(0, 2, 3, 1, 4))
        once: #9 = reshape(#5, shape=(1, 768, 3, 1, 64))
        once: #10 = transpose(#9, axes=(0, 2, 3, 1, 4))
        loop: #3 = matmul_in_blocks(#1, #8, parts=1, rows=32, columns=64)
        loop: #4 = add(#0, #3)
        loop: #6 = matmul_in_blocks(#4, #10, parts=1, rows=16, columns=64)
        """,
    )
    assert [kinds[n].shape for n in (8, 10)] == [(1, 12, 1, 192, 64), (1, 3, 1, 768, 64)]


def test_a_product_with_long_sums_is_cut_into_parts_too() -> None:
    found, kinds = in_blocks(lambda x, h: ((), h + x @ long), leaf(64, 2048), leaf(64, 64))
    assert_stages(
        found,
        """
        before: #3 = matmul(#0, #2)
        loop: #4 = add(#1, #3)
        """,
    )
    found, kinds = in_blocks(lambda x, h: ((), h @ long @ long.T), leaf(64, 64), leaf(64, 2048))
    assert_stages(
        found,
        """
        once: #4 = transpose(#2, axes=None)
        once: #6 = reshape(#2, shape=(2, 1024, 1, 1, 64))
        once: #7 = transpose(#6, axes=(0, 2, 3, 1, 4))
        once: #9 = reshape(#4, shape=(1, 64, 32, 1, 64))
        once: #10 = transpose(#9, axes=(0, 2, 3, 1, 4))
        loop: #8 = matmul_in_blocks(#1, #7, parts=2, rows=8, columns=64)
        loop: #3 = sum(#8, axis=(0,), keepdims=False)
        loop: #5 = matmul_in_blocks(#3, #10, parts=1, rows=64, columns=64)
        """,
    )
    assert [kinds[n].shape for n in (7, 8)] == [(2, 1, 1, 1024, 64), (2, 64, 64)]


def test_a_matrix_that_is_read_twice_is_cut_once() -> None:
    found, _ = in_blocks(lambda x, h: ((), (h @ wide + (2.0 * h) @ wide)[:, :192]), many, many)
    assert [each.primitive.name for each in found.once] == ["reshape", "transpose"]
    assert [each.primitive.name for each in found.loop].count("matmul_in_blocks") == 2


@pytest.mark.parametrize(
    "step",
    [
        lambda x, h: ((), (h @ (x.T @ x @ wide))[:, :192]),  # changes with time
        lambda x, h: ((), (h @ (wide * h.sum()))[:, :192]),  # is made in the loop
        lambda x, h: ((), (h[:4] @ wide[:, :100]).sum() + h),  # is small
        lambda x, h: ((), (h[:1] @ wide)[:, :192] + h),  # a single row
        lambda x, h: ((), (h[None] @ wide)[0, :, :192]),  # a batch of matrices
        lambda x, h: ((), (h @ wide[:, 0]).sum() + h),  # a vector
        lambda x, h: ((), (h @ wide[:, :751])[:, :192]),  # no blocks of one width
        lambda x, h: (x @ wide, h),  # for all steps at once
        lambda x, h: ((), (h @ whole_wide)[:, :192]),  # with whole numbers
    ],
)
def test_these_products_are_not_cut(step: Step) -> None:
    found, kinds = in_blocks(step, many, many)
    assert not [e for e in found.loop if e.primitive is matmul_in_blocks]
    assert len(kinds) == len(recorded(step, many, many).kinds)


@given(rows=st.integers(1, 300), inner=st.integers(1, 3000), columns=st.integers(1, 6000))
def test_blocks_are_of_a_size_that_is_computed_without_copies(
    rows: int, inner: int, columns: int
) -> None:
    size = blocks_of(rows, inner, columns)
    if rows * inner * columns <= 10**6:
        assert size is None
    if size is not None:
        assert inner % size.parts == rows % size.rows == columns % size.columns == 0
        assert size.rows * (inner // size.parts) * size.columns <= 10**6
        assert size.columns <= 80


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((32, 192, 768), (1, 32, 64)),
        ((20, 650, 2600), (1, 20, 65)),  # no width by the 32
        ((20, 2600, 650), (4, 20, 65)),  # rows by the 4
        ((64, 2048, 512), (2, 8, 64)),
        ((32, 6144, 2048), (4, 8, 64)),
        ((50, 2048, 512), (2, 10, 64)),  # no rows by the 4
        ((4, 768, 3072), (1, 4, 64)),  # all rows, though there are few
        ((80, 1150, 4600), None),  # no such width at all
        ((1, 650, 2600), None),
        ((100, 10, 1000), None),  # small as it is
    ],
)
def test_sizes_of_blocks(shape: tuple[int, int, int], size: tuple[int, int, int] | None) -> None:
    assert blocks_of(*shape) == (size and Blocks(*size))


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("rows", [2, 3, 6])
def test_a_product_in_blocks_is_the_product(
    rows: int, parts: int, rng: np.random.Generator
) -> None:
    x, matrix = rng.normal(size=(6, 10)), rng.normal(size=(10, 8))
    size = Blocks(parts, rows, 4)
    shape, axes, _ = shapes_of_matrix(10, 8, size)
    cut = on_device(matrix.reshape(shape).transpose(axes).copy())
    found = to_host(matmul_in_blocks.forward(on_device(x), cut, **size._asdict()))
    np.testing.assert_allclose(found if parts == 1 else found.sum(0), x @ matrix, rtol=1e-12)


@pytest.mark.host
def test_products_in_blocks_are_products(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    cell = rnn.LSTMCell(5, 80, dtype="float64", rng=0)
    xs = mg.tensor(rng.normal(size=(4, 70, 5)), requires_grad=True)
    state = cell.initial_state(70)
    found = []
    for fast in (True, False):
        monkeypatch.setattr(playing, "small_products_are_fast", lambda fast=fast: fast)
        monkeypatch.setattr(pool, "_plans", OrderedDict())
        monkeypatch.setattr(pool, "_free", OrderedDict())
        monkeypatch.setattr(pool, "_held", 0)
        assert ("matmul_in_blocks" in str(scanning.plan(cell, state, xs))) is fast
        monkeypatch.setattr(pool, "_plans", OrderedDict())
        with mg.Tape() as tape:
            ys, last = mg.scan(cell, state, xs)
            loss = (ys * ys).sum() + last[1].sum()
        found.append([ys, *tape.gradient(loss, [xs, *cell.parameters()])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-12, atol=1e-12)


OPENBLAS = {"internal_api": "openblas", "num_threads": 1}


@pytest.mark.host
@pytest.mark.parametrize(
    ("name", "features", "libraries", "fast"),
    [
        ("scipy-openblas", ["X86_V3", "X86_V4"], [OPENBLAS, {"internal_api": "openmp"}], True),
        ("openblas", ["AVX2", "AVX512_SKX"], [OPENBLAS], True),
        ("scipy-openblas", ["X86_V3"], [OPENBLAS], False),
        ("mkl", ["X86_V4"], [OPENBLAS], False),
        ("scipy-openblas", ["X86_V4"], [OPENBLAS, OPENBLAS | {"num_threads": 2}], False),
    ],
)
def test_small_products_are_fast_on_one_thread_of_openblas_with_avx512(
    name: str,
    features: list[str],
    libraries: list[dict[str, Any]],
    fast: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threadpoolctl

    config = {
        "Build Dependencies": {"blas": {"name": name}},
        "SIMD Extensions": {"found": features},
    }
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: libraries)
    assert small_products_are_fast() is fast


@pytest.mark.host
@pytest.mark.parametrize(("threads", "fast"), [("1", True), ("2", False), (None, False)])
def test_without_threadpoolctl_the_environment_says_how_many_threads_there_are(
    threads: str | None, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "Build Dependencies": {"blas": {"name": "scipy-openblas"}},
        "SIMD Extensions": {"found": ["X86_V4"]},
    }
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    assert small_products_are_fast() is fast


def test_what_changes_is_what_is_given_and_what_is_made_of_it() -> None:
    program = recorded(lambda x, h: (s * W, mg.tanh(x @ (W * b)) * h[:, positions]))
    made = {str(each).partition("(")[0]: each.results[0] for each in program.instructions}
    assert made.keys() == {"#4 = multiply", "#6 = multiply", "#7 = matmul", "#8 = tanh"} | {
        "#10 = getitem",
        "#11 = multiply",
    }
    assert changing(program.instructions, []) == set()
    assert changing(program.instructions, [0]) == {0, 7, 8, 11}
    assert changing(program.instructions, [1]) == {1, 10, 11}
    assert changing(program.instructions, [9]) == {9, 10, 11}
