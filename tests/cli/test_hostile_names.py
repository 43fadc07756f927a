"""Names that act on terminals, pages and tables go through the verbs and come out as text."""

import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vqkit import cli

# A colour, a cleared screen, a new line, a direction that is turned, a script, quotes, a cell of
# Markdown.
HOSTILE = "-x\x1b[31m\x1b[2J\nfalse line\u202egnp|<script>alert(1)<_script>\"'`.png"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(emoji, tmp_path, monkeypatch):
    """A folder, itself of a hostile name, with two images and a broken one of such names."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / HOSTILE
    folder.mkdir()
    for number, prefix in enumerate(("", "second")):
        pixels = (
            emoji.read(emoji.splits["test"][number : number + 1]).values[0].permute(1, 2, 0).numpy()
        )
        Image.fromarray(pixels).save(folder / (prefix + HOSTILE))
    (folder / f"broken{HOSTILE}").write_bytes(b"no image")
    return folder


def test_no_verb_prints_a_name_raw(hostile, prior_folder, tmp_path, capsys):
    model = str(shutil.copytree(prior_folder, tmp_path / f"model{HOSTILE}"))
    image, second, broken = (
        str(hostile / (prefix + HOSTILE)) for prefix in ("", "second", "broken")
    )
    out = str(tmp_path / f"out{HOSTILE}")
    bundle = str(tmp_path / f"all{HOSTILE}.vq")
    calls = [
        ["info", model],
        ["evaluate", model, str(hostile), "--split", "all", "--json", out + ".json"],
        ["check", model, str(hostile), "--split", "all"],
        ["data", str(hostile), "--sheet", out + ".sheet.png"],
        ["reconstruct", model, image, broken, "--out", out + "r"],
        ["compress", model, image, broken, "--out-dir", out + "c"],
        ["compress", model, str(hostile), "--bundle", "--out", bundle],
        ["decompress", bundle, "--model", model, "--out-dir", out + "d"],
        ["decompress", bundle, "--model", model, "--out-dir", out + "d", "--item", HOSTILE],
        ["inspect", bundle],
        ["verify", bundle, broken, "--model", model],
        ["denoise", model, image, broken, "--out", out + "n", "--sheet", out + "n.png"],
        ["restyle", model, "--content", image, "--style", second, "--out", out + "s.png"],
        ["explain", model, "emoji", "--num", "16", "--out", out + ".html"],
        ["explain", model, str(hostile), "--num", "16", "--out", out + "2.html"],
        ["prune", model, "--data", str(hostile), "--out", out + "p"],
        ["score", model, image, broken, "--maps", out + "m"],
        ["generate", model, "--num", "2", "--out", out + "g.png", "--each", out + "e"],
        ["generate", model, "--num", "2", "--out", out + "g.png", "--class", HOSTILE],
        ["inpaint", model, image, "--mask", second, "--out", out + "i.png"],
        ["outpaint", model, image, "--expand", "4", "--out", out + "o.png"],
        ["variations", model, image, "--num", "2", "--out", out + "v.png"],
        ["interpolate", model, image, second, "--num", "2", "--out", out + "w.png"],
        ["recipes", HOSTILE],
        ["train", HOSTILE, "--out", out + "t", "--recipe", HOSTILE],
        ["train", "emoji", "--out", out + "t", HOSTILE + "=1"],
        ["train-prior", model, HOSTILE],
        ["train-coder", model, HOSTILE, "--force"],
        [HOSTILE],
        ["info", HOSTILE],
    ]
    raw = []
    for call in calls:
        status = cli.main(call)
        printed = capsys.readouterr()
        both = printed.out + printed.err
        assert status in (0, 1, 2) and "Traceback" not in both
        # An error is one line, whatever is named in it.
        if CONTROL.search(both) or any(
            line.startswith("false line") for line in printed.err.splitlines()
        ):
            raw.append((call[0], both[-300:]))
    assert not raw
    pages = [*tmp_path.glob("*.html"), *tmp_path.glob("*.md")]
    assert pages and all(
        "<script>alert" not in page.read_text() and "\x1b" not in page.read_text() for page in pages
    )


def test_a_reader_that_has_enough_is_no_mistake():
    """Of more output than a pipe holds, of which one line is read."""
    script = "import sys; from vqkit import cli; from vqkit.cli.printing import say\n"
    script += "many = lambda options: [say('x' * 100) for _ in range(10**5)] and 0\n"
    script += "cli.COMMANDS['recipes'] = (many, '', lambda parser: None)\n"
    script += "sys.exit(cli.main(['recipes']))"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"x" * 100 + b"\n"
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 141) and said == b""


def test_a_full_disk_names_the_file(run_folder, tmp_path, capsys, monkeypatch):
    """Every write fails as on a full disk, wherever the file lies."""

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    monkeypatch.setattr(Path, "write_bytes", full)
    for verb, target in (("reconstruct", "out"), ("compress", "x.vq")):
        name = str(tmp_path / target)
        assert cli.main([verb, str(run_folder), str(tmp_path / "x.png"), "--out", name]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and name in said[0] and "No space left" in said[0]
