"""The pages of a codec of recordings, in a browser that plays: its report, and what `vqkit explain`
writes.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import soundfile

import vqkit
from vqkit import cli
from vqkit.apps.explain import explain, open_data
from vqkit.apps.explain.changes import coder_bits
from vqkit.apps.explain.sample import gather
from vqkit.artifact.model import Model
from vqkit.pipelines.autoencoder import train

from ..report.pages import Page, assert_sound
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
    report = (run / "report.html").read_text(encoding="utf-8")
    table = report.partition("Beside other codecs")[2].partition("</table>")[0]
    assert table.count('class="ours"') >= 1 and "Opus 6k" in table


# ------------------------------------------------------------------------------ what its codes mean


@pytest.fixture(scope="module")
def codec(run) -> Model:
    return vqkit.load(run, device="cpu")


@pytest.fixture(scope="module")
def page(run, recordings, tmp_path_factory) -> Path:  # noqa: F811
    target = tmp_path_factory.mktemp("page") / "codes.html"
    assert cli.main(["explain", str(run), str(recordings), "--out", str(target)]) == 0
    return target


def test_everything_that_can_be_played_has_sound(browser, page):
    failures = len(browser.errors())
    earlier = len(browser.requests())
    browser.open(page)
    players = "[...document.querySelectorAll('audio')]"
    browser.wait_for(f"{players}.every(one => one.readyState >= 1)")
    seconds = browser.run(f"{players}.map(one => one.duration)")
    # Of two test recordings the originals, three stages and surprise over time; and a swap.
    assert len(seconds) == 2 * (1 + 3 + 1) + 2
    assert all(0 < each < 4 for each in seconds)
    parts = browser.run(
        "Promise.all(D.pool.played.map((_, part) => soundOf(part))).then(sounds => "
        "sounds.map(sound => [sound.duration, Math.max(...sound.getChannelData(0))]))"
    )
    assert parts and all(0 < length < 4 and 0 < loudest <= 1 for length, loudest in parts)
    # A cut-out is played from where it begins, as long as it is wide, and shows how far it is.
    browser.wait_for("document.querySelector('.card button.cutout canvas')")
    browser.click("button.cutout")
    browser.wait_for("document.querySelector('button.cutout .head.on')")
    assert 0 < float(browser.run("document.querySelector('button.cutout').dataset.seconds")) <= 0.5
    browser.wait_for("!document.querySelector('button.cutout.playing')")
    asked = browser.requests()[earlier:]
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    assert len(browser.errors()) == failures


def test_a_code_opens_with_its_cut_outs_and_curves_are_drawn(browser, page):
    browser.open(page)
    browser.wait_for("document.querySelector('.card .name')")
    browser.run("document.querySelector('.card .name').click()")
    assert browser.run("document.querySelectorAll('#code .cutout').length") > 0
    browser.run("document.getElementById('code').close()")
    browser.run("document.getElementById('surprise').scrollIntoView()")
    browser.wait_for("document.querySelector('[data-track]').height > 200")
    # The image ends where the curves and the axis do.
    marked = browser.run(
        "(() => { const one = document.querySelector('[data-track]'), ratio = one.width / "
        "one.parentElement.clientWidth; const row = (y) => [...one.getContext('2d').getImageData("
        "0, Math.round(y * ratio), one.width, 1).data].filter((_, at) => at % 4 === 3); "
        "const ends = (values) => [values.findIndex((one) => one > 100), "
        "values.findLastIndex((one) => one > 100)]; return [ends(row(60)), ends(row(193))]; })()"
    )
    (image_left, image_right), (curve_left, curve_right) = marked
    assert abs(image_left - curve_left) <= 3 and abs(image_right - curve_right) <= 3


def test_the_page_is_of_recordings_and_small(page):
    text = page.read_text(encoding="utf-8")
    assert_sound(text)
    assert len(text) < 15_000_000
    for section in ("books", "atlas", "map", "labels", "swaps", "peel", "surprise", "dead"):
        assert f'<section id="{section}">' in text
    assert '<section id="importance">' not in text
    parts = re.split(
        r"<style>.*?</style>|<script.*?</script>|<details.*?</details>", text, flags=re.S
    )
    read = Page("".join(parts)).text
    assert "recording" in read and "500 ms" in read
    for word in ("image", "Image", "picture", "pixel", "patch", "PSNR"):
        assert word not in read, word


def test_bits_over_time_are_those_that_files_spend(codec, recordings):  # noqa: F811
    sample = gather(codec, open_data(codec, recordings), "train", 3)
    coder = codec.artifact.coders.codes
    for row in range(len(sample)):
        codes = sample.codes_of(codec, row)
        bits = coder_bits(coder, codes)
        assert bits.shape == codes.shape[2:] and bits.min() > 0
        [payloads] = coder.encode(codes.numpy())
        # The last bytes of each stage say where its interval ends; zeros are left out.
        assert abs(8 * sum(map(len, payloads)) - bits.sum()) <= 24 * len(payloads)


def test_stages_are_peeled_and_can_be_heard(codec, recordings):  # noqa: F811
    data = open_data(codec, recordings)
    found = explain(codec, data)
    peel = found.peel
    assert peel.stages == [1, 2, 3] and len(peel.played) == 4
    assert peel.rate_in_words == "kbps"
    # Codes of 5 bits, 25 a second.
    assert peel.rates == pytest.approx([0.125, 0.25, 0.375])
    examples = gather(codec, data, "test", 4096)
    names = [data.names[int(index)] for index in examples.indices]
    for column, name in enumerate(peel.names):
        row = names.index(name)
        heard = [soundfile.read(io.BytesIO(each[column]), dtype="int16")[0] for each in peel.played]
        assert (heard[0] == examples.item(row)[0, 0].numpy()).all()
        for count, sound in enumerate(heard[1:], 1):
            codes = examples.codes_of(codec, row)
            codes[:, count:] = -1
            expected = codec.tokenizer.decode(codes, [len(sound)])
            assert (expected[0, 0].numpy() == sound).all()
    surprise = found.surprise
    assert surprise.source == "coder" and len(surprise.bits) == len(surprise.changes)
    means = [bits.mean() for bits in surprise.bits]
    assert means == sorted(means, reverse=True)
