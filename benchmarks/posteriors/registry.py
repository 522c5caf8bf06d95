"""All posteriors under one roof: posteriordb, the hard classics, and simulated ones, some of them held out."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import numpy as np

import jensen as jn
from benchmarks.posteriors import hard, models, simulated
from benchmarks.posteriors.densities import DENSITIES, Density
from benchmarks.posteriors.moments import REFERENCES, Moments, coordinate_names, flat, located
from jensen.models.base import AbstractModel

GROUPS = ("posteriordb", "classic", "simulated")
ENTRIES = {**hard.ENTRIES, **simulated.ENTRIES}


@dataclass(frozen=True)
class Problem:
    """A posterior to be found.

    model: a NumPyro function, to be called with `args` and `kwargs`, or a jensen model.   reference: gives `Moments`.
    group: one of `GROUPS`.   held_out: True where nothing may be tuned on it; None where everybody does.
    entry: of a NumPyro model that is not from posteriordb.   exact: the density, where it is known.
    """

    name: str
    model: Callable | AbstractModel
    args: tuple
    kwargs: dict
    reference: Callable[[], Moments]
    group: str
    held_out: bool | None = None
    entry: hard.Entry | None = field(default=None, repr=False)
    exact: Density | None = field(default=None, repr=False)

    def jensen(self) -> AbstractModel:
        """The jensen model, in the precision that is now in force."""
        if isinstance(self.model, AbstractModel):
            return self.model
        return jn.from_numpyro(self.model, *self.args, **self.kwargs)

    def log_density(self) -> Callable:
        """The log density of one latent as a function of `z`, in nats, the data being constants of it."""
        model = self.jensen()
        return lambda z: model.log_density(z, None)


def names(group: str | None = None, held_out: bool | None = None, root: str | Path | None = None) -> list[str]:
    """The names that `load` takes: of one group; held out or not; those whose data are at hand, if a root is given."""
    found: dict[str, tuple] = dict.fromkeys(models.names(), ("posteriordb", None, True))
    found |= {n: (_group(DENSITIES[n]().held_out), DENSITIES[n]().held_out, False) for n in DENSITIES}
    found |= {n: (_group(e.held_out), e.held_out, e.needs_data) for n, e in ENTRIES.items()}
    usable = lambda needs: root is None or not needs or data_folder(root) is not None
    return [
        name
        for name, (its_group, its_held_out, needs) in found.items()
        if group in (None, its_group) and (held_out is None or bool(its_held_out) == held_out) and usable(needs)
    ]


def _group(held_out: bool | None) -> str:
    return "classic" if held_out is None else "simulated"


def data_folder(root: str | Path | None) -> Path | None:
    """The folder of data sets: `root`, or the one above it if `root` is its `posteriordb`; None if there is none."""
    root = Path(root or os.environ.get("JENSEN_DATA") or "nowhere")
    return next((r for r in (root, root.parent) if (r / "posteriordb").is_dir()), None)


def load(name: str, root: str | Path | None = None) -> Problem:
    """The posterior `name`. `root`: the folder of data sets (default: JENSEN_DATA), which some need.

    Raises: ValueError for an unknown name, FileNotFoundError where data or reference are missing.
    """
    folder = data_folder(root)
    if name in models.names():
        _need(name, folder)
        p = models.load(name, folder / "posteriordb")
        make = partial(jn.from_numpyro, p.model, *p.args, **p.kwargs)
        return Problem(name, p.model, p.args, p.kwargs, partial(_from_draws, make, p.reference), "posteriordb")
    if name in DENSITIES:
        density = DENSITIES[name]()
        model, held_out = density.model(), density.held_out
        reference = partial(_exact, density, lambda: model)
        return Problem(name, model, (), {}, reference, _group(held_out), held_out, exact=density)
    if name not in ENTRIES:
        raise ValueError(f"unknown posterior {name!r}; known are {', '.join(names())}")
    entry = ENTRIES[name]
    if entry.needs_data:
        _need(name, folder)
    args = entry.data(folder)
    density = DENSITIES[entry.exact]() if entry.exact else None
    exact = density and partial(_exact, density, partial(jn.from_numpyro, entry.model, *args))
    reference = exact or partial(_stored, name, args)
    return Problem(name, entry.model, args, {}, reference, _group(entry.held_out), entry.held_out, entry, density)


def _need(name: str, folder: Path | None) -> None:
    if folder is None:
        raise FileNotFoundError(f"{name} needs the folder of data sets: give `root`, or set JENSEN_DATA")


def _exact(density: Density, make: Callable) -> Moments:
    return Moments(coordinate_names(make().latents), density.center, density.spread, density.measure)


def _from_draws(make: Callable, reference: Callable) -> Moments:
    """Moments of posteriordb's draws, in float64."""
    with jax.enable_x64(True):
        model, draws = make(), reference()
        order = {site: draws[site] for site in model.latents}
        unconstrained = flat(jax.device_get(jax.jit(jax.vmap(lambda x: model.unconstrain(x)[0]))(order)))
        return Moments(coordinate_names(model.latents), *located(unconstrained), made={"draws": len(unconstrained)})


def checksums(args: tuple) -> list[list[float]]:
    """Sum and sum of squares of each array: tells whether a stored reference belongs to these data."""
    return [[float(np.sum(a, dtype=np.float64)), float(np.sum(np.square(a, dtype=np.float64)))] for a in args]


def _stored(name: str, args: tuple) -> Moments:
    path = REFERENCES / f"{name}.json"
    remedy = f"run `python -m benchmarks.posteriors.reference {name}`"
    if not path.is_file():
        raise FileNotFoundError(f"{name} has no reference yet: {remedy}")
    found = Moments.read(path)
    if not np.allclose(found.made["data"], checksums(args), rtol=1e-6):
        raise ValueError(f"the reference of {name} belongs to other data: {remedy}")
    return found
