"""A run in a folder: `run.json` (the call), `checkpoint/` (to go on from), and the saved fit."""

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, OptionError, explain

if TYPE_CHECKING:
    from ..fit.result import Fit

FORMAT, FILE = "jensen-run-1", "run.json"


def describe(model: str, data: Path | None, options: dict[str, Any], x64: bool) -> dict[str, Any]:
    """The call, as JSON: enough to make it again from any folder."""
    import jax

    from .target import split

    path, name = split(model)
    where = f"{path.resolve()}" + (f":{name}" if name else "")
    return {
        "format": FORMAT,
        "model": where,
        "data": None if data is None else str(data.resolve()),
        "x64": x64 or bool(jax.config.read("jax_enable_x64")),
        "options": options,
    }


def claim(out: Path, run: dict[str, Any]) -> None:
    """Writes `run.json`; refuses a folder that holds another run or a fit."""
    from ..fit.checkpoint import write_atomically

    asked = f"--out {out}"
    if (out / FILE).exists():
        if read(out) != run:
            instead = f"jensen resume {out} to go on with it; or another folder"
            raise OptionError(explain(asked, "the folder holds another run", "it would be overwritten", instead))
    elif (out / "fit.json").exists():
        raise OptionError(
            explain(asked, "the folder holds a saved fit", "it would be overwritten", "another folder for this run")
        )
    write_atomically(out / FILE, json.dumps(run, indent=1).encode())


def read(folder: Path) -> dict[str, Any]:
    """`run.json`. Raises: CheckpointError."""

    def refuse(wrong: str) -> CheckpointError:
        because, instead = "it says what was being fitted", "a folder written by `jensen fit --out`"
        return CheckpointError(explain(f"the run in `{folder}`", wrong, because, instead))

    try:
        run = json.loads((folder / FILE).read_bytes())
    except OSError as error:
        raise refuse(f"`{FILE}`: {error.strerror or error}") from error
    except ValueError as error:
        raise refuse(f"`{FILE}` is damaged") from error
    if not isinstance(run, dict) or run.get("format") != FORMAT or not isinstance(run.get("options"), dict):
        raise refuse(f"`{FILE}` has another format")
    return run


def execute(run: dict[str, Any], out: Path | None, *, progress: bool | None, seconds: float) -> "Fit":
    """Fits what `run` describes, from its checkpoint if there is one, and saves. Only iterated fits write checkpoints."""
    import jax

    jax.config.update("jax_enable_x64", bool(run["x64"]))
    import jensen as jn

    from .choices import method, optimizer, part
    from .feed import data_for
    from .target import load_target

    options = dict(run["options"])
    parts = {axis: part(axis, options.pop(axis)) for axis in ("family", "objective", "gradient", "plan")}
    made = optimizer(options.pop("optimizer"))
    if options.get("method") is not None:
        options["method"] = method(options["method"])
    target = load_target(run["model"])
    data = data_for(target, None if run["data"] is None else Path(run["data"]))
    if out is not None:
        claim(out, run)
    given = {**parts, **options, "optimizer": made}
    keep = out is not None and _by_steps(target.model, data, given)
    with _stoppable():
        fit = jn.fit(
            target.model, data, **given, progress=progress,
            checkpoint=out / "checkpoint" if keep and out is not None else None, checkpoint_seconds=seconds,
        )  # fmt: skip
    return fit


def _by_steps(model: Any, data: Any, given: dict[str, Any]) -> bool:
    """Will `fit` take stochastic gradients, or EM, or train a machine? To ask for a checkpoint would make others take them."""
    from ..facts import Fact
    from ..fit.auto import BY_STEPS, check_method, obstacle
    from ..fit.dispatch import OWN
    from ..fit.minibatch import MappedArray
    from ..fit.rows import as_rows
    from ..models.coerce import as_model

    if isinstance(model, OWN):
        return True
    if given.get("method") is not None:
        return check_method(given["method"]) in BY_STEPS
    defaults = {"seed": given.get("seed"), "n_draws": given.get("n_draws"), "budget": given.get("budget")}
    defaults |= {"n_restarts": 1, "donate": False}
    if any(v is not None and v != defaults.get(k) for k, v in given.items()):
        return True
    model, rows = as_model(model, data)
    rows = as_rows(rows, divisible=Fact.MINIBATCH in model.facts)
    batched = isinstance(rows, MappedArray) or getattr(model, "batch_size", None) is not None
    return obstacle(model, rows, 1 if batched else None) is not None


def load_for_show(folder: Path) -> Any:
    """The saved fit, of whatever kind; it keeps the precision it was made in."""
    from ..fit.persist import load

    return load(folder)


def load_for_report(folder: Path) -> tuple["Fit", str]:
    """(the saved fit with its model and data where `run.json` still leads to them, why not)."""
    from ..errors import JensenError
    from ..fit.persist import load
    from .feed import data_for
    from .show import variational
    from .target import load_target

    fit = load_for_show(folder)
    if not variational(fit):
        asked, wrong = f"the report of `{folder}`", f"it is a `{type(fit).__name__}`"
        because = "a report is of a posterior, its q and its draws"
        raise OptionError(explain(asked, wrong, because, f"jensen show {folder}"))
    if not (folder / FILE).exists():
        return fit, ""
    try:
        run = read(folder)
        target = load_target(run["model"])
        data = data_for(target, None if run["data"] is None else Path(run["data"]))
        saved = fit.model is not None
        return load(folder, model=None if saved else target.model, data=data), ""
    except JensenError as error:
        return fit, str(error)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends a fit as Ctrl-C does: the chunk is finished, the checkpoint written, the result kept."""
    try:
        old = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
