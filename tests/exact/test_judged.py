"""Verdicts by hand: what is known of a solution, and the sentences that it is judged by."""

import numpy as np
import pytest

from jensen.algorithms.gaussian import Gaussian
from jensen.algorithms.importance import weighted
from jensen.algorithms.solver import Solution
from jensen.diagnostics import witness
from jensen.diagnostics.marginals import of_draws
from jensen.diagnostics.solution import Case, judge_solution

NAMES = ["a", "b"]
GOOD = {
    "rhat": 1.001, "rhat_worst": "a", "se_mean": 0.01, "se_mean_worst": "a", "se_sd": 0.01, "se_sd_worst": "b", "halves": 0.01,
    "stuck": 1, "iterations": 400, "diverged": 0.0, "accepted": 0.9, "stein": 1.0, "stein_worst": "b", "stein_by_chance": 3.0,
}  # fmt: skip


def case(chains=None, **known) -> Case:
    """Of draws of a standard normal, by chains or as they are."""
    u = np.random.default_rng(0).standard_normal((4096, 2))
    q, log_p = Gaussian(np.zeros(2), np.eye(2)), -0.5 * (u**2).sum(1)
    weighed = weighted(u, log_p, log_p)
    solution = Solution(q, "converged")
    if chains is not None:
        findings = {"chains": GOOD | chains, "shape": (64, 64)}
        solution = Solution(q, "converged", u, log_p, corrected="chains", findings=findings)
    known = {"testimony": witness.Testimony(u[:64], -1.0, 0, -np.ones(64), u[:0])} | known
    return Case(solution, weighed, NAMES, of_draws(u, NAMES), **known)


def test_nothing_wrong_is_reliable():
    assert str(judge_solution(case()).verdict) == str(judge_solution(case({})).verdict) == "RELIABLE"


@pytest.mark.parametrize(
    ("chains", "known", "said"),
    [
        ({"stein": 20.0}, {}, "Stein's identities hold up to 20.0 standard errors (b)"),
        ({"rhat": 1.3}, {}, "R-hat of the chains is 1.300 (a)"),
        ({}, {"interval": (0.2, "b")}, "central interval of b"),
        (
            {"stein": 20.0, "rhat": 1.3},
            {"interval": (0.2, "b")},
            "Stein's identities hold up to 20.0 standard errors (b)",
        ),
    ],
)
def test_each_fault_is_named_and_several_at_once(chains, known, said):
    found = judge_solution(case(chains, **known))
    assert str(found.verdict) != "RELIABLE" and any(said in reason for reason in found.reasons)


def test_one_straggler_of_few_is_a_doubt_and_of_many_a_fault():
    u = np.zeros((64, 2))
    of = lambda n, k: witness.Testimony(u[:n], 5.0, k, np.full(n, 5.0), u[:0])
    verdicts = [str(judge_solution(case({}, testimony=t)).verdict) for t in (of(8, 1), of(64, 1), of(8, 2), of(64, 4))]
    assert verdicts == ["DOUBTFUL", "DOUBTFUL", "UNRELIABLE", "UNRELIABLE"]


def test_a_witness_that_was_spared_is_no_fault():
    found = judge_solution(case(testimony=witness.spared(2)))
    assert str(found.verdict) == "RELIABLE" and any("No annealed particles" in reason for reason in found.reasons)


def test_the_accuracy_that_was_asked_for_is_the_limit():
    few = case({"se_mean": 0.02})
    assert str(judge_solution(few).verdict) == "RELIABLE"
    few.asked = 0.01
    assert str(judge_solution(few).verdict) == "DOUBTFUL"
    few.asked = 0.03
    assert str(judge_solution(few).verdict) == "RELIABLE"
