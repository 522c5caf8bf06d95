"""Every cell of model x family x objective x gradient x plan, on small examples, with the judge's verdict.

`python -m jensen.cells > docs/validity.md` writes the page.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .cell_examples import AXES, examples
from .cell_examples import missing as missing
from .cell_models import LATENTS, Setting, generic, settings
from .errors import ModelError
from .facts import Fact
from .families.base import AbstractFamily
from .fit.defaults import bind, bind_gradient
from .gradients.base import AbstractEstimator
from .gradients.plans import AbstractPlan
from .judge import Composition, refusals
from .objectives.base import AbstractObjective


class Cell(NamedTuple):
    """Names of the five parts."""

    model: str
    family: str
    objective: str
    gradient: str
    plan: str

    def __str__(self) -> str:
        return " | ".join(self)


def n_samples(objective: AbstractObjective, gradient: AbstractEstimator, plan: AbstractPlan) -> int:
    """Draws a step: as few as make the cell what it is; an odd number for dependent draws."""
    if Fact.INDEPENDENT not in plan.facts:
        return 3
    few = 1 if Fact.LINEAR in objective.facts else 2
    return max(few, objective.min_samples, gradient.min_samples)


class Parts:
    """The parts of all cells, each made when it is first asked for."""

    def __init__(self):
        self.axes = {axis: examples(axis) for axis in ("family", "objective", "gradient", "plan")}
        self._models = {latents: settings(latents) for latents in LATENTS}
        self._sized: dict[tuple[str, str], AbstractFamily | ModelError] = {}
        self._gradients: dict[tuple[str, int], AbstractEstimator] = {}

    def settings(self, family: str) -> list[Setting]:
        """The models that a family is tried on."""
        example = self.axes["family"][family]
        return [s for latents in (example.latents, *example.also) for s in self._models[latents]]

    def setting(self, cell: Cell) -> Setting:
        return next(s for s in self.settings(cell.family) if s.name == cell.model)

    def composition(self, cell: Cell, setting: Setting | None = None) -> Composition | ModelError:
        """The parts put together, or the error of a family that cannot be sized for the model."""
        setting = self.setting(cell) if setting is None else setting
        family = self._family(cell.family, setting)
        if isinstance(family, ModelError):
            return family
        objective, plan = self.axes["objective"][cell.objective].part, self.axes["plan"][cell.plan].part
        gradient = self._gradient(cell.gradient, setting)
        k = n_samples(objective, self.axes["gradient"][cell.gradient].part, plan)
        return Composition(setting.model, family, objective, gradient, plan, k, setting.minibatched)

    def _family(self, name: str, setting: Setting) -> AbstractFamily | ModelError:
        key = name, setting.name
        if key not in self._sized:
            try:
                self._sized[key] = generic(bind(self.axes["family"][name].part, setting.model, setting.rows, 0))
            except ModelError as error:
                self._sized[key] = error
        return self._sized[key]

    def _gradient(self, name: str, setting: Setting) -> AbstractEstimator:
        key = name, id(setting)  # models over different latents have equal names
        if key not in self._gradients:
            part = self.axes["gradient"][name].part
            self._gradients[key] = generic(bind_gradient(part, setting.model, setting.rows, 0))
        return self._gradients[key]


def compositions() -> Iterator[tuple[Cell, Composition | ModelError, Setting, list[tuple[str, str, str]]]]:
    """Every cell, with its parts put together, or the error of a family that cannot be sized for the model, and the reasons
    to refuse it.

    A plan only takes facts away: what is refused with independent draws is refused with all plans, and listed once.
    """
    parts = Parts()
    objectives, gradients, plans = (list(parts.axes[a]) for a in ("objective", "gradient", "plan"))
    for family in parts.axes["family"]:
        for setting in parts.settings(family):
            for o, g in itertools.product(objectives, gradients):
                for p in plans:  # the independent one first
                    cell = Cell(setting.name, family, o, g, p)
                    whole = parts.composition(cell, setting)
                    why = reasons(whole)
                    yield cell, whole, setting, why
                    if p is plans[0] and why:
                        break


def reasons(made: Composition | ModelError) -> list[tuple[str, str, str]]:
    """(needs, because, instead), one for each reason to refuse; empty if the cell is valid."""
    if isinstance(made, ModelError):
        wrong, because, instead = [line.split(": ", 1)[1] for line in str(made).split("\n")[1:4]]
        return [("a family that fits: " + wrong, because, instead)]
    return refusals(made)


def validity_table(cells: Iterable | None = None) -> list[dict[str, Any]]:
    """One row a cell: the five names, `valid`, `biased` where that is declared, and the reasons of a refusal.

    cells: what `compositions` gives, where that is at hand."""
    biased = lambda m: isinstance(m, Composition) and not m.gradient.unbiased
    row = lambda m, r: {"valid": not r, "biased": biased(m), "reasons": r}
    return [c._asdict() | row(m, why) for c, m, _, why in (compositions() if cells is None else cells)]


# ---- the page -------------------------------------------------------------------------------------------------------

_HEAD = """# Which parts fit together

