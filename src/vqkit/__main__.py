"""`python -m vqkit`, which torchrun needs: torchrun --nproc-per-node 2 -m vqkit train ..."""

import os
import sys

from .cli import main

if __name__ == "__main__":
    status = main()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # On a busy machine a rank was seen to abort while the interpreter took its threads of
        # communication down ("terminate called without an active exception"), for which torchrun
        # calls the whole run failed. By now all files are written and closed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
