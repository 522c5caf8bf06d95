"""posteriordb: posteriors with data, Stan programs and reference draws, from a copy on disk."""

import dataclasses
import difflib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, explain


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """One posterior of the database.

    name:       `data-model`, as in the database.   data: of the Stan program's data block; lists as arrays.
    draws:      parameter -> reference draws in the model's own (constrained) coordinates, (n_draws, *shape), chains one
                after another; empty where the database has none.   n_chains: of these draws.
    stan_code:  the program.   dimensions: parameter -> how many numbers it is.
    """

    name: str
    data: dict[str, Any]
    draws: dict[str, np.ndarray]
    n_chains: int
    stan_code: str
    dimensions: dict[str, int]


def load_posteriordb(name: str, path: str | Path) -> Posterior:
    """A posterior from a checkout of posteriordb, or from a folder with `posteriors.json`, `data`, `draws` and `stan`.

    Arguments:  name: `eight_schools-eight_schools_noncentered`, say.   path: the checkout, its `posterior_database`, or
                the folder.
    Raises:     DataError for a name that is not there (the nearest ones are named), a missing or a damaged file.
    Reference:  Magnusson et al. (2025), posteriordb.  [magnusson2025posteriordb]
    """
    root = Path(path)
    if (root / "posteriors.json").is_file():
        return _flat(name, root)
    if (root / "posterior_database").is_dir():
        root = root / "posterior_database"
    if not (root / "posteriors").is_dir():
        wrong = "it has neither `posteriors.json` nor `posterior_database/posteriors`"
        raise _refuse(f"`{path}`", wrong, "posteriors are looked up there", "the path of a checkout of posteriordb")
    return _checkout(name, root)


def _flat(name: str, root: Path) -> Posterior:
    entries = {e["name"]: e for e in _json(root, "posteriors.json")}
    entry = entries[_known(name, list(entries))]
    draws, n_chains = {}, 0
    if entry.get("draws_file"):
        with _reading(file := _inside(root, entry["draws_file"])), np.load(file, allow_pickle=False) as archive:
            chains = {n: archive[n] for n in archive.files}
        n_chains = len(next(iter(chains.values())))
        draws = {n: a.reshape(-1, *a.shape[2:]) for n, a in chains.items()}
    data, code = _data(_json(root, entry["data_file"])), _text(root, entry["stan_file"])
    return Posterior(name, data, draws, n_chains, code, dict(entry["dimensions"]))


def _checkout(name: str, root: Path) -> Posterior:
    _known(name, [p.stem for p in sorted((root / "posteriors").glob("*.json"))])
    entry = _json(root, f"posteriors/{name}.json")
    data, model = (str(entry[f"{kind}_name"]) for kind in ("data", "model"))
    about = _json(root, f"models/info/{model}.info.json")
    code = _text(root, _program(about, root))
    draws, n_chains, reference = {}, 0, entry.get("reference_posterior_name")
    if reference:
        chains = _json(root, f"reference_posteriors/draws/draws/{reference}.json")
        draws, n_chains = _stacked(chains), len(chains)
    file = _json(root, f"data/info/{data}.info.json")["data_file"]
    return Posterior(name, _data(_json(root, file)), draws, n_chains, code, dict(entry["dimensions"]))


def _program(about: dict[str, Any], root: Path) -> str:
    """The Stan file of a model; the key was another one in early versions."""
    file = about.get("model_implementations", {}).get("stan", {}).get("model_code")
    file = about.get("model_code", {}).get("stan") if file is None else file
    if file is None:
        because, instead = "it is implemented in other languages only", "another posterior"
        raise _refuse(f"model `{about.get('name')}` in `{root}`", "it has no Stan program", because, instead)
    return file


def _stacked(chains: list[dict[str, list]]) -> dict[str, np.ndarray]:
    """`{"theta[1]": ..., "theta[2]": ...}` of each chain to `{"theta": (n_draws, 2)}`."""
    columns: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for key in chains[0]:
        base, index = (re.match(r"([^\[]+)(?:\[(.*)\])?$", key) or _damaged(key)).groups()
        place = tuple(int(i) - 1 for i in index.split(",")) if index else ()
        columns.setdefault(base, {})[place] = np.concatenate([np.asarray(c[key], float) for c in chains])
    out = {}
    for base, parts in columns.items():
        shape = tuple(np.max(list(parts), axis=0) + 1) if () not in parts else ()
        out[base] = np.full((len(next(iter(parts.values()))), *shape), np.nan)
        for place, values in parts.items():
            out[base][(slice(None), *place)] = values
    return out


def _data(raw: dict[str, Any]) -> dict[str, Any]:
    return {n: np.asarray(v) if isinstance(v, list) else v for n, v in raw.items()}


def _known(name: str, names: list[str]) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, 3, 0.4) or names[:3]
        because = f"there are {len(names)} posteriors"
        raise _refuse(f"posterior `{name}`", "there is none of that name", because, f"{', '.join(near)}, say")
    return name


def _inside(root: Path, file: str) -> Path:
    """A file of the database; a name in it does not lead outside."""
    path = root / file
    if not path.resolve().is_relative_to(root.resolve()):
        because, instead = "an entry names a file of the database", "an unchanged copy of the database"
        raise _refuse(f"`{file}`", f"it is outside of `{root}`", because, instead)
    return path


def _json(root: Path, file: str) -> Any:
    """The contents of a JSON file, which may be zipped (`x.json.zip`)."""
    path = _inside(root, file)
    packed = path.with_name(path.name + ".zip")
    with _reading(path):
        if path.is_file() or not packed.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        with zipfile.ZipFile(packed) as archive:
            return json.loads(archive.read(archive.namelist()[0]))


def _text(root: Path, file: str) -> str:
    path = _inside(root, file)
    with _reading(path):
        return path.read_text(encoding="utf-8")


class _reading:
    """Any failure of a reader, as a DataError."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile)):
            wrong = f"it cannot be read: {type(error).__name__}: {error}"
            raise _refuse(f"`{self.path}`", wrong, "the copy is incomplete or damaged", "a fresh copy") from error


def _damaged(key: str) -> Any:
    raise _refuse(f"reference draws of `{key}`", "it is not a name with indices", "columns are named", "a fresh copy")


def _refuse(asked: str, wrong: str, because: str, instead: str) -> DataError:
    return DataError(explain(f"reading {asked}", wrong, because, instead))