Generated by `python -m jensen.cells` from what the parts declare; do not edit. `ok`: valid, and held to an exact
reference by `tests/conformance`. `biased`: valid, with a bias that the estimator declares. A number: refused with
`IncompatibleComposition` or `ModelError`, for the reasons below. Plain independent draws unless the last table says
otherwise; `minibatch`: a step sees some of the rows.
"""


def _short(needs: str) -> str:
    """A reason without the names of this example."""
    return needs.split("; `")[0]


def _grid(cells: dict[tuple[str, str], str], down: list[str], across: list[str], corner: str) -> list[str]:
    head = f"| {corner} | " + " | ".join(f"`{a}`" for a in across) + " |"
    body = [f"| `{d}` | " + " | ".join(cells[d, a] for a in across) + " |" for d in down]
    return [head, "| --- " * (len(across) + 1) + "|", *body, ""]


def markdown(cells: Iterable | None = None) -> str:
    """The validity page: equal tables are printed once, with all the models and families they hold for. cells: as above."""
    table = validity_table(cells)
    names = {a: list(examples(a)) for a in AXES}
    notes: dict[tuple, int] = {}

    def mark(row) -> str:
        found = dict.fromkeys((_short(n), b, i) for n, b, i in row["reasons"])
        return (
            ("biased" if row["biased"] else "ok")
            if row["valid"]
            else ", ".join(str(notes.setdefault(f, len(notes) + 1)) for f in found)
        )

    grids: dict[tuple, dict[str, list[str]]] = {}
    pairs = dict.fromkeys((r["model"], r["family"]) for r in table)
    plain = {p: {} for p in pairs}
    for row in table:
        if row["plan"] == "IID()":
            plain[row["model"], row["family"]][row["gradient"], row["objective"]] = mark(row)
    for (model, family), cells in plain.items():
        grids.setdefault(tuple(cells.items()), {}).setdefault(model, []).append(family)
    out = [_HEAD]
    for cells, holds in grids.items():
        out += [f"- {model}: {', '.join(f'`{f}`' for f in fs)}" for model, fs in holds.items()]
        if all(v == cells[0][1] for _, v in cells):
            out += [f"\nEvery cell: {cells[0][1]}.\n"]
        else:
            out += ["", *_grid(dict(cells), names["gradient"], names["objective"], "gradient")]
    out += ["## Sampling plans", "", "For a family and a model that allow everything else.", ""]
    out += _plan_grids(table, names, mark)
    lines = [f"{n}. needs: {needs}. Because: {why}. Instead: {instead}." for (needs, why, instead), n in notes.items()]
    return "\n".join([*out, "## Reasons", "", *lines, ""])


def _plan_grids(table: list[dict], names: dict[str, list[str]], mark: Callable) -> list[str]:
    fits = [r for r in table if r["valid"] and r["plan"] == "IID()"]
    linear = {r["gradient"]: (r["model"], r["family"]) for r in reversed(fits) if r["objective"] == "ELBO()"}
    every = [(r["model"], r["family"]) for r in fits if r["gradient"] == "Pathwise()"]
    home = max(every, key=every.count)  # where all objectives are at home

    def pick(key, chosen, **fixed):
        rows = [r for r in table if all(r[k] == v for k, v in fixed.items())]
        return {(r[key], r["plan"]): mark(r) for r in rows if chosen(r) == (r["model"], r["family"])}

    by_gradient = pick("gradient", lambda r: linear[r["gradient"]], objective="ELBO()")
    by_objective = pick("objective", lambda r: home, gradient="Pathwise()")
    return [
        *_grid(by_gradient, names["gradient"], names["plan"], "gradient of `ELBO()`"),
        *_grid(by_objective, names["objective"], names["plan"], "objective by `Pathwise()`"),
    ]


if __name__ == "__main__":
    print(markdown(), end="")
