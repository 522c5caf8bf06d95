"""`fit(gradient="auto")`: a short trial of the unbiased estimators before the fit.

The clock decides nothing: cost is the compiler's count of operations, and all numbers of steps follow from it. So the same
call takes the same estimator on a slow machine and on a fast one, and a checkpoint finds its fit again.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ..compiled import key_for
from ..fit import defaults
from ..fit.minibatch import MappedArray
from ..gradients.plans import AbstractPlan
from ..judge import Composition
from .bench import Arm, arms_of, fixed_batch, same_estimator
from .bias import pooled_reference
from .probe import OWN_RATE, Rates, State, Sums, forget, sums
from .subject import Candidate, Subject, admit, estimators_of, gradient_of, some_rows

MOST_TRIED = 6  # estimators: each is compiled
OPERATIONS = 1e9  # of each estimator in each of its two phases, about
STEPS = (20, 200)  # least and most of them
WALK_RATE = 0.01


class Trial(NamedTuple):
    name: str
    cost: float  # operations a step
    candidate: Candidate
    sums: Sums

    def price(self, norm: float) -> float:
        """What a unit of progress costs (`Reading.gain`)."""
        return self.cost * max(norm**2 + self.sums.variance, 1e-300)


def choose(subject: Subject, plan: AbstractPlan, n_samples: int | None) -> tuple[Composition, str]:
    """The composition with the estimator that a trial along the first steps of a fit recommends, and why in words.

    The mean square of a step's gradient, rows drawn anew each time, times the operations of a step, is the least.
    Cost:  a compilation and up to 420 steps for each of at most six estimators.
    """
    usual = gradient_of(subject, plan, n_samples)
    default = subject.compose(usual, plan, n_samples or _draws(subject, usual))
    if isinstance(subject.rows, MappedArray):
        subject = subject._replace(rows=some_rows(subject.rows))
    trials = _trials(subject, usual, plan, n_samples)
    if len(trials) < 2:
        return default, "nothing else fits"
    arrays = [slice(0, len(trials[0].sums.mean))]
    mean = pooled_reference({t.name: t.sums for t in trials}, arrays)
    norm = 0.0 if mean is None else float(np.sqrt(max((mean.mean**2).sum() - mean.variance.sum(), 0.0)))
    ranked = sorted(trials, key=lambda t: t.price(norm))
    best, second = ranked[0], ranked[1]
    share = best.price(norm) / second.price(norm)
    why = f"best of {len(trials)} on trial: progress costs {share:.0%} of what it does with {second.name}"
    return subject.compose(best.candidate.made, plan, best.candidate.n_samples), why


def _draws(subject: Subject, gradient: Any) -> int:
    return defaults.default_n_samples(subject.model, gradient, subject.objective)


def _trials(subject: Subject, usual: Any, plan: AbstractPlan, n_samples: int | None) -> list[Trial]:
    """The default estimator leads some steps; there each is trained, then measured."""
    found, _ = estimators_of(None, subject, variants=False)
    unbiased = {name: e for name, e in found.items() if e.unbiased}
    if not any(same_estimator(usual, e) for e in unbiased.values()):
        unbiased = {type(usual).__name__: usual} | unbiased
    fixed = fixed_batch(subject)
    candidates, _ = admit(subject, unbiased, {"plan": plan}, lambda e: n_samples or _draws(subject, e))
    arms, _ = arms_of(subject, candidates, fixed, run=False)
    costs = {arm.candidate.name: _cost(arm, fixed) for arm in arms}
    is_usual = lambda arm: same_estimator(usual, arm.candidate.made)
    arms = sorted(arms, key=lambda arm: (not is_usual(arm), costs[arm.candidate.name]))[:MOST_TRIED]
    if not arms or not is_usual(arms[0]):
        return []
    turn = Rates(0.0, 0.0, subject.minibatched)
    lead = _run(arms[0], fixed, None, costs, turn._replace(main=WALK_RATE, own=WALK_RATE))
    at = lead.params.model, lead.params.family
    out = []
    for arm in arms:
        name = arm.candidate.name
        state = forget(_run(arm, fixed, at, costs, turn._replace(own=OWN_RATE)))
        seen = sums(_run(arm, fixed, at, costs, turn, state))
        if seen.finite:
            out.append(Trial(name, costs[name], arm.candidate, seen))
    return out


def _cost(arm: Arm, fixed: Any) -> float:
    flops = arm.runner.flops(arm.runner.start(fixed), fixed)
    return float(flops) if flops and flops > 0 else float(arm.evaluations)


def _run(arm: Arm, fixed: Any, at: Any, costs: dict, rates: Rates, state: State | None = None) -> State:
    state = arm.runner.start(fixed, at) if state is None else state
    n = int(np.clip(OPERATIONS / costs[arm.candidate.name], *STEPS))
    key = key_for(arm.runner.subject.seed, f"trial {arm.candidate.name}")
    return jax.block_until_ready(arm.runner.advance(state, fixed, key, "plan", n, rates))
