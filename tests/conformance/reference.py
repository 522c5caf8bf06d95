"""Exact objectives and gradients of small compositions: sums over states, Gauss-Hermite quadrature, products of both.

The gradient in q's parameters is taken through the probabilities of fixed atoms (the score form), never through the
draws: no path estimator shares its route, and a model need not be differentiable in z.
"""

import itertools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient

from jensen.batch import Batch
from jensen.facts import Fact
from jensen.families import Radial
from jensen.families.noise import StandardNormal, Uniform, is_law
from jensen.tree import length, split_trainable

NODES = {1: 40, 2: 24, 3: 10, 5: 9}  # a dimension, for so many dimensions
FAST = {"xla_backend_optimization_level": 0}  # compiling is what these tests cost


class Exact(NamedTuple):
    value: float  # the objective's
    grad: np.ndarray  # of the loss, in all parameters of (model, family), raveled


class Atoms(NamedTuple):
    """Points of a draw and their weights: sum_i weight_i f(draw_i) = E f(draw)."""

    draws: Any
    weights: Any


def atoms(q: Any, nodes: dict[int, int] = NODES) -> Atoms:
    """Of any distribution of the examples, by its structure."""
    if hasattr(q, "rows"):  # global latents, and local ones of each row
        parts = [atoms(q.top, nodes)] + [atoms(_row(q.rows, i), nodes) for i in range(length(q.rows))]
        if all(Fact.REPARAMETERISED in part.facts for part in (q.top, q.rows)):
            return _quadrature(q, nodes)
        index, weights = _product([p.weights for p in parts])
        take = lambda i: jax.tree.map(lambda a: a[index[:, i]], parts[i].draws)
        local = jax.tree.map(lambda *a: jnp.stack(a, 1), *[take(i) for i in range(1, len(parts))])
        return Atoms({**take(0), **local}, weights)
    if hasattr(q, "sites"):
        parts = [atoms(factor, nodes) for factor in q.factors]
        index, weights = _product([p.weights for p in parts])
        taken = [jax.tree.map(lambda a, i=i: a[index[:, i]], p.draws) for i, p in enumerate(parts)]
        return Atoms(dict(zip(q.names, taken, strict=True)), weights)
    if Fact.ENUMERABLE in q.facts:
        states = q.support()
        return Atoms(states, jnp.exp(jax.vmap(q.log_prob)(states)))
    if hasattr(q, "components"):
        parts = [atoms(_row(q.components, k), nodes) for k in range(len(q.logits))]
        draws = jax.tree.map(lambda *a: jnp.concatenate(a), *[p.draws for p in parts])
        w = jax.nn.softmax(q.logits)
        return Atoms(draws, jnp.concatenate([w[k] * p.weights for k, p in enumerate(parts)]))
    if hasattr(q, "given"):
        return _mixed_over(q)
    if hasattr(q, "raw"):
        return _line(q)
    return _quadrature(q, nodes)


def _mixed_over(q: Any) -> Atoms:
    """Of q(eps) q(z | eps): each atom of eps (of all L + 1 of them, the first making z) beside those of z given it."""
    few = {1: 12, 2: 16}
    if hasattr(q, "particles"):
        e = q.particles.value
        mixed = one = Atoms(e, jnp.full(len(e), 1 / len(e)))
    elif hasattr(q, "generating"):
        one = atoms(q._mixing(), few)
        index, weights = _product([one.weights] * (q.n_mixing + 1))
        mixed = Atoms(jax.tree.map(lambda a: a[index], one.draws), weights)
        one = Atoms(jax.tree.map(lambda a: a[:, 0], mixed.draws), weights)
    else:
        mixed = one = atoms(q.mixing, few)
    own = jax.vmap(lambda e: atoms(q.given(e), few))(one.draws)
    flat = lambda a: a.reshape((-1, *a.shape[2:]))
    beside = lambda a: flat(jnp.broadcast_to(a[:, None], (*own.weights.shape, *a.shape[1:])))
    z = jax.tree.map(flat, own.draws)
    draws = z if hasattr(q, "particles") else (z, jax.tree.map(beside, mixed.draws))
    return Atoms(draws, flat(mixed.weights[:, None] * own.weights))


def _line(q: Any, n: int = 240) -> Atoms:
    """Of a positive variable: the trapezoidal rule in log z, of exponential accuracy; of a count: the first ones."""
    if q.kind_of("z") == "count":
        draws = jnp.arange(40.0)[:, None]
        return Atoms(draws, jnp.exp(jax.vmap(q.log_prob)(draws)))
    t = np.linspace(-26.0, 5.0, n)
    draws = jnp.exp(t)[:, None]
    return Atoms(draws, jnp.exp(jax.vmap(q.log_prob)(draws) + t) * (t[1] - t[0]))


