"""Augment-REINFORCE-merge."""

import abc
from typing import ClassVar

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array

from ..facts import Fact, Requirement
from .alternatives import AbstractAlternatives
from .requirements import BINARY, FRESH, LAYERS, LINEAR

PAIRED = Requirement(
    "plan", Fact.INDEPENDENT, "each draw already comes with a partner of its own, dependent on it", "plans.IID()"
)


class AbstractReflected(AbstractAlternatives):
    """Binary layers: draw z from uniforms u; for each layer l, z^l from the same uniforms with those of layer l
    reflected, u_l -> 1 - u_l. Layers before l are as in z; those after it follow from what l has become."""

    @abc.abstractmethod
    def coefficient(self, u: Array, logits: Array, b: Array, partner: Array) -> Array:
        """c with d E f / d logits = E (f(b) - f(partner)) c, for one layer."""

    def alternatives(self, q, noise):
        u, draw = q.layers(noise), q.transform(noise)
        hard = q.layers(draw)
        others = [q.transform(q.unlayered((*u[:i], 1 - u[i], *u[i + 1 :]))) for i in range(q.n_layers)]
        weights = []
        for i, other in enumerate(others):
            logits = q.next_logits(hard[:i])
            c = self.coefficient(u[i], stop_gradient(logits), hard[i], q.layers(other)[i])
            weights.append(-(stop_gradient(c) * logits).sum())
        stacked = tuple(jnp.stack(a) for a in zip(*map(q.layers, others), strict=True))
        return draw, q.unlayered(stacked), jnp.stack(weights)


class ARM(AbstractReflected):
    """Augment-REINFORCE-merge (ARM), for binary latents.

    Definition: dL/da_d = E[(f(b) - f(b')) (u_d - 1/2)], b = 1[u > sigmoid(-a)], b' = 1[1 - u > sigmoid(-a)]; with
                layers, for each layer in turn, the later ones drawn anew from the same uniforms.
    Arguments:  none; `n_samples=K` counts pairs, any K >= 1.
    Bias:       none.   Cost: 1 + (number of layers) evaluations a draw; no gradient of log p in z.
    See also:   DisARM, whose variance is never larger.
    Reference:  Yin and Zhou (2019), theorem 1 and proposition 6.  [yin2019arm]
    """

    requires: ClassVar = (LAYERS, BINARY, LINEAR, FRESH, PAIRED)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None
    same_law: ClassVar = True

    def coefficient(self, u, logits, b, partner):
        return u - 0.5
