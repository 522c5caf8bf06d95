"""A folder from a stranger: whatever it says, reading it runs nothing of its choice, and ends in a fit or in a refusal."""

import copy
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from madefits import family_examples, fit_of_example

import jensen as jn
from jensen.fit import names, persist
from jensen.fit.checkpoint import pack
from jensen.fit.structure import Reader, encode

WATCHED = ("import", "exec", "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")
_seen: list | None = None


def _hook(event, args):
    if _seen is not None and (
        event in WATCHED or (event == "open" and isinstance(args[1], str) and "r" not in args[1])
    ):
        _seen.append((event, str(args)[:200]))


sys.addaudithook(_hook)


def rewritten(folder, meta):
    meta["digest"] = persist._digest(meta)
    (folder / "fit.json").write_text(json.dumps(meta))


def outcome(folder):
    """What loading did: "fit", or the refusal."""
    global _seen
    _seen = []
    try:
        jn.load(folder)
        said = "fit"
    except jn.JensenError as error:
        said = str(error)
        assert all(f"{part}:" in said for part in ("wrong", "because", "instead"))
    finally:
        happened, _seen = _seen, None
    assert happened == []
    return said


def function(name):
    return {"$": "function", "name": name}


def module(name, **fields):
    return {"$": "module", "class": name, "fields": fields}


HOSTILE = [
    None, True, -1, 10**30, 1e308, "x", "../../etc/passwd", [], {}, [[[]]], {"$": None}, {"$": ["float"]},
    {"$": "float", "value": {}}, {"$": "float", "value": "__import__('os')"},
    {"$": "array", "at": "nowhere", "as": "jax", "dtype": "float32"}, {"$": "array"},
    {"$": "tuple", "items": 3}, {"$": "dict", "items": [[[], 1]]}, {"$": "dict", "items": [1]},
    {"$": "layout", "tree": "x"}, {"$": "wrapped", "fn": {"$": "dict", "items": []}},
    {"$": "enum", "class": "jensen.facts:Fact", "name": "mro"},
    {"$": "enum", "class": "jensen.diagnostics.verdict:Verdict", "name": "__class__"},
    function("os:system"), function("builtins:eval"), function("jax.numpy:load"), function("jax.numpy:save"),
    function("jensen.fit.persist:load"), function("jax.experimental.serialize_executable:deserialize_and_load"),
    module("equinox._module._prebuilt:Partial", func=function("jax.nn:relu"), args=[], keywords=[]),
    module("functools:partial"), module("jensen.models.black_box:BlackBox"), module("subprocess:Popen", args="id"),
    module("antigravity:Module"), {"$": "record", "class": "jensen.fit.result:Fit", "fields": {}},
    {"$": "foreign", "class": "os:system"}, {"$": "module"}, {"$": "init"},
]  # fmt: skip


def nodes(value, path=()):
    """Paths of every entry."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def replaced(tree, path, value):
    tree = copy.deepcopy(tree)
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return tree


def saved_em(folder):
    rows = np.random.default_rng(0).normal(size=(40, 2))
    return jn.em(jn.models.GaussianMixture(1), rows, n_iter=3).save(folder)


SAVED = {
    "q": lambda folder: fit_of_example(*family_examples()["RealNVP"]).save(folder),
    "rows": lambda folder: fit_of_example(*family_examples()["Amortised(MeanField)"]).save(folder),
    "whole": saved_em,
}


@pytest.mark.parametrize("kind", SAVED)
def test_every_entry_by_every_form(kind, tmp_path):
    folder = SAVED[kind](tmp_path / "fit")
    meta = json.loads((folder / "fit.json").read_text())
    jn.load(folder)  # imports what reading needs
    paths = [p for p in nodes(meta) if p and p[0] not in ("digest", "format", "versions", "diagnosis", "options")]
    rng, refused = np.random.default_rng(0), 0
    for path in paths:
        for form in rng.choice(len(HOSTILE), 4, replace=False):
            rewritten(folder, replaced(meta, path, HOSTILE[form]))
            refused += outcome(folder) != "fit"
    for form in HOSTILE:
        for name in {"family", "draws", "model", "coordinates", "whole", "trail", "diagnosis", "options"} & set(meta):
            rewritten(folder, {**meta, name: form})
            refused += outcome(folder) != "fit"
    assert refused > 2 * len(paths)
    rewritten(folder, meta)
    assert outcome(folder) == "fit"


def test_depth_and_size(tmp_path):
    folder = SAVED["q"](tmp_path / "fit")
    meta = json.loads((folder / "fit.json").read_text())
    deep = "[" * 100_000 + "]" * 100_000
    (folder / "fit.json").write_text('{"format": "jensen-fit-1", "family": ' + deep + "}")
    assert "fit.json" in outcome(folder)
    nested = {"$": "tuple", "items": []}
    for _ in range(300):
        nested = {"$": "tuple", "items": [nested]}
    rewritten(folder, {**meta, "family": nested})
    assert outcome(folder) != "fit"


@pytest.mark.parametrize(
    "value", [np.array([{}], object), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, "i4,f8"), b"x"]
)
def test_arrays_that_are_no_numbers(value, tmp_path):
    folder = SAVED["q"](tmp_path / "fit")
    meta = json.loads((folder / "fit.json").read_text())
    packed = pack(
        {"log_p": np.asarray(value), "log_q": np.zeros(2), "history": np.zeros(2)}, {"format": persist.ARRAYS}
    )
    (folder / "arrays.jensen").write_bytes(packed)
    meta["arrays"] = json.loads(packed.partition(b"\n")[0])["sha256"]
    meta["family"] = {"$": "array", "at": "log_p", "as": "numpy", "dtype": str(np.asarray(value).dtype)}
    rewritten(folder, meta)
    assert outcome(folder) != "fit"


def test_file_of_arrays_elsewhere(tmp_path):
    folder = SAVED["q"](tmp_path / "fit")
    meta = json.loads((folder / "fit.json").read_text())
    (folder / "arrays.jensen").rename(tmp_path / "arrays.jensen")
    for name in ("../arrays.jensen", str(tmp_path / "arrays.jensen"), ["arrays.jensen"]):
        rewritten(folder, {**meta, "arrays_file": name})
        assert "arrays.jensen" in outcome(folder)


def test_the_table_names_what_computes_only():
    assert not any(word in name for name in names.functions() for word in ("load", "save", "callback", "file", "eval"))
    for kind in names.classes().values():
        assert kind.__module__.partition(".")[0] in ("jensen", "equinox")
    for kind in (eqx.Partial, jn.models.BlackBox, jn.Fit):
        assert kind not in names.classes().values()
    assert names.function_name(jnp.load) is None


class Mine(eqx.Module):
    """A user's."""

    weight: jax.Array


@pytest.mark.parametrize("part", [eqx.Partial(jnp.add, 1.0), Mine(jnp.ones(2)), jnp.load, print, jax.jit(lambda x: x)])
def test_what_is_not_in_the_table_is_not_written_either(part):
    assert encode(part, "family", {})["$"] == "foreign"


@pytest.mark.parametrize(
    "part", [jnp.tanh, jax.nn.gelu, jax.lax.rsqrt, jax.scipy.special.expit, eqx.nn.Lambda(jnp.ravel), jnp.sum]
)
def test_what_is_in_the_table_comes_back(part):
    again = Reader({}, "file", "family").decode(json.loads(json.dumps(encode(part, "family", {}))), "family")
    assert again is part or eqx.tree_equal(again, part)
