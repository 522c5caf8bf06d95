"""Plain members of every family, with parameters off their starting values, and NumPyro's twin of each."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from jensen import families
from jensen.cell_examples import exported
from jensen.cell_models import generic
from jensen.facts import Fact
from jensen.families import (
    NICE,
    Autoregressive,
    Bernoulli,
    Categorical,
    Concrete,
    ContinuousFlow,
    FullRank,
    GaussianCopula,
    Householder,
    InverseAutoregressive,
    Layers,
    LowRank,
    MaskedAutoregressive,
    MeanField,
    Mixture,
    Particles,
    Planar,
    Product,
    Radial,
    RealNVP,
    SinhArcsinh,
    Spline,
    Sylvester,
    Univariate,
)
from jensen.families.base import AbstractPlain
from jensen.families.sylvester import reflect
from jensen.tree import default_float


class Member(NamedTuple):
    """q, its twin, and the twin's value for a draw of q. accuracy: of sums over the grid (a spline has kinks)."""

    q: Any
    twin: Any
    value: Any = lambda z: z
    accuracy: float = 1e-9


def members() -> dict[str, Member]:
    return _members(str(default_float()))


@functools.cache
def _members(dtype: str) -> dict[str, Member]:
    mean_field = generic(MeanField({"a": (1,), "b": (1,)}, scale=0.8))
    full, low = generic(FullRank((2,), scale=0.7)), generic(LowRank((2,), rank=1, scale=0.9))
    bernoulli = generic(Bernoulli([0.3, -1.2]))
    categorical = generic(Categorical([[0.1, 0.9, -0.4], [1.0, 0.0, 0.2]]))
    flat = lambda z: jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(z)])
    normal = lambda q: dist.Normal(q.loc, jnp.exp(q.log_scale)).to_event(1)
    scale = jnp.exp(low.log_scale)
    mixture = generic(Mixture((FullRank((2,), loc=jnp.array([1.0, 0.3])), FullRank((2,), scale=0.8)), (0.3, 0.7)))
    parts = dist.MultivariateNormal(
        mixture.components.loc, scale_tril=jax.vmap(lambda q: q.cholesky())(mixture.components)
    )
    univariate = generic(Univariate("normal", (2,), scale=0.8))
    concrete = generic(Concrete([0.3, -1.2], 0.8))
    flow = lambda cls, **options: generic(cls({"a": (1,), "b": (1,)}, n_layers=2, width=3, scale=0.7, **options))
    small = lambda cls: generic(cls({"a": (1,), "b": (1,)}, n_layers=2, scale=0.7))
    reflected = small(Householder)
    turned = jax.vmap(lambda e: reflect(reflected.vectors, e), out_axes=1)(jnp.diag(jnp.exp(reflected.log_scale)))
    continuous = generic(ContinuousFlow({"a": (1,), "b": (1,)}, width=3, depth=1, n_steps=4, scale=0.7))
    return {
        "MeanField": Member(mean_field, normal(mean_field), flat),
        "FullRank": Member(full, dist.MultivariateNormal(full.loc, scale_tril=full.cholesky())),
        "LowRank": Member(low, dist.LowRankMultivariateNormal(low.loc, scale[:, None] * low.factor, scale**2)),
        "Bernoulli": Member(bernoulli, dist.Bernoulli(logits=bernoulli.logits).to_event(1)),
        "Categorical": Member(
            categorical, dist.Categorical(logits=categorical.logits).to_event(1), lambda z: jnp.argmax(z, -1)
        ),
        "Layers": Member(generic(Layers({"h1": 2, "h2": 1, "h3": 2})), None),
        "Concrete": Member(concrete, dist.Logistic(concrete.logits / 0.8, 1 / 0.8).to_event(1), accuracy=1e-4),
        "Mixture": Member(
            mixture, dist.MixtureSameFamily(dist.Categorical(logits=mixture.logits), parts), accuracy=1e-7
        ),
        "Mixture of LowRank": Member(generic(Mixture(n=2, component=low)), None, accuracy=1e-7),
        "Mixture of Bernoullis": Member(generic(Mixture((bernoulli, Bernoulli([1.0, 0.2])))), None),
        "Particles": Member(_particles(), None, accuracy=1e-7),
        "RealNVP": Member(flow(RealNVP), None, accuracy=1e-5),
        "Spline": Member(flow(Spline, knots=3, interval=3.0), None, accuracy=5e-3),
        "InverseAutoregressive": Member(flow(InverseAutoregressive), None, accuracy=1e-5),
        "MaskedAutoregressive": Member(flow(MaskedAutoregressive, diagonal=True), None, accuracy=1e-5),
        "NICE": Member(flow(NICE), None, accuracy=1e-5),
        "Planar": Member(small(Planar), None, accuracy=1e-5),
        "Radial": Member(small(Radial), None, accuracy=1e-4),
        "Sylvester": Member(small(Sylvester), None, accuracy=1e-5),
        "Householder": Member(reflected, dist.MultivariateNormal(reflected.loc, turned @ turned.T), flat),
        "ContinuousFlow": Member(continuous, None, accuracy=1e-5),
        "SinhArcsinh": Member(generic(SinhArcsinh({"a": (1,), "b": (1,)}, scale=0.7)), None, accuracy=1e-5),
        "GaussianCopula": Member(_bound(GaussianCopula({"a": "logistic", "b": SinhArcsinh()})), None, accuracy=1e-4),
        "Autoregressive": Member(_bound(Autoregressive(("b", "a"))), None, accuracy=1e-5),
        "Univariate": Member(univariate, dist.Normal(**univariate.parameters).to_event(1)),
        "Product": Member(Product({"k": categorical, "b": bernoulli}), None),
        "Product of normals": Member(Product({"w": generic(MeanField((1,))), ("a", "b"): mean_field}), None),
    }


