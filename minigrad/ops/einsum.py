"""Einstein's notation for sums of products.

Whatever the notation allows is first brought into a plain form, in which no operand repeats
a subscript, and each subscript of an operand is found in the result or in another operand,
with the same length. Of that form, the gradients are sums of the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

from minigrad.arrays import TensorLike, common_namespace
from minigrad.ops.matrices import diagonal
from minigrad.ops.reductions import sum
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, with_axes


@primitive
def _einsum(*operands: TensorLike, subscripts: str) -> Tensor:
    return common_namespace(*operands).einsum(subscripts, *operands, optimize=len(operands) > 1)


def _einsum_rule(g: Any, operands: tuple[Any, ...], subscripts: str, position: int) -> Any:
    """The result's subscripts change places with the operand's."""
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    own, terms[position] = terms[position], output
    factors = (*operands[:position], g, *operands[position + 1 :])
    return _einsum(*factors, subscripts=f"{','.join(terms)}->{own}")


_einsum.rules(operands=_einsum_rule)


@operation
def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """The sum of products that ``subscripts`` names:  "ij,jk->ik"  is a product of matrices.

    A letter names an axis. Axes of one letter run together, and those that the result does
    not have are summed over. Without "->" the result has the letters that occur once, in
    alphabetical order. "..." stands for any further axes, which broadcast.

    Raises ``ValueError`` if the subscripts do not fit the operands.

    >>> import minigrad as mg
    >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> mg.einsum("ii->i", x), mg.einsum("ij->j", x)
    (tensor([1., 4.]), tensor([4., 6.]))
    """
    if not isinstance(subscripts, str):
        raise TypeError("einsum: the subscripts come first, as a string such as 'ij,jk->ik'")
    xs = [with_axes(x) for x in operands]
    terms, output = _parsed(subscripts, xs)
    for i, term in enumerate(terms):
        xs[i], terms[i] = _without_repeats(xs[i], term)
    lengths = _lengths(subscripts, terms, xs)
    for i, (x, term) in enumerate(zip(xs, terms, strict=True)):
        stretched = {c for c, length in zip(term, x.shape, strict=True) if length != lengths[c]}
        xs[i], terms[i] = _summed_over(stretched, x, term)
    for i, (x, term) in enumerate(zip(xs, terms, strict=True)):
        elsewhere = {*output}.union(*terms[:i], *terms[i + 1 :])
        xs[i], terms[i] = _summed_over({*term} - elsewhere, x, term)
    return _einsum(*xs, subscripts=f"{','.join(terms)}->{output}")


def _parsed(subscripts: str, xs: Sequence[Any]) -> tuple[list[str], str]:
    """The subscripts of each operand and of the result, with letters in place of "..."."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = [letter for letter in ascii_letters if letter not in subscripts]
    further = [x.ndim - len(t.replace("...", "")) for x, t in zip(xs, terms, strict=False)]
    dots = "".join(free[: max([*further, 0])])
    if not arrow:
        once = [letter for letter in sorted({*inputs} - {*".,"}) if inputs.count(letter) == 1]
        output = "..." * ("..." in inputs) + "".join(once)
    full = []
    for some, term in zip(further, terms, strict=False):
        full.append(term.replace("...", dots[len(dots) - max(some, 0) :]))
    output = output.replace("...", dots if "..." in inputs else "")
    known = {*"".join(full)}
    if (
        len(terms) != len(xs)
        or any([len(term) != x.ndim for term, x in zip(full, xs, strict=True)])
        or not known <= {*ascii_letters}
        or not {*output} <= known
        or len({*output}) < len(output)
    ):
        shapes = ", ".join([str(x.shape) for x in xs])
        raise ValueError(f"einsum: {subscripts!r} does not fit operands of shapes {shapes}")
    return full, output


def _without_repeats(x: Any, term: str) -> tuple[Any, str]:
    """x with one axis, a diagonal, in place of several of one letter."""
    for letter in sorted({*term}):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ValueError(
                    f"einsum: the axes {letter!r} of an operand have different lengths, "
                    f"{x.shape[first]} and {x.shape[second]}"
                )
            x = diagonal(x, 0, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
    return x, term


def _lengths(subscripts: str, terms: Sequence[str], xs: Sequence[Any]) -> dict[str, int]:
    """The length of every letter's axes; those of length 1 broadcast."""
    lengths: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for letter, length in zip(term, x.shape, strict=True):
            known = lengths.setdefault(letter, length)
            if known == 1:
                lengths[letter] = length
            elif length not in (1, known):
                shapes = ", ".join([str(x.shape) for x in xs])
                raise ValueError(
                    f"einsum: the axes {letter!r} in {subscripts!r} have different lengths, "
                    f"{known} and {length}; the shapes are {shapes}"
                )
    return lengths


def _summed_over(letters: set[str], x: Any, term: str) -> tuple[Any, str]:
    """x without the axes of these letters."""
    axes = tuple([i for i, letter in enumerate(term) if letter in letters])
    if not axes:
        return x, term
    return sum(x, axis=axes), "".join([letter for letter in term if letter not in letters])
