"""The README's commands, as written, on crops of a photograph (only made short)."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from vqkit import cli

from .conftest import TINY
from .signals.audio.conftest import RATE, RESIDUAL, voice
from .signals.audio.conftest import TINY as SPEECH
from .signals.text.conftest import TINY as TEXT
from .signals.text.conftest import note

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = [
    *(setting for setting in TINY if "codebook" not in setting),
    "train.steps=10",
    "coder.steps=2",
    "data.image_size=[32,32]",
]

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
    """A working folder with `photos`, `recordings`, a talk, `notes` and `records` in it, as the
    README assumes.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    with Image.open(photo) as image:
        for index in range(39):
            left, top = 7 * index % (image.width - 80), 5 * index % (image.height - 80)
            image.crop((left, top, left + 80, top + 72)).save(folder / "photos" / f"{index}.png")
        image.crop((50, 50, 150, 130)).save(folder / "photos" / "cat.png")
    (folder / "recordings").mkdir()
    for number in range(8):
        soundfile.write(folder / "recordings" / f"{number}.wav", voice(2.0, number), RATE)
    soundfile.write(folder / "talk.wav", voice(2.0, 9), RATE)
    for name, suffix, length in (("notes", "md", 300), ("records", "json", 100)):
        (folder / name).mkdir()
        for number in range(24):
            path = folder / name / f"{number}.{suffix}"
            path.write_text(note(number, length), encoding="utf-8")
    return folder


def test_the_commands_work_one_after_another_and_then_the_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    commands = [
        line.split(" #")[0].split() for block in blocks("sh") for line in block.splitlines() if line
    ]
    assert len(commands) >= 8
    for command in commands:
        assert command[0] == "vqkit"
        extra = {"train": SHORT, "train-prior": SHORT_PRIOR}.get(command[1], [])
        if command[1:3] == ["train", "recordings"]:
            extra = [*SPEECH, *RESIDUAL]
        if command[1:3] == ["train", "notes"]:
            extra = TEXT
        assert cli.main([*command[1:], *extra]) == 0, command
    assert (folder / "runs" / "photos" / "report.html").exists()
    for record in (folder / "records").iterdir():
        back = folder / "records-back" / record.name
        assert back.read_bytes() == record.read_bytes()
    assert (folder / "figures.json").exists() and (folder / "out" / "cat.png").exists()

    with Image.open("photos/cat.png") as image:
        names = {"images": np.asarray(image.convert("RGB"))[None]}
    exec(blocks("python")[0], names)
    assert names["pixels"].shape == names["again"].shape == names["images"].shape


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/guide.md",
        "docs/defaults.md",
        "docs/design.md",
        "docs/benchmarks.md",
    ],
)
def test_what_documents_link_to_exists(name):
    document = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("https:") or (document.parent / target).exists(), target


def test_the_layout_in_the_design_is_that_of_the_files():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = re.search(r"## Layout\n(.*?)\n\n", design, re.DOTALL).group(1)
    seen = 0
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        parent = {4: ".", 6: "src/vqkit", 8: "src/vqkit/signals"}.get(indent)
        if parent is not None:
            assert (ROOT / parent / line.split()[0]).exists(), line
            seen += 1
    assert seen > 20
