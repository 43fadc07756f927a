"""The report of a run in a notebook."""

from __future__ import annotations

import re
import shutil

import pytest
from PIL import Image

import vqkit
from vqkit.apps.evaluate import evaluate, open_for


@pytest.fixture
def folder(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def test_it_says_what_the_card_and_the_page_say(folder):
    report = vqkit.Report(folder)
    assert report.word == "Look closer" and "40 steps only" in report.sentence
    assert any("train.steps=1000" in finding for finding in report.findings)
    assert repr(report) == f"{report.word}: {report.sentence}"
    assert report.sentence in (folder / "report.html").read_text(encoding="utf-8")
    shown = report._repr_html_()
    assert shown.count("<li>") == len(report.findings) and "data:image/webp;base64," in shown
    assert f"{folder.as_posix()}/report.html" in shown
    # A notebook keeps it.
    assert len(shown) < 150_000


def test_words_of_strangers_are_escaped(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(
        re.sub(r"^\*\*.*$", "**Healthy:** <script>alert(1)</script>.", card, flags=re.M),
        encoding="utf-8",
    )
    assert "<script>" not in vqkit.Report(folder)._repr_html_()


def test_images_that_are_none_or_too_large_are_left_out(folder):
    path = folder / "samples" / "reconstructions.png"
    path.write_bytes(b"no image")
    assert "<img" not in vqkit.Report(folder)._repr_html_()
    Image.new("1", (8000, 8000)).save(path)
    assert "<img" not in vqkit.Report(folder)._repr_html_()
    path.unlink()
    assert "<img" not in vqkit.Report(folder)._repr_html_()


def test_a_folder_without_a_card_of_ours_is_refused(tmp_path):
    with pytest.raises(vqkit.VqkitError, match="has no model card"):
        vqkit.Report(tmp_path)
    (tmp_path / "README.md").write_text("# Some text\n\n**bold** and more\n", encoding="utf-8")
    with pytest.raises(vqkit.VqkitError, match="no model card that vqkit wrote"):
        vqkit.Report(tmp_path)


def test_results_show_themselves(model):
    data = open_for(model, "emoji", "test")
    shown = evaluate(model, data)._repr_html_()
    assert "psnr" in shown and "149" in shown and shown.count("<tr>") > 6
    assert "measured" in repr(model) and "dB (test)" in repr(model)
