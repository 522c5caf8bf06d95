"""Damaged, foreign and half-written folders are refused by file name; a full disk costs nothing but the save."""

import ctypes
import errno
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from madefits import family_examples, fit_of_example, same

import jensen as jn
from jensen.fit import checkpoint
from jensen.fit.persist import _digest


@pytest.fixture(scope="module")
def fit():
    return fit_of_example(*family_examples()["MeanField"])


@pytest.fixture
def folder(fit, tmp_path):
    return fit.save(tmp_path / "fit")


def refused(folder, match):
    with pytest.raises(jn.CheckpointError, match=match) as error:
        jn.load(folder)
    text = str(error.value)
    assert all(f"{part}:" in text for part in ("wrong", "because", "instead"))
    assert str(folder) in text


@pytest.mark.parametrize("name", ["arrays.jensen", "fit.json"])
@pytest.mark.parametrize("keep", [0, 0.5, -1])
def test_truncated(folder, name, keep):
    path = folder / name
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep) if keep >= 0 else -1])
    refused(folder, name)


@pytest.mark.parametrize(("name", "at"), [("arrays.jensen", 0.7), ("arrays.jensen", 0.0), ("fit.json", 0.6)])
def test_altered(folder, name, at):
    path = folder / name
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * at)] ^= 1
    path.write_bytes(raw)
    refused(folder, name)


@pytest.mark.parametrize("name", ["arrays.jensen", "fit.json"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    refused(folder, name)


def test_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "it has no `fit.json`")


@pytest.mark.parametrize("contents", ["[1]", "{}", '{"format": "other-1"}', "null", "\xff"])
def test_foreign(folder, contents):
    (folder / "fit.json").write_bytes(contents.encode("latin-1"))
    refused(folder, "fit.json")


def test_two_saves_are_not_mixed(fit, tmp_path):
    a, b = fit.save(tmp_path / "a"), fit_of_example(*family_examples()["FullRank"]).save(tmp_path / "b")
    (a / "arrays.jensen").write_bytes((b / "arrays.jensen").read_bytes())
    refused(a, "belongs to another save")


def rewrite(folder, change):
    """An honest file of another version: its digest is right."""
    meta = json.loads((folder / "fit.json").read_text())
    change(meta)
    meta["digest"] = _digest(meta)
    (folder / "fit.json").write_text(json.dumps(meta))


def test_other_versions(folder):
    rewrite(folder, lambda m: m["family"]["fields"].update(colour=3))
    refused(folder, "now has the fields")
    rewrite(
        folder, lambda m: m["family"]["fields"].pop("colour") and m["family"].update({"class": "jensen.families:Gone"})
    )
    refused(folder, "there is no class")
    rewrite(folder, lambda m: m["family"].update({"$": "hologram"}))
    refused(folder, "hologram")


def test_precision(fit, tmp_path):
    with jax.enable_x64(True):
        double = fit_of_example(*family_examples()["MeanField"])
        double.save(tmp_path)
        drawn = double.sample(2)
        same(drawn, jn.load(tmp_path).sample(2))
    again = jn.load(tmp_path)  # in single precision: the fit keeps its own
    assert again.double
    same(drawn, again.sample(2))
    assert all(a.dtype == np.float64 for a in jax.tree.leaves(again.sample(2)))


# ---- writing ------------------------------------------------------------------------------------------------------
def test_full_disk(fit, folder, monkeypatch):
    """The error has four parts, the fit in memory works, and what was there before can still be read."""
    before = fit.sample(3)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(jn.CheckpointError, match=r"No space left(.|\n)*instead:"):
        fit.save(folder)
    with pytest.raises(jn.CheckpointError, match="No space left"):
        fit.save(folder / "new")
    monkeypatch.undo()
    same(fit.sample(3), before)
    same(jn.load(folder).sample(3), before)
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["arrays.jensen", "fit.json"]


def test_json_is_written_last(fit, tmp_path, monkeypatch):
    """A crash between the files leaves a folder that says it is incomplete."""
    replace = os.replace

    def crash(source, target):
        if str(target).endswith("fit.json"):
            raise OSError(errno.EIO, "crash")
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", crash)
    with pytest.raises(jn.CheckpointError):
        fit.save(tmp_path)
    refused(tmp_path, "it has no `fit.json`")


def test_folder_is_a_file(fit, tmp_path):
    (tmp_path / "fit").write_text("here")
    with pytest.raises(jn.CheckpointError, match="writing"):
        fit.save(tmp_path / "fit")


def test_small_real_disk(fit, tmp_path):
    """A real file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", 0, b"size=64k"):
        pytest.skip(f"mounting a tmpfs is not allowed: {os.strerror(ctypes.get_errno())}")
    try:
        fit.save(disk / "fit")
        big = fit_of_example(*family_examples()["MeanField"])
        big.log_p = np.zeros(100_000)
        with pytest.raises(jn.CheckpointError, match="No space left"):
            big.save(disk / "fit")
        same(jn.load(disk / "fit").sample(2), fit.sample(2))
    finally:
        libc.umount(str(disk).encode())


def test_another_process(fit, folder):
    """The same bits in a fresh interpreter that has imported nothing else."""
    code = "import sys, jensen, numpy; numpy.save(sys.argv[2], jensen.load(sys.argv[1]).sample(5, seed=9))"
    subprocess.run([sys.executable, "-c", code, folder, folder / "drawn.npy"], check=True, timeout=120)
    np.testing.assert_array_equal(np.load(folder / "drawn.npy"), fit.sample(5, seed=9))
