"""Non-centred coordinates of NumPyro models: the same posterior, whatever the site's scale is."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen.models.adapters.numpyro_reparam import Centred, noncentred, scaled_sites
from jensen.tree import Layout

X = np.linspace(-1.0, 1.0, 5)


def effects():
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 4):
        numpyro.sample("b", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), tau))


def slopes():
    tau = numpyro.sample("tau", dist.HalfNormal(1.0).expand([2]).to_event(1))
    root = tau[:, None] * numpyro.sample("root", dist.LKJCholesky(2, 2.0))
    mean = numpyro.sample("mean", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("groups", 3):
        numpyro.sample("b", dist.MultivariateNormal(mean, scale_tril=root))


def process():
    length, size = numpyro.sample("length", dist.LogNormal(0, 1)), numpyro.sample("size", dist.HalfNormal(1.0))
    k = size**2 * jnp.exp(-0.5 * (X[:, None] - X) ** 2 / length**2) + 1e-3 * jnp.eye(5)
    numpyro.sample("f", dist.MultivariateNormal(jnp.ones(5), covariance_matrix=k))


def walk():
    numpyro.sample("path", dist.GaussianRandomWalk(numpyro.sample("step", dist.HalfNormal(1.0)), num_steps=6))


def walks():
    step = numpyro.sample("step", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with numpyro.plate("series", 2):
        numpyro.sample("path", dist.GaussianRandomWalk(step, num_steps=4))


def fixed_scale():
    numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("b", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))


@pytest.mark.parametrize("function", [effects, slopes, process, walk, walks])
def test_it_is_the_same_posterior(function):
    """log p(z) = log p(x(z)) + log |det dx/dz| at random points."""
    with jax.enable_x64(True):
        model = jn.from_numpyro(function)
        other = noncentred(model)
        assert other is not None
        there, here = Layout(other.latents), Layout(model.latents)
        assert there.size == here.size
        centred = Centred(other, model)

        def back(u):
            z = jax.tree.map(lambda a: a[None], there.unravel(u))
            return here.ravel(jax.tree.map(lambda a: a[0], centred(z)))

        rng = np.random.default_rng(0)
        for _ in range(3):
            u = jnp.asarray(rng.normal(size=there.size))
            _, log_det = jnp.linalg.slogdet(jax.jacfwd(back)(u))
            own, moved = other.log_density(there.unravel(u), None), model.log_density(here.unravel(back(u)), None)
            assert float(own) == pytest.approx(float(moved + log_det), abs=1e-8)


def test_a_scale_that_is_given_stays():
    assert scaled_sites(jn.from_numpyro(fixed_scale)) == ()
    assert noncentred(jn.from_numpyro(fixed_scale)) is None
