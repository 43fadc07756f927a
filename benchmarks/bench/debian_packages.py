"""Images that Debian's packages bring, unpacked into a folder; nothing is installed.

    python benchmarks/bench/debian_packages.py DIR

puts Fashion-MNIST into DIR/fashion-mnist, where vqkit finds it with VQKIT_DATA=DIR. Does nothing
where it is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALLED = Path("/usr/share/datasets/fashion-mnist")


@contextmanager
def unpacked(package: str) -> Iterator[Path]:
    """Inside, a folder with the files of a package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["apt-get", "download", package], cwd=folder, check=True, capture_output=True
        )
        (archive,) = Path(folder).glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, f"{folder}/files"], check=True)
        yield Path(folder) / "files"


def fashion_mnist(folder: Path) -> None:
    target = folder / "fashion-mnist"
    if INSTALLED.exists() or target.exists():
        return
    try:
        with unpacked("dataset-fashion-mnist") as files:
            shutil.copytree(files / INSTALLED.relative_to("/"), target)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"Fashion-MNIST cannot be had from Debian here ({error}); put its four files into "
            f"{target}"
        ) from error


if __name__ == "__main__":
    fashion_mnist(Path(sys.argv[1]))
