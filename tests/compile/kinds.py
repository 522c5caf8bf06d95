"""The ways in which people write a log density that reads data: each a maker of (model, change the data it reads)."""

import functools
import sys
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import jensen as jn

N = 10
DATA = np.zeros(N)
SCALE = 0.0


def normal(z, y):
    return -0.5 * ((z - y) ** 2).sum()


def reads_global(z):
    return normal(z, DATA)


def reads_number(z):
    return N * normal(z, SCALE)


def through_helper(z):
    return reads_global(z) + 0.0


def given(z, y, weight=1.0):
    return weight * normal(z, y)


class Holder:
    """An object of a user's own, with data in an attribute."""

    def __init__(self, y):
        self.y = y

    def logp(self, z):
        return normal(z, self.y)

    def __call__(self, z):
        return self.logp(z)


class Module(eqx.Module):
    """An Equinox module that reads what it does not own."""

    def __call__(self, z):
        return normal(z, DATA)


def numpyro_model():
    mu = numpyro.sample("mu", dist.Normal(0.0, 100.0))
    with numpyro.plate("rows", N):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=DATA)


def _global(fn):
    def make():
        def change(y):
            global DATA, SCALE
            DATA, SCALE = y, float(y.mean())

        return fn, change

    return make


def _closure():
    y = np.zeros(N)

    def logp(z):
        return normal(z, y)

    def change(new):
        nonlocal y
        y = new

    return logp, change


def _default():
    y = np.zeros(N)

    def logp(z, *, y=y):
        return normal(z, y)

    return logp, lambda new: logp.__kwdefaults__.update(y=new)


def _object(of):
    def make():
        holder = Holder(np.zeros(N))
        return of(holder), lambda y: setattr(holder, "y", y)

    return make


def _partial():
    bag = {"y": np.zeros(N)}
    return functools.partial(lambda bag, z: normal(z, bag["y"]), bag), lambda y: bag.update(y=y)


def _elsewhere():
    module = types.ModuleType("another_module")
    exec("DATA = None\ndef logp(z):\n    return -0.5 * ((z - DATA) ** 2).sum()\n", module.__dict__)
    sys.modules[module.__name__], module.DATA = module, np.zeros(N)
    return (lambda z: module.logp(z)), lambda y: setattr(module, "DATA", y)


def _namespace():
    class Settings:
        y = np.zeros(N)

    return (lambda z: normal(z, Settings.y)), lambda y: setattr(Settings, "y", y)


def _in_place():
    y = np.zeros(N)
    return (lambda z: normal(z, y)), lambda new: y.__setitem__(slice(None), new)


def _jitted():
    fn, change = _closure()
    return jax.jit(fn), change


KINDS = {
    "def, global array": _global(reads_global), "def, global number": _global(reads_number),
    "helper": _global(through_helper), "lambda, closure": _closure, "keyword default": _default,
    "method": _object(lambda h: h.logp), "callable object": _object(lambda h: h),
    "attribute in a lambda": _object(lambda h: lambda z: normal(z, h.y)), "partial": _partial,
    "helper in another module": _elsewhere, "class as a namespace": _namespace, "written in place": _in_place,
    "jitted": _jitted, "equinox module": _global(Module()), "numpyro": _global(numpyro_model),
}  # fmt: skip


def model_of(fn):
    """A jensen model of one latent."""
    return jn.from_numpyro(fn) if fn is numpyro_model else jn.models.LogDensity(fn, (1,))


def mean_of(fit):
    return float(fit.summary()["mean"].iloc[0])


def data(mean, seed=0):
    """N numbers of this mean, of no other structure."""
    y = np.random.default_rng(seed).normal(size=N)
    return y - y.mean() + mean


def jax_gradient(fn):
    """What the user's own JAX code says, in the precision in force."""
    density = (lambda z: jn.from_numpyro(fn).log_density({"mu": z[0]})) if fn is numpyro_model else fn
    return np.asarray(jax.grad(lambda z: jnp.sum(density(z)))(jnp.zeros(1)))
