"""`python -m vqkit`, which torchrun needs: torchrun --nproc-per-node 2 -m vqkit train ..."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
