"""Check each model's density against its reference draws.

With u the unconstrained draws and g the gradient of the log density at u, Jacobian included, a density that the draws
come from has E[g] = 0 and E[(u - E u) g] = -1 in every coordinate. The table gives the largest |z| of each identity
over the coordinates, with standard errors that take the draws as independent.

The densities known exactly are checked alike, over exact draws, where they are smooth and have moments. All of them are
checked by a Metropolis sampler of the density, which started from the draws must leave their distribution as it is, walls
and heavy tails included (z3); and by centre and spread of the draws (z4).

    python -m benchmarks.posteriors.check --root FOLDER [NAME ...]
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy, unconstrain_fn

from benchmarks.posteriors.densities import Density
from benchmarks.posteriors.models import Posterior, load, names
from benchmarks.posteriors.moments import located
from benchmarks.posteriors.registry import DENSITIES, data_folder

LIMIT, LIMIT_OF_MANY = 4.0, 5.0
N_DRAWS = (
    16_000  # at most 2^14: of more rows, XLA's fused products on a CPU are wrong from there on (jax 0.10, 5 columns)
)
N_STEPS, N_BATCHES = 30, 50


def unconstrained_gradients(posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """The reference draws in unconstrained coordinates and the log density's gradient there, each (draws, dim)."""
    model, args, kwargs = posterior.model, posterior.args, posterior.kwargs

    def both(draw):
        sites = unconstrain_fn(model, args, kwargs, draw)
        gradient = jax.grad(lambda u: -potential_energy(model, args, kwargs, u))(sites)
        return ravel_pytree(sites)[0], ravel_pytree(gradient)[0]

    u, g = jax.jit(lambda draws: jax.lax.map(both, draws, batch_size=100))(posterior.reference())
    return np.asarray(u), np.asarray(g)


def exact_scores(density: Density, n: int = N_DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """z-scores of a density known exactly: of the identities (z1, z2), where they hold, of the sampler (z3), which keeps the
    draws' distribution, and of centre and spread (z4)."""
    u = density.draws(np.random.default_rng(seed), n)
    found = {"z3": kept_scores(density, u, seed), "z4": located_scores(density, u)}
    if density.smooth and density.measure == "moments":
        g = np.asarray(jax.jit(jax.vmap(jax.grad(density.log_density)))(u))
        found["z1"], found["z2"] = identity_scores(u, g)
    return found


def kept_scores(density: Density, u: np.ndarray, seed: int = 0) -> np.ndarray:
    """z-scores of the change in bounded functions of the draws `u` over steps of a Metropolis sampler of the density.

    A third of the chains move by half a spread in every coordinate over the root of their number, a third in one coordinate,
    a third by a tenth of that: what is exact stays so under each.
    """
    n, dim = u.shape
    step = 0.5 * density.spread / np.sqrt(dim)
    sizes = np.array([1.0, np.sqrt(dim), 0.1])[np.arange(n) % 3, None]
    alone = np.arange(n)[:, None] % 3 == 1

    def move(carry, key):
        x, value = carry
        which, direction, accept = jax.random.split(key, 3)
        one = jax.random.randint(which, (n, 1), 0, dim) == jnp.arange(dim)
        proposal = x + jnp.where(alone, one, True) * sizes * step * jax.random.normal(direction, (n, dim))
        new = log_density(proposal)
        taken = jnp.log(jax.random.uniform(accept, (n,))) < new - value
        return (jnp.where(taken[:, None], proposal, x), jnp.where(taken, new, value)), taken.mean()

    log_density = jax.vmap(density.log_density)

    @jax.jit
    def run(x, keys):
        value = log_density(x)
        (x, after), accepted = jax.lax.scan(move, (x, value), keys)
        return x, value, after, accepted.mean()

    x, before, after, accepted = jax.device_get(run(u, jax.random.split(jax.random.key(seed), N_STEPS)))
    if not np.isfinite(before).all() or accepted < 0.02:
        return np.array([np.inf])

    def functions(x, value):
        t = np.tanh((x - density.center) / density.spread)
        return np.column_stack([t, t**2, np.tanh((value - middle) / scale)])

    middle, scale = np.median(before), np.subtract(*np.quantile(before, [0.84, 0.16])) or 1.0
    change = functions(x, after) - functions(u, before)
    return change.mean(0) / np.maximum(change.std(0, ddof=1), 1e-12) * np.sqrt(n)


def located_scores(density: Density, u: np.ndarray) -> np.ndarray:
    """z-scores of centre and spread: of means of x and (x - centre)^2; or of medians and widths of batches of the draws."""
    if density.measure == "moments":
        terms = np.concatenate([u - density.center, (u - density.center) ** 2 - density.spread**2], axis=1)
    else:
        batches = np.array([np.concatenate(located(b, "quantiles")) for b in np.array_split(u, N_BATCHES)])
        terms = batches - np.r_[density.center, density.spread]
    return terms.mean(0) / (terms.std(0, ddof=1) / np.sqrt(len(terms)))


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
    print(f"{'posterior':<41}{'dim':>4}{'z1':>7}{'z2':>7}{'z3':>7}{'z4':>7}")
    folder = data_folder(options.root)
    for name in options.names or [*(names() if folder else []), *DENSITIES]:
        exact = name in DENSITIES
        if exact:
            density = DENSITIES[name]()
            found, dim = exact_scores(density), density.dim
        else:
            u, g = unconstrained_gradients(load(name, folder / "posteriordb"))
            found, dim = dict(zip(("z1", "z2"), identity_scores(u, g), strict=True)), u.shape[1]
        worst = {k: float(np.abs(z).max()) for k, z in found.items()}
        passed = max(worst.values()) < (LIMIT_OF_MANY if exact else LIMIT)
        failed += [] if passed else [name]
        shown = "".join(f"{worst.get(k, np.nan):7.1f}" for k in ("z1", "z2", "z3", "z4"))
        print(f"{name:<41}{dim:>4}{shown}{'' if passed else '  FAILED'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
