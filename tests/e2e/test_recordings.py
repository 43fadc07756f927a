"""The report of a codec of recordings, in a browser that plays."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqkit.pipelines.autoencoder import train

from ..signals.audio.conftest import RESIDUAL, TINY, recordings  # noqa: F401


@pytest.fixture(scope="module")
def run(recordings, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("voices") / "run"
    train(recordings, folder, None, ["data.validation=0.2", "data.test=0.2", *TINY, *RESIDUAL])
    return folder


def test_originals_and_reconstructions_play(run, browser):
    browser.open(run / "report.html")
    players = "[...document.querySelectorAll('#gallery audio')]"
    browser.wait_for(f"{players}.length && {players}.every(one => one.readyState >= 1)")
    seconds = browser.run(f"{players}.map(one => one.duration)")
    assert seconds and len(seconds) % 2 == 0
    assert all(0.2 < each <= 1.3 for each in seconds)
    # What a player decodes is sound, not silence.
    loudest = browser.run(
        f"fetch({players}[0].src).then(answer => answer.arrayBuffer()).then(data => new "
        "OfflineAudioContext(1, 1, 8000).decodeAudioData(data)).then(sound => "
        "Math.max(...sound.getChannelData(0)))"
    )
    assert 0.01 < loudest <= 1
    assert not browser.errors()


def test_the_report_and_the_card_speak_of_recordings(run):
    for name in ("report.html", "README.md"):
        text = (run / name).read_text(encoding="utf-8")
        assert "recording" in text
        for word in (" image ", " images ", "PSNR"):
            assert word not in text.partition("seed: 0 ")[0], (name, word)
