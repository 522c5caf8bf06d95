"""What every fit can say of itself, whatever made it."""

import abc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..algorithms.budget import Budget
from ..diagnostics.checks import Judged, Verdict
from ..errors import OptionError, explain
from ..jsonable import jsonable

if TYPE_CHECKING:
    import pandas as pd


class AbstractResult(abc.ABC):
    """A fit: what was fitted, a verdict on it, and how to keep it.

    `diagnosis` is what was measured and judged, `numbers()` what the fit is known by, and each class adds the rest.
    """

    diagnosis: Judged
    onward: Callable[..., Any] | None = None  # goes on with it: of a fit made in this process

    def __getstate__(self) -> dict[str, Any]:
        """Without what it goes on with, which is code: a copy in another process is as one from a file."""
        return {name: value for name, value in vars(self).items() if name != "onward"}

    def more(self, budget: str | float, progress: bool | None = None) -> Any:
        """A fit that goes on where this one stopped, with the trail and the history continued; this one stays as it is.

        Of the ladder:   chains of the No-U-Turn sampler from where its draws are; the better of the two, by their verdicts.
        Of gradients:    further steps from the fitted q and model, unless the verdict is worse after them.
        EM, a machine:   further iterations from the parameters, and steps from the chains.
        Arguments:  budget: as of `fit`: "seconds:60", "evaluations:100000", or a number of seconds.
        Raises:     OptionError for a fit from a file, and of the ladder for a density without gradient, and where a wall or
                    an improper direction is in the way.
        Example:    fit = jn.fit(model, budget="seconds:5"); fit = fit.more("seconds:60")
        """
        if self.onward is None:
            because = "what it was made of is not kept in a file; or chains cannot go where it ends"
            instead = 'jn.fit(model, data, budget="seconds:600"), or checkpoint=... for a fit that goes step by step'
            raise OptionError(explain("fit.more(...)", "there is nothing to go on from", because, instead))
        return self.onward(self, Budget.parse(budget), progress)

    @property
    def verdict(self) -> Verdict:
        """RELIABLE, DOUBTFUL or UNRELIABLE."""
        return self.diagnosis.verdict

    @property
    def reasons(self) -> list[str]:
        """Why, in sentences; the worst first."""
        return self.diagnosis.reasons

    @property
    def checks(self) -> "pd.DataFrame":
        """The verdict as data: a row for each thing that was looked at.

        Columns: code (`jensen.diagnostics.checks.CODES` says what each is); level, as a verdict; value, NaN where it is no
                 number; good, usable: its limits, beyond which it is in doubt, or failed; where: the quantity at fault;
                 sentence.
        Example: fit.checks.query("level != 'RELIABLE'")[["code", "value", "where"]]
        """
        import pandas as pd

        table = pd.DataFrame([c.row() for c in self.diagnosis.checks])
        return table.astype({"value": float, "good": float, "usable": float}) if len(table) else table

    @abc.abstractmethod
    def numbers(self) -> dict[str, Any]:
        """What it is known by, for a program."""

    @abc.abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Writes it to a folder, without pickle; `jensen.load` reads it."""

    def to_dict(self) -> dict[str, Any]:
        """All of it that is no array, as JSON has it: verdict, reasons, checks, numbers. What JSON lacks is None."""
        said = {"what": repr(self).partition(":")[0], "verdict": str(self.verdict), "reasons": self.reasons}
        return jsonable(said | {"checks": [c.row() for c in self.diagnosis.checks]} | self.numbers())
