"""Score function with a learned control variate of continuous variables."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
from jax.lax import stop_gradient

from ..facts import Fact
from ..nets import MLP
from .base import AbstractEstimator, Terms
from .baselines import Mean
from .relax import surrogate, surrogate_network
from .requirements import FRESH, LINEAR, REPARAMETERISED, SCORE


class LAX(AbstractEstimator):
    """LAX: a network is the control variate of the score function; its mean is added back along the sample path.

    Definition: grad = (f(z) - a - c(z, x)) d log q(z) + d c(T_phi(eps), x) + d f, z = T_phi(eps); c a network of the latent and
                of its row (under global latents of the latent alone); a: running mean of f; d f: at fixed z.
    Arguments:  hidden, activation: of the network, which must be smooth.   decay: of the running mean.
    Bias:       none, for any network, which descends the gradient's own square; the mean is of earlier steps.
                The model need not be differentiable.
    Cost:       K evaluations, no gradient of log p in z, and one network a draw.
    Reference:  Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), section 2.  [grathwohl2018relax]
    """

    net: MLP | None
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    decay: float = eqx.field(static=True)
    requires: ClassVar = (SCORE, REPARAMETERISED, LINEAR, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    minimises_variance: ClassVar = True
    role: ClassVar = None

    def __init__(self, hidden: Sequence[int] = (100,), *, activation: str = "tanh", decay: float = 0.9):
        self.net, self.hidden, self.activation, self.decay = None, tuple(hidden), activation, decay

    def bind(self, latents, rows, key):
        net = surrogate_network(key, latents, rows, self.hidden, self.activation)
        return eqx.tree_at(lambda e: e.net, self, net, is_leaf=lambda a: a is None) if self.net is None else self

    def init(self, bound):
        return Mean.start()

    def update(self, carry, stat):
        return Mean.update(carry, stat, self.decay)

    def problems(self, composition):
        if Fact.LOCAL not in composition.family.facts:
            return []
        wrong = f"latents of one size at every step; `{type(composition.family).__name__}` has some for each row"
        return [(wrong, "the control variate is a network of all latents", "Pathwise(), or LeaveOneOut()")]

    def terms(self, noise, bound, carry):
        path = bound.draw(noise)
        draws = jax.tree.map(stop_gradient, path)
        control = lambda m, q, x, d: surrogate(self.net, q.latent(d), x if bound.plate else ())
        # where the mean of d log q(z) at fixed z is zero, it would be noise alone
        weighed = bound.stop("q") if Fact.ZERO_MEAN_SCORE in bound.q.facts else bound
        log_w = weighed.log_weight(draws)
        value = bound.reduce(log_w)
        # of the network's value only its own parameters are live here: the draws are stopped
        signal = stop_gradient(log_w) - Mean.of(carry) - bound.stop("q", "model").map(control, draws)
        score = (signal * bound.log_prob(draws)).mean(0)
        return Terms(value + score + bound.map(control, path).mean(0), value, stat=value.mean())
