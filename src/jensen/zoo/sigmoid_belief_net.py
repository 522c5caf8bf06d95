"""Sigmoid belief network with the scikit-learn API."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.random as jr
import numpy as np
import optax

from ..compiled import key_for
from ..families import Amortised, Bernoulli, Layers
from ..gradients.base import AbstractEstimator
from ..models.latent_variable import LatentVariable
from ..nets import MLP, Centred
from ..objectives import ELBO
from ..objectives.base import AbstractObjective
from .base import AbstractLatentModel, Composed

DRAWS = 4


class SigmoidBeliefNet(AbstractLatentModel):
    """Sigmoid belief network: layers of binary causes above the data, all weights learned.

    Definition: p(x) = sum_h p(h_L) ... p(h_1 | h_2) p(x | h_1), each conditional a product of Bernoullis whose log-odds
                are a net of the layer above; fitted together with q(h | x) = q(h_1 | x) q(h_2 | h_1) ... by a bound.
    Arguments:
        widths: units of each layer, the one next to the data first.   hidden: widths of the hidden layers of every net
            between two of them; () makes the network linear.   activation: a name in `jensen.nets.ACTIVATIONS`.
        method: None: stochastic gradients of `objective` by `gradient`; or "wake-sleep", "reweighted-wake-sleep",
            "wake-wake", which have neither.
        likelihood: "bernoulli" for data in [0, 1], "gaussian" for the rest (standardised columns), "auto".
        objective: a bound or its name; None: the ELBO.   gradient: an estimator or its name; None: `LeaveOneOut()`.
        n_samples: draws a row and step; None: 4 (16 for nonlinear bounds such as IWAE()).
        n_steps: None: 100 passes over the data, at least 1,000 and at most 20,000 steps.   batch_size: rows a step;
            None: all.   optimizer: an Optax transformation or a step size; None: Adam, 1e-3.
        n_importance: draws a row in `score_samples` and `elbo`.   random_state, progress: as everywhere.
    Attributes: as `VAE`. `transform` gives the probabilities of h_1, then h_2, ... (`AbstractLatentModel.transform`).
    Notes:      Few rows are overfitted by long training: compare `score` on rows held out. The verdict tells how many
                units of each layer depend on x, and is at best DOUBTFUL where a layer is dead. Values strictly between
                0 and 1 count as expected log-likelihood of noisy bits.
    Example:    >>> net = SigmoidBeliefNet((200, 200)).fit(X)          # doctest: +SKIP
                >>> net.transform(X), net.score(X_test), net.sample(5)  # doctest: +SKIP
    Reference:  Neal (1992); Mnih and Gregor (2014) for q; Kool, van Hoof and Welling (2019) for the gradient.
                [neal1992belief]
    """

    widths: Any
    method: str | None
    widths_of: ClassVar = ("widths", "hidden")

    def __init__(
        self,
        widths: Sequence[int] = (200,),
        *,
        hidden: Sequence[int] = (),
        activation: str = "tanh",
        method: str | None = None,
        likelihood: str = "auto",
        objective: AbstractObjective | str | None = None,
        gradient: AbstractEstimator | str | None = None,
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
        net = belief_net(self, rows)
        if self.method is not None:
            return net._replace(options={"method": self.method})
        return net._replace(options=bound_options(self, closed=len(self.widths) == 1))


def belief_net(estimator: Any, rows: np.ndarray) -> Composed:
    """The network, its decoder's biases at the data's mean; q against its order, the encoder centred there."""
    widths, mean = tuple(map(int, estimator.widths)), rows.mean(0)
    nets: dict[str, Any] = {"hidden": tuple(estimator.hidden), "activation": estimator.activation}
    k1, k2 = jr.split(key_for(estimator._seed, "decoder"))
    model = LatentVariable.belief_net(k1, widths, mean.shape, estimator.likelihood_, mean=mean, **nets)
    encoder = Centred(MLP(k2, mean.size, nets["hidden"], widths[0], activation=nets["activation"]), mean)
    layers = Layers(model.bottom_up, **nets) if model.bottom_up else Bernoulli()
    return Composed(model, Amortised(layers, encoder), {})


def bound_options(estimator: Any, closed: bool) -> dict[str, Any]:
    """What is not asked for, where q is discrete: the KL in closed form if that exists, and several draws."""
    options: dict[str, Any] = {}
    if estimator.objective is None:
        options["objective"] = ELBO("kl" if closed and estimator.gradient is None else "none")
        options["n_samples"] = DRAWS if estimator.n_samples is None else estimator.n_samples
    return options
