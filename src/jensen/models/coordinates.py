"""The user's coordinates without the model: what a saved fit needs to show its draws."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..errors import CheckpointError, explain
from .base import AbstractModel, computes_nothing

if TYPE_CHECKING:
    from .supports import Site


class Coordinates(eqx.Module):
    """The map between unconstrained latents and the model's values.

    Arguments:  sites: the latents of a model with supports; None where the two are the same.
    """

    sites: tuple["Site", ...] | None = eqx.field(static=True)

    def constrain(self, z: PyTree) -> PyTree:
        """Values in the user's coordinates."""
        return z if self.sites is None else {s.name: s.constrain(z[s.name]) for s in self.sites if s.name in z}

    def unconstrain(self, x: PyTree) -> tuple[PyTree, Array | float]:
        """The latent with these values, and log |det dx/dz|, summed: log q(x) = log q(z) - log |det dx/dz|."""
        if self.sites is None:
            return x, 0.0
        pairs = {s.name: s.unconstrain(x[s.name]) for s in self.sites if s.name in x}
        return {n: z for n, (z, _) in pairs.items()}, sum((jnp.sum(d) for _, d in pairs.values()), start=jnp.zeros(()))

    def to_json(self) -> Any:
        """Strings, numbers, lists and None. Raises: CheckpointError for a support that numpyro does not name."""
        return {"sites": None if self.sites is None else [s.to_json() for s in self.sites]}

    @classmethod
    def from_json(cls, data: Any) -> "Coordinates":
        from .supports import Site  # NumPyro's, at a third of a second

        sites = data["sites"]
        return cls(None if sites is None else tuple(Site.from_json(s) for s in sites))


def constrainer(model: AbstractModel) -> Any:
    """What constrains a model's latents: its supports alone where they say it all (no data, no code), else the model."""
    sites = getattr(model, "sites", None)
    return model if sites is None else Coordinates(tuple(sites))


def coordinates_of(model: AbstractModel) -> Coordinates:
    """The coordinates of a model: of its sites, or the identity where `constrain` computes nothing.

    Raises:  CheckpointError for a model whose coordinates only its own code knows.
    """
    sites = getattr(model, "sites", None)
    if sites is not None:
        return Coordinates(tuple(sites))
    if not computes_nothing(model):
        name = type(model).__name__
        raise CheckpointError(
            explain(
                f"writing down the coordinates of `{name}`",
                "its `constrain` is code",
                "a file holds names and numbers",
                "load(folder, model=...)",
            )
        )
    return Coordinates(None)
