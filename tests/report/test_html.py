"""The report: self-contained, escaped, complete, and never in the way of a bad fit."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from jensen.errors import CheckpointError, OptionError
from jensen.report import html, words
from jensen.report.methods import sentence
from jensen.report.rungs import reasons_to_climb
from jensen.report.tables import options, plus_minus

from .conftest import HOSTILE

VOID = {"meta", "img", "circle", "path", "br"}


class Page(HTMLParser):
    """Tags, links and text; fails where a tag is not closed."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.links, self.images, self.words, self.open = [], [], [], [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.links += [attrs[k] for k in ("src", "href", "srcset", "action") if k in attrs]
        self.images += [attrs] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(html, "DPI", 40)


FITS = ["numpyro_fit", "images_fit", "hostile_fit", "without_model", "broken_fit"]


@pytest.mark.parametrize("name", FITS)
def test_the_page_is_complete_escaped_and_needs_nothing_else(name, request, tmp_path):
    fit = request.getfixturevalue(name)
    path = fit.report(tmp_path / "deep" / "report.html")
    source = path.read_text()
    page = Page(source)
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "url(" not in source
    assert "@import" not in source
    assert "script" not in page.tags
    assert str(fit.verdict) in page.text
    for reason in fit.reasons:
        assert " ".join(reason.split()) in page.text
    assert all(i["alt"] and int(i["width"]) > 0 for i in page.images)
    assert "could not be drawn" not in page.text
    assert source.count("<section") >= 8
    assert ("Not shown: this fit was loaded without its model" in page.text) == (name == "without_model")
    assert ("not available" in page.text) == (name == "broken_fit")
    assert not re.search(r"\bnan\b", page.text)
    if name == "hostile_fit":
        assert HOSTILE in " ".join(page.words)
        assert "11 more rows are not shown" in page.text


LADDERS = ["climbed_fit", "line_fit", "importance_fit", "chains_fit", "laplace_fit", "loaded_fit", "broken_ladder"]


@pytest.mark.parametrize("name", LADDERS)
def test_the_page_of_a_ladder(name, request, tmp_path):
    fit = request.getfixturevalue(name)
    source = fit.report(tmp_path / "report.html").read_text()
    page = Page(source)
    assert "How was the posterior found?" in page.text
    assert "Did the optimisation finish?" not in page.text
    assert "could not be drawn" not in page.text
    assert not re.search(r"\bnan\b", page.text)
    assert f"Evaluations {fit.options['evaluations']:,} of the log density" in page.text
    assert " Steps " not in page.text
    assert f"Method {fit.options['method']} {sentence(fit.options['method'])}" in page.text
    assert "method verdict k-hat ELBO log evidence evaluations time why another was tried" in page.text
    for attempt, why in zip(fit.trail, reasons_to_climb(fit), strict=True):
        assert f"{attempt.evaluations:,}" in page.text
        assert " ".join(why.split()) in page.text
    assert page.tags.count("tr") == 2 + len(fit.trail) + len(fit.summary())
    assert source.count('class="taken"') == 1
    assert ("the draws of q that were weighed are not at hand" in page.text) == (name == "loaded_fit")


def test_a_ladder_says_what_its_draws_are(importance_fit, chains_fit, laplace_fit, numpyro_fit):
    read = lambda fit, kind: html.section(fit, kind).lead
    assert "resampled by the weights above" in read(importance_fit, "marginals")
    assert "those of the chains" in read(chains_fit, "marginals")
    assert html.section(chains_fit, "weights").title == "Where did the chains start?"
    for kind in ("marginals", "pairs"):
        assert "dashed" not in read(importance_fit, kind) + read(chains_fit, kind)
        assert "dashed" in read(laplace_fit, kind)
        assert read(laplace_fit, kind) == read(numpyro_fit, kind) == words.HOW_TO_READ[kind]
    assert "asked for by name" in read(laplace_fit, "ladder")
    assert "heavier tails" in read(laplace_fit, "weights")
    particles = dataclasses.replace(chains_fit, options={**chains_fit.options, "method": "smc"})
    assert "those of the particles" in read(particles, "marginals")
    assert "chains" not in read(particles, "pairs")


def test_options_in_words(laplace_fit, climbed_fit):
    assert ("Budget", "100000 evaluations") in options(laplace_fit)
    assert ("Method taken", "laplace") in options(laplace_fit)
    found = dict(options(climbed_fit))
    assert found["Budget"] == "no limit"
    assert found["Precision"] == "double (64 bits)"
    assert found["Method asked for"].startswith("auto")
    assert found["Evaluations of the log density"] == f"{climbed_fit.options['evaluations']:,}"


def test_a_fit_by_gradients_keeps_its_page(banana_fit):
    page = Page(html.render(banana_fit))
    assert "Did the optimisation finish?" in page.text
    assert "Steps 200" in page.text
    assert "family verdict k-hat ELBO (nats) time how it ended" in page.text
    for absent in ("How was the posterior found?", "Evaluations", "log evidence (nats)", "▸", "Method"):
        assert absent not in page.text


def test_a_model_that_fails_on_new_draws_costs_one_section(numpyro_fit, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no")

    monkeypatch.setattr(type(numpyro_fit), "predict", fail)
    section = html.section(numpyro_fit, "predictive")
    assert section.absent == "it could not be drawn: RuntimeError: no"


def test_a_folder_or_an_unwritable_place_is_refused(scalar_fit, tmp_path):
    with pytest.raises(OptionError, match="it is a folder"):
        scalar_fit.report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError):
        scalar_fit.report(tmp_path / "file" / "report.html")


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [(-93.9712, 0.0113, "−93.971 ± 0.011"), (-31279.9, 635.2, "−31,280 ± 635"), (1.5, float("inf"), "1.50 ± ∞")],
)
def test_as_many_digits_as_the_error_warrants(value, error, shown):
    assert plus_minus(value, error) == shown
