import os

# Read when PyTorch is loaded: where a test asks for two threads they must not spin for a core that
# another test process has (docs/experiments.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
