"""Hundreds and thousands of effects: groups, crossed groups, people and items, areas over time."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit

from benchmarks.posteriors.priced.base import add, single

LAWS: dict[str, Callable] = {
    "bernoulli": lambda eta: dist.Bernoulli(logits=eta),
    "poisson": lambda eta: dist.Poisson(jnp.exp(eta)),
}


def _answers(rng: np.random.Generator, law: str, eta: np.ndarray) -> np.ndarray:
    return rng.poisson(np.exp(eta)) if law == "poisson" else rng.random(eta.shape) < expit(eta)


def _effects(name: str, plate: str, size: int, loc, scale, centred: bool):
    """Around `loc`, at `scale`; or standardised, the effects being deterministic."""
    with numpyro.plate(plate, size):
        if centred:
            return numpyro.sample(name, dist.Normal(loc, scale))
        return numpyro.deterministic(name, loc + scale * numpyro.sample(f"{name}_z", dist.Normal(0.0, 1.0)))


def _observe(law: str, eta, y):
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", LAWS[law](eta), obs=y)


def _add(name: str, model: Callable, centred: bool, data: Callable, sampled_centred: bool, **settings) -> None:
    """Sampled for reference in the form that mixes better."""
    sampler = None if sampled_centred == centred else functools.partial(model, centred=sampled_centred)
    convert = None if sampler is None or not sampled_centred else _standardise
    settings = {"n_warmup": 500, "n_chunk": 1000, "target_accept": 0.85} | settings
    add(name, functools.partial(model, centred=centred), data, sampler=sampler, convert=convert, **settings)


def _standardise(draws):
    """Effects of a mean and a scale as the standardised model's latents."""
    mu, tau, effect = (np.asarray(draws[name]) for name in ("mu", "tau", "effect"))
    return draws | {"effect_z": (effect - mu[..., None]) / tau[..., None]}


# ---- one group for each row, or two ----------------------------------------------------------------------------------
def groups(x, group, y, *, law: str, size: int, centred: bool):
    """An effect of each group, and two coefficients."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    effect = _effects("effect", "groups", size, mu, tau, centred)
    _observe(law, x @ beta + effect[group], y)


def _groups(name: str, law: str, size: int, repeats: int, centred: bool, sampled_centred: bool, **settings) -> None:
    def data(rng):
        group = np.repeat(np.arange(size), repeats)
        x = rng.standard_normal((len(group), 2))
        eta = 0.4 + x @ np.array([0.5, -0.3]) + 0.7 * rng.standard_normal(size)[group]
        return single(x, group, _answers(rng, law, eta))

    _add(name, functools.partial(groups, law=law, size=size), centred, data, sampled_centred, **settings)


_groups("counts_500_groups", "poisson", 500, 10, centred=True, sampled_centred=True)
_groups("answers_500_groups", "bernoulli", 500, 20, centred=False, sampled_centred=True)
_groups("answers_1000_groups", "bernoulli", 1_000, 20, centred=True, sampled_centred=True)
_groups("answers_3000_groups", "bernoulli", 3_000, 10, centred=False, sampled_centred=False)


def slopes(x, group, y, *, size: int, centred: bool):
    """Three correlated coefficients of each group."""
    k = x.shape[1]
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0).expand([k]).to_event(1))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0).expand([k]).to_event(1))
    root = tau[:, None] * numpyro.sample("root", dist.LKJCholesky(k, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("groups", size):
        if centred:
            beta = numpyro.sample("beta", dist.MultivariateNormal(mean, scale_tril=root))
        else:
            beta = mean + numpyro.sample("z", dist.Normal(0.0, 1.0).expand([k]).to_event(1)) @ root.T
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal((x * beta[group]).sum(1), sigma), obs=y)


def _slopes_data(rng):
    group = np.repeat(np.arange(500), 12)
    x = np.column_stack([np.ones(len(group)), rng.standard_normal((len(group), 2))])
    scale = np.array([0.8, 0.5, 0.3])
    beta = np.array([1.0, -0.5, 0.2]) + rng.multivariate_normal(
        np.zeros(3), np.outer(scale, scale) * (0.6 * np.eye(3) + 0.4), 500
    )
    return single(x, group, (x * beta[group]).sum(1) + 0.6 * rng.standard_normal(len(group)))


_add("slopes_500_groups", functools.partial(slopes, size=500), True, _slopes_data, sampled_centred=True)


def crossed(row, column, y, *, sizes: tuple[int, int], centred: bool):
    """An effect of each row's person and of its place."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    people = numpyro.sample("people_scale", dist.HalfNormal(1.0))
    places = numpyro.sample("places_scale", dist.HalfNormal(1.0))
    person = _effects("person", "people", sizes[0], 0.0, people, centred)
    place = _effects("place", "places", sizes[1], 0.0, places, centred)
    _observe("bernoulli", mu + person[row] + place[column], y)


