"""What the lab found: a table, a recommendation, a figure, JSON."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..jsonable import jsonable
from .bias import Bias
from .subject import Refused

if TYPE_CHECKING:
    import pandas as pd

    from ..gradients.base import AbstractEstimator
    from ..gradients.plans import AbstractPlan
    from ..report.style import Figure


class Reading(NamedTuple):
    """One arm at one point. Variances are of one step's gradient, summed over parameters; seconds of one step."""

    point: str
    estimator: str
    plan: str
    n_samples: int
    declared_unbiased: bool
    bias: Bias
    variance: float
    variance_se: float
    gradient_norm: float
    evaluations: int
    seconds: float
    repeats: int
    minibatch: float  # what the choice of rows adds to the variance
    groups: dict[str, dict[str, float]]  # variance, bias, gradient norm: of model, family, and each array

    @property
    def unbiased(self) -> bool:
        """Declared so, and nothing seen that speaks against it."""
        return self.declared_unbiased and not self.bias.seen

    @property
    def snr(self) -> float:
        """||E g|| / sqrt(variance)."""
        return self.gradient_norm / math.sqrt(self.variance) if self.variance > 0 else math.inf

    @property
    def efficiency(self) -> float:
        """1 / (variance x seconds)."""
        return 1 / (self.variance * self.seconds) if self.variance > 0 else math.inf

    def said(self) -> str:
        """The bias in words."""
        words = self.bias.words()
        return words if self.declared_unbiased else f"declared; {words}"

    def gain(self, least_norm: float = 0.0) -> float:
        """1 / ((||E g||^2 + variance + minibatch) x seconds): what a second brings, up to a factor that all share.

        A step of the best size along a gradient of mean g and variance V gains ||g||^4 / (2 L (||g||^2 + V)) on a
        function of smoothness L: where noise dominates this ranks as the efficiency does, but no noise at all is not
        worth any price. `least_norm`: a gradient below it is as good as none.
        Reference:  Bottou, Curtis and Nocedal (2018), section 4.  [bottou2018optimization]
        """
        square = max(self.gradient_norm, least_norm) ** 2
        return 1 / (max(square + self.variance + self.minibatch, 1e-300) * self.seconds)


@dataclass
class GradientLab:
    """Bias, variance and cost of gradient estimators on one model. `print(lab)` ranks them; made by `gradient_lab`.

    best, best_plan: the recommended estimator and plan, as objects for `fit(gradient=..., plan=...)`; None if no
    estimator is unbiased.   recommendation: why, in one sentence.   refused: who was not measured, and the reasons.
    """

    readings: list[Reading]
    refused: list[Refused]
    recommendation: str
    best: "AbstractEstimator | None"
    best_plan: "AbstractPlan | None"
    best_name: tuple[str, str] | None
    scores: dict[tuple[str, str], float]  # (estimator, plan) -> gain over the points, the best unbiased one being 1
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> list[str]:
        return list(dict.fromkeys(r.point for r in self.readings))

    def ranked(self) -> list[tuple[str, str]]:
        """(estimator, plan), the best first; the biased ones last."""
        fine = {k for k in self.scores if all(r.unbiased for r in self.readings if (r.estimator, r.plan) == k)}
        return sorted(self.scores, key=lambda k: (k not in fine, -self.scores[k]))

    def table(self) -> "pd.DataFrame":
        """A row for each point, estimator and plan, the best first.

        Columns:  score (gain a second, relative to the best), bias in words, relative_bias and its 95% interval, max_z,
                  variance and its standard error (of one step's gradient, summed over parameters), that of the model's
                  and of q's parameters, snr, evaluations of the log density and seconds a step, efficiency
                  = 1 / (variance x seconds), repeats.
        """
        import pandas as pd

        order = {k: i for i, k in enumerate(self.ranked())}
        rows = sorted(self.readings, key=lambda r: (self.points.index(r.point), order[r.estimator, r.plan]))
        return pd.DataFrame([self._row(r) for r in rows]).set_index(["point", "estimator", "plan"])

    def _row(self, r: Reading) -> dict[str, Any]:
        size, low, high = r.bias.relative
        of = lambda part: r.groups.get(part, {}).get("variance", 0.0)
        return {
            "point": r.point, "estimator": r.estimator, "plan": r.plan, "score": self.scores[r.estimator, r.plan],
            "n_samples": r.n_samples, "unbiased": r.unbiased, "bias": r.said(), "relative_bias": size,
            "relative_bias_low": low, "relative_bias_high": high, "max_z": r.bias.max_z, "variance": r.variance,
            "variance_se": r.variance_se, "variance_model": of("model"), "variance_family": of("family"), "snr": r.snr,
            "evaluations": r.evaluations, "seconds": r.seconds, "efficiency": r.efficiency, "repeats": r.repeats,
        }  # fmt: skip

    def groups(self) -> "pd.DataFrame":
        """Variance, bias and gradient norm of the model, the family, and each of their arrays by name."""
        import pandas as pd

        rows = [
            {"point": r.point, "estimator": r.estimator, "plan": r.plan, "parameters": name, **values}
            for r in self.readings
            for name, values in r.groups.items()
        ]
        return pd.DataFrame(rows).set_index(["point", "estimator", "plan", "parameters"])

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything but the objects, as one JSON object; numbers that JSON lacks are null. Written to `path`, if given."""
        text = json.dumps(self.to_dict(), allow_nan=False)
        if path is not None:
            from ..fit.checkpoint import write_atomically

            write_atomically(Path(path), text.encode())
        return text

    def to_dict(self) -> dict[str, Any]:
        """What `to_json` writes."""
        rows = [
            jsonable({**self._row(r), "minibatch_variance": r.minibatch, "groups": r.groups}) for r in self.readings
        ]
        best = None if self.best_name is None else dict(zip(("estimator", "plan"), self.best_name, strict=True))
        refused = [r._asdict() for r in self.refused]
        return {
            "best": best, "recommendation": self.recommendation, "settings": jsonable(self.settings), "readings": rows,
            "refused": refused,
        }  # fmt: skip

    def plot(self) -> "Figure":
        """Variance against time a step, a panel for each point; hollow marks are biased."""
        from .plot import plot

        return plot(self)

    def __str__(self) -> str:
        from .words import render

        return render(self)

    def __repr__(self) -> str:
        return str(self)
