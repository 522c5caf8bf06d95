"""Maps from a standard normal to roughly the posterior: the coordinates in which chains move."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..algorithms.gaussian import Gaussian
from ..algorithms.low_rank import LowRankGaussian


class Affine(eqx.Module):
    """u = mean + R z, R lower triangular (D, D) or diagonal (D,)."""

    mean: Float[Array, " D"]
    root: Float[Array, "..."]

    @classmethod
    def of(cls, q: Gaussian) -> "Affine":
        return cls(jnp.asarray(q.mean), jnp.asarray(q.root))

    def __call__(self, z: Float[Array, " D"]) -> tuple[Float[Array, " D"], Float[Array, ""]]:
        """(u, log |det du/dz|)."""
        if self.root.ndim == 1:
            return self.mean + self.root * z, jnp.log(self.root).sum()
        return self.mean + self.root @ z, jnp.log(jnp.diagonal(self.root)).sum()


class LowRank(eqx.Module):
    """u = mean + scale (I + B diag(core - 1) B^T) z, the columns of B (D, k) orthonormal or 0."""

    mean: Float[Array, " D"]
    scale: Float[Array, " D"]
    basis: Float[Array, "D k"]
    core: Float[Array, " k"]

    @classmethod
    def of(cls, q: LowRankGaussian, columns: int) -> "LowRank":
        """With so many columns, those that q lacks without effect: programs are compiled for a shape."""
        empty = columns - q.core.size
        basis, core = np.pad(q.basis, ((0, 0), (0, empty))), np.pad(q.core, (0, empty), constant_values=1.0)
        return cls(*(jnp.asarray(a) for a in (q.mean, q.scale, basis, core)))

    def __call__(self, z: Float[Array, " D"]) -> tuple[Float[Array, " D"], Float[Array, ""]]:
        """(u, log |det du/dz|)."""
        mixed = z + self.basis @ ((self.core - 1) * (z @ self.basis))
        return self.mean + self.scale * mixed, jnp.log(self.scale).sum() + jnp.log(self.core).sum()
