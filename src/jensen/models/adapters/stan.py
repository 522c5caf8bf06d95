"""Stan programs, through BridgeStan."""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from ... import arrays
from ...errors import ModelError, explain
from ...facts import Fact
from ...tree import default_float
from .. import host
from ..base import AbstractModel

Tree = dict[str, Any]
_TRIES, _RADIUS = 100, 2.0  # of Stan itself
_LOCK = threading.Lock()  # Stan's tape of derivatives is one a process, and a callback may come from any thread


class StanModel(AbstractModel):
    """A Stan program and its data; made by `from_stan`.

    Definition: log p(z, x): Stan's `target` in unconstrained coordinates, Jacobian and normalising constants included.
                -inf, with gradient 0, where the program rejects (`reject`, a domain error).
    Latents:    Stan's unconstrained coordinates, one entry a parameter; a simplex of K has K - 1 of them.
    Cost:       one callback for all draws of a step; Stan's own gradient for each draw.
    """

    program: "Program" = eqx.field(static=True)
    digest: str = eqx.field(static=True)  # of the library and the data: tells a checkpoint of another model
    facts: ClassVar = frozenset({Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT})
    plated: ClassVar[bool] = False
    rows: ClassVar[None] = None  # its data are its own, and none can be given to `fit`

    def __init__(self, program: "Program"):
        self.program, self.digest = program, program.digest

    @property
    def latents(self) -> Tree:
        return self.program.unconstrained.spec()

    @property
    def site_kinds(self) -> dict[str, str]:
        return dict.fromkeys(self.program.unconstrained.places, "real")

    def log_density(self, z, x=None):
        program = self.program
        name = f"the density of {program!r}"
        return host.density(program.log_density, program.log_density_and_gradient, z, vectorized=True, name=name)

    def constrain(self, z: Tree) -> Tree:
        """The parameters, with the shapes of their declarations."""
        return self._call(self.program.constrain, self.program.parameters, z)

    def deterministics(self, z: Tree) -> Tree:
        """The transformed parameters."""
        return self._call(self.program.transform, self.program.transformed, z)

    def generate(self, key: Array, z: Tree) -> Tree:
        """One draw of the generated quantities."""
        seed = jr.bits(key, dtype=jnp.uint32)
        return self._call(self.program.generate, self.program.generated, {"z": z, "seed": seed})

    def unconstrain(self, x: Tree) -> tuple[Tree, Array]:
        """Inverse of `constrain`, and log |det dx/dz| there."""
        spec = (self.latents, jax.ShapeDtypeStruct((), default_float()))
        x = {name: jnp.asarray(x[name], default_float()) for name in self.program.parameters.places}
        return host.call(self.program.unconstrain, spec, x, vectorized=True)

    def _call(self, fn: Callable, entries: "Entries", z: Any) -> Tree:
        return host.call(fn, entries.spec(), z, vectorized=True) if entries.places else {}


class Entries:
    """Where each named array lies in one of Stan's vectors. Names are `x`, `x.2`, `x.2.1`: the first index runs fastest."""

    def __init__(self, names: list[str], first: int = 0):
        self.places: dict[str, np.ndarray] = {}
        found: dict[str, list[tuple[tuple[int, ...], int]]] = {}
        for at, name in enumerate(names[first:], first):
            match = re.fullmatch(r"(.*?)((?:\.\d+)*)", name)
            base, index = (match[1], match[2]) if match else (name, "")
            found.setdefault(base, []).append((tuple(int(i) - 1 for i in index.split(".")[1:]), at))
        for base, entries in found.items():
            place = np.full(np.max([i for i, _ in entries], axis=0).astype(int) + 1 if entries[0][0] else (), -1)
            for index, at in entries:
                place[index] = at
            self.places[base] = place

    def spec(self) -> Tree:
        return {n: jax.ShapeDtypeStruct(p.shape, default_float()) for n, p in self.places.items()}

    def split(self, flat: np.ndarray) -> Tree:
        """(n, size) to arrays (n, *shape)."""
        return {name: flat[:, place] for name, place in self.places.items()}

    def join(self, tree: Mapping) -> np.ndarray:
        """Inverse of `split`."""
        size = sum(p.size for p in self.places.values())
        out = np.empty((len(next(iter(tree.values()))), size))
        for name, place in self.places.items():
            out[:, place.ravel()] = tree[name].reshape(len(out), -1)
        return out


