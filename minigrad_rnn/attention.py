"""Attention: a mean over the steps of one sequence, weighted by what reads it.

What a decoder reads, the keys and values, is the same at all of its steps. So it is prepared
once (:meth:`Attention.prepare`), and every step attends to that (:meth:`Attention.attend`), as
cells project all inputs before the first step.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any, NamedTuple

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells import State
from minigrad_rnn.unrolling import Step, blanked, valid_steps


class Memory(NamedTuple):
    """What is attended to, prepared once for all queries; the first axis of each part is batch.

    Attributes:
        keys: (batch, time, ...), as the scores need them.
        values: (batch, time, value_size).
        valid: (batch, 1, time) booleans, False at padding; ``None`` without padding.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None


class Attention(nn.Module):
    """What all kinds of attention share: a subclass says how well a key answers a query.

        weights = softmax over the time of  score(query, key)
        context = sum over the time of  weight value

    A subclass writes :meth:`project` and :meth:`scores`.

    Padding has weight 0 and gets gradient 0, whatever stands there, NaN included.

    Args:
        query_size, key_size: the number of features of a query, and of a key.

    Raises ``ValueError`` if a size is below 1.
    """

    def __init__(self, query_size: int, key_size: int) -> None:
        if query_size < 1 or key_size < 1:
            raise ValueError(
                f"query_size and key_size are at least 1, not {query_size} and {key_size}"
            )
        self.query_size = query_size
        self.key_size = key_size

    def project(self, keys: Tensor) -> Tensor:
        """What the scores need of the keys, (time, batch, key_size) -> (batch, time, ...)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method project")

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(batch, steps, query_size) and the projected keys -> (batch, steps, time)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method scores")

    def prepare(
        self, keys: Tensor, values: Tensor | None = None, *, lengths: Any = None, mask: Any = None
    ) -> Memory:
        """The keys and values, ready for any number of queries; arguments as in :meth:`forward`."""
        values = keys if values is None else values
        name = type(self).__name__
        if keys.ndim != 3 or not keys.shape[0] or keys.shape[2] != self.key_size:
            raise ValueError(
                f"{name} expects keys (time, batch, {self.key_size}) of at least one step, not "
                f"{keys.shape}"
            )
        if values.ndim != 3 or values.shape[:2] != keys.shape[:2]:
            raise ValueError(
                f"{name} expects values (time, batch, ...) as keys, {keys.shape[:2]}, not "
                f"{values.shape}"
            )
        valid = valid_steps(keys, lengths, mask)
        if valid is not None:
            if valid.device == "cpu" and not valid.array.any(0).all():
                raise ValueError(f"{name}: a sequence of the mask has no step to attend to")
            same = values is keys
            keys = blanked(valid, keys)
            values = keys if same else blanked(valid, values)
            valid = valid.to(keys.device).T[:, None]
        return Memory(self.project(keys), mg.swapaxes(values, 0, 1), valid)

    def attend(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The context and the weights for one query, or those of all steps, on what is prepared.

        A memory of one sequence serves queries of any batch.
        """
        if (
            query.ndim not in (2, 3)
            or query.shape[-1] != self.query_size
            or memory.values.shape[0] not in (1, query.shape[-2])
        ):
            raise ValueError(
                f"{type(self).__name__} expects a query ({memory.values.shape[0]}, "
                f"{self.query_size}), with the steps before that if there are many, not "
                f"{query.shape}"
            )
        if query.ndim == 2:
            context, weights = self._attend(mg.expand_dims(query, 1), memory)
            return mg.squeeze(context, 1), mg.squeeze(weights, 1)
        context, weights = self._attend(mg.swapaxes(query, 0, 1), memory)
        return mg.swapaxes(context, 0, 1), mg.swapaxes(weights, 0, 1)

    def _attend(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """(batch, steps, value_size) and (batch, steps, time)"""
        scores = self.scores(queries, memory.keys)
        if memory.valid is not None:
            scores = mg.where(memory.valid, scores, -inf)
        weights = mg.softmax(scores)
        return weights @ memory.values, weights

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor | None = None,
        *,
        lengths: Any = None,
        mask: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """The context and the weights.

        Args:
            query: (batch, query_size) for one step of what reads, or (steps, batch,
                query_size) for all of them.
            keys: (time, batch, key_size), such as the outputs of an encoder.
            values: (time, batch, value_size); the keys by default.
            lengths: (batch,), how many steps of each sequence of keys are valid, at least 1.
            mask: instead of lengths, (time, batch) booleans, True at valid steps.

        Returns the context (batch, value_size) and the weights (batch, time), or for all steps
        (steps, batch, value_size) and (steps, batch, time).

        Raises ``ValueError`` if a shape or length does not suit, or a sequence has no valid
        step; ``TypeError`` if lengths are not integers or a mask is not boolean.
        """
        return self.attend(query, self.prepare(keys, values, lengths=lengths, mask=mask))

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.query_size}, {self.key_size}"


