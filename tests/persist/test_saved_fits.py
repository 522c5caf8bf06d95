"""What is loaded is what was saved."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from madefits import family_examples, fit_of, fit_of_example, same

import jensen as jn
from jensen.cell_examples import exported
from jensen.families.base import AbstractFamily
from jensen.fit.structure import Reader, encode, foreign
from jensen.models import LatentVariable, LogDensity
from jensen.nets import MLP
from jensen.tree import Layout

EXAMPLES = family_examples()


def test_every_exported_family_is_here():
    mentioned = " ".join(EXAMPLES)
    assert [n for n in exported(jn.families, AbstractFamily) if n not in mentioned] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_family(name, tmp_path):
    fit = fit_of_example(*EXAMPLES[name])
    assert fit.save(tmp_path / "fit") == tmp_path / "fit"
    loaded = jn.load(tmp_path / "fit", data=fit.rows if fit.plated else None)
    same(fit.family, loaded.family)
    same(fit.model, loaded.model)
    same(fit.sample(3, seed=5, data=fit.rows), loaded.sample(3, seed=5, data=fit.rows))
    for field in ("why", "seconds", "step_size", "seed", "n_skipped", "trail", "history", "log_p", "log_q"):
        np.testing.assert_equal(getattr(loaded, field), getattr(fit, field))
    same(fit.draws, loaded.draws)
    np.testing.assert_equal(dataclasses.asdict(loaded.diagnosis), dataclasses.asdict(fit.diagnosis))
    assert loaded.verdict is fit.verdict
    assert loaded.plated == fit.plated
    assert fit.options.items() <= loaded.options.items()


def test_nothing_is_pickled(tmp_path):
    fit_of_example(*EXAMPLES["FullRank"]).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["arrays.jensen", "fit.json"]
    _, _, body = (tmp_path / "arrays.jensen").read_bytes().partition(b"\n")
    (tmp_path / "arrays.npz").write_bytes(body)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as archive:
        assert all(archive[k].dtype.kind in "biuf" for k in archive.files)
    json.loads((tmp_path / "fit.json").read_bytes(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


def test_vae_decodes_and_predicts(tmp_path):
    x = (np.random.default_rng(0).random((6, 5)) < 0.5).astype(np.float32)
    model = LatentVariable.mlp(jax.random.key(0), 2, (5,), hidden=(3,), activation="tanh")
    family = jn.families.Amortised(hidden=(4,)).bind(model.latents, x, jax.random.key(1))
    fit = fit_of(family, model, jnp.asarray(x))
    fit.save(tmp_path)
    loaded = jn.load(tmp_path)
    with pytest.raises(jn.ModelError, match="loaded without its data"):
        loaded.sample(2)
    same(fit.sample(2, 1), loaded.sample(2, 1, data=x))
    same(fit.predict(2), loaded.predict(2, data=x))
    same(model.decode(jnp.ones(2)), loaded.model.decode(jnp.ones(2)))
    same(model.sample(jax.random.key(3)), loaded.model.sample(jax.random.key(3)))
    same(fit.log_prob(fit.sample(2)), loaded.log_prob(fit.sample(2), data=x))
    assert loaded.summary().equals(fit.summary())


def test_equinox_networks(tmp_path):
    """Layers, activations and nested sequences of Equinox come back whole."""
    key = jax.random.key(0)
    deep = eqx.nn.MLP(3, 4, 5, 2, activation=jnp.tanh, key=key)
    stack = eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=key), eqx.nn.Lambda(jax.nn.gelu), eqx.nn.LayerNorm(4)])
    for encoder in (deep, stack):
        model = LogDensity(lambda z, row: -(z**2).sum(), (2,), local=True)  # never called: only its shapes matter
        family = jn.families.Amortised(encoder=encoder).bind(model.latents, jnp.ones((4, 3)), key)
        fit = fit_of(family, model, jnp.ones((4, 3)))
        fit.save(tmp_path)
        loaded = jn.load(tmp_path)
        assert eqx.tree_equal(fit.family, loaded.family)
        same(family(jnp.ones(3)).loc, loaded.family(jnp.ones(3)).loc)


class Encoder(eqx.Module):
    """Not a class of jensen."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.tanh(self.weight @ x)


class Density(eqx.Module):
    encoder: Encoder

    def __call__(self, z):
        return -(self.encoder(z) ** 2).sum()


