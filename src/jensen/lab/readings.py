"""From sums over repeats to readings: the reference, the bias, the variance of each group of parameters."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from .. import gradients
from ..batch import Batch
from ..compiled import key_for
from ..facts import Fact
from ..fit import defaults
from ..gradients.plans import IID
from ..judge import refusals
from .bench import Arm, Timed, arms_of, minibatch_variance
from .bias import UNTESTED, Reference, compare, exact_reference, pooled_reference
from .probe import Runner, groups, sums
from .result import Reading
from .size import term_sizes
from .subject import Candidate, Refused, Subject

MAX_STATES = 2**12  # up to which the exact gradient is the reference


class Site(NamedTuple):
    """A point of the fit at which all arms were run."""

    name: str
    parameters: PyTree  # of (model, family); None: the starting ones
    fixed: Batch
    n_points: int
    seconds: float


def read(subject: Subject, arms: list[Arm], timed: list[Timed], site: Site) -> tuple[list[Reading], list[Refused]]:
    """What the runs at one point say; an arm whose gradient is not finite is refused."""
    pairs = list(zip(arms, timed, strict=True))
    fine = [(a, t) for a, t in pairs if t.sums.finite]
    why = f"its gradient is not finite ({site.name})"
    refused = [Refused(a.candidate.name, a.plan, why) for a, t in pairs if not t.sums.finite]
    if not fine:
        return [], refused
    where = groups(fine[0][1].state)
    arrays = [at for name, at in where.items() if name not in ("model", "family")]
    exact = {kind: _exact(subject, site, kind) for kind in {_kind(subject, a) for a, _ in fine}}
    trusted = [(a, t) for a, t in fine if a.candidate.trusted]
    steady, best = min(trusted or fine, key=lambda pair: pair[1].sums.variance)
    rows = minibatch_variance(subject, steady, site.fixed, best, site.seconds / 4)
    sizes = term_sizes(subject, site.parameters, site.fixed)
    n_tests = max(len(best.sums.mean) * len(arms) * site.n_points, 1)
    out = []
    for arm, t in fine:
        c, kind = arm.candidate, _kind(subject, arm)
        peers = {a.label: o.sums for a, o in trusted if a.candidate.name != c.name and _kind(subject, a) == kind}
        reference = exact[kind] or pooled_reference(peers, arrays)
        bias = compare(t.sums, reference, arrays, n_tests, sizes)
        reading = Reading(
            point=site.name, estimator=c.name, plan=arm.plan, n_samples=c.n_samples,
            declared_unbiased=bool(c.made.unbiased), bias=bias, variance=t.sums.variance,
            variance_se=t.sums.variance_se, evaluations=arm.evaluations, seconds=t.seconds, repeats=t.sums.n,
            gradient_norm=bias.of if bias.source else math.sqrt(float((t.sums.mean**2).sum())), minibatch=rows,
            groups={name: _group(t, reference, arrays, n_tests, sizes, at) for name, at in where.items()},
        )  # fmt: skip
        out.append(reading)
    return out, refused


def _group(
    t: Timed, reference: Reference | None, arrays: list[slice], n_tests: int, sizes: np.ndarray, at: slice
) -> dict[str, float]:
    bias = UNTESTED if reference is None else compare(t.sums, reference, arrays, n_tests, sizes, at)
    variance = float(t.sums.squares[at].sum() / max(t.sums.n - 1, 1))
    interval = {"bias": bias.size, "bias_low": bias.low, "bias_high": bias.high, "max_z": bias.max_z}
    return {"size": at.stop - at.start, "variance": variance, "norm": bias.of, **interval}


def _kind(subject: Subject, arm: Arm) -> int | None:
    """Gradients of one kind estimate the same number: a nonlinear bound is another one for each K."""
    return None if Fact.LINEAR in subject.objective.facts else arm.candidate.n_samples


def _exact(subject: Subject, site: Site, kind: int | None) -> Reference | None:
    """By enumeration, where that is cheap."""
    n = kind or 1
    if Fact.ENUMERABLE not in subject.family.facts or defaults._states(subject.family) ** n > MAX_STATES:
        return None
    made, plan = gradients.Enumerate(), IID()
    if refusals(subject.compose(made, plan, n)):
        return None
    candidate = Candidate("exact", made, made, {"IID": plan}, n, True)
    if not arms_of(subject, [candidate], site.fixed)[0]:
        return None
    runner = Runner(subject, candidate)
    start = runner.start(site.fixed, site.parameters)
    return exact_reference(sums(runner.advance(start, site.fixed, key_for(subject.seed, "exact"), "IID", 1)))
