"""One measurement in a process of its own, so that its first call compiles everything and its memory is its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARK = "row of the benchmark: "


def call(function: str, arguments: dict[str, Any], timeout: float = 900.0) -> dict[str, Any]:
    """The row that `function`, "package.module:name", returns for these keyword arguments; {"error": ...} otherwise.

    No persistent compilation cache is used, neither jensen's nor JAX's nor PyTensor's. LAPACK gets one thread unless the
    environment says otherwise: on a busy machine a second one makes small triangular solves some 50 times slower.
    """
    code = f"from benchmarks.posteriors.fresh import answer; answer({function!r}, {json.dumps(arguments)!r})"
    with tempfile.TemporaryDirectory() as folder:
        env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        env = {"OPENBLAS_NUM_THREADS": "1"} | env
        env |= {"JENSEN_CACHE": "off", "PYTENSOR_FLAGS": f"base_compiledir={folder}"}
        try:
            command = [sys.executable, "-W", "ignore", "-c", code]
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {timeout:.0f} s"}
    line = next((line for line in done.stdout.splitlines()[::-1] if line.startswith(MARK)), None)
    if line is None:
        return {"error": f"the process ended with code {done.returncode}: {done.stderr.strip()[-500:]}"}
    return json.loads(line.removeprefix(MARK))


def answer(function: str, arguments: str) -> None:
    """Body of the process: calls the function and prints its row."""
    import importlib

    module, name = function.split(":")
    measure: Callable = getattr(importlib.import_module(module), name)
    print(MARK + json.dumps(attempt(measure, **json.loads(arguments))), flush=True)


def attempt(measure: Callable, **arguments: Any) -> dict[str, Any]:
    """Its row; an exception becomes a row with its name and message."""
    try:
        return measure(**arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "refused": _is_refusal(error)}


def _is_refusal(error: Exception) -> bool:
    from jensen.errors import JensenError

    return isinstance(error, JensenError)


def append(rows: list[dict], path: str | Path) -> None:
    """The rows, at the end of a file of JSON lines."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
