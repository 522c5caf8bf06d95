"""Estimates from islands of particles that never mix, and the standard errors that their spread gives."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ..diagnostics.chains import rhat
from .chains import longest_run
from .kernel import Segment

STRIDE = 4  # iterations from one kept position to the next


def evidence_of(log_z: Float[np.ndarray, " I"]) -> tuple[tuple[float, float], Float[np.ndarray, " I"]]:
    """((log of the islands' mean, its standard error), each island's share). The mean is unbiased, before the log."""
    top = log_z.max()
    ratio = np.exp(log_z - top)
    mean = ratio.mean()
    error = ratio.std(ddof=1) / mean / math.sqrt(len(ratio))
    return (float(top + math.log(mean)), float(error)), ratio / ratio.sum()


def beside(parts: list[Segment]) -> Segment:
    """The blocks of one segment side by side; of the positions, every fourth."""
    join = lambda field, step=1: np.concatenate([getattr(p, field)[step - 1 :: step] for p in parts], 1)
    return Segment(
        join("z")[:0], join("u", STRIDE), join("log_p", STRIDE), join("accepted"), join("moved"), join("diverged")
    )


def remembered(kept: list[Segment], labels: np.ndarray) -> float:
    """How much particles remember where they began: the largest R-hat, of positions and of their squares.

    Each particle is a chain; those of one label (a mode that they need not leave) are centred together. Where particles
    forget, what they began with does not matter; where they do not, it is all there is.
    """
    x = np.concatenate([s.u for s in kept])
    for label in np.unique(labels):
        group = labels == label
        sd = np.maximum(x[:, group].std((0, 1)), 1e-300)
        x[:, group] = (x[:, group] - x[:, group].mean((0, 1))) / sd
    return float(max(_rhat(x).max(), _rhat(x**2).max()))


def _rhat(x: Float[np.ndarray, "T C D"]) -> Float[np.ndarray, " D"]:
    within = np.maximum(x.var(0, ddof=1).mean(0), 1e-300)
    return np.sqrt(1 - 1 / len(x) + x.mean(0).var(0, ddof=1) / within)


def island_checks(whole: Segment, shares: Float[np.ndarray, " I"], names: list[str]) -> dict[str, Any]:
    """What `samplers.chains.convergence` tells of chains, with the islands as chains."""
    t, c, d = whole.u.shape
    i = len(shares)
    x = whole.u.reshape(t, i, c // i, d)
    mean = np.einsum("i,tipd->d", shares, x) / (t * c // i)
    square = (x - mean) ** 2
    sd = np.maximum(np.sqrt(np.einsum("i,tipd->d", shares, square) / (t * c // i)), 1e-300)
    error = lambda each: np.sqrt((shares[:, None] ** 2 * each**2).sum(0) * i / (i - 1))
    se_mean = error((x.mean((0, 2)) - mean) / sd)
    se_sd = 0.5 * error(square.mean((0, 2)) / sd**2 - 1)
    r = rhat(x[:: max(1, t // 8)].transpose(1, 0, 2, 3).reshape(i, -1, d))  # in time's order: halves are of time
    r = np.where(np.isfinite(r), r, np.inf)
    halves = np.abs(np.einsum("i,tipd->d", shares, x[: t // 2]) - np.einsum("i,tipd->d", shares, x[t // 2 :]))
    halves = halves / (t // 2 * (c // i)) / sd
    return {
        "rhat": float(r.max()), "rhat_worst": names[int(np.argmax(r))],
        "se_mean": float(se_mean.max()), "se_mean_worst": names[int(np.argmax(se_mean))],
        "se_sd": float(se_sd.max()), "se_sd_worst": names[int(np.argmax(se_sd))], "halves": float(halves.max()),
        "stuck": int(longest_run(~whole.moved)), "accepted": float(np.nan_to_num(whole.accepted).mean()),
        "diverged": float(whole.diverged.mean()), "iterations": len(whole.moved), "islands": i,
        "island_ess": float(1 / (shares**2).sum() / i),
    }  # fmt: skip


def drawn(whole: Segment, shares: Float[np.ndarray, " I"], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(draws, log p): resampled so that islands count by their shares."""
    u, log_p = whole.u, whole.log_p
    t, c, d = u.shape
    weights = np.broadcast_to(np.repeat(shares, c // len(shares)), (t, c)).reshape(-1)
    edges = np.cumsum(weights / weights.sum())
    index = rng.permutation(np.minimum(np.searchsorted(edges, (np.arange(t * c) + rng.random()) / (t * c)), t * c - 1))
    return u.reshape(-1, d)[index], log_p.reshape(-1)[index]
