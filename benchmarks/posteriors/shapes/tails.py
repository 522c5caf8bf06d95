"""Heavy tails: Student's t with one to four degrees of freedom, together and one by one, and the slash."""

import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import ndtr

from benchmarks.posteriors.densities import ONE_SIGMA, Density, multivariate_t
from benchmarks.posteriors.shapes.base import Law, add, product, student

BIG = 1e8  # where the slash's quantiles end: 1 - 4e-9


def together(dim: int, freedom: float, correlation: float, widest: float) -> Density:
    """A multivariate t, all correlated alike, of scales from 1 to `widest`."""
    scale, mean = np.geomspace(1.0, widest, dim), np.linspace(-2.0, 2.0, dim)
    log_density, draws = multivariate_t(freedom, mean, scale, correlation)
    moments = np.where(freedom > 1, mean, np.nan), stats.t.std(freedom) * scale
    spread = stats.t.ppf(ONE_SIGMA, freedom) * scale
    return Density(dim, log_density, mean, spread, draws, measure="quantiles", moments=moments)


def alone(*freedoms: float) -> Density:
    """Independent t's."""
    laws = {f: student(f) for f in set(freedoms)}
    return product([laws[f] for f in freedoms], measure="quantiles")


def slash(dim: int) -> Density:
    """Independent normals over uniforms."""

    def logpdf(x):
        small = jnp.abs(x) < 1e-2
        square = jnp.where(small, 1.0, x**2)
        return jnp.where(small, jnp.log(0.5) - 0.25 * x**2, jnp.log(-jnp.expm1(-0.5 * square) / square))

    half = np.concatenate([[0.0], np.geomspace(1e-6, BIG, 200_000)])
    cdf = ndtr(half) + np.expm1(-0.5 * half**2) / np.sqrt(2 * np.pi) / np.maximum(half, 1e-300)
    above = lambda u: np.interp(u, cdf, half)
    one = Law(logpdf, lambda u: np.sign(u - 0.5) * above(0.5 + np.abs(u - 0.5)), np.nan, np.inf)
    return product([one] * dim, measure="quantiles")


for _name, _make, _row in (
    ("t1_together_2", together, (2, 1.0, 0.5, 3.0)), ("t2_together_5", together, (5, 2.0, 0.7, 10.0)),
    ("t3_together_10", together, (10, 3.0, 0.5, 10.0)), ("t4_together_20", together, (20, 4.0, 0.3, 5.0)),
    ("t1_alone_5", alone, (1.0,) * 5), ("t2_alone_10", alone, (2.0,) * 10), ("t3_alone_3", alone, (3.0,) * 3),
    ("t_mixed_4", alone, (1.0, 2.0, 3.0, 4.0)), ("slash_1", slash, (1,)), ("slash_3", slash, (3,)),
):  # fmt: skip
    add("tails", _name, _make, *_row)
