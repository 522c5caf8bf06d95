"""Checkpoints that cannot be written are warnings, those that cannot be read are refusals."""

import errno
import os
import shutil
import warnings

import numpy as np
import pytest

import jensen as jn
from jensen.fit import checkpoint

MODEL = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))


def fitted(folder, **more):
    return jn.fit(MODEL, family="mean-field", optimizer=0.05, n_steps=400, n_draws=256, checkpoint=folder, **more)


@pytest.fixture(scope="module")
def whole():
    return fitted(None)


def same(fit, whole):
    np.testing.assert_array_equal(fit.history, whole.history)
    np.testing.assert_array_equal(fit.sample(3), whole.sample(3))


def test_a_file_where_the_folder_should_be(whole, tmp_path):
    (tmp_path / "ck").write_text("here")
    with pytest.warns(RuntimeWarning, match=r"(?s)writing.*ck.*goes on without this checkpoint; there is none"):
        same(fitted(tmp_path / "ck"), whole)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_the_disk_fails(whole, tmp_path, monkeypatch, number):
    """From the second write on: the first checkpoint is kept, and can be gone on from."""
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) > 2:
            raise OSError(number, os.strerror(number))
        real(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", replace)
    with pytest.warns(RuntimeWarning, match=f"(?s){os.strerror(number)}.*the last one that was written is kept"):
        same(fitted(tmp_path, checkpoint_seconds=0.0), whole)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["MeanField.ckpt"]
    same(fitted(tmp_path), whole)


def test_the_folder_goes_away(whole, tmp_path):
    """It is made anew."""
    same(fitted(tmp_path / "a", checkpoint_seconds=0.0, on_chunk=lambda *_: shutil.rmtree(tmp_path / "a", True)), whole)
    assert (tmp_path / "a" / "MeanField.ckpt").is_file()


def test_no_warning_where_it_can_be_written(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(tmp_path, checkpoint_seconds=0.0)


def damaged(raw):
    yield "empty", b""
    yield "half", raw[: len(raw) // 2]
    yield "a bit", raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:]
    yield "no header", raw.partition(b"\n")[2]
    head = {"format": checkpoint.FORMAT, "fingerprint": "x"}
    yield "no history", checkpoint.pack({"00000": np.zeros(2)}, head)
    yield "no fingerprint", checkpoint.pack({"history": np.zeros(2)}, {"format": checkpoint.FORMAT})
    yield "objects", checkpoint.pack({"history": np.array([{}], object)}, head)


def test_a_damaged_one_is_refused(tmp_path):
    fitted(tmp_path)
    path = tmp_path / "MeanField.ckpt"
    for _, raw in damaged(path.read_bytes()):
        path.write_bytes(raw)
        with pytest.raises(jn.CheckpointError, match=r"(?s)MeanField.ckpt.*wrong:.*because:.*instead:"):
            fitted(tmp_path)
        assert path.read_bytes() == raw  # it is not overwritten
