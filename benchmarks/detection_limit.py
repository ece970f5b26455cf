"""How small a mistake check_gradients finds, and what it says of right functions that are hard.

    python benchmarks/detection_limit.py [--functions 1000]

Draws chains of up to four operations with inputs from 1e-6 to 1e6, outputs scaled by 1e-8 to
1e8, saturation, and cancellation by up to 1e7. Each chain is right, and checked as it is. Then
the gradient of one element is made wrong by a relative 1e-2, 1e-4 and 1e-6, in first order, and
in second order alone; counted are the mistakes whose part of the derivative is above 1e-2 of
the function. What cancellation hides from differences is missed, and told here.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.testing import GradientError, KinkError, check_gradients

MISTAKES = (1e-2, 1e-4, 1e-6)
#: A mistake counts if its part of the derivative is above this part of the function.
SHARE = 1e-2

Function = Callable[[Any], Any]

#: What a chain is made of: y, a factor c, a matrix w and a large number b to the next y.
LINKS: dict[str, Callable[..., Any]] = {
    "tanh": lambda y, c, w, b: mg.tanh(c * y),
    "saturated": lambda y, c, w, b: mg.tanh(10.0 * c * y),
    "softmax": lambda y, c, w, b: mg.softmax(c * y),
    "exp": lambda y, c, w, b: mg.exp(mg.tanh(y) * min(c, 20.0)),
    "log": lambda y, c, w, b: mg.log(y * y + c * 1e-3),
    "sqrt": lambda y, c, w, b: mg.sqrt(y * y + c * 1e-3),
    "matmul": lambda y, c, w, b: w @ y,
    "square": lambda y, c, w, b: y * y,
    "cube": lambda y, c, w, b: y**3,
    "cancel": lambda y, c, w, b: (y + b) - b,
    "sigmoid": lambda y, c, w, b: mg.sigmoid(c * y),
    "sin": lambda y, c, w, b: mg.sin(c * y),
    "divide": lambda y, c, w, b: y / (1.0 + mg.sum(y * y)),
    "normalise": lambda y, c, w, b: y / mg.sqrt(mg.sum(y * y) + 1e-5),
    "logsumexp": lambda y, c, w, b: y - mg.logsumexp(c * y),
    "standardise": lambda y, c, w, b: (y - mg.mean(y)) / mg.sqrt(mg.var(y) + 1e-5),
    "cumsum": lambda y, c, w, b: mg.cumsum(y),
    "product": lambda y, c, w, b: y * mg.sum(y),
    "logcosh": lambda y, c, w, b: mg.softplus(c * y) + mg.softplus(-c * y) - c * y,
    "power": lambda y, c, w, b: (y * y + 0.1) ** (0.1 * c),
    "gelu": lambda y, c, w, b: mg.gelu(c * y),
    "softplus": lambda y, c, w, b: mg.softplus(c * y),
}


@mg.primitive
def wrong_from_order_2(x: Any, /, factors: Any) -> Any:
    """x, whose gradient is right, and whose second derivative is off by ``factors``."""
    return x


wrong_from_order_2.rules(x=lambda g, x, factors: g * (1.0 + factors * (x - mg.detach(x))))


def off_in_order_1(function: Function, factors: Any, x: Any) -> Any:
    """The function, with its gradient off by ``factors``."""
    return function(mg.scale_gradient(x, factors))


def off_in_order_2(function: Function, factors: Any, x: Any) -> Any:
    """The function, with its second derivative off."""
    return function(wrong_from_order_2(x, factors))


def chain(rng: np.random.Generator) -> tuple[Function, Any]:
    """A random function, and its input."""
    n = int(rng.integers(1, 7))
    scale, out = 10.0 ** rng.uniform(-6.0, 6.0), 10.0 ** rng.uniform(-8.0, 8.0)
    x = scale * rng.normal(size=n)
    large = 10.0 ** rng.uniform(0.0, 7.0)
    names = rng.choice(list(LINKS), size=rng.integers(1, 5))
    links = [(LINKS[k], 10.0 ** rng.uniform(-1.0, 1.5), rng.normal(size=(n, n))) for k in names]

    def function(x: Any) -> Any:
        y = x / scale
        for link, c, w in links:
            y = link(y, c, w, large)
        return out * y

    return function, x


def verdict(function: Function, x: Any, seed: int) -> str:
    """What the check says."""
    try:
        check_gradients(function, x, seed=seed)
    except KinkError:
        return "refused"
    except GradientError as error:
        text = str(error)
        return "refused" if "have about" in text or " is inf at" in text else "wrong"
    return "right"


def share_of(function: Function, x: Any, place: int) -> float:
    """How large the part of one element is in the derivative, beside the function."""
    jacobian = mg.jacobian(function)(mg.tensor(x)).numpy().reshape(-1, x.size)
    size = np.abs(x).max()
    largest = max(np.abs(function(mg.tensor(x)).numpy()).max(), np.abs(jacobian).max() * size)
    return float(np.abs(jacobian[:, place]).max() * size / largest) if largest else 0.0


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--functions", type=int, default=1000)
    arguments = parser.parse_args()
    verdicts: Counter[str] = Counter()
    found: Counter[tuple[int, float, str]] = Counter()
    for number in range(arguments.functions):
        rng = np.random.default_rng([number, 77])
        function, x = chain(rng)
        said = verdict(function, x, number)
        verdicts[said] += 1
        place = int(rng.integers(x.size))
        if said != "right" or share_of(function, x, place) < SHARE:
            continue
        for mistake in MISTAKES:
            factors = np.zeros(x.size)
            factors[place] = mistake
            for order, wrong in (
                (1, partial(off_in_order_1, function, 1.0 + factors)),
                (2, partial(off_in_order_2, function, factors / np.abs(x).max())),
            ):
                found[order, mistake, verdict(wrong, x, number + 1)] += 1
    print(
        "right functions:", ", ".join(f"{verdicts[v]} {v}" for v in ("right", "refused", "wrong"))
    )
    for order in (1, 2):
        for mistake in MISTAKES:
            counts = {v: found[order, mistake, v] for v in ("wrong", "refused", "right")}
            print(
                f"a mistake of {mistake:.0e} in order {order}: {counts['wrong']} of "
                f"{sum(counts.values())} found, {counts['refused']} refused"
            )


if __name__ == "__main__":
    main()
