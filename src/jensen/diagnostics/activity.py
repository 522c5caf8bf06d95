"""Which latents say anything of their row? Posterior collapse, layer by layer, from draws of q(z | x)."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import fdtri

SHARE = 0.01  # of a unit's variance that rows must account for
LEVEL = 1e-3  # of the test that they account for any, all units of a layer together


@dataclasses.dataclass(frozen=True)
class Activity:
    """One layer (or site) of latents: how many of its units depend on x."""

    name: str
    active: int
    units: int

    def sentence(self) -> str:
        """`Layer h2: 3 of 200 units depend on x.`"""
        if self.active:
            verb = "depends" if self.active == 1 else "depend"
            return f"{self.name}: {self.active} of {self.units} units {verb} on x."
        none = "its only unit does not depend" if self.units == 1 else f"none of its {self.units} units depends"
        return f"{self.name}: {none} on x."


def active_units(draws: Float[np.ndarray, "K R *S"], category: bool = False) -> tuple[int, int]:
    """(units whose law under q(z | x) depends on x, units).

    Definition: analysis of variance of K draws for each of R rows. A unit is active if rows account for more than 1% of
                its variance, that is (B - W / K) / (B + W) > 0.01, B the variance over rows of the mean over draws and
                W the mean variance within a row; and if B K / W is more than noise alone would give (F test).
    Arguments:  category: the last axis lists the categories of one unit, active if any of them is.
    Reference:  Burda, Grosse and Salakhutdinov (2016), appendix C, where the threshold is on B alone.  [burda2016iwae]
    """
    k, rows = draws.shape[:2]
    z = np.asarray(draws, np.float64).reshape(k, rows, -1)
    between, within = z.mean(0).var(0, ddof=1), z.var(0, ddof=1).mean(0)
    total = between + within
    varies = total > 0
    share = np.where(varies, (between - within / k) / np.where(varies, total, 1.0), 0.0)
    tests = fdtri(rows - 1, rows * (k - 1), 1 - LEVEL / max(share.size, 1))
    active = (share > SHARE) & (between * k > tests * within)
    if category:
        active = active.reshape(-1, draws.shape[-1]).any(-1)
    return int(active.sum()), active.size


def activity(draws: Any, kinds: Mapping[str, str]) -> list[Activity]:
    """Of each layer of the draws (n, rows, ...), a dictionary of them or one array; [] if there is one row, or one draw.

    Arguments:  kinds: site -> "real" | "binary" | "category"; one array is called "z".
    """
    named = draws if isinstance(draws, Mapping) else {"z": draws}
    out = []
    for name, z in named.items():
        if not isinstance(z, np.ndarray) or min(z.shape[:2]) < 2 or math.prod(z.shape[2:]) == 0:
            continue
        kind = kinds.get(name, "real")
        label = f"Layer {name}" if isinstance(draws, Mapping) and kind != "real" else f"Latent {name}"
        out.append(Activity(label, *active_units(z, kind == "category")))
    return out


def judged(found: Sequence[Activity], learned: bool, judge: Callable[[str, int, str], None]) -> None:
    """A sentence for each layer. One that is dead in a model whose parameters were learned makes the fit DOUBTFUL: it
    has collapsed; where the model was given, the latent may truly not depend on x."""
    for layer in found:
        if layer.active or not learned:
            judge("active_units", 0, layer.sentence())
            continue
        cause = "the model has learned to do without it (posterior collapse)"
        remedy = "more draws a step (n_samples), IWAE(), more steps, a decoder that can do less alone, or fewer layers"
        judge("active_units", 1, f"{layer.sentence().removesuffix('.')}: {cause}. Try {remedy}.")
