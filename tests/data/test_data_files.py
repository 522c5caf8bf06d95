"""Files in, arrays out; anything else is refused by name."""

import gzip
import hashlib
import struct

import numpy as np
import pandas as pd
import pytest

import jensen as jn
from jensen.data import binarized_mnist, fetch, load, load_columns, load_idx, load_table
from jensen.fit.minibatch import MappedArray

X = np.array([[1.5, 2.0, -3.0], [4.0, 5.25, 6.0]])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b,c\n1.5,2,-3\n4,5.25,6\n", ["a", "b", "c"]),
        ("1.5,2,-3\n4,5.25,6\n", ["0", "1", "2"]),
        ("a;b;c\n1.5;2;-3\n4;5.25;6\n", ["a", "b", "c"]),
        ("\ufeff1.5,2,-3\n4,5.25,6\n", ["0", "1", "2"]),
        ('"a" , "b", "c"\n1.5, 2, -3\n4, 5.25, 6\n', None),
        (",a,b,c\n0,1.5,2,-3\n1,4,5.25,6\n", ["a", "b", "c"]),
    ],
)
def test_csv(tmp_path, text, names):
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(load_table(path), X)
    columns = load_columns(path)
    assert names is None or list(columns) == names
    np.testing.assert_array_equal(np.stack(list(columns.values()), 1), X)


def test_what_pandas_writes_comes_back(tmp_path):
    wide = pd.DataFrame(np.arange(10.0).reshape(2, 5) / 3)
    for index in (True, False):
        wide.to_csv(tmp_path / "w.csv", index=index)
        np.testing.assert_allclose(load_table(tmp_path / "w.csv"), wide.to_numpy())


def test_columns_keep_integers(tmp_path):
    (tmp_path / "x.csv").write_text("count,size\n1,0.5\n2,0.25\n")
    assert load_columns(tmp_path / "x.csv")["count"].dtype.kind == "i"
    assert load_table(tmp_path / "x.csv").dtype == float


def test_numpy_files(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(load_table(tmp_path / "x.npy"), X)
    mapped = load_table(tmp_path / "x.npy", mapped=True)
    assert isinstance(mapped, MappedArray)
    np.testing.assert_array_equal(mapped[np.array([1])], X[1:])
    np.savez(tmp_path / "one.npz", x=X)
    np.testing.assert_array_equal(load_table(tmp_path / "one.npz"), X)
    np.savez(tmp_path / "two.npz", x=X, y=X[:, 0])
    assert load_table(tmp_path / "two.npz").keys() == load_columns(tmp_path / "two.npz").keys() == {"x", "y"}


def test_large_npy_stays_on_disk(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(load, "MAPPED_BYTES", 10)
    assert isinstance(load_table(tmp_path / "x.npy"), MappedArray)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame(X, columns=list("abc")).to_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(load_table(tmp_path / "x.parquet"), X)
    assert list(load_columns(tmp_path / "x.parquet")) == list("abc")


def refused(match, fn, *arguments):
    with pytest.raises(jn.DataError, match=match) as error:
        fn(*arguments)
    assert all(f"{p}:" in str(error.value) for p in ("wrong", "because", "instead"))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused("pyarrow is not installed", load_table, tmp_path / "x.parquet")


def test_refused(tmp_path):
    refused("no such file", load_table, tmp_path / "x.csv")
    refused(r"\.csv, \.npy, \.npz, \.parquet", load_table, tmp_path / "x.txt")
    refused("no suffix", load_table, tmp_path / "x")
    (tmp_path / "d.csv").mkdir()
    refused("folder", load_table, tmp_path / "d.csv")
    (tmp_path / "t.csv").write_text("a,name,b,city\n1,x,2,y\n")
    refused("name, city", load_table, tmp_path / "t.csv")
    (tmp_path / "e.csv").write_text("a,b\n")
    refused("no rows", load_table, tmp_path / "e.csv")
    (tmp_path / "z.csv").write_text("")
    refused("it cannot be read", load_table, tmp_path / "z.csv")
    np.save(tmp_path / "o.npy", np.array([{}, 1], object), allow_pickle=True)
    refused("pickle", load_table, tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", x=np.array([{}, 1], object))
    refused("pickle", load_table, tmp_path / "o.npz")
    np.savez(tmp_path / "empty.npz")
    refused("no array", load_table, tmp_path / "empty.npz")
    for name in ("bad.npy", "bad.npz", "bad.parquet"):
        (tmp_path / name).write_bytes(b"neither this nor that")
        refused("it cannot be read|pickle", load_table, tmp_path / name)
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    refused("it cannot be read", load_table, tmp_path / "cut.npy")
    refused("without a name", load_columns, tmp_path / "x.npy")


# ---- images -------------------------------------------------------------------------------------------------------
def idx(array, code):
    return b"\0\0" + bytes([code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize(("dtype", "code"), [(">u1", 0x08), (">i2", 0x0B), (">i4", 0x0C), (">f4", 0x0D)])
def test_idx(tmp_path, dtype, code):
    images = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(images, code)))
    (tmp_path / "x").write_bytes(idx(images, code))
    for name in ("x", "x.gz"):
        found = load_idx(tmp_path / name)
        np.testing.assert_array_equal(found, images)
        assert found.dtype.isnative


def test_idx_refused(tmp_path):
    raw = idx(np.arange(24, dtype=">u1").reshape(2, 12), 8)
    for name, contents, match in [
        ("a", raw[:-1], "truncated"),
        ("b", raw + b"x", "too long"),
        ("c", raw[:6], "truncated"),
        ("d", b"PNG", "not an idx"),
        ("e.gz", gzip.compress(raw)[:-9], "cannot be read"),
        ("f.gz", raw, "cannot be read"),
    ]:
        (tmp_path / name).write_bytes(contents)
        refused(match, load_idx, tmp_path / name)
    refused("cannot be read", load_idx, tmp_path / "nowhere")


def test_binarized_mnist(tmp_path):
    bits = (np.random.default_rng(0).random((3, 784)) < 0.5).astype(np.uint8)
    np.savez(tmp_path / "b.npz", train=np.packbits(bits, axis=1), test=np.packbits(bits[:1], axis=1))
    found = binarized_mnist(tmp_path / "b.npz")
    np.testing.assert_array_equal(found["train"], bits)
    assert found["test"].shape == (1, 784)
    np.savez(tmp_path / "c.npz", train=bits.astype(float))
    refused("packed bits", binarized_mnist, tmp_path / "c.npz")


# ---- downloads ----------------------------------------------------------------------------------------------------
def test_fetch(tmp_path):
    source = tmp_path / "a file.bin"
    source.write_bytes(b"contents")
    digest = hashlib.sha256(b"contents").hexdigest()
    path = fetch(source.as_uri(), digest.upper(), tmp_path / "cache")
    assert path == tmp_path / "cache" / "a file.bin"
    assert path.read_bytes() == b"contents"
    source.unlink()
    assert fetch(source.as_uri(), digest, tmp_path / "cache") == path  # not fetched again
    path.write_bytes(b"contentz")
    refused("cannot be had", fetch, source.as_uri(), digest, tmp_path / "cache")  # a damaged copy is not used


def test_fetch_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"contents")
    url = (tmp_path / "x").as_uri()
    refused("its sha256 is", fetch, url, "0" * 64, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    refused("64 hexadecimal", fetch, url, "abc", tmp_path)
    refused("not the address", fetch, "ftp://host/x", "0" * 64, tmp_path)
    refused("not the address", fetch, "x", "0" * 64, tmp_path)
