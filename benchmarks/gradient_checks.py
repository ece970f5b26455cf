"""How many planted mistakes a gradient check finds, and how often it cries wolf.

    python benchmarks/gradient_checks.py [--examples 10000]

Prints two things. The planted mistakes of ``tests/testing/planted_mistakes.py``: at which
drawn example, of at most 20, minigrad's ``check_gradients`` finds each, and beside it torch's
``gradcheck`` and ``gradgradcheck`` on the same function and the same examples, where torch is
installed; all at their default settings. And the false alarms of ``check_gradients`` over
``tests/engine/operation_table.py``, whose derivatives are right.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "engine"), str(TESTS / "testing")]

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from operation_table import TABLE, Row
from planted_mistakes import EXAMPLES, MISTAKES, Array, Mistake

from minigrad.testing import GradientError, check_gradients


def torch_look(mistake: Mistake, check: str) -> Callable[[list[Array], int], bool]:
    """Whether a check of torch finds the mistake at given inputs."""
    import torch

    assert mistake.torch is not None
    function = mistake.torch()

    def look(inputs: list[Array], number: int) -> bool:
        torch.manual_seed(number)
        tensors = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
        try:
            getattr(torch.autograd, check)(function, tensors)
        except (RuntimeError, ValueError):  # GradcheckError is one
            return True
        return False

    return look


def report_mistakes() -> None:
    """The table of planted mistakes, and its last line."""
    try:
        from torch.autograd import gradcheck  # noqa: F401
    except ImportError:
        checks: tuple[str, ...] = ()
    else:
        checks = ("gradcheck", "gradgradcheck")
    print(f"{'planted mistake':<84}{'minigrad':>9}" + "".join(f"{name:>15}" for name in checks))
    counts = dict.fromkeys(("minigrad", *checks), 0)
    comparable = either = 0
    for mistake in MISTAKES:
        found: dict[str, Any] = {"minigrad": mistake.found_at(mistake.caught)}
        comparable += mistake.torch is not None
        for check in checks:
            found[check] = "-"
            if mistake.torch is not None:
                found[check] = mistake.found_at(torch_look(mistake, check))
        for name, number in found.items():
            counts[name] += isinstance(number, int)
        either += any(isinstance(found[check], int) for check in checks)
        texts = ["missed" if number is None else str(number) for number in found.values()]
        print(f"{mistake.name:<84}{texts[0]:>9}" + "".join(f"{text:>15}" for text in texts[1:]))
    print(f"minigrad: {counts['minigrad']} of {len(MISTAKES)} found within {EXAMPLES} examples")
    for check in checks:
        print(f"torch {check}: {counts[check]} of the {comparable} that it can be given")
    if checks:
        print(f"torch, by one or the other: {either} of {comparable}")


def report_false_alarms(examples: int) -> None:
    """The number of alarms over the operation table."""
    rows = [row for row in TABLE if row.differentiable and row.exact]
    each = -(-examples // len(rows))
    alarms: list[str] = []
    drawn = [0]
    start = time.perf_counter()
    for row in rows:
        count_alarms(row, each, alarms, drawn)
    seconds = time.perf_counter() - start
    print(
        f"false alarms: {len(alarms)} in {drawn[0]} examples of {len(rows)} operations, "
        f"{1e3 * seconds / drawn[0]:.1f} ms each"
    )
    for alarm in alarms:
        print(alarm)


def count_alarms(row: Row, examples: int, alarms: list[str], drawn: list[int]) -> None:
    """Check a row of the table at drawn inputs."""

    @seed(0)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(row.inputs(), st.integers(0, 2**32 - 1))
    def check(inputs: list[Array], number: int) -> None:
        drawn[0] += 1
        try:
            check_gradients(row.call, *inputs, seed=number, kinks="raise")
        except (GradientError, ValueError) as error:  # of which KinkError is one
            alarms.append(f"{row} at {[x.shape for x in inputs]}: {error}")

    check()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=10_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    report_mistakes()
    report_false_alarms(options.examples)
