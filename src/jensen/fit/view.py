"""Other coordinates of the same posterior, and the way back."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..algorithms.gaussian import Gaussian
from ..algorithms.importance import Weighted, proposal_of
from ..algorithms.solver import Solution
from ..algorithms.target import Target
from ..models.mapped import Mapped
from ..samplers.chains import agreement
from ..samplers.ends import Ends
from ..samplers.scales import conditional_precision

LEVELS = 3  # of scales of scales
BLOCK = 1024


@dataclasses.dataclass
class View:
    """A target, and the map from its coordinates to those of the model (None: they are the same)."""

    target: Target
    back: Callable[[Float[np.ndarray, "n D"]], Float[np.ndarray, "n E"]] | None = None
    label: str = ""
    rest: Int[np.ndarray, " B"] | None = None  # coordinates that are nearly standard normal whatever the others are

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
    own = target.like(Mapped(target.model, ends), target.batch.rows)
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
    own, centred = target.like(other), Centred(other, like)

    def back(u: np.ndarray) -> np.ndarray:
        tree = centred(jax.vmap(own.layout.unravel)(jnp.asarray(u)))
        return np.asarray(jax.vmap(target.layout.ravel)(tree))

    return View(own, lambda u: _in_blocks(back, u), "non-centred ")


def learned_view(target: Target, around: Gaussian) -> View | None:
    """Coordinates in which no coordinate sets the scale of another, learned from curvatures around a Gaussian, level by level
    where scales have scales; None where no such structure is found."""
    own, maps, u, scale, among = target, [], around.mean, around.sd, None
    for _ in range(LEVELS):
        found = conditional_precision(own, u, scale, among)
        if found is None:
            break
        maps.append(jax.tree.map(jnp.asarray, found))
        own = target.like(Mapped(own.model, maps[-1]), target.batch.rows)
        u, scale, among = u.copy(), scale.copy(), found.a
        u[found.b], scale[found.b] = 0.0, 1.0

    rest = np.unique(np.concatenate([np.zeros(0, int), *(m.b for m in maps)]))

    def back(z: np.ndarray) -> np.ndarray:
        for found in reversed(maps):
            z = _pushed(found, z)
        return np.asarray(z)

    return View(own, lambda z: _in_blocks(back, z), "learned non-centred ", rest) if maps else None


@jax.jit
def _pushed(map: Any, z: Float[Array, "n D"]) -> Float[Array, "n D"]:
    return jax.vmap(lambda one: map(one)[0])(z)


def _in_blocks(f: Callable, u: np.ndarray) -> np.ndarray:
    """f of rows, in blocks of one shape: nothing is compiled twice."""
    parts = []
    for at in range(0, len(u), BLOCK):
        block = u[at : at + BLOCK]
        parts.append(f(np.concatenate([block, np.repeat(block[:1], BLOCK - len(block), 0)]))[: len(block)])
    return np.concatenate(parts)
