"""The judge: one function decides whether parts fit, from what they declare."""

from typing import NamedTuple

from .errors import IncompatibleComposition, explain
from .facts import Fact
from .families.base import AbstractFamily
from .gradients.base import AbstractEstimator
from .gradients.plans import AbstractPlan
from .models.base import AbstractModel
from .objectives.base import AbstractObjective

_OF_KIND = {
    "real": "MeanField()",
    "binary": "Bernoulli()",
    "category": "Categorical()",
    "relaxed": "Concrete()",
    "relaxed category": "Concrete(categories=True)",
}
_RELAX = (
    "relax the prior too: families.relaxed(prior) and families.OnRelaxed(decoder); or {} with gradients.GumbelSoftmax()"
)


class Composition(NamedTuple):
    """What gradient VI is asked to do. `minibatched`: not all rows at every step."""

    model: AbstractModel
    family: AbstractFamily
    objective: AbstractObjective
    gradient: AbstractEstimator
    plan: AbstractPlan
    n_samples: int = 1
    minibatched: bool = False

    def facts(self, axis: str) -> frozenset:
        """The facts of one axis, as they hold here: under a global latent a minibatch's log-weight is an estimate."""
        facts = frozenset(getattr(self, axis).facts)
        if axis == "model" and self.minibatched and not self.model.plated:
            facts -= {Fact.EXACT_LOG_WEIGHT}
        if axis == "family":
            facts |= self.gradient.supplies
        return facts


def refusals(c: Composition) -> list[tuple[str, str, str]]:
    """(what is missing and where, why, what to write instead), one for each reason to refuse; empty if all fits."""
    out, known = [], {axis: c.facts(axis) for axis in ("model", "family", "objective", "plan")}
    for part in (c.objective, c.gradient, c.plan):
        for r in part.requires:
            if r.fact not in known[r.axis]:
                where = f"`{_name(getattr(c, r.axis))}` ({r.axis}) does not provide it"
                out.append((f"{r.fact.value}; {where}", f"`{_name(part)}`: {r.because}", r.instead))
    for part in (c.objective, c.gradient):
        if c.n_samples < part.min_samples:
            missing = f"n_samples >= {part.min_samples}; n_samples={c.n_samples}"
            out.append((missing, f"`{_name(part)}` compares draws with one another", f"n_samples={part.min_samples}"))
    if c.minibatched and Fact.MINIBATCH not in known["model"]:
        where = f"`{_name(c.model)}` (model) does not provide it"
        because = "rows left out would be missing from the posterior"
        instead = "LogDensity(log_prior, shape, log_likelihood=per_row), or batch_size=None"
        out.append((f"{Fact.MINIBATCH.value}; {where}", because, instead))
    out += _wrong_supports(c) + c.gradient.problems(c)
    return list(dict.fromkeys(out))


def _wrong_supports(c: Composition) -> list[tuple[str, str, str]]:
    """A continuous q over a discrete latent, or the reverse, where the model tells what its latents are."""
    out = []
    for part, kinds in ((c.family, "site_kinds"), (getattr(c.family, "local", None), "local_site_kinds")):
        if part is None:
            continue
        for site, kind in getattr(c.model, kinds, {}).items():
            mine = part.kind_of(site)
            if mine != kind:
                needs = f"q over the support of `{site}`, which is {kind}; `{_name(part)}` (family) is {mine}"
                because = "log p and log q would be densities of different kinds, and their ratio no bound on anything"
                discrete = kind in ("binary", "category") and mine.startswith("relaxed")
                out.append((needs, because, (_RELAX if discrete else "{}").format(_OF_KIND[kind])))
    return out


def check(c: Composition) -> None:
    """Raises IncompatibleComposition, with all reasons at once, if the parts do not fit."""
    reasons = refusals(c)
    if reasons:
        asked = f"`{_name(c.gradient)}` cannot estimate the gradient of `{_name(c.objective)}` for `{_name(c.family)}`"
        lines = [f"  - needs: {w}.\n    because: {b}\n    instead: {i}" for w, b, i in reasons]
        raise IncompatibleComposition(f"{asked} and `{_name(c.model)}`:\n" + "\n".join(lines))


def check_reads_row(model: AbstractModel, family: AbstractFamily) -> None:
    """Raises IncompatibleComposition for one q for all rows where every row has a latent of its own. Its gradients are right,
    and proven so, but no fit of it is the posterior of any row."""
    if not model.plated or family.reads_row:
        return
    name = _name(family)
    wrong = f"`{name}` is one and the same q for all rows"
    because = f"every row of `{_name(model)}` has a latent of its own, whose posterior depends on the row"
    instead = f"Amortised({name}(...)), or Table({name}(...)) for parameters of each row's own"
    asked = f"`fit` of `{_name(model)}` with `{name}`"
    raise IncompatibleComposition(explain(asked, wrong, because, instead))


def _name(part) -> str:
    inner = getattr(part, "distribution", None)
    inner = getattr(inner, "value", inner)
    return type(part).__name__ + (f"({type(inner).__name__})" if inner is not None else "")
