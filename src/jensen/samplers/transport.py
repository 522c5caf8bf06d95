"""Maps from a standard normal to roughly the posterior: the coordinates in which chains move."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..algorithms.gaussian import Gaussian


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
