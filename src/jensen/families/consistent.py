"""Half a law: a subclass that wrote the draws of a family anew, or its density, but not both."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

from ..errors import ModelError, explain
from ..facts import Fact, owner, rewritten
from .base import AbstractDistribution
from .gaussian import LOG_2PI
from .noise import StandardNormal, Uniform, is_law

MOST = 128  # coordinates whose Jacobian is formed
DRAWS = 4


def check_halves(family: Any) -> None:
    """Holds log q of draws against their law, in every distribution within a family whose class wrote one of the two anew.

    Definition: log q(T(e)) = log p(e) - log |det dT/de|, where the noise has as many coordinates as the draw; other
                families, and one in two pieces (with `Shared` parts, under `Amortised`), are not tested.
    Raises:     ModelError where the two differ.
    """
    is_q = lambda node: isinstance(node, AbstractDistribution)
    for node in jax.tree.leaves(family, is_leaf=is_q):
        if is_q(node) and _half(type(node)) and _whole(node) and {Fact.LOG_PROB, Fact.REPARAMETERISED} <= node.facts:
            _check(node)


def _half(cls: type) -> bool:
    draws, density = owner(cls, "transform"), owner(cls, "log_prob")
    return bool(rewritten(cls, density, ("transform",)) or rewritten(cls, draws, ("log_prob",)))


def _whole(q: AbstractDistribution) -> bool:
    """Has it all its arrays? `Amortised` keeps those that rows share apart from the others."""
    try:
        jax.eval_shape(lambda: q.log_prob(q.sample(jr.key(0))))
    except (AttributeError, TypeError):
        return False
    return True


def _check(q: AbstractDistribution) -> None:
    law = q.noise_law()
    laws = jax.tree.leaves(law, is_leaf=is_law)
    spec = jax.eval_shape(lambda: q.transform(q.noise(jr.key(0))))
    size = sum(math.prod(a.shape) for a in jax.tree.leaves(spec))
    typed = all(isinstance(one, (StandardNormal, Uniform)) for one in laws)
    if not typed or size > MOST or sum(math.prod(one.shape) for one in laws) != size:
        return

    def both(key: Any) -> tuple[Any, Any]:
        noise = q.noise(key)
        flat, back = ravel_pytree(noise)
        jacobian = jax.jacfwd(lambda e: ravel_pytree(q.transform(back(e)))[0])(flat)
        parts = zip(laws, jax.tree.leaves(noise), strict=True)
        log_p = sum((-0.5 * (e**2 + LOG_2PI).sum() if isinstance(one, StandardNormal) else 0.0) for one, e in parts)
        return q.log_prob(q.transform(noise)), log_p - jnp.linalg.slogdet(jacobian)[1]

    told, right = (np.asarray(a, np.float64) for a in jax.jit(jax.vmap(both))(jr.split(jr.key(0), DRAWS)))
    unit = float(np.sqrt(np.finfo(np.asarray(jnp.zeros(())).dtype).eps)) * 10
    if not np.allclose(told, right, rtol=unit, atol=unit * max(size, 1), equal_nan=True):
        cls = type(q)
        wrote = "transform" if rewritten(cls, owner(cls, "log_prob"), ("transform",)) else "log_prob"
        other = {"transform": "log_prob", "log_prob": "transform"}[wrote]
        wrong = f"`{wrote}` is written anew and `{other}` is `{owner(cls, other).__name__}`'s, and they are of two laws: at a "
        wrong += f"draw log q is {right[0]:.5g}, and `log_prob` says {told[0]:.5g}"
        because = "the bound is made of draws of q and of their density under q"
        raise ModelError(explain(f"`{cls.__name__}`", wrong, because, f"`{other}` written anew too"))
