"""What CuPy offers, as functions that check the arguments of a call."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
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
    signature = _signature(parameters)

    def check(*args: Any, **settings: Any) -> None:
        try:
            signature.bind(*args, **settings)
        except TypeError as error:
            raise TypeError(f"{owner}.{name}: {error}") from None

    return check


def _signature(parameters: Sequence[str]) -> inspect.Signature:
    kind = inspect.Parameter
    positional: Any = kind.POSITIONAL_OR_KEYWORD
    made: list[inspect.Parameter] = []
    for text in parameters:
        name = text.strip("*=")
        if text == "/":
            made = [p.replace(kind=kind.POSITIONAL_ONLY) for p in made]
        elif text == "*":
            positional = kind.KEYWORD_ONLY
        elif text.startswith("**"):
            made.append(kind(name, kind.VAR_KEYWORD))
        elif text.startswith("*"):
            made.append(kind(name, kind.VAR_POSITIONAL))
            positional = kind.KEYWORD_ONLY
        else:
            made.append(kind(name, positional, default=None if "=" in text else kind.empty))
    return inspect.Signature(made)
