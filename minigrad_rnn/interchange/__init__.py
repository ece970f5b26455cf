"""Moving weights between these layers and PyTorch, Keras and ONNX.

``to_...`` takes a layer (:class:`RNN`, :class:`LSTM`, :class:`GRU`, or a :class:`Recurrent` of
their cells) and gives its weights as the other library lays them out; ``from_...`` makes a layer
of such weights. Both compute the same function. What the other side cannot express is refused,
by name. Weights are NumPy arrays; dropout is not a weight, and stays behind.
"""

from minigrad_rnn.interchange.keras import from_keras, to_keras
from minigrad_rnn.interchange.onnx import from_onnx, to_onnx
from minigrad_rnn.interchange.pytorch import from_pytorch, to_pytorch

__all__ = ["from_keras", "from_onnx", "from_pytorch", "to_keras", "to_onnx", "to_pytorch"]
