"""Densities that are -inf somewhere: walls, boxes, simplexes; and simplexes in coordinates without walls."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import digamma, polygamma

from benchmarks.posteriors.densities import Density
from benchmarks.posteriors.shapes import base
from benchmarks.posteriors.shapes.base import add, normal, product, rotation


# ---- walls -----------------------------------------------------------------------------------------------------------
def wall(mean: float, dim: int, turned: bool = False, walls: int = 1) -> Density:
    """Standard normals, of which the first `walls` are about `mean` and above 0; turned, the walls are oblique."""
    laws: list[base.Law] = [base.truncated(mean, 0.0)] * walls + [normal()] * (dim - walls)
    return product(laws, rotation(dim, dim) if turned else None, smooth=False)


def wedge(angle: float, sharp: bool) -> Density:
    """Two walls that meet at an angle: exponentials (the mode in the corner) or half-normals along their directions."""
    along = base.exponential() if sharp else base.truncated(0.0, 0.0)
    return product([along] * 2, np.array([[1.0, np.cos(angle)], [0.0, np.sin(angle)]]), smooth=False)


def sloped(dim: int) -> Density:
    """Exponentials of scales from 0.1 to 10: the mode is where the walls meet."""
    return product([base.exponential(s) for s in np.geomspace(0.1, 10.0, dim)], smooth=False)


def slit(width: float, dim: int) -> Density:
    """Normals in all coordinates; the first between two walls that are closer than its sd, turned."""
    return product([base.truncated(0.3, 0.0, width)] + [normal(0.0, 2.0)] * (dim - 1), rotation(dim, 7), smooth=False)


for _name, _make, _row in (
    ("wall_at_mode_1", wall, (0.0, 1)), ("wall_at_mode_5", wall, (0.0, 5)), ("wall_within_1_sd", wall, (1.0, 3)),
    ("wall_beyond_mode", wall, (-2.0, 4)), ("wall_oblique_2", wall, (0.5, 2, True)), ("wall_oblique_10", wall, (0.0, 10, True)),
    ("walls_oblique_20", wall, (0.3, 20, True, 5)), ("wedge", wedge, (0.7, True)), ("walls_sloped_6", sloped, (6,)),
    ("slit", slit, (0.5, 4)),
):  # fmt: skip
    add("walls", _name, _make, *_row)


# ---- boxes -----------------------------------------------------------------------------------------------------------
def box(widths: list[float], turned: bool = False) -> Density:
    """Uniform, from 1 on in every coordinate, or about 0 if turned."""
    laws = [base.uniform(-0.5 * w, 0.5 * w) if turned else base.uniform(1.0, 1.0 + w) for w in widths]
    shear = rotation(len(widths), 3) @ np.triu(np.full((len(widths),) * 2, 0.4) + 0.6 * np.eye(len(widths)))
    return product(laws, shear if turned else None, smooth=False)


def edges(a: float, b: float, dim: int) -> Density:
    """Beta laws; without limit at an edge where a parameter is below 1."""
    return product([base.beta(a, b)] * dim, smooth=False)


def tilted(rate: float, dim: int) -> Density:
    """exp(rate x) on the unit box: the mode is a corner."""
    return product([base.on_grid(base.within(lambda x: rate * x, 0.0, 1.0), 0.0, 1.0)] * dim, smooth=False)


def ball(dim: int, radius: float) -> Density:
    """Uniform in a ball."""
    inside = lambda r: (jnp if isinstance(r, jax.Array) else np).where(r < radius, 0.0, -np.inf)
    return base.radial(dim, inside, radius, smooth=False)


for _name, _make, _row in (
    ("box_1", box, ([2.0],)), ("box_2", box, ([1.0, 3.0],)), ("box_5_uneven", box, ([0.01, 0.1, 1.0, 10.0, 100.0],)),
    ("box_10", box, ([1.0] * 10,)), ("box_30", box, ([2.0] * 30,)), ("box_sheared_3", box, ([1.0, 2.0, 3.0], True)),
    ("box_sheared_8", box, ([1.0] * 8, True)), ("box_edges_3", edges, (0.7, 1.5, 3)), ("box_tilted_4", tilted, (3.0, 4)),
    ("ball_4", ball, (4, 2.0)),
):  # fmt: skip
    add("boxes", _name, _make, *_row)


# ---- simplexes -------------------------------------------------------------------------------------------------------
def _shares(rng: np.random.Generator, n: int, a: np.ndarray) -> np.ndarray:
    """log of gammas, also of small shape: the shares up to a constant."""
    return np.log(rng.gamma(a + 1, size=(n, len(a)))) + np.log(rng.random((n, len(a)))) / a


def inside(*concentration: float) -> Density:
    """Dirichlet, as a density of all shares but the last: -inf where one is negative or their sum exceeds 1."""
    a = np.array(concentration)

    def log_density(z):
        x = jnp.append(z, 1.0 - z.sum())
        fits = (x > 0).all()
        return jnp.where(fits, ((a - 1) * jnp.log(jnp.where(fits, x, 0.5))).sum(), -jnp.inf)

    mean = a / a.sum()
    spread = np.sqrt(mean * (1 - mean) / (a.sum() + 1))
    draws = lambda rng, n: rng.dirichlet(a, n)[:, :-1]
    return Density(len(a) - 1, log_density, mean[:-1], spread[:-1], draws, smooth=False)


def softmax(*concentration: float) -> Density:
    """Dirichlet, in logarithms of the shares over the last one."""
    a = np.array(concentration)

    def log_density(z):
        return (a * jax.nn.log_softmax(jnp.append(z, 0.0))).sum()

    def draws(rng, n):
        log = _shares(rng, n, a)
        return log[:, :-1] - log[:, -1:]

    mean, variance = digamma(a), polygamma(1, a)
    return Density(len(a) - 1, log_density, mean[:-1] - mean[-1], np.sqrt(variance[:-1] + variance[-1]), draws)


def sticks(*concentration: float) -> Density:
    """Dirichlet, in logits of what each share takes of what those before have left."""
    a = np.array(concentration)
    first, rest = a[:-1], np.cumsum(a[::-1])[::-1][1:]

    def log_density(z):
        return (first * jax.nn.log_sigmoid(z) + rest * jax.nn.log_sigmoid(-z)).sum()

    draws = lambda rng, n: _shares(rng, n, first) - _shares(rng, n, rest)
    spread = np.sqrt(polygamma(1, first) + polygamma(1, rest))
    return Density(len(first), log_density, digamma(first) - digamma(rest), spread, draws)


for _name, _make, _row in (
    ("simplex_flat_3", inside, (1.0, 1.0, 1.0)), ("simplex_4", inside, (2.0, 3.0, 4.0, 5.0)),
    ("simplex_edges_3", inside, (0.7, 1.0, 2.0)), ("simplex_6", inside, (5.0,) * 6), ("simplex_flat_10", inside, (1.0,) * 10),
    ("softmax_sparse_3", softmax, (0.5, 0.5, 0.5)), ("softmax_5", softmax, (1.0, 2.0, 3.0, 4.0, 5.0)),
    ("softmax_uneven_3", softmax, (0.2, 2.0, 20.0)), ("sticks_8", sticks, (1.0,) * 8), ("sticks_sparse_5", sticks, (0.5,) * 5),
):  # fmt: skip
    add("simplexes", _name, _make, *_row)
