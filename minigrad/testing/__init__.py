"""Gradient testing by properties: gradients against differences, strategies, checks for leaks.

``strategies`` is imported on first use, since it needs hypothesis.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minigrad.testing.gradients import check_gradients, compare_gradients
from minigrad.testing.leaks import assert_no_leak
from minigrad.testing.report import GradientError, KinkError

if TYPE_CHECKING:
    from minigrad.testing import strategies

__all__ = [
    "GradientError",
    "KinkError",
    "assert_no_leak",
    "check_gradients",
    "compare_gradients",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":
        return import_module("minigrad.testing.strategies")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
