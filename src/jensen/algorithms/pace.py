"""How many points a target evaluates in one call: all 64 of a block, or as few as a budget of seconds asks for."""

import math

from .budget import Budget

ONE_CALL = 0.1  # of the budget: what one call may take
RISK = 0.5  # of the budget: what a first block of 64 may take, if it is as slow as 64 single points
COMPILATION = 0.3  # of the budget: where the first program took longer to compile, there is no second


class Pace:
    """Chooses between two programs: one evaluates a block of points at once, one any number of them in turn.

    Without a limit of seconds the first is used alone. With one the second begins, with single points, so that the price of
    a point is known before many are bought; a block is tried when it cannot take more than half of the budget, and kept
    while it takes less than a tenth.
    """

    def __init__(self, budget: Budget, block: int):
        self.budget, self.block = budget, block
        self.limited = math.isfinite(budget.seconds)
        self.compiling = 0.0  # seconds, of the first program
        self.price = 0.0  # seconds a point, of the last call that did not compile
        self._single: float | None = None  # seconds a point, of the program that takes them in turn
        self._whole: float | None = None  # seconds a block
        self._called: dict[bool, int] = {True: 0, False: 0}
        self._size, self._careful = 1, False

    def begin(self, careful: bool) -> None:
        """A new request. careful: its points may cost far more than those before, and each other."""
        self._size, self._careful = 1, careful

    @property
    def in_blocks(self) -> bool:
        if not self.limited:
            return True
        if self._careful or self._single is None:
            return False
        if self._called[True] == 0:
            cheap = self.block * self._single < RISK * self.budget.seconds
            return cheap and self.compiling < COMPILATION * self.budget.seconds
        return self._whole is None or self._whole < ONE_CALL * self.budget.seconds

    @property
    def size(self) -> int:
        return self.block if self.in_blocks else self._size

    def seen(self, n: int, seconds: float) -> None:
        """A call with n points has taken so long."""
        if not self.limited:
            return
        blocks = self.in_blocks
        first = self._called[blocks] == 0
        self._called[blocks] += 1
        if first:
            self.compiling = self.compiling or seconds
        elif blocks:
            self._whole, self.price = seconds, seconds / self.block  # a block is padded
        else:
            self._single = self.price = seconds / n
            self._size = max(1, min(2 * n, self.block, int(ONE_CALL * self.budget.seconds / max(seconds / n, 1e-12))))
