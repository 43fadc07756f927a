"""The README's commands, as written, on crops of a photograph (only made short)."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import TINY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = [setting for setting in TINY if "codebook" not in setting]

SHORT_PRIOR = [
    "network.width=32",
    "network.num_blocks=1",
    "network.num_heads=2",
    "train.steps=4",
    "train.max_minutes=null",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    """A working folder with `photos` in it, as the README assumes."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    with Image.open(photo) as image:
        for index in range(59):
            left, top = 7 * index % (image.width - 80), 5 * index % (image.height - 80)
            image.crop((left, top, left + 80, top + 72)).save(folder / "photos" / f"{index}.png")
        image.crop((50, 50, 150, 130)).save(folder / "photos" / "cat.png")
    return folder


def test_the_commands_work_one_after_another_and_then_the_python(folder, monkeypatch):
    commands = [line.split(" #")[0].split() for block in blocks("sh") for line in block.splitlines() if line]
    assert len(commands) >= 8
    for command in commands:
        assert command[0] == "vqkit"
        extra = {"train": SHORT, "train-prior": SHORT_PRIOR}.get(command[1], [])
        done = subprocess.run(
            [sys.executable, "-m", *command, *extra], cwd=folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, (command, done.stderr)
    assert (folder / "runs" / "photos" / "report.html").exists()
    assert (folder / "figures.json").exists() and (folder / "out" / "cat.png").exists()

    monkeypatch.chdir(folder)
    with Image.open("photos/cat.png") as image:
        names = {"images": np.asarray(image.convert("RGB"))[None]}
    exec(blocks("python")[0], names)
    assert names["pixels"].shape == names["again"].shape == names["images"].shape


def test_the_pictures_and_files_it_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    tree = re.search(r"## Files\n\n(.*?)\n\n", README, re.DOTALL).group(1)
    for line in tree.splitlines():
        name, indent = line.split()[0], len(line) - len(line.lstrip())
        assert (ROOT / ("src/vqkit" if indent > 4 else "") / name).exists(), name
