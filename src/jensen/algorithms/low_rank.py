"""A Gaussian whose covariance is a diagonal and a few directions, on the host: for dimensions too large for a matrix."""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular

from .gaussian import LOG_2PI, Gaussian, Mixture, defensive, safe_cholesky

DENSE = 600  # largest dimension for which a covariance is formed
DENSE_OF_DEAR = 1500  # the same where an evaluation costs more than that
FLOOR = 1e-10  # of an eigenvalue, relative to the largest: rounding may leave a quasi-Newton matrix indefinite


@dataclasses.dataclass(frozen=True)
class LowRankGaussian:
    """N(mean, R R^T) with R = diag(scale) (I + basis diag(core - 1) basis^T), core > 0.

    Definition: the columns of `basis` (D, k) are orthonormal, so R's inverse and determinant are as cheap as R. The
                interface is that of `Gaussian`.
    Cost:       D k operations a draw.
    """

    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    basis: Float[np.ndarray, "D k"]
    core: Float[np.ndarray, " k"]
    diagonal = False

    @property
    def dim(self) -> int:
        return self.mean.size

    @property
    def log_det(self) -> float:
        """log |R|."""
        return float(np.log(self.scale).sum() + np.log(self.core).sum())

    @property
    def sd(self) -> Float[np.ndarray, " D"]:
        return self.scale * np.sqrt(np.maximum(1 + self.basis**2 @ (self.core**2 - 1), 1e-300))

    @property
    def root(self) -> Float[np.ndarray, "D D"]:
        """Lower triangular root of the covariance. Cost: D^3 operations and D^2 numbers: use it for small D only."""
        inner = np.eye(self.dim) + (self.basis * (self.core**2 - 1)) @ self.basis.T
        return safe_cholesky(self.scale[:, None] * inner * self.scale)

    def _mixed(self, x: np.ndarray, core: np.ndarray) -> np.ndarray:
        return x + ((x @ self.basis) * (core - 1)) @ self.basis.T

    def apply(self, eps: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """mean + R eps."""
        return self.mean + self.scale * self._mixed(eps, self.core)

    def whiten(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """R^-1 (u - mean)."""
        return self._mixed((u - self.mean) / self.scale, 1 / self.core)

    def pull(self, g: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """R^T g: a gradient in whitened coordinates."""
        return self._mixed(g * self.scale, self.core)

    def unpull(self, g: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """R^-T g: the inverse of `pull`."""
        return self._mixed(g, 1 / self.core) / self.scale

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        return self.apply(rng.standard_normal((n, self.dim)))

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        return -0.5 * (self.whiten(u) ** 2).sum(1) - self.log_det - 0.5 * self.dim * LOG_2PI

    def entropy(self) -> float:
        return self.log_det + 0.5 * self.dim * (1 + LOG_2PI)

    def proposal(self) -> Mixture:
        """With a share of heavy tails."""
        return defensive(Mixture((self,), np.ones(1)))

    def dense(self) -> Gaussian:
        """The same distribution with a matrix."""
        return Gaussian(self.mean, self.root)


def quasi_newton(
    mean: Float[np.ndarray, " D"],
    alpha: Float[np.ndarray, " D"],
    s: Float[np.ndarray, "J D"],
    z: Float[np.ndarray, "J D"],
) -> LowRankGaussian:
    """N(mean, H), H the L-BFGS inverse Hessian of -log p from steps s and gradient differences z, oldest first.

    Definition: H = diag(alpha) + beta gamma beta^T, beta = [diag(alpha) Z, S], with R = triu(S^T Z), E = diag(R):
                gamma = [[0, -R^-1], [-R^-T, R^-T (E + Z^T diag(alpha) Z) R^-1]].
    Arguments:  alpha: the diagonal inverse Hessian it starts from, > 0.   s, z: pairs with s . z > 0.
    Reference:  Byrd, Nocedal and Schnabel (1994), eq. 2.6; Zhang et al. (2022), algorithm 3.  [zhang2022pathfinder]
    """
    scale, j = np.sqrt(alpha), len(s)
    if j == 0:
        return LowRankGaussian(mean, scale, np.zeros((mean.size, 0)), np.ones(0))
    # whitened by alpha: beta = [Z, S], and the core is the identity plus the rest on the span of beta
    s, z = s / scale, z * scale
    length = np.linalg.norm(s, axis=1, keepdims=True)
    s, z = s / length, z / length  # H is the same for pairs of any length
    r = np.triu(s @ z.T)
    inverse = solve_triangular(r, np.eye(j))
    corner = inverse.T @ (np.diag(np.diagonal(r)) + z @ z.T) @ inverse
    gamma = np.block([[np.zeros((j, j)), -inverse], [-inverse.T, corner]])
    basis, t = np.linalg.qr(np.concatenate([z, s]).T)
    inner = np.eye(len(t)) + t @ gamma @ t.T
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    core = np.sqrt(np.maximum(values, FLOOR * values.max()))
    return LowRankGaussian(mean, scale, basis @ vectors, core)
