"""What every test shares: slow tests on request, and double precision where numbers are compared with exact ones."""

import gc
import os

# One thread a worker: more threads than cores are slower. Set before a backend exists, and for the processes tests start.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest

import jensen

_DOUBLE = {"conformance", "laws", "exact", "refusals"}


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all") or "slow" in config.getoption("-m", ""):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True)
def _double_precision(request):
    if request.path.parent.name not in _DOUBLE:
        yield
        return
    with jax.enable_x64(True):
        yield


class _Compilations:
    """Counts what XLA compiles, or finds in its cache on disk."""

    def __init__(self):
        self.n = 0
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def _count(self, event, seconds, **_):
        self.n += event == "/jax/core/compile/backend_compile_duration"

    def __call__(self, run):
        """(what run() returns, the number of programs that were compiled for it)."""
        before = self.n
        out = run()
        return out, self.n - before


_COMPILATIONS = _Compilations()


@pytest.fixture
def compilations():
    return _COMPILATIONS


MAPPINGS = 25_000  # of 65,530 that Linux grants a process


@pytest.fixture(scope="module", autouse=True)
def _bounded_mappings():
    """Every executable holds memory mappings, of which a process may have only so many: at many, all are dropped, when
    none of them runs."""
    yield
    if _n_mappings() > MAPPINGS:
        jax.block_until_ready(jax.live_arrays())
        jensen.clear_caches()
        gc.collect()


def _n_mappings():
    try:
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)
    except OSError:  # not Linux
        return 0
