"""The linear recurrent unit: a complex diagonal recurrence, in real numbers."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any, ClassVar

import numpy

import minigrad as mg
from minigrad import Tensor, nn
from minigrad_rnn.cells.cell import Cell, State, assign, fill


class LRUCell(Cell):
    """Linear recurrent unit: N = hidden_size complex numbers s, each turned and shrunk by its own.

        lambda = exp(-exp(nu_log) + 1j exp(theta_log))
        s' = lambda s + exp(gamma_log) (B x)
        y  = Re(C s') + D x

    The state is the tuple of the real and the imaginary part of s, each (batch, hidden_size);
    y is (batch, output_size). The magnitude of lambda is below 1 whatever the parameters are,
    so the state never explodes. Orvieto et al., Resurrecting recurrent neural networks for long
    sequences, 2023.

    Args:
        output_size: the number of features of y; hidden_size by default.
        r_min, r_max: lambda is drawn uniformly from the ring between these radii,
            0 <= r_min < r_max <= 1; and gamma such that s is of the size of x.
        max_phase: and from angles up to this, in (0, 2 pi].
        input_size, hidden_size, dtype, device, rng: see :class:`Cell`. There is no bias.

    Attributes:
        nu_log, theta_log, gamma_log: (hidden_size,).
        B_re, B_im: B, (hidden_size, input_size).
        C_re, C_im: C, (output_size, hidden_size).
        D: (output_size, input_size).

    Raises ``ValueError`` for a size below 1, or a ring that is none.

    >>> import minigrad as mg, minigrad_rnn as rnn
    >>> cell = rnn.LRUCell(3, 4, output_size=2, rng=0)
    >>> y, (re, im) = cell(mg.tensor([[1.0, 2.0, 3.0]]))
    >>> y.shape, re.shape
    ((1, 2), (1, 4))
    """

    recurrent_product: ClassVar[bool] = False

    nu_log: Tensor
    theta_log: Tensor
    gamma_log: Tensor
    B_re: Tensor
    B_im: Tensor
    C_re: Tensor
    C_im: Tensor
    D: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2.0 * pi,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        if not 0.0 <= r_min < r_max <= 1.0 or not 0.0 < max_phase <= 2.0 * pi:
            raise ValueError(
                "the ring needs 0 <= r_min < r_max <= 1 and 0 < max_phase <= 2 pi, not "
                f"r_min={r_min}, r_max={r_max}, max_phase={max_phase}"
            )
        self.r_min = r_min
        self.r_max = r_max
        self.max_phase = max_phase
        super().__init__(
            input_size, hidden_size, output_size=output_size, dtype=dtype, device=device, rng=rng
        )

    def parameter_shapes(self, bias: bool) -> dict[str, tuple[int, ...] | None]:
        """lambda and gamma, B, C and D."""
        n, inputs, outputs = self.hidden_size, self.input_size, self.output_size
        return {
            "nu_log": (n,),
            "theta_log": (n,),
            "gamma_log": (n,),
            "B_re": (n, inputs),
            "B_im": (n, inputs),
            "C_re": (outputs, n),
            "C_im": (outputs, n),
            "D": (outputs, inputs),
        }

    def reset_parameters(self, rng: Any = None) -> None:
        """Draw the initial values anew: lambda uniformly from the ring, the matrices normal.

        |lambda|^2 is U(r_min^2, r_max^2),  exp(theta_log) is U(0, max_phase),
        gamma = sqrt(1 - |lambda|^2),  and the variances are 1 / (2 inputs) for both parts of
        B, 1 / hidden_size for those of C, and 1 / inputs for D.
        """
        rng = nn.init.generator(rng)
        ring = rng.uniform(self.r_min**2, self.r_max**2, self.hidden_size)
        assign(self.nu_log, numpy.log(-0.5 * numpy.log(ring)))
        assign(self.theta_log, numpy.log(rng.uniform(0.0, self.max_phase, self.hidden_size)))
        assign(self.gamma_log, 0.5 * numpy.log(1.0 - ring))
        for parameter, variance in (
            (self.B_re, 0.5 / self.input_size),
            (self.B_im, 0.5 / self.input_size),
            (self.C_re, 1.0 / self.hidden_size),
            (self.C_im, 1.0 / self.hidden_size),
            (self.D, 1.0 / self.input_size),
        ):
            fill(parameter, nn.init.normal, sqrt(variance), rng=rng)

    @property
    def state_sizes(self) -> Any:
        """Those of the real and the imaginary part of s."""
        return self.hidden_size, self.hidden_size

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """The real and the imaginary part of lambda, (hidden_size,) each."""
        magnitude = mg.exp(-mg.exp(self.nu_log))
        phase = mg.exp(self.theta_log)
        return magnitude * mg.cos(phase), magnitude * mg.sin(phase)

    def project(self, xs: Tensor) -> Tensor:
        """exp(gamma_log) (B x),  its real and its imaginary part, and  D x"""
        gamma = mg.exp(self.gamma_log)[:, None]
        return xs @ mg.concatenate([gamma * self.B_re, gamma * self.B_im, self.D]).T

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Re(C s') + D x,  and  s' = lambda s + projected"""
        n = self.hidden_size
        x_re, x_im, x_out = mg.split(projected, [n, 2 * n], axis=-1)
        a, b = self.eigenvalues()
        re, im = state
        re, im = a * re - b * im + x_re, b * re + a * im + x_im
        y = mg.linear(re, self.C_re, mg.linear(-im, self.C_im, x_out))
        return y, (re, im)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{super().extra_repr()}, output_size={self.output_size}"
