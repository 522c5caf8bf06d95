"""A fit in a folder, without pickle: `fit.json` (what it is) and `arrays.jensen` (its numbers, with a digest).

A save is one step, the replacement of `fit.json`: until then the arrays lie beside the old ones, in a file of this save's
own that `fit.json` names; after it they take the old ones' place. So whatever stops a save, power included, the folder
holds the old fit or the new one, whole. Reading runs no code of the file's choice: see `names`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..arrays import lifted
from ..diagnostics.marginals import Marginals
from ..diagnostics.verdict import Diagnosis
from ..errors import CheckpointError, JensenError, OptionError, explain, is_count
from ..facts import Fact
from ..families.base import AbstractDistribution, AbstractFamily
from ..jsonable import plain, real
from ..models.base import AbstractModel
from ..models.coerce import as_model
from ..models.coordinates import Coordinates, coordinates_of
from ..process import ready
from ..tree import is_record, split_trainable
from .attempt import Attempt
from .checkpoint import alone, pack, sweep, unpack, write_atomically
from .result import Fit
from .rows import as_rows
from .structure import Reader, encode, foreign, leaves_by_path

FORMAT, ARRAYS = "jensen-fit-2", "jensen-fit-arrays-1"
READ = FORMAT, "jensen-fit-1"  # the first named parts by the files they were in
META_FILE, ARRAYS_FILE = "fit.json", "arrays.jensen"
OWN_ARRAYS = re.compile(r"arrays-[0-9a-f]{16}\.jensen")  # of a save that is under way, or was stopped
CORRECTED = ("none", "importance", "chains")
PROPOSALS = ("proposals_log_p", "proposals_log_q")
MARGINALS = "marginals_"
NUMBERS = ("history", "log_p", "log_q")
SCALARS = ("why", "seconds", "step_size", "seed", "n_skipped")


def save(fit: Fit, folder: str | Path) -> Path:
    """Writes a fit to a folder.

    Kept:    the family, the verdict with its draws, the history and options; a model made of jensen and Equinox modules
             (a decoder). A NumPyro function or a log density is code: only its trained arrays and its coordinates.
    Returns: the folder.
    Raises:  CheckpointError if it cannot be written; the fit in memory is untouched.
    """
    folder, arrays = Path(folder), {}
    family = encode(fit.family, "family", arrays)
    local = Fact.LOCAL in fit.family.facts
    meta = {
        "format": FORMAT,
        "versions": _versions(),
        "x64": fit.double,
        "corrected": fit.corrected,
        "verdict": str(fit.verdict),
        "options": plain({**fit.options, "plated": bool(fit.plated), "local": local}),
        "diagnosis": plain(fit.diagnosis.to_json()),
        "trail": plain([dataclasses.asdict(a) for a in fit.trail]),
        **{name: plain(getattr(fit, name)) for name in SCALARS},
        "family": family,
        "draws": encode(fit.draws, "draws", arrays),
        "model": _encode_model(fit.model, arrays),
        "coordinates": _encode_coordinates(fit),
        "index_rows": _index_rows(fit.rows),
    }
    arrays |= {name: np.asarray(getattr(fit, name)) for name in NUMBERS}
    if fit.proposals is not None:
        arrays |= dict(zip(PROPOSALS, map(np.asarray, fit.proposals), strict=True))
    if fit.marginals is not None:
        arrays |= {MARGINALS + name: a for name, a in fit.marginals.arrays().items()}
    return _write(folder, meta, arrays)


def save_whole(fit: Any, folder: str | Path) -> Path:
    """Writes a fit that is all data: a Boltzmann machine or a model fitted by EM, with its verdict.

    Raises: CheckpointError if a part of it is not of jensen, or it cannot be written.
    """
    folder, arrays = Path(folder), {}
    code = encode(fit, "fit", arrays)
    unknown = foreign(code)
    if unknown:
        wrong, because = f"it has parts of other packages: {unknown}", "a file holds names and numbers, not Python code"
        raise CheckpointError(explain(f"saving a fit in `{folder}`", wrong, because, "pickle, or parts of jensen"))
    meta = {"format": FORMAT, "versions": _versions(), "x64": True, "verdict": str(fit.verdict), "whole": code}
    return _write(folder, meta, arrays)


def _write(folder: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    packed, own = pack(arrays, {"format": ARRAYS}), f"arrays-{secrets.token_hex(8)}.jensen"
    meta["arrays"] = json.loads(packed.partition(b"\n")[0])["sha256"]
    meta["arrays_file"] = own
    meta["digest"] = _digest(meta)
    text = json.dumps(meta, indent=1, allow_nan=False).encode()
    with contextlib.suppress(OSError):  # said by the first write
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder) as held:
        before = _named(folder)
        if held:
            _sweep(folder, before)
        try:
            write_atomically(folder / own, packed)
            write_atomically(folder / META_FILE, text)
        except BaseException:
            if _named(folder) != own:
                _remove(folder / own)
            raise
        if held:
            with contextlib.suppress(OSError):  # it is read under its own name too
                os.replace(folder / own, folder / ARRAYS_FILE)
        if before is not None and OWN_ARRAYS.fullmatch(before):
            _remove(folder / before)  # of a save that was stopped, or had no lock
    return folder


def _named(folder: Path) -> str | None:
    """The file of arrays that `fit.json` speaks of; None if there is none, or no telling."""
    try:
        return str(json.loads((folder / META_FILE).read_bytes()).get("arrays_file", ARRAYS_FILE))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _sweep(folder: Path, named: str | None) -> None:
    """Removes what stopped saves have left."""
    sweep(folder, META_FILE)
    sweep(folder, "arrays-*.jensen")
    if named is not None or not (folder / META_FILE).exists():
        for left in folder.glob("arrays-*.jensen"):
            if OWN_ARRAYS.fullmatch(left.name) and left.name != named:
                _remove(left)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


@ready()
def load(folder: str | Path, *, model: Any = None, family: Any = None, data: Any = None) -> Any:
    """Reads a fit written by `save`, of whatever kind it was; sampling from it gives the same bits as before.

    Arguments:  model: for a model that is code (NumPyro, `LogDensity`), to predict or refit: as it was given to `fit`.
                Left out, the fit has no model, and still samples, summarises, and has densities and a report.
                family: only for one with parts that jensen does not have (an encoder of your own): an object of the
                same structure, whose arrays are filled in.
                data: as for `fit`: the rows that draws of their latents are for; of a NumPyro function its arguments.
                A fit made in double precision stays in it, whatever the global setting.
    Raises:     CheckpointError for a folder that is not a saved fit, is damaged, or needs `model` or `family`.
    """
    folder = Path(folder)
    meta, arrays = _opened(folder)
    if "whole" in meta:
        return _read_whole(folder, meta, arrays, {"model": model, "family": family, "data": data})
    double = bool(meta.get("x64"))
    with jax.enable_x64(double):
        return _read(folder, meta, arrays, model, family, data, double)


def _opened(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(`fit.json`, its arrays): of one save, also while others are made."""
    meta, failures = read_meta(folder), 0
    while True:
        try:
            return meta, _arrays(folder, meta)
        except CheckpointError:
            again = read_meta(folder)
            failures = failures + 1 if again["digest"] == meta["digest"] else 0
            if failures > 1:  # once, the file may have taken its place in between
                raise
            meta = again


