"""Neural variational inference: an input-dependent baseline, centred and normalised."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from ..nets import MLP
from ..tree import replaced, row_spec
from .base import AbstractEstimator, Terms
from .baselines import Mean
from .requirements import FRESH, LINEAR, SCORE


class NVIL(AbstractEstimator):
    """Score function whose baseline is a network of the row, learned along the way.

    Definition: signal_k = (f_k - C(x) - c) / max(1, v); C minimises E(f - c - C(x))^2, c and v are the running mean and sd
                of f - C(x). Under global latents C is absent.
    Arguments:  hidden: widths of C's layers.   normalise: divide by max(1, v): the gradient in q's parameters is then a
                positive multiple of the true one (declared biased), which Adam does not mind and momentum SGD needs.
                decay: of the running moments.
    Bias:       none with normalise=False: the baseline is made of x and of earlier steps.
    Cost:       K evaluations, and one small network a datum. For layers' own signals see `RaoBlackwell`.
    Reference:  Mnih and Gregor (2014), sections 2.3.1-2.3.2.  [mnih2014nvil]
    """

    net: Any
    hidden: tuple[int, ...] = eqx.field(static=True, default=(100,))
    normalise: bool = eqx.field(static=True, default=False)
    decay: float = eqx.field(static=True, default=0.9)
    requires: ClassVar = (SCORE, LINEAR, FRESH)
    min_samples: ClassVar = 1
    minimises_variance: ClassVar = False
    role: ClassVar = None

    def __init__(self, hidden=(100,), *, normalise: bool = False, decay: float = 0.9, net: Any = None):
        self.hidden, self.normalise, self.decay, self.net = tuple(hidden), normalise, decay, net

    @property
    def unbiased(self):
        return not self.normalise

    def bind(self, latents, rows, key):
        if rows is None or self.net is not None:
            return self
        n = sum(a.size for a in jax.tree.leaves(row_spec(rows)))
        net = MLP(key, n, self.hidden, 1, activation="tanh")
        return replaced(self, net=net)

    def init(self, bound):
        return Mean.start((0.0, 0.0))

    def update(self, carry, stat):
        return Mean.update(carry, stat, self.decay)

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        value = bound.reduce(log_w)
        mean, square = Mean.of(carry)
        baseline = bound.each(lambda q, x: self.net(x)[0]) if self.net is not None and bound.plate else 0.0
        rest = stop_gradient(log_w) - mean - baseline
        unit = jnp.maximum(1.0, jnp.sqrt(square))
        signal = stop_gradient(rest / unit if self.normalise else rest)
        score = (signal * bound.log_prob(draws)).mean(0)
        seen = stop_gradient((rest + mean).mean()), stop_gradient((rest**2).mean())
        return Terms(value + score, value, ((rest / unit) ** 2).mean(0), seen)
