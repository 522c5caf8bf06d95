"""What `fit` chooses when nothing is said: from the facts of the parts, never from their classes."""

from typing import Any, cast

import equinox as eqx
from jaxtyping import PyTree

from .. import families, gradients
from ..compiled import key_for
from ..errors import OptionError, explain
from ..facts import Fact
from ..families.base import AbstractDistribution, AbstractFamily
from ..families.consistent import check_halves
from ..gradients.base import AbstractEstimator
from ..gradients.plans import AbstractPlan
from ..judge import Composition, refusals
from ..models.base import AbstractModel
from ..objectives.base import AbstractObjective
from ..tree import length
from .minibatch import MappedArray, n_rows

FULL_RANK_LIMIT = 300  # latents above which a full covariance gives way to a low-rank one
ENUMERABLE_STATES = 256


BASES = {
    "family": AbstractFamily, "objective": AbstractObjective, "gradient": AbstractEstimator, "plan": AbstractPlan,
}  # fmt: skip


def named(kind: str, value: Any, choices: dict[str, Any]) -> Any:
    """A part by its name, made with its defaults; anything but a string is returned as it is."""
    part = value
    if isinstance(value, str):
        key = value.lower().replace("-", "").replace("_", "")
        part = next((c for name, c in choices.items() if name.lower() == key), None)
    elif value is None or isinstance(value, eqx.Module):
        return value
    elif not (isinstance(value, type) and issubclass(value, BASES.get(kind, eqx.Module))):
        part = None
    if part is not None:
        try:
            return part()
        except TypeError as error:
            because, instead = f"{part.__name__} needs arguments", f"{kind}={part.__name__}(...), an object"
            raise OptionError(explain(f"{kind}={value!r}", str(error), because, instead)) from error
    raise OptionError(
        explain(
            f"{kind}={value!r}",
            "there is no such part",
            "names are looked up among the exported classes; one of your own goes as an object or a class",
            f"one of {sorted(choices)}",
        )
    )


def exported(package: Any) -> dict[str, type]:
    """The classes a package exports: its vocabulary."""
    return {
        n: c
        for n, c in ((name, getattr(package, name)) for name in getattr(package, "__all__", vars(package)))
        if isinstance(c, type) and issubclass(c, eqx.Module) and not n.startswith("Abstract")
    }


_BY_KIND = {"real": families.MeanField, "binary": families.Bernoulli, "category": families.Categorical}


def local_of(model: AbstractModel) -> Any:
    """The latents of one row under a plate of rows, or None."""
    return getattr(model, "local_latents", None) or None


def default_family(model: AbstractModel) -> AbstractFamily:
    """Mean field over the continuous sites, Bernoulli and Categorical over the discrete ones; amortised if plated, and
    layer by layer against the order of a layered prior."""
    if model.plated:
        layers = getattr(model, "bottom_up", ())
        if layers:
            return families.Amortised(families.Layers(layers))
        kinds = getattr(model, "site_kinds", {})
        real = all(k == "real" for k in kinds.values())
        return families.Amortised(None if real else _factors(model.latents, kinds))
    return _factors(model.latents, getattr(model, "site_kinds", {}))


def _factors(latents: PyTree, kinds: dict[str, str]) -> AbstractDistribution:
    if all(k == "real" for k in kinds.values()):
        return families.MeanField()
    if not isinstance(latents, dict):
        return _BY_KIND[next(iter(kinds.values()))]()
    return families.Product({site: _BY_KIND[kinds[site]]() for site in latents})


def bind(family: AbstractFamily, model: AbstractModel, rows: PyTree, seed: int) -> AbstractFamily:
    """The family sized for the model; one without a local part gets a table of them where the model has local latents."""
    made = _bound(family, model, rows, seed)
    check_halves(made)
    return made


