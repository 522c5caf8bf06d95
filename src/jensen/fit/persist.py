"""A fit in a folder, without pickle: `fit.json` (what it is) and `arrays.jensen` (its numbers, with a digest).

`fit.json` is written last, so a folder that has one is complete; each file is moved into place whole.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..diagnostics.marginals import Marginals
from ..diagnostics.verdict import Diagnosis
from ..errors import CheckpointError, OptionError, explain
from ..facts import Fact
from ..models.base import AbstractModel
from ..models.coerce import as_model
from ..models.coordinates import Coordinates, coordinates_of
from ..tree import split_trainable
from .checkpoint import pack, unpack, write_atomically
from .result import Attempt, Fit
from .rows import as_rows
from .structure import Reader, encode, foreign, leaves_by_path

FORMAT, ARRAYS = "jensen-fit-1", "jensen-fit-arrays-1"
META_FILE, ARRAYS_FILE = "fit.json", "arrays.jensen"
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
        "x64": fit.double or bool(jax.config.read("jax_enable_x64")),
        "corrected": fit.corrected,
        "verdict": str(fit.verdict),
        "options": _plain({**fit.options, "plated": bool(fit.plated), "local": local}),
        "diagnosis": _plain(fit.diagnosis.to_json()),
        "trail": _plain([dataclasses.asdict(a) for a in fit.trail]),
        **{name: _plain(getattr(fit, name)) for name in SCALARS},
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
    packed = pack(arrays, {"format": ARRAYS})
    meta["arrays"] = json.loads(packed.partition(b"\n")[0])["sha256"]
    meta["digest"] = _digest(meta)
    write_atomically(folder / ARRAYS_FILE, packed)
    write_atomically(folder / META_FILE, json.dumps(meta, indent=1, allow_nan=False).encode())
    return folder


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
    meta = read_meta(folder)
    if "whole" in meta:
        return _read_whole(folder, meta, {"model": model, "family": family, "data": data})
    double = bool(meta["x64"]) and not jax.config.read("jax_enable_x64")
    with jax.enable_x64(True) if double else contextlib.nullcontext():
        return _read(folder, meta, model, family, data, double)


def _read_whole(folder: Path, meta: dict[str, Any], given: dict[str, Any]) -> Any:
    names = [name for name, value in given.items() if value is not None]
    if names:
        asked, because = f"load({str(folder)!r}, {names[0]}=...)", "a machine, or a model fitted by EM, is saved whole"
        raise OptionError(explain(asked, "nothing is missing from this fit", because, f"load({str(folder)!r})"))
    with jax.enable_x64(True):  # arrays are of the type they were saved in
        return Reader(_arrays(folder, meta), str(folder / META_FILE), "fit").decode(meta["whole"], "fit")


def _arrays(folder: Path, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    header, arrays = unpack(folder / ARRAYS_FILE, ARRAYS)
    if header["sha256"] != meta["arrays"]:
        wrong, because = f"`{ARRAYS_FILE}` belongs to another save", "the numbers of two fits must not be mixed"
        raise _refuse(folder, wrong, because, "a copy in which both files are of one save, or a new run")
    return arrays


def _read(folder: Path, meta: dict[str, Any], model: Any, family: Any, data: Any, double: bool) -> Fit:
    arrays = _arrays(folder, meta)
    read = lambda label: Reader(arrays, str(folder / META_FILE), label)
    model, rows = _model(meta, read("model"), model, data)
    if rows is None and meta["index_rows"] is not None:
        rows = {"index": jnp.arange(meta["index_rows"])}
    numbers: dict[str, Any] = {name: _real(meta[name]) for name in SCALARS}
    numbers |= {name: read(name).get(name) for name in NUMBERS}
    given = {} if family is None else {"like": family}
    fit = Fit(
        family=read("family").decode(meta["family"], "family", **given),
        model=model,
        rows=rows,
        diagnosis=Diagnosis.from_json(_real(meta["diagnosis"])),
        draws=read("draws").decode(meta["draws"], "draws"),
        options=_real(meta["options"]),
        trail=[Attempt(**_real(a)) for a in meta["trail"]],
        corrected=meta.get("corrected", "none"),
        proposals=(read("p").get(PROPOSALS[0]), read("q").get(PROPOSALS[1])) if PROPOSALS[0] in arrays else None,
        double=double,
        marginals=_marginals(read("marginals")),
        **numbers,
    )
    known = meta["coordinates"]
    if "sites" in known:
        fit.coordinates = Coordinates.from_json(known)
    elif model is None:
        because = "draws cannot be shown in the model's own values"
        raise _refuse(folder, known["missing"], because, "load(folder, model=...)")
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
    except ValueError as error:
        wrong, because = f"`{META_FILE}` is truncated or is not JSON", "a damaged file must not be taken for a result"
        raise _refuse(folder, wrong, because, "an older copy, or a new run") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
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


def _plain(value: Any) -> Any:
    """As JSON: numbers that JSON lacks are tagged; what is not data is shown as text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        return _plain(value.tolist())
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$": "float", "value": repr(float(value))}
    return str(value)


def _real(value: Any) -> Any:
    """Inverse of `_plain`."""
    if isinstance(value, dict):
        return float(value["value"]) if value.get("$") == "float" else {k: _real(v) for k, v in value.items()}
    return [_real(v) for v in value] if isinstance(value, list) else value


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


def _model(meta: dict[str, Any], reader: Reader, given: Any, data: Any) -> tuple[AbstractModel | None, Any]:
    """(model, rows): the saved one, or the given one with the saved arrays."""
    if isinstance(data, (str, Path)):
        from ..data.load import load_table

        data = load_table(data)
    code = meta["model"]
    if given is not None:
        model, rows = as_model(given, data)
        trained, rest = split_trainable(model)
        model = eqx.combine(reader.fill(trained, "model"), rest)
        return model, as_rows(rows, divisible=Fact.MINIBATCH in model.facts)
    if code is not None and code["$"] != "code":
        return reader.decode(code, "model"), as_rows(data)
    if data is not None and not meta["options"]["plated"]:
        asked, because = "load(folder, data=...)", "they are arguments of the model, which is not in the folder"
        raise OptionError(
            explain(asked, "data are given without a model", because, "load(folder, model=..., data=...)")
        )
    return None, as_rows(data)
