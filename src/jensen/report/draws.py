"""The draws as named columns, with importance weights where these apply: what marginals, pairs and tables are made of."""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ..diagnostics.psis import importance_ess, psis
from .rungs import origin

MIN_ESS = 25  # effective draws below which a reweighted density would be noise


class Coordinate(NamedTuple):
    """One scalar of the posterior: `site[index]`."""

    site: str
    index: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.site}[{','.join(map(str, self.index))}]" if self.index else self.site


def sites(fit: Any) -> dict[str, np.ndarray]:
    """Name of a leaf -> constrained draws, (n, ...) or, with a latent for each row, (n, rows, ...)."""
    tree = fit._posterior if fit._constrainer() is not None else jax.device_get(fit.draws)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator=".") or "z": np.asarray(a) for p, a in leaves}


def log_weights(fit: Any) -> np.ndarray:
    """log p - log q of draws of q (not of draws that were corrected), shape (n,) or (n, rows)."""
    log_p, log_q = fit.proposal_draws()
    return np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)


def _weights(fit: Any) -> np.ndarray | None:
    """Smoothed importance weights of the verdict's own draws; None where too few carry them."""
    log_w = np.asarray(fit.log_p, np.float64) - np.asarray(fit.log_q, np.float64)
    if not np.isfinite(log_w).any():
        return None
    columns = log_w.reshape(len(log_w), -1).T
    smoothed = [psis(column).log_weights for column in columns]
    ess = float(np.mean([importance_ess(s) for s in smoothed]))
    weights = np.exp(np.stack(smoothed, -1)).reshape(log_w.shape) / len(columns)
    enough = ess * len(columns) >= MIN_ESS and np.isfinite(weights).all()
    return weights.reshape(-1) if enough else None


class Draws:
    """Draws pooled over rows if each row has its own latent.

    origin: what the draws are, see `rungs.origin`.
    weights: smoothed importance weights that sum to one; None where too few draws carry them, and for corrected draws,
        which would be corrected twice.
    """

    def __init__(self, fit: Any):
        self.sites, self.plated = sites(fit), fit.plated
        self.lead = 2 if fit.plated else 1
        self.origin = origin(fit)
        self.weights = _weights(fit) if fit.corrected == "none" else None
        details = fit.diagnosis.details
        self.worst = details.get("worst") or details.get("chains", {}).get("rhat_worst")

    @functools.cached_property
    def size(self) -> int:
        """Number of scalars in one latent."""
        return sum(math.prod(a.shape[self.lead :]) for a in self.sites.values())

    def column(self, at: Coordinate) -> Float[np.ndarray, " n"]:
        return np.asarray(self.sites[at.site][(slice(None),) * self.lead + at.index], np.float64).reshape(-1)

    def chosen(self, limit: int) -> list[Coordinate]:
        """The scalar sites, then one of each larger site in turn; the worst one is always among them."""
        shapes = {n: a.shape[self.lead :] for n, a in self.sites.items()}
        scalars = [Coordinate(n, ()) for n, s in shapes.items() if s == ()]
        larger = {n: np.ndindex(*s) for n, s in shapes.items() if s != () and math.prod(s)}
        found = scalars[:limit]
        while larger and len(found) < limit:
            for name in list(larger):
                index = next(larger[name], None)
                if index is None:
                    del larger[name]
                elif len(found) < limit:
                    found.append(Coordinate(name, index))
        worst = self._worst(shapes)
        if worst is not None and worst not in found and found:
            found[-1] = worst
        return found

    def _worst(self, shapes: dict[str, tuple[int, ...]]) -> Coordinate | None:
        """The coordinate that reweighting moves most, if its unconstrained name is one of ours."""
        site, _, rest = str(self.worst or "").partition("[")
        if site not in shapes:
            return None
        index = tuple(int(i) for i in rest.rstrip("]").split(",")) if rest else ()
        fits = len(index) == len(shapes[site]) and all(i < n for i, n in zip(index, shapes[site], strict=True))
        return Coordinate(site, index) if fits else None
