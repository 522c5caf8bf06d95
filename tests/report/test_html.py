"""The report: self-contained, escaped, complete, and never in the way of a bad fit."""

import re
from html.parser import HTMLParser

import pytest

from jensen.errors import CheckpointError, OptionError
from jensen.report import html
from jensen.report.html import plus_minus

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
