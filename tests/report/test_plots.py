"""Figures: each kind for the fits that have it, and an error that lists the others."""

import subprocess
import sys
import types

import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

from jensen.errors import JensenError
from jensen.models.adapters import from_numpyro
from jensen.report.decoder import kl_by_latent
from jensen.report.draws import Draws
from jensen.report.marginals import bandwidth, reach, smooth_density
from jensen.report.observed import image_shape, observed_sites
from jensen.report.plots import KINDS, available, plot
from jensen.report.style import number, text, to_png
from jensen.report.trace import window_means, y_limits

from .conftest import BINARY, COUNTS, HOSTILE, Y

GLOBAL = {"overview", "trace", "weights", "marginals", "pairs"}
LADDER = {"overview", "ladder", "search", "weights", "marginals", "pairs"}
EXPECTED = {
    "numpyro_fit": GLOBAL | {"predictive"},
    "banana_fit": GLOBAL,
    "rows_fit": GLOBAL,
    "scalar_fit": GLOBAL - {"pairs"},
    "images_fit": GLOBAL | {"predictive", "samples", "latent", "usage"},
    "table_fit": GLOBAL | {"predictive", "samples", "latent", "usage"},
    "hostile_fit": GLOBAL,
    "without_model": GLOBAL,
    "broken_fit": GLOBAL,
    "climbed_fit": LADDER,
    "line_fit": LADDER | {"predictive"},
    "importance_fit": LADDER,
    "chains_fit": LADDER,
    "laplace_fit": LADDER,
    "loaded_fit": LADDER - {"weights"},
    "broken_ladder": LADDER - {"search"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_a_fit_has_is_drawn_and_the_others_are_refused_by_name(name, request):
    fit = request.getfixturevalue(name)
    assert set(available(fit)) == EXPECTED[name]
    for kind in ["overview", *KINDS]:
        if kind in EXPECTED[name]:
            figure = plot(fit, kind)
            assert isinstance(figure, Figure)
            assert to_png(figure, 30).startswith(b"\x89PNG")
        else:
            with pytest.raises(JensenError) as error:
                plot(fit, kind)
            assert all(repr(k) in str(error.value) for k in EXPECTED[name])


def test_an_unknown_kind_lists_the_known_ones(banana_fit):
    with pytest.raises(JensenError, match="there is no such kind") as error:
        banana_fit.plot("traces")
    assert "'trace'" in str(error.value)


def test_pyplot_and_the_global_style_are_left_alone(banana_fit):
    before = dict(mpl.rcParams)
    banana_fit.plot("marginals")
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_import_jensen_imports_no_plotting_library():
    heavy = "{'matplotlib', 'jinja2', 'arviz'} & set(sys.modules)"
    code = f"import sys, jensen; sys.exit(1 if {heavy} else 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_notebooks_show_the_figure(scalar_fit):
    assert scalar_fit.plot("trace")._repr_png_().startswith(b"\x89PNG")


def test_scalars_are_chosen_first_then_each_site_in_turn_and_the_worst(hostile_fit):
    draws = Draws(hostile_fit)
    assert draws.size == 61
    draws.worst = f"{'ü' * 60}[42]"
    names = [c.name for c in draws.chosen(5)]
    assert names[0] == HOSTILE
    assert names[-1] == draws.worst
    assert len(names) == 5


def test_labels_are_never_mathematics():
    assert text("a\n  b") == "a b"
    assert text("$x$") == r"\$x\$"
    assert len(text("x" * 100)) == 26


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.nan, "not available"), (np.inf, "∞"), (-np.inf, "−∞"), (-1234.5, "−1,234.50"), (0.0, "0.00")],
)
def test_numbers_in_words(value, shown):
    assert number(value) == shown


def test_window_means_skip_what_is_not_finite():
    values = np.arange(1000.0)
    values[5] = np.nan
    at, means = window_means(values)
    assert at[-1] == 1000
    assert means[1] == pytest.approx(14.5)
    assert np.isfinite(means).all()


def test_an_early_climb_does_not_flatten_the_plot():
    values = np.concatenate([np.linspace(-1e6, -1, 100), np.random.default_rng(0).normal(size=900)])
    low, high = y_limits(values, window_means(values)[1], 0.0)
    assert -10 < low < -2 < 2 < high < 10


def test_the_density_integrates_to_one_and_follows_the_weights():
    x = np.random.default_rng(0).normal(size=4000)
    weights = np.exp(x) / np.exp(x).sum()  # N(0, 1) tilted by exp(x) is N(1, 1)
    span = reach(x, weights)
    for w, mean in ((None, 0.0), (weights, 1.0)):
        grid, density = smooth_density(x, w, span)
        mass = density * (grid[1] - grid[0])
        assert mass.sum() == pytest.approx(1, abs=0.01)
        assert (mass * grid).sum() == pytest.approx(mean, abs=0.1)
    assert bandwidth(np.zeros(10)) == 1.0


def test_the_information_of_each_latent_is_its_kl(images_fit):
    """Draws from known Gaussians against the formula; few draws give no bias."""
    mean, sd = np.array([[0.0, 1.0, -2.0]]), np.array([[1.0, 0.5, 0.1]])
    z = mean + sd * np.random.default_rng(0).normal(size=(16, 4000, 3))
    exact = 0.5 * (sd**2 + mean**2 - 1 - 2 * np.log(sd))[0]
    np.testing.assert_allclose(kl_by_latent(images_fit, z), exact, atol=0.02)


def test_the_information_of_a_bit_is_its_kl(table_fit):
    z = (np.random.default_rng(0).uniform(size=(4000, 50, 4)) < 0.9).astype(float)
    exact = 0.9 * np.log(0.9) + 0.1 * np.log(0.1) + np.log(2)
    np.testing.assert_allclose(kl_by_latent(table_fit, z), exact, atol=0.01)


def test_the_density_of_a_positive_quantity_stays_positive():
    assert reach(np.random.default_rng(0).exponential(size=4000), None)[0] >= 0


@pytest.mark.parametrize(
    ("shape", "image"),
    [((64,), (8, 8)), ((784,), (28, 28)), ((9,), None), ((65,), None), ((28, 28), (28, 28)), ((28, 28, 1), (28, 28)),
     ((32, 32, 3), (32, 32, 3)), ((3, 2), None)],
)  # fmt: skip
def test_which_rows_are_images(shape, image):
    assert image_shape(shape) == image


def test_observed_sites_are_the_data(numpyro_fit):
    observed = observed_sites(numpyro_fit)
    np.testing.assert_allclose(observed["y"], Y, rtol=1e-6)
    np.testing.assert_array_equal(observed["count"], COUNTS)
    np.testing.assert_array_equal(observed["binary"], BINARY)


def test_values_that_a_mask_hides_are_not_data():
    def model(y, mask):
        loc = numpyro.sample("loc", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=y, obs_mask=mask)

    made = from_numpyro(model, Y, Y > 0)
    values = next(iter(observed_sites(types.SimpleNamespace(model=made)).values()))
    np.testing.assert_array_equal(np.isnan(values), Y <= 0)
