"""Scripts of benchmarks/ as modules: some of their checks are tests too."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """The script `benchmarks/NAME.py`, imported; it finds its helpers, the package `bench`, beside
    it.
    """
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)


def bench(name: str) -> ModuleType:
    """The helper `benchmarks/bench/NAME.py`, imported."""
    return benchmark(f"bench.{name}")
