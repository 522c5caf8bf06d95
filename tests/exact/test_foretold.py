"""A rung that may be long says so before it begins: how long, and what for."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from jensen.algorithms.budget import Budget
from jensen.algorithms.target import Target
from jensen.fit.progress import Told, Untold
from jensen.fit.rungs import Rungs
from jensen.models.log_density import LogDensity
from jensen.samplers.chains import HMC
from jensen.samplers.nuts import NUTS


class Heard(Untold):
    def __init__(self):
        self.said = []

    def ahead(self, *what):
        self.said.append(what)


def rungs(**budget):
    target = Target(LogDensity(lambda z: -0.5 * (z**2).sum(), 3), budget=Budget(**budget))
    target.budget.spend(100_000)
    out = Rungs(target, 0, 100, Heard())
    out.steps = [SimpleNamespace(evaluations=2_000, seconds=3.0, climbed="R-hat is 1.2.")]
    return out


def test_the_last_rung_says_how_long_its_patience_lasts():
    some = rungs()
    some._foretell("nuts", NUTS())
    assert some.shown.said == [("nuts", 1_000_000, pytest.approx(1_500.0), "R-hat is 1.2.")]


def test_nothing_is_said_of_a_rung_of_unknown_length_or_under_a_budget():
    some = rungs()
    some._foretell("hmc", HMC())
    bounded = rungs(seconds=60.0)
    bounded._foretell("nuts", NUTS())
    assert not some.shown.said and not bounded.shown.said


@pytest.mark.parametrize("seconds", [5.0, 1_500.0])
def test_only_what_may_be_long_is_printed(seconds):
    page = io.StringIO()
    Told(Console(file=page)).ahead("nuts", 1_000_000, seconds, "R-hat is 1.2.")
    said = page.getvalue()
    assert bool(said) == (seconds > 10)
    if said:
        assert "1,000,000 evaluations" in said and "25 min" in said and "R-hat is 1.2." in said
