"""What the algorithms that follow an estimated gradient share: the optimiser, the state, one step."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from ..batch import Batch
from ..errors import OptionError, explain
from ..function import Function
from ..gradients.base import Estimate
from ..objectives.base import AbstractObjective
from ..tree import split_trainable
from .base import AbstractAlgorithm

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class Hints(NamedTuple):
    """What an error about an optimiser says: which way steps go, a step size, and an optimiser."""

    way: str
    step_size: str
    instead: str


class Optimiser:
    """An Optax transformation with value equality: `optax.adam(1e-2)` made twice is one cache key."""

    def __init__(self, transformation: optax.GradientTransformation):
        self.init, self.update = Function(transformation.init), Function(transformation.update)

    @classmethod
    def parse(
        cls,
        optimizer: Any,
        of_size: Callable[[float], optax.GradientTransformation],
        usual: optax.GradientTransformation,
        hints: Hints,
    ) -> "Optimiser":
        """From an Optax transformation, a step size (of `of_size`), or None: the usual one.   Raises: OptionError."""
        if optimizer is None:
            return cls(usual)
        asked, number = f"optimizer={optimizer!r}", isinstance(optimizer, int | float)
        if number and not isinstance(optimizer, bool):
            if not optimizer > 0:
                raise OptionError(explain(asked, "the step size is not positive", hints.way, hints.step_size))
            return cls(of_size(float(optimizer)))
        if number or not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
            wrong, because = "it is not an Optax transformation", "it must have init and update"
            raise OptionError(explain(asked, wrong, because, hints.instead))
        return cls(optimizer)

    def moved(self, grads: PyTree, state: PyTree, params: PyTree, scale: Array) -> tuple[PyTree, PyTree]:
        """(parameters, own state) after a step of `scale` times the update."""
        updates, state = self.update(grads, state, params)
        return jax.tree.map(lambda p, u: p + scale.astype(p.dtype) * u, params, updates), state

    def __hash__(self) -> int:
        return hash((self.init, self.update))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optimiser) and (self.init, self.update) == (other.init, other.update)


class AbstractDescent(AbstractAlgorithm):
    """One estimate, one step of the optimiser, over all that is trained in `parts`.

    parts: a module with at least `model` and `family`; starting values.   objective: whose value is reported.
    State: (trained arrays, optimiser state, carry).
    """

    parts: AbstractVar[Any]
    objective: AbstractVar[AbstractObjective]
    optimiser: AbstractVar[Optimiser]

    @abc.abstractmethod
    def carry(self, batch: Batch) -> PyTree:
        """What is remembered from step to step and not trained by a gradient."""

    @abc.abstractmethod
    def estimate(self, noise: PyTree, parts: Any, batch: Batch, carry: PyTree) -> Estimate:
        """The objective's value, and gradients (of a loss) in the tree of `parts`."""

    def fitted(self, params: PyTree, carry: PyTree) -> Any:
        """The parts that the fit ends with: with these trained arrays, and what else was found."""
        return self.assemble(params)

    def findings(self, carry: PyTree) -> list[tuple[int, str]]:
        """What is remembered at the end, in words for the verdict: (0, 1 or 2: how bad it is, a sentence)."""
        return []

    def init(self, key, batch):
        params = split_trainable(self.parts)[0]
        return params, self.optimiser.init(params), self.carry(batch)

    def assemble(self, params: PyTree) -> Any:
        """The parts with these trained arrays."""
        return eqx.combine(params, split_trainable(self.parts)[1])

    def step(self, noise, state, batch, scale):
        params, opt, carry = state
        e = self.estimate(noise, self.assemble(params), batch, carry)
        params, opt = self.optimiser.moved(e.grads, opt, params, scale)
        return (params, opt, e.carry), self.objective.sense * e.value

    def parameters(self, state):
        return state[0]

    def with_parameters(self, state, parameters):
        return (parameters, *state[1:])