def _crossed_data(rng):
    row, column = rng.integers(0, 200, 12_000), rng.integers(0, 300, 12_000)
    eta = -0.3 + 0.8 * rng.standard_normal(200)[row] + 0.5 * rng.standard_normal(300)[column]
    return single(row, column, rng.random(12_000) < expit(eta))


_add("crossed_200_300", functools.partial(crossed, sizes=(200, 300)), False, _crossed_data, False, target_accept=0.8)


# ---- a thousand people and thirty items ------------------------------------------------------------------------------
def items(y, *, discriminating: bool, centred: bool):
    """Abilities of spread one, difficulties, and a discrimination of all items or of each."""
    people, size = y.shape
    ability = numpyro.sample("ability", dist.Normal(0.0, 1.0).expand([people]).to_event(1))
    difficulty = numpyro.sample("difficulty", dist.Normal(0.0, 2.0).expand([size]).to_event(1))
    own = [size] if discriminating else []
    slope = numpyro.sample("discrimination", dist.LogNormal(0.0, 0.5).expand(own).to_event(len(own)))
    numpyro.sample("y", dist.Bernoulli(logits=slope * (ability[:, None] - difficulty)).to_event(2), obs=y)


for _name, _discriminating in {"items_1pl_1000": False, "items_2pl_1000": True}.items():

    def _items_data(rng, discriminating=_discriminating):
        slope = np.exp(0.3 * rng.standard_normal(30)) if discriminating else 1.2
        return single(
            rng.random((1_000, 30)) < expit(slope * (rng.standard_normal((1_000, 1)) - rng.standard_normal(30)))
        )

    _add(_name, functools.partial(items, discriminating=_discriminating), False, _items_data, False)


# ---- areas over time -------------------------------------------------------------------------------------------------
def areas_over_time(place, y, *, centred: bool):
    """Counts of areas; effects carry over from one time to the next, and what is new is alike where areas are near."""
    times, areas = y.shape
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    carry = numpyro.sample("carry", dist.Beta(4.0, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    distance = jnp.sqrt(((place[:, None] - place) ** 2).sum(-1) + 1e-12)
    root = scale * jnp.linalg.cholesky(jnp.exp(-distance / length) + 1e-4 * jnp.eye(areas))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([times, areas]).to_event(2))
    move = lambda effect, new: (carry * effect + new,) * 2
    effect = jax.lax.scan(move, jnp.zeros_like(z[0]), z @ root.T)[1]
    numpyro.sample("y", dist.Poisson(jnp.exp(mean + effect)).to_event(2), obs=y)


def _areas_data(rng):
    place = rng.uniform(0.0, 3.0, (20, 2))
    root = 0.4 * np.linalg.cholesky(np.exp(-np.linalg.norm(place[:, None] - place, axis=-1)) + 1e-6 * np.eye(20))
    effect = np.zeros((50, 20))
    for t in range(50):
        effect[t] = 0.8 * effect[t - 1] + root @ rng.standard_normal(20)
    return single(place, rng.poisson(np.exp(1.0 + effect)))


_add("areas_over_50_times", areas_over_time, False, _areas_data, False)