def _particles() -> Any:
    return _bound(Particles(3, hidden=(4,), activation="tanh"))


def _bound(q: Any) -> Any:
    """Over two named coordinates."""
    two = {"a": jax.ShapeDtypeStruct((1,), default_float()), "b": jax.ShapeDtypeStruct((1,), default_float())}
    return generic(q.bind(two, None, jax.random.key(1)))


NAMES = list(members())


def without_member() -> list[str]:
    """Exported distributions that no member stands for; families that are not distributions have laws elsewhere."""
    plain = {n for n, c in exported(families, AbstractPlain).items()}
    return sorted(plain - {type(m.q).__name__ for m in members().values()})


def grid(q: Any, n: int = 401, width: float = 8.0) -> tuple[Any, Any]:
    """Draws on a regular grid over the bulk of a two-dimensional continuous family, and the area of a cell."""
    mean, variance = q.moments() if Fact.MOMENTS in q.facts else _sampled_moments(q)
    axis = np.linspace(-width, width, n)
    flat, unravel = ravel_pytree(mean)
    sd = jnp.sqrt(ravel_pytree(variance)[0])
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return jax.vmap(unravel)(flat + points * sd), (axis[1] - axis[0]) ** 2 * jnp.prod(sd)


def _sampled_moments(q: Any) -> tuple[Any, Any]:
    """Where to put a grid."""
    draws = jax.lax.stop_gradient(jax.vmap(q.transform)(q.noise(jax.random.key(0), (2000,))))
    return jax.tree.map(lambda a: a.mean(0), draws), jax.tree.map(lambda a: a.var(0), draws)


def moments(q: Any) -> tuple[Any, Any]:
    """(mean, variance): the family's own, or by the grid."""
    if Fact.MOMENTS in q.facts:
        return q.moments()
    mean = expectation(q, lambda z: z)
    return mean, expectation(q, lambda z: jax.tree.map(lambda a, m: (a - m) ** 2, z, mean))


def expectation(q: Any, fn: Any) -> Any:
    """E fn(z) by summing over the support, or over the grid."""
    if Fact.ENUMERABLE in q.facts:
        z, cell = q.support(), 1.0
    else:
        z, cell = grid(q)
    p = jnp.exp(jax.jit(jax.vmap(lambda z: q.log_prob(z)))(z)) * cell
    return jax.tree.map(lambda a: jnp.tensordot(p, a, 1), jax.jit(jax.vmap(fn))(z))
