"""ArviZ: the verdict's draws with their log p and log q, log-likelihoods and data."""

import numpy as np
import pytest
from scipy import stats

from jensen.errors import JensenError
from jensen.report.arviz import to_inference_data

from .conftest import X, Y

az = pytest.importorskip("arviz")


def test_numpyro_groups_and_summary(numpyro_fit):
    data = numpyro_fit.to_arviz()
    assert set(data.groups()) == {"posterior", "sample_stats", "observed_data", "log_likelihood"}
    assert data.posterior.sizes["chain"] == 1
    assert data.posterior.sizes["draw"] == len(numpyro_fit.log_p)
    np.testing.assert_array_equal(data.sample_stats["lp"].values[0], numpyro_fit.log_p)
    np.testing.assert_array_equal(data.sample_stats["log_q"].values[0], numpyro_fit.log_q)
    table, own = az.summary(data, hdi_prob=0.9), numpyro_fit.summary()
    for name in own.index[own["undetermined"] == ""].intersection(table.index):
        assert table.loc[name, "mean"] == pytest.approx(own.loc[name, "mean"], abs=2e-3)
    assert data.attrs == {} or data.posterior.attrs["verdict"] == str(numpyro_fit.verdict)


@pytest.mark.parametrize("name", ["climbed_fit", "chains_fit", "laplace_fit"])
def test_a_ladder_names_its_method_and_what_its_draws_are(name, request, tmp_path):
    fit = request.getfixturevalue(name)
    data = az.from_netcdf(fit.to_arviz().to_netcdf(str(tmp_path / "fit.nc")))
    for group in data.groups():
        attributes = data[group].attrs
        assert attributes["method"] == fit.options["method"]
        assert attributes["verdict"] == str(fit.verdict)
        assert attributes["corrected"] == fit.corrected
        assert attributes["evaluations"] == fit.options["evaluations"]
    assert data.posterior.sizes["draw"] == len(fit.log_p) == 512
    np.testing.assert_array_equal(data.sample_stats["lp"].values[0], fit.log_p)
    np.testing.assert_array_equal(data.sample_stats["log_q"].values[0], fit.log_q)


def test_a_fit_by_gradients_has_no_method(banana_fit):
    attributes = banana_fit.to_arviz().posterior.attrs
    assert "method" not in attributes
    assert attributes["corrected"] == "none"


def test_the_log_likelihood_is_that_of_the_model(numpyro_fit):
    data = numpyro_fit.to_arviz(7)
    slope, scale = (data.posterior[n].values[0][:, None] for n in ("slope", "scale"))
    expected = stats.norm.logpdf(Y, slope * X, scale)
    np.testing.assert_allclose(data.log_likelihood["y"].values[0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(data.observed_data["y"].values, Y, rtol=1e-6)


def test_the_pointwise_terms_of_a_log_density(rows_fit):
    data = rows_fit.to_arviz(5)
    a, b = (data.posterior[n].values[0][:, None] for n in ("a", "b"))
    expected = -0.5 * (Y - a - b * X) ** 2
    np.testing.assert_allclose(data.log_likelihood["row"].values[0], expected, rtol=1e-4, atol=1e-5)
    assert set(data.observed_data) == {"x", "y"}
    assert np.isfinite(az.loo(rows_fit.to_arviz()).elpd_loo)


def test_coordinates_and_dimensions_have_their_names(numpyro_fit):
    data = numpyro_fit.to_arviz(coords={"team": ["a", "b", "c"]}, dims={"group": ["team"]})
    assert data.posterior["group"].dims == ("chain", "draw", "team")
    assert list(data.posterior["team"].values) == ["a", "b", "c"]


def test_a_latent_without_a_name_is_z(banana_fit):
    data = banana_fit.to_arviz()
    assert data.posterior["z"].shape == (1, len(banana_fit.log_p), 2)
    assert set(data.groups()) == {"posterior", "sample_stats"}


@pytest.mark.parametrize("dims", [{}, {"z": ["factor"]}, {"z": ["row", "factor"]}])
def test_a_latent_for_each_row_has_an_axis_of_rows(images_fit, dims):
    data = images_fit.to_arviz(dims=dims)
    assert data.posterior["z"].dims[:3] == ("chain", "draw", "row")
    assert data.sample_stats["lp"].dims == ("chain", "draw", "row")
    assert data.posterior["z"].shape[2:] == (*images_fit.log_p.shape[1:], 3)


@pytest.mark.parametrize("n", [0, -1, 10**6, True, 2.5])
def test_draws_that_do_not_exist_are_refused(banana_fit, n):
    with pytest.raises(JensenError, match="the fit holds 512 draws"):
        banana_fit.to_arviz(n)


def test_replicated_data_on_request(numpyro_fit, banana_fit):
    data = to_inference_data(numpyro_fit, 6, predictive=True)
    assert data.posterior_predictive["y"].shape == (1, 6, 40)
    with pytest.raises(JensenError, match="cannot generate data"):
        to_inference_data(banana_fit, predictive=True)


def test_fits_without_model_or_with_nan_are_written_too(without_model, broken_fit, tmp_path):
    for fit in (without_model, broken_fit):
        path = fit.to_arviz().to_netcdf(str(tmp_path / "fit.nc"))
        assert az.from_netcdf(path).posterior.sizes["draw"] == len(fit.log_p)
