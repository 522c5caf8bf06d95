"""Options: seeds, draws, step sizes, checkpoints; and damaged files."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jensen as jn
from jensen.compiled import key_for, root_key
from jensen.data.load import load_columns, load_table
from jensen.models import LogDensity

MODEL = LogDensity(lambda z: -0.5 * (z**2).sum(), 3)
STEPS = dict(method="gradient", n_steps=60, progress=False, family="mean-field", optimizer=0.01)


def four_parts(error) -> str:
    text = str(error.value)
    assert all(part in text for part in ("wrong:", "because:", "instead:")), text
    return text


@pytest.mark.parametrize("seed", [-1, 1.0, True, None, "0", np.float64(2), np.array([1, 2]), jax.random.key(0)])
def test_a_seed_is_a_whole_number_from_0_on(seed):
    for options in ({}, STEPS):
        with pytest.raises(jn.OptionError) as error:
            jn.fit(MODEL, seed=seed, **options)
        assert "seed" in four_parts(error)
    fit = jn.fit(MODEL, progress=False)
    with pytest.raises(jn.OptionError):
        fit.sample(3, seed=seed)


def test_every_seed_has_numbers_of_its_own():
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**64, 2**64 + 2**32]
    for make in (root_key, lambda seed: key_for(seed, "draws")):
        keys = {tuple(np.asarray(jax.random.key_data(make(s))).tolist()) for s in seeds}
        assert len(keys) == len(seeds)
    same = [jn.fit(MODEL, seed=s, **STEPS).history for s in (3, np.int32(3), np.uint64(3))]
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])
    for options in (STEPS, {"progress": False}):
        a, b = (jn.fit(MODEL, seed=s, **options).draws for s in (0, 2**32))
        assert not np.allclose(a, b)
    assert jax.random.key_data(root_key(7)).tolist() == jax.random.key_data(jax.random.key(7)).tolist()


@pytest.mark.parametrize("n", [1, 2, 5, 20, 49])
def test_too_few_draws_to_judge_are_refused(n):
    with pytest.raises(jn.OptionError, match="too few"):
        jn.fit(MODEL, n_draws=n)


@pytest.mark.parametrize("options", [{"progress": False}, {**STEPS, "n_steps": 3000}])
def test_few_draws_are_never_reliable(options):
    for n, reliable in ((50, False), (150, False), (4096, True)):
        fit = jn.fit(MODEL, n_draws=n, **options)
        assert (str(fit.verdict) == "RELIABLE") == reliable
        assert any("too few" in reason for reason in fit.reasons) != reliable


@pytest.mark.parametrize("size", [1e3, 1e6, 1e30])
def test_a_huge_step_size_is_blamed_itself(size):
    steep = LogDensity(lambda z: -jnp.exp(z).sum() - (z**2).sum(), 3)
    for model in (MODEL, steep):
        try:
            fit = jn.fit(model, **{**STEPS, "optimizer": size, "n_steps": 200})
        except jn.OptionError as error:
            assert "step size is too large" in str(error)
        else:
            assert str(fit.verdict) != "RELIABLE" and "step size" in fit.reasons[0] and "too large" in fit.reasons[0]


def test_a_step_size_that_works_is_not_blamed():
    fit = jn.fit(MODEL, **{**STEPS, "n_steps": 3000})
    assert str(fit.verdict) == "RELIABLE" and not any("step size" in r and "too large" in r for r in fit.reasons)
    undefined = LogDensity(lambda z: jnp.log(-1 - z[0] ** 2) + 0 * z.sum(), 2)
    with pytest.raises(jn.ModelError) as error:  # here the density is at fault
        jn.fit(undefined, **{**STEPS, "optimizer": 1e-3})
    assert "NaN" in four_parts(error) and "step size" not in str(error.value)


@pytest.mark.parametrize("option", ["checkpoint", "on_chunk"])
def test_options_of_steps_do_not_choose_the_method(option, tmp_path):
    value = tmp_path if option == "checkpoint" else lambda step, values: False
    with pytest.raises(jn.OptionError) as error:
        jn.fit(MODEL, **{option: value})
    assert option in four_parts(error) and 'method="gradient"' in str(error.value)
    assert np.isfinite(jn.fit(MODEL, **STEPS, **{option: value}).elbo)


def files(folder):
    x = np.random.default_rng(0).normal(size=(300, 4))
    np.save(folder / "a.npy", x)
    np.savez(folder / "b.npz", x=x, y=x[:, 0])
    np.savez_compressed(folder / "c.npz", x=x, y=x[:, 0])
    pd.DataFrame(x, columns=list("abcd")).to_csv(folder / "d.csv", index=False)
    return [folder / name for name in ("a.npy", "b.npz", "c.npz", "d.csv")]


def test_damaged_files_are_data_errors(tmp_path):
    """Cut short, and with bytes changed at random: read, or refused; nothing else."""
    rng, refused = np.random.default_rng(1), 0
    for path in files(tmp_path):
        raw = path.read_bytes()
        cut = [raw[: int(len(raw) * share)] for share in (0.0, 0.01, 0.3, 0.9)]
        changed = []
        for _ in range(12):
            at = rng.integers(0, len(raw), 20)
            spoilt = bytearray(raw)
            for i in at:
                spoilt[i] ^= int(rng.integers(1, 256))
            changed.append(bytes(spoilt))
        for damaged in [*cut, *changed]:
            path.write_bytes(damaged)
            for load in (load_table, load_columns):
                try:
                    load(path)
                except jn.DataError as error:
                    assert path.name in str(error) and "instead:" in str(error)
                    refused += 1
    assert refused > 60
    compressed = tmp_path / "c.npz"
    np.savez_compressed(compressed, x=np.arange(1000.0))
    raw = bytearray(compressed.read_bytes())
    raw[200:260] = bytes(60)
    compressed.write_bytes(bytes(raw))
    with pytest.raises(jn.DataError, match=r"c\.npz"):
        jn.fit(LogDensity(lambda z, x: -0.5 * ((x - z) ** 2).sum(), 1), str(compressed))
