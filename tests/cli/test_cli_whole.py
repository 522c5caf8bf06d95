"""Models that are fitted without a q: Boltzmann machines and EM, by the same commands."""

import numpy as np
import pytest
from calls import call, call_json

import jensen as jn

MODELS = """
from jensen.models import RBM, GaussianMixture

machine = RBM(6, 3)
mixture = GaussianMixture(2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    (at / "own.py").write_text(MODELS)
    np.save(at / "bits.npy", (rng.random((80, 6)) < 0.4).astype(np.float32))
    np.savetxt(at / "real.csv", rng.normal(size=(80, 2)) + np.repeat([[4.0], [-4.0]], 40, 0), delimiter=",")
    return at


CASES = {
    "machine": ("bits.npy", ("--method", "cd"), "EnergyFit(RBM 6-3, cd)"),
    "mixture": ("real.csv", (), "EM of Mixture"),
}


@pytest.mark.parametrize("name", CASES)
def test_fit_show_resume(name, folder, tmp_path):
    data, options, what = CASES[name]
    out = tmp_path / "run"
    made, _ = call_json(
        "fit", f"{folder}/own.py:{name}", "--data", folder / data, "--n-steps", "30", *options, "--out", out
    )
    assert made["what"] == what
    assert made["saved"] == str(out)
    shown, _ = call_json("show", out)
    assert shown == made
    text = call("show", out).stdout
    assert text.startswith(f"{what}: {made['verdict']}")
    assert all(reason in text for reason in made["reasons"])
    again, _ = call_json("resume", out)
    assert again | {"seconds": 0} == made | {"seconds": 0}  # run again, the same bits
    assert str(jn.load(out).verdict) == made["verdict"]


def test_no_report_and_no_q(folder, tmp_path):
    out = tmp_path / "run"
    call_json("fit", f"{folder}/own.py:mixture", "--data", folder / "real.csv", "--n-steps", "5", "--out", out)
    refused = call("report", out)
    assert refused.exit_code == 2
    assert "it is a `EMFit`" in refused.output
    refused = call("fit", f"{folder}/own.py:mixture", "--data", folder / "real.csv", "--family", "mean-field")
    assert refused.exit_code == 2
    assert "there is no q to choose" in refused.output
