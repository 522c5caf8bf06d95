"""Score-function gradient with control variates."""

import abc
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import default_float, split_trainable
from .base import AbstractEstimator, Bound, Terms
from .requirements import FRESH, SCORE


class AbstractBaseline(eqx.Module):
    """What is subtracted from the signal, or its product with a known-mean score; made of earlier steps only."""

    @abc.abstractmethod
    def init(self, bound: Bound) -> PyTree: ...

    @abc.abstractmethod
    def score_term(self, bound: Bound, draws: PyTree, signal: Array, carry: PyTree) -> tuple[Array, PyTree]:
        """(a term of shape `plate` whose gradient is the score part, the statistic for `update`)."""

    @abc.abstractmethod
    def update(self, carry: PyTree, stat: PyTree) -> PyTree: ...


class Constant(AbstractBaseline):
    """signal - c; c = 0 is plain REINFORCE."""

    value: float = eqx.field(static=True, default=0.0)

    def init(self, bound):
        return ()

    def score_term(self, bound, draws, signal, carry):
        return ((signal - self.value) * bound.log_prob(draws)).sum(0), None

    def update(self, carry, stat):
        return carry


class RunningMean(AbstractBaseline):
    """signal - (exponential mean of earlier signals).   Reference:  Mnih and Gregor (2014), section 2.3.1.  [mnih2014nvil]"""

    decay: float = eqx.field(static=True, default=0.9)

    def init(self, bound):
        return jnp.zeros((), default_float()), jnp.zeros((), default_float())  # sum, total weight

    def score_term(self, bound, draws, signal, carry):
        total, weight = carry
        centred = signal - jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
        return (centred * bound.log_prob(draws)).sum(0), signal.mean()

    def update(self, carry, stat):
        total, weight = carry
        return self.decay * total + (1 - self.decay) * stat, self.decay * weight + (1 - self.decay)


class Regression(AbstractBaseline):
    """Regression estimator: the score itself is the control variate, with the optimal coefficient for each parameter
    of q(. | x): beta* = Cov(f s, s) / Var(s) = E[f s^2] / E[s^2], since E[s] = 0.

    The moments are running means over earlier steps, hence no bias.
    Reference:  Ranganath, Gerrish and Blei (2014), equation 9.  [ranganath2014bbvi]
    """

    decay: float = eqx.field(static=True, default=0.9)

    def init(self, bound):
        one = split_trainable(bound.q)[0]
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape[len(bound.plate) :], a.dtype), one)
        return zeros, zeros  # E[f s^2], E[s^2]: their common weight cancels in beta

    def score_term(self, bound, draws, signal, carry):
        def score(m, q, x, draw):
            params, rest = split_trainable(q)
            return jax.grad(lambda p: eqx.combine(p, rest).log_prob(draw))(params)

        scores = jax.tree.map(stop_gradient, bound.map(score, draws))
        beta = jax.tree.map(lambda fs2, s2: jnp.where(s2 > 0, fs2 / jnp.where(s2 > 0, s2, 1.0), 0.0), *carry)
        spread = lambda a, s: a.reshape(a.shape + (1,) * (s.ndim - a.ndim))
        axes = tuple(range(1 + len(bound.plate)))
        # sum_p G_p phi_p has gradient G_p in the parameters phi of q(. | x), and flows on into an encoder
        term = lambda s, b, p: (((spread(signal, s) - b) * s).sum(0) * p).sum(tuple(range(len(bound.plate), p.ndim)))
        surrogate = sum(jax.tree.leaves(jax.tree.map(term, scores, beta, split_trainable(bound.q)[0])))
        return surrogate, (
            jax.tree.map(lambda s: (spread(signal, s) * s**2).mean(axes), scores),
            jax.tree.map(lambda s: (s**2).mean(axes), scores),
        )

    def update(self, carry, stat):
        return jax.tree.map(lambda a, b: self.decay * a + (1 - self.decay) * b, carry, stat)


_NAMED: dict[str, AbstractBaseline] = {"none": Constant(), "running-mean": RunningMean(), "regression": Regression()}


class ScoreFunction(AbstractEstimator):
    """Score-function gradient (REINFORCE, black-box VI) with a control variate.

    Definition: grad E_q[g] = E[ sum_k (f_k - b) d log q(z_k)/dphi + dg/dphi ]; f_k = l_k / K for a linear objective, else g(l).
    Arguments:  baseline: "none", a number (constant), "running-mean", "regression" (the optimal coefficient for each
                parameter), or an `AbstractBaseline`.
    Bias:       none: every baseline is made of earlier steps.   Cost: one evaluation a draw, no gradient of log p in z.
    Reference:  Williams (1992); Ranganath, Gerrish and Blei (2014).  [williams1992reinforce]
    """

    baseline: AbstractBaseline
    requires: ClassVar = (SCORE, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    minimises_variance: ClassVar = False
    role: ClassVar = None

    def __init__(
        self, baseline: Literal["none", "running-mean", "regression"] | float | AbstractBaseline = "running-mean"
    ):
        if isinstance(baseline, str):
            if baseline not in _NAMED:
                asked = f"`ScoreFunction(baseline={baseline!r})`"
                raise OptionError(
                    explain(asked, "it is unknown", "the name is looked up", f"one of {sorted(_NAMED)}, or a number")
                )
            baseline = _NAMED[baseline]
        elif not isinstance(baseline, AbstractBaseline):
            baseline = Constant(float(baseline))
        self.baseline = baseline

    def noise(self, key, plan, q, shape):
        return plan.draw(key, q.noise_law(), shape)

    def init(self, bound):
        return self.baseline.init(bound)

    def update(self, carry, stat):
        return self.baseline.update(carry, stat)

    def problems(self, composition):
        return []

    def terms(self, noise, bound, carry):
        draws = jax.tree.map(stop_gradient, bound.draw(noise))
        log_w = bound.log_weight(draws)
        value = bound.reduce(log_w)
        linear = Fact.LINEAR in bound.objective.facts
        share = 1 / log_w.shape[0] if linear else 1.0
        signal = stop_gradient(log_w if linear else jnp.broadcast_to(value, log_w.shape))
        score_term, stat = self.baseline.score_term(bound, draws, signal, carry)
        return Terms(value + share * score_term, value, stat=stat)
