"""Progress by Rich: steps a second, the objective, time left. Quiet when not at a terminal."""

import sys
import time
from typing import Any


class Quiet:
    """No progress bar."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *exc: Any) -> None:
        pass

    def update(self, step: int, value: float, note: str = "") -> None:
        pass


class Bar:
    """A Rich progress bar on standard error, refreshed at most four times a second by the loop itself (no thread)."""

    def __init__(self, n_steps: int, label: str):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>7,}/{task.total:,} steps"),
            TextColumn("{task.fields[pace]}"),
            TextColumn("{task.fields[value]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=False)
        self._task = self._progress.add_task(label, total=n_steps, pace="", value="")
        self._began = self._shown = time.perf_counter()
        self._last = 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._progress.refresh()
        self._progress.stop()

    def update(self, step: int, value: float, note: str = "") -> None:
        now = time.perf_counter()
        pace = step / max(now - self._began, 1e-9)
        shown = f"{pace:,.0f}/s" if pace >= 10 else f"{pace:.2g}/s"
        self._progress.update(self._task, completed=step, pace=shown, value=f"{value:,.2f} nats {note}")
        if now - self._shown > 0.25:
            self._progress.refresh()
            self._shown = now


def progress_bar(wanted: bool | None, n_steps: int, label: str) -> Quiet | Bar:
    """`wanted`: True, False, or None: only at a terminal."""
    shown = sys.stderr.isatty() if wanted is None else wanted
    return Bar(n_steps, label) if shown else Quiet()


LONG = 10.0  # seconds, from which on a rung is announced


class Untold:
    """Of the ladder nothing is shown."""

    def ahead(self, name: str, evaluations: int, seconds: float, why: str) -> None:
        """A rung begins that may take so long, and why it is climbed."""

    def step(self, step: Any) -> None:
        """A rung is done."""


class Told(Untold):
    """A line on standard error for every rung of the ladder, and one before a rung that may be long."""

    def __init__(self, console: Any):
        self.console = console

    def ahead(self, name: str, evaluations: int, seconds: float, why: str) -> None:
        if seconds > LONG:
            self.console.print(
                f"{name} begins: up to {evaluations:,} evaluations, about {minutes(seconds)} at the pace so far; it ends as "
                f"soon as its errors suffice (budget='seconds:{LONG:.0f}' would end it before). What it is to settle: {why}",
                soft_wrap=True,
            )

    def step(self, step: Any) -> None:
        d = step.diagnosis
        self.console.print(
            f"{step.name}: {d.verdict}, k-hat {d.khat:.2f}, {step.evaluations:,} evaluations, {step.seconds:.1f} s",
            soft_wrap=True,
        )


def minutes(seconds: float) -> str:
    """A duration in one unit."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def steps_shown(wanted: bool | None) -> Untold:
    """`wanted` as for `progress_bar`, where None means at a terminal or in a notebook."""
    if wanted is False:
        return Untold()
    from rich.console import Console

    console = Console(stderr=True)
    return Told(console) if wanted or console.is_terminal or console.is_jupyter else Untold()
