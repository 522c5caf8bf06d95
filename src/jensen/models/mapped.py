"""A model in other coordinates."""

from typing import Any

from jaxtyping import Array, PyTree

from ..facts import Fact
from ..tree import Frozen, Layout, replaced
from .base import AbstractModel

KEPT_FACTS = frozenset({Fact.EXACT_LOG_WEIGHT, Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE})


class Mapped(AbstractModel):
    """`own` in other coordinates of the same shapes and names: log p(u, x) + log |det du/dz|, u = map(z) as a flat vector.

    Arguments:  map: z (D,) to (u, log |det du/dz|).
    """

    own: AbstractModel
    map: Frozen

    def __init__(self, own: AbstractModel, map: Any):
        self.own, self.map = own, Frozen(map)

    @property
    def facts(self):
        return self.own.facts & KEPT_FACTS

    @property
    def plated(self) -> bool:  # type: ignore[override]
        return self.own.plated

    @property
    def latents(self):
        return self.own.latents

    def _mapped(self, z: PyTree) -> tuple[PyTree, Array]:
        layout = Layout(self.latents)
        u, log_det = self.map.value(layout.ravel(z))
        return layout.unravel(u), log_det

    def log_density(self, z, x):
        u, log_det = self._mapped(z)
        return self.own.log_density(u, x) + log_det

    def constrain(self, z):
        return self.own.constrain(self._mapped(z)[0])

    def traced(self, xs):
        return replaced(self, own=self.own.traced(xs))

    def twin(self):
        return replaced(self, own=self.own.twin())
