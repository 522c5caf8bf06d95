"""Checks of a family of one's own."""

import math
import tempfile
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from ..facts import Fact
from ..families.base import AbstractDistribution, AbstractFamily
from ..families.noise import StandardNormal, Uniform
from ..fit.fit import fit
from ..fit.persist import load
from ..models.log_density import LogDensity
from ..tree import split_trainable
from .base import CLOSE, KERNELS, WIDTH, N, Z, hold


def check_family(family: Any, latents: PyTree = (2,), rows: Any = None, *, seed: int = 0) -> None:
    """That a family keeps what its facts promise, for latents of these shapes.

    Checks:     sizing keeps its class; draws and their densities agree however they are made; the density is that of the
                draws: by the Jacobian of `transform` where its noise is as large as the draw, else by importance sampling from
                kernels around the draws; states have mass 1; entropy, moments and the zero mean of the score are as the draws
                have them; a fit of it is saved and read again.
    Arguments:  family: an object or a class.   latents: shapes, a tree of them, or of ShapeDtypeStruct.
                rows: for a family that reads a row.
    Raises:     Wrong; ModelError where it does not fit the latents.
    """
    with jax.enable_x64(True):
        spec = _specs(latents)
        made = family() if isinstance(family, type) else family
        sized = made.bind(spec, rows, jr.key(seed))
        name = type(made).__name__
        because = "what a subclass writes anew would be lost"
        kept = isinstance(sized, type(made))
        hold(kept, f"`{name}.bind`", f"it gives a `{type(sized).__name__}`", because, "type(self)(...)")
        row = None if rows is None else jax.tree.map(lambda a: a[0], rows)
        q = sized(row)
        draws = _check_draws(q, name, jr.key(seed))
        if Fact.LOG_PROB in q.facts:
            _check_density(q, name, draws, jr.key(seed + 1))
        _check_promises(q, name, draws)
    if rows is None:
        _check_it_fits(made, sized, spec, seed)


