"""Plain members of every family, with parameters off their starting values, and NumPyro's twin of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from jensen import families
from jensen.cell_examples import exported, generic
from jensen.facts import Fact
from jensen.families import Bernoulli, Categorical, FullRank, LowRank, MeanField, Product
from jensen.families.base import AbstractDistribution


class Member(NamedTuple):
    """q, its twin, and the twin's value for a draw of q."""

    q: Any
    twin: Any
    value: Any = lambda z: z


def members() -> dict[str, Member]:
    mean_field = generic(MeanField({"a": (1,), "b": (1,)}, scale=0.8))
    full, low = generic(FullRank((2,), scale=0.7)), generic(LowRank((2,), rank=1, scale=0.9))
    bernoulli = generic(Bernoulli([0.3, -1.2]))
    categorical = generic(Categorical([[0.1, 0.9, -0.4], [1.0, 0.0, 0.2]]))
    flat = lambda z: jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(z)])
    normal = lambda q: dist.Normal(q.loc, jnp.exp(q.log_scale)).to_event(1)
    scale = jnp.exp(low.log_scale)
    return {
        "MeanField": Member(mean_field, normal(mean_field), flat),
        "FullRank": Member(full, dist.MultivariateNormal(full.loc, scale_tril=full.cholesky())),
        "LowRank": Member(low, dist.LowRankMultivariateNormal(low.loc, scale[:, None] * low.factor, scale**2)),
        "Bernoulli": Member(bernoulli, dist.Bernoulli(logits=bernoulli.logits).to_event(1)),
        "Categorical": Member(
            categorical, dist.Categorical(logits=categorical.logits).to_event(1), lambda z: jnp.argmax(z, -1)
        ),
        "Product": Member(Product({"k": categorical, "b": bernoulli}), None),
        "Product of normals": Member(Product({"w": generic(MeanField((1,))), ("a", "b"): mean_field}), None),
    }


NAMES = list(members())


def without_member() -> list[str]:
    """Exported distributions that no member stands for; families that are not distributions have laws elsewhere."""
    plain = {n for n, c in exported(families, AbstractDistribution).items()}
    return sorted(plain - {type(m.q).__name__ for m in members().values()})


def grid(q: Any, n: int = 401, width: float = 8.0) -> tuple[Any, float]:
    """Draws on a regular grid over the bulk of a two-dimensional normal family, and the area of a cell."""
    mean, variance = q.moments()
    axis = np.linspace(-width, width, n)
    flat, unravel = ravel_pytree(mean)
    sd = jnp.sqrt(ravel_pytree(variance)[0])
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return jax.vmap(unravel)(flat + points * sd), float((axis[1] - axis[0]) ** 2 * jnp.prod(sd))


def expectation(q: Any, fn: Any) -> Any:
    """E fn(z) by summing over the support, or over the grid."""
    if Fact.ENUMERABLE in q.facts:
        z, cell = q.support(), 1.0
    else:
        z, cell = grid(q)
    p = jnp.exp(jax.vmap(q.log_prob)(z)) * cell
    return jax.tree.map(lambda a: jnp.tensordot(p, a, 1), jax.vmap(fn)(z))
