"""Models: what you believe. A model is the logarithm of a joint density of latents and data, up to a constant."""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..arrays import in_force
from ..batch import Batch as Batch

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractModel(eqx.Module):
    """log p(z, x), unbatched: one latent, and one row of data (`plated`) or one `Batch` of rows.

    facts:   what it promises.
    plated:  True where every row has its own latent and the rows are independent given the parameters (amortised
             work); False where one latent explains all rows.
    latents: tree of `ShapeDtypeStruct`: one latent, in unconstrained coordinates.
    """

    facts: AbstractVar[frozenset]
    plated: AbstractVar[bool]

    @property
    @abc.abstractmethod
    def latents(self) -> PyTree: ...

    @abc.abstractmethod
    def log_density(self, z: PyTree, x: PyTree) -> Float[Array, ""]:
        """log p(z, x) in nats. `x` is one row if `plated`, else a `Batch`."""

    if TYPE_CHECKING:  # only where a fact says so

        def log_factors(
            self, z: PyTree, x: PyTree
        ) -> list[tuple[tuple[str, ...], Array]]: ...  # FACTORS: (sites read, value)

    def lifted(self) -> "AbstractModel":
        """The model with its data in the precision in force. Raises: DataError for data that it would blur."""
        return in_force(self)

    @abc.abstractmethod
    def constrain(self, z: PyTree) -> PyTree:
        """One latent in the user's coordinates: what samples and summaries show."""