class DotAttention(Attention):
    """Dot-product attention:  score = query . key,  or with ``general``  query . W key.

    Luong, Pham and Manning, Effective approaches to attention-based neural machine
    translation, 2015. With ``scaled`` the scores are divided by the square root of query_size,
    so that they do not grow with it: Vaswani et al., Attention is all you need, 2017.

    Args:
        query_size: the number of features of a query.
        key_size: the number of features of a key; query_size by default.
        general: whether there is a W.
        scaled: whether the scores are scaled.
        dtype, device, rng: those of W; see ``minigrad.nn.Linear``.

    Attributes:
        key: the ``Linear`` with W, (query_size, key_size), as its weight; or ``None``.

    Raises ``ValueError`` if a size is below 1, or the sizes differ and there is no W.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> keys = mg.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> context, weights = rnn.DotAttention(2)(mg.tensor([[9.0, 0.0]]), keys)
    >>> mg.round(weights, 3)
    tensor([[1., 0.]])
    """

    def __init__(
        self,
        query_size: int,
        key_size: int | None = None,
        *,
        general: bool = False,
        scaled: bool = False,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        key_size = query_size if key_size is None else key_size
        super().__init__(query_size, key_size)
        if not general and key_size != query_size:
            raise ValueError(
                f"a dot product needs a query and a key of one size, not {query_size} and "
                f"{key_size}: write general=True, which makes the one from the other"
            )
        made = {"dtype": dtype, "device": device, "rng": rng}
        self.key = nn.Linear(key_size, query_size, bias=False, **made) if general else None
        self.scaled = scaled

    def project(self, keys: Tensor) -> Tensor:
        """W key, scaled; (time, batch, key_size) -> (batch, query_size, time)"""
        if self.key is not None:
            keys = self.key(keys)
        if self.scaled:
            keys = keys * (1.0 / sqrt(self.query_size))
        return mg.transpose(keys, (1, 2, 0))

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """query . key"""
        return queries @ keys

    def extra_repr(self) -> str:
        """The sizes, and the options that are used."""
        general = "" if self.key is None else ", general=True"
        return super().extra_repr() + general + (", scaled=True" if self.scaled else "")


class AdditiveAttention(Attention):
    """Additive attention:  score = v . tanh(W query + U key).

    Bahdanau, Cho and Bengio, Neural machine translation by jointly learning to align and
    translate, 2015.

    Args:
        query_size, key_size: the number of features of a query, and of a key.
        hidden_size: the number of features of v.
        dtype, device, rng: those of the weights; see ``minigrad.nn.Linear``.

    Attributes:
        query, key, score: the ``Linear`` with W (hidden_size, query_size), U (hidden_size,
            key_size) and v (1, hidden_size) as their weight.

    Raises ``ValueError`` if a size is below 1.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> attention = rnn.AdditiveAttention(3, 2, hidden_size=4, rng=0)
    >>> keys = mg.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> context, weights = attention(mg.tensor([[1.0, 2.0, 3.0]]), keys, lengths=[1])
    >>> weights
    tensor([[1., 0.]])
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        hidden_size: int,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        super().__init__(query_size, key_size)
        if hidden_size < 1:
            raise ValueError(f"hidden_size is at least 1, not {hidden_size}")
        made = {"dtype": dtype, "device": device, "rng": nn.init.generator(rng)}
        self.query = nn.Linear(query_size, hidden_size, bias=False, **made)
        self.key = nn.Linear(key_size, hidden_size, bias=False, **made)
        self.score = nn.Linear(hidden_size, 1, bias=False, **made)

    def project(self, keys: Tensor) -> Tensor:
        """U key, (time, batch, key_size) -> (batch, time, hidden_size)"""
        return mg.swapaxes(self.key(keys), 0, 1)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """v . tanh(W query + U key), of every query with every key"""
        sums = mg.expand_dims(self.query(queries), 2) + mg.expand_dims(keys, 1)
        return mg.squeeze(self.score(mg.tanh(sums)), 3)


class AttentionCell(nn.Module):
    """A decoder's step: a cell, attention by what it gives, and the result fed back into it.

        y, state = cell([x, h], state)                 h is what the step before has given
        context, weights = attention(y, memory)
        h' = tanh(W [context, y])

    Feeding h back tells the cell what was attended to: the input feeding of Luong, Pham and
    Manning, Effective approaches to attention-based neural machine translation, 2015.

    Args:
        cell: any function or module that maps (x, state) to (y, state), where x has the
            features of the decoder's x and of h, and y those of the attention's query.
        attention: what makes the context.
        output_size: the number of features of h; that of a query by default.
        value_size: the number of features of a value; that of a key by default.
        dtype, device, rng: those of W; see ``minigrad.nn.Linear``.

    Attributes:
        combine: the ``Linear`` with W, (output_size, value_size + query_size), as its weight.

    The step of an encoder-decoder, for all targets at once and for one after the other:

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> from functools import partial
    >>> attention = rnn.DotAttention(8, 6, general=True, rng=0)
    >>> decoder = rnn.AttentionCell(rnn.GRUCell(3 + 8, 8, rng=1), attention, rng=2)
    >>> source = mg.tensor([[[0.5] * 6] * 2] * 5)
    >>> memory = decoder.attention.prepare(source, lengths=[5, 3])
    >>> targets = mg.tensor([[[1.0] * 3] * 2] * 4)
    >>> (hs, weights), state = rnn.unroll(partial(decoder, memory=memory), targets)
    >>> hs.shape, weights.shape
    ((4, 2, 8), (4, 2, 5))
    >>> (h, weight), state = decoder(targets[0], state, memory)
    """

    def __init__(
        self,
        cell: Step,
        attention: Attention,
        output_size: int | None = None,
        *,
        value_size: int | None = None,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        self.output_size = attention.query_size if output_size is None else output_size
        values = attention.key_size if value_size is None else value_size
        if self.output_size < 1 or values < 1:
            raise ValueError(
                f"output_size and value_size are at least 1, not {self.output_size} and {values}"
            )
        self.cell = cell
        self.attention = attention
        self.combine = nn.Linear(
            values + attention.query_size,
            self.output_size,
            bias=False,
            dtype=dtype,
            device=device,
            rng=rng,
        )

    def initial_state(self, batch_size: int, cell_state: State = None) -> tuple[State, Tensor]:
        """The state before the first step: that of the cell, and an h of zeros.

        The cell's is ``cell_state`` if that is given, such as the last state of an encoder;
        otherwise what the cell's own ``initial_state`` returns, or ``None``, which is handed to
        the cell, if it has none.
        """
        if cell_state is None and hasattr(self.cell, "initial_state"):
            cell_state = self.cell.initial_state(batch_size)
        like = self.combine.weight
        shape = (batch_size, self.output_size)
        return cell_state, nn.init.zeros(shape, dtype=like.dtype, device=like.device)

    def forward(
        self, x: Tensor, state: State, memory: Memory
    ) -> tuple[tuple[Tensor, Tensor], tuple[State, Tensor]]:
        """One step.

        Args:
            x: (batch, features).
            state: the pair (state of the cell, h); ``None`` for :meth:`initial_state`.
            memory: what ``attention.prepare`` has made of the keys and values.

        Returns the pair (h, weights), (batch, output_size) and (batch, time), and the state.

        Raises ``ValueError`` if a shape does not suit.
        """
        cell_state, h = self.initial_state(x.shape[0]) if state is None else state
        query, cell_state = self.cell(mg.concatenate([x, h], axis=-1), cell_state)
        context, weights = self.attention.attend(query, memory)
        h = mg.tanh(self.combine(mg.concatenate([context, query], axis=-1)))
        return (h, weights), (cell_state, h)

    def extra_repr(self) -> str:
        """The number of features of h."""
        return f"{self.output_size}"
