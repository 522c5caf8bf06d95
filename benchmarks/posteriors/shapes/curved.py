"""Curved densities: funnels, ridges, rings and shells."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from benchmarks.posteriors.densities import Density, funnel_quantile
from benchmarks.posteriors.shapes.base import add, log_normal, measured, radial, rotation


# ---- funnels ---------------------------------------------------------------------------------------------------------
def nested_funnels(widths: list[int], scale: float, between: float, mean: float = 0.0) -> Density:
    """v ~ N(mean, scale); v_j ~ N(v, between) and as many x ~ N(0, exp(v_j / 2)) as `widths` says, for each j.

    With `between` 0 there is only v: Neal's funnel.
    """
    groups, n = (len(widths) if between else 0), sum(widths)
    of = np.repeat(np.arange(len(widths)), widths)

    def log_density(z):
        v, group, x = z[0], z[1 : 1 + groups], z[1 + groups :]
        log_scale = 0.5 * (group[of] if groups else jnp.full(n, v))
        inner = log_normal(group, v, between).sum() if groups else 0.0
        return log_normal(v, mean, scale) + inner + log_normal(x, 0.0, jnp.exp(log_scale)).sum()

    def draws(rng, size):
        v = mean + scale * rng.standard_normal((size, 1))
        group = v + between * rng.standard_normal((size, groups))
        x = np.exp(0.5 * (group[:, of] if groups else v)) * rng.standard_normal((size, n))
        return np.concatenate([v, group, x], axis=1)

    total = float(np.hypot(scale, between))
    spread, sd = (
        np.r_[scale, np.full(groups, total), np.full(n, np.exp(0.5 * mean) * x)]
        for x in (funnel_quantile(total), np.exp(0.25 * total**2))
    )
    center = np.r_[np.full(1 + groups, mean), np.zeros(n)]
    return Density(1 + groups + n, log_density, center, spread, draws, measure="quantiles", moments=(center, sd))


def chained_funnel(dim: int, scale: float, slope: float) -> Density:
    """x_0 ~ N(0, scale); x_i ~ N(0, exp(slope x_{i-1} / 2)): the scale of each is the one before."""

    def log_density(z):
        return log_normal(z[0], 0.0, scale) + log_normal(z[1:], 0.0, jnp.exp(0.5 * slope * z[:-1])).sum()

    def draws(rng, n):
        x = [scale * rng.standard_normal(n)]
        for _ in range(dim - 1):
            with np.errstate(over="ignore"):
                x.append(np.exp(0.5 * slope * x[-1]) * rng.standard_normal(n))
        return np.column_stack(x)

    sd = np.r_[scale, np.exp(0.25 * (slope * scale) ** 2), np.full(dim - 2, np.inf)]
    return measured(dim, log_density, draws, "quantiles", (np.zeros(dim), sd))


def turned(straight: Density, seed: int = 0) -> Density:
    """The same in rotated coordinates; those of `straight` are uncorrelated."""
    turn, (mean, sd) = rotation(straight.dim, seed), straight.mean_and_sd
    draws = lambda rng, n: straight.draws(rng, n) @ turn.T
    moments = turn @ mean, np.sqrt(turn**2 @ sd**2)
    return measured(straight.dim, lambda z: straight.log_density(turn.T @ z), draws, straight.measure, moments)


for _name, _row in {
    "funnel_2_mild": ([1], 1.0, 0.0), "funnel_5": ([4], 2.0, 0.0), "funnel_11_shifted": ([10], 1.5, 0.0, 2.0),
    "funnel_20_steep": ([19], 3.0, 0.0), "funnel_31_mild": ([30], 1.0, 0.0), "funnel_51": ([50], 2.0, 0.0),
    "funnels_two_levels": ([3, 3, 3], 1.0, 0.7), "funnels_uneven": ([1, 2, 4, 8], 1.5, 1.0),
}.items():  # fmt: skip
    add("funnels", _name, nested_funnels, *_row)
add("funnels", "funnel_chained", chained_funnel, 3, 1.5, 1.0)
add("funnels", "funnel_turned", lambda: turned(nested_funnels([5], 1.5, 0.0)))


# ---- ridges ----------------------------------------------------------------------------------------------------------
def ridge(functions: list, noise: float, scale: float, moments: list[tuple[float, float]], extra: int = 0) -> Density:
    """t ~ N(0, scale); f(t) + N(0, noise) for each of `functions`, of which `moments` are mean and variance; then `extra`
    standard normals."""
    dim = 1 + len(functions) + extra

    def log_density(z):
        along = jnp.stack([f(z[0], jnp) for f in functions])
        across = log_normal(z[1 : 1 + len(functions)], along, noise).sum()
        return log_normal(z[0], 0.0, scale) + across + log_normal(z[1 + len(functions) :], 0.0, 1.0).sum()

    def draws(rng, n):
        t = scale * rng.standard_normal(n)
        along = np.column_stack([f(t, np) for f in functions])
        noisy = along + noise * rng.standard_normal(along.shape)
        return np.concatenate([t[:, None], noisy, rng.standard_normal((n, extra))], axis=1)

    mean, variance = np.array(moments).T
    center = np.r_[0.0, mean, np.zeros(extra)]
    return Density(dim, log_density, center, np.sqrt(np.r_[scale**2, variance + noise**2, np.ones(extra)]), draws)


def banana(bend: float, scale: float, extra: int) -> Density:
    """A parabola of variance 2 bend^2 scale^4 across (Haario, Saksman and Tamminen 1999)."""
    return ridge([lambda t, _: bend * (t**2 - scale**2)], 1.0, scale, [(0.0, 2 * bend**2 * scale**4)], extra)


def cubic(bend: float, scale: float, noise: float) -> Density:
    return ridge([lambda t, _: bend * t**3], noise, scale, [(0.0, 15 * bend**2 * scale**6)])


def _waves(rate: float, scale: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and variance of the cosine and of the sine of rate t."""
    once, twice = np.exp(-0.5 * (rate * scale) ** 2), np.exp(-2 * (rate * scale) ** 2)
    return (once, 0.5 * (1 + twice) - once**2), (0.0, 0.5 * (1 - twice))


