"""The randomness a distribution asks for, by name, so that a sampling plan can supply it.

A distribution says *which* noise one draw needs (`noise_law`: a pytree of laws); a plan decides *how* K x B copies are
made: independent, antithetic, stratified, quasi-random.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PyTree

from ..tree import default_float


class AbstractLaw(eqx.Module):
    """One independent piece of noise of a fixed shape."""

    shape: eqx.AbstractVar[tuple[int, ...]]

    @abc.abstractmethod
    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Independent copies with leading axes `shape`."""

    @abc.abstractmethod
    def from_uniform(self, u: Array) -> Array:
        """The same law from uniforms in (0, 1): what stratified and quasi-random plans use."""

    @abc.abstractmethod
    def reflect(self, noise: Array) -> Array:
        """The antithetic partner: same law, opposite side."""


class StandardNormal(AbstractLaw):
    """N(0, 1)."""

    shape: tuple[int, ...] = eqx.field(static=True)

    def draw(self, key, shape):
        return jr.normal(key, shape + self.shape, default_float())

    def from_uniform(self, u):
        return jax.scipy.special.ndtri(u)

    def reflect(self, noise):
        return -noise


class Uniform(AbstractLaw):
    """U(0, 1), never exactly 0 or 1 (a logit of it must be finite)."""

    shape: tuple[int, ...] = eqx.field(static=True)

    def draw(self, key, shape):
        dtype = default_float()
        edge = float(jnp.finfo(dtype).eps)
        return jr.uniform(key, shape + self.shape, dtype, minval=edge, maxval=1 - edge)

    def from_uniform(self, u):
        return u

    def reflect(self, noise):
        return 1 - noise


class Keys(AbstractLaw):
    """A random key a draw, for laws that cannot be split into noise and a transform. Independent plans only."""

    shape: tuple[int, ...] = eqx.field(static=True, default=())

    def draw(self, key, shape):
        return jr.split(key, shape) if shape else key

    def from_uniform(self, u):
        raise TypeError("keys cannot be made from uniforms")

    def reflect(self, noise):
        raise TypeError("keys have no antithetic partner")


def is_law(node: Any) -> bool:
    return isinstance(node, AbstractLaw)


def iid(key: Array, law: PyTree, shape: tuple[int, ...]) -> PyTree:
    """Independent noise with leading axes `shape`: one call a law, before any `vmap`."""
    laws, treedef = jax.tree.flatten(law, is_leaf=is_law)
    keys = [key] if len(laws) == 1 else list(jr.split(key, len(laws)))
    return jax.tree.unflatten(treedef, [one.draw(k, shape) for one, k in zip(laws, keys, strict=True)])


def dimension(law: PyTree) -> int:
    """How many scalars of noise one draw needs."""
    return sum(math.prod(one.shape) for one in jax.tree.leaves(law, is_leaf=is_law))


def from_uniforms(law: PyTree, u: Array) -> PyTree:
    """Noise from uniforms `(*shape, dimension(law))`."""
    laws, treedef = jax.tree.flatten(law, is_leaf=is_law)
    out, at = [], 0
    for one in laws:
        n = math.prod(one.shape)
        out.append(one.from_uniform(u[..., at : at + n].reshape(u.shape[:-1] + one.shape)))
        at += n
    return jax.tree.unflatten(treedef, out)
