"""Importance-weighted bound."""

import math
from typing import ClassVar

import jax

from ..facts import Fact
from .base import EXACT_WEIGHT, INDEPENDENT_DRAWS, RATIO, AbstractObjective


class IWAE(AbstractObjective):
    """Importance-weighted autoencoder bound (IWAE).

    Definition: L_K = E[log (1/K) sum_k w_k], w_k = p(x, z_k) / q(z_k); rises with K to log p(x); L_1 is the ELBO.
    Returns:    nats, larger is better, a lower bound of the log evidence.
    Cost:       K log-density gradients a step (`n_samples=K`).
    Reference:  Burda, Grosse and Salakhutdinov (2016), equation 8.  [burda2016iwae]
    """

    facts: ClassVar = frozenset({Fact.WHOLE_WEIGHT})
    requires: ClassVar = (RATIO, EXACT_WEIGHT, INDEPENDENT_DRAWS)
    sense: ClassVar = 1
    min_samples: ClassVar = 1

    def log_weight(self, model, latent, log_ratio, x):
        return model.log_density(latent, x) - log_ratio

    def reduce(self, log_w):
        return jax.nn.logsumexp(log_w) - math.log(log_w.shape[0])

    def exact(self, model, q, x):
        return 0.0
