"""Fitting deep belief networks greedily, and what is done with them: the methods of `EnergyFit`, of a stack."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..compiled import key_for
from ..data.binarized import DynamicallyBinarized
from ..diagnostics.checks import LEVELS, Check, Judged
from ..diagnostics.partition import LogPartition
from ..models.boltzmann import RBM
from ..models.deep_belief import DBN
from ..process import computes, ready
from .base import AbstractResult
from .energy import EnergyFit, fit_energy
from .persist import save_whole


@computes
@dataclasses.dataclass(repr=False)
class BeliefFit(AbstractResult):
    """A fitted deep belief network: the stack, and the `EnergyFit` of its top RBM, whose verdict is the last word.

    n_importance: draws a row in `score_samples`.   n_untrained: layers that an interruption left out, from the top.
    """

    dbn: DBN
    top: EnergyFit
    rows: Any
    n_importance: int = 100
    n_untrained: int = 0

    @property
    def machine(self) -> RBM:
        """The RBM next to the data."""
        return self.dbn.stack[0]

    @property
    def n_hidden(self) -> int:
        """Columns of `hidden_means`."""
        return self.dbn.stack[-1].units[1].size

    @property
    def chains(self) -> Any:
        return None

    @property
    def history(self) -> np.ndarray:
        return self.top.history

    @property
    def diagnosis(self) -> Judged:
        """The top RBM's; in doubt where an interruption left layers out."""
        top = self.top.diagnosis
        if not self.n_untrained:
            return top
        left = f"Training was interrupted: {self.n_untrained} layers above were not begun, and are left out."
        verdict = LEVELS[max(1, LEVELS.index(top.verdict))]
        return Judged(verdict, [Check("ending", 1, left), *top.checks])

    def __repr__(self) -> str:
        widths = "-".join(map(str, [m.n_visible for m in self.dbn.stack] + [self.n_hidden]))
        return "\n".join([f"BeliefFit(DBN {widths}): {self.verdict}", *(f"  - {r}" for r in self.reasons)])

    def save(self, folder: str | Path) -> Path:
        """Writes the stack and its verdict to a folder, without the rows and without pickle; `jensen.load` reads it."""
        return save_whole(dataclasses.replace(self, rows=None, top=self.top.without_rows()), folder)

    def numbers(self) -> dict[str, Any]:
        """What its top RBM is known by, for a program."""
        return self.top.numbers()

    def hidden_means(self, x: Any) -> list[Float[np.ndarray, "n d"]]:
        """Probabilities of the top layer, bottom-up."""
        return [np.asarray(self.dbn.encode(jnp.asarray(x, self._dtype))[-1])]

    def decode(self, z: Any) -> Float[np.ndarray, "n v"]:
        """E[x] top-down by means."""
        return np.asarray(self.dbn.decode(jnp.asarray(z, self._dtype)))

    def gibbs(self, x: Any, n_steps: int = 1, seed: int = 0) -> Float[np.ndarray, "n v"]:
        """Rows drawn top-down after bottom-up probabilities and `n_steps` sweeps of the top RBM."""
        k0, k1 = jax.random.split(key_for(seed, "gibbs"))
        (top,) = self.dbn.stack[-1].draw(k0, tuple(map(jnp.asarray, self.hidden_means(x))), 1)
        return np.asarray(self.dbn.sample(k1, top, n_steps))

    def sample(self, n: int = 100, seed: int = 0, *, n_steps: int = 1000) -> Float[np.ndarray, "n v"]:
        """Rows drawn top-down from chains of the top RBM."""
        k0, k1 = jax.random.split(key_for(seed, "sample"))
        (top,) = self.dbn.stack[-1].at_random(k0, n, 1)
        return np.asarray(self.dbn.sample(k1, top, n_steps))

    def log_partition(self, method: str = "auto", **options: Any) -> LogPartition:
        """log Z of the top RBM."""
        return self.top.log_partition(method, **options)

    def score_samples(self, x: Any, log_z: float | LogPartition | None = None) -> Float[np.ndarray, " n"]:
        """log p(x) of rows by importance sampling bottom-up, nats; below it on average."""
        found = self.log_partition() if log_z is None else log_z
        value = found.estimate if isinstance(found, LogPartition) else found
        key = key_for(self.top.seed, "weights")
        return np.asarray(self.dbn.log_prob(key, jnp.asarray(x, self._dtype), value, self.n_importance))

    @property
    def _dtype(self) -> Any:
        return self.machine.biases[0].dtype


@ready()
def fit_belief(
    rows: Any,
    widths: Sequence[int],
    visible: str = "bernoulli",
    *,
    n_categories: int | None = None,
    n_importance: int = 100,
    seed: int = 0,
    **options: Any,
) -> BeliefFit:
    """RBMs of these hidden widths, each trained on the hidden probabilities of the one below.

    Arguments:  options: of `fit_energy`, for every RBM.
    Reference:  Hinton, Osindero and Teh (2006), the greedy algorithm.  [hinton2006dbn]
    """
    stack, fit = [], None
    below: Any = rows if isinstance(rows, DynamicallyBinarized) else np.asarray(rows, np.float32)
    for i, width in enumerate(widths):
        kinds = {"visible": visible, "n_categories": n_categories} if i == 0 else {}
        machine = RBM(below.shape[1], width, mean=below.mean(0), seed=seed + i, **kinds)
        fit = fit_energy(machine, below, seed=seed, **options)
        stack.append(fit.machine)
        if fit.why == "interrupted":
            break
        below = fit.hidden_means(below)[0]
    assert fit is not None
    return BeliefFit(DBN(tuple(stack)), fit, np.asarray(rows), n_importance, len(widths) - len(stack))
