"""Small tensors, and the programs of steps over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from random_steps import Step, leaf

import minigrad as mg
from minigrad import Tensor
from minigrad.scanning.program import Program
from minigrad.scanning.recording import record

# In printed programs #0 is x and #1 the state; #2 and so on are what else the step uses and makes.
x, h = leaf(2, 4), leaf(2, 4, seed=1)
W, b, column, s = leaf(4, 4, seed=2), leaf(4, seed=3), leaf(2, 1, seed=4), leaf(seed=5)
full, whole_numbers, positions = (
    leaf(2, 4, seed=6),
    mg.tensor(np.arange(8).reshape(2, 4)),
    mg.tensor([0, 0, 1, 2]),
)


def recorded(step: Step, x: Tensor = x, h: Tensor = h) -> Program:
    return record(step, x, h).program


def parts(t: Any, split: Any = 2) -> Any:
    return mg.split(t, split, axis=-1)


def joined(*each: Any) -> Tensor:
    return mg.concatenate(each, axis=-1)
