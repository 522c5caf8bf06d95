"""Coordinates in which a posterior looks most like a standard normal: learned from draws and the gradients there."""

import numpy as np
from jaxtyping import Float

from ..algorithms.low_rank import LowRankGaussian

CUTOFF = 1.6  # of an eigenvalue, or its inverse: directions nearer to 1 stay as they are
COLUMNS = 64  # most of them
OWN = 1.0  # draws that a unit covariance counts for
FLAT = 1e-9  # of the largest singular value: directions in which draws do not differ


def fisher_scale(x: Float[np.ndarray, "n D"], g: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " D"]:
    """(var x / var g)^(1/4): the standard deviations of the diagonal Gaussian that fits the gradients g at x best.

    Definition: minimises E|grad log p(x) - grad log q(x)|^2 in q's whitened coordinates (the Fisher divergence). Of an
                independent Gaussian it is exact from a few draws.   Reference: Seyboldt, Carlson and Carpenter (2026).
    """
    a, b = x.var(0), g.var(0)
    good = (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        scale = np.where(good, (a / b) ** 0.25, np.sqrt(np.where(np.isfinite(a) & (a > 0), a, 1.0)))
    return np.clip(scale, 1e-150, 1e150)


def geometric_mean(a: Float[np.ndarray, "k k"], b: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """S with S b S = a, of positive definite a and b: the geometric mean of a and b^-1."""
    values, vectors = np.linalg.eigh(b)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ a @ root)
    return inverse @ ((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T) @ inverse


def fisher_metric(x: Float[np.ndarray, "n D"], g: Float[np.ndarray, "n D"], columns: int = COLUMNS) -> LowRankGaussian:
    """A diagonal and a few directions: what minimises the Fisher divergence to draws x with gradients g.

    Definition: scaled by `fisher_scale`; in the space that draws and gradients span, the geometric mean of the draws'
                covariance and the inverse of the gradients'; of its eigenvectors those with eigenvalues beyond CUTOFF.
                Of a Gaussian it is nearly exact from D + 1 draws, but for the other eigenvalues.
    Cost:       n^2 D operations, or n D^2.
    Reference:  Seyboldt, Carlson and Carpenter (2026), algorithm 1.  [seyboldt2026fisher]
    """
    n, d = x.shape
    scale = fisher_scale(x, g)
    mean = x.mean(0)
    z, s = (x - mean) / scale, (g - g.mean(0)) * scale
    basis = np.eye(d) if n > 2 * d else _span(np.concatenate([z, s]))
    z, s = z @ basis, s @ basis
    unit = np.eye(basis.shape[1])
    covariances = [(f.T @ f + OWN * unit) / (n + OWN) for f in (z, s)]
    values, vectors = np.linalg.eigh(geometric_mean(*covariances))
    strength = np.abs(np.log(np.maximum(values, 1e-300)))
    kept = np.argsort(-strength)[: min(columns, d)]
    kept = kept[strength[kept] > np.log(CUTOFF)]
    return LowRankGaussian(mean, scale, basis @ vectors[:, kept], np.sqrt(values[kept]))


def _span(rows: Float[np.ndarray, "m D"]) -> Float[np.ndarray, "D k"]:
    """An orthonormal basis of what the rows span."""
    _, size, vectors = np.linalg.svd(rows, full_matrices=False)
    return vectors[size > FLAT * size[0]].T
