"""The one place that knows numba: whether it can be used, and the modules that it compiles.

numba is in the extra [fast], and takes a second to import. So a module of kernels, which uses the
decorator `compiled`, is imported inside of the functions that need it and not at the top of a file.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


@cache
def usable() -> bool:
    """Whether numba is there, may compile, and finds a folder to keep what it compiles."""
    try:
        from numba import config, njit

        njit(cache=True)(lambda: None)
    except (ImportError, RuntimeError):  # the latter without a folder
        return False
    return not getattr(config, "DISABLE_JIT", False)


def compiled(function: Any) -> Any:
    """A function that numba compiles when it is first called; one whose name begins with _ is
    called by others of them alone.

    Without numba, the function itself.
    """
    if not usable():
        return function
    from numba import njit

    # numba keeps machine code beside the source, by the function's name and the age of its file. It
    # does not see when another file has changed whose functions it calls or whose types it takes:
    # code of an older version would be used, or fail to load. A name that sums up all files makes
    # it compile anew.
    function.__qualname__ += f"_{_digest()}"
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
    if function.__name__.startswith("_"):
        # What Python can call has code that unpacks its arguments, of which some hold dozens of
        # arrays: a third of the time to compile is spent on that.
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(**options)(function)


@cache
def _digest() -> str:
    """Of the source of this package, 8 digits."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


@cache
def load(module: str) -> Any:
    """A module of kernels, by its name in this package; None where numba cannot be used.

    Those who ask have the same in NumPy, which gives the same numbers.
    """
    return import_module(f"{__package__}.{module}") if usable() else None
