"""The page of `vqkit explain` of a model of text, in a browser."""

from __future__ import annotations

from vqkit import cli
from vqkit.pipelines.autoencoder import train

from ..report.pages import assert_sound
from ..signals.text.conftest import TINY, note


def test_codes_of_text_show_their_strings(browser, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(12):
        (notes / f"{number}.txt").write_text(note(number, 200), encoding="utf-8")
    run = tmp_path / "run"
    train(notes, run, overrides=[*TINY, "train.steps=10", "coder.steps=0"])
    page = tmp_path / "page.html"
    assert cli.main(["explain", str(run), str(notes), "--out", str(page)]) == 0
    assert_sound(page.read_text(encoding="utf-8"))
    browser.open(page)
    browser.wait_for("document.querySelectorAll('.card .strings code').length > 20")
    text, count = browser.run("D.books[0].strings[0][0]")
    shown = browser.run("document.querySelector('.card .strings code').textContent")
    assert shown == text and len(text) == 4
    # All of it stands in the window of one code, with counts.
    browser.run("document.querySelector('.card .name').click()")
    assert browser.run("document.querySelector('#code .strings code').textContent") == text
    told = browser.run("document.querySelector('#code .strings small').textContent")
    assert told.startswith(f"{count:,} times")
    assert browser.errors() == []
