"""What the algorithms share that train a model and q side by side, each by its own objective."""

from typing import TYPE_CHECKING, ClassVar

import equinox as eqx

from ..families.base import AbstractFamily
from ..models.base import AbstractModel
from .descent import AbstractDescent

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class Machine(eqx.Module):
    """A model (the generative network) and q(z | x) (the recognition network): what is trained."""

    model: AbstractModel
    family: AbstractFamily


class AbstractSideBySide(AbstractDescent):
    """requires, supplies, min_samples, problems: for the judge, which takes the algorithm in a gradient estimator's place."""

    parts: AbstractVar[Machine]
    n_samples: AbstractVar[int]
    requires: AbstractVar[tuple]
    min_samples: AbstractVar[int]
    supplies: ClassVar[frozenset] = frozenset()

    def problems(self, composition) -> list[tuple[str, str, str]]:
        return []
