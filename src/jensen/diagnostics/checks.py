"""A verdict as data: what was looked at, what came out, within which limits, and the sentence that says so."""

import dataclasses
import enum
import math
from collections.abc import Iterable, Sequence
from typing import Any


class Verdict(enum.StrEnum):
    """RELIABLE must be earned; DOUBTFUL: usable with care; UNRELIABLE: do not use the intervals."""

    RELIABLE = "RELIABLE"
    DOUBTFUL = "DOUBTFUL"
    UNRELIABLE = "UNRELIABLE"


LEVELS = tuple(Verdict)  # of a check: passed, in doubt, failed
CODES = {
    "accuracy_of_an_interval": "the error of the width of an interval that stands in for moments, relative",
    "active_units": "how many latent units depend on the row",
    "bracket": "the difference between partition functions annealed from both ends, nats",
    "budget": "whether the budget ended the work",
    "chain_halves": "the difference between the first and the second half of the chains, sd",
    "correction": "how far importance weights moved q's estimates, sd or relative",
    "distance": "the distance between draws and draws known to be right",
    "divergences": "the share of proposals that diverged; where a chain rested, longer than chance explains",
    "elbo": "the Monte Carlo error of the evidence lower bound, nats",
    "ending": "how the optimisation ended",
    "ess": "the effective sample size of importance weights, a share of the draws",
    "estimator": "what the method found out about itself",
    "evidence_samples": "the effective sample size of an annealing run, a share of its chains",
    "few_draws": "whether there are enough draws for a verdict",
    "free_parameters": "whether there are more parameters than rows",
    "held_out": "how much less probable rows held out are than rows learned from, nats a row",
    "hidden_units": "the share of hidden units that do not depend on the row",
    "improper": "whether the density falls off in every direction",
    "initialisation": "how many starts reached the best optimum",
    "kernel_stein": "the p-value of the kernel Stein discrepancy",
    "khat": "the tail index of importance weights (Pareto k-hat); over rows: the share of rows above 0.7",
    "mean_error": "the largest Monte Carlo error of a mean, sd",
    "missed_modes": "the share of the mass in modes that were found and are not in the result",
    "model_parameters": "parameters at the edge of what they may be",
    "modes_forecast": "the chance of having seen a mode narrower than those found",
    "modes_search": "what the search for modes did, and what it would have seen",
    "modes_settled": "whether the search for modes had stopped finding new ones",
    "monotone": "whether the objective of EM ever fell",
    "no_density": "whether q has a density",
    "not_finite": "the share of draws, or weights, without a finite log density",
    "partial_rows": "whether log p was estimated from a part of the rows",
    "partition": "how the partition function was had",
    "rhat": "the largest R-hat of the chains",
    "rungs_agree": "whether the steps of the ladder agree on where the mass is",
    "sd_error": "the largest Monte Carlo error of an sd, relative",
    "shift": "how far weights would move q's estimates, sd or relative",
    "skipped_steps": "the share of steps that were skipped",
    "solver_inside": "whether the density has a loop that may not end far out",
    "stein": "how far Stein's identities are from holding, standard errors, or sd",
    "step_size": "whether the step size is at fault",
    "undetermined": "moments that the draws leave open",
    "uninformed": "parameters that the data say nothing of",
    "unsettled_mean": "a latent whose mean the weights do not settle",
    "walls": "where the density ends",
    "weights": "the largest weight of a machine",
    "witness": "annealed particles that ended where q has too little mass",
}
"""Every code that a check may have, and what is looked at."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    code:    what, of `CODES`; "" in a fit saved before there were codes.
    level:   0 passed, 1 in doubt, 2 failed: the worst of all is the verdict.
    value:   what came out, NaN where it is no number.   good, usable: its limits, beyond which it is in doubt, or failed.
    where:   the quantity at fault, or worst.   sentence: the same in words.
    """

    code: str
    level: int
    sentence: str
    value: float = math.nan
    good: float = math.nan
    usable: float = math.nan
    where: str = ""

    def row(self) -> dict[str, Any]:
        """As data: the level by name, no number as None."""
        numbers = {n: v if math.isfinite(v := float(getattr(self, n))) else None for n in ("value", "good", "usable")}
        return {
            "code": self.code,
            "level": str(LEVELS[self.level]),
            **numbers,
            "where": self.where,
            "sentence": self.sentence,
        }


@dataclasses.dataclass
class Judged:
    """A verdict, and the checks that it follows from, those first that were not passed."""

    verdict: Verdict
    checks: list[Check]

    @property
    def reasons(self) -> list[str]:
        """The checks' sentences."""
        return [c.sentence for c in self.checks]

    @classmethod
    def of(cls, checks: Sequence[Check]) -> "Judged":
        """What follows from these."""
        return cls(LEVELS[max((c.level for c in checks), default=0)], ordered(checks))


class Judgement:
    """Collects checks; the worst level wins."""

    def __init__(self) -> None:
        self.level, self.faults = 0, 0
        self.checks: list[Check] = []

    def __call__(
        self,
        code: str,
        level: int,
        sentence: str,
        value: float = math.nan,
        limits: tuple[float, float] = (math.nan, math.nan),
        where: str = "",
    ) -> None:
        self.level, self.faults = max(self.level, level), self.faults + level
        self.checks.append(Check(code, level, sentence, float(value), *map(float, limits), where))

    def notes(self, code: str, notes: Iterable[tuple[int, str]]) -> None:
        """What something found out about itself: (level, sentence) each."""
        for level, sentence in notes:
            self(code, level, sentence)

    def result(self) -> tuple[Verdict, list[Check]]:
        """The verdict, and the checks with those first that were not passed."""
        return LEVELS[self.level], ordered(self.checks)


def ordered(checks: Sequence[Check]) -> list[Check]:
    """Those that were not passed before those that were."""
    return [c for c in checks if c.level] + [c for c in checks if not c.level]


def from_sentences(verdict: Verdict, reasons: Sequence[str]) -> list[Check]:
    """Of a fit saved before there were codes: only the first is known to be as bad as the verdict."""
    worst = LEVELS.index(verdict)
    return [Check("", worst if i == 0 else 0, sentence) for i, sentence in enumerate(reasons)]


def nearest_its_limit(*pairs: tuple[float, float]) -> tuple[float, float]:
    """Of (value, limit) pairs that are judged together, the one that says most."""
    return max(pairs, key=lambda pair: pair[0] / pair[1])


def graded(value: float, good: float, usable: float) -> int:
    """0 up to `good`, 1 up to `usable`, else 2; NaN is 2."""
    return 0 if value <= good else 1 if value <= usable else 2


def page() -> str:
    """docs/checks.md: `python -m jensen.diagnostics.checks > docs/checks.md`."""
    head = """# What a verdict looks at

Generated by `python -m jensen.diagnostics.checks`; do not edit. `fit.checks` is a table with a row for each check that was
made: its code, its level (RELIABLE: passed; DOUBTFUL; UNRELIABLE), its value with the limits beyond which it is in doubt or
failed, the quantity at fault, and the sentence that `fit.reasons` has. The verdict is the worst level. `jensen show --json`
has the same, and `jensen fit --require DOUBTFUL` exits with 3 where the verdict is worse.

| code | what is looked at |
| --- | --- |
"""
    return head + "".join(f"| `{code}` | {about} |\n" for code, about in CODES.items())


if __name__ == "__main__":
    print(page(), end="")
