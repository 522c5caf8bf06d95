"""The process a fit runs in: no home, shared BLAS threads, JAX's debugging switches, forks."""

import contextlib
import multiprocessing
import os
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import jensen as jn
from jensen.fit import cache
from jensen.fit.auto import one_blas_thread

RNG = np.random.default_rng(0)
BITS = (RNG.random((40, 4)) < 0.4).astype(np.float32)
REAL = RNG.normal(size=(40, 2))


def density():
    return jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))


# ---- the cache of compiled programs -------------------------------------------------------------------------------
@pytest.fixture
def fresh(monkeypatch):
    """A process that has not looked for its cache yet."""
    monkeypatch.setattr(cache, "_looked", False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    for name in (cache.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    jax.config.update("jax_compilation_cache_dir", before)


def switched_on():
    """What it warned of, over two fits."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cache.switch_on(), cache.switch_on()
    return [str(w.message) for w in said]


def test_no_home_and_no_such_user(fresh):
    pwd = pytest.importorskip("pwd")
    fresh.delenv("HOME", raising=False)
    fresh.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    (said,) = switched_on()
    assert cache.VARIABLE in said
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", cache.VARIABLE])
def test_a_folder_that_cannot_be_made(fresh, tmp_path, variable):
    (tmp_path / "file").write_text("")
    fresh.setenv(variable, str(tmp_path / "file" / "below"))
    (said,) = switched_on()
    assert cache.VARIABLE in said


def test_a_folder_that_cannot_be_written_to(fresh, tmp_path):
    fresh.setenv(cache.VARIABLE, str(tmp_path))
    fresh.setattr(os, "access", lambda *_: False)
    assert len(switched_on()) == 1


@pytest.mark.parametrize("value", ["off", None])
def test_nothing_is_said_where_nothing_is_wrong(fresh, tmp_path, value):
    fresh.setenv(cache.VARIABLE, value or str(tmp_path / "new"))
    assert switched_on() == []
    assert (jax.config.jax_compilation_cache_dir is None) == (value == "off")


# ---- BLAS ---------------------------------------------------------------------------------------------------------
def n_blas():
    return {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}


def in_a_thread(fn):
    """threadpoolctl obeys the thread that set a number for as long as it lives."""
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


@pytest.fixture
def two_threads():
    before = threadpool_info()
    in_a_thread(lambda: threadpool_limits(2, "blas"))
    if n_blas() != {2}:
        pytest.skip("BLAS has one thread here")
    yield
    in_a_thread(lambda: threadpool_limits(before))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_overlapping_fits_restore_what_was_there(two_threads, order):
    leave, entered, left, seen = [[threading.Event() for _ in range(3)] for _ in range(3)] + [[]]

    def fit(k):
        with contextlib.suppress(ZeroDivisionError), one_blas_thread():
            entered[k].set()
            leave[k].wait(20)
            if k == 1:
                raise ZeroDivisionError
        left[k].set()

    threads = [threading.Thread(target=fit, args=(k,)) for k in range(3)]
    for k, thread in enumerate(threads):
        thread.start()
        entered[k].wait(20)
    for k in order:
        seen.append(n_blas())
        leave[k].set()
        left[k].wait(20)
    assert seen == [{1}] * 3
    assert n_blas() == {2}
    for thread in threads:
        thread.join()


def test_nested_and_failing(two_threads):
    with contextlib.suppress(ZeroDivisionError), one_blas_thread(), one_blas_thread():
        assert n_blas() == {1}
        raise ZeroDivisionError
    assert n_blas() == {2}
    in_a_thread(lambda: threadpool_limits(1, "blas"))  # another thread may set it afterwards
    assert n_blas() == {1}


# ---- debugging switches -------------------------------------------------------------------------------------------
SWITCHES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "disable_jit": lambda: jax.disable_jit(),
    "checks": lambda: jax.enable_checks(True),
    "tracer leaks": lambda: jax.checking_leaks(),
}
FITS = {
    "ladder": lambda: jn.fit(density()),
    "gradient": lambda: jn.fit(density(), family="mean-field", n_steps=60, n_draws=256),
    "EM": lambda: jn.em(jn.models.GaussianMixture(1), REAL, n_iter=3),
    "RBM": lambda: jn.fit(jn.models.RBM(4, 2), BITS, n_steps=20),
}


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", FITS)
def test_a_fit_with_a_switch_on(name, switch):
    usual = FITS[name]()
    with SWITCHES[switch]():
        before = [getattr(jax.config, n) for n in ("jax_debug_nans", "jax_numpy_rank_promotion", "jax_disable_jit")]
        fit = FITS[name]()
        drawn = fit.sample(3)
        after = [getattr(jax.config, n) for n in ("jax_debug_nans", "jax_numpy_rank_promotion", "jax_disable_jit")]
    assert before == after
    assert fit.verdict == usual.verdict
    jax.tree.map(np.testing.assert_array_equal, drawn, usual.sample(3))


def test_the_users_own_code_keeps_its_switches():
    with jax.debug_nans(True):
        FITS["ladder"]()
        with pytest.raises(FloatingPointError):
            jnp.log(-jnp.ones(()))
    with jax.numpy_rank_promotion("raise"):
        FITS["ladder"]()
        with pytest.raises(ValueError):
            jnp.ones(2) + jnp.ones((2, 2))


def test_a_switch_for_the_whole_process():
    """Set by `jax.config.update`, and put back."""
    usual = FITS["ladder"]()
    jax.config.update("jax_debug_nans", True)
    try:
        assert FITS["ladder"]().verdict == usual.verdict
        assert jax.config.jax_debug_nans
    finally:
        jax.config.update("jax_debug_nans", False)


# ---- forks --------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("what", ["fit", "sample", "load"])
def test_a_forked_child_is_refused(what, tmp_path):
    fit = FITS["ladder"]()
    fit.save(tmp_path)
    does = {"fit": FITS["ladder"], "sample": lambda: fit.sample(2), "load": lambda: jn.load(tmp_path)}[what]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        code = 1
        try:
            does()
        except jn.JensenError as error:
            code = 0 if "spawn" in str(error) and "instead:" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert does() is not None  # the parent goes on


def _verdict(_):
    return str(FITS["ladder"]().verdict)


def test_a_spawned_child_works():
    FITS["ladder"]()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(_verdict, (0,)).get(200) == "RELIABLE"
