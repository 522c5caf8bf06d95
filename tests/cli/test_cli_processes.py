"""Real processes: killed, interrupted, and read by other programs."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jensen.errors import CheckpointError
from jensen.fit.checkpoint import FORMAT, unpack
from jensen.fit.persist import ARRAYS

LONG = [
    "--family",
    "MeanField",
    "--optimizer",
    "adam:1e-3",
    "--batch-size",
    "7",
    "--n-draws",
    "512",
    "--checkpoint-seconds",
    "0",
]


def start(*arguments):
    command = [sys.executable, "-m", "jensen", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def fit_rows(place, out, n_steps):
    data = ["--data", place / "rows.npy", "--out", out, "--n-steps", n_steps]
    return start("fit", f"{place}/models.py:rows", *data, *LONG, "--json")


def reached(folder, step):
    """Waits for a checkpoint at `step` or later."""
    until = time.monotonic() + 200
    while time.monotonic() < until:
        with contextlib.suppress(CheckpointError):
            if unpack(folder / "checkpoint" / "MeanField.ckpt", FORMAT)[0]["step"] >= step:
                return
        time.sleep(0.02)
    pytest.fail("no checkpoint")


def arrays(folder):
    return unpack(folder / "arrays.jensen", ARRAYS)[1]


def killed_midway(place, tmp_path):
    """A fit killed at some step between two, and how many steps it was to take: more of them where it ended first."""
    for n_steps in (60_000, 300_000, 1_500_000, 7_500_000):
        folder = tmp_path / f"killed-{n_steps}"
        victim = fit_rows(place, folder, n_steps)
        reached(folder, 300)
        victim.kill()
        code, _, _ = end(victim)
        if unpack(folder / "checkpoint" / "MeanField.ckpt", FORMAT)[0]["step"] < n_steps:
            assert code == -signal.SIGKILL
            return folder, n_steps
    return pytest.fail("every fit ended before it could be killed")


def test_kill_and_resume_gives_the_same_bits(place, tmp_path):
    killed, n_steps = killed_midway(place, tmp_path)
    assert not (killed / "fit.json").exists()
    whole = tmp_path / "whole"
    reference, resumed = fit_rows(place, whole, n_steps), start("resume", killed, "--json")
    for process in (reference, resumed):
        code, out, err = end(process)
        assert code == 0, err
        assert json.loads(out)["n_steps"] == n_steps
    a, b = arrays(whole), arrays(killed)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_interrupt_saves_what_there_is(place, tmp_path, sent):
    process = fit_rows(place, tmp_path / "run", 50_000_000)
    reached(tmp_path / "run", 300)
    process.send_signal(sent)
    code, out, err = end(process)
    assert code == 130, err
    found = json.loads(out)
    assert found["why"] == "interrupted"
    assert 300 <= found["n_steps"] < 50_000_000
    assert len(arrays(tmp_path / "run")["history"]) == found["n_steps"]
    assert "jensen resume" in err


def test_startup(place):
    """Help does not wait for NumPyro, scikit-learn or Matplotlib."""
    heavy = ["numpyro", "sklearn", "matplotlib", "pandas", "rich.progress"]
    code = f"import sys, jensen.cli.main; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
