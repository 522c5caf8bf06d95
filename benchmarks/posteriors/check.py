"""Check each model's density against its reference draws.

With u the unconstrained draws and g the gradient of the log density at u, Jacobian included, a density that the draws
come from has E[g] = 0 and E[(u - E u) g] = -1 in every coordinate. The table gives the largest |z| of each identity
over the coordinates, with standard errors that take the draws as independent. The densities known exactly are checked
alike, over exact draws.

    python -m benchmarks.posteriors.check --root FOLDER [NAME ...]
"""

import argparse
import sys

import jax
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy, unconstrain_fn

from benchmarks.posteriors.densities import DENSITIES
from benchmarks.posteriors.models import Posterior, load, names
from benchmarks.posteriors.registry import data_folder

LIMIT = 4.0


def unconstrained_gradients(posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """The reference draws in unconstrained coordinates and the log density's gradient there, each (draws, dim)."""
    model, args, kwargs = posterior.model, posterior.args, posterior.kwargs

    def both(draw):
        sites = unconstrain_fn(model, args, kwargs, draw)
        gradient = jax.grad(lambda u: -potential_energy(model, args, kwargs, u))(sites)
        return ravel_pytree(sites)[0], ravel_pytree(gradient)[0]

    u, g = jax.jit(lambda draws: jax.lax.map(both, draws, batch_size=100))(posterior.reference())
    return np.asarray(u), np.asarray(g)


def exact_gradients(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Exact draws of a density and its gradient there, each (20000, dim)."""
    density = DENSITIES[name]()
    u = density.draws(np.random.default_rng(0), 20_000)
    return u, np.asarray(jax.jit(jax.vmap(jax.grad(density.log_density)))(u))


def identity_scores(u: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The z-scores of E[g] = 0 and of E[(u - E u) g] = -1, one per coordinate."""

    def score(terms):
        return terms.mean(axis=0) / (terms.std(axis=0, ddof=1) / np.sqrt(len(terms)))

    return score(g), score((u - u.mean(axis=0)) * g + 1.0)


def main() -> int:
    """Print the table; 1 if a posterior fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="the folder of data sets (default: JENSEN_DATA)")
    parser.add_argument("names", nargs="*", help="posteriors to check (default: all)")
    options = parser.parse_args()
    numpyro.enable_x64()

    failed = []
    print(f"{'posterior':<41}{'dim':>4}{'draws':>7}{'z1':>7}{'z2':>7}")
    folder = data_folder(options.root)
    for name in options.names or [*(names() if folder else []), *DENSITIES]:
        exact = name in DENSITIES
        u, g = exact_gradients(name) if exact else unconstrained_gradients(load(name, folder / "posteriordb"))
        z1, z2 = (np.abs(z).max() for z in identity_scores(u, g))
        passed = z1 < LIMIT and z2 < LIMIT
        failed += [] if passed else [name]
        print(f"{name:<41}{u.shape[1]:>4}{len(u):>7}{z1:>7.1f}{z2:>7.1f}{'' if passed else '  FAILED'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
