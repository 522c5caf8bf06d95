"""How much a fit may cost."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from ..errors import OptionError, explain

GRACE = 1.25  # times the budget: what is under way may be finished up to here, and is broken off from here on
OVERRUN = 0.1  # of the budget: the same where a part of it is kept back


class OutOfBudget(Exception):
    """Raised between two evaluations where the budget is overdrawn: whoever has a result, or one from before, gives that."""


class Budget:
    """Seconds of wall time and evaluations of the log density (with gradient) that may still be spent.

    Checked between the steps of a solver (`spent`), between evaluations (`overdrawn`), and before what is known to cost
    more than is left (`room`). Compilation counts as time.
    """

    def __init__(self, seconds: float = math.inf, evaluations: float = math.inf):
        self.seconds, self.evaluations, self._kept = seconds, evaluations, 0.0
        self._began, self._used = time.perf_counter(), 0

    @classmethod
    def unlimited(cls) -> "Budget":
        return cls()

    @classmethod
    def parse(cls, budget: Any) -> "Budget":
        """`"seconds:30"`, `"evaluations:20000"`, both with a comma between, a number (seconds), or None.

        Raises: OptionError for anything else, for what is not positive, and for the same kind given twice.
        """
        if isinstance(budget, Budget):
            return budget
        if budget is None:
            return cls()
        if isinstance(budget, (int, float)) and not isinstance(budget, bool):
            return cls(seconds=_positive(budget, budget))
        if not isinstance(budget, str):
            raise _refused(budget, f"it is a {type(budget).__name__}")
        found: dict[str, float] = {}
        for part in budget.split(","):
            kind, colon, number = (s.strip() for s in part.partition(":"))
            if kind not in ("seconds", "evaluations") or not colon:
                raise _refused(budget, f"{part.strip()!r} is not a kind and a number")
            if kind in found:
                raise _refused(budget, f"{kind} is given twice")
            try:
                found[kind] = _positive(float(number), budget)
            except ValueError as error:
                if isinstance(error, OptionError):
                    raise
                raise _refused(budget, f"{number!r} is not a number") from error
        return cls(**found)

    def renew(self, other: "Budget") -> None:
        """The same object, with what another allows, from now on: all that look at it go on."""
        self.seconds, self.evaluations, self._kept = other.seconds, other.evaluations, 0.0
        self._began, self._used = time.perf_counter(), 0

    def spend(self, evaluations: int) -> None:
        self._used += evaluations

    @property
    def used(self) -> int:
        """Evaluations so far."""
        return self._used

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    @property
    def finite(self) -> bool:
        return math.isfinite(self.seconds) or math.isfinite(self.evaluations)

    @property
    def spent(self) -> bool:
        """Is nothing left, but for what is kept back?"""
        return self.share_left <= self._kept

    @contextlib.contextmanager
    def keeping(self, share: float) -> Iterator[None]:
        """Inside, a share of the budget is kept back for what comes after: the checks."""
        before, self._kept = self._kept, share
        try:
            yield
        finally:
            self._kept = before

    @property
    def overdrawn(self) -> bool:
        return self.finite and self.room(0.0) <= 0

    def room(self, seconds_each: float, share: float = 1.0) -> float:
        """How many evaluations of this price still fit into a share of what is left, the grace included."""
        end = GRACE if self._kept == 0 else 1 - self._kept + OVERRUN
        seconds = end * self.seconds - self.elapsed
        by_time = (
            math.inf
            if math.isinf(self.seconds) or (seconds_each <= 0 < seconds)
            else seconds / max(seconds_each, 1e-12)
        )
        return max(share * min(by_time, end * self.evaluations - self._used), 0.0)

    @property
    def share_left(self) -> float:
        """Of the scarcer of the two, 0 to 1."""
        left = [1.0]
        if math.isfinite(self.seconds):
            left.append(1 - self.elapsed / self.seconds)
        if math.isfinite(self.evaluations):
            left.append(1 - self._used / self.evaluations)
        return min(left)

    def __str__(self) -> str:
        parts = [
            f"{v:g} {k}" for k, v in (("seconds", self.seconds), ("evaluations", self.evaluations)) if v < math.inf
        ]
        return " or ".join(parts) or "no limit"


def _positive(value: float, asked: Any) -> float:
    if not value > 0 or math.isnan(value):
        raise _refused(asked, f"{value:g} is not positive")
    return float(value)


def _refused(asked: Any, wrong: str) -> OptionError:
    instead = 'budget="seconds:30", budget="evaluations:20000", or a number of seconds'
    return OptionError(explain(f"budget={asked!r}", wrong, "it says when to stop", instead))
