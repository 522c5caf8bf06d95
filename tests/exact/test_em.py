"""EM against exact references: scikit-learn's optimum, brute-force marginals, enumeration of paths; and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn import decomposition, mixture

import jensen as jn
from jensen.algorithms import em as loops
from jensen.diagnostics.naive import importance_log_evidence, naive_log_evidence
from jensen.fit import em_rows
from jensen.fit.em_rows import stacked
from jensen.models import (
    BernoulliMixture,
    ConjugatePrior,
    FactorAnalysis,
    FactorialHMM,
    GaussianMixture,
    HiddenMarkov,
    Mixture,
    MixtureOfPPCA,
    ProbabilisticPCA,
    gaussian_components,
)  # fmt: skip
from jensen.models.components import Categorical, Poisson
from jensen.models.factor import varimax
from jensen.models.factorial import FactorialParams
from jensen.models.gaussian_components import GaussianParams, Gaussians, dense
from jensen.models.markov import MarkovParams

KINDS = "full", "tied", "diag", "spherical"
ROUNDING = 1e-9  # nats a row: a larger fall of the likelihood is one


@pytest.fixture(scope="module")
def clusters():
    rng = np.random.default_rng(0)
    which = rng.integers(3, size=150)
    return 3 * rng.normal(size=(3, 3))[which] + rng.normal(size=(150, 3)) * [1, 2, 0.5]


@pytest.fixture(scope="module")
def holes(clusters):
    """A fifth of the entries missing, one row altogether."""
    x = clusters.copy()
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    x[7] = np.nan
    return x


@pytest.fixture(scope="module")
def factors():
    rng = np.random.default_rng(2)
    noise = np.linspace(0.7, 1.5, 7)
    return rng.normal(size=(400, 2)) @ rng.normal(size=(2, 7)) + noise * rng.normal(size=(400, 7)) + 3


def sequences(lengths=(6, 4), d=2, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(t, d)) + 2 * (np.arange(t) // 2 % 2)[:, None] for t in lengths]


def falls(fit):
    return np.maximum(-np.diff(fit.history), 0).max(initial=0) / fit.n_rows


# ---- scikit-learn ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_gaussian_mixture_ends_at_the_optimum_of_scikit_learn_from_the_same_start(clusters, kind):
    theirs = mixture.GaussianMixture(3, covariance_type=kind, reg_covar=0, tol=0.1, random_state=0)
    rough = jn.zoo.GaussianMixture.from_sklearn(theirs.fit(clusters)).fit_.params
    theirs.set_params(warm_start=True, tol=1e-14, max_iter=5000).fit(clusters)
    ours = jn.em(GaussianMixture(3, kind, ridge=0.0), clusters, params=rough, tol=1e-13, n_iter=5000)
    assert abs(ours.log_likelihood / len(clusters) - theirs.score(clusters)) < 1e-9
    assert np.allclose(ours.params.components.means, theirs.means_, atol=1e-6)
    assert np.allclose(ours.params.weights, theirs.weights_, atol=1e-6)
    assert ours.converged and falls(ours) < ROUNDING and ours.verdict == "RELIABLE"
    assert np.isclose(ours.bic, theirs.bic(clusters), atol=1e-4) and np.isclose(
        ours.aic, theirs.aic(clusters), atol=1e-4
    )


def test_factor_analysis_ends_at_the_optimum_of_scikit_learn(factors):
    theirs = decomposition.FactorAnalysis(2, svd_method="lapack", tol=1e-12, max_iter=100_000).fit(factors)
    ours = jn.em(FactorAnalysis(2), factors, tol=1e-14, n_iter=5000)
    assert abs(ours.log_likelihood / len(factors) - theirs.score(factors)) < 1e-9
    assert np.allclose(ours.params.noise, theirs.noise_variance_, atol=1e-5)
    w = ours.params.components
    assert np.allclose(w.T @ w, theirs.components_.T @ theirs.components_, atol=1e-5)
    assert falls(ours) < ROUNDING and ours.verdict == "RELIABLE"


def test_closed_form_of_probabilistic_pca_is_where_em_ends(factors):
    closed = jn.em(ProbabilisticPCA(2), factors)
    climbed = jn.em(ProbabilisticPCA(2, closed_form=False), factors, tol=1e-14)
    theirs = decomposition.PCA(2).fit(factors)
    w, n = closed.params.components, len(factors)
    covariance = (w.T @ w + np.diag(closed.params.noise)) * n / (n - 1)
    assert closed.n_iter <= 3 and np.allclose(covariance, theirs.get_covariance(), atol=1e-9)
    assert abs(closed.log_likelihood - climbed.log_likelihood) < 1e-6 * n
    assert np.allclose(climbed.params.noise, closed.params.noise, atol=1e-6)


def test_varimax_is_a_rotation_and_raises_its_criterion(factors):
    w = jn.em(FactorAnalysis(2), factors).params.components
    turned, rotation = varimax(w)
    criterion = lambda a: ((a**4).mean(1) - (a**2).mean(1) ** 2).sum()
    assert np.allclose(rotation.T @ rotation, np.eye(2)) and np.allclose(turned.T @ turned, w.T @ w)
    angles = np.linspace(0, np.pi, 2000)
    best = max(criterion(np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) @ w) for t in angles)
    assert criterion(turned) >= best - 1e-6


# ---- missing values -------------------------------------------------------------------------------------------------
def marginal(x, weights, means, covariances):
    """log p of what is observed of each row, row by row."""
    out = []
    for row in x:
        o = ~np.isnan(row)
        parts = [np.log(w) + (multivariate_normal(m[o], c[np.ix_(o, o)]).logpdf(row[o]) if o.any() else 0.0)
                 for w, m, c in zip(weights, means, covariances, strict=True)]  # fmt: skip
        out.append(logsumexp(parts))
    return np.array(out)


@pytest.mark.parametrize("kind", [*KINDS, "low-rank"])
def test_mixture_with_missing_values_has_the_marginal_likelihood_and_climbs_it(holes, kind):
    model = MixtureOfPPCA(2, 1) if kind == "low-rank" else GaussianMixture(2, kind, ridge=0.0)
    fit = jn.em(model, holes, n_iter=30, n_starts=2)
    inner = fit.params.components
    exact = marginal(holes, fit.params.weights, inner.means, dense(inner.covariances, 2))
    assert np.allclose(fit.log_prob(holes), exact, atol=1e-9)
    assert np.isclose(fit.log_likelihood, exact.sum(), atol=1e-7)
    assert falls(fit) < (1e-5 if kind == "low-rank" else ROUNDING)


def test_imputed_values_are_conditional_means(holes):
    fit = jn.em(GaussianMixture(1, ridge=0.0), holes)
    inner = fit.params.components
    mean, cov = inner.means[0], inner.covariances[0]
    filled = fit._apply(Mixture.imputed, holes)
    for row, got in zip(holes[:20], filled[:20], strict=True):
        o = ~np.isnan(row)
        want = row.copy()
        want[~o] = mean[~o] + cov[np.ix_(~o, o)] @ np.linalg.solve(cov[np.ix_(o, o)], row[o] - mean[o])
        assert np.allclose(got, want)


@pytest.mark.parametrize("make", [FactorAnalysis, ProbabilisticPCA])
def test_factors_with_missing_values_have_the_marginal_likelihood_and_climb_it(factors, make):
    x = factors.copy()
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    fit = jn.em(make(2), x, n_iter=60)
    w = fit.params.components
    exact = marginal(x, [1.0], [fit.params.mean], [w.T @ w + np.diag(fit.params.noise)])
    assert np.allclose(fit.log_prob(x), exact, atol=1e-9) and np.isclose(fit.log_likelihood, exact.sum(), atol=1e-6)
    assert falls(fit) < ROUNDING and (fit.converged or make is FactorAnalysis)


# ---- chains ---------------------------------------------------------------------------------------------------------
def by_paths(initial, transitions, log_b):
    """(log p(x), P(s_t | x), the best path), from all K^T paths."""
    t, k = log_b.shape
    paths = np.array(list(itertools.product(range(k), repeat=t)))
    log_p = np.log(np.maximum(initial, 1e-300))[paths[:, 0]] + log_b[np.arange(t), paths].sum(1)
    log_p += np.log(np.maximum(transitions, 1e-300))[paths[:, :-1], paths[:, 1:]].sum(1)
    total = logsumexp(log_p)
    share = np.exp(log_p - total)
    return total, np.array([[share[paths[:, i] == s].sum() for s in range(k)] for i in range(t)]), paths[log_p.argmax()]


@pytest.mark.parametrize("emission", ["gaussian", "bernoulli", "poisson", "categorical"])
def test_hidden_markov_equals_enumeration_over_paths(emission):
    data = sequences()
    if emission != "gaussian":
        data = [np.clip(np.round(x), 0, 1 if emission == "bernoulli" else 3) for x in data]
    fit = jn.em(HiddenMarkov(3, emission), data, n_iter=5, n_starts=1)
    states = fit.posterior(data)
    paths = fit._apply(HiddenMarkov.viterbi, data)
    model, params = fit.model, fit.params
    for i, x in enumerate(data):
        log_b = np.asarray(model.components.evaluate(params.components, jnp.asarray(x))[0])
        total, share, best = by_paths(params.initial, params.transitions, log_b)
        assert np.isclose(fit.log_prob(data)[i], total) and np.allclose(states[i, : len(x)], share)
        assert np.array_equal(paths[i, : len(x)], best) and (paths[i, len(x) :] == -1).all()
    assert falls(fit) < (1e-5 if emission == "gaussian" else ROUNDING)


def test_a_missing_step_and_a_missing_entry_are_integrated_out():
    x = sequences((5,))[0]
    x[2], x[3, 0] = np.nan, np.nan
    fit = jn.em(HiddenMarkov(2, Gaussians("diag", ridge=0.0)), [x], n_iter=4, n_starts=1)
    p = fit.params
    log_b = np.zeros((5, 2))
    for t, s in itertools.product(range(5), range(2)):
        o = ~np.isnan(x[t])
        spread = np.sqrt(p.components.covariances[s, o])
        z = (x[t, o] - p.components.means[s, o]) / spread
        log_b[t, s] = -0.5 * (z**2 + np.log(2 * np.pi) + 2 * np.log(spread)).sum()
    assert np.isclose(fit.log_likelihood, by_paths(p.initial, p.transitions, log_b)[0]) and falls(fit) < ROUNDING


def factorial_params(m, k, d, seed=0):
    rng = np.random.default_rng(seed)
    simplex = lambda *shape: rng.dirichlet(np.ones(k), shape)
    root = rng.normal(size=(d, d)) / 2
    return FactorialParams(simplex(m), simplex(m, k), rng.normal(size=(m, k, d)), root @ root.T + np.eye(d), np.ones(d))


def test_factorial_hmm_is_the_product_hmm_and_the_variational_bound_lies_below():
    p, x = factorial_params(2, 2, 2), stacked(sequences((6, 4)))
    exact, bound = FactorialHMM(2, 2), FactorialHMM(2, 2, "structured", 30)
    joint = list(itertools.product(range(2), repeat=2))
    initial = np.array([p.initial[0, a] * p.initial[1, b] for a, b in joint])
    moves = np.array([[p.transitions[0, a, c] * p.transitions[1, b, e] for c, e in joint] for a, b in joint])
    means = np.array([p.means[0, a] + p.means[1, b] for a, b in joint])
    covariances = np.broadcast_to(p.covariance, (4, 2, 2))
    product = HiddenMarkov(4, Gaussians(ridge=0.0))
    inner = GaussianParams(means, covariances, np.zeros(4), np.zeros(2), np.ones(2))
    want = jax.jit(product.log_prob)(MarkovParams(initial, moves, inner), x)
    got, below = jax.jit(exact.log_prob)(p, x), jax.jit(bound.log_prob)(p, x)
    assert np.allclose(got, want) and (below < got).all() and (below > got - 0.5).all()
    states = np.asarray(jax.jit(product.posterior)(MarkovParams(initial, moves, inner), x))
    first = states[..., :2].sum(-1)  # chain 0 in state 0
    assert np.allclose(np.asarray(jax.jit(exact.posterior)(p, x))[:, :, 0, 0], first)


@pytest.mark.parametrize("inference", ["exact", "structured"])
def test_factorial_hmm_climbs(inference):
    fit = jn.em(FactorialHMM(2, 2, inference), sequences((30, 20)), n_iter=40, n_starts=2)
    assert falls(fit) < (ROUNDING if inference == "exact" else 1e-3)
    exact = jax.jit(FactorialHMM(2, 2).log_prob)(fit.params, jnp.asarray(stacked(sequences((30, 20)))))
    assert fit.log_likelihood <= float(exact.sum()) + 1e-9


# ---- every model climbs ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_posterior_mode_climbs_the_penalised_objective_and_stops_where_its_gradient_is_zero(clusters, kind):
    prior = ConjugatePrior(concentration=2.0, pull=1.5, scale=0.5)
    fit = jn.em(GaussianMixture(2, kind, ridge=0.0, prior=prior), clusters, tol=1e-14, n_starts=1)
    assert falls(fit) < ROUNDING and fit.objective != fit.log_likelihood

    def objective(change):
        inner = fit.params.components
        moved = inner._replace(means=inner.means + change[0], covariances=inner.covariances * jnp.exp(change[1]))
        params = fit.params._replace(components=moved)
        return fit.model.log_prob(params, jnp.asarray(clusters)).sum() + fit.model.log_prior(params)

    gradient = jax.jit(jax.grad(objective))((jnp.zeros_like(fit.params.components.means), jnp.zeros(())))
    assert all(np.abs(g).max() < 1e-3 for g in gradient)


@pytest.mark.parametrize(
    "model", [BernoulliMixture(2, pseudo=1.0), Mixture(2, Poisson(1.0)), Mixture(2, Categorical(4, 1.0))]
)
def test_counts_and_bits_climb_with_values_missing(model):
    rng = np.random.default_rng(0)
    high = 2 if "Bernoulli" in repr(model) else 4
    x = rng.integers(high, size=(80, 5)).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    fit = jn.em(model, x, n_iter=50, n_starts=2)
    assert falls(fit) < ROUNDING and np.isfinite(fit.objective)


def test_negative_control_a_wrong_m_step_is_seen_to_fall(clusters):
    model = GaussianMixture(2, ridge=0.0).bound_to(clusters)
    data = loops.Chunks(jnp.asarray(clusters)[None], jnp.ones((1, len(clusters))))
    params = jax.jit(model.start)(jr.key(0), clusters, False)
    state = jax.jit(loops.begun, static_argnums=3)(model, params, data, 30)
    good = jax.jit(loops.climb)(model, state, data, 1e-9, 30)
    spoiled = params._replace(components=good.params.components._replace(covariances=params.components.covariances * 2))
    after = jax.jit(model.e_step)(spoiled, data.rows[0], data.weights[0])[0]
    before = good.log_likelihood
    assert good.fall <= 1 and (before - after) / len(clusters) > ROUNDING


# ---- weights, chunks, batches, files ----------------------------------------------------------------------------------
@pytest.mark.parametrize("model", [GaussianMixture(2, ridge=0.0), FactorAnalysis(1)])
def test_statistics_add_over_chunks_and_a_weight_is_a_repetition(clusters, model):
    x = clusters[:90]
    weights = np.random.default_rng(0).integers(0, 3, size=90)
    bound = model.bound_to(x)
    params = jax.jit(bound.start)(jr.key(0), x, False)
    whole = jax.jit(bound.e_step)(params, jnp.asarray(np.repeat(x, weights, 0)), jnp.ones(weights.sum()))
    shaped = loops.Chunks(jnp.asarray(x).reshape(3, 30, -1), jnp.asarray(weights, float).reshape(3, 30))
    chunked = jax.jit(loops.expect)(bound, params, shaped)
    assert all(np.allclose(a, b) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True))


@pytest.mark.parametrize("model", [GaussianMixture(2, ridge=0.0), FactorAnalysis(2)])
def test_moved_statistics_are_those_about_the_new_parameters(clusters, model):
    x, ones = jnp.asarray(clusters), jnp.ones(len(clusters))
    bound = model.bound_to(clusters)
    old = jax.jit(bound.start)(jr.key(0), x, False)
    statistics = jax.jit(bound.e_step)(old, x, ones)[1]
    m_step = jax.jit(bound.m_step)
    new = m_step(old, statistics)
    again = m_step(new, jax.jit(bound.rebased)(statistics, old, new))  # the same statistics: the same maximum
    compare = lambda a, b: np.allclose(a, b, atol=1e-8)
    if isinstance(bound, Mixture):
        assert compare(new.components.means, again.components.means)
        assert compare(new.components.covariances, again.components.covariances)
    else:
        assert compare(new.noise, again.noise) and compare(new.mean, again.mean)
        assert compare(new.components.T @ new.components, again.components.T @ again.components)


def test_stochastic_em_comes_close_and_says_that_it_may_fall(clusters):
    full = jn.em(GaussianMixture(2), clusters, n_starts=1, init="k-means")
    fit = jn.em(GaussianMixture(2), clusters, batch_size=30, n_epochs=15, n_starts=1, init="k-means")
    assert abs(fit.log_likelihood - full.log_likelihood) < 0.02 * len(clusters)
    assert any("Stochastic" in r for r in fit.reasons)


def test_a_file_is_fitted_as_the_array_is(clusters, tmp_path, monkeypatch):
    monkeypatch.setattr(em_rows, "BLOCK_BYTES", 64 * clusters.itemsize * 3)
    monkeypatch.setattr(gaussian_components, "CHUNK", 32)
    np.save(tmp_path / "x.npy", clusters)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    options = {"n_starts": 1, "init": "k-means"}
    a, b = jn.em(GaussianMixture(2), clusters, **options), jn.em(GaussianMixture(2), mapped, **options)
    assert np.isclose(a.log_likelihood, b.log_likelihood, atol=1e-5) and a.converged and b.converged


# ---- what is refused, repaired, reported ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (GaussianMixture(9), np.zeros((4, 2)), "at least 9 are needed"),
        (GaussianMixture(2), np.array([[1.0, np.inf], [0, 0]]), "infinite"),
        (GaussianMixture(2), np.array([[1.0, np.nan], [0, np.nan]]), "column 1 has no value"),
        (GaussianMixture(2), np.zeros(5), "shape"),
        (GaussianMixture(2), np.array([["a"], ["b"]]), "dtype"),
        (BernoulliMixture(2), np.array([[0.0, 2.0], [1, 1]]), "probabilities of bits"),
        (Mixture(2, Poisson()), np.array([[0.5], [1]]), "counts"),
        (GaussianMixture(2), np.zeros((0, 2)), "shape"),
    ],
)
def test_data_that_cannot_be_used_are_refused_with_a_remedy(model, data, says):
    with pytest.raises(jn.DataError, match=says) as error:
        jn.em(model, data)
    assert "instead:" in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: GaussianMixture(0), lambda x: GaussianMixture(2, "round"), lambda x: GaussianMixture(2, ridge=-1.0),
        lambda x: HiddenMarkov(2, "beta"), lambda x: FactorialHMM(13, 2), lambda x: ConjugatePrior(scale=0.0),
        lambda x: jn.em(FactorAnalysis(3), x), lambda x: jn.em(GaussianMixture(2), x, tol=-1),
        lambda x: jn.em(GaussianMixture(2), x, n_starts=0), lambda x: jn.em(GaussianMixture(2), x, decay=0.3),
        lambda x: jn.em(GaussianMixture(2), x, batch_size=1000), lambda x: jn.fit(GaussianMixture(2), x, n_samples=3),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(clusters, wrong):
    with pytest.raises(jn.OptionError, match="instead:"):
        wrong(clusters)


def test_weights_that_make_no_sense_are_refused(clusters):
    with pytest.raises(jn.DataError, match="weights"):
        jn.em(GaussianMixture(2), clusters, weights=-np.ones(len(clusters)))


def test_collapse_is_kept_finite_and_reported():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)), np.full((6, 2), 9.0)])  # six equal rows: a point mass
    fit = jn.em(GaussianMixture(2, ridge=0.0), x)
    assert np.isfinite(fit.log_likelihood) and fit.verdict == "UNRELIABLE"
    assert any("collapsed" in r for r in fit.reasons) and any("repaired" in r for r in fit.reasons)


def test_singular_columns_are_reported_and_a_constant_one_is_harmless(clusters):
    twice = np.column_stack([clusters, clusters[:, 0]])
    assert any("functions of the others" in r for r in jn.em(GaussianMixture(1), twice).reasons)
    constant = np.column_stack([clusters, np.full(len(clusters), 5.0)])
    assert np.isfinite(jn.em(FactorAnalysis(1), constant, n_iter=50).log_likelihood)


def test_a_fit_that_is_cut_short_is_not_reliable(clusters):
    fit = jn.em(GaussianMixture(3), clusters, n_iter=2)
    assert fit.verdict != "RELIABLE" and any("not converged" in r for r in fit.reasons)


def test_fit_of_such_a_model_is_em(clusters):
    a, b = jn.fit(GaussianMixture(2), clusters, seed=1), jn.em(GaussianMixture(2), clusters, seed=1)
    assert a.log_likelihood == b.log_likelihood


# ---- naive Monte Carlo evidence -----------------------------------------------------------------------------------------
def test_naive_evidence_fails_where_importance_sampling_does_not():
    """20 latents, 20,000 draws: the prior misses the posterior by tens of nats; a posterior widened by 1.1 does not."""
    rng, k, n = np.random.default_rng(0), 20, 20_000
    w, noise = rng.normal(size=(k, 40)), 0.25
    x = jnp.asarray(rng.normal(size=k) @ w + np.sqrt(noise) * rng.normal(size=40))
    exact = multivariate_normal(np.zeros(40), w.T @ w + noise * np.eye(40)).logpdf(x)
    log_normal = lambda a, variance: -0.5 * (a**2 / variance + jnp.log(2 * jnp.pi * variance)).sum()
    log_likelihood = lambda z: log_normal(x - z @ w, noise)
    draws = jr.normal(jr.key(0), (n, k))
    precision = np.eye(k) + w @ w.T / noise
    mean, root = np.linalg.solve(precision, w @ x / noise), 1.1 * np.linalg.cholesky(np.linalg.inv(precision))
    log_det = np.log(np.diag(root)).sum()
    log_weight = lambda e: (
        log_likelihood(mean + root @ e) + log_normal(mean + root @ e, 1.0) - log_normal(e, 1.0) + log_det
    )
    assert naive_log_evidence(log_likelihood, draws) < exact - 10
    assert abs(importance_log_evidence(log_weight, draws) - exact) < 0.05
