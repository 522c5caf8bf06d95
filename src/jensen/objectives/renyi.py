"""Renyi's alpha bound."""

import math
from typing import ClassVar

import equinox as eqx
import jax

from ..errors import OptionError, explain
from ..facts import Fact
from .base import EXACT_WEIGHT, INDEPENDENT_DRAWS, RATIO, AbstractObjective


class Renyi(AbstractObjective):
    """Variational Renyi bound (VR).

    Definition: L_{alpha,K} = E[ 1/(1-alpha) log (1/K) sum_k w_k^{1-alpha} ]; alpha = 0 is IWAE, alpha = 1 the ELBO.
    Arguments:  alpha: order, >= 0. Negative orders bound the evidence from above: `CUBO(n=1-alpha)`.
    Returns:    nats, larger is better; a lower bound of the log evidence.
    Reference:  Li and Turner (2016), equations 9 and 12.  [li2016renyi]
    """

    alpha: float = eqx.field(static=True)
    sense: ClassVar = 1
    min_samples: ClassVar = 1

    def __init__(self, alpha: float = 0.5):
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise OptionError(
                explain(
                    f"`Renyi(alpha={alpha})`",
                    "a negative order is an upper bound" if alpha < 0 else "alpha is not finite",
                    "maximising an upper bound says nothing of the evidence",
                    f"CUBO(n={1 - alpha})" if alpha < 0 else "alpha in [0, 1]",
                )
            )
        self.alpha = float(alpha)

    @property
    def facts(self):
        return frozenset({Fact.LINEAR, Fact.WHOLE_WEIGHT} if self.alpha == 1 else {Fact.WHOLE_WEIGHT})

    @property
    def requires(self):
        return (RATIO,) if self.alpha == 1 else (RATIO, EXACT_WEIGHT, INDEPENDENT_DRAWS)

    def log_weight(self, model, latent, log_ratio, x):
        return model.log_density(latent, x) - log_ratio

    def reduce(self, log_w):
        if self.alpha == 1:
            return log_w.mean()
        r = 1 - self.alpha
        return (jax.nn.logsumexp(r * log_w) - math.log(log_w.shape[0])) / r

    def exact(self, model, q, x):
        return 0.0
