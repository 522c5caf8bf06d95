"""Progress by Rich: steps a second, the objective, time left. Quiet when not at a terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def steps_shown(wanted: bool | None) -> Iterator[Callable[[Any], None] | None]:
    """A line on standard error for every rung of the ladder. `wanted` as for `progress_bar`."""
    shown = sys.stderr.isatty() if wanted is None else wanted
    if not shown:
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)

    def show(step: Any) -> None:
        d = step.diagnosis
        console.print(
            f"{step.name}: {d.verdict}, k-hat {d.khat:.2f}, {step.evaluations:,} evaluations, {step.seconds:.1f} s"
        )

    yield show