def _row(rows: Any, i: int) -> Any:
    return jax.tree.map(lambda a: a[i] if eqx.is_array(a) else a, rows)


def _product(weights: list) -> tuple[np.ndarray, Any]:
    index = np.array(list(itertools.product(*[range(len(w)) for w in weights])))
    return index, math.prod([w[index[:, i]] for i, w in enumerate(weights)])


def _quadrature(q: Any, nodes: dict[int, int]) -> Atoms:
    """Gauss-Hermite for a transform of normal noise: of the latent's own dimension, or affine."""
    law = q.noise_law()
    assert all(isinstance(one, (StandardNormal, Uniform)) for one in jax.tree.leaves(law, is_leaf=is_law)), (
        "add a quadrature"
    )
    zero, unravel = ravel_pytree(jax.tree.map(lambda one: jnp.zeros(one.shape), law, is_leaf=is_law))
    unravel_noise = lambda e: jax.tree.map(_from_normal, law, unravel(e), is_leaf=is_law)
    flat, unravel_draw = ravel_pytree(q.transform(unravel_noise(zero)))
    d = len(flat)
    x, w = _rule(nodes[d], kinks=_kinks(q))
    grid = np.array(list(itertools.product(x, repeat=d)))
    weights = jnp.asarray(np.array(list(itertools.product(w / w.sum(), repeat=d))).prod(1))
    if len(zero) == d:
        return Atoms(jax.vmap(lambda e: q.transform(unravel_noise(e)))(grid), weights)
    affine = lambda e: ravel_pytree(q.transform(unravel_noise(e)))[0]
    mean, slope = affine(zero), jax.jacfwd(affine)(zero)
    return Atoms(jax.vmap(unravel_draw)(mean + grid @ jnp.linalg.cholesky(slope @ slope.T).T), weights)


def _from_normal(law: Any, e: Any) -> Any:
    """The law's noise, smooth in normal noise."""
    return e if isinstance(law, StandardNormal) else jnp.clip(jax.scipy.stats.norm.cdf(e), 1e-15, 1 - 1e-15)


def _kinks(q: Any) -> bool:
    """Splines have knots, a radial layer a centre."""
    return isinstance(q, Radial) or getattr(getattr(q, "stack", None), "knots", 0) > 0


def _rule(n: int, kinks: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for a standard normal: Gauss-Hermite; for a map with kinks more of them, close to each other."""
    if not kinks:
        return np.polynomial.hermite_e.hermegauss(n)
    x = np.linspace(-5.5, 5.5, 3 * n)
    return x, np.exp(-0.5 * x**2)


def _expectation(model: Any, q: Any, objective: Any, x: Any, n_samples: int, nodes: dict[int, int]) -> Any:
    """E reduce(log-weights of K draws) + exact, for one datum (or one batch under global latents).

    The score of a density with kinks jumps: there the gradient is taken along the path, if there is one, and the score
    estimators are those that share no route with it.
    """
    draws, p = atoms(q, nodes)
    if not (_kinks(q) and Fact.DIFFERENTIABLE in model.facts):
        draws, weights = jax.tree.map(stop_gradient, (draws, p))
        log_q = jax.vmap(q.log_prob)(draws)
        p = weights * jnp.exp(log_q - stop_gradient(log_q))  # value: the weight; gradient: weight times score
    log_w = jax.vmap(lambda d: objective.log_weight(model, q.latent(d), q.log_ratio(d), x))(draws)
    exact = objective.exact(model, q, x)
    if n_samples == 1 or Fact.LINEAR in objective.facts:
        return (p * jax.vmap(lambda l: objective.reduce(l[None]))(log_w)).sum() + exact
    assert n_samples == 2, "nonlinear objectives are enumerated over pairs of draws"
    pairs = jax.vmap(lambda a: jax.vmap(lambda b: objective.reduce(jnp.stack([a, b])))(log_w))(log_w)
    return p @ pairs @ p + exact


def exact(composition: Any, rows: Any, nodes: dict[int, int] = NODES) -> Exact:
    """On all rows of the data, whatever the minibatch."""
    c = composition
    diff, rest = split_trainable((c.model, c.family))

    def objective(diff):
        model, family = eqx.combine(diff, rest)
        one = lambda q, x: _expectation(model, q, c.objective, x, c.n_samples, nodes)
        if not model.plated:
            batch = Batch(rows)
            return one(family(batch), batch)
        each = [jax.tree.map(lambda a, i=i: a[i], rows) for i in range(length(rows))]
        return sum(one(family(x), x) for x in each)

    value, grad = jax.jit(jax.value_and_grad(objective), compiler_options=FAST)(diff)
    return Exact(float(value), -c.objective.sense * np.asarray(ravel_pytree(grad)[0]))
