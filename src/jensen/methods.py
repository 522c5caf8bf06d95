"""Algorithms that `fit(method=...)` iterates beside gradient VI, as objects: their options, without model, q or optimiser.

`jn.fit(model, data, method="vcd")` takes the defaults; `method=jn.methods.VCD(n_steps=4)` chooses. A new one is a class
here and a name in `jensen.fit.iterated`.
"""

import abc
import dataclasses
from typing import Any, ClassVar

from .algorithms import mcmc_improved, wake_sleep
from .algorithms.descent import AbstractDescent, Optimiser
from .algorithms.machine import Machine


@dataclasses.dataclass(frozen=True)
class AbstractMethod(abc.ABC):
    """name: what `method` calls it with its defaults."""

    name: ClassVar[str]

    @abc.abstractmethod
    def algorithm(self, parts: Machine, optimiser: Optimiser, n_samples: int) -> AbstractDescent:
        """The algorithm on these parts. Raises: OptionError where an option is out of range."""

    def options(self) -> dict[str, Any]:
        """What was chosen."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class WakeSleep(AbstractMethod):
    """Wake-sleep: `algorithms.WakeSleep`."""

    name: ClassVar = "wake-sleep"

    def algorithm(self, parts, optimiser, n_samples):
        return wake_sleep.WakeSleep(parts, optimiser, n_samples)


@dataclasses.dataclass(frozen=True)
class ReweightedWakeSleep(AbstractMethod):
    """Reweighted wake-sleep: `algorithms.ReweightedWakeSleep`. sleep_phi=False: "wake-wake"."""

    wake_phi: bool = True
    sleep_phi: bool = True
    name: ClassVar = "reweighted-wake-sleep"

    def algorithm(self, parts, optimiser, n_samples):
        return wake_sleep.ReweightedWakeSleep(parts, optimiser, n_samples, **self.options())


@dataclasses.dataclass(frozen=True)
class Hoffman(AbstractMethod):
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
class VCD(AbstractMethod):
    """Variational contrastive divergence: `algorithms.VCD`. Arguments as for `Hoffman`; alpha: in (0, 1], 1 is VCD."""

    n_steps: int = 8
    n_leapfrog: int = 5
    step_size: float = 0.05
    target: float = 0.9
    alpha: float = 1.0
    name: ClassVar = "vcd"

    def algorithm(self, parts, optimiser, n_samples):
        return mcmc_improved.VCD(parts, optimiser, n_samples, **self.options())
