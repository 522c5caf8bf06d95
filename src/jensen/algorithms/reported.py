"""What a fit reports of a latent: its values in the user's coordinates, as one flat vector."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiled import compiled
from ..function import Static
from ..models.base import AbstractModel
from ..models.coordinates import Coordinates, constrainer
from ..tree import Layout

BLOCK = 1024  # points constrained by one call of the one compiled program


class Map(eqx.Module):
    """u, a flat latent, to the flat vector of its constrained values."""

    own: Any
    layout: Layout = eqx.field(static=True)

    def __call__(self, u: Float[Array, " D"]) -> Float[Array, " Q"]:
        values = jax.tree.leaves(self.own.constrain(self.layout.unravel(u)))
        return jnp.concatenate([jnp.ravel(a).astype(u.dtype) for a in values])


@compiled(0)
def _mapped(static: Static, arrays: Any, u: Float[Array, "B D"]) -> Float[Array, "B Q"]:
    return jax.vmap(eqx.combine(arrays, static.tree))(u)


class Reported:
    """(n, D) unconstrained to (n, Q) as `Fit.summary` shows them, and their names."""

    def __init__(self, model: AbstractModel, layout: Layout):
        self.own, self.layout = constrainer(model), layout

    @functools.cached_property
    def _form(self) -> tuple[list[str], bool]:
        return (_known if isinstance(self.own, Coordinates) else _form_of)(self.own, self.layout)

    @property
    def names(self) -> list[str]:
        return self._form[0]

    @property
    def identity(self) -> bool:
        """Are the two the same, so that nothing is computed?"""
        return self._form[1]

    @functools.cached_property
    def _parts(self) -> tuple[Static, Any]:
        arrays, rest = eqx.partition(Map(self.own, self.layout), eqx.is_array)
        return Static(rest), arrays

    def __call__(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n Q"]:
        if self.identity:
            return u
        static, arrays = self._parts
        parts = []
        for at in range(0, len(u), BLOCK):
            block = u[at : at + BLOCK]
            padded = np.concatenate([block, np.repeat(block[:1], BLOCK - len(block), 0)])
            parts.append(np.asarray(_mapped(static, arrays, padded))[: len(block)])
        return np.concatenate(parts)


def _form_of(own: Any, layout: Layout) -> tuple[list[str], bool]:
    """Names of what is reported, and whether that is the latent itself."""
    spec = layout.spec()
    shown = jax.eval_shape(own.constrain, spec)
    program = jax.make_jaxpr(own.constrain)(spec).jaxpr
    same = jax.tree.structure(shown) == jax.tree.structure(spec)
    return Layout(shown).names(), same and not program.eqns and list(program.invars) == list(program.outvars)


_known = functools.lru_cache(maxsize=256)(_form_of)
