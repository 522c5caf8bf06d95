"""The ladder's picture, and the words for its rungs."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jensen.methods.lookup import method_names
from jensen.report.draws import Draws, log_weights
from jensen.report.ladder import NARROWEST
from jensen.report.methods import RUNGS as ONLY_RUNGS
from jensen.report.methods import sentence
from jensen.report.plots import missing
from jensen.report.rungs import has_rungs, origin, reasons_to_climb, taken
from jensen.report.style import TRUTH, VERDICTS, Q, number

BASES = ["mixture", "natural-gradient", "dadvi"]
RUNGS = [
    *(f"{base}{end}" for base, end in itertools.product(BASES, ["", " + importance"])),
    "hmc", "conditional-gaussian", "conditional-gaussian + hmc", "nuts",
]  # fmt: skip


def changed(fit, **values):
    """The fit with a trail in which the given numbers stand for every rung."""
    return dataclasses.replace(fit, trail=[dataclasses.replace(a, **values) for a in fit.trail])


def test_a_bar_for_each_rung_with_its_numbers(climbed_fit):
    assert len(climbed_fit.trail) > 2
    bars = climbed_fit.plot("ladder").axes[0]
    np.testing.assert_allclose([b.get_width() for b in bars.patches], [a.seconds for a in climbed_fit.trail])
    assert [to_hex(b.get_facecolor()) for b in bars.patches] == [VERDICTS[a.verdict] for a in climbed_fit.trail]
    words = [t.get_text() for t in bars.texts]
    expected = [f"{a.verdict}, k-hat {number(a.khat)}, {a.evaluations:,} evaluations" for a in climbed_fit.trail]
    assert words == expected
    names = [t.get_text().replace("\n", " ") for t in bars.get_yticklabels()]
    assert [n.removeprefix("▸ ") for n in names] == [a.family for a in climbed_fit.trail]
    assert [i for i, n in enumerate(names) if n.startswith("▸")] == [taken(climbed_fit)]
    low, high = bars.get_ylim()
    assert low > high  # the first rung on top


def test_the_evidence_of_each_rung_beside_that_of_the_result(climbed_fit):
    ax, d = climbed_fit.plot("ladder").axes[1], climbed_fit.diagnosis
    marks = [line for line in ax.lines if line.get_linestyle() == "None" or line.get_marker() in ("o", "D")]
    np.testing.assert_allclose([m.get_xdata()[0] for m in marks], [a.log_evidence for a in climbed_fit.trail])
    assert [m.get_marker() for m in marks].index("D") == taken(climbed_fit)
    (final,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert final.get_xdata()[0] == d.log_evidence
    band = ax.patches[0].get_bbox()
    np.testing.assert_allclose([band.x0, band.x1], d.log_evidence + 1.645 * d.log_evidence_se * np.array([-1, 1]))
    low, high = ax.get_xlim()
    assert all(low < a.log_evidence < high for a in climbed_fit.trail)


def test_rungs_that_agree_look_so(climbed_fit):
    """A picture that magnified the last digits would show disagreement where there is none."""
    value = climbed_fit.log_evidence
    low, high = changed(climbed_fit, log_evidence=value + 1e-6).plot("ladder").axes[1].get_xlim()
    assert high - low == pytest.approx(2 * NARROWEST, abs=1e-3)


@pytest.mark.parametrize("value", [float("nan"), -np.inf, 1e300, -3.0])
def test_a_rung_without_an_estimate_is_named_as_such(climbed_fit, value):
    fit = changed(climbed_fit, log_evidence=value)
    words = [t.get_text() for t in fit.plot("ladder").axes[1].texts]
    assert words == [number(value) if np.isfinite(value) else f"log evidence {number(value)}"] * len(fit.trail)


def test_the_overview_has_the_ladder_in_place_of_the_trace(climbed_fit, banana_fit):
    titles = lambda fit: [ax.get_title("left") for ax in fit.plot().axes]
    assert "Time each method took" in titles(climbed_fit)
    assert "The objective should rise, then stay flat" not in titles(climbed_fit)
    assert "Time each method took" not in titles(banana_fit)
    assert "The objective should rise, then stay flat" in titles(banana_fit)


def test_a_fit_by_gradients_has_no_ladder(banana_fit, climbed_fit):
    assert "stochastic gradients" in missing(banana_fit, "ladder")
    assert missing(dataclasses.replace(climbed_fit, trail=[]), "ladder") == "no rungs were recorded"
    assert not has_rungs(banana_fit)
    assert taken(banana_fit) is None


def test_the_rung_that_was_taken_is_found_among_those_of_its_name(climbed_fit):
    at = taken(climbed_fit)
    attempt, d = climbed_fit.trail[at], climbed_fit.diagnosis
    assert (attempt.family, attempt.elbo, attempt.khat) == (climbed_fit.options["method"], d.elbo, d.khat)
    worse = dataclasses.replace(attempt, elbo=d.elbo - 1)
    assert taken(dataclasses.replace(climbed_fit, trail=[worse, attempt, worse])) == 1
    assert taken(dataclasses.replace(climbed_fit, trail=[worse, worse])) == 1
    assert taken(dataclasses.replace(climbed_fit, trail=[])) is None
    nan = dataclasses.replace(d, elbo=float("nan"))
    fit = dataclasses.replace(
        climbed_fit, diagnosis=nan, trail=[dataclasses.replace(attempt, elbo=float("nan")), worse]
    )
    assert taken(fit) == 0


def test_why_each_rung_was_not_the_last(climbed_fit, laplace_fit):
    why = reasons_to_climb(climbed_fit)
    for attempt, said in zip(climbed_fit.trail[:-1], why, strict=False):
        assert said.lower().startswith(attempt.climbed[:30].lower())
    assert why[-1] == "It passed every check."
    assert reasons_to_climb(laplace_fit) == ["It was asked for by name."]
    first, other = climbed_fit.trail[0], climbed_fit.trail[-1]
    first = dataclasses.replace(first, climbed="")
    trail = [first, dataclasses.replace(other, family="non-centred hmc", verdict="DOUBTFUL", climbed="")]
    found = reasons_to_climb(dataclasses.replace(climbed_fit, trail=trail))
    assert found[0] == f"It is {first.verdict}: the same was tried in non-centred coordinates."
    assert found[1] == "It was the last to be tried."


@pytest.mark.parametrize("name", [*RUNGS, *(f"non-centred {r}" for r in RUNGS), *method_names()])
def test_every_rung_and_method_has_a_sentence(name):
    said = sentence(name)
    assert "A method named" not in said
    assert said.endswith(".")
    assert ("non-centred coordinates" in said) == name.startswith("non-centred ")
    assert ("resampled" in said) == (name.endswith(("importance", "conditional-gaussian")))


def test_sentences_differ_and_the_unknown_is_admitted():
    said = [sentence(n) for n in (*ONLY_RUNGS, *method_names())]
    assert len(set(said)) == len(said)
    assert sentence("nope + importance").startswith("A method named nope.")


def test_weights_are_those_of_draws_of_q(climbed_fit, banana_fit):
    """Of draws that were resampled by their weights, log p - log q are no importance weights."""
    log_p, log_q = climbed_fit.proposals
    np.testing.assert_array_equal(log_weights(climbed_fit), log_p - log_q)
    assert log_weights(climbed_fit).size != len(climbed_fit.log_p)
    np.testing.assert_allclose(log_weights(banana_fit), banana_fit.log_p - banana_fit.log_q)
    shown = climbed_fit.plot("weights").axes[0]
    assert f"of {len(log_p):,}" in shown.texts[-1].get_text()
    assert number(climbed_fit.khat) in shown.get_title("left")


@pytest.mark.parametrize(
    ("name", "twice"), [("climbed_fit", False), ("chains_fit", False), ("laplace_fit", True), ("banana_fit", True)]
)
def test_corrected_draws_are_not_corrected_again(name, twice, request):
    fit = request.getfixturevalue(name)
    assert (Draws(fit).weights is not None) == twice
    for kind in ("marginals", "pairs"):
        figure = fit.plot(kind)
        lines = [line for ax in figure.axes for line in ax.lines]
        contours = [to_hex(c) for ax in figure.axes for a in ax.collections for c in a.get_edgecolor()]
        assert (TRUTH.lower() in {to_hex(line.get_color()) for line in lines} | set(contours)) == twice
        assert Q.lower() in {to_hex(line.get_color()) for line in lines}
        legend = " ".join(t.get_text() for t in figure.legends[0].texts)
        assert ("corrected by weights" in legend) == twice


def test_the_origin_of_the_draws(importance_fit, chains_fit, laplace_fit):
    assert [origin(f) for f in (importance_fit, chains_fit, laplace_fit)] == ["importance", "chains", "none"]
    assert origin(dataclasses.replace(chains_fit, options={"method": "smc"})) == "particles"
