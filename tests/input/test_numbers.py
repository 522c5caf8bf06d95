"""One rule for numbers: each kind of array on each path gives the right numbers, or is refused by name."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse
import xarray
from numpyro.contrib.control_flow import scan
from numpyro.infer import Predictive
from scipy.special import betaln, gammaln

import jensen as jn
from jensen import arrays
from jensen.errors import DataError
from jensen.fit.em_rows import checked as em_rows
from jensen.fit.em_rows import opened
from jensen.fit.minibatch import Stream
from jensen.fit.rows import as_rows
from jensen.models import GaussianMixture
from jensen.zoo import ProbabilisticPCA

RNG = np.random.default_rng(0)
VALUES = np.array([[3.0, 1.0], [5.0, 0.0], [7.0, 1.0], [2.0, 1.0], [8.0, 0.0]])
QUICK = {"n_steps": 60, "optimizer": 1e-2, "progress": False, "n_draws": 512}


def of_numpyro(x):
    def model(x):
        numpyro.sample("m", dist.Normal(0, 1))
        numpyro.deterministic("seen", jnp.asarray(x, float))

    made = jn.from_numpyro(model, x)
    return np.asarray(made.deterministics({"m": jnp.zeros(())})["seen"])


def of_stan(x):
    from jensen.models.adapters.stan import _json

    return np.asarray(_json({"x": x})["x"])


PATHS = {
    "rows": lambda x: np.asarray(arrays.lifted(as_rows(x))),
    "in a dictionary": lambda x: np.asarray(arrays.lifted(as_rows({"x": x}))["x"]),
    "numpyro": of_numpyro,
    "stan": of_stan,
    "em": lambda x: em_rows(GaussianMixture(1), opened(x)),
    "zoo": lambda x: ProbabilisticPCA(1)._rows(x, reset=True),
}


class Series:
    """Duck-typed as polars: nulls beside the values."""

    shape = (5,)

    def __init__(self, values, gone):
        self.values, self.gone = np.asarray(values), np.asarray(gone)

    def to_numpy(self):
        return np.where(self.gone, np.nan, self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype) if not self.gone.any() else self.to_numpy()

    def is_null(self):
        return self.gone

    def fill_null(self, value):
        return Series(np.where(self.gone, value, self.values), np.zeros(5, bool))


class Frame:
    shape, columns = (5, 2), ["a", "b"]

    def __init__(self, gone=False):
        self.gone = np.arange(5) == (2 if gone else -1)

    def __getitem__(self, name):
        return Series(VALUES[:, self.columns.index(name)].astype(int), self.gone)

    def to_numpy(self):
        raise AssertionError("missing integers would become floats")


GOOD = {
    "float32": lambda: VALUES.astype(np.float32),
    "float16": lambda: VALUES.astype(np.float16),
    "bfloat16": lambda: VALUES.astype(ml_dtypes.bfloat16),
    "longdouble": lambda: VALUES.astype(np.longdouble),
    "big-endian": lambda: VALUES.astype(">f8"),
    "big-endian int": lambda: VALUES.astype(">i4"),
    "int8": lambda: VALUES.astype(np.int8),
    "uint16": lambda: VALUES.astype(np.uint16),
    "int64": lambda: VALUES.astype(np.int64),
    "fortran, strided": lambda: np.asfortranarray(np.repeat(VALUES, 2, 0))[::2],
    "matrix": lambda: np.asmatrix(VALUES),
    "jax": lambda: jnp.asarray(VALUES),
    "masked, nothing masked": lambda: np.ma.array(VALUES, mask=False),
    "list of lists": lambda: VALUES.astype(int).tolist(),
    "data frame": lambda: pd.DataFrame(VALUES, columns=["a", "b"]),
    "mixed frame": lambda: pd.DataFrame({"a": VALUES[:, 0].astype(int), "b": VALUES[:, 1] > 0}),
    "nullable": lambda: pd.DataFrame(VALUES.astype(int)).astype({0: "Int64", 1: "boolean"}),
    "Float64": lambda: pd.DataFrame(VALUES).astype("Float64"),
    "arrow": lambda: pd.DataFrame(VALUES).astype("double[pyarrow]"),
    "sparse columns": lambda: pd.DataFrame(VALUES).astype(pd.SparseDtype(float, 0.0)),
    "xarray": lambda: xarray.DataArray(VALUES, dims=("i", "columns"), coords={"columns": ["a", "b"]}),
    "polars-like": Frame,
}
STATIC = ("numpyro", "stan")  # there a list is a list


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_array_is_read_alike(kind, path):
    if path in STATIC and kind == "list of lists":
        pytest.skip("a list is an argument of the model's own there")
    np.testing.assert_array_equal(PATHS[path](GOOD[kind]()), VALUES)


def with_mask(dtype):
    return np.ma.array(VALUES.astype(dtype), mask=np.arange(10).reshape(5, 2) == 4)


MISSING = {
    "masked": lambda: with_mask(float),
    "masked integers": lambda: with_mask(int),
    "Int64 with NA": lambda: pd.DataFrame({"a": pd.array([3, 5, None, 2, 8], "Int64"), "b": VALUES[:, 1]}),
    "arrow with null": lambda: pd.DataFrame({"a": [3, 5, None, 2, 8], "b": VALUES[:, 1]}).astype("double[pyarrow]"),
    "polars-like with null": lambda: Frame(gone=True),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MISSING)
def test_what_is_missing_is_never_data(kind, path):
    """NaN where EM integrates it out; refused elsewhere."""
    if path == "zoo" or path == "em":
        read = PATHS[path](MISSING[kind]())
        assert np.isnan(read[2, 0]) and (~np.isnan(read)).sum() >= 8
        np.testing.assert_array_equal(read[~np.isnan(read)], VALUES[~np.isnan(read)])
        return
    with pytest.raises(DataError, match="missing") as error:
        PATHS[path](MISSING[kind]())
    assert "because:" in str(error.value) and "instead:" in str(error.value)


REFUSED = {
    "complex": lambda: VALUES + 1j,
    "strings": lambda: VALUES.astype(str),
    "object": lambda: np.array([[1, "a"], [None, 2]], object),
    "datetime": lambda: VALUES.astype("datetime64[s]"),
    "timedelta": lambda: VALUES.astype("timedelta64[s]"),
    "structured": lambda: np.zeros(5, [("a", int), ("b", float)]),
    "sparse": lambda: scipy.sparse.csr_array(VALUES),
    "categorical": lambda: pd.DataFrame({"a": pd.Categorical([3, 5, 7, 2, 8]), "b": VALUES[:, 1]}),
    "dates": lambda: pd.DataFrame({"a": pd.date_range("2020", periods=5), "b": VALUES[:, 1]}),
    "dates with a zone": lambda: pd.DataFrame({"a": pd.date_range("2020", periods=5, tz="UTC")}),
    "dataset": lambda: xarray.Dataset({"a": ("i", VALUES[:, 0])}),
    "infinite": lambda: np.where(VALUES == 7, np.inf, VALUES),
    "integers that floats beside them would round": lambda: pd.DataFrame(
        {"a": 2**60 + np.arange(5), "b": VALUES[:, 1]}
    ),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_table_of_numbers_is_refused(kind, path):
    if path == "stan" and kind == "infinite":
        pytest.skip("a bound may be infinite")
    with pytest.raises((DataError, ValueError, TypeError)) as error:
        PATHS[path](REFUSED[kind]())
    if path != "zoo":  # scikit-learn refuses some itself
        assert "because:" in str(error.value) and "instead:" in str(error.value)


def test_data_are_a_copy():
    mine = VALUES.copy()
    held, model = as_rows(mine), jn.from_numpyro(lambda x: numpyro.sample("m", dist.Normal(x.sum(), 1)), mine)
    before = model.log_density({"m": jnp.zeros(())})
    mine[:] = 99
    np.testing.assert_array_equal(held, VALUES)
    assert model.log_density({"m": jnp.zeros(())}) == before
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 1


# ---- precision ---------------------------------------------------------------------------------------------------
T = 1.6e9 + np.arange(60.0)
NOISE = np.random.default_rng(4).normal(size=60)
LOST = {
    "unix time": T,
    "unix time, integers": T.astype(np.int64),
    "unix time, 32 bits": T.astype(np.int32),
    "20,000,000 and noise": 2e7 + NOISE,
    "event times of years": 1.5e9 + np.cumsum(np.random.default_rng(1).exponential(50, 60_000)),
    "beside another column": np.c_[NOISE, T],
    "a sentinel among them": np.r_[0.0, T],
    "one row": T[None],
    "ids past 2^31": 2**40 + np.arange(60),
    "past the largest": np.r_[1.0, 1e300],
    "below the smallest": np.r_[1.0, 1e-60],
}
KEPT = {
    "normal": NOISE,
    "years": 2000 + 20 * np.random.default_rng(2).random(5000),
    "days over ten years, in seconds": 1.3e9 + 86400.0 * np.arange(3650),
    "heavy tails": np.random.default_rng(3).standard_cauchy(5000),
    "zeros and log-normals": np.where(NOISE > 0, 0, np.exp(3 * NOISE)),
    "a constant but for double's own rounding": np.where(NOISE > 0, 0.3, 0.1 + 0.2),
    "columns of other sizes": np.c_[NOISE, 1e9 * NOISE, 1e-9 * NOISE],
    "whole numbers": 1e7 + np.arange(50.0),
    "indices": np.arange(0, 30_000_000, 1000),
    "pixels": np.random.default_rng(5).integers(0, 256, (50, 64)) / 255,
    "sorted": np.sort(np.random.default_rng(6).normal(size=20_000)),
    "keys": np.array([0, 2**32 - 1], np.uint32),
}


@pytest.mark.parametrize("kind", LOST)
def test_what_single_precision_would_change_is_refused_there_and_kept_in_double(kind):
    rows = as_rows(LOST[kind])
    with pytest.raises(DataError, match=r"single precision") as error:
        arrays.lifted(rows)
    assert "enable_x64(True)" in str(error.value)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(np.asarray(arrays.lifted(rows)), LOST[kind])


@pytest.mark.parametrize("kind", KEPT)
def test_ordinary_data_are_taken_in_single_precision(kind):
    np.testing.assert_allclose(np.asarray(arrays.lifted(as_rows(KEPT[kind]))), KEPT[kind], rtol=1e-7)


def line(t, y=None):
    a, b = numpyro.sample("a", dist.Normal(0, 10)), numpyro.sample("b", dist.Normal(0, 1))
    s = numpyro.sample("s", dist.HalfNormal(2))
    with numpyro.plate("rows", t.shape[0]):
        numpyro.sample("y", dist.Normal(a + b * (t - 1.6e9), s), obs=y)


Y = 2 + 0.03 * np.arange(60) + NOISE


def in_rows(z, row):
    scale = jnp.exp(z[2])
    return -0.5 * ((row[1] - z[0] - z[1] * (row[0] - 1.6e9)) / scale) ** 2 - z[2]


DENSITY = jn.models.LogDensity(lambda z: -0.5 * (z / jnp.array([10, 1, 1.0]) @ z), (3,), log_likelihood=in_rows)
SLOPES = {
    "function": lambda t: jn.fit(line, (t, Y)).summary().loc["b"],
    "from_numpyro": lambda t: jn.fit(jn.from_numpyro(line, t, Y)).summary().loc["b"],
    "rows": lambda t: jn.fit(DENSITY, np.c_[t, Y]).summary().iloc[1],
}


@pytest.mark.parametrize("path", SLOPES)
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_the_slope_on_unix_time_is_least_squares(path, dtype):
    slope, cov = np.polyfit(np.arange(60), Y, 1, cov=True)
    found = SLOPES[path](T.astype(dtype))
    assert abs(found["mean"] - slope[0]) < 0.2 * cov[0, 0] ** 0.5
    assert abs(found["sd"] / cov[0, 0] ** 0.5 - 1) < 0.1


BY_STEPS = {
    "function": lambda: jn.fit(line, (T, Y), method="gradient", **QUICK),
    "from_numpyro": lambda: jn.fit(jn.from_numpyro(line, T, Y), method="gradient", **QUICK),
    "minibatches": lambda: jn.fit(DENSITY, np.c_[T, Y], batch_size=10, **QUICK),
    "fit.sample of rows": lambda: arrays.lifted(as_rows({"t": T})),
    "gradient_lab": lambda: jn.gradient_lab(DENSITY, data=np.c_[T, Y]),
}


@pytest.mark.parametrize("path", BY_STEPS)
def test_single_precision_refuses_time_stamps_on_every_path(path):
    with pytest.raises(DataError, match="single precision"):
        BY_STEPS[path]()


def test_stochastic_gradients_in_double_find_the_slope_and_stay_in_double(tmp_path):
    with jax.enable_x64(True):
        fit = jn.fit(line, (T, Y), method="gradient", family="full-rank", n_steps=3000, progress=False)
    assert fit.double and fit.sample(3)["b"].dtype == np.float64
    assert abs(fit.summary().loc["b"]["mean"] - np.polyfit(np.arange(60), Y, 1)[0]) < 0.01
    assert fit.predict(4)["y"].shape == (4, 60)
    fit.save(tmp_path)
    again = jn.load(tmp_path, model=line, data=(T, Y))
    np.testing.assert_array_equal(again.predict(4)["y"], fit.predict(4)["y"])
    assert np.isfinite(again.loo().elpd)


def test_files_are_read_in_the_precision_in_force(tmp_path):
    np.save(tmp_path / "t.npy", np.c_[T, Y])
    np.save(tmp_path / "wide.npy", np.c_[NOISE, Y].astype(np.longdouble))
    np.save(tmp_path / "big.npy", np.c_[NOISE, Y].astype(">f8"))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "nan.npy", np.where(np.arange(120).reshape(60, 2) == 7, np.nan, 1.0))
    mapped = lambda name: jn.data.load_table(tmp_path / name, mapped=True)
    with pytest.raises(DataError, match="single precision"):
        jn.fit(DENSITY, mapped("t.npy"), **QUICK)
    with pytest.raises(DataError, match="row 3 has NaN"):
        jn.fit(DENSITY, mapped("nan.npy"), **QUICK)
    with jax.enable_x64(True):
        stream = Stream(mapped("t.npy"), 20, 0, 3)  # the second chunk is read by a thread
        for rows, weight in (stream.get(0), stream.get(3)):
            assert rows.dtype == weight.dtype == np.float64
            np.testing.assert_array_equal(np.sort(rows.reshape(-1, 2)[:, 0]), T)
    for name in ("wide.npy", "big.npy"):
        assert mapped(name)[:].dtype == np.float32
        np.testing.assert_allclose(mapped(name)[:], np.c_[NOISE, Y], rtol=1e-6)
    with pytest.raises(DataError, match="not numeric"):
        mapped("words.npy")


def test_em_in_single_precision_refuses_what_it_would_blur():
    data = np.c_[T, Y]
    assert np.isfinite(jn.em(GaussianMixture(1), data).log_likelihood)
    with pytest.raises(DataError, match="single precision"):
        jn.em(GaussianMixture(1), data, double=False)


def test_masked_entries_are_missing_for_em():
    y = np.ma.array(np.r_[RNG.normal(5, 1, 60), 1e6][:, None], mask=np.arange(61)[:, None] == 60)
    found = jn.em(GaussianMixture(1), np.ma.hstack([y, np.ma.array(RNG.normal(size=(61, 1)))]))
    assert abs(float(np.ravel(found.params.components.means)[0]) - y.mean()) < 0.05


# ---- the life after the fit ----------------------------------------------------------------------------------------
def binomial(trials, k=None):
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    with numpyro.plate("i", trials.shape[0]):
        numpyro.sample("k", dist.Binomial(trials, probs=p), obs=k)


TRIALS, K = np.array([10, 20, 30]), np.array([3, 8, 9])


def walk(y, future=0):
    s = numpyro.sample("s", dist.HalfNormal(1))
    drift = numpyro.sample("drift", dist.Normal(0, 1))

    def step(last, _):
        new = numpyro.sample("y", dist.Normal(last + drift, s))
        return new, new

    with numpyro.handlers.condition(data={"y": y[1:]}):
        scan(step, y[0], jnp.arange(y.shape[0] - 1 + future))


def poisson(exposure, y=None):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate * exposure).to_event(1), obs=y)


@pytest.fixture(scope="module")
def counts():
    return jn.fit(jn.from_numpyro(binomial, TRIALS, K))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float64, np.float32])
@pytest.mark.parametrize("k", [{}, {"k": None}])
def test_binomials_are_drawn_for_trials_of_any_dtype(counts, dtype, k):
    drawn = counts.predict(2000, trials=TRIALS.astype(dtype), **k)["k"]
    p = counts.sample(4000)["p"]
    sd = np.sqrt(TRIALS * p.mean() * (1 - p.mean()) + TRIALS**2 * p.var())
    assert (np.abs(drawn.mean(0) - TRIALS * p.mean()) < 5 * sd / 2000**0.5).all()


def test_everything_after_a_fit_of_counts_works(counts, tmp_path):
    ones = (gammaln(TRIALS + 1) - gammaln(K + 1) - gammaln(TRIALS - K + 1)).sum()
    assert abs(counts.evidence().log_evidence - ones - betaln(1 + K.sum(), 1 + (TRIALS - K).sum())) < 0.02
    assert np.isfinite(counts.log_prob(counts.sample(3))).all()
    assert counts.to_arviz(8).log_likelihood["k"].shape == (1, 8, 3)
    assert counts.plot("predictive") is not None
    counts.save(tmp_path)
    again = jn.load(tmp_path, model=binomial, data=(TRIALS, K))
    np.testing.assert_array_equal(again.predict(5)["k"], counts.predict(5)["k"])
    table = jn.compare({"one": counts, "other": again})
    assert table["elpd"].iloc[0] == table["elpd"].iloc[1]


def test_a_forecast_is_that_of_numpyro():
    y = np.cumsum(0.3 + 0.5 * np.random.default_rng(8).normal(size=40))
    fit = jn.fit(jn.from_numpyro(walk, y))
    n = 4000
    mine, draws = fit.predict(n, future=4)["y"], fit.sample(n)
    with jax.enable_x64(True):
        theirs = np.asarray(Predictive(walk, dict(draws))(jax.random.PRNGKey(1), jnp.asarray(y), future=4)["y"])
    ahead = lambda a: np.asarray(a)[:, -4:]
    error = np.sqrt((ahead(mine).var(0) + ahead(theirs).var(0)) / n)
    assert (np.abs(ahead(mine).mean(0) - ahead(theirs).mean(0)) < 5 * error).all()
    np.testing.assert_allclose(ahead(mine).std(0), ahead(theirs).std(0), rtol=0.1)


def test_counts_for_new_exposures_are_those_of_numpyro():
    exposure, y = np.array([1.0, 2.0, 4.0], np.float32), np.array([2, 3, 9])
    fit = jn.fit(jn.from_numpyro(poisson, exposure, y))
    new = np.array([3, 30, 300])
    draws = fit.predict(4000, exposure=new, y=None)["y"]
    rate = fit.sample(4000)["rate"]
    np.testing.assert_allclose(draws.mean(0), new * rate.mean(), rtol=0.05)


def test_calibration_in_double_precision_simulates_counts():
    fit = jn.fit(jn.from_numpyro(binomial, TRIALS, K), method="natural-gradient")
    assert fit.calibrate(20).n_failed == 0
