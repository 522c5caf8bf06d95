"""The persistent compilation cache: what was compiled once is not compiled again in the next process."""

import os
import warnings
from pathlib import Path
from typing import Any, cast

import jax

VARIABLE = "JENSEN_CACHE"
LEAST_SECONDS = 0.1  # of compilation: smaller programs cost more to look up than to compile

_looked = False


def folder() -> Path | None:
    """Where programs are kept: JENSEN_CACHE, or a folder of the user's own; None if JENSEN_CACHE is "off".

    Raises: RuntimeError where there is no home: HOME is not set, and the user is not in the list of users.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked.lower() in ("off", "0", "no", "none"):
        return None
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jensen" / "xla"


def switch_on() -> None:
    """Once a process: gives JAX the folder, unless the user has configured a cache. Where none can be written it warns,
    and programs are compiled anew in every process."""
    global _looked
    if _looked:
        return
    _looked = True
    config = cast(Any, jax.config)
    if config.jax_compilation_cache_dir is not None:
        return
    try:
        where = folder()
        if where is None:
            return
        where.mkdir(parents=True, exist_ok=True)
        if not os.access(where, os.W_OK | os.X_OK):
            raise PermissionError(f"{where} cannot be written to")
    except (OSError, RuntimeError) as error:
        instead = f'{VARIABLE} names a folder for them, or is "off"'
        warnings.warn(f"compiled programs are not kept for the next process: {error}; {instead}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(where))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
