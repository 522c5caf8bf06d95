"""All posteriors under one roof, some of them held out; each group has its module."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jensen as jn
from benchmarks.posteriors import constrained, hard, hierarchies, models, priced, simulated
from benchmarks.posteriors.densities import DENSITIES as CLASSIC
from benchmarks.posteriors.densities import Density
from benchmarks.posteriors.moments import REFERENCES, Errors, Moments, coordinate_names, flat, located
from benchmarks.posteriors.shapes import SHAPES
from jensen.models.base import AbstractModel

GROUPS = ("posteriordb", "classic", "simulated", "hierarchies", "shapes", "constrained", "priced")
ENTRIES = {**hard.ENTRIES, **simulated.ENTRIES, **hierarchies.ENTRIES, **priced.ENTRIES}
DENSITIES = CLASSIC | {name: shape.make for name, shape in SHAPES.items()} | priced.DENSITIES
N_QUANTILES = 100_000  # exact draws that median and width are taken from, where these are not the measure


@dataclass(frozen=True)
class Problem:
    """A posterior to be found.

    model: a NumPyro function, to be called with `args` and `kwargs`, or a jensen model.
    reference: gives `Moments` of the unconstrained coordinates; None where only those of the reported ones are known.
    group: one of `GROUPS`.   kind: of the shapes, which of ten; else the group.
    held_out: True where nothing may be tuned on it; None where everybody does.
    reported: mean and sd of each coordinate that a summary prints, where exact; NaN or infinite where there is none.
    entry: of a NumPyro model that is not from posteriordb.   exact: the density, where it is known.
    """

    name: str
    model: Callable | AbstractModel
    args: tuple
    kwargs: dict
    reference: Callable[[], Moments] | None
    group: str
    held_out: bool | None = None
    entry: hard.Entry | None = field(default=None, repr=False)
    exact: Density | None = field(default=None, repr=False)
    reported: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        return SHAPES[self.name].kind if self.group == "shapes" else self.group

    def errors(self, draws: Any, undetermined: np.ndarray | None = None) -> Errors:
        """Of unconstrained draws, by the reference; or of what they are in the reported coordinates, where moments exist."""
        if self.reference is not None:
            return self.reference().errors(draws, undetermined)
        model, (mean, sd) = self.jensen(), self.reported
        x = jax.device_get(jax.jit(jax.vmap(model.constrain))(draws))
        known = np.isfinite(mean) & np.isfinite(sd) & (sd > 0)
        names = np.array(coordinate_names(jax.tree.map(lambda a: a[0], x)))[known].tolist()
        found = Moments(names, mean[known], sd[known])
        return found.errors(flat(x)[:, known]) if known.any() else Errors(0.0, "", 0.0, "")

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
    usable = lambda needs: root is None or not needs or data_folder(root) is not None
    return [
        name
        for name, (its_group, its_held_out, needs) in listed().items()
        if group in (None, its_group) and (held_out is None or bool(its_held_out) == held_out) and usable(needs)
    ]


@cache
def listed() -> dict[str, tuple[str, bool | None, bool]]:
    """Of each name: the group, whether it is held out, whether it needs data."""
    classic = lambda held_out: "classic" if held_out is None else "simulated"
    found: dict[str, tuple] = dict.fromkeys(models.names(), ("posteriordb", None, True))
    found |= {n: (classic(d.held_out), d.held_out, False) for n, make in CLASSIC.items() for d in [make()]}
    for entries in (hard.ENTRIES, simulated.ENTRIES):
        found |= {n: (classic(e.held_out), e.held_out, e.needs_data) for n, e in entries.items()}
    for group, entries in {"hierarchies": hierarchies.ENTRIES, "priced": priced.ENTRIES}.items():
        found |= {n: (group, e.held_out, e.needs_data) for n, e in entries.items()}
    found |= {n: ("shapes", shape.held_out, False) for n, shape in SHAPES.items()}
    return found | dict.fromkeys(constrained.POSTERIORS, ("constrained", None, False))


def data_folder(root: str | Path | None) -> Path | None:
    """The folder of data sets: `root`, or the one above it if `root` is its `posteriordb`; None if there is none."""
    root = Path(root or os.environ.get("JENSEN_DATA") or "nowhere")
    return next((r for r in (root, root.parent) if (r / "posteriordb").is_dir()), None)


def load(name: str, root: str | Path | None = None) -> Problem:
    """The posterior `name`. `root`: the folder of data sets (default: JENSEN_DATA), which some need.

    Raises: ValueError for an unknown name, FileNotFoundError where data or reference are missing.
    """
    if name not in listed():
        raise ValueError(f"unknown posterior {name!r}; known are {', '.join(names())}")
    group, held_out, needs_data = listed()[name]
    folder = data_folder(root)
    if needs_data and folder is None:
        raise FileNotFoundError(f"{name} needs the folder of data sets: give `root`, or set JENSEN_DATA")
    if group == "posteriordb":
        p = models.load(name, folder / "posteriordb")
        make = partial(jn.from_numpyro, p.model, *p.args, **p.kwargs)
        return Problem(name, p.model, p.args, p.kwargs, partial(_from_draws, make, p.reference), group)
    if name in DENSITIES:
        density = DENSITIES[name]()
        model = density.model()
        reference = partial(_exact, density, lambda: model)
        return Problem(name, model, (), {}, reference, group, held_out, None, density, density.mean_and_sd)
    if group == "constrained":
        model, exact = constrained.POSTERIORS[name]()
        ravel = lambda i: np.concatenate([np.ravel(np.asarray(exact[site][i], float)) for site in sorted(exact)])
        return Problem(name, model, (), {}, None, group, reported=(ravel(0), ravel(1)))
    entry = ENTRIES[name]
    args, density = entry.data(folder), DENSITIES[entry.exact]() if entry.exact else None
    exact = density and partial(_exact, density, partial(jn.from_numpyro, entry.model, *args))
    reference, reported = exact or partial(_stored, name, args), density and density.mean_and_sd
    return Problem(name, entry.model, args, {}, reference, group, held_out, entry, density, reported)


def _exact(density: Density, make: Callable) -> Moments:
    found = Moments(coordinate_names(make().latents), density.center, density.spread, density.measure)
    if density.measure == "quantiles":
        return found
    median, width = located(density.draws(np.random.default_rng(1), N_QUANTILES), "quantiles")
    return replace(found, median=median, width=width)


def _from_draws(make: Callable, reference: Callable) -> Moments:
    """Moments of posteriordb's draws, in float64."""
    with jax.enable_x64(True):
        model, draws = make(), reference()
        order = {site: draws[site] for site in model.latents}
        unconstrained = flat(jax.device_get(jax.jit(jax.vmap(lambda x: model.unconstrain(x)[0]))(order)))
        made, other = {"draws": len(unconstrained)}, located(unconstrained, "quantiles")
        return Moments(coordinate_names(model.latents), *located(unconstrained), "moments", None, None, made, *other)


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
