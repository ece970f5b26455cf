"""PyTorch's state_dicts: to and from, through dictionaries and files, and inside bigger models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transfer import to_host

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import nn

INPUTS, HIDDEN, BATCH, TIME = 3, 4, 2, 5

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tanh": (rnn.RNN, {}),
    "relu": (rnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (rnn.LSTM, {}),
    "lstm, projected": (rnn.LSTM, {"proj_size": 2}),
    "gru": (rnn.GRU, {}),
}

every_kind = pytest.mark.parametrize("kind", KINDS)
up_to_three_layers = pytest.mark.parametrize("layers", [1, 2, 3])
one_and_two_directions = pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
with_and_without_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def make_layer(kind: str, layers: int = 2, **settings: Any) -> Any:
    layer_type, own = KINDS[kind]
    made = {"num_layers": layers, "dtype": "float64", "rng": 0}
    return layer_type(INPUTS, HIDDEN, **{**made, **own, **settings})


def torch_layer(torch: Any, kind: str, layers: int = 2, **settings: Any) -> Any:
    layer_type, own = KINDS[kind]
    made = getattr(torch.nn, layer_type.__name__)
    return made(INPUTS, HIDDEN, num_layers=layers, dtype=torch.float64, **own, **settings)


def told(kind: str) -> dict[str, Any]:
    """What the weights do not tell."""
    return {"nonlinearity": "relu"} if kind == "relu" else {}


def assert_same(own: Any, other: Any) -> None:
    assert own.keys() == other.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(to_host(value), to_host(other[name]), err_msg=name)


@every_kind
@up_to_three_layers
@one_and_two_directions
@with_and_without_bias
def test_pytorchs_layers_and_these_compute_the_same(
    torch: Any, rng: np.random.Generator, kind: str, layers: int, both: bool, bias: bool
) -> None:
    twin = torch_layer(torch, kind, layers, bidirectional=both, bias=bias)
    layer = rnn.interchange.from_pytorch(twin.state_dict(), **told(kind))
    assert repr(layer) == repr(make_layer(kind, layers, bidirectional=both, bias=bias))
    xs = rng.normal(size=(TIME, BATCH, INPUTS))
    expected = twin(torch.tensor(xs))[0].detach().numpy()
    np.testing.assert_allclose(layer(mg.tensor(xs))[0].numpy(), expected, rtol=0, atol=1e-10)

    other = torch_layer(torch, kind, layers, bidirectional=both, bias=bias)
    state = rnn.interchange.to_pytorch(layer)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    assert_same(twin.state_dict(), other.state_dict())


@every_kind
@one_and_two_directions
def test_a_layer_that_exists_takes_torch_tensors(torch: Any, kind: str, both: bool) -> None:
    twin = torch_layer(torch, kind, bidirectional=both)
    layer = make_layer(kind, bidirectional=both)
    layer.load_state_dict(twin.state_dict())
    assert_same(rnn.interchange.to_pytorch(layer), twin.state_dict())


class Foreign:
    """An array of another library: all that is known of it is how to make a NumPy array of it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array if dtype is None else self._array.astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_foreign_arrays_keep_their_dtype(dtype: str) -> None:
    state = rnn.interchange.to_pytorch(make_layer("gru", dtype=dtype))
    foreign = {name: Foreign(array) for name, array in state.items()}
    assert_same(rnn.interchange.from_pytorch(foreign).state_dict(), state)
    layer = make_layer("gru", dtype=dtype, rng=1)
    layer.load_state_dict(foreign)
    assert_same(layer.state_dict(), state)


