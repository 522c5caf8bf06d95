"""Boltzmann machines against enumeration: conditionals, gradients, the bias of CD, mean field, log Z and its intervals."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from scipy import stats

import jensen as jn
from jensen.algorithms import ContrastiveDivergence
from jensen.algorithms.contrastive_divergence import _gradient, centred, independent, tempered
from jensen.algorithms.pseudo_likelihood import pseudo_log_likelihood
from jensen.batch import Batch
from jensen.diagnostics.partition import enumerated, log_partition, log_prob_by_annealing, schedule
from jensen.fit.energy import fit_energy, pretrained
from jensen.models.annealed import AnnealedPath
from jensen.models.deep_boltzmann import halves
from jensen.tree import split_trainable


def shaken(machine, seed=0, spread=0.8):
    """The machine with parameters far from 0."""
    rng = np.random.default_rng(seed)
    noise = lambda a: jnp.asarray(spread * rng.standard_normal(a.shape), a.dtype)
    moved = jax.tree.map(noise, (machine.weights, machine.biases))
    return eqx.tree_at(lambda m: (m.weights, m.biases), machine, moved)


def small(kind):
    make = {
        "RBM": lambda: jn.models.RBM(4, 3),
        "categorical": lambda: jn.models.RBM(6, 3, "categorical", n_categories=3),
        "DBM": lambda: jn.models.DBM((3, 3, 2)),
        "deep": lambda: jn.models.DBM((3, 2, 2, 2)),
    }
    return shaken(make[kind]())


KINDS = "RBM", "categorical", "DBM", "deep"


def table(machine):
    """(even states, odd states, log weights (E, O)) of all joint states."""
    states = [machine.all_states(h, np.arange(int(machine.n_states(h)))) for h in (0, 1)]
    n, m = (len(s[0]) for s in states)
    even = tuple(jnp.repeat(a, m, 0) for a in states[0])
    odd = tuple(jnp.tile(a, (n, 1)) for a in states[1])
    return *states, machine.log_weight(even, odd).reshape(n, m)


@pytest.mark.parametrize("kind", KINDS)
def test_conditionals_and_marginals_are_those_of_the_joint(kind):
    machine = small(kind)
    even, odd, log_w = table(machine)
    np.testing.assert_allclose(machine.log_marginal(even, 0), logsumexp(log_w, axis=1), atol=1e-10)
    np.testing.assert_allclose(machine.log_marginal(odd, 1), logsumexp(log_w, axis=0), atol=1e-10)
    for half, states, others, axis in ((1, odd, even, 1), (0, even, odd, 0)):
        p = jax.nn.softmax(log_w, axis=axis)
        p = p if axis == 1 else p.T
        for mean, layer in zip(machine.means(others, half), states, strict=True):
            np.testing.assert_allclose(mean, p @ layer, atol=1e-10)
    for half in (0, 1):
        assert enumerated(machine, half) == pytest.approx(float(logsumexp(log_w)), abs=1e-9)


def test_states_of_wide_machines_are_counted():
    wide = jn.models.RBM(3000, 5)
    assert (wide.n_states(0), wide.n_states(1)) == (2**3000, 32)
    assert log_partition(wide).method == "exact"
    with pytest.raises(jn.OptionError, match="2\\^1500"):
        log_partition(jn.models.RBM(3000, 1500), "exact")


def test_an_rbm_by_its_own_names():
    machine = small("RBM")
    (v,), (h,), log_w = table(machine)
    np.testing.assert_allclose(machine.free_energy(v), -logsumexp(log_w, axis=1), atol=1e-10)
    np.testing.assert_allclose(machine.hidden_free_energy(h), -logsumexp(log_w, axis=0), atol=1e-10)
    np.testing.assert_array_equal(machine.most_probable_hidden(v), h[jnp.argmax(log_w, axis=1)])
    np.testing.assert_allclose(machine.hidden_given(v), jax.nn.softmax(log_w, 1) @ h, atol=1e-10)
    np.testing.assert_allclose(machine.visible_given(h), jax.nn.softmax(log_w, 0).T @ v, atol=1e-10)
    np.testing.assert_allclose(machine.energy((v,), (h[:1].repeat(len(v), 0),)), -log_w[:, 0], atol=1e-10)


def gaussian():
    machine = shaken(jn.models.RBM(2, 3, "gaussian"))
    return eqx.tree_at(lambda m: m.units[0].log_variance, machine, jnp.array([0.3, -0.5]))


def test_real_visibles_against_quadrature():
    machine = gaussian()
    grid = np.linspace(-14, 14, 561)
    v = jnp.asarray(np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2))
    log_f = machine.log_marginal((v,), 0)
    log_z = float(logsumexp(log_f)) + 2 * np.log(grid[1] - grid[0])
    assert enumerated(machine, 1) == pytest.approx(log_z, abs=1e-8)
    h = machine.all_states(1, np.arange(8))
    given = jax.nn.softmax(machine.log_weight((v,), (jnp.broadcast_to(h[0][5], (len(v), 3)),)))
    np.testing.assert_allclose(machine.means(h, 0)[0][5], given @ v, atol=1e-8)
    spread = given @ v**2 - (given @ v) ** 2
    np.testing.assert_allclose(spread, np.exp(machine.units[0].log_variance), atol=1e-8)
    assert log_partition(machine).method == "exact"


# ---- gradients ------------------------------------------------------------------------------------------------------
def log_z_of(machine, half):
    states = machine.all_states(half, np.arange(int(machine.n_states(half))))
    return logsumexp(machine.log_marginal(states, half))


@pytest.mark.parametrize("kind", ["RBM", "categorical", "gaussian", "DBM"])
def test_the_two_phases_make_the_gradient_of_the_likelihood(kind):
    """With exact posteriors and an enumerated negative phase, `_gradient` is that of the mean log-likelihood."""
    machine = gaussian() if kind == "gaussian" else small(kind)
    deep = len(machine.units) > 2
    if kind == "gaussian":  # the second phase by quadrature
        grid = np.linspace(-14, 14, 561)
        states = (jnp.asarray(np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)),)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    else:
        states = machine.all_states(0, np.arange(int(machine.n_states(0))))
        x = jnp.unique(states[0], axis=0)[:5]
    mass = jax.nn.softmax(machine.log_marginal(states, 0))
    if deep:  # all values of the second hidden layer with each row, weighed by its posterior
        h2 = jnp.unique(states[1], axis=0)
        up = (jnp.repeat(x, len(h2), 0), jnp.tile(h2, (len(x), 1)))
        log_p = machine.log_marginal(up, 0).reshape(len(x), -1)
        share = (jax.nn.softmax(log_p, 1) / len(x)).reshape(-1)
    else:
        up, share = (x,), jnp.full(len(x), 1 / len(x))
    even = tuple(jnp.concatenate(pair) for pair in zip(up, states, strict=True))
    weight = jnp.concatenate([share, -mass])
    found = _gradient(machine, even, machine.means(even, 1), weight, share, x, None)
    diff, rest = split_trainable(machine)

    def likelihood(diff):
        m = eqx.combine(diff, rest)
        log_p = m.log_marginal(up, 0).reshape(len(x), -1)
        return logsumexp(log_p, axis=1).mean() - log_z_of(m, 1)

    wanted = jax.grad(likelihood)(diff)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_centring_is_a_step_in_the_centred_parametrisation():
    machine = small("DBM")
    offsets = tuple(jnp.asarray(np.random.default_rng(i).random(u.size)) for i, u in enumerate(machine.units))
    x = machine.all_states(0, np.arange(4))[0]

    def likelihood(weights, biases):
        m = eqx.tree_at(lambda m: (m.weights, m.biases), machine, (weights, biases))
        h2 = jnp.unique(m.all_states(0, np.arange(int(m.n_states(0))))[1], axis=0)
        up = (jnp.repeat(x, len(h2), 0), jnp.tile(h2, (len(x), 1)))
        return logsumexp(m.log_marginal(up, 0).reshape(len(x), -1), axis=1).mean() - log_z_of(m, 1)

    def plain(weights, biases):
        b = list(biases)
        for i, w in enumerate(weights):
            b[i], b[i + 1] = b[i] - w @ offsets[i + 1], b[i + 1] - w.T @ offsets[i]
        return weights, tuple(b)

    shifted = list(machine.biases)
    for i, w in enumerate(machine.weights):
        shifted[i], shifted[i + 1] = shifted[i] + w @ offsets[i + 1], shifted[i + 1] + w.T @ offsets[i]
    step = jax.grad(lambda p: likelihood(*plain(*p)))((machine.weights, tuple(shifted)))
    wanted = plain(*step)  # the map back is linear
    grads = jax.grad(lambda p: likelihood(*p))((machine.weights, machine.biases))
    found = centred(eqx.tree_at(lambda m: (m.weights, m.biases), machine, grads), offsets)
    for a, b in zip(jax.tree.leaves((found.weights, found.biases)), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def expected_cd(machine, x, k):
    """E of the CD-k gradient by the Gibbs kernel on visible states."""
    (v,), _, log_w = table(machine)
    kernel = jax.nn.softmax(log_w, 1) @ jax.nn.softmax(log_w, 0).T
    at = jnp.asarray([int(jnp.argmax((v == row).all(1))) for row in x])
    start = jnp.zeros(len(v)).at[at].add(1 / len(x))
    end = start @ jnp.linalg.matrix_power(kernel, k)
    even = (jnp.concatenate([x, v]),)
    weight = jnp.concatenate([jnp.full(len(x), 1 / len(x)), -end])
    return _gradient(machine, even, machine.means(even, 1), weight, weight, x, None)


def flat(tree):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves((tree.weights, tree.biases))])


def test_the_bias_of_cd_shrinks_with_k():
    machine = small("RBM")
    x = machine.all_states(0, np.array([3, 3, 5, 12]))[0]
    exact = flat(expected_cd(machine, x, 4000))
    errors = [np.linalg.norm(flat(expected_cd(machine, x, k)) - exact) for k in (1, 2, 3, 5, 8)]
    assert all(b < 0.5 * a for a, b in itertools.pairwise(errors))
    assert errors[0] > 1e-3 and errors[-1] < 1e-6


def test_a_step_of_cd_is_unbiased_for_its_kernel():
    """z-test of 19 numbers, family-wise level 1e-4 (|z| < 4.6); the control is the wrong k."""
    machine = small("RBM")
    x = jnp.tile(machine.all_states(0, np.array([3, 5]))[0], (50, 1))
    for k in (1, 3):
        algorithm = ContrastiveDivergence(k, persistent=False, machine=machine)
        carry = algorithm.init(jr.key(0), Batch(x, None))[2]
        one = lambda key, a=algorithm, c=carry: a.estimate(key, machine, Batch(x, None), c)[0]
        grads = jax.jit(jax.vmap(one))(jr.split(jr.key(k), 400))
        draws = np.concatenate([np.asarray(g).reshape(400, -1) for g in (*grads.weights, *grads.biases)], 1)
        z = lambda k, d=draws: (d.mean(0) - flat(expected_cd(machine, x, k))) / (d.std(0) / np.sqrt(400))
        assert np.abs(z(k)).max() < 4.6
        assert np.abs(z(4 - k)).max() > 4.6


def test_padding_rows_count_for_nothing():
    machine = small("RBM")
    x = machine.all_states(0, np.arange(4))[0]
    algorithm = ContrastiveDivergence(machine=machine)
    padded = Batch(jnp.concatenate([x, x[:2]]), jnp.array([5.0, 5, 5, 5, 0, 0]))
    carry = algorithm.init(jr.key(0), padded)[2]
    chains = Batch(x, jnp.full(4, 5.0))
    a, _, value = algorithm.estimate(jr.key(1), machine, padded, carry)
    b, _, same = algorithm.estimate(jr.key(1), machine, chains, carry)
    np.testing.assert_allclose(flat(a), flat(b), atol=1e-12)
    assert np.isfinite(value) and np.isfinite(same)


@pytest.mark.parametrize("kind", ["RBM", "categorical"])
def test_the_monitor_is_the_pseudo_likelihood(kind):
    """Each value is one of the exact conditionals; their mean is the pseudo log-likelihood."""
    machine = small(kind)
    v, _, log_w = table(machine)
    v, log_p, size = v[0], logsumexp(log_w, axis=1), machine.units[0].group
    x = v[6]
    rest = [np.delete(np.asarray(v == x), np.s_[g * size : (g + 1) * size], 1).all(1) for g in range(len(x) // size)]
    exact = np.array([float(log_p[6] - logsumexp(log_p[same])) for same in rest])
    rows = jnp.tile(x, (64, 1))
    found = np.asarray(pseudo_log_likelihood(machine, jr.key(0), rows, machine.fields((rows,), 1)))
    distance = np.abs(found[:, None] - len(exact) * exact)
    assert distance.min(1).max() < 1e-9
    assert len(set(distance.argmin(1))) == len(exact)


# ---- chains ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["RBM", "DBM"])
def test_gibbs_and_tempered_chains_keep_the_machine(kind):
    """Frequencies of the even states after many sweeps of 4,000 chains: chi-squared, level 1e-4; the control is beta < 1."""
    machine = small(kind)
    even, _, log_w = table(machine)
    p = np.exp(np.asarray(logsumexp(log_w, axis=1) - logsumexp(log_w)))
    code = lambda layers: np.asarray(jnp.concatenate(layers, 1)) @ 2 ** np.arange(sum(a.shape[1] for a in layers))
    order = np.argsort(code(even))
    count = lambda layers: np.bincount(code(layers).astype(int), minlength=len(p))
    pvalue = lambda layers: stats.chisquare(count(layers), 4000 * p[order]).pvalue
    start = machine.at_random(jr.key(0), 4000, 1)
    assert pvalue(jax.jit(lambda key, odd: machine.gibbs(key, odd, 60))(jr.key(1), start)[0]) > 1e-4
    path = AnnealedPath(machine, independent(machine))
    odd = machine.at_random(jr.key(2), 12_000, 1)
    run = jax.jit(lambda key, odd: tempered(key, path, odd, 1, 3))
    for i in range(60):
        even_now, odd = run(jr.key(i), odd)
    assert pvalue(tuple(a[-4000:] for a in even_now)) > 1e-4
    assert pvalue(tuple(a[4000:8000] for a in even_now)) < 1e-4


# ---- mean field -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["DBM", "deep"])
def test_the_bound_rises_with_sweeps_and_stays_below(kind):
    machine = small(kind)
    even, _, log_w = table(machine)
    x = jnp.unique(even[0], axis=0)
    log_p = logsumexp(log_w, axis=1)
    exact = jnp.stack([logsumexp(log_p[(even[0] == row).all(1)]) for row in x])
    mu = machine.first_guess(x)
    bounds = []
    for _ in range(15):
        bounds.append(machine.bound(x, mu))
        mu = machine.mean_field(x, mu, n_sweeps=1)
    assert (np.diff(np.stack(bounds), axis=0) > -1e-10).all()
    assert (machine.bound(x) <= exact + 1e-9).all()
    settled = machine.mean_field(x, tolerance=1e-8)
    for a, b in zip(settled, machine.mean_field(x, settled, n_sweeps=1), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    loose = eqx.tree_at(lambda m: m.weights, machine, jax.tree.map(lambda w: 1e-9 * w, machine.weights))
    log_p = np.asarray(loose.bound(x)) - enumerated(loose, 0)
    b = np.asarray(loose.biases[0])
    np.testing.assert_allclose(log_p, (x * b - np.logaddexp(0, b)).sum(1), atol=1e-6)  # no links: exact


def test_a_recognition_network_learns_where_mean_field_ends():
    rng = np.random.default_rng(0)
    x = (rng.random((300, 1)) < 0.5) ^ (rng.random((300, 6)) < 0.1)
    with jax.enable_x64(False):
        machine = shaken(jn.models.DBM((6, 4, 3), recognition=True), spread=0.3)
        fit = fit_energy(machine, x.astype(np.float32), n_steps=3000, batch_size=100, optimizer=0.1)
    m, rows = fit.machine, jnp.asarray(x[:100], jnp.float32)
    distance = lambda guess: sum(
        float(jnp.abs(a - b).mean()) for a, b in zip(guess, m.mean_field(rows, n_sweeps=200), strict=True)
    )
    bottom_up = eqx.tree_at(lambda m: m.recognition, m, None)
    assert distance(m.first_guess(rows)) < min(0.1, distance(bottom_up.first_guess(rows)))


# ---- log Z ----------------------------------------------------------------------------------------------------------
SEEDS = 60
LEAST = int(stats.binom.ppf(1e-4, SEEDS, 0.95))  # fewer than this at a coverage of 95 %: one time in 10,000


@pytest.mark.parametrize("kind", ["RBM", "DBM"])
def test_annealing_covers_log_z_and_one_step_does_not(kind):
    """Coverage over seeds at the binomial level 1e-4, and of the bracket with the reverse runs; one temperature fails."""
    machine = shaken(jn.models.RBM(9, 7) if kind == "RBM" else jn.models.DBM((7, 10, 3)), spread=1.2)
    half = 0 if kind == "RBM" else 1
    exact = enumerated(machine, half)
    states = machine.all_states(half, np.arange(int(machine.n_states(half))))
    p = np.asarray(jax.nn.softmax(machine.log_marginal(states, half)))

    def run(seed, temperatures):
        index = np.random.default_rng([seed, 1]).choice(len(p), 100, p=p / p.sum())
        options = {"n_chains": 100, "temperatures": temperatures, "seed": seed}
        up = log_partition(machine, "ais", **options)
        return up, log_partition(machine, "reverse", samples=tuple(s[index] for s in states), **options)

    runs = [run(seed, 200) for seed in range(SEEDS)]
    assert sum(up.lower <= exact <= up.upper for up, _ in runs) >= LEAST
    assert sum(down.lower <= exact <= down.upper for _, down in runs) >= LEAST
    assert sum(up.lower <= exact <= down.upper for up, down in runs) >= LEAST
    assert np.mean([up.ess for up, _ in runs]) > 0.5
    wild = shaken(machine, spread=4.0)
    exact = enumerated(wild, half)
    coarse = [log_partition(wild, "ais", n_chains=100, temperatures=2, seed=seed) for seed in range(SEEDS)]
    assert sum(up.lower <= exact <= up.upper for up in coarse) < LEAST


def test_reverse_annealing_from_rows_is_close_to_the_likelihood():
    machine = small("RBM")
    (v,), _, log_w = table(machine)
    exact = np.asarray(logsumexp(log_w, axis=1) - logsumexp(log_w))
    found = log_prob_by_annealing(machine, v, n_chains=100, temperatures=500)
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_the_schedule():
    betas = schedule()
    assert len(betas) == 14_500
    counts = [((betas > a) & (betas <= b)).sum() for a, b in ((0, 0.5), (0.5, 0.9), (0.9, 1))]
    np.testing.assert_allclose(counts, [500, 4000, 10_000], atol=1)
    assert (np.diff(schedule(50)) > 0).all() and schedule(50)[-1] == 1


# ---- deep belief networks -------------------------------------------------------------------------------------------
def test_a_belief_network_is_bounded_and_estimated():
    """p(x) = sum_h p(x | h) p_top(h) by enumeration."""
    stack = shaken(jn.models.RBM(4, 3), 1), shaken(jn.models.RBM(3, 2), 2)
    net = jn.models.DBN(stack)
    h = stack[1].all_states(0, np.arange(8))[0]
    log_top = stack[1].log_marginal((h,), 0)
    log_z = float(logsumexp(log_top))
    x = stack[0].all_states(0, np.arange(16))[0]
    p = stack[0].visible_given(h)
    log_x = x @ jnp.log(p).T + (1 - x) @ jnp.log1p(-p).T
    exact = logsumexp(log_x + log_top - log_z, axis=1)
    assert float(logsumexp(exact)) == pytest.approx(0, abs=1e-9)
    weights = net.log_weights(jr.key(0), x, 4000)
    estimate, bound = logsumexp(weights, axis=0) - np.log(4000) - log_z, weights.mean(0) - log_z
    se = np.asarray(jnp.exp(weights - weights.max(0)).std(0) / jnp.exp(weights - weights.max(0)).mean(0)) / 4000**0.5
    assert (np.abs(estimate - exact) / se).max() < 5.0
    assert (bound < exact).all()


def test_greedy_pre_training_doubles_inputs():
    rng = np.random.default_rng(0)
    x = ((rng.random((200, 1)) < 0.5) ^ (rng.random((200, 6)) < 0.1)).astype(np.float32)
    with jax.enable_x64(False):
        machine = pretrained(jn.models.DBM((6, 4, 3, 2)), x, n_steps=200, batch_size=50, optimizer=0.1)
    assert [w.shape for w in machine.weights] == [(6, 4), (4, 3), (3, 2)]
    gains = [jn.models.RBM(4, 3, gains=g) for g in ((2.0, 1.0), (1.0, 2.0))]
    v = jnp.ones((1, 4))
    np.testing.assert_allclose(gains[0].inputs((v,), 1)[0], 2 * gains[1].inputs((v,), 1)[0])
    assert float(jnp.abs(machine.weights[0]).max()) > 0.05  # it has moved


# ---- learning, verdicts, refusals -----------------------------------------------------------------------------------
def test_what_is_learned_and_what_the_verdict_says():
    rng = np.random.default_rng(0)
    x = ((rng.random((500, 1)) < 0.5) ^ (rng.random((500, 8)) < 0.1)).astype(np.float32)
    with jax.enable_x64(False):
        # uniform pixels: -5.545; the source's own entropy: -3.22
        fits = {
            name: jn.fit(jn.models.RBM(8, 4), x, method=method, n_steps=1500, batch_size=100, seed=1)
            for name, method in {
                "pcd": "pcd",
                "cd": "cd",
                "centred": ContrastiveDivergence(2, centred=True, weight_decay=1e-4, sparsity=(0.5, 0.01)),
                "tempered": ContrastiveDivergence(n_temperatures=3),
            }.items()
        }
        for name, fit in fits.items():
            assert fit.score_samples(x).mean() > -4.4, name
            assert str(fit.verdict) != "UNRELIABLE", name
            assert fit.history[-100:].mean() > fit.history[:100].mean(), name
        pcd = fits["pcd"]
        assert pcd.sample(7).shape == (7, 8) and pcd.gibbs(x[:3], 2).shape == (3, 8)
        assert np.exp(pcd.score_samples(np.asarray(jn.models.RBM(8, 1).all_states(0, np.arange(256))[0]))).sum() == (
            pytest.approx(1, abs=1e-4)
        )
        wild = jn.fit(jn.models.RBM(8, 4), x, optimizer=1e3, n_steps=300, batch_size=100)
    assert str(wild.verdict) == "UNRELIABLE"
    assert any("explode" in r or "diverged" in r for r in wild.reasons)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((5, 4), 2.0), "values from 2 to 2"),
        (np.full((5, 4), np.nan), "not finite"),
        (np.zeros((5, 3)), "4 visible units"),
        (np.zeros((0, 4)), "no rows"),
        (None, "rows"),
    ],
)
def test_bad_rows_are_refused(data, message):
    with pytest.raises(jn.JensenError, match=message):
        jn.fit(jn.models.RBM(4, 3), data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jn.models.RBM(4, 0), "positive whole number"),
        (lambda: jn.models.RBM(4, 3, "poisson"), "no such units"),
        (lambda: jn.models.RBM(5, 3, "categorical", n_categories=2), "groups"),
        (lambda: ContrastiveDivergence(0), "k=0"),
        (lambda: ContrastiveDivergence(weight_decay=-1.0), "negative"),
        (lambda: ContrastiveDivergence(sparsity=(2.0, 0.1)), "sparsity"),
        (lambda: ContrastiveDivergence(persistent=False, n_temperatures=3), "n_temperatures"),
        (lambda: log_partition(jn.models.RBM(40, 30), "exact"), "joint states"),
        (lambda: log_partition(jn.models.RBM(4, 3), "magic"), "no such method"),
        (lambda: log_partition(jn.models.RBM(4, 3), "reverse"), "samples"),
        (lambda: log_partition(jn.models.RBM(4, 3), "ais", temperatures=np.array([0.0, 0.5])), "rise from 0 to 1"),
        (lambda: jn.fit(jn.models.RBM(4, 3), np.zeros((5, 4)), method="laplace"), "it is not for such a model"),
        (lambda: jn.fit(jn.models.RBM(4, 3), np.zeros((5, 4)), family="full-rank"), "without q"),
        (lambda: jn.fit(jn.models.RBM(4, 3), np.zeros((5, 4)), optimizer=-1.0), "not positive"),
        (lambda: jn.fit(jn.models.RBM(4, 2, "categorical", n_categories=2), np.ones((5, 4))), "sums to"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(jn.JensenError, match=message):
        call()


def test_halves_weave_layers():
    assert halves(jnp.zeros((1, 2)), (jnp.ones((1, 3)), 2 * jnp.ones((1, 4))))[0][1].shape == (1, 4)