class Program:
    """A compiled program with its data: functions of many points, in NumPy. Equal if library, data and seed are."""

    def __init__(self, stan: Any):
        library = Path(stan.lib_path).read_bytes()
        self.stan, self.digest = stan, hashlib.sha256(library + f"{stan.seed} {stan.data}".encode()).hexdigest()
        names = stan.param_names()
        with_tp = stan.param_names(include_tp=True)
        every = stan.param_names(include_tp=True, include_gq=True)
        self.unconstrained = Entries(stan.param_unc_names() if stan.param_unc_num() else [])
        self.parameters = Entries(names if names != [""] else [])
        self.transformed, self.generated = Entries(with_tp, len(names)), Entries(every, len(with_tp))

    def log_density(self, z: Tree) -> np.ndarray:
        return np.array([self._at(self.stan.log_density, row, -np.inf) for row in self.unconstrained.join(z)])

    def log_density_and_gradient(self, z: Tree) -> tuple[np.ndarray, Tree]:
        rows = self.unconstrained.join(z)
        pairs = [self._at(self.stan.log_density_gradient, row, (-np.inf, np.zeros(len(row)))) for row in rows]
        values, gradients = zip(*pairs, strict=True)
        return np.array(values), self.unconstrained.split(np.array(gradients))

    def constrain(self, z: Tree) -> Tree:
        return self.parameters.split(self._constrained(z))

    def transform(self, z: Tree) -> Tree:
        return self.transformed.split(self._constrained(z, include_tp=True))

    def generate(self, z_and_seed: Tree) -> Tree:
        rows, seeds = self.unconstrained.join(z_and_seed["z"]), z_and_seed["seed"]
        with _LOCK:
            each = [self._generated(row, int(seed)) for row, seed in zip(rows, seeds, strict=True)]
        return self.generated.split(np.array(each))

    def _generated(self, row: np.ndarray, seed: int) -> np.ndarray:
        return self._all(row, include_tp=True, include_gq=True, rng=self.stan.new_rng(seed))

    def _constrained(self, z: Tree, **options: Any) -> np.ndarray:
        with _LOCK:
            return np.array([self._all(row, **options) for row in self.unconstrained.join(z)])

    def _all(self, row: np.ndarray, **options: Any) -> np.ndarray:
        """The constrained vector; nan where the program rejects."""
        try:
            return np.array(self.stan.param_constrain(row, **options))
        except RuntimeError:
            size = {"include_tp": False, "include_gq": False} | {k: v for k, v in options.items() if k != "rng"}
            return np.full(self.stan.param_num(**size), np.nan)

    def unconstrain(self, x: Tree) -> tuple[Tree, np.ndarray]:
        with _LOCK:
            rows = [self.stan.param_unconstrain(np.ascontiguousarray(row)) for row in self.parameters.join(x)]
        change = [self._at(self._log_jacobian, row, np.nan) for row in rows]
        return self.unconstrained.split(np.array(rows)), np.array(change)

    def _log_jacobian(self, row: np.ndarray, propto: bool, jacobian: bool) -> float:
        return self.stan.log_density(row, propto=propto) - self.stan.log_density(row, propto=propto, jacobian=False)

    def _at(self, fn: Callable, row: np.ndarray, rejected: Any) -> Any:
        with _LOCK:
            try:
                return fn(np.ascontiguousarray(row), propto=False, jacobian=True)
            except RuntimeError:
                return rejected

    def check(self) -> None:
        """Raises ModelError if there is nothing to infer, or the program fails at 0 and at random points."""
        size = self.stan.param_unc_num()
        if size == 0:
            raise _refuse("it has no parameters", "there is nothing to infer", "a parameters block")
        random = np.random.default_rng(0).uniform(-_RADIUS, _RADIUS, (_TRIES, size))
        error = None
        for row in np.concatenate([np.zeros((1, size)), random]):
            try:
                with _LOCK:
                    self.stan.log_density(row, propto=False, jacobian=True)
                return
            except RuntimeError as raised:
                error = raised
        because = f"{type(error).__name__}: {error}"
        raise _refuse(f"it fails at z = 0 and at {_TRIES} random points", because, "check the program") from error

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.digest == other.digest

    def __repr__(self) -> str:
        return f"Stan({self.stan.name()})"