def test_foreign_encoder_needs_the_family(tmp_path):
    x = jnp.ones((4, 3))
    model = LatentVariable.mlp(jax.random.key(0), 1, (3,), "gaussian", hidden=())
    make = lambda value: jn.families.Amortised(encoder=Encoder(jnp.full((2, 3), value)))
    fit = fit_of(make(0.7).bind(model.latents, x, jax.random.key(0)), model, x)
    fit.save(tmp_path)
    with pytest.raises(jn.CheckpointError, match=r"Encoder.*not part of jensen(.|\n)*family=") as error:
        jn.load(tmp_path)
    assert all(part in str(error.value) for part in ("wrong:", "because:", "instead:"))
    loaded = jn.load(tmp_path, family=make(0.0), data=x)  # unsized, as it was given to fit
    same(fit.sample(2), loaded.sample(2))
    with pytest.raises(jn.CheckpointError, match=r"absent there|of shape"):
        jn.load(tmp_path, family=jn.families.Amortised(encoder=Encoder(jnp.zeros((5, 3)))))
    with pytest.raises(jn.CheckpointError, match=r"got `jensen:MLP`"):
        jn.load(tmp_path, family=jn.families.Amortised(encoder=MLP(jax.random.key(0), 3, (), 2)))


def test_model_that_is_code(tmp_path):
    """A log density is not saved, but its trained arrays are; its data are not."""
    theta = Encoder(jnp.full((2, 2), 0.3))
    model = LogDensity(Density(theta), (2,))
    fit = fit_of(jn.families.MeanField((2,), scale=0.5), model, None)
    fit.save(tmp_path)
    loaded = jn.load(tmp_path)
    assert loaded.model is None
    same(fit.sample(4), loaded.sample(4))
    same(fit.log_prob(fit.sample(4)), loaded.log_prob(fit.sample(4)))
    assert loaded.summary().equals(fit.summary())
    with pytest.raises(jn.ModelError, match="without its model"):
        loaded.predict()
    untrained = LogDensity(Density(Encoder(jnp.zeros((2, 2)))), (2,))
    again = jn.load(tmp_path, model=untrained)
    same(again.model.fn.encoder.weight, theta.weight)
    with pytest.raises(jn.OptionError, match="without a model"):
        jn.load(tmp_path, data=np.ones(3))
    loaded.save(tmp_path / "again")
    same(jn.load(tmp_path / "again").sample(4), fit.sample(4))


@pytest.mark.parametrize(
    "value",
    [
        (1, (2.5, "a"), None, True),
        {"b": [1, {}], ("x", "y"): (), 3: float("-inf")},
        Layout({"w": (2, 3), "b": ()}),
        Layout(()),
        frozenset({"a", "b"}),
        np.float32(1.5),
        jn.Verdict.RELIABLE,
        jn.plans.CommonRandomNumbers(seed=4),
    ],
    ids=lambda v: type(v).__name__,
)
def test_values(value):
    arrays = {}
    code = json.loads(json.dumps(encode(value, "v", arrays), allow_nan=False))
    back = Reader(arrays, "file", "family").decode(code, "v")
    assert back == value
    assert type(back) is type(value)


def test_arrays_keep_their_type():
    tree = [
        jnp.ones(2, jnp.bfloat16),
        np.arange(3, dtype=np.uint8),
        jnp.array(True),
        jax.random.key(7),
        jnp.zeros((0, 2)),
    ]
    arrays = {}
    code = encode(tree, "v", arrays)
    back = Reader(arrays, "file", "family").decode(code, "v")
    assert [a.dtype for a in back] == [a.dtype for a in tree]
    same(jax.random.key_data(back[3]), jax.random.key_data(tree[3]))
    assert isinstance(back[1], np.ndarray)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "jensen.fit.checkpoint:os",
        "jensen.fit.checkpoint:Path",
        "builtins:eval",
        "jax.numpy:nope",
        "jax:numpy",
    ],
)
def test_only_public_functions_are_looked_up(name):
    with pytest.raises(jn.CheckpointError):
        Reader({}, "file", "family").decode({"$": "function", "name": name}, "f")


@pytest.mark.parametrize(
    "name", ["os:PathLike", "jensen.errors:JensenError", "subprocess:Popen", "jensen.nope:X", "jensen"]
)
def test_only_modules_are_made(name):
    with pytest.raises(jn.CheckpointError):
        Reader({}, "file", "family").decode({"$": "module", "class": name, "fields": {}}, "f")


def test_lambda_is_foreign():
    assert foreign(encode(eqx.nn.Lambda(lambda x: x), "f", {})) == [
        "test_saved_fits:test_lambda_is_foreign.<locals>.<lambda>"
    ]
