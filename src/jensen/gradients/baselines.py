"""Baselines of the score function: what is subtracted from the signal, and must not depend on the draw."""

import abc
import math
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..facts import Fact
from ..tree import default_float, split_trainable
from .base import Bound


class AbstractBaseline(eqx.Module):
    """What is subtracted from the signal, or its product with a known-mean score; made of earlier steps only."""

    def bind(self, latents: PyTree, rows: PyTree, key: Array) -> Self:
        """Sized for the model, as an estimator is."""
        return self

    def problems(self, composition) -> list[tuple[str, str, str]]:
        """(wrong, because, instead) for each reason to refuse."""
        return []

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


class Mean:
    """Exponential running mean of statistics, from nothing: (weighted sum, total weight) is its state."""

    @staticmethod
    def start(like: PyTree = 0.0) -> PyTree:
        zeros = jax.tree.map(lambda a: jnp.zeros(jnp.shape(a), default_float()), like)
        return zeros, jnp.zeros((), default_float())

    @staticmethod
    def of(carry: PyTree, empty: float = 0.0) -> PyTree:
        total, weight = carry
        return jax.tree.map(lambda a: jnp.where(weight > 0, a / jnp.where(weight > 0, weight, 1.0), empty), total)

    @staticmethod
    def update(carry: PyTree, stat: PyTree, decay: float) -> PyTree:
        total, weight = carry
        mix = lambda a, b: decay * a + (1 - decay) * b
        return jax.tree.map(mix, total, stat), mix(weight, 1.0)


class RunningMean(AbstractBaseline):
    """signal - (exponential mean of earlier signals).   Reference:  Mnih and Gregor (2014), section 2.3.1.  [mnih2014nvil]"""

    decay: float = eqx.field(static=True, default=0.9)

    def init(self, bound):
        return Mean.start()

    def score_term(self, bound, draws, signal, carry):
        return ((signal - Mean.of(carry)) * bound.log_prob(draws)).sum(0), signal.mean()

    def update(self, carry, stat):
        return Mean.update(carry, stat, self.decay)


def _scores(bound: Bound, draws: PyTree) -> PyTree:
    """d log q(draw) / dphi in the parameters of q(. | x), leaves (K, *plate, ...), stopped."""

    def score(m, q, x, draw):
        params, rest = split_trainable(q)
        return jax.grad(lambda p: eqx.combine(p, rest).log_prob(draw))(params)

    return jax.tree.map(stop_gradient, bound.map(score, draws))


def _needs_own_parameters(composition) -> list[tuple[str, str, str]]:
    if not composition.model.plated or Fact.OWN_PARAMETERS in composition.family.facts:
        return []
    needs = f"{Fact.OWN_PARAMETERS.value}; `{type(composition.family).__name__}` (family) does not provide it"
    return [(needs, "a coefficient is found for each parameter from its score", 'ScoreFunction("running-mean")')]


class Regression(AbstractBaseline):
    """Regression estimator: the score itself is the control variate, with the optimal coefficient for each parameter
    of q(. | x): beta* = Cov(f s, s) / Var(s) = E[f s^2] / E[s^2], since E[s] = 0.

    The moments are running means over earlier steps, hence no bias.
    Reference:  Ranganath, Gerrish and Blei (2014), equation 9.  [ranganath2014bbvi]
    """

    decay: float = eqx.field(static=True, default=0.9)

    def problems(self, composition):
        return _needs_own_parameters(composition)

    def init(self, bound):
        one = split_trainable(bound.q)[0]
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape[len(bound.plate) :], a.dtype), one)
        return zeros, zeros  # E[f s^2], E[s^2]: their common weight cancels in beta

    def score_term(self, bound, draws, signal, carry):
        scores = _scores(bound, draws)
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


class FullRegression(AbstractBaseline):
    """Regression on several controls: the scores of all P parameters of q(. | x) serve each of them, with the matrix of
    optimal coefficients B = E[f s s'] E[s s']^-1, from running means over earlier steps.

    The variance left is Var(f s_p) (1 - R^2). Cost: O(P^2) a draw and O(P^3) a step: for small P.
    Reference:  Ranganath, Gerrish and Blei (2014), section 3.2; Glasserman (2003), section 4.1.3.  [glasserman2003]
    """

    decay: float = eqx.field(static=True, default=0.99)

    def problems(self, composition):
        return _needs_own_parameters(composition)

    def init(self, bound):
        one = jax.tree.leaves(split_trainable(bound.q)[0])
        n = sum(math.prod(a.shape[len(bound.plate) :]) for a in one)
        return jnp.zeros((n, n), one[0].dtype), jnp.zeros((n, n), one[0].dtype)

    def score_term(self, bound, draws, signal, carry):
        lead = 1 + len(bound.plate)
        flat = lambda tree, n: jnp.concatenate([a.reshape(*a.shape[:n], -1) for a in jax.tree.leaves(tree)], -1)
        s, phi = flat(_scores(bound, draws), lead), flat(split_trainable(bound.q)[0], lead - 1)
        cross, gram = carry
        ridge = 1e-6 * jnp.trace(gram) / len(gram) + jnp.finfo(gram.dtype).tiny
        beta = jnp.linalg.solve(gram + ridge * jnp.eye(len(gram), dtype=gram.dtype), cross)
        each = signal[..., None] * s - s @ beta
        rows = s.reshape(-1, s.shape[-1])
        weighed = rows * signal.reshape(-1, 1)
        return (each.sum(0) * phi).sum(-1), (weighed.T @ rows / len(rows), rows.T @ rows / len(rows))

    def update(self, carry, stat):
        return jax.tree.map(lambda a, b: self.decay * a + (1 - self.decay) * b, carry, stat)
