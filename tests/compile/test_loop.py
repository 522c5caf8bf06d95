"""The compiled loop: what is compiled when, and that nothing but steps decides."""

import os
import signal

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import jensen as jn
from jensen.algorithms.gradient_vi import Optimiser
from jensen.compiled import Recent
from jensen.fit import loop, minibatch
from jensen.fit.monitor import Status

X = np.random.default_rng(0).normal(size=(53, 3)).astype(np.float32)


def gaussian(shift: float = 0.0) -> jn.models.LogDensity:
    return jn.models.LogDensity(lambda z: -0.5 * ((z - shift) ** 2).sum() - 0.1 * z[0] * z[1], (3,))


def regression() -> jn.models.LogDensity:
    row = lambda z, x: -0.5 * (x[0] - x[1:] @ z) ** 2
    return jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,), log_likelihood=row)


def quick(model, data=None, **options):
    settings = dict(family="mean-field", optimizer=1e-2, n_steps=300, progress=False, n_draws=512)
    return jn.fit(model, data, **{**settings, **options})


def leaves(fit):
    return [np.asarray(a) for a in jax.tree.leaves((fit.family.loc, fit.family.log_scale, fit.history))]


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_second_fit_compiles_nothing(compilations):
    """Not even with another seed, other data, a new optimiser object, a re-made closure or another number of steps."""
    make = lambda: jn.models.LogDensity(lambda z, x: -0.5 * ((z - x.mean(0)) ** 2).sum(), (3,))
    quick(make(), X, optimizer=optax.adam(1e-2))
    again = lambda: quick(make(), X[::-1].copy(), optimizer=optax.adam(1e-2), seed=7, n_steps=123)
    assert compilations(again)[1] == 0


def test_other_code_compiles_again(compilations):
    """The negative control: another operation is another function."""
    quick(gaussian(0.25))
    other = jn.models.LogDensity(lambda z: gaussian(0.25).fn(z) - 0.1 * (z**4).sum(), (3,))
    assert compilations(lambda: quick(other))[1] > 0


def test_optimiser_equality():
    assert Optimiser(optax.adam(1e-2)) == Optimiser(optax.adam(1e-2))
    assert Optimiser(optax.adam(1e-2)) != Optimiser(optax.adam(1e-3))
    assert Optimiser(optax.chain(optax.clip(1.0), optax.sgd(0.1))) == Optimiser(
        optax.chain(optax.clip(1.0), optax.sgd(0.1))
    )


@pytest.mark.parametrize("batch_size", [None, 10])
def test_chunk_borders_do_not_matter(batch_size, monkeypatch):
    """The same bits from chunks of any length, in the middle of an epoch too."""
    one = quick(regression(), X, batch_size=batch_size)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e-9)
    loop._PACE.clear()
    many = quick(regression(), X, batch_size=batch_size)
    loop._PACE.clear()
    assert same(one, many)


def test_same_seed_same_bits_other_seed_other_bits():
    assert same(quick(gaussian(), seed=3), quick(gaussian(), seed=3))
    assert not same(quick(gaussian(), seed=3), quick(gaussian(), seed=4))


def test_resume_from_a_checkpoint_is_bit_exact(tmp_path, monkeypatch):
    """Interrupted in the middle and continued: as if nothing had happened."""
    options = dict(n_steps=2000, batch_size=10)
    whole = quick(regression(), X, **options)
    monkeypatch.setattr(loop, "_PACE", Recent(8))  # short chunks at first, as in a new process
    stop = lambda step, values: step >= 100
    part = quick(regression(), X, checkpoint=tmp_path, on_chunk=stop, **options)
    assert part.why == "interrupted"
    assert len(part.history) < 2000
    assert same(whole, quick(regression(), X, checkpoint=tmp_path, **options))


def test_checkpoint_of_another_fit_is_refused(tmp_path):
    quick(regression(), X, checkpoint=tmp_path)
    with pytest.raises(jn.CheckpointError, match="another model, data, seed"):
        quick(regression(), X + 1, checkpoint=tmp_path)


def test_checkpoint_of_a_changed_model_is_refused(tmp_path):
    """The same shapes and data, another log density; the same one written again is welcome."""
    make = lambda power: jn.models.LogDensity(lambda z: -0.5 * (z**power).sum(), (2,))
    first = quick(make(2), checkpoint=tmp_path)
    assert same(first, quick(make(2), checkpoint=tmp_path))
    with pytest.raises(jn.CheckpointError, match="another model"):
        quick(make(4), checkpoint=tmp_path)


def test_an_epoch_visits_every_row_once_and_weights_the_short_batch():
    """53 rows in batches of 10: the last batch has 3, each weighing 53/3; padding weighs 0."""
    order = minibatch.permutation(jr.key(0), jnp.int32(2), 53, 10)
    seen, weights = [], []
    for i in range(minibatch.steps_per_epoch(53, 10)):
        batch = minibatch.batch_at(jnp.arange(53), order, jnp.int32(i), 53, 10)
        kept = np.asarray(batch.weight) > 0
        seen += np.asarray(batch.rows)[kept].tolist()
        weights.append(np.asarray(batch.weight))
    assert sorted(seen) == list(range(53))
    np.testing.assert_allclose([w.sum() for w in weights], 53, rtol=1e-6)
    assert (weights[-1] > 0).sum() == 3