@contextlib.contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """What a file says may be anything: a part that is not what it should be is a refusal."""
    try:
        yield
    except JensenError:
        raise
    except Exception as error:
        wrong = f"its parts do not make a fit: {type(error).__name__}: {error}"
        because = "it was written by another version, or by hand"
        raise _refuse(folder, wrong, because, "the versions named in fit.json, or a new run") from error


def _must(folder: Path, holds: bool, what: str) -> None:
    if not holds:
        because = "it was written by another version, or by hand"
        raise _refuse(folder, f"its {what}", because, "the versions named in fit.json, or a new run")


def _read_whole(folder: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray], given: dict[str, Any]) -> Any:
    names = [name for name, value in given.items() if value is not None]
    if names:
        asked, because = f"load({str(folder)!r}, {names[0]}=...)", "a machine, or a model fitted by EM, is saved whole"
        raise OptionError(explain(asked, "nothing is missing from this fit", because, f"load({str(folder)!r})"))
    with jax.enable_x64(True), _fitting(folder):  # arrays are of the type they were saved in
        fit = Reader(arrays, str(folder / META_FILE), "fit").decode(meta["whole"], "fit")
        _must(folder, is_record(type(fit)) and callable(getattr(fit, "save", None)), "contents are no fit")
        return fit


