"""Times several implementations ("sides") of one workload against each other, in interleaved rounds.

A side is a function that imports what it needs, prepares its data and returns `run`, a callable without arguments that
does the timed work:

    @WORKLOAD.side("my library", needs=("mylib",))
    def my_library(context):
        import mylib
        ...
        return run

What `run` returns is defined by the workload, whose `measure(run)` turns calls of it into metrics. Every side lives in
a process of its own, so thread counts and compiler flags are set before anything is imported. Every round runs each
side once, and the order rotates from round to round. A fresh workload starts a new process for every side and round.
"""

import dataclasses
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
WIDE = {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=512"}


@dataclasses.dataclass(frozen=True)
class Context:
    """What a side is told: the folder of data sets (or None) and the number of threads it may use."""

    data: pathlib.Path | None
    threads: int


@dataclasses.dataclass(frozen=True)
class Side:
    """One implementation of a workload; `env` holds environment variables it needs, XLA_FLAGS being appended."""

    name: str
    setup: Callable
    needs: tuple[str, ...]
    env: dict[str, str]


@dataclasses.dataclass
class Workload:
    """A task with its sides.

    `measure(run)` returns {metric: (value, unit)}. `base` names the side that the others are compared with. `warm` asks
    for one discarded measurement in every new process; `fresh` for a new process in every round.
    """

    name: str
    measure: Callable[[Callable], dict[str, tuple[float, str]]]
    base: str
    fresh: bool = False
    warm: bool = False
    sides: dict[str, Side] = dataclasses.field(default_factory=dict)

    def side(self, name, needs=(), env=None):
        """Decorator that registers a function as the side `name`; it may be stacked, with other `env`."""

        def register(setup):
            self.sides[name] = Side(name, setup, tuple(needs), dict(env or {}))
            return setup

        return register


def load(name: str) -> Workload:
    """The workload defined by `benchmarks/<name>.py`."""
    return importlib.import_module(f"benchmarks.{name}").WORKLOAD


def serve(workload, side, data, threads):
    """Body of a side's process: sets the side up, then answers every line of standard input with a measurement."""
    answer = os.fdopen(os.dup(1), "w")
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)

    def say(value):
        print(json.dumps(value), file=answer, flush=True)

    try:
        chosen = load(workload)
        run = chosen.sides[side].setup(Context(pathlib.Path(data) if data else None, threads))
        if chosen.warm:
            chosen.measure(run)
        say({"ready": True})
        for _ in sys.stdin:
            say({"metrics": chosen.measure(run)})
    except Exception:
        say({"error": traceback.format_exc()})


def environment(side: Side, threads: int) -> dict[str, str]:
    """Environment variables that fix the number of threads and the flags of a side."""
    flags = [ONE_THREAD] if threads == 1 else []
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    env |= {"JAX_PLATFORMS": "cpu"} | side.env
    env["XLA_FLAGS"] = " ".join([*flags, *side.env.get("XLA_FLAGS", "").split()])
    return env


class Worker:
    """The process of one side, pinned to as many cores as it has threads, with an empty folder for what it writes."""

    def __init__(self, workload: str, side: Side, data: str | None, threads: int):
        self.folder = tempfile.TemporaryDirectory()
        inherited = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
        inherited |= {"BENCHMARK_TMP": self.folder.name, "PYTENSOR_FLAGS": f"base_compiledir={self.folder.name}"}
        call = f"from benchmarks.harness import serve; serve({workload!r}, {side.name!r}, {data!r}, {threads})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", call],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=inherited | environment(side, threads),
            preexec_fn=lambda: pin(threads),
        )
        self._read()

    def _read(self):
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the process ended with code {self.process.wait()}"}
        if "error" in answer:
            self.close()
            raise RuntimeError(answer["error"])
        return answer

    def measure(self) -> dict[str, tuple[float, str]]:
        """One measurement."""
        self.process.stdin.write("measure\n")
        self.process.stdin.flush()
        return self._read()["metrics"]

    def close(self):
        """Ends the process and removes its folder."""
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