def wave(rate: float, scale: float, noise: float) -> Density:
    return ridge([lambda t, xp: xp.sin(rate * t)], noise, scale, [_waves(rate, scale)[1]])


def helix(scale: float, noise: float) -> Density:
    return ridge([lambda t, xp: xp.cos(t), lambda t, xp: xp.sin(t)], noise, scale, list(_waves(1.0, scale)))


def rosenbrock(blocks: int, length: int, wide: float, narrow: float) -> Density:
    """x_0 ~ N(1, wide), from which `blocks` chains x_i ~ N(x_{i-1}^2, narrow) start (Pagani, Wiegand and Nadarajah 2022)."""
    dim = 1 + blocks * length

    def log_density(z):
        chain = z[1:].reshape(blocks, length)
        before = jnp.concatenate([jnp.broadcast_to(z[0], (blocks, 1)), chain[:, :-1]], axis=1)
        return log_normal(z[0], 1.0, wide) + log_normal(chain, before**2, narrow).sum()

    def draws(rng, n):
        first = 1.0 + wide * rng.standard_normal(n)
        out = [first]
        for _ in range(blocks):
            x = first
            for _ in range(length):
                x = x**2 + narrow * rng.standard_normal(n)
                out.append(x)
        return np.column_stack(out)

    return measured(dim, log_density, draws)


def turned_bananas(pairs: int, bend: float, scale: float) -> Density:
    """Independent bananas in pairs of coordinates, rotated together."""
    one, dim = banana(bend, scale, 0), 2 * pairs
    turn = rotation(dim, pairs)

    def log_density(z):
        return sum(one.log_density(pair) for pair in (turn.T @ z).reshape(pairs, 2))

    draws = lambda rng, n: np.concatenate([one.draws(rng, n) for _ in range(pairs)], axis=1) @ turn.T
    spread = np.sqrt(turn**2 @ np.tile(one.spread**2, pairs))
    return Density(dim, log_density, np.zeros(dim), spread, draws)


for _name, _make, _row in (
    ("banana_2", banana, (0.1, 5.0, 0)), ("banana_10", banana, (0.03, 10.0, 8)), ("banana_30", banana, (0.1, 3.0, 28)),
    ("bananas_turned", turned_bananas, (3, 0.3, 1.5)), ("cubic_ridge", cubic, (0.5, 1.0, 0.2)),
    ("wave_ridge", wave, (2.0, 1.5, 0.1)), ("helix", helix, (3.0, 0.1)), ("helix_thin", helix, (1.5, 0.03)),
    ("rosenbrock_3", rosenbrock, (1, 2, 0.4, 0.2)), ("rosenbrock_9", rosenbrock, (4, 2, 0.3, 0.1)),
):  # fmt: skip
    add("ridges", _name, _make, *_row)


# ---- rings and shells ------------------------------------------------------------------------------------------------
def shell(dim: int, radii: list[float], width: float, axes=1.0, center=0.0) -> Density:
    """Normals of sd `width` about each of the radii."""
    r, log_area = np.array(radii), (dim - 1) * np.log(radii)

    def log_radial(x):
        return logsumexp(-0.5 * ((x[..., None] - r) / width) ** 2 - log_area, axis=-1)

    def in_float64(x):  # on a grid, of NumPy
        if not isinstance(x, np.ndarray):
            return log_radial(x)
        return np.logaddexp.reduce(-0.5 * ((x[..., None] - r) / width) ** 2 - log_area, axis=-1)

    return radial(dim, in_float64, max(radii) + 12 * width, axes, center)


for _name, _row in {
    "ring": (2, [5.0], 0.5), "ring_thin": (2, [4.0], 0.1), "ring_ellipse": (2, [3.0], 0.3, [1.0, 4.0]),
    "ring_aside": (2, [3.0], 0.4, 1.0, [6.0, -4.0]), "rings_two": (2, [2.0, 6.0], 0.4), "shell_3": (3, [5.0], 0.3),
    "shell_5_axes": (5, [4.0], 0.4, [0.2, 0.5, 1.0, 2.0, 5.0]), "shell_10": (10, [8.0], 0.5),
    "shells_two_10": (10, [3.0, 9.0], 0.7), "shell_50": (50, [20.0], 1.0),
}.items():  # fmt: skip
    add("rings", _name, shell, *_row)
