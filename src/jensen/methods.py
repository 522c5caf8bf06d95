"""Algorithms that `fit(method=...)` iterates beside gradient VI, as objects: their options, without model, q or optimiser.

`jn.fit(model, data, method="vcd")` takes the defaults; `method=jn.methods.VCD(n_steps=4)` chooses. A new one is a class
here and a name in `jensen.fit.iterated`.
"""

import abc
import dataclasses
from typing import Any, ClassVar

from .algorithms import mcmc_improved, variational_em, wake_sleep
from .algorithms.descent import AbstractDescent, Optimiser
from .algorithms.gradient_vi import GradientVI
from .algorithms.machine import Machine


@dataclasses.dataclass(frozen=True)
class AbstractMethod(abc.ABC):
    """name: what `method` calls it with its defaults."""

    name: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """What was chosen."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class AbstractSideBySide(AbstractMethod):
    """It trains model and q each by an objective of its own: no axis but the family goes with it."""

    @abc.abstractmethod
    def algorithm(self, parts: Machine, optimiser: Optimiser, n_samples: int) -> AbstractDescent:
        """The algorithm on these parts. Raises: OptionError where an option is out of range."""


@dataclasses.dataclass(frozen=True)
class AbstractSchedule(AbstractMethod):
    """A way to take the steps of gradient VI: it goes with every family, objective, gradient and plan."""

    @abc.abstractmethod
    def descent(self, *of_gradient_vi: Any) -> GradientVI:
        """The algorithm, from the arguments of `GradientVI`."""


@dataclasses.dataclass(frozen=True)
class VariationalEM(AbstractSchedule):
    """Variational EM: `algorithms.VariationalEM`. e_steps, m_steps: of the optimiser on q, then on the model, in turn."""

    e_steps: int = 5
    m_steps: int = 5
    name: ClassVar = "variational-em"

    def descent(self, *of_gradient_vi):
        return variational_em.VariationalEM(*of_gradient_vi, **self.options())


@dataclasses.dataclass(frozen=True)
class WakeSleep(AbstractSideBySide):
    """Wake-sleep: `algorithms.WakeSleep`."""

    name: ClassVar = "wake-sleep"

    def algorithm(self, parts, optimiser, n_samples):
        return wake_sleep.WakeSleep(parts, optimiser, n_samples)


@dataclasses.dataclass(frozen=True)
class ReweightedWakeSleep(AbstractSideBySide):
    """Reweighted wake-sleep: `algorithms.ReweightedWakeSleep`. sleep_phi=False: "wake-wake"."""

    wake_phi: bool = True
    sleep_phi: bool = True
    name: ClassVar = "reweighted-wake-sleep"

    def algorithm(self, parts, optimiser, n_samples):
        return wake_sleep.ReweightedWakeSleep(parts, optimiser, n_samples, **self.options())


@dataclasses.dataclass(frozen=True)
class Hoffman(AbstractSideBySide):
    """The model learns from draws that MCMC improves, q from the ELBO: `algorithms.Hoffman`.

    Arguments:  n_steps: of the chain.   n_leapfrog: leapfrog steps each (1: MALA).   step_size: at the start.
                target: acceptance to which the step size is adapted.
    """

    n_steps: int = 8
    n_leapfrog: int = 5
    step_size: float = 0.05
    target: float = 0.9
    name: ClassVar = "hoffman"

    def algorithm(self, parts, optimiser, n_samples):
        return mcmc_improved.Hoffman(parts, optimiser, n_samples, **self.options())


@dataclasses.dataclass(frozen=True)
class VCD(AbstractSideBySide):
    """Variational contrastive divergence: `algorithms.VCD`. Arguments as for `Hoffman`; alpha: in (0, 1], 1 is VCD."""

    n_steps: int = 8
    n_leapfrog: int = 5
    step_size: float = 0.05
    target: float = 0.9
    alpha: float = 1.0
    name: ClassVar = "vcd"

    def algorithm(self, parts, optimiser, n_samples):
        return mcmc_improved.VCD(parts, optimiser, n_samples, **self.options())
