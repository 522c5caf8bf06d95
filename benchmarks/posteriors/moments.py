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
    median, width: these, where the measure is the other and they are known: for what a fit calls undetermined.
    rhat, ess: of the draws it was computed from (None: exact); ess is the smaller of that of x and of (x - mean)^2.
    """

    names: list[str]
    center: np.ndarray
    spread: np.ndarray
    measure: str = "moments"
    rhat: np.ndarray | None = None
    ess: np.ndarray | None = None
    made: dict[str, Any] = field(default_factory=dict)
    median: np.ndarray | None = None
    width: np.ndarray | None = None

    def errors(self, draws: Any, undetermined: np.ndarray | None = None) -> Errors:
        """Of draws as `fit.draws` holds them: a tree of arrays with a leading axis of draws, unconstrained.

        undetermined: one truth value a coordinate: there quantiles are compared, where they are known.
        """
        x = flat(draws)
        mean, sd = self._off(*located(x, self.measure), self.center, self.spread)
        if undetermined is not None and undetermined.any() and self.median is not None:
            other = self._off(*located(x, "quantiles"), self.median, self.width)
            mean, sd = np.where(undetermined, other[0], mean), np.where(undetermined, other[1], sd)
        i, j = int(mean.argmax()), int(sd.argmax())
        return Errors(float(mean[i]), self.names[i], float(sd[j]), self.names[j])

    @staticmethod
    def _off(center: np.ndarray, spread: np.ndarray, right: np.ndarray, scale: np.ndarray) -> list[np.ndarray]:
        """Errors of a centre and of a spread; what is not finite counts as infinite."""
        off = np.abs(center - right) / scale, np.abs(spread / scale - 1)
        return [np.where(np.isfinite(e), e, np.inf) for e in off]

    def save(self, path: Path) -> None:
        """As JSON, to nine significant digits."""
        data = {k: _rounded(v) for k, v in asdict(self).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=0) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Moments":
        data = json.loads(path.read_text())
        fields = ("center", "spread", "rhat", "ess", "median", "width")
        arrays = {k: None if data.get(k) is None else np.array(data[k]) for k in fields}
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
