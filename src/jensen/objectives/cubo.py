"""Chi upper bound."""

import math
from typing import ClassVar

import equinox as eqx
import jax

from ..errors import OptionError, explain
from ..facts import Fact
from .base import EXACT_WEIGHT, INDEPENDENT_DRAWS, RATIO, AbstractObjective


class CUBO(AbstractObjective):
    """Chi upper bound (CUBO), minimised.

    Definition: CUBO_n = 1/n log E_q[w^n] >= log p(x); the K-sample objective is E[ 1/n log (1/K) sum_k w_k^n ].
    Arguments:  n: order, > 1 (at n = 1 it is the log evidence itself).
    Returns:    nats, smaller is better.
    Bias:       the K-sample value lies below CUBO_n by O(1/K) and can fall below log p(x): an upper bound in the
                limit only. With K = 1 it is the ELBO, minimised: hence n_samples >= 2 and better many.
    Reference:  Dieng, Tran, Ranganath, Paisley and Blei (2017), equation 2.  [dieng2017chi]
    """

    n: float = eqx.field(static=True)
    facts: ClassVar = frozenset({Fact.WHOLE_WEIGHT})
    requires: ClassVar = (RATIO, EXACT_WEIGHT, INDEPENDENT_DRAWS)
    sense: ClassVar = -1
    min_samples: ClassVar = 2

    def __init__(self, n: float = 2.0):
        if not (n > 1 and math.isfinite(n)):
            asked = f"`CUBO(n={n})`"
            raise OptionError(
                explain(asked, "n is not above 1", "only then is it an upper bound", "CUBO(n=2), or IWAE()")
            )
        self.n = float(n)

    def log_weight(self, model, latent, log_ratio, x):
        return model.log_density(latent, x) - log_ratio

    def reduce(self, log_w):
        return (jax.nn.logsumexp(self.n * log_w) - math.log(log_w.shape[0])) / self.n

    def exact(self, model, q, x):
        return 0.0
