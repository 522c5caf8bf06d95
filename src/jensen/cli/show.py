"""What the commands print: for people on a terminal, plain in a pipe, or one JSON object."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..fit.result import Fit

ROWS = 40  # of a summary, at most
COLOURS = {"RELIABLE": "green", "DOUBTFUL": "yellow", "UNRELIABLE": "red"}


def payload(fit: Any, saved: Path | None) -> dict[str, Any]:
    """The fit as JSON; numbers that JSON lacks are null."""
    return fit.to_dict() | {"saved": None if saved is None else str(saved)}


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def variational(fit: Any) -> bool:
    """Is there a q? A Boltzmann machine, or a model fitted by EM, has none."""
    from ..fit.result import Fit

    return isinstance(fit, Fit)


def print_fit(fit: Any, saved: Path | None) -> None:
    """Verdict, reasons, what was tried, summary, where it was saved."""
    from rich.console import Console
    from rich.text import Text

    from ..fit.result import bound_in_words
    from ..report.tables import cell, shown_columns

    console = Console(highlight=False, soft_wrap=True)
    verdict = str(fit.verdict)
    if not variational(fit):
        first, *rest = repr(fit).splitlines()
        console.print(Text(first, f"bold {COLOURS[verdict]}"))
        for line in rest:
            console.print(Text(line))
        if saved is not None:
            console.print(Text(f"saved in {saved}: jensen show, jensen.load({str(saved)!r})"))
        return
    d = fit.diagnosis
    parts = f"   {fit.options['model']}, {fit.options.get('method') or fit.options['family']}"
    console.print(Text(verdict, f"bold {COLOURS[verdict]}") + Text(parts))
    for reason in fit.reasons:
        console.print(Text(f"  - {reason}"))
    numbers = f"  {bound_in_words(d)}   {work(fit)}, {fit.seconds:.1f} s   {fit.why}"
    console.print(Text(numbers))
    print_trail(fit, console)
    table = shown_columns(fit.summary())
    rows = [
        [str(name), *(cell(v, lambda v: f"{v:.4g}") for v in row)]
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    print_table(["parameter", *table.columns], rows[:ROWS])
    if len(rows) > ROWS:
        console.print(Text(f"... and {len(rows) - ROWS} more: --json, or fit.summary() in Python"))
    if saved is not None:
        console.print(Text(f"saved in {saved}: jensen show, jensen report, jensen.load({str(saved)!r})"))


def work(fit: Any) -> str:
    """What the fit cost, in its method's own units."""
    if variational(fit) and "method" in fit.options:
        return f"{fit.options['evaluations']:,} evaluations"
    return f"{len(fit.history):,} steps"


def print_trail(fit: "Fit", console: Any) -> None:
    """What was tried, one line each, and why another was tried after it."""
    from rich.text import Text

    from ..report.rungs import has_rungs, reasons_to_climb, taken

    chosen = taken(fit)
    why = reasons_to_climb(fit) if has_rungs(fit) else [a.why for a in fit.trail]
    for i, a in enumerate(fit.trail):
        cost = f"{a.evaluations:,} evaluations, " if a.evaluations else ""
        mark = ">" if i == chosen else " "
        line = f"{mark} {a.family}: {a.verdict}, {_khat(a)}{cost}{a.seconds:.1f} s: {why[i]}"
        console.print(Text(line, "bold" if i == chosen else ""))


def _khat(attempt: Any) -> str:
    return "" if math.isnan(attempt.khat) else f"k-hat {attempt.khat:.2f}, "


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """With lines on a terminal; aligned text in a pipe."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for i, name in enumerate(columns):
            table.add_column(
                name, justify="left" if i == 0 else "right" if len(rows) and _number(rows[0][i]) else "left"
            )
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(highlight=False).print(table)
        return
    widths = [max(len(r[i]) for r in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        sys.stdout.write("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() + "\n")


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