def _specs(latents: PyTree) -> PyTree:
    shape = lambda s: isinstance(s, tuple) and all(isinstance(n, int) for n in s)
    known = lambda s: s if isinstance(s, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(s, jnp.float64)
    return jax.tree.map(known, latents, is_leaf=lambda s: shape(s) or isinstance(s, jax.ShapeDtypeStruct))


def _flat(tree: PyTree) -> Any:
    return jax.vmap(lambda one: ravel_pytree(one)[0])(tree)


def _check_draws(q: AbstractDistribution, name: str, key: Any) -> PyTree:
    """Draws, leading axis N, made in one call and one by one alike."""
    noise = q.noise(key, (N,))
    draws = jax.jit(jax.vmap(q.transform))(noise)
    one = q.transform(jax.tree.map(lambda a: a[0], noise))
    because = "fits run compiled and mapped"
    same = np.allclose(ravel_pytree(one)[0], _flat(draws)[0], rtol=CLOSE, atol=CLOSE)
    hold(
        same, f"`{name}.transform`", "compiled and mapped it gives other draws", because, "a pure function in jax.numpy"
    )
    finite = bool(jnp.isfinite(_flat(draws)).all())
    hold(finite, f"`{name}.transform`", "some draws are not finite", "they are latents", "a map into finite numbers")
    if Fact.LOG_RATIO in q.facts:
        again, at_once = jax.jit(jax.vmap(q.transform_and_log_ratio))(noise)
        of_draws = jax.jit(jax.vmap(q.log_ratio))(draws)
        same = np.allclose(_flat(again), _flat(draws), atol=CLOSE) and np.allclose(at_once, of_draws, atol=1e-5)
        wrong, instead = "it differs from `transform` and `log_ratio`", "the same two, or do not write it"
        hold(same, f"`{name}.transform_and_log_ratio`", wrong, "path gradients use it", instead)
    return draws


def _check_density(q: AbstractDistribution, name: str, draws: PyTree, key: Any) -> None:
    log_q = jax.jit(jax.vmap(q.log_prob))(draws)
    asked, because = f"`{name}.log_prob`", "log p - log q would be no bound on anything"
    hold(jnp.isfinite(log_q).all(), asked, "it is not finite at draws of q", because, "the log density of `transform`")
    if Fact.ENUMERABLE in q.facts:
        mass = float(jnp.exp(jax.vmap(q.log_prob)(q.support())).sum())
        hold(abs(mass - 1) < CLOSE, asked, f"the states of its support have mass {mass:.6g}", because, "probabilities")
        return
    if any(q.kind_of(site) in ("binary", "category") for site in _sites(q, draws)):
        states = np.unique(np.asarray(_flat(draws)), axis=0)
        mass = float(jnp.exp(jax.vmap(q.log_prob)(jax.vmap(_unraveler(draws))(states))).sum())
        wrong = f"the {len(states)} states that {N:,} draws of it saw have mass {mass:.4g}"
        holds = mass < 1 + CLOSE and (len(states) > N // 20 or mass > 0.99)
        hold(holds, asked, wrong, because, "probabilities, of these draws")
        return
    exact = _by_jacobian(q, key)
    if exact is not None:
        found, jacobian = exact
        off = float(jnp.abs(found - jacobian).max())
        wrong = f"it is off by up to {off:.3g} nats from log p(noise) - log |det d transform|"
        hold(off < 1e-4 * (1 + float(jnp.abs(found).max())), asked, wrong, because, "the log density of `transform`")
        return
    z = _by_kernels(q, draws, key)
    wrong = f"its mass, mean and mean square are up to {z:.1f} standard errors from those of its draws"
    hold(z < Z, asked, wrong, because, "a density that is normalised, and of these draws")


def _sites(q: AbstractDistribution, draws: PyTree) -> list[str]:
    latent = q.latent(jax.tree.map(lambda a: a[0], draws))
    return list(latent) if isinstance(latent, dict) else ["z"]


def _unraveler(draws: PyTree) -> Any:
    return ravel_pytree(jax.tree.map(lambda a: a[0], draws))[1]


def _by_jacobian(q: AbstractDistribution, key: Any) -> tuple[Any, Any] | None:
    """(log_prob of some draws, what the change of variables says), where the noise is real and as large as the draw."""
    laws = jax.tree.leaves(q.noise_law(), is_leaf=lambda law: isinstance(law, StandardNormal | Uniform))
    if not all(isinstance(law, StandardNormal | Uniform) for law in laws) or Fact.REPARAMETERISED not in q.facts:
        return None
    noise = q.noise(key)
    flat, unravel = ravel_pytree(noise)
    if flat.size != ravel_pytree(q.transform(noise))[0].size:
        return None

    def one(noise):
        e, _ = ravel_pytree(noise)
        jacobian = jax.jacfwd(lambda e: ravel_pytree(q.transform(unravel(e)))[0])(e)
        own = [
            -0.5 * (a**2 + math.log(2 * math.pi)).sum()
            for a, law in _pairs(noise, q)
            if isinstance(law, StandardNormal)
        ]
        return q.log_prob(q.transform(noise)), sum(own, 0.0) - jnp.linalg.slogdet(jacobian)[1]

    return jax.vmap(one)(q.noise(key, (20,)))


def _pairs(noise: PyTree, q: AbstractDistribution) -> Iterator[tuple[Any, Any]]:
    laws = jax.tree.leaves(q.noise_law(), is_leaf=lambda law: isinstance(law, StandardNormal | Uniform))
    return zip(jax.tree.leaves(noise), laws, strict=True)


def _by_kernels(q: AbstractDistribution, draws: PyTree, key: Any) -> float:
    """How far E_r[(q / r) f] is from the mean of f over q's draws, in standard errors, for r a mixture of wide kernels around
    some of them, and f one, each standardised coordinate, and its square."""
    x, unravel = _flat(draws), _unraveler(draws)
    mean, sd = x.mean(0), x.std(0) + 1e-300
    own = (x - mean) / sd
    centres, pick, noise = own[:KERNELS], *jr.split(key)
    at = centres[jr.randint(pick, (N,), 0, KERNELS)] + WIDTH * jr.normal(noise, (N, own.shape[1]))
    kernels = lambda u: jax.nn.logsumexp(-0.5 * (((u - centres) / WIDTH) ** 2).sum(-1))
    log_r = jax.lax.map(kernels, at, batch_size=1000) - math.log(KERNELS)
    log_r -= own.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(WIDTH)) + jnp.log(sd).sum()
    ratio = jnp.exp(jax.jit(jax.vmap(q.log_prob))(jax.vmap(unravel)(mean + sd * at)) - log_r)[:, None]
    f = lambda u: jnp.concatenate([jnp.ones((len(u), 1)), jnp.tanh(u), jnp.tanh(u**2)], 1)
    one, other = ratio * f(at), f(own[KERNELS:])
    error = jnp.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    return float((jnp.abs(one.mean(0) - other.mean(0)) / (error + 1e-9)).max())


def _check_promises(q: AbstractDistribution, name: str, draws: PyTree) -> None:
    x, n = _flat(draws), N
    if Fact.ENTROPY in q.facts:
        log_q = jax.jit(jax.vmap(q.log_prob))(draws)
        off, error = float(q.entropy() + log_q.mean()), float(log_q.std()) / math.sqrt(n)
        wrong = f"it is {float(q.entropy()):.4f}, and -E log q is {-float(log_q.mean()):.4f}"
        hold(
            abs(off) < Z * error + CLOSE, f"`{name}.entropy`", wrong, "it promises ENTROPY", "-E log q; or no such fact"
        )
    if Fact.MOMENTS in q.facts:
        mean, variance = (ravel_pytree(m)[0] for m in q.moments())
        sd = x.std(0)
        far = jnp.abs(mean - x.mean(0)) / (sd + 1e-300)
        kurtosis = ((x - x.mean(0)) ** 4).mean(0) / (sd + 1e-300) ** 4
        spread = jnp.abs(variance / (sd**2 + 1e-300) - 1) / jnp.sqrt(jnp.maximum(kurtosis - 1, 1e-2))
        wrong = f"means are off by {float(far.max()):.3g} sd from its draws', variances by {float(spread.max()):.3g}"
        holds = max(float(far.max()), float(spread.max())) < Z / math.sqrt(n) + CLOSE
        hold(holds, f"`{name}.moments`", wrong, "it promises MOMENTS", "mean and variance; or no such fact")
    if Fact.ZERO_MEAN_SCORE in q.facts:
        params, rest = split_trainable(q)
        score = jax.vmap(lambda z: ravel_pytree(jax.grad(lambda p: eqx.combine(p, rest).log_ratio(z))(params))[0])
        s = jax.jit(score)(jax.lax.stop_gradient(jax.tree.map(lambda a: a[:4000], draws)))
        z = float((jnp.abs(s.mean(0)) / (s.std(0) / math.sqrt(len(s)) + 1e-9)).max()) if s.size else 0.0
        wrong = f"its mean is {z:.1f} standard errors from 0"
        instead = "a normalised log density of all trained arrays; or no such fact"
        hold(z < Z, f"the score of `{name}`", wrong, "it promises ZERO_MEAN_SCORE", instead)


def _check_it_fits(made: AbstractFamily, sized: AbstractFamily, spec: PyTree, seed: int) -> None:
    if any(sized.kind_of(site) != "real" for site in (spec if isinstance(spec, dict) else {"z": spec})):
        return
    shapes = jax.tree.map(lambda s: s.shape, spec)
    model = LogDensity(lambda z: -0.5 * sum(jnp.sum((a - 1.0) ** 2) for a in jax.tree.leaves(z)), shapes)
    found = fit(model, family=made, n_steps=20, optimizer=1e-2, n_draws=200, seed=seed, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        again = load(found.save(folder), model=model, family=found.family)
    same = all(map(np.array_equal, jax.tree.leaves(again.sample(3)), jax.tree.leaves(found.sample(3))))
    name = type(made).__name__
    hold(
        same,
        f"a saved fit of `{name}`",
        "it gives other draws",
        "a fit is kept",
        "arrays and static settings as fields",
    )
