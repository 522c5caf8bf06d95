"""Methods and budgets: the ladder without options, one rung by name, and what belongs to gradients alone."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from calls import QUICK, call, call_json

import jensen as jn
from jensen.cli.runs import _by_steps
from jensen.methods.lookup import method_names


@pytest.fixture(scope="module")
def climbed(place):
    """(JSON, folder) of a fit with nothing chosen."""
    found, _ = call_json("fit", f"{place}/models.py:closed", "--out", place / "climbed", "--n-draws", "512")
    return found, place / "climbed"


def test_nothing_chosen_climbs_the_ladder(climbed):
    found, folder = climbed
    assert found["verdict"] == "RELIABLE"
    assert found["method"] == found["trail"][-1]["family"]
    assert found["method"] not in ("gradient", "auto")
    assert found["budget"] == "no limit"
    assert found["evaluations"] > 0
    assert found["options"]["precision"] == "float64"
    assert {"family", "verdict", "khat", "elbo", "log_evidence", "evaluations", "seconds", "climbed"} <= set(
        found["trail"][0]
    )
    assert {p.name for p in folder.iterdir()} == {"arrays.jensen", "fit.json", "run.json"}  # nothing to go on from
    exact, sd = 4 / 4.04, (4 + 1 / 25) ** -0.5  # four ones, N(mu, 1), mu ~ N(0, 5)
    assert found["summary"]["mu"]["mean"] == pytest.approx(exact, abs=5 * sd / 512**0.5)


def test_show_prints_what_was_tried(climbed):
    found, folder = climbed
    assert not jax.config.read("jax_enable_x64")
    text = call("show", folder).stdout
    assert not jax.config.read("jax_enable_x64")  # a fit in double precision is read without a global switch
    assert text.splitlines()[0].startswith(f"RELIABLE   NumPyroModel, {found['method']}")
    assert f"{found['evaluations']:,} evaluations" in text
    assert "steps" not in text
    for attempt in found["trail"]:
        assert f"{attempt['family']}: {attempt['verdict']}, k-hat {attempt['khat']:.2f}" in text
    assert text.count("\n> ") == 1
    shown, _ = call_json("show", folder)
    assert shown["trail"] == found["trail"]
    assert (shown["method"], shown["budget"]) == (found["method"], found["budget"])


def test_the_report_of_a_ladder(climbed, tmp_path):
    result = call("report", climbed[1], "--out", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "r.html").read_text()
    assert "How was the posterior found?" in page
    assert "could not be drawn" not in page


def test_resume_runs_it_again(climbed):
    before = jn.load(climbed[1])
    result = call("resume", climbed[1], "--json")
    assert result.exit_code == 0, result.output
    np.testing.assert_equal(before.sample(3), jn.load(climbed[1]).sample(3))


@pytest.mark.parametrize("method", ["laplace", "hmc", "Natural_Gradient"])
def test_one_method_by_name_within_a_budget(place, tmp_path, method):
    run = ["fit", f"{place}/models.py:density", "--method", method, "--budget", "seconds:60,evaluations:500000"]
    found, _ = call_json(*run, "--n-draws", "512", "--out", tmp_path / "run")
    name = method.lower().replace("_", "-")
    assert found["method"] == name
    assert found["options"]["asked"] == name
    assert found["budget"] == "60 seconds or 500000 evaluations"
    assert [a["family"] for a in found["trail"]] == [name]
    assert found["corrected"] == ("chains" if method == "hmc" else "none")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["method"] == method
    assert "It was asked for by name." in call("show", tmp_path / "run").stdout


def test_a_budget_that_is_too_small_is_told(place):
    """The density has to be found before the draws can be weighed: that is not done for 3,000."""
    run = ["fit", f"{place}/models.py:regression", "--data", place / "xy.csv", "--budget", "evaluations:3000"]
    found, _ = call_json(*run, "--n-draws", "512")
    assert found["budget"] == "3000 evaluations"
    assert found["verdict"] != "RELIABLE"
    assert any("budget was used up" in r for r in found["reasons"])
    assert "The budget was used up." in call(*run, "--n-draws", "512").stdout


def test_gradients_by_name(place, tmp_path):
    run = ["fit", f"{place}/models.py:density", "--method", "gradient", "--out", tmp_path / "run", *QUICK]
    found, _ = call_json(*run)
    assert found["method"] == "gradient"
    assert found["n_steps"] == 40
    assert found["budget"] is None
    assert (tmp_path / "run" / "checkpoint").is_dir()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--method", "nope"], "there is no such method"),
        (["--method", "laplace", "--family", "mean-field"], "these belong to stochastic gradients"),
        (["--method", "auto", "--n-steps", "10"], "these belong to stochastic gradients"),
        (["--method", "hmc", "--optimizer", "1e-3"], "these belong to stochastic gradients"),
        (["--budget", "minutes:3"], "is not a kind and a number"),
        (["--budget", "seconds:-3"], "is not positive"),
        (["--budget", "seconds:1,seconds:2"], "is given twice"),
    ],
)
@pytest.mark.parametrize("saved", [False, True])
def test_what_does_not_go_together_is_refused(place, tmp_path, options, match, saved):
    """By the library's own error, whether or not the fit is to be saved."""
    result = call("fit", f"{place}/models.py:density", *options, *(["--out", tmp_path / "run"] if saved else []))
    assert result.exit_code == 2, result.output
    assert "OptionError: " in result.stderr
    assert match in result.stderr
    assert "checkpoint" not in result.stderr
    assert "Traceback" not in result.stderr


def test_list_has_the_methods():
    found, _ = call_json("list", "method")
    assert [r["name"] for r in found["method"]] == method_names()
    assert all(r["about"].endswith(".") and "A method named" not in r["about"] for r in found["method"])
    everything, _ = call_json("list")
    assert everything["method"] == found["method"]
    text = call("list", "method").stdout
    for name in method_names():
        assert f"\n{name} " in text


def plain(z):
    return -0.5 * (z**2).sum()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"seed": 3, "n_draws": 10, "budget": "seconds:3", "n_restarts": 1, "donate": False}, False),
        ({"method": "laplace"}, False),
        ({"method": "gradient"}, True),
        ({"method": "flow"}, True),
        ({"n_restarts": 2}, True),
        ({"donate": True}, True),
        ({"early_stop": False}, True),
        ({"family": jn.families.MeanField()}, True),
    ],
)
def test_who_writes_checkpoints(given, expected):
    """Only fits by gradients; and to ask for a checkpoint must not make a fit one of them."""
    assert _by_steps(jn.models.LogDensity(plain, (2,)), None, given) == expected


def test_a_model_that_the_ladder_cannot_take_keeps_its_checkpoint():
    model = jn.models.LatentVariable.mlp(jax.random.key(0), 2, (4,), hidden=(3,))
    assert _by_steps(model, np.zeros((5, 4), np.float32), {})


def test_a_listing_needs_no_sampler_of_others():
    code = "import sys; from jensen.cli.catalogue import parts; parts('method'); sys.exit('blackjax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
