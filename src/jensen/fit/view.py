"""Other coordinates of the same posterior, and the way back."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..algorithms.importance import Weighted, proposal_of
from ..algorithms.solver import Solution
from ..algorithms.target import Target
from ..samplers.chains import agreement
from ..samplers.ends import Ended, Ends
from ..tree import Frozen


@dataclasses.dataclass
class View:
    """A target, and the map from its coordinates to those of the model (None: they are the same)."""

    target: Target
    back: Callable[[Float[np.ndarray, "n D"]], Float[np.ndarray, "n E"]] | None = None
    label: str = ""

    def home(self, target: Target, solution: Solution, weighed: Weighted) -> tuple[Solution, Weighted]:
        """Both in the model's coordinates. Log-weights stay: log q loses the same Jacobian as log p."""
        if self.back is None:
            return solution, weighed
        u, log_p, log_q = self._moved(target, weighed.u, weighed.log_p, weighed.log_q)
        weighed = dataclasses.replace(weighed, u=u, log_p=log_p, log_q=log_q)
        if solution.draws is None or solution.log_p is None:
            return solution, weighed
        own_q = proposal_of(solution.q).log_prob(solution.draws)
        u, log_p, log_q = self._moved(target, solution.draws, solution.log_p, own_q)
        findings = dict(solution.findings)
        if "shape" in findings and solution.corrected == "chains":
            x = u.reshape(*findings["shape"], -1)
            findings["chains"] = findings["chains"] | agreement(x, target.names)
        return dataclasses.replace(solution, draws=u, log_p=log_p, log_q=log_q, findings=findings), weighed

    def _moved(self, target: Target, u: np.ndarray, log_p: np.ndarray, log_q: np.ndarray):
        there = self.back(u)  # type: ignore[misc]
        value = target.value(there)
        with np.errstate(invalid="ignore"):
            return (
                there,
                np.where(np.isfinite(log_p), value, -np.inf),
                log_q + np.where(np.isfinite(value) & np.isfinite(log_p), value - log_p, 0.0),
            )


def ended_view(target: Target, ends: Ends) -> View:
    """The same posterior in coordinates that end at its walls."""
    own = Target(Ended(target.model, Frozen(ends)), target.batch.rows, target.budget)
    return View(own, ends.host, "walled ")


def other_view(target: Target) -> View | None:
    """The non-centred coordinates of a NumPyro model with inferred scales; None for any other model."""
    if not hasattr(target.model, "structure"):
        return None
    from ..models.adapters.numpyro_reparam import Centred, noncentred

    like: Any = target.model
    other = noncentred(like)
    if other is None:
        return None
    own, centred = Target(other, None, target.budget), Centred(other, like)

    def back(u: np.ndarray) -> np.ndarray:
        parts = []
        for at in range(0, len(u), 1024):  # one shape: nothing is compiled twice
            block = u[at : at + 1024]
            padded = np.concatenate([block, np.repeat(block[:1], 1024 - len(block), 0)])
            tree = centred(jax.vmap(own.layout.unravel)(jnp.asarray(padded)))
            parts.append(np.asarray(jax.vmap(target.layout.ravel)(tree))[: len(block)])
        return np.concatenate(parts)

    return View(own, back, "non-centred ")
