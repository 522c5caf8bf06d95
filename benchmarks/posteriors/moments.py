"""What a posterior is measured by: a centre and a spread in each unconstrained coordinate, and errors against them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jensen.tree import Layout

MEAN_ERROR, SD_ERROR = 0.1, 0.1  # solved: every mean within 0.1 sd, every sd within 10 %
REFERENCES = Path(__file__).parent / "references"


@dataclass(frozen=True)
class Errors:
    """The largest error of a mean, in reference sd, and of an sd, relative; and the coordinates they are found at."""

    mean: float
    mean_at: str
    sd: float
    sd_at: str

    @property
    def solved(self) -> bool:
        """Within the limits; false where an error is not a number."""
        return bool(self.mean <= MEAN_ERROR and self.sd <= SD_ERROR)


@dataclass(frozen=True)
class Moments:
    """The reference: one number a coordinate in each list, in the order of `names`.

    measure: "moments": mean and sd; "quantiles": median, and half the width of the central 68.27 %.
    rhat, ess: of the draws it was computed from (None: exact); ess is the smaller of that of x and of (x - mean)^2.
    """

    names: list[str]
    center: np.ndarray
    spread: np.ndarray
    measure: str = "moments"
    rhat: np.ndarray | None = None
    ess: np.ndarray | None = None
    made: dict[str, Any] = field(default_factory=dict)

    def errors(self, draws: Any) -> Errors:
        """Of draws as `fit.draws` holds them: a tree of arrays with a leading axis of draws, unconstrained."""
        return self.errors_of(*located(flat(draws), self.measure))

    def errors_of(self, center: np.ndarray, spread: np.ndarray) -> Errors:
        """Of a centre and a spread, each `(dim,)`; what is not finite counts as an infinite error."""
        mean, sd = np.abs(center - self.center) / self.spread, np.abs(spread / self.spread - 1)
        mean, sd = (np.where(np.isfinite(e), e, np.inf) for e in (mean, sd))
        i, j = int(mean.argmax()), int(sd.argmax())
        return Errors(float(mean[i]), self.names[i], float(sd[j]), self.names[j])

    def save(self, path: Path) -> None:
        """As JSON, to nine significant digits."""
        data = {k: _rounded(v) for k, v in asdict(self).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=0) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Moments":
        data = json.loads(path.read_text())
        arrays = {k: None if data[k] is None else np.array(data[k]) for k in ("center", "spread", "rhat", "ess")}
        return cls(**{**data, **arrays})


def _rounded(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return [float(f"{v:.9g}") for v in value]


def flat(draws: Any) -> np.ndarray:
    """(n, dim) in float64, the order being that of the tree's leaves."""
    leaves = jax.tree.leaves(draws)
    return np.concatenate([np.asarray(a, np.float64).reshape(len(a), -1) for a in leaves], axis=1)


def coordinate_names(latents: Any) -> list[str]:
    """`site[i,j]` for each coordinate of a model's `latents`."""
    return Layout(latents).names()


def located(x: np.ndarray, measure: str = "moments") -> tuple[np.ndarray, np.ndarray]:
    """Centre and spread of draws `(n, dim)`."""
    if measure == "moments":
        return x.mean(0), x.std(0, ddof=1)
    low, middle, high = np.quantile(x, [0.158655253931457, 0.5, 0.841344746068543], axis=0)
    return middle, 0.5 * (high - low)


def chain_quality(chains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split R-hat and effective sample size of `(n_chains, n_draws, dim)`, one a coordinate."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    squares = (chains - chains.mean((0, 1))) ** 2
    ess = np.minimum(effective_sample_size(chains), effective_sample_size(squares))
    return np.maximum(split_gelman_rubin(chains), split_gelman_rubin(squares)), ess
