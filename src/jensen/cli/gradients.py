"""`jensen gradients`: which gradient estimator is best for a model, by measurement."""

from pathlib import Path
from typing import Annotated, Any

import typer


def gradients(
    model: Annotated[str, typer.Argument(metavar="MODEL.py[:NAME]", help="A Python file, and the model in it.")],
    data: Annotated[Path | None, typer.Option(help="A .csv, .npy, .npz or .parquet file.")] = None,
    family: Annotated[str | None, typer.Option(help="Which q, e.g. full-rank or 'LowRank(rank=3)'.")] = None,
    objective: Annotated[str | None, typer.Option(help="Which bound, e.g. IWAE or 'Renyi(alpha=0.5)'.")] = None,
    gradient: Annotated[list[str] | None, typer.Option(help="Only this estimator; may be repeated.")] = None,
    plan: Annotated[list[str] | None, typer.Option(help="Only this plan; may be repeated.")] = None,
    n_samples: Annotated[int | None, typer.Option(help="Draws a step. Default: 4, or the fewest allowed.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    n_steps: Annotated[int, typer.Option(help="Of the short fit after which they are measured again.")] = 500,
    seconds: Annotated[float, typer.Option(help="Of measuring at each point; compiling comes on top.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of draws, rows and starting values.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Variance against time, as a picture.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output; all else on standard error.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure the gradient estimators that fit a model: bias, variance and time a step, at the start and after a short fit.

    The model and its data are named as for `jensen fit`. Exit codes: 0 done; 2 something in the call is wrong; 130
    interrupted.
    """
    from .main import _guarded

    with _guarded(debug, quiet=json):
        if plot is not None:
            _check_picture(plot)
        found = _measure(model, data, family, objective, gradient, plan, n_samples=n_samples, batch_size=batch_size,
                         n_steps=n_steps, seconds=seconds, seed=seed)  # fmt: skip
        if plot is not None:
            _draw(found, plot)
        text = found.to_json() if json else str(found)
    typer.echo(text)
    if plot is not None:
        typer.echo(f"drawn in {plot}", err=json)


def _measure(
    model: str, data: Path | None, family: str | None, objective: str | None, gradient: list[str] | None,
    plan: list[str] | None, **options: Any,
) -> Any:  # fmt: skip
    from ..lab import gradient_lab
    from .choices import part
    from .feed import data_for
    from .target import load_target

    q, bound = part("family", family), part("objective", objective)
    estimators, plans = (
        [part(axis, t) for t in texts or []] for axis, texts in (("gradient", gradient), ("plan", plan))
    )
    target = load_target(model)
    return gradient_lab(
        target.model, q, objective=bound, data=data_for(target, data), estimators=estimators or None,
        plans=plans or None, **options,
    )  # fmt: skip


def _check_picture(path: Path) -> None:
    """Refused before the work, not after."""
    from ..errors import OptionError, explain

    asked = f"--plot {path}"
    if path.suffix.lower() != ".png":
        raise OptionError(explain(asked, "it does not end in .png", "the picture is a PNG", "--plot lab.png"))
    if path.is_dir() or not path.parent.is_dir():
        wrong = "it is a folder" if path.is_dir() else "there is no such folder"
        raise OptionError(explain(asked, wrong, "the picture is one file", "a file in a folder that exists"))


def _draw(found: Any, path: Path) -> None:
    from ..fit.checkpoint import write_atomically
    from ..report.style import to_png

    write_atomically(path, to_png(found.plot(), 150))
