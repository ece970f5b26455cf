"""What CuPy offers, as functions that check the arguments of a call."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

TABLE: dict[str, Any] = json.loads(
    Path(__file__).with_name("offered.json").read_text(encoding="utf-8")
)


def offered(owner: str, name: str) -> Any:
    """What the table says of a name; ``AttributeError`` if CuPy does not have it."""
    try:
        return TABLE[owner][name]
    except KeyError:
        raise AttributeError(f"{owner} has no attribute {name!r}") from None


@cache
def checked(owner: str, name: str) -> Callable[..., None]:
    """A function that raises ``TypeError`` for arguments that CuPy's does not take."""
    parameters = offered(owner, name)
    if parameters is None:
        raise AssertionError(f"the parameters of {owner}.{name} are not known")
    # Python checks a call of a function of its own several times faster than a Signature does.
    written = ", ".join(text + "None" if text.endswith("=") else text for text in parameters)
    check: Callable[..., None] = eval(f"lambda {written}: None")
    check.__qualname__ = f"{owner}.{name}"
    return check