def test_files_that_pytorch_writes_and_reads(torch: Any, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch_layer(torch, "gru", bidirectional=True)
            self.decoder = torch.nn.Linear(2 * HIDDEN, 1, dtype=torch.float64)

    model = Model()
    safetensors.save_file(model.state_dict(), tmp_path / "theirs.safetensors")
    layer = rnn.interchange.from_pytorch(mg.load(tmp_path / "theirs.safetensors"), "encoder.")
    state = rnn.interchange.to_pytorch(layer, "encoder.")
    mg.save(tmp_path / "own.safetensors", state)
    loaded = safetensors.load_file(tmp_path / "own.safetensors")
    decoder = {name: value for name, value in model.state_dict().items() if "decoder" in name}
    other = Model()
    other.load_state_dict(loaded | decoder)
    assert_same(model.state_dict(), other.state_dict())


@every_kind
@one_and_two_directions
@with_and_without_bias
def test_a_layer_comes_back_bit_for_bit(kind: str, both: bool, bias: bool) -> None:
    layer = make_layer(kind, bidirectional=both, bias=bias, batch_first=True)
    state = {"elsewhere.weight": np.ones(2), **rnn.interchange.to_pytorch(layer, "a.b.")}
    back = rnn.interchange.from_pytorch(state, "a.b.", batch_first=True, **told(kind))
    assert repr(back) == repr(layer)
    assert_same(back.state_dict(), layer.state_dict())


def test_what_is_given_away_is_a_copy() -> None:
    layer = make_layer("lstm, projected")
    before = layer(mg.tensor(np.ones((TIME, BATCH, INPUTS))))[0].numpy()
    for array in rnn.interchange.to_pytorch(layer).values():
        array[...] = 0.0
    after = layer(mg.tensor(np.ones((TIME, BATCH, INPUTS))))[0].numpy()
    np.testing.assert_array_equal(after, before)


def test_a_general_layer_has_pytorchs_names() -> None:
    pair = (rnn.GRUCell(INPUTS, HIDDEN, rng=0), rnn.GRUCell(INPUTS, HIDDEN, rng=1))
    state = rnn.interchange.to_pytorch(rnn.Recurrent([pair]))
    assert list(state) == list(rnn.GRU(INPUTS, HIDDEN, bidirectional=True, rng=0).state_dict())


@pytest.mark.parametrize(
    ("layer", "has"),
    [
        (rnn.LSTM(3, 4, peepholes="diagonal", rng=0), "peepholes='diagonal'"),
        (rnn.LSTM(3, 4, coupled=True, rng=0), "coupled=True"),
        (rnn.LSTM(3, 4, layer_norm=True, rng=0), "layer_norm=True"),
        (rnn.LSTM(3, 4, zoneout_h=0.1, rng=0), "zoneout_h=True"),
        (rnn.GRU(3, 4, reset="before", rng=0), "reset='before'"),
        (rnn.GRU(3, 4, learn_initial_state=True, rng=0), "learn_initial_state=True"),
        (rnn.GRU(3, 4, num_layers=2, residual=True, rng=0), "residual=True"),
    ],
)
def test_what_pytorch_does_not_have_is_refused(layer: rnn.Recurrent, has: str) -> None:
    with pytest.raises(ValueError, match=f"PyTorch has no {has}, and this"):
        rnn.interchange.to_pytorch(layer)


def test_other_modules_are_refused() -> None:
    other: Any = nn.Linear(3, 4, rng=0)
    with pytest.raises(TypeError, match="only a recurrent layer can go to PyTorch, not Linear"):
        rnn.interchange.to_pytorch(other)


def test_names_that_are_missing_or_unknown_are_named() -> None:
    state = rnn.interchange.to_pytorch(make_layer("lstm"), "encoder.")
    with pytest.raises(ValueError, match=r"these are encoder\.bias_hh_l0, .* besides: say with pr"):
        rnn.interchange.from_pytorch(state)
    with pytest.raises(ValueError, match=r"decoder\.weight_ih_l0.*these are none besides"):
        rnn.interchange.from_pytorch(state, "decoder.")
    del state["encoder.weight_hh_l1"]
    with pytest.raises(ValueError, match=r"^encoder\.weight_hh_l1 is missing"):
        rnn.interchange.from_pytorch(state, "encoder.")


def test_a_cell_in_two_layers_of_a_stack_is_written_twice() -> None:
    cell = rnn.GRUCell(HIDDEN, HIDDEN, rng=0)
    state = rnn.interchange.to_pytorch(rnn.Recurrent([cell, cell]))
    assert list(state) == list(rnn.GRU(HIDDEN, HIDDEN, num_layers=2, rng=0).state_dict())
    np.testing.assert_array_equal(state["weight_hh_l0"], state["weight_hh_l1"])


def test_shapes_that_fit_no_kind_are_refused() -> None:
    state = rnn.interchange.to_pytorch(make_layer("lstm"))
    state["weight_ih_l0"] = state["weight_ih_l0"][:, 0]
    with pytest.raises(ValueError, match=r"weight_ih_l0 is \(gates.*, input_size\), not \(16,\)"):
        rnn.interchange.from_pytorch(state)
    state = rnn.interchange.to_pytorch(make_layer("lstm"))
    state["weight_hh_l0"] = state["weight_hh_l0"][:8]
    with pytest.raises(ValueError, match=r"this one has the shape \(8, 4\)"):
        rnn.interchange.from_pytorch(state)
    state = rnn.interchange.to_pytorch(make_layer("lstm"))
    state["bias_hh_l1"] = state["bias_hh_l1"][:8]
    with pytest.raises(ValueError, match="bias_hh_l1 is"):
        rnn.interchange.from_pytorch(state)
