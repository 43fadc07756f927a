"""The commands of README and how-to pages, as written, on crops of a photograph, made short."""

import glob
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

import vqkit
from vqkit import cli

from . import processes
from .conftest import TINY
from .hub_server import TOKEN, Hub
from .signals.audio.conftest import RATE, RESIDUAL, voice
from .signals.audio.conftest import TINY as SPEECH
from .signals.text.conftest import TINY as TEXT
from .signals.text.conftest import note

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Whose commands are run, each in a folder of its own, one after another: the first trains what the
# others use.
RUN = [
    "README.md",
    "docs/start.md",
    *(f"docs/how-to/{name}.md" for name in ("train", "compress", "generate", "explain")),
    *(f"docs/how-to/{name}.md" for name in ("recordings", "text")),
]
# As well, but in a test of its own, which trains for itself what they share.
OTHERS = ("hub", "images", "export", "restyle", "sharpen", "arrays", "denoise")
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

# Of trainings that have settings of their own, by how their commands begin.
ARRAYS = ["train.steps=2", "model.network.width=16", "coder.steps=2", "train.precision=float32"]
SHORT_BY_COMMAND = {
    "train recordings": [*SPEECH, *RESIDUAL],
    "train notes": TEXT,
    "train emoji": [
        *(setting for setting in TINY if "codebook" not in setting),
        "train.steps=2",
        "data.image_size=[8,8]",
        "data.validation=0.01",
        "data.test=0.01",
        # What takes long is to measure rates.
        "coder.steps=0",
    ],
    "train talks": [*SPEECH, "model.network.filter_blocks=1"],
    "train ecg/": [*ARRAYS, "data.length=64"],
    "train scans/": [*ARRAYS, "data.size=[8,8,8]"],
    "train": SHORT,
    "train-prior": SHORT_PRIOR,
    "sharpen": [
        "train.steps=2",
        "adversary.width=4",
        "adversary.num_layers=1",
        "losses.perceptual_distance=bands",
    ],
}


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(document: str) -> list[list[str]]:
    lines = [line for block in blocks(document, "sh") for line in block.splitlines() if line]
    return [line.split(" #")[0].split() for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    """A folder with `photos`, `recordings`, a talk, a mask, `notes` and `records` in it, as the
    documents assume.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    with Image.open(photo) as image:
        for index in range(39):
            left, top = 7 * index % (image.width - 80), 5 * index % (image.height - 80)
            image.crop((left, top, left + 80, top + 72)).save(folder / "photos" / f"{index}.png")
        image.crop((50, 50, 150, 130)).save(folder / "photos" / "cat.png")
    mask = np.zeros((80, 100), np.uint8)
    mask[20:50, 30:60] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "runs").mkdir()
    (folder / "recordings").mkdir()
    for number in range(8):
        soundfile.write(folder / "recordings" / f"{number}.wav", voice(2.0, number), RATE)
    soundfile.write(folder / "talk.wav", voice(2.0, 9), RATE)
    for name, suffix, length in (("notes", "md", 300), ("records", "json", 100)):
        (folder / name).mkdir()
        for number in range(24):
            path = folder / name / f"{number}.{suffix}"
            path.write_text(note(number, length), encoding="utf-8")
    (folder / "notes" / "a.md").write_text(note(24), encoding="utf-8")
    return folder


@pytest.mark.long
def test_the_commands_of_documents_work_one_after_another_and_then_the_python(
    folder, tmp_path, monkeypatch
):
    for document in RUN:
        work = tmp_path / Path(document).stem
        work.mkdir()
        for each in folder.iterdir():
            (work / each.name).symlink_to(each)
        monkeypatch.chdir(work)
        assert commands(document)
        for command in commands(document):
            run(command)
        if python := blocks(document, "python"):
            with Image.open("photos/cat.png") as image:
                names = {"images": np.asarray(image.convert("RGB"))[None]}
            exec(python[0], names)
            assert names["pixels"].shape == names["images"].shape
    runs = folder / "runs"
    assert (runs / "photos" / "report.html").exists()
    assert (tmp_path / "README" / "out" / "cat.png").exists()
    for record in (folder / "records").iterdir():
        back = tmp_path / "text" / "records-back" / record.name
        assert back.read_bytes() == record.read_bytes()


@pytest.fixture
def work(folder, photo, tmp_path, monkeypatch) -> Path:
    """A folder with all that is in `folder`, and what the other pages speak of."""
    for each in folder.iterdir():
        (tmp_path / each.name).symlink_to(each)
    for name in ("drawings-of-a", "drawings-of-b", "noisy", "talks", "noises", "ecg", "scans"):
        (tmp_path / name).mkdir()
    with Image.open(photo) as image:
        for number in range(3):
            for left, name in enumerate(("drawings-of-a", "drawings-of-b", "noisy")):
                box = (40 * left, 40 * number, 40 * left + 32, 40 * number + 32)
                image.crop(box).save(tmp_path / name / f"{number}.png")
        image.crop((60, 60, 92, 92)).save(tmp_path / "new.png")
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(tmp_path / "talks" / f"{number}.wav", voice(1.5, number), RATE)
        np.save(tmp_path / "ecg" / f"{number}.npy", rng.normal(size=(192, 2)).cumsum(0))
        np.save(tmp_path / "scans" / f"{number}.npy", rng.normal(size=(8, 16, 8)))
    soundfile.write(tmp_path / "noisy" / "a.wav", voice(0.5, 7), RATE)
    soundfile.write(tmp_path / "noises" / "street.wav", rng.normal(0, 0.1, 2 * RATE), RATE)
    np.savetxt(
        tmp_path / "walk.csv", rng.normal(size=(90, 2)), delimiter=",", header="x,y", comments=""
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.mark.long
def test_the_commands_of_the_other_how_to_pages_work(work, hub):
    away = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(work / "cache"),
        # What `hf auth login` asks for.
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
    }
    for name in OTHERS:
        assert commands(f"docs/how-to/{name}.md")
        for command in commands(f"docs/how-to/{name}.md"):
            if "user/photos" in command[-1] or "hf://user/photos" in command:
                done = processes.run(["-m", *command], away, folder=work)
                assert done.returncode == 0, (command, done.stderr)
            elif command[0] != "hf":
                run(command)
    assert "model.safetensors" in hub.repositories["user/photos"]["main"]
    assert {path.name for path in (work / "out").iterdir()} >= {"cat.png", "0.png", "a.wav"}
    assert np.load(work / "back" / "walk.npy").shape == (90, 2)
    assert (work / "onnx" / "decoder.onnx").exists()


def run(command: list[str]) -> None:
    """One command, made short where it trains."""
    assert command[0] == "vqkit"
    made = {"train": "runs/photos/report.html", "train-prior": "runs/photos/prior"}.get(command[1])
    if made and Path(made).exists() and "runs/photos" in command:
        # Another document has trained it.
        return
    words = [found for word in command[1:] for found in sorted(glob.glob(word)) or [word]]
    begins = (" ".join(command[1 : 1 + length]) for length in (2, 1))
    extra = next((SHORT_BY_COMMAND[one] for one in begins if one in SHORT_BY_COMMAND), [])
    assert cli.main([*words, *extra]) == 0, command


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))


# Pages of the site that `make docs` writes.
MADE = ("reference/", "tutorials/")


@pytest.mark.parametrize(
    "document",
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/[a-z]*.md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_documents_link_to_exists(document):
    for target in links(document):
        is_made = target.removeprefix("../").startswith(MADE)
        is_there = is_made or (document.parent / target).exists()
        assert target.startswith(("https:", "mailto:")) or is_there, target


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


CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def in_common(text: str) -> dict[str, list[str]]:
    """What both languages of the README have alike: the level of each heading, code without its
    comments, links, names, and the numbers of each row of the table.
    """
    code = "\n".join(re.findall(r"```\w+\n(.*?)```", text, re.DOTALL))
    table = [line for line in text.splitlines() if line.startswith("|")]
    return {
        "headings": re.findall(r"^#+(?= )", text, re.MULTILINE),
        "commands": [re.split(r"\s+#", line)[0] for line in code.splitlines()],
        "links": re.findall(r"\]\(([^)]+)\)", text),
        "words in code": sorted(re.findall(r"`([^`\n]+)`", text)),
        "figures": [str(sorted(re.findall(r"[-+]?\d(?:[\d.,/x]*[\dx])?", row))) for row in table],
        "bold": re.findall(r"\*\*(.+?)\*\*", text.replace("、", ", ").replace("；", "; ")),
    }


@pytest.mark.parametrize("what", in_common(README))
def test_the_readme_says_the_same_in_both_languages(what):
    assert in_common(CHINESE)[what] == in_common(README)[what]


def test_the_readme_is_short_and_its_figures_are_in_the_benchmarks():
    assert README.count("\n") <= 120 and CHINESE.count("\n") <= 120
    measured = "".join(path.read_text() for path in (ROOT / "docs" / "benchmarks").glob("*.md"))
    rows = [line for line in README.splitlines() if line.startswith("|")][2:]
    figures = re.findall(r"\d+\.\d+", " ".join(rows))
    assert len(figures) >= 25
    assert [figure for figure in figures if figure not in measured] == []


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == vqkit.__version__ == citation["version"]
    assert citation["license"] == project["license"]