def _bound(family: AbstractFamily, model: AbstractModel, rows: PyTree, seed: int) -> AbstractFamily:
    key = key_for(seed, "bind")
    local = local_of(model)
    if local is None:
        return family.bind(model.latents, rows if model.plated else None, key)
    if Fact.LOCAL not in family.facts:
        table = families.Table(_factors(local, getattr(model, "local_site_kinds", {})))
        family = families.GlobalLocal(cast(AbstractDistribution, family), table)
    return family.bind((model.latents, local), rows, key)


def bind_gradient(gradient: AbstractEstimator, model: AbstractModel, rows: PyTree, seed: int) -> AbstractEstimator:
    """The estimator with its networks sized for the model."""
    return gradient.bind(model.latents, rows if model.plated else None, key_for(seed, "gradient"))


def complete(
    model: AbstractModel,
    family: AbstractFamily,
    objective: AbstractObjective,
    gradient: AbstractEstimator | None,
    plan: AbstractPlan,
    n_samples: int | None,
    minibatched: bool,
) -> Composition:
    """The composition with the gradient and the number of draws filled in: the first candidate the judge accepts
    (or objects to least)."""

    def with_gradient(g: AbstractEstimator) -> Composition:
        n = n_samples or default_n_samples(model, g, objective)
        return Composition(model, family, objective, g, plan, n, minibatched)

    if gradient is not None:
        return with_gradient(gradient)
    tried = [with_gradient(g) for g in _candidates(model, family, objective)]
    return min(tried, key=lambda c: len(refusals(c)))  # the first of the fewest: normally none


def _candidates(model: AbstractModel, family: AbstractFamily, objective: AbstractObjective) -> list[AbstractEstimator]:
    """Estimators by falling preference: path gradients where there is a path, enumeration where it is cheap."""
    out: list[AbstractEstimator] = [] if Fact.LOG_RATIO in family.facts else [gradients.SpectralStein()]
    if not model.plated or Fact.LINEAR not in objective.facts:
        out.append(gradients.DoublyReparameterised())
    out.append(gradients.Pathwise())
    if Fact.PRODUCT in family.facts:
        method = lambda q: gradients.Pathwise() if Fact.REPARAMETERISED in q.facts else gradients.LeaveOneOut()
        chosen = {n: method(q) for n, q in getattr(family, "sites", {}).items()}
        if any(m.role == "path" for m in chosen.values()):
            out.append(gradients.Sitewise(chosen))
    if Fact.ENUMERABLE in family.facts and Fact.LINEAR in objective.facts and _states(family) <= ENUMERABLE_STATES:
        out.append(gradients.Enumerate())
    return [*out, gradients.LeaveOneOut(), gradients.ScoreFunction()]


def _states(family: AbstractFamily) -> float:
    """How many states the support lists; infinite where it cannot be told cheaply."""
    distribution = getattr(family, "distribution", family)
    distribution = getattr(distribution, "value", distribution)
    try:
        return length(eqx.filter_eval_shape(lambda q: q.support(), distribution))
    except Exception:
        return float("inf")


def default_n_samples(model: AbstractModel, gradient: AbstractEstimator, objective: Any) -> int:
    least = max(gradient.min_samples, objective.min_samples)
    if Fact.LINEAR not in objective.facts:
        return max(least, 16)
    wanted = 1 if model.plated else 8
    return max(least, wanted)


def batch_size_for(model: AbstractModel, rows: Any, asked: int | None) -> int | None:
    """Rows a step; None: all. A model with minibatches of its own says how many."""
    if rows is None:
        if asked is not None:
            because = "rows are drawn from data with a leading axis"
            instead = "numpyro.plate(..., subsample_size=...) in the model, or fit(model, data)"
            raise OptionError(explain(f"batch_size={asked}", "there are no rows to divide", because, instead))
        return None
    n = n_rows(rows)
    own = getattr(model, "batch_size", None)
    if own is not None:
        return own if asked is None else min(asked, n)
    if asked is not None:
        return None if asked >= n and not isinstance(rows, MappedArray) else min(asked, n)
    if isinstance(rows, MappedArray) or (model.plated and n > 500):
        return min(100, n)
    return None
