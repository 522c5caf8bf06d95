"""Helmholtz machine with the scikit-learn API."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import optax

from ..algorithms.method import sentences_of
from ..errors import OptionError, explain
from ..methods import ReweightedWakeSleep, WakeSleep
from .base import AbstractLatentModel, Composed
from .sigmoid_belief_net import belief_net

WAKE_SLEEP = [*sentences_of(WakeSleep), *sentences_of(ReweightedWakeSleep)]


class HelmholtzMachine(AbstractLatentModel):
    """Helmholtz machine: a sigmoid belief network whose two halves teach each other, by the wake-sleep algorithm.

    Definition: awake, the generative net ascends log p(x, h) at h ~ q(h | x); asleep, the recognition net ascends
                log q(h | x) at (h, x) ~ p.
    Arguments:
        widths: units of each layer, the one next to the data first.   hidden: widths of the hidden layers of every net
            between two of them; () makes the machine linear.   activation: a name in `jensen.nets.ACTIVATIONS`.
        method: "wake-sleep"; "reweighted-wake-sleep": several draws a row, weighed by importance, teach both nets;
            "wake-wake": the same without dreams.
        likelihood: "bernoulli" for data in [0, 1], "gaussian" for the rest (standardised columns), "auto".
        n_samples: draws a row and step; None: 1, reweighted 16.
        n_steps: None: 100 passes over the data, at least 1,000 and at most 20,000 steps.   batch_size: rows a step;
            None: all.   optimizer: an Optax transformation or a step size; None: Adam, 1e-3.
        n_importance: draws a row in `score_samples` and `elbo`.   random_state, progress: as everywhere.
    Attributes: as `VAE`. `transform` gives the probabilities of h_1, then h_2, ... `history_` is the ELBO, which
        wake-sleep does not ascend in q: it may fall.
    Example:    >>> machine = HelmholtzMachine((200, 200)).fit(X)      # doctest: +SKIP
    Reference:  Dayan, Hinton, Neal and Zemel (1995); Hinton, Dayan, Frey and Neal (1995); Bornschein and Bengio (2015).
                [hinton1995wake]
    """

    widths: Any
    method: str
    widths_of: ClassVar = ("widths", "hidden")
    objective: ClassVar = None  # the algorithm has its own
    gradient: ClassVar = None

    def __init__(
        self,
        widths: Sequence[int] = (200,),
        *,
        hidden: Sequence[int] = (),
        activation: str = "tanh",
        method: str = "wake-sleep",
        likelihood: str = "auto",
        n_samples: int | None = None,
        n_steps: int | None = None,
        batch_size: int | None = 100,
        optimizer: optax.GradientTransformation | float | None = None,
        n_importance: int = 500,
        random_state: int | np.random.RandomState | None = None,
        progress: bool | None = None,
    ):
        self._keep(locals())

    def _compose(self, rows: np.ndarray) -> Composed:
        if self.method not in WAKE_SLEEP:
            asked, because = f"`HelmholtzMachine(method={self.method!r})`", "its two nets teach each other"
            instead = f"one of {list(WAKE_SLEEP)}; SigmoidBeliefNet() for stochastic gradients of a bound"
            raise OptionError(explain(asked, "it is not a wake-sleep method", because, instead))
        return belief_net(self, rows)._replace(options={"method": self.method})