def pin(threads: int):
    """Restricts this process to the last `threads` cores that it may use, where the system knows how."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def runnable(workload: Workload, only: str = "") -> list[Side]:
    """The sides whose name contains `only` and whose packages can be imported; says which are skipped."""
    chosen = []
    for side in workload.sides.values():
        missing = [need for need in side.needs if importlib.util.find_spec(need) is None]
        if only in side.name and missing:
            print(f"skipped: {workload.name}, {side.name}: cannot import {', '.join(missing)}", flush=True)
        elif only in side.name:
            chosen.append(side)
    return chosen


def compare(workload: Workload, rounds: int, threads: int = 1, data: str | None = None, only: str = "") -> list[dict]:
    """Runs `rounds` interleaved rounds and returns one row for each side and metric."""
    sides, values, units, workers = runnable(workload, only), {}, {}, {}
    try:
        for number in range(rounds):
            shift = number % max(len(sides), 1)
            for side in sides[shift:] + sides[:shift]:
                try:
                    worker = workers.get(side.name) or Worker(workload.name, side, data, threads)
                    workers[side.name] = worker
                    metrics = worker.measure()
                except RuntimeError as error:
                    workers.pop(side.name, None)
                    print(f"failed: {workload.name}, {side.name}\n{error}", flush=True)
                    continue
                if workload.fresh:
                    workers.pop(side.name).close()
                for metric, (value, unit) in metrics.items():
                    values.setdefault((side.name, metric), []).append(value)
                    units[metric] = unit
            print(f"{workload.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    facts = {"threads": threads} | surroundings()
    return [
        {
            "workload": workload.name,
            "side": name,
            "metric": metric,
            "unit": units[metric],
            "median": statistics.median(seen),
            "min": min(seen),
            "max": max(seen),
            "n_rounds": len(seen),
            "versions": versions(workload.sides[name]),
            "xla_flags": environment(workload.sides[name], threads)["XLA_FLAGS"],
            "data_given": data is not None,
        }
        | facts
        for name in workload.sides
        for (owner, metric), seen in values.items()
        if owner == name
    ]


DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def versions(side: Side) -> dict[str, str]:
    """Versions of the packages of a side; a package that is not installed, only importable, has none."""
    found = {}
    for need in ("numpy", *side.needs, *(["jaxlib"] if "jax" in side.needs else [])):
        try:
            found[need] = importlib.metadata.version(DISTRIBUTIONS.get(need, need))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def surroundings() -> dict[str, str | None]:
    """Python, processor, commit and date: what every row of every benchmark says of where it was made."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"python": platform.python_version(), "cpu": cpu_model(), "commit": commit(), "date": date}


def cpu_model() -> str:
    """The processor's name."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str | None:
    """The commit of the working tree, or None outside of a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write(rows: list[dict], path: str):
    """Appends the rows to a file of JSON lines."""
    with open(path, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def table(rows: list[dict], base: str):
    """Prints the rows by metric, with the speed relative to the side `base` (larger is faster)."""
    for workload, metric, unit in dict.fromkeys((row["workload"], row["metric"], row["unit"]) for row in rows):
        group = [row for row in rows if (row["workload"], row["metric"]) == (workload, metric)]
        reference = next((row["median"] for row in group if row["side"] == base), None)
        print(f"\n{workload}: {metric} [{unit}], {group[0]['threads']} thread(s), {group[0]['cpu']}")
        print(f"{'side':40s} {'median':>12s} {'min':>12s} {'max':>12s}  speed relative to {base}")
        for row in group:
            numbers = " ".join(f"{row[key]:12.5g}" for key in ("median", "min", "max"))
            print(f"{row['side']:40s} {numbers}  {relative(row['median'], reference, unit)}")


def relative(value: float, reference: float | None, unit: str) -> str:
    """Speed relative to the reference, for seconds and for rates; empty for what is not a speed."""
    if reference is None or not (unit == "s" or unit.endswith("/s")):
        return ""
    return f"{reference / value if unit == 's' else value / reference:.3f}"
