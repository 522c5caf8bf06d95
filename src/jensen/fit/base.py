"""What every fit can say of itself, whatever made it."""

import abc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnostics.checks import Judged, Verdict
from ..jsonable import jsonable

if TYPE_CHECKING:
    import pandas as pd


class AbstractResult(abc.ABC):
    """A fit: what was fitted, a verdict on it, and how to keep it.

    `diagnosis` is what was measured and judged, `numbers()` what the fit is known by, and each class adds the rest.
    """

    diagnosis: Judged

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
