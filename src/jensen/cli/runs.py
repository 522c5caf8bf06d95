"""A run in a folder: `run.json` (the call), `checkpoint/` (to go on from), and the saved fit.

A folder may come from somebody else, so what `run.json` says is checked, and the Python file that it names is run only if
it is the one that the run was begun with, by its place and its contents, and lies outside of the folder.
"""

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, OptionError, explain

if TYPE_CHECKING:
    from ..fit.result import Fit

FORMAT, FILE = "jensen-run-1", "run.json"
OPTIONS = {
    "family": str, "objective": str, "gradient": str, "plan": str, "optimizer": str, "method": str, "budget": str,
    "accuracy": float,
    "n_samples": int, "n_steps": int, "batch_size": int, "n_restarts": int, "seed": int, "n_draws": int,
    "early_stop": bool, "average": bool, "donate": bool,
}  # fmt: skip
AXES = ("family", "objective", "gradient", "plan")


def model_named(model: str) -> dict[str, str]:
    """MODEL.py:NAME as a run keeps it: where it is, and what it is."""
    from .target import split

    path, name = split(model)
    return {"model": f"{path.resolve()}" + (f":{name}" if name else ""), "model_sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    """Of a file; "" if it cannot be read, which is said when it is run."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def describe(model: str, data: Path | None, options: dict[str, Any], x64: bool) -> dict[str, Any]:
    """The call, as JSON: enough to make it again from any folder."""
    import jax

    return {
        "format": FORMAT,
        **model_named(model),
        "data": None if data is None else str(data.resolve()),
        "x64": x64 or bool(jax.config.read("jax_enable_x64")),
        "options": options,
    }


def claim(out: Path, run: dict[str, Any], freely: tuple[str, ...] = ("model_sha256",)) -> None:
    """Writes `run.json`; refuses a folder that holds another run or a fit. `freely`: what may have changed (whether a
    model does the same, its checkpoint knows)."""
    from ..fit.checkpoint import write_atomically

    asked = f"--out {out}"
    call = lambda run: {name: value for name, value in run.items() if name not in freely}
    if (out / FILE).exists():
        if call(read(out)) != call(run):
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
    for name, value in run["options"].items():
        kind = OPTIONS.get(name)
        if kind is None or not (value is None or type(value) is kind):
            raise refuse(f"`{FILE}` has the option {name} = {value!r}")
    if not isinstance(run.get("model"), str) or not (run.get("data") is None or isinstance(run["data"], str)):
        raise refuse(f"`{FILE}` names no model, or data that are no file")
    return run


def trusted(folder: Path, run: dict[str, Any]) -> str:
    """What will be run of a folder's model, in words, before it is. Raises: CheckpointError for a Python file that is
    not the one the run was begun with."""
    from .choices import of_module
    from .target import split

    path, _ = split(run["model"])

    def refuse(wrong: str) -> CheckpointError:
        asked, because = f"running `{path}`, which `{folder / FILE}` names", "a model is code, and the folder chose it"
        return CheckpointError(explain(asked, wrong, because, f"jensen resume {folder} --model MODEL.py:NAME"))

    if not path.is_absolute() or path.resolve().is_relative_to(folder.resolve()):
        raise refuse("it is a part of the folder, not the user's own file")
    if not path.is_file():
        raise refuse("there is no such file")
    if run.get("model_sha256") != _sha256(path):
        raise refuse("it is not the file that the run was begun with, or has changed since")
    if of_module(run["options"].get("method")):
        asked, because = f"the method {run['options']['method']}", "it is code, and the folder chose it"
        instead = f"the class in {path}, by its name alone; or `jensen fit` into another folder"
        raise CheckpointError(explain(asked, "it is not in the model's file", because, instead))
    return f"running {path}, the model that {folder / FILE} names"


def execute(
    run: dict[str, Any], out: Path | None, *, progress: bool | None, seconds: float, freely: tuple[str, ...] = ()
) -> "Fit":
    """Fits what `run` describes, from its checkpoint if there is one, and saves. Only iterated fits write checkpoints."""
    import jax

    jax.config.update("jax_enable_x64", bool(run.get("x64")))
    import jensen as jn

    from .choices import method, optimizer, part
    from .feed import data_for
    from .target import classes_in, load_target

    options, target = dict(run["options"]), load_target(run["model"])
    own = classes_in(run["model"])
    parts = {axis: part(axis, options.pop(axis, None), own) for axis in AXES}
    made = optimizer(options.pop("optimizer", None))
    if options.get("method") is not None:
        options["method"] = method(options["method"], own)
    data = data_for(target, _data(run))
    if out is not None:
        claim(out, run, ("model_sha256", *freely))
    given = {**parts, **options, "optimizer": made}
    keep = out is not None and _by_steps(target.model, data, given)
    with _stoppable():
        fit = jn.fit(
            target.model, data, **given, progress=progress,
            checkpoint=out / "checkpoint" if keep and out is not None else None, checkpoint_seconds=seconds,
        )  # fmt: skip
    return fit


def _by_steps(model: Any, data: Any, given: dict[str, Any]) -> bool:
    """Will `fit` take a method that goes step by step? To ask for a checkpoint would make others refuse."""
    from ..algorithms.budget import Budget
    from ..fit.choose import choose
    from ..methods.task import Task

    shared = ("method", "seed", "budget")
    usual = {"n_restarts": 1, "donate": False}
    options = {n: v for n, v in given.items() if n not in shared and v is not None and v != usual.get(n)}
    task = Task(model, data, given.get("seed", 0), Budget(), False, options, again=lambda *_: None)
    return choose(task, given.get("method")).by_steps


def load_for_show(folder: Path) -> Any:
    """The saved fit, of whatever kind; it keeps the precision it was made in."""
    from ..fit.persist import load

    return load(folder)


def load_for_report(folder: Path, model: str | None) -> tuple["Fit", str]:
    """(the saved fit with its data and, if it is code, its model; why without them). No Python file is run but `model`,
    which the user has named."""
    from ..errors import JensenError
    from ..fit.persist import load
    from .feed import data_for
    from .show import variational
    from .target import Target, load_target

    fit = load_for_show(folder)
    if not variational(fit):
        asked, wrong = f"the report of `{folder}`", f"it is a `{type(fit).__name__}`"
        because = "a report is of a posterior, its q and its draws"
        raise OptionError(explain(asked, wrong, because, f"jensen show {folder}"))
    run = read(folder) if (folder / FILE).exists() else {}
    if model is not None:
        target = load_target(model)
        return load(folder, model=target.model, data=data_for(target, _data(run))), ""
    if fit.model is None:
        wanted = f"jensen report {folder} --model MODEL.py:NAME"
        return fit, f"the model is code, and is not in the folder; {wanted} checks predictions too"
    try:
        data = data_for(Target(fit.model, None, False), _data(run))
        return (fit if data is None else load(folder, data=data)), ""
    except JensenError as error:
        return fit, str(error)


def _data(run: dict[str, Any]) -> Path | None:
    return None if run.get("data") is None else Path(run["data"])


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