def test_streamed_rows_are_an_epoch_too(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(53, dtype=np.float32)[:, None])
    stream = minibatch.Stream(minibatch.MappedArray(tmp_path / "x.npy"), 10, 0, 3)
    seen = []
    for start in (0, 3):
        rows, weight = stream.get(start)
        seen += rows[weight > 0][:, 0].astype(int).tolist()
    assert sorted(seen) == list(range(53))


def test_checkpoint_of_another_file_is_refused(tmp_path):
    for name, data in (("a", X), ("b", X + 1)):
        np.save(tmp_path / f"{name}.npy", data)
    options = {"batch_size": 20, "checkpoint": tmp_path / "run"}
    quick(regression(), minibatch.MappedArray(tmp_path / "a.npy"), **options)
    with pytest.raises(jn.CheckpointError, match="data"):
        quick(regression(), minibatch.MappedArray(tmp_path / "b.npy"), **options)


def test_a_file_that_lost_its_end_is_not_read_as_data(tmp_path):
    np.save(tmp_path / "x.npy", X)
    rows = minibatch.MappedArray(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", (tmp_path / "x.npy").stat().st_size - 8)
    with pytest.raises(jn.DataError, match="shorter than its header"):
        rows[np.array([0, 52])]


def test_streamed_fit_agrees_with_one_in_memory(tmp_path):
    """Other permutations, the same posterior."""
    np.save(tmp_path / "x.npy", X)
    mapped = minibatch.MappedArray(tmp_path / "x.npy")
    options = dict(n_steps=3000, batch_size=20, n_samples=4, optimizer=None)
    a, b = quick(regression(), mapped, **options), quick(regression(), X, **options)
    scale = np.exp(np.asarray(b.family.log_scale))
    np.testing.assert_allclose(np.asarray(a.family.loc) / scale, np.asarray(b.family.loc) / scale, atol=0.4)


def broken(edge: float) -> jn.models.LogDensity:
    return jn.models.LogDensity(lambda z: jnp.where(z[0] > edge, jnp.nan, -0.5 * (z**2).sum()), (2,))


def test_bad_steps_are_skipped_and_counted():
    fit = quick(broken(1.5), n_samples=1, n_steps=400, family=jn.families.MeanField(scale=0.5))
    assert fit.n_skipped > 0
    assert np.isfinite(np.asarray(fit.family.loc)).all()
    assert any("skipped" in r for r in fit.reasons)


@pytest.mark.parametrize("donate", [False, True])
def test_a_hopeless_fit_ends_with_a_reason_not_with_nan(donate):
    """A wall of NaN in front of the mode: the step size shrinks, the fit ends, the parameters are finite."""
    model = jn.models.LogDensity(lambda z: jnp.where(z[0] > 0.5, jnp.nan, 50 * z[0]), (1,))
    fit = quick(model, n_steps=3000, optimizer=0.3, n_samples=4, donate=donate)
    assert np.isfinite(np.asarray(fit.family.loc)).all()
    assert fit.verdict == jn.Verdict.UNRELIABLE
    assert fit.n_skipped > 0


def test_donation_changes_nothing_but_rounding():
    """It runs the careful variant, which the compiler may fuse otherwise."""
    for a, b in zip(leaves(quick(gaussian())), leaves(quick(gaussian(), donate=True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_restarts_run_at_once_and_the_best_is_kept():
    """Two modes of unequal height: one start ends in the lower one, the best of 24 in the higher one."""
    modes = lambda z: jnp.logaddexp(-8 * ((z - 1) ** 2).sum(), -8 * ((z + 1) ** 2).sum() - 6.0)
    model = jn.models.LogDensity(modes, (1,))
    start = jn.families.MeanField((1,), loc=jnp.array([-1.0]))
    one = quick(model, family=start, n_steps=1500, optimizer=3e-2)
    best = quick(model, family=start, n_steps=1500, optimizer=3e-2, n_restarts=24)
    assert float(one.family.loc[0]) < 0
    assert best.elbo > one.elbo + 3


def test_ctrl_c_returns_what_there_is():
    before = signal.getsignal(signal.SIGINT)
    fit = quick(gaussian(), n_steps=10**8, on_chunk=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert fit.why == "interrupted"
    assert np.isfinite(fit.elbo)
    assert signal.getsignal(signal.SIGINT) is before


def test_default_fit_converges_and_stops_early():
    fit = jn.fit(gaussian(), progress=False)
    assert fit.why == "converged"
    assert len(fit.history) < 20_000
    assert fit.verdict == jn.Verdict.RELIABLE
    assert Status.CONVERGED == 1
