"""The command `jensen`. Heavy imports are inside the commands."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..diagnostics.checks import Verdict
from ..errors import JensenError
from .gradients import gradients

app = typer.Typer(
    name="jensen",
    help="Variational inference: a model in, a posterior and a verdict on it out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
USER_ERROR, TOO_BAD, INTERRUPTED = 2, 3, 130

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output; all else on standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 if the verdict is UNRELIABLE.")]
Require = Annotated[
    Verdict | None, typer.Option(help="Exit with 3 if the verdict is worse than this.", case_sensitive=False)
]
Progress = Annotated[bool | None, typer.Option("--progress/--no-progress", help="Default: at a terminal.")]
Seconds = Annotated[float, typer.Option("--checkpoint-seconds", help="Between two checkpoints, with --out.")]
Model = Annotated[
    str | None, typer.Option(metavar="MODEL.py:NAME", help="The model; without it, no Python file of another is run.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="What `jensen fit --out` or `Fit.save` wrote.")]


@contextlib.contextmanager
def _guarded(debug: bool, quiet: bool = False) -> Iterator[None]:
    """Errors made on purpose are shown without a traceback, exit code 2; with `quiet`, prints go to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
            yield
    except JensenError as error:
        if debug:
            raise
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        typer.echo("interrupted before there was a result; `jensen resume` goes on from a checkpoint", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _finish(run: dict[str, Any], out: Path | None, json: bool, worst: Verdict | None, debug: bool, **how: Any) -> None:
    """Fit, save, print; the exit code. A fit that cannot be saved is still printed."""
    from . import runs, show

    failed: JensenError | None = None
    with _guarded(debug, quiet=json):
        fit = runs.execute(run, out, **how)
        try:
            saved = None if out is None else fit.save(out)
        except JensenError as error:
            saved, failed = None, error
        shown = show.payload(fit, saved) if json else None
    if json:
        show.print_json(shown)
    else:
        show.print_fit(fit, saved)
    with _guarded(debug):
        if failed is not None:
            raise failed
    if fit.why == "interrupted":
        again = "goes on" if out is not None and (out / "checkpoint").is_dir() else "starts it again"
        where = f"; jensen resume {out} {again}" if out is not None else ""
        typer.echo(f"interrupted after {show.work(fit)}{where}", err=True)
        raise typer.Exit(INTERRUPTED)
    if worst is not None and list(Verdict).index(worst) < list(Verdict).index(Verdict(str(fit.verdict))):
        raise typer.Exit(TOO_BAD)


def _worst(strict: bool, require: Verdict | None) -> Verdict | None:
    """The worst verdict that exits with 0; None: any."""
    return require or (Verdict.DOUBTFUL if strict else None)


@app.command()
def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL.py[:NAME]", help="A Python file, and the model in it.")],
    data: Annotated[Path | None, typer.Option(help="A .csv, .npy, .npz or .parquet file.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the fit and its checkpoints.")] = None,
    family: Annotated[str | None, typer.Option(help="Which q, e.g. full-rank or 'LowRank(rank=3)'.")] = None,
    objective: Annotated[str | None, typer.Option(help="Which bound, e.g. IWAE or 'Renyi(alpha=0.5)'.")] = None,
    gradient: Annotated[str | None, typer.Option(help="Which gradient estimator, e.g. leave-one-out.")] = None,
    plan: Annotated[str | None, typer.Option(help="How draws are made, e.g. antithetic.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="One of `jensen list method`, with options: 'VCD(n_steps=4)'; or a class of MODEL.py, or my_module:MyMethod."
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="seconds:30, evaluations:20000, or both with a comma.")] = None,
    accuracy: Annotated[float | None, typer.Option(help="Monte Carlo error of a mean, in sd, to be reached.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Adam's step size, or name:step size (adam:1e-3).")] = None,
    n_samples: Annotated[int | None, typer.Option(help="Draws a step (a datum).")] = None,
    n_steps: Annotated[int | None, typer.Option(help="Optimiser steps. Default: until settled.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    n_restarts: Annotated[int, typer.Option(help="Starts run at once, the best one kept.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same bits.")] = 0,
    checkpoint_seconds: Seconds = 60.0,
    early_stop: Annotated[bool | None, typer.Option("--early-stop/--no-early-stop", help="End when settled.")] = None,
    average: Annotated[bool | None, typer.Option("--average/--no-average", help="Average the last iterates.")] = None,
    donate: Annotated[bool, typer.Option("--donate", help="Half the memory for the optimiser's state.")] = False,
    n_draws: Annotated[int | None, typer.Option(help="Draws the verdict is made from (4,096).")] = None,
    x64: Annotated[bool, typer.Option("--x64", help="Double precision.")] = False,
    progress: Progress = None,
    strict: Strict = False,
    require: Require = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit a model and print its verdict.

    With nothing chosen, methods are tried from cheap to costly until one passes every check; with a family, an
    objective, an option of the optimiser, or a model they cannot take, q is fitted by stochastic gradients.

    MODEL.py:NAME is a NumPyro function, a jensen model, or a function without arguments that returns a model or
    (model, data). NAME may be left out if the file has one model, or one called `model`.

    A NumPyro function whose parameters are named like columns of a .csv or .parquet, or arrays of a .npz, gets them by
    name; any other gets the whole array as its one argument. `--data` replaces the data of a factory.

    Exit codes: 0 the fit is done, whatever its verdict; 2 something in the call is wrong; 3 the verdict is worse than
    --require (or UNRELIABLE, with --strict);
    130 interrupted (Ctrl-C or SIGTERM: what there is is saved, and `jensen resume` goes on).
    """
    from . import runs

    options = {
        "family": family, "objective": objective, "gradient": gradient, "plan": plan, "optimizer": optimizer,
        "n_samples": n_samples, "n_steps": n_steps, "batch_size": batch_size, "n_restarts": n_restarts, "seed": seed,
        "early_stop": early_stop, "average": average, "donate": donate, "n_draws": n_draws,
    }  # fmt: skip
    others = ("method", method), ("budget", budget), ("accuracy", accuracy)
    options |= {name: value for name, value in others if value is not None}
    run = runs.describe(model, data, options, x64)
    _finish(run, out, json, _worst(strict, require), debug, progress=progress, seconds=checkpoint_seconds)


@app.command()
def resume(
    folder: Folder,
    model: Model = None,
    checkpoint_seconds: Seconds = 60.0,
    progress: Progress = None,
    strict: Strict = False,
    require: Require = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Go on with a run that was interrupted or killed: the same bits as if it had not been. Exit codes as for `fit`.

    A fit by stochastic gradients, by EM or of a Boltzmann machine goes on from its checkpoint; any other is run again.

    The model is the file that the run was begun with: it is named before it is run, and must not have changed. A folder
    that came from elsewhere, a model that moved or was edited: give it with --model.
    """
    from . import runs

    with _guarded(debug):
        run = runs.read(folder)
        if model is None:
            typer.echo(runs.trusted(folder, run), err=True)
        else:
            run |= runs.model_named(model)
    freely = ("model",) if model is not None else ()
    _finish(
        run, folder, json, _worst(strict, require), debug, progress=progress, seconds=checkpoint_seconds, freely=freely
    )


@app.command()
def show(folder: Folder, json: Json = False, debug: Debug = False) -> None:
    """Print the verdict, what was tried, and the summary of a saved fit."""
    from . import runs
    from . import show as printing

    with _guarded(debug, quiet=json):
        fit = runs.load_for_show(folder)
        shown = printing.payload(fit, folder) if json else None
    if json:
        printing.print_json(shown)
    else:
        printing.print_fit(fit, folder)


@app.command()
def report(
    folder: Folder,
    model: Model = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: DIR/report.html.")] = None,
    debug: Debug = False,
) -> None:
    """Write one self-contained HTML file about a saved fit.

    No Python file is run, unless it is given with --model: then predictions are checked against the data too.
    """
    from . import runs

    with _guarded(debug):
        fit, why_not = runs.load_for_report(folder, model)
        if why_not:
            typer.echo(f"without the model's predictions:\n{why_not}", err=True)
        path = fit.report(folder / "report.html" if out is None else out)
    typer.echo(str(path))


@app.command("list")
def list_parts(
    axis: Annotated[str | None, typer.Argument(help="model, family, objective, gradient, plan or method.")] = None,
    validity: Annotated[
        bool, typer.Option("--validity", help="Which parts fit together, and why others do not.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the parts a fit can be made of."""
    from . import catalogue
    from . import show as printing

    if validity:
        from .. import cells

        printing.print_json(cells.validity_table()) if json else typer.echo(cells.markdown())
        return
    with _guarded(debug):
        found = catalogue.parts(axis)
    if json:
        printing.print_json(found)
        return
    for name, rows in found.items():
        typer.echo(f"\n{name}")
        columns = ["name", "what it is"] if name == "method" else ["name", "what it is", "facts"]
        cells = [[r["name"], r["about"], " ".join(r["facts"])][: len(columns)] for r in rows]
        printing.print_table(columns, cells)


app.command()(gradients)


def main() -> None:
    """Entry point of the command."""
    app()
