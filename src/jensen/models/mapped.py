"""A model in other coordinates."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..tree import Frozen, Layout, replaced
from .base import AbstractModel


class Mapped(AbstractModel):
    """`own` in coordinates z: u = map(z), a flat vector; the log density gains log |det du/dz|.

    Arguments:  map: z (D,) to (u, log |det du/dz|).
    """

    own: AbstractModel
    map: Frozen
    layout: Layout = eqx.field(static=True)

    def __init__(self, own: AbstractModel, map: Any):
        self.own, self.map, self.layout = own, Frozen(map), Layout(own.latents)

    @property
    def facts(self):
        return self.own.facts

    @property
    def plated(self) -> bool:  # type: ignore[override]
        return self.own.plated

    @property
    def latents(self):
        return Layout((self.layout.size,)).spec()

    def log_density(self, z, x):
        u, log_det = self.map.value(z)
        return self.own.log_density(self.layout.unravel(u), x) + log_det

    def constrain(self, z):
        return self.own.constrain(self.layout.unravel(self.map.value(jnp.asarray(z))[0]))

    def traced(self, xs):
        return replaced(self, own=self.own.traced(xs))

    def twin(self):
        return replaced(self, own=self.own.twin())
