"""Methods that train model and q each by an objective of its own, with the family as the only axis.

`jn.fit(model, data, method="vcd")` takes the defaults; `method=jn.methods.VCD(n_steps=4)` chooses.
"""

import abc
import dataclasses
from typing import Any, ClassVar, cast

from ..algorithms import mcmc_improved, wake_sleep
from ..algorithms.descent import AbstractDescent, Optimiser
from ..algorithms.machine import Machine
from ..algorithms.method import Variant
from ..fit import defaults
from ..gradients import plans
from ..judge import Composition, check
from .trained import OF_ITS_OWN, AbstractTrained, Made


@dataclasses.dataclass(frozen=True)
class AbstractSideBySide(AbstractTrained):
    """It trains model and q each by an objective of its own: no axis but the family goes with it."""

    takes: ClassVar = AbstractTrained.takes | {"family"}
    why_not: ClassVar = OF_ITS_OWN

    @abc.abstractmethod
    def algorithm(self, parts: Machine, optimiser: Optimiser, n_samples: int) -> AbstractDescent:
        """The algorithm on these parts. Raises: OptionError where an option is out of range."""

    def made(self, at):
        like: Any = self.algorithm(Machine(at.model, at.family), at.optimiser, 1)
        n = at.n_samples or defaults.default_n_samples(at.model, like, like.objective)
        algorithm = self.algorithm(like.parts, at.optimiser, n)  # it stands in the place of the gradient estimator
        parts = at.model, at.family, like.objective, cast(Any, algorithm), plans.IID()
        composition = Composition(*parts, n, at.minibatched)
        check(composition)
        return Made(algorithm, composition)


@dataclasses.dataclass(frozen=True)
class WakeSleep(AbstractSideBySide):
    """Wake-sleep: `algorithms.WakeSleep`."""

    name: ClassVar = "wake-sleep"
    about: ClassVar = (
        "Awake, the model learns to produce the rows from latents that q proposes; asleep, q learns to tell the latents of "
        "rows that the model dreams."
    )

    def algorithm(self, parts, optimiser, n_samples):
        return wake_sleep.WakeSleep(parts, optimiser, n_samples)


@dataclasses.dataclass(frozen=True)
class ReweightedWakeSleep(AbstractSideBySide):
    """Reweighted wake-sleep: `algorithms.ReweightedWakeSleep`. sleep_phi=False: "wake-wake"."""

    wake_phi: bool = True
    sleep_phi: bool = True
    name: ClassVar = "reweighted-wake-sleep"
    about: ClassVar = (
        "Wake-sleep with several draws of q a row, weighed by how much the model prefers each; q learns from them and from "
        "dreams."
    )
    variants: ClassVar = {
        "wake-wake": Variant(
            "Reweighted wake-sleep without dreams: q learns only from its weighed draws for rows of the data.",
            {"sleep_phi": False},
        )
    }

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
    about: ClassVar = (
        "q follows its bound; the model learns from draws of q that a few steps of Hamiltonian Monte Carlo improved."
    )

    def start_of(self, family):
        return family.start  # before the chain

    def algorithm(self, parts, optimiser, n_samples):
        return mcmc_improved.Hoffman(parts, optimiser, n_samples, **self.options())


@dataclasses.dataclass(frozen=True)
class VCD(Hoffman):
    """Variational contrastive divergence: `algorithms.VCD`. Arguments as for `Hoffman`; alpha: in (0, 1], 1 is VCD."""

    alpha: float = 1.0
    name: ClassVar = "vcd"
    about: ClassVar = (
        "Variational contrastive divergence: the model learns from draws of q that Hamiltonian Monte Carlo improved, and q "
        "from where they went."
    )

    def algorithm(self, parts, optimiser, n_samples):
        return mcmc_improved.VCD(parts, optimiser, n_samples, **self.options())