def _arrays(folder: Path, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    own = meta.get("arrays_file")
    waiting = isinstance(own, str) and OWN_ARRAYS.fullmatch(own) and (folder / own).exists()
    header, arrays = unpack(folder / own if waiting else folder / ARRAYS_FILE, ARRAYS)
    if header["sha256"] != meta.get("arrays"):
        wrong, because = f"`{ARRAYS_FILE}` belongs to another save", "the numbers of two fits must not be mixed"
        raise _refuse(folder, wrong, because, "a copy in which both files are of one save, or a new run")
    return arrays


def _read(
    folder: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray], model: Any, family: Any, data: Any, double: bool
) -> Fit:
    read = lambda label: Reader(arrays, str(folder / META_FILE), label)
    with _fitting(folder):
        saved, known = _saved_model(meta, read("model"), model), meta["coordinates"]
        plated, n_index = bool(meta["options"]["plated"]), meta["index_rows"]
        _must(folder, n_index is None or is_count(n_index), f"number of rows is {n_index!r}")
        numbers: dict[str, Any] = {name: real(meta[name]) for name in SCALARS}
        numbers |= {name: read(name).get(name) for name in NUMBERS}
        decoded = read("family").decode(meta["family"], "family", **({} if family is None else {"like": family}))
        _must(
            folder,
            isinstance(decoded, (AbstractFamily, AbstractDistribution)),
            f"family is of the type `{type(decoded).__name__}`",
        )
        fit = Fit(
            family=decoded,
            model=saved,
            rows=None if n_index is None else {"index": jnp.arange(n_index)},
            diagnosis=Diagnosis.from_json(real(meta["diagnosis"])),
            draws=read("draws").decode(meta["draws"], "draws"),
            options=real(meta["options"]),
            trail=[Attempt(**real(a)) for a in meta["trail"]],
            corrected=meta.get("corrected", "none"),
            proposals=(read("p").get(PROPOSALS[0]), read("q").get(PROPOSALS[1])) if PROPOSALS[0] in arrays else None,
            double=double,
            marginals=_marginals(read("marginals")),
            **numbers,
        )
        _must(folder, fit.corrected in CORRECTED, f"draws are {fit.corrected!r}")
        _must(folder, all(map(eqx.is_array_like, jax.tree.leaves(fit.draws))), "draws are no arrays")
        if "sites" in known:
            fit.coordinates = Coordinates.from_json(known)
        elif model is None:
            because = "draws cannot be shown in the model's own values"
            raise _refuse(folder, str(known["missing"]), because, "load(folder, model=...)")
    given, rows = _given(saved, plated, read("model"), model, data)
    fit.model, fit.rows = given, fit.rows if rows is None else rows
    return fit


def _marginals(reader: Reader) -> Marginals | None:
    if MARGINALS + "mean" not in reader.arrays:
        return None
    return Marginals.of_arrays({name: reader.get(MARGINALS + name) for name in Marginals.numbers()})


