"""A run folder may come from a stranger: no Python file that it names is run unless it is the user's own, and it is said."""

import json
import os
import shutil

import jax
import pytest
from calls import QUICK, call

import jensen as jn
from jensen.cli.runs import load_for_report

CODE = """
import pathlib

import jensen as jn

(pathlib.Path(__file__).parent / "ran").touch()
density = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(folder of the model, folder of a finished run)."""
    home = tmp_path_factory.mktemp("home")
    (home / "own.py").write_text(CODE)
    result = call("fit", f"{home}/own.py:density", "--out", home / "runs" / "run", *QUICK)
    assert result.exit_code == 0, result.output
    return home, home / "runs" / "run"


@pytest.fixture
def run(begun, tmp_path):
    """A copy of both, whose model has not been run."""
    home, folder = tmp_path / "home", tmp_path / "home" / "runs" / "run"
    shutil.copytree(begun[0], home)
    (home / "ran").unlink()
    changed(folder, model=f"{home}/own.py:density")
    return home, folder


def changed(folder, **entries):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_resume_says_what_it_runs(run):
    home, folder = run
    result = call("resume", folder)
    assert result.exit_code == 0, result.output
    assert (home / "ran").exists()
    assert result.stderr.index(f"running {home}/own.py") == 0


def evil(home, folder, place):
    path = place / "evil.py"
    path.write_text(CODE)
    return path


def inside(home, folder):
    return {"model": f"{evil(home, folder, folder)}:density"}


def inside_by_a_link(home, folder):
    (home / "link.py").symlink_to(evil(home, folder, folder))
    return {"model": f"{home}/link.py:density"}


def inside_with_its_digest(home, folder):
    from jensen.cli.runs import _sha256

    path = evil(home, folder, folder)
    return {"model": f"{path}:density", "model_sha256": _sha256(path)}


def by_a_way_round(home, folder):
    return {"model": f"{folder}/../run/{evil(home, folder, folder).name}"}


def relative(home, folder):
    return {"model": f"{os.path.relpath(evil(home, folder, home))}:density"}


def another_file(home, folder):
    return {"model": f"{evil(home, folder, home / 'runs')}:density", "model_sha256": "0" * 64}


def without_a_digest(home, folder):
    return {"model_sha256": None}


def edited(home, folder):
    (home / "own.py").write_text(CODE + "\n# another\n")
    return {}


def gone(home, folder):
    (home / "own.py").unlink()
    return {}


REFUSED = [
    inside, inside_by_a_link, inside_with_its_digest, by_a_way_round, relative, another_file, without_a_digest, edited, gone,
]  # fmt: skip


@pytest.mark.parametrize("trick", REFUSED, ids=lambda t: t.__name__)
def test_resume_refuses_what_is_not_the_users(run, trick):
    home, folder = run
    changed(folder, **trick(home, folder))
    result = call("resume", folder)
    assert result.exit_code == 2
    assert all(part in result.stderr for part in ("wrong:", "because:", "--model"))
    assert [*home.rglob("ran")] == []


def test_resume_with_the_model_given(run):
    home, folder = run
    edited(home, folder)
    result = call("resume", folder, "--model", f"{home}/own.py:density")
    assert result.exit_code == 0, result.output
    (home / "ran").unlink()
    assert call("resume", folder).exit_code == 0  # it is the run's own now
    shutil.move(home, home.parent / "moved")
    moved = home.parent / "moved"
    assert call("resume", moved / "runs" / "run").exit_code == 2
    assert call("resume", moved / "runs" / "run", "--model", f"{moved}/own.py:density").exit_code == 0


def test_the_same_call_again_with_the_model_edited(run):
    """Whether it is the same fit, its checkpoint knows."""
    home, folder = run
    edited(home, folder)
    assert call("fit", f"{home}/own.py:density", "--out", folder, *QUICK).exit_code == 0


@pytest.mark.parametrize(
    ("command", "trick"), [("report", None), ("report", inside_with_its_digest), ("show", inside), ("show", gone)]
)
def test_report_and_show_run_nothing(run, command, trick):
    home, folder = run
    changed(folder, **(trick(home, folder) if trick else {}))
    result = call(command, folder)
    assert result.exit_code == 0, result.output
    assert [*home.rglob("ran")] == []
    if command == "report":
        assert "--model" in result.stderr
        assert "<html" in (folder / "report.html").read_text()


def test_report_with_the_model_given(run):
    home, folder = run
    result = call("report", folder, "--model", f"{home}/own.py:density")
    assert result.exit_code == 0, result.output
    assert (home / "ran").exists()
    assert "--model" not in result.stderr


def test_report_of_a_saved_model_has_its_data(tmp_path):
    """A decoder is in the folder: its predictions are checked without any Python file."""
    import numpy as np

    rows = (np.random.default_rng(0).random((30, 4)) < 0.5).astype(np.float32)
    model = jn.models.LatentVariable.mlp(jax.random.key(0), 1, (4,), hidden=(3,))
    folder = jn.fit(model, rows, n_steps=5, optimizer=0.05, n_draws=64).save(tmp_path / "run")
    np.save(tmp_path / "rows.npy", rows)
    run = {"format": "jensen-run-1", "model": "/nowhere.py", "data": str(tmp_path / "rows.npy"), "options": {}}
    (folder / "run.json").write_text(json.dumps(run))
    fit, why_not = load_for_report(folder, None)
    assert why_not == ""
    np.testing.assert_array_equal(fit.rows, rows)
    assert fit.predict(2).shape == (2, 30, 4)


@pytest.mark.parametrize(
    "options",
    [{"checkpoint": "/tmp/x"}, {"on_chunk": "print"}, {"n_steps": "1"}, {"seed": True}, {"family": ["MeanField"]}],
)
def test_options_that_no_run_has(run, options):
    home, folder = run
    changed(folder, options=options)
    result = call("resume", folder)
    assert result.exit_code == 2
    assert "run.json" in result.stderr
    assert not (home / "ran").exists()


@pytest.mark.parametrize("entry", [{"model": 3}, {"model": None}, {"data": ["x"]}, {"options": []}])
def test_entries_of_another_kind(run, entry):
    changed(run[1], **entry)
    assert call("resume", run[1]).exit_code == 2
