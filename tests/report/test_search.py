"""The pictures of the search for modes, of coordinates that were learned, and of walls."""

import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.report.methods import sentence
from jensen.report.plots import available, plot
from jensen.report.style import to_png


def fitted(log_density, d):
    return jn.fit(jn.models.LogDensity(log_density, (d,)), progress=False)


@pytest.fixture(scope="module")
def funnel():
    return fitted(lambda z: -(z[0] ** 2) / 8 - 0.5 * (z[1:] ** 2).sum() * jnp.exp(-z[0]) - 2 * z[0], 5)


@pytest.fixture(scope="module")
def box():
    inside = lambda z: (z > jnp.array([0.0, -1.0])).all() & (z[1] < 2) & (z[0] + z[1] < 3)
    return fitted(lambda z: jnp.where(inside(z), -z[0], -jnp.inf), 2)


def test_a_funnel_is_shown_as_it_was_and_as_it_was_sampled(funnel):
    pairs = funnel.diagnosis.details["coordinates"]["pairs"]
    assert {p["x"] for p in pairs} == {"z[0]"}
    size = lambda x, y: abs(np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(np.abs(y))))[0, 1])
    for p in pairs:
        assert size(*p["before"]) > 0.3 > 2 * size(*p["after"])
    axes = plot(funnel, "coordinates").axes
    assert len(axes) == 2 * len(pairs) and axes[0].get_xlabel() == "z[0]"


def test_walls_are_shown_with_their_draws(box):
    panels = box.diagnosis.details["walls"]["pictures"]
    for panel in panels:
        x, ends = np.array(panel["x"]), np.array(panel["ends"])
        assert ((x >= ends.min() - 1e-6).all() if len(ends) == 2 else True) and min(abs(x - ends[0])) < 0.3
    assert [p["label"] for p in panels][:2] == ["z[0]", "z[1]"]
    assert any(p["label"] == "z[0] + z[1] < 3" and abs(p["ends"][0] - 3) < 1e-6 for p in panels)
    assert len(plot(box, "walls").axes) == len(panels)


def test_the_search_is_shown(funnel, tmp_path):
    search = funnel.diagnosis.details["search"]
    picture = search["picture"]
    assert len(picture["starts"]) == len(picture["led"]) <= 1200
    assert len(picture["modes"]) == len(picture["shares"]) == search["modes"]
    assert abs(sum(picture["shares"]) - 1) < 1e-3
    assert to_png(plot(funnel, "search"), 30).startswith(b"\x89PNG")
    funnel.save(tmp_path / "fit")
    loaded = jn.load(tmp_path / "fit")
    assert {"search", "coordinates"} <= set(available(loaded))
    assert "funnel is gone" in funnel.report(tmp_path / "r.html").read_text()


def test_where_there_is_nothing_to_show():
    fit = fitted(lambda z: -0.5 * (z**2).sum(), 2)
    assert "search" in available(fit) and not {"coordinates", "walls"} & set(available(fit))


def test_every_method_and_its_coordinates_have_a_sentence(funnel, box):
    for fit in (funnel, box):
        for name in (fit.options["method"], *(a.family for a in fit.trail)):
            assert not sentence(name).startswith("A method named"), name
    assert "learned from the density's curvature" in sentence(funnel.options["method"])
    assert "end where the density does" in sentence("walled hmc in each mode")
    assert sentence("something else").startswith("A method named")
