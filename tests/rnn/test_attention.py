"""Attention: its formulas, ragged lengths, and the decoder's step that attends and feeds back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan, sqrt
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad.testing import check_gradients
from minigrad_rnn.attention import Attention

BATCH, TIME, STEPS, QUERY, KEY, VALUE = 3, 5, 4, 6, 7, 2
LENGTHS = [5, 1, 3]

#: Every kind, from the size of the keys.
KINDS: dict[str, Callable[..., Attention]] = {
    "dot": lambda **made: rnn.DotAttention(QUERY),
    "scaled": lambda **made: rnn.DotAttention(QUERY, scaled=True),
    "general": lambda **made: rnn.DotAttention(QUERY, KEY, general=True, **made),
    "scaled general": lambda **made: rnn.DotAttention(
        QUERY, KEY, general=True, scaled=True, **made
    ),
    "additive": lambda **made: rnn.AdditiveAttention(QUERY, KEY, 8, **made),
}

every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind: str) -> Attention:
    return KINDS[kind](dtype="float64", rng=1)


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return mg.tensor(rng.normal(size=shape))


def inputs(attention: Attention, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return (
        normal(rng, STEPS, BATCH, QUERY),
        normal(rng, TIME, BATCH, attention.key_size),
        normal(rng, TIME, BATCH, VALUE),
    )


def score(kind: str, attention: Any, query: Any, key: Any) -> float:
    """The formula, for one query and one key."""
    if kind == "additive":
        w, u, v = (
            part.weight.numpy() for part in (attention.query, attention.key, attention.score)
        )
        return (v @ np.tanh(w @ query + u @ key)).item()
    if "general" in kind:
        key = attention.key.weight.numpy() @ key
    return float(query @ key) / (sqrt(QUERY) if "scaled" in kind else 1.0)


def assert_close(own: Tensor, expected: Any, tolerance: float = 1e-13) -> None:
    np.testing.assert_allclose(own.numpy(), expected, rtol=0, atol=tolerance)


# --------------------------------------------------------------------------------------
# The formulas
# --------------------------------------------------------------------------------------


@every_kind
def test_it_is_the_formula(kind: str, rng: np.random.Generator) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)
    context, weights = attention(query, keys, values, lengths=LENGTHS)
    assert context.shape == (STEPS, BATCH, VALUE)
    assert weights.shape == (STEPS, BATCH, TIME)
    q, k, v = query.numpy(), keys.numpy(), values.numpy()
    for step in range(STEPS):
        for b, length in enumerate(LENGTHS):
            scores = [score(kind, attention, q[step, b], k[t, b]) for t in range(length)]
            expected = np.exp(scores) / np.exp(scores).sum()
            assert_close(weights[step, b, :length], expected)
            assert_close(context[step, b], expected @ v[:length, b])


@every_kind
def test_one_step_is_a_row_of_all_steps(kind: str, rng: np.random.Generator) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)
    context, weights = attention(query, keys, values, lengths=LENGTHS)
    memory = attention.prepare(keys, values, lengths=LENGTHS)
    for step in range(STEPS):
        own_context, own_weights = attention.attend(query[step], memory)
        assert_close(own_context, context[step].numpy())
        assert_close(own_weights, weights[step].numpy())


@every_kind
def test_the_values_are_the_keys_by_default(kind: str, rng: np.random.Generator) -> None:
    attention = make(kind)
    query, keys, _ = inputs(attention, rng)
    for context in (attention(query, keys)[0], attention(query, keys, lengths=LENGTHS)[0]):
        assert context.shape == (STEPS, BATCH, attention.key_size)
    context, _ = attention(query, keys, lengths=LENGTHS)
    assert_close(context, attention(query, keys, keys, lengths=LENGTHS)[0].numpy())


@pytest.mark.parametrize("ragged", [False, True])
def test_scaled_dot_attention_is_that_of_torch(ragged: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    attention = make("scaled")
    query, keys, values = inputs(attention, rng)
    context, _ = attention(query, keys, values, lengths=LENGTHS if ragged else None)
    batch_first = [torch.tensor(part.numpy()).transpose(0, 1) for part in (query, keys, values)]
    mask = torch.arange(TIME) < torch.tensor(LENGTHS)[:, None, None] if ragged else None
    expected = torch.nn.functional.scaled_dot_product_attention(*batch_first, attn_mask=mask)
    assert_close(context, expected.transpose(0, 1).numpy())


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_stays(kind: str, dtype: str, rng: np.random.Generator) -> None:
    attention = KINDS[kind](dtype=dtype, rng=1)
    query, keys, values = (part.astype(dtype) for part in inputs(attention, rng))
    for result in attention(query, keys, values, lengths=LENGTHS):
        assert result.dtype == dtype


def test_large_scores_do_not_overflow() -> None:
    keys = mg.tensor([[[1e4]], [[-1e4]]])
    _, weights = rnn.DotAttention(1)(mg.tensor([[1e4]]), keys)
    assert weights.tolist() == [[1.0, 0.0]]


@every_kind
def test_the_keys_are_projected_once(
    kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)
    projected = []
    project = attention.project

    def counted(keys: Tensor) -> Tensor:
        projected.append(keys.shape)
        return project(keys)

    monkeypatch.setattr(attention, "project", counted)
    memory = attention.prepare(keys, values)
    for step in query:
        attention.attend(step, memory)
    assert projected == [keys.shape]


@every_kind
def test_one_sequence_serves_any_number_of_queries(kind: str, rng: np.random.Generator) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)
    one, repeated = keys[:, :1], mg.tile(keys[:, :1], (1, BATCH, 1))
    memory = attention.prepare(one, values[:, :1], lengths=[3])
    expected = attention(
        query, repeated, mg.tile(values[:, :1], (1, BATCH, 1)), lengths=[3] * BATCH
    )
    for own, other in zip(attention.attend(query, memory), expected, strict=True):
        assert_close(own, other.numpy())


# --------------------------------------------------------------------------------------
# Gradients, and padding
# --------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("steps", [False, True], ids=["one step", "all steps"])
def test_gradients(
    kind: str, lengths: list[int] | None, steps: bool, rng: np.random.Generator
) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)

    def attend(query: Tensor, keys: Tensor, values: Tensor) -> Any:
        return attention(query, keys, values, lengths=lengths)

    check_gradients(attend, query if steps else query[0], keys, values, parameters=attention)


@every_kind
@pytest.mark.parametrize("padding", [nan, inf, 1e300])
def test_padding_counts_for_nothing(kind: str, padding: float, rng: np.random.Generator) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)
    valid = np.arange(TIME)[:, None] < np.array(LENGTHS)

    def results(padding: float) -> list[np.ndarray[Any, Any]]:
        own = [
            mg.tensor(np.where(valid[..., None], part.numpy(), padding), requires_grad=True)
            for part in (keys, values)
        ]
        with mg.Tape() as tape:
            context, weights = attention(query, *own, lengths=LENGTHS)
            loss = mg.sum(context * context) + mg.sum(weights * weights)
        gradients = tape.gradient(loss, own)
        assert (weights.numpy()[:, ~valid.T] == 0.0).all()
        for gradient in gradients:
            assert (gradient.numpy()[~valid] == 0.0).all()
        return [part.numpy() for part in (context, weights, *gradients)]

    for own, expected in zip(results(padding), results(0.0), strict=True):
        np.testing.assert_array_equal(own, expected)


@every_kind
def test_a_mask_may_have_holes(kind: str, rng: np.random.Generator) -> None:
    attention = make(kind)
    query, keys, values = inputs(attention, rng)
    mask = np.ones((TIME, BATCH), bool)
    mask[[0, 3]] = False
    context, weights = attention(query, keys, values, mask=mask)
    expected, expected_weights = attention(query, keys[[1, 2, 4]], values[[1, 2, 4]])
    assert_close(context, expected.numpy())
    assert_close(weights[..., [1, 2, 4]], expected_weights.numpy())
    assert (weights[..., [0, 3]].numpy() == 0.0).all()


# --------------------------------------------------------------------------------------
# The decoder's step
# --------------------------------------------------------------------------------------


def plain_step(x: Tensor, state: Any) -> tuple[Tensor, Tensor]:
    """A cell without a class: it sums up the first features of x."""
    new = mg.tanh(x[:, :QUERY]) if state is None else mg.tanh(x[:, :QUERY] + state)
    return new, new


FEATURES = 3

CELLS: dict[str, Callable[[], Any]] = {
    "gru": lambda: rnn.GRUCell(FEATURES + 4, QUERY, dtype="float64", rng=2),
    "lstm": lambda: rnn.LSTMCell(FEATURES + 4, QUERY, dtype="float64", rng=2),
    "function": lambda: plain_step,
}


def make_decoder(cell: str, kind: str = "general") -> rnn.AttentionCell:
    attention = make(kind)
    return rnn.AttentionCell(CELLS[cell](), attention, 4, value_size=VALUE, dtype="float64", rng=3)


@pytest.mark.parametrize("cell", CELLS)
@every_kind
def test_a_step_is_the_formula(cell: str, kind: str, rng: np.random.Generator) -> None:
    decoder = make_decoder(cell, kind)
    _, keys, values = inputs(decoder.attention, rng)
    memory = decoder.attention.prepare(keys, values, lengths=LENGTHS)
    xs = normal(rng, STEPS, BATCH, FEATURES)
    (hs, weights), (_, last) = rnn.unroll(partial(decoder, memory=memory), xs)

    state, h = None, mg.tensor(np.zeros((BATCH, 4)))
    for t in range(STEPS):
        query, state = decoder.cell(mg.concatenate([xs[t], h], axis=1), state)
        context, expected = decoder.attention(query, keys, values, lengths=LENGTHS)
        h = mg.tanh(mg.concatenate([context, query], axis=1) @ decoder.combine.weight.T)
        assert_close(hs[t], h.numpy())
        assert_close(weights[t], expected.numpy())
    assert_close(last, h.numpy())


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_flows_through_all_of_it(cell: str, rng: np.random.Generator) -> None:
    decoder = make_decoder(cell)
    _, keys, values = inputs(decoder.attention, rng)

    def decode(xs: Tensor, keys: Tensor, values: Tensor, h: Tensor) -> Any:
        memory = decoder.attention.prepare(keys, values, lengths=LENGTHS)
        cell_state, _ = decoder.initial_state(BATCH)
        step = partial(decoder, memory=memory)
        return rnn.unroll(step, xs, (cell_state, h))

    xs = normal(rng, STEPS, BATCH, FEATURES)
    check_gradients(decode, xs, keys, values, normal(rng, BATCH, 4), parameters=decoder)


def test_targets_may_have_lengths(rng: np.random.Generator) -> None:
    decoder = make_decoder("lstm")
    _, keys, values = inputs(decoder.attention, rng)
    step = partial(decoder, memory=decoder.attention.prepare(keys, values))
    xs = normal(rng, STEPS, BATCH, FEATURES)
    (hs, weights), last = rnn.unroll(step, xs, lengths=[2, 4, 1])
    for b, length in enumerate([2, 4, 1]):
        alone = partial(
            decoder, memory=decoder.attention.prepare(keys[:, b : b + 1], values[:, b : b + 1])
        )
        (own_hs, own_weights), own_last = rnn.unroll(alone, xs[:length, b : b + 1])
        assert_close(hs[:length, b], own_hs[:, 0].numpy())
        assert_close(weights[:length, b], own_weights[:, 0].numpy())
        assert_close(last[1][b], own_last[1][0].numpy())
        assert_close(last[0][1][b], own_last[0][1][0].numpy())
        assert (hs[length:, b].numpy() == 0.0).all()


def test_the_first_state_may_be_the_last_of_an_encoder(rng: np.random.Generator) -> None:
    decoder = make_decoder("gru")
    encoded = normal(rng, BATCH, QUERY)
    cell_state, h = decoder.initial_state(BATCH, encoded)
    assert cell_state is encoded
    assert h.shape == (BATCH, 4)
    assert h.dtype == "float64"
    assert not h.numpy().any()
    zeros, _ = decoder.initial_state(BATCH)
    assert zeros.shape == (BATCH, QUERY)
    assert make_decoder("function").initial_state(BATCH)[0] is None


def test_all_parameters_belong_to_the_decoder() -> None:
    names = [name for name, _ in make_decoder("gru", "additive").named_parameters()]
    assert names == [
        *(f"cell.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        *(f"attention.{name}.weight" for name in ("query", "key", "score")),
        "combine.weight",
    ]


class Translator(nn.Module):
    """The smallest encoder-decoder, as a user would write it."""

    def __init__(self, symbols: int, hidden: int) -> None:
        rng = np.random.default_rng(0)
        self.embedding = nn.Embedding(symbols, 16, rng=rng)
        self.encoder = rnn.GRU(16, hidden // 2, bidirectional=True, rng=rng)
        attention = rnn.DotAttention(hidden, scaled=True)
        cell = rnn.GRUCell(16 + hidden, hidden, rng=rng)
        self.decoder = rnn.AttentionCell(cell, attention, rng=rng)
        self.output = nn.Linear(hidden, symbols, rng=rng)

    def read(self, source: Any, lengths: Any) -> Any:
        """The memory and the decoder's first state."""
        encoded, _ = self.encoder(self.embedding(source), lengths=lengths)
        memory = self.decoder.attention.prepare(encoded, lengths=lengths)
        return self.decoder.initial_state(len(lengths)), memory

    def forward(self, source: Any, lengths: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Logits and weights with teacher forcing."""
        state, memory = self.read(source, lengths)
        step = partial(self.decoder, memory=memory)
        (hs, weights), _ = rnn.unroll(step, self.embedding(targets), state)
        return self.output(hs), weights

    def step(self, tokens: Any, state: Any) -> Any:
        """One step of beam search."""
        state, memory = state
        (h, weights), state = self.decoder(self.embedding(tokens), state, memory)
        return self.output(h), (state, memory), weights


def test_an_encoder_decoder_learns_to_reverse_and_beam_search_reads_it_out() -> None:
    start, end, symbols = 0, 1, 8
    rng = np.random.default_rng(0)

    def batch(size: int) -> tuple[Any, Any, Any, Any]:
        lines = [rng.integers(2, symbols, rng.integers(1, 6)) for _ in range(size)]
        source, lengths = rnn.pad_sequences(lines)
        target, _ = rnn.pad_sequences([[*line[::-1], end] for line in lines], value=end)
        return lines, source, lengths, target

    model = Translator(symbols, 32)
    optimizer = mg.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        _, source, lengths, target = batch(32)
        given = np.concatenate([np.full((1, 32), start), target[:-1]])
        with mg.Tape() as tape:
            logits, _ = model(source, lengths, given)
            loss = nn.cross_entropy(logits, target)
        optimizer.zero_grad()
        tape.backward(loss)
        rnn.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    lines, source, lengths, _ = batch(100)
    found = rnn.beam_search(
        model.step, model.read(source, lengths), [start] * 100, end, width=3, max_length=8
    )
    best = [hypotheses[0] for hypotheses in found]
    right = [h.tokens.tolist() == [*line[::-1], end] for h, line in zip(best, lines, strict=True)]
    assert np.mean(right) >= 0.97
    # The weights of the search are those of teacher forcing.
    i = int(np.argmax(lengths))
    given = np.array([start, *best[i].tokens[:-1]])[:, None]
    _, weights = model(source[:, i : i + 1], lengths[i : i + 1], given)
    assert_close(weights[:, 0], best[i].extras, 1e-5)


# --------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((zeros(2, 4), zeros(5, 2, 4)), r"expects keys \(time, batch, 3\)"),
        ((zeros(2, 3), zeros(5, 3)), r"expects keys \(time, batch, 3\)"),
        ((zeros(2, 3), zeros(0, 2, 3)), "of at least one step"),
        ((zeros(2, 3), zeros(5, 2, 3), zeros(4, 2, 3)), r"values .* as keys, \(5, 2\), not"),
        ((zeros(3, 3), zeros(5, 2, 3)), r"expects a query \(2, 3\).*not \(3, 3\)"),
        ((zeros(2, 4), zeros(5, 2, 3)), r"expects a query \(2, 3\).*not \(2, 4\)"),
        ((zeros(3), zeros(5, 2, 3)), r"expects a query \(2, 3\).*not \(3,\)"),
    ],
)
def test_shapes_that_do_not_suit_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.DotAttention(3)(*arguments)


def test_padding_that_makes_no_sense_is_refused() -> None:
    attention = rnn.DotAttention(3)
    call = partial(attention, zeros(2, 3), zeros(5, 2, 3))
    with pytest.raises(ValueError, match="sequence 1 has length 0"):
        call(lengths=[5, 0])
    with pytest.raises(ValueError, match="sequence 0 has length 6"):
        call(lengths=[6, 1])
    with pytest.raises(ValueError, match="give one of them"):
        call(lengths=[5, 1], mask=np.ones((5, 2), bool))
    with pytest.raises(TypeError, match="mask is boolean"):
        call(mask=np.ones((5, 2)))
    with pytest.raises(ValueError, match="a sequence of the mask has no step to attend to"):
        call(mask=np.array([[True, False]] * 5))


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="query_size and key_size are at least 1, not 0 and 0"):
        rnn.DotAttention(0)
    with pytest.raises(ValueError, match="not 3 and 4: write general=True"):
        rnn.DotAttention(3, 4)
    with pytest.raises(ValueError, match="hidden_size is at least 1, not 0"):
        rnn.AdditiveAttention(3, 4, 0)
    with pytest.raises(ValueError, match="output_size and value_size are at least 1"):
        rnn.AttentionCell(plain_step, rnn.DotAttention(3), 0)
    with pytest.raises(NotImplementedError, match="Attention needs a method scores"):
        Attention(3, 3).scores(zeros(1, 1, 3), zeros(1, 1, 3))
    with pytest.raises(NotImplementedError, match="Attention needs a method project"):
        Attention(3, 3).project(zeros(1, 1, 3))


def test_they_say_what_they_are() -> None:
    assert repr(rnn.DotAttention(3, scaled=True)) == "DotAttention(3, 3, scaled=True)"
    general = repr(rnn.DotAttention(3, 4, general=True))
    assert general.splitlines()[0] == "DotAttention(3, 4, general=True)"
