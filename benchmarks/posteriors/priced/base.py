"""What the costly models share: how one is listed, and the coordinates that the reference of a costly one is drawn in."""

import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import constrain_fn, initialize_model, potential_energy
from scipy.optimize import minimize

from benchmarks.posteriors.hard import Entry

ENTRIES: dict[str, Entry] = {}
FLATTEST = 0.02  # curvatures below it count as it


def add(
    name: str,
    model: Callable,
    data: Callable[[np.random.Generator], tuple],
    *,
    whiten: Callable | None = None,
    sampler: Callable | None = None,
    convert: Callable[[dict], dict] | None = None,
    exact: str | None = None,
    **settings,
) -> None:
    """The model, every other one held out. `whiten`: the form of it whose whitened coordinates NUTS runs in."""
    if whiten is not None:
        sampler = Whitened(whiten)
        convert = sampler.convert
        settings = {"n_warmup": 150, "n_chunk": 1000, "target_accept": 0.7, "chain_method": "sequential"} | settings
    held_out = len(ENTRIES) % 2 == 1
    seeded = lambda root: data(generator(name))
    ENTRIES[name] = Entry(
        model, seeded, held_out, exact=exact, settings=settings, sampler=sampler, convert=convert
    )  # fmt: skip


def generator(name: str) -> np.random.Generator:
    """The random numbers of one posterior's data."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def single(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """In single precision: floats and integers of 32 bits."""
    return tuple(
        np.asarray(a, np.float32 if np.issubdtype(np.asarray(a).dtype, np.floating) else np.int32) for a in arrays
    )


class Whitened:
    """A NumPyro model in `z`, where its posterior is about standard normal: mode + root z, by the curvature at the mode.

    Every gradient counts where one costs a tenth of a second, and here a trajectory is a few steps.
    """

    def __init__(self, model: Callable):
        self.model, self.args = model, ()
        self.__name__ = f"whitened {_called(model)}"

    def __call__(self, *args):
        mode = self._at(args)[0]
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), mode.shape))
        with numpyro.handlers.block():  # its sites are no sites here
            energy = self._energy(z)
        numpyro.factor("density", -energy)

    def convert(self, draws: dict) -> dict:
        """Draws of `z` as draws of the model's sites, those that are deterministic among them."""
        mode, root, unravel = self._at(self.args)
        sites = lambda u: constrain_fn(self.model, self.args, {}, unravel(u), return_deterministic=True)
        u = np.asarray(mode) + np.asarray(draws["z"]) @ np.asarray(root).T
        found = jax.device_get(jax.jit(lambda u: jax.lax.map(sites, u, batch_size=100))(u.reshape(-1, u.shape[-1])))
        return {name: value.reshape(*u.shape[:2], *value.shape[1:]) for name, value in found.items()}

    def _at(self, args: tuple):
        """(mode, root, unravel) of the posterior of these data."""
        if not self.args:
            with numpyro.handlers.block(), jax.ensure_compile_time_eval():
                self.args, self._found = args, laplace(self.model, args)
            mode, root, unravel = self._found
            self._energy = jax.jit(lambda z: potential_energy(self.model, args, {}, unravel(mode + root @ z)))
        return self._found


def laplace(model: Callable, args: tuple):
    """The mode of the unconstrained posterior, and a root of the inverse curvature there, by differences of gradients."""
    start, unravel = ravel_pytree(initialize_model(jax.random.key(0), model, model_args=args).param_info.z)
    minus = jax.jit(jax.value_and_grad(lambda u: potential_energy(model, args, {}, unravel(u))))
    pair = lambda u: tuple(np.asarray(a, float) for a in minus(jnp.asarray(u)))
    mode = minimize(pair, np.zeros_like(start), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": 1e-6}).x
    steps = 1e-4 * np.eye(len(mode))
    hessian = np.array([pair(mode + step)[1] - pair(mode - step)[1] for step in steps]) / 2e-4
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return jnp.asarray(mode), jnp.asarray(vectors / np.sqrt(np.maximum(values, FLATTEST))), unravel


def _called(model: Callable) -> str:
    return _called(model.func) if isinstance(model, functools.partial) else model.__name__