# ---- fit.json ---------------------------------------------------------------------------------------------------
def read_meta(folder: Path) -> dict[str, Any]:
    """The contents of `fit.json`, checked. Raises: CheckpointError."""
    path = folder / META_FILE
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        wrong = "there is no such folder" if not folder.is_dir() else f"it has no `{META_FILE}`"
        because = "that file is written last: without it nothing was saved there"
        raise _refuse(folder, wrong, because, "the folder given to `save`, or to `jensen fit --out`") from error
    except OSError as error:
        raise _refuse(folder, f"`{META_FILE}`: {error.strerror or error}", "it cannot be read", "check it") from error
    except (ValueError, RecursionError) as error:
        wrong, because = f"`{META_FILE}` is truncated or is not JSON", "a damaged file must not be taken for a result"
        raise _refuse(folder, wrong, because, "an older copy, or a new run") from error
    if not isinstance(meta, dict) or meta.get("format") not in READ:
        have = meta.get("format") if isinstance(meta, dict) else None
        wrong = f"`{META_FILE}` has format {have!r}, not {FORMAT!r}"
        instead = "a folder written by Fit.save; or the version of jensen that wrote it"
        raise _refuse(folder, wrong, "its parts would be misread", instead)
    if meta.get("digest") != _digest(meta):
        wrong, because = f"`{META_FILE}` does not match its digest", "an altered file must not be taken for a result"
        raise _refuse(folder, wrong, because, "an older copy, or a new run")
    return meta


def _digest(meta: dict[str, Any]) -> str:
    rest = {k: v for k, v in meta.items() if k != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _refuse(folder: Path, wrong: str, because: str, instead: str) -> CheckpointError:
    return CheckpointError(explain(f"loading `{folder}`", wrong, because, instead))


def _versions() -> dict[str, str]:
    found = {}
    for name in ("jensen", "jax", "equinox"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


# ---- the model --------------------------------------------------------------------------------------------------
def _encode_model(model: AbstractModel | None, arrays: dict[str, np.ndarray]) -> Any:
    """The model if it is made of modules; of one that is code the trained arrays only, never its data."""
    if model is None:
        return None
    own: dict[str, np.ndarray] = {}
    code = encode(model, "model", own)
    unknown = foreign(code)
    if unknown:
        trained = leaves_by_path(split_trainable(model)[0], "model")
        own = {at: own[at] for at in trained if at in own}
        code = {"$": "code", "of": unknown}
    arrays |= own
    return code


def _encode_coordinates(fit: Fit) -> Any:
    try:
        return (fit.coordinates if fit.model is None else coordinates_of(fit.model)).to_json()
    except CheckpointError as error:
        return {"missing": str(error)}


def _index_rows(rows: PyTree) -> int | None:
    """How many rows, where all there is to know of them is their number."""
    return len(rows["index"]) if isinstance(rows, dict) and set(rows) == {"index"} else None


def _saved_model(meta: dict[str, Any], reader: Reader, given: Any) -> AbstractModel | None:
    """The model that is in the folder; None if one is given, if there was none, or if it is code."""
    code = meta["model"]
    if given is not None or code is None or code["$"] == "code":
        return None
    model = reader.decode(code, "model")
    if not isinstance(model, AbstractModel):
        because = "it was written by another version, or by hand"
        raise reader.refuse(f"it is of the type `{type(model).__name__}`", because, "the versions named in fit.json")
    return model


def _given(saved: AbstractModel | None, plated: bool, reader: Reader, given: Any, data: Any) -> tuple[Any, Any]:
    """(model, rows): the saved one, or the given one with the saved arrays."""
    if isinstance(data, (str, Path)):
        from ..data.load import load_table

        data = load_table(data)
    if given is not None:
        model, rows = as_model(given, data)
        model = model.lifted()
        trained, rest = split_trainable(model)
        model = eqx.combine(reader.fill(trained, "model"), rest)
        return model, lifted(as_rows(rows, divisible=Fact.MINIBATCH in model.facts))
    if saved is None and data is not None and not plated:
        asked, because = "load(folder, data=...)", "they are arguments of the model, which is not in the folder"
        raise OptionError(
            explain(asked, "data are given without a model", because, "load(folder, model=..., data=...)")
        )
    return saved, lifted(as_rows(data))
