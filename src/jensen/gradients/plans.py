"""Sampling plans: how K draws are made from q. Each gives noise with leading axes (K, *plate)."""

import abc
import math
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ..facts import Fact, Requirement
from ..families.noise import dimension, from_uniforms, iid, is_law
from ..tree import default_float

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

_TYPED = Requirement("family", Fact.TYPED_NOISE, "the plan makes dependent normals and uniforms itself", "plans.IID()")


class AbstractPlan(eqx.Module):
    """Every plan gives each draw the right law, alone: whatever is linear in the draws stays unbiased."""

    facts: AbstractVar[frozenset]
    requires: AbstractVar[tuple]

    @abc.abstractmethod
    def draw(self, key: Array, law: PyTree, shape: tuple[int, ...]) -> PyTree:
        """Noise with leading axes `shape` = (K, *plate)."""


class IID(AbstractPlan):
    """Independent draws."""

    facts: ClassVar = frozenset({Fact.INDEPENDENT, Fact.FRESH})
    requires: ClassVar = ()

    def draw(self, key, law, shape):
        return iid(key, law, shape)


class Antithetic(AbstractPlan):
    """Pairs of opposite draws: noise and its reflection (-eps, 1 - u); an odd last draw stands alone.

    Exact for the linear part of the integrand.   Reference:  Hammersley and Morton (1956).  [hammersley1956]
    """

    facts: ClassVar = frozenset({Fact.FRESH})
    requires: ClassVar = (_TYPED,)

    def draw(self, key, law, shape):
        half = iid(key, law, ((shape[0] + 1) // 2, *shape[1:]))
        mirror = jax.tree.map(lambda one, a: one.reflect(a), law, half, is_leaf=is_law)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[: shape[0]], half, mirror)


class Stratified(AbstractPlan):
    """Latin hypercube: each coordinate's K draws fall one in each of K equal strata.

    Removes the variance of the additive part.   Reference:  McKay, Beckman and Conover (1979).  [mckay1979]
    """

    facts: ClassVar = frozenset({Fact.FRESH})
    requires: ClassVar = (_TYPED,)

    def draw(self, key, law, shape):
        k1, k2 = jr.split(key)
        full = (*shape, dimension(law))
        strata = jnp.argsort(jr.uniform(k1, full, default_float()), axis=0)  # an independent permutation each
        return from_uniforms(law, _open((strata + jr.uniform(k2, full, default_float())) / shape[0]))


class QuasiMonteCarlo(AbstractPlan):
    """Randomised quasi-Monte Carlo: Sobol points, shifted by one uniform vector modulo 1 (each datum its own).

    Error near O(1/K) for smooth integrands; use K = 2^m.   Reference:  Buchholz, Wenzel and Mandt (2018).
    [buchholz2018qmcvi]
    """

    facts: ClassVar = frozenset({Fact.FRESH})
    requires: ClassVar = (_TYPED,)

    def draw(self, key, law, shape):
        k, *plate = shape
        d = dimension(law)
        points = jnp.asarray(_sobol(k, d), default_float()).reshape((k, *(1,) * len(plate), d))
        shift = jr.uniform(key, (*plate, d), default_float())
        return from_uniforms(law, _open(jnp.mod(points + shift, 1.0)))


class CommonRandomNumbers(AbstractPlan):
    """The same noise at every step: the objective becomes a fixed function (a sample-average approximation).

    Arguments:  seed: which noise.
    Bias:       none over seeds; for one seed the optimum is off by O(1/sqrt(K)).
    Reference:  Giordano, Ingram and Broderick (2024).  [giordano2024dadvi]
    """

    seed: int | Array = 0
    facts: ClassVar = frozenset({Fact.INDEPENDENT})
    requires: ClassVar = ()

    def draw(self, key, law, shape):
        return iid(jr.key(self.seed), law, shape)


def _open(u: Array) -> Array:
    """Into (0, 1): rounding may reach the ends, where ndtri is infinite."""
    edge = float(jnp.finfo(u.dtype).eps)
    return jnp.clip(u, edge, 1 - edge)


def _sobol(n: int, dimension_: int) -> np.ndarray:
    """(n, d) Sobol points, unscrambled (the shift randomises); beyond SciPy's tables the columns repeat shuffled."""
    from scipy.stats import qmc

    limit = qmc.Sobol.MAXDIM
    blocks = []
    for at in range(0, dimension_, limit):
        width = min(limit, dimension_ - at)
        block = qmc.Sobol(width, scramble=False).random_base2(max(0, math.ceil(math.log2(n))))[:n]
        blocks.append(block if at == 0 else np.random.default_rng(at).permutation(block))
    return np.concatenate(blocks, 1)
