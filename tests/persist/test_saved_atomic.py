"""Whatever stops a save, the folder holds the old fit or the new one; and any number of writers may share it."""

import builtins
import concurrent.futures as cf
import contextlib
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from madefits import family_examples, fit_of_example

import jensen as jn
from jensen.fit import checkpoint

FILES = ["arrays.jensen", "fit.json"]


def numbered(seed):
    fit = fit_of_example(*family_examples()["MeanField"])
    fit.seed = seed
    fit.log_p = np.full(7, float(seed))
    return fit


@pytest.fixture(scope="module")
def fits():
    return [numbered(k) for k in range(3)]


def read(folder):
    """The number of the save; arrays and text are of the same one."""
    fit = jn.load(folder)
    assert set(fit.log_p) == {float(fit.seed)}
    return fit.seed


class Killed(BaseException):
    """Not to be caught, and after it nothing more is done."""


class Disk:
    """Every operation on files, counted; number `at` fails, half done where it can be."""

    def __init__(self, monkeypatch, at, error):
        self.n, self.at, self.error = 0, at, error
        for name in ("replace", "fsync", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        real = builtins.open

        def opened(path, mode="r", *rest, **more):
            if "r" in mode:
                return real(path, mode, *rest, **more)
            file = self.counted(real)(path, mode, *rest, **more)
            whole = file.write
            half = lambda data: whole(data[: len(data) // 2])
            return Torn(file, self.counted(whole, half))

        monkeypatch.setattr(checkpoint, "open", opened, raising=False)

    def counted(self, real, half=None):
        def run(*args, **kwargs):
            self.n += 1
            dead = issubclass(self.error, Killed) and self.n > self.at
            if self.n == self.at or dead:
                if half is not None and not dead:
                    half(*args)
                raise self.error(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return run


class Torn:
    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def operations(fit, folder):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, -1, OSError)
        fit.save(folder)
        return disk.n


@pytest.mark.parametrize("error", [Killed, OSError, KeyboardInterrupt])
def test_stopped_at_any_operation(fits, tmp_path, error):
    old, new, third = fits
    folder = tmp_path / "fit"
    n = operations(old, folder)
    assert n > 6
    seen = set()
    for at in range(1, n + 1):
        old.save(folder)
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, at, error)
            try:
                new.save(folder)
            except (error, jn.CheckpointError) as raised:
                assert error is not OSError or "No space left" in str(raised)
        seen.add(read(folder))
        third.save(folder)
        assert read(folder) == 2
        assert sorted(os.listdir(folder)) == FILES  # what the stopped one left is gone
    assert seen == {0, 1}  # early: the old one, late: the new one


def test_stopped_at_the_first_save(fits, tmp_path):
    ends = set()
    for at in range(1, operations(fits[0], tmp_path / "counted") + 1):
        folder = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, at, Killed)
            with contextlib.suppress(Killed):
                fits[0].save(folder)
        try:
            ends.add(read(folder))
        except jn.CheckpointError as error:
            ends.add("no such folder" in str(error) or "it has no `fit.json`" in str(error))
    assert ends == {0, True}


def test_threads_share_a_folder(fits, tmp_path):
    fits[0].save(tmp_path)
    with cf.ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(fits[i % 3].save, tmp_path) for i in range(60)]
        reads = [pool.submit(read, tmp_path) for _ in range(60)]
        assert {f.result() for f in reads} <= {0, 1, 2}
        assert all(f.result() == tmp_path for f in writes)
    assert sorted(os.listdir(tmp_path)) == FILES


def test_without_locks(fits, tmp_path, monkeypatch):
    """Some network drives have none: then a save's arrays stay under its own name."""
    fcntl = pytest.importorskip("fcntl")

    def none(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    fits[0].save(tmp_path)
    with cf.ThreadPoolExecutor(4) as pool:
        for f in [pool.submit(fits[i % 3].save, tmp_path) for i in range(24)]:
            f.result()
        assert read(tmp_path) in (0, 1, 2)
    monkeypatch.undo()
    fits[1].save(tmp_path)
    assert (read(tmp_path), sorted(os.listdir(tmp_path))) == (1, FILES)


def test_processes_share_a_folder(fits, tmp_path):
    a, b, shared = (tmp_path / name for name in ("a", "b", "shared"))
    fits[0].save(a), fits[1].save(b), fits[0].save(shared)
    code = "import sys, jensen as jn\nfit = jn.load(sys.argv[1])\nfor _ in range(40): fit.save(sys.argv[2])"
    both = [subprocess.Popen([sys.executable, "-c", code, str(f), str(shared)]) for f in (a, b)]
    while any(p.poll() is None for p in both):
        assert read(shared) in (0, 1)
    assert [p.returncode for p in both] == [0, 0]
    assert sorted(os.listdir(shared)) == FILES


def test_reports_and_files_share_a_name(tmp_path):
    path = tmp_path / "deep" / "report.html"
    texts = [bytes([65 + i]) * 100_000 for i in range(4)]
    with cf.ThreadPoolExecutor(4) as pool:
        list(pool.map(checkpoint.write_atomically, [path] * 40, texts * 10))
    assert path.read_bytes() in texts
    assert os.listdir(path.parent) == ["report.html"]


def test_as_saved_by_an_earlier_version(fits, tmp_path):
    """Its `fit.json` does not name the file of arrays."""
    import json

    from jensen.fit.persist import _digest

    fits[2].save(tmp_path)
    meta = json.loads((tmp_path / "fit.json").read_text())
    del meta["arrays_file"]
    meta["digest"] = _digest(meta)
    (tmp_path / "fit.json").write_text(json.dumps(meta))
    assert read(tmp_path) == 2
    fits[0].save(tmp_path)
    assert read(tmp_path) == 0
