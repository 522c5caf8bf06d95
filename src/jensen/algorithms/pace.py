"""What an evaluation costs: which of two programs takes the next points, and how many of them a fit may ask for."""

import math
import statistics
from collections import deque

from .budget import Budget

ONE_CALL = 0.1  # of the budget: what one call may take
RISK = 0.5  # of the budget: what a first block of 64 may take, if it is as slow as 64 single points
COMPILATION = 0.3  # of the budget: where the first program took longer to compile, there is no second
CHEAP = 1e-4  # seconds a point: up to here all numbers are the usual ones
DEAR = 4e-4  # seconds a point of a block, from which on the second program is worth its compilation
MANY = 100  # dimensions, from which on what is needed grows with them
HALVINGS = 4  # of the usual numbers, at most
LEAST_EFFORT = 0.5**HALVINGS
LAST = 15  # calls
TRIAL = 2  # points by which the second program is compiled, and then timed


class Pace:
    """Chooses between two programs: one evaluates a block of points at once, one any number of them in turn.

    Without a limit of seconds the first is used alone while a point costs little; where it costs more, the second is timed
    too, and each request goes to the one that takes less time for it: a block always costs a whole block, and some
    densities (a Cholesky factor, a scatter) cost more side by side than one after the other.
    With a limit of seconds the second begins, with single points, so that the price of a point is known before many are
    bought; a block is tried when it cannot take more than half of the budget, and kept while it takes less than a tenth.

    Attributes: price: seconds a point, of the last call that did not compile.   compiling: seconds, of the first program.
                single, whole: seconds a point of the second program, and a block of the first: medians of the last calls,
                or None.
    """

    def __init__(self, budget: Budget, block: int, dim: int = 1):
        self.budget, self.block, self.needs = budget, block, max(1.0, dim / MANY)
        self.compiling = self.price = 0.0
        self.single: float | None = None
        self.whole: float | None = None
        self._seen: dict[bool, deque[float]] = {kind: deque(maxlen=LAST) for kind in (True, False)}
        self._called: dict[bool, int] = {True: 0, False: 0}
        self._size, self._careful = 1, False

    @property
    def limited(self) -> bool:
        return math.isfinite(self.budget.seconds)

    def begin(self, careful: bool) -> None:
        """A new request. careful: its points may cost far more than those before, and each other."""
        self._size, self._careful = 1, careful

    @property
    def effort(self) -> float:
        """The share of the usual numbers (of draws, starts, particles, chains) that the price allows: 1, 1/2, ... 1/16.

        Above 100 dimensions as many more evaluations are needed, and the price of all counts.
        """
        prices = [p for p in (self.single, self.whole and self.whole / self.block) if p]
        halvings = round(math.log2(self.needs * min(prices) / CHEAP)) if prices else 0
        return 0.5 ** min(max(halvings, 0), HALVINGS)

    @property
    def in_turn(self) -> bool:
        """Do many points cost less one after the other than side by side?"""
        return self._less_in_turn(self.block)

    def next(self, n: int) -> tuple[bool, int]:
        """(in a block?, how many) of the n points that are left."""
        if not self._may_be_blocks():
            return False, self._size
        if self._less_in_turn(min(n, self.block)):
            return False, self.block
        if not self.limited and self.single is None and self.needs * (self.whole or 0.0) > DEAR * self.block:
            return False, TRIAL
        return True, self.block

    def _less_in_turn(self, n: int) -> bool:
        return self.single is not None and self.whole is not None and n * self.single < self.whole

    def _may_be_blocks(self) -> bool:
        if not self.limited:
            return True
        if self._careful or self.single is None:
            return False
        if self._called[True] == 0:
            cheap = self.block * self.single < RISK * self.budget.seconds
            return cheap and self.compiling < COMPILATION * self.budget.seconds
        return self.whole is None or self.whole < ONE_CALL * self.budget.seconds

    def _usual(self, blocks: bool, seconds: float) -> float:
        self._seen[blocks].append(seconds)
        return statistics.median_low(self._seen[blocks])

    def seen(self, blocks: bool, n: int, seconds: float) -> None:
        """A call with n points has taken so long."""
        first = self._called[blocks] == 0
        self._called[blocks] += 1
        if first:
            self.compiling = self.compiling or seconds
        elif blocks:
            self.price = seconds / self.block  # a block is padded
            self.whole = self._usual(True, seconds)
        else:
            self.price = seconds / n
            self.single = self._usual(False, self.price)
            if self.limited:
                part = int(ONE_CALL * self.budget.seconds / max(self.price, 1e-12))
                self._size = max(1, min(2 * n, self.block, part))