def from_stan(
    program: str | os.PathLike,
    data: Mapping[str, Any] | str | os.PathLike | None = None,
    *,
    seed: int = 1234,
    folder: str | os.PathLike | None = None,
    stanc_args: tuple[str, ...] = (),
    make_args: tuple[str, ...] = (),
) -> StanModel:
    """A Stan program with its data as a model over Stan's unconstrained coordinates.

    Arguments:  program: path of a `.stan` file or of a library compiled by BridgeStan, or the code itself.
                data: dictionary, JSON string or path of a `.json`.   seed: of random numbers in `transformed data`.
                folder: where code is written and compiled (default: `jensen/stan` in the user's cache folder); a file
                is compiled next to itself.   stanc_args, make_args: for BridgeStan.
    Raises:     ModelError: BridgeStan is not installed; the program does not compile, does not take the data, has no
                parameters, or fails at every one of 101 points.
    Cost:       compiling, about half a minute, once a program.
    Reference:  Roualdes et al. (2023), BridgeStan.  [roualdes2023bridgestan]
    """
    bridgestan = _bridgestan()
    path = _path(program, folder)
    options = {"seed": seed, "stanc_args": list(stanc_args), "make_args": list(make_args), "warn": False}
    try:
        stan = bridgestan.StanModel(path, _json(data), **options)
    except (RuntimeError, ValueError, OSError) as error:
        because = f"{type(error).__name__}: {str(error)[-2000:]}"
        instead = "a program that compiles, and a value for every variable of its data block"
        raise _refuse("BridgeStan could not build it with these data", because, instead) from error
    made = Program(stan)
    made.check()
    return StanModel(made)


def _bridgestan() -> Any:
    try:
        import bridgestan  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        because, instead = "Stan programs are compiled and called through it", 'pip install "jensen[stan]"'
        raise _refuse("bridgestan is not installed", because, instead) from error
    return bridgestan


def _path(program: Any, folder: Any) -> str:
    """The file of a program; code is written to one named by its digest, so that it is compiled once."""
    if isinstance(program, os.PathLike) or str(program).endswith((".stan", ".so", ".dll", ".dylib")):
        if not Path(program).is_file():
            raise _refuse(f"there is no file `{os.fspath(program)}`", "it is read", "a path, or the code itself")
        return os.fspath(program)
    if not (isinstance(program, str) and "{" in program):
        wrong = f"the program is {program!r:.60}"
        raise _refuse(wrong, "it is neither a `.stan` file nor code with blocks", "a path, or the code itself")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jensen" / "stan"
    path = (
        Path(cache if folder is None else folder) / f"program_{hashlib.sha256(program.encode()).hexdigest()[:16]}.stan"
    )
    if not path.is_file() or path.read_text(encoding="utf-8") != program:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(program, encoding="utf-8")
    return os.fspath(path)


def _json(data: Any) -> Any:
    """What BridgeStan takes: arrays of any library as NumPy's."""
    if not isinstance(data, Mapping):
        return data if data is None or isinstance(data, str) else os.fspath(data)
    return {n: arrays.host(f"data[{n!r}]", v, finite=False) if arrays.is_table(v) else v for n, v in data.items()}


def _refuse(wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain("`from_stan`", wrong, because, instead))
