"""Everything that the studio offers, as a person does it: in a browser, with real files."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import vqkit
from vqkit.apps.explain import open_data
from vqkit.cli import main

from ..signals.audio.conftest import RATE, RESIDUAL, voice
from ..signals.audio.conftest import TINY as SPEECH
from ..signals.text.conftest import TINY as TEXT
from ..signals.text.conftest import note
from .conftest import GOLDEN, begun
from .pages import (
    WIDTHS,
    check_access,
    choose,
    downloaded,
    go,
    keep_screenshots,
    opened,
    pixels,
    shown,
)


def test_codes_are_looked_at_swapped_and_painted(page, studio):
    go(page, "look")
    choose(page, "tiny")
    page.wait_for_selector("body[data-looked='emoji 0']")
    page.locator(".strip .thumb").nth(3).click()
    page.wait_for_selector("body[data-looked='emoji 3']")
    model = vqkit.load(studio.folder / "tiny", "cpu")
    original = shown(page, ".split-top img")
    codes = model.encode(original)
    before = shown(page, ".split > img")
    assert np.array_equal(before, model.decode(codes)[0])

    page.get_by_role("button", name="Make the atlas").click()
    page.wait_for_selector("body[data-atlas]")
    # A click on the second cell of the second row tells what its code means ...
    grid = page.locator(".grid canvas")
    box = grid.bounding_box()
    side = box["width"] / codes.shape[-1]
    grid.click(position={"x": 1.5 * side, "y": 1.5 * side})
    code = int(codes[0, 0, 1, 1])
    page.get_by_role("heading", name=f"Code {code}").wait_for()
    # ... another one goes there with a click on the palette ...
    other = next(one for one in range(8) if one != code)
    page.locator(f".palette [data-code='{other}']").click()
    page.wait_for_selector("body[data-painted='1']")
    codes[0, 0, 1, 1] = other
    assert np.array_equal(shown(page, ".split > img"), model.decode(codes)[0])
    # ... and a stroke paints it over the first row.
    page.get_by_role("button", name="Paint").click()
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    page.mouse.move(box["x"] + 0.5 * side, box["y"] + 0.5 * side)
    page.mouse.down()
    page.mouse.move(box["x"] + 2.5 * side, box["y"] + 0.5 * side, steps=8)
    page.mouse.up()
    codes[0, 0, 0, :3] = other
    expected = model.decode(codes)[0]
    page.wait_for_function("() => Number(document.body.dataset.painted) >= 3")
    assert np.array_equal(shown(page, ".split > img"), expected)
    page.get_by_role("button", name="Reset").click()
    page.wait_for_selector("body[data-painted='0']")
    assert np.array_equal(shown(page, ".split > img"), before)


def test_codes_of_recordings_are_heard_as_cut_outs_of_real_ones(page, studio, tmp_path):
    for number in range(8):
        soundfile.write(tmp_path / f"voice {number}.wav", voice(1.5, number), RATE)
    recordings = studio.upload(sorted(tmp_path.glob("*.wav")))
    source = studio.folder / ".studio" / "sets" / recordings / "files"
    begun(
        studio.folder / "voices", source, "speech", [*SPEECH, *RESIDUAL, f"data.sample_rate={RATE}"]
    )
    found, files = studio.do("atlas", {"model": studio.model("voices"), "set": recordings})
    page.reload()
    page.wait_for_selector("body[data-open]")
    go(page, "look")
    choose(page, "voices")
    page.wait_for_selector("body[data-looked^='voice ']")
    page.get_by_role("button", name="Make the atlas").click()
    page.wait_for_selector("body[data-atlas]")
    page.locator(".grid canvas").focus()
    page.keyboard.press("ArrowRight")
    title = page.get_by_role("heading", name=re.compile(r"Code \d+"))
    book, pool = found["books"][0], found["pool"]
    cutouts = book["cutouts"][book["codes"].index(int(title.text_content().split()[-1]))]
    names = page.locator(".cutout figcaption").all_text_contents()
    # What people called them, no two of one recording.
    assert names == [pool["names"][part] for part, _, _ in cutouts]
    assert len(set(names)) == len(names) > 0 and all(name.startswith("voice ") for name in names)
    check_access(page)
    page.locator(".cutout .play").first.click()
    page.wait_for_selector(".cutout .player[data-seconds]")
    # Half a second of a recording, as it was.
    assert page.locator(".cutout .player").first.get_attribute("data-seconds") == "0.500"
    samples, rate = soundfile.read(
        io.BytesIO(files[pool["played"][cutouts[0][0]]["file"]]), dtype="int16"
    )
    assert pool["window"] == rate / 2 and len(samples) == pool["lengths"][cutouts[0][0]]
    whole = voice(1.5, int(names[0].split()[1].removesuffix(".wav")))
    assert samples.tobytes() in whole.tobytes()


def test_codes_of_text_are_read_as_the_strings_that_they_stand_for(page, studio, tmp_path):
    for number in range(24):
        (tmp_path / f"{number}.txt").write_text(note(number), encoding="utf-8")
    notes = studio.upload(sorted(tmp_path.glob("*.txt")))
    source = studio.folder / ".studio" / "sets" / notes / "files"
    begun(studio.folder / "notes", source, "text", TEXT)
    page.reload()
    page.wait_for_selector("body[data-open]")
    go(page, "make")
    choose(page, "notes")
    # A prior learns from what its model was trained on, unless one chooses otherwise.
    assert page.get_by_label("Learns from").input_value() == notes
    go(page, "look")
    page.wait_for_selector("body[data-looked$='.txt']")
    page.get_by_role("button", name="Make the atlas").click()
    page.wait_for_selector("body[data-atlas]")
    page.locator(".grid canvas").focus()
    page.keyboard.press("ArrowRight")
    check_access(page)
    title = page.get_by_role("heading", name=re.compile(r"Code \d+"))
    code = int(title.text_content().split()[-1])
    model = vqkit.load(studio.folder / "notes", "cpu")
    counts: Counter[bytes] = Counter()
    for batch in open_data(model, source).split("train", 64):
        codes = model.tokenizer.encode(batch.values, batch.mask)[:, 0]
        for row, cell in (codes == code).nonzero().tolist():
            string = batch.values[row, 0, 4 * cell : 4 * cell + 4]
            if batch.mask is None or batch.mask[row, 4 * cell : 4 * cell + 4].all():
                counts[bytes(string.tolist())] += 1
    told = page.locator(".strings li span:nth-child(2)").all_text_contents()
    times = [1 if one.startswith("once") else int(one.split()[0]) for one in told]
    assert times == sorted(counts.values(), reverse=True)[:8]
    texts = page.locator(".strings code").all_text_contents()
    assert counts[texts[0].encode()] == times[0]


def test_screenshots_are_kept_where_they_are_asked_for(page, tmp_path, monkeypatch):
    monkeypatch.setenv("VQKIT_SCREENSHOTS", str(tmp_path))
    keep_screenshots(page, "test_it[1]")
    seen = {}
    for path in tmp_path.iterdir():
        image = pixels(path.read_bytes())
        name, width, scheme = path.stem.rsplit("-", 2)
        assert name == "it-1" and image.shape[1] == int(width)
        seen[int(width), scheme] = image[:50].mean()
    assert sorted(seen) == [(width, scheme) for width in WIDTHS for scheme in ("dark", "light")]
    assert all(seen[width, "dark"] < 128 < seen[width, "light"] for width in WIDTHS)
    monkeypatch.delenv("VQKIT_SCREENSHOTS")


def test_codes_can_be_moved_over_and_swapped_with_keys_alone(page):
    go(page, "look")
    choose(page, "tiny")
    page.wait_for_selector("body[data-looked]")
    page.locator(".grid canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    page.wait_for_function(
        "() => /row 2, column 2|Code/.test(document.querySelector('#said').textContent)"
    )
    page.locator(".palette .swatch").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-painted]")
    page.locator("body").press("3")
    page.wait_for_selector("#view-make:not([hidden])")


def test_items_are_generated_as_the_command_and_the_program_say(
    page, studio, tmp_path, monkeypatch
):
    go(page, "make")
    choose(page, "tiny")
    page.get_by_label("Seed").fill("5")
    page.locator("#view-make .form .primary").click()
    page.wait_for_selector("body[data-made='generate']")
    page.locator(".recipe summary").click()
    command, program = page.locator(".recipe code").all_text_contents()
    name, content = downloaded(page, lambda: page.locator(".sheet .button").first.click())
    assert name == "generate-01.png"
    # Commands name models from where the studio was started; here, from above its folder.
    monkeypatch.chdir(studio.folder.parent)
    names: dict[str, Any] = {}
    exec(program, names)
    assert np.array_equal(names["items"][0], pixels(content))
    words = shlex.split(command)
    assert words[:2] == ["vqkit", "generate"] and words[-2:] == ["--out", "made.png"]
    assert main([*words[1:-1], str(tmp_path / "made.png")]) == 0
    sheet = pixels((tmp_path / "made.png").read_bytes())
    # Sixteen in rows of four, with a frame of two around each.
    scale = (sheet.shape[1] - 2) // 4 // 32
    assert np.array_equal(sheet[2::scale, 2::scale][:32, :32], pixels(content))


def test_parts_are_made_anew_under_a_brush_and_nothing_else(page):
    go(page, "make")
    choose(page, "tiny")
    page.get_by_text("Inpaint", exact=True).click()
    page.get_by_label("How many").fill("1")
    brush = page.locator(".mask canvas")
    page.wait_for_function("() => document.querySelector('.mask canvas').width === 32")
    box = brush.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    page.mouse.up()
    page.locator("#view-make .form .primary").click()
    page.wait_for_selector("body[data-made='inpaint']")
    made = shown(page, ".sheet img").astype(int)
    item = shown(page, ".strip [aria-selected='true'] img").astype(int)
    changed = np.abs(made - item).max(2) > 0
    assert changed[10:22, 10:22].any()
    assert not changed[:8].any() and not changed[-8:].any()


@pytest.mark.parametrize("verb", ["Variations", "Interpolate", "Restyle", "Denoise"])
def test_items_are_made_of_others(page, verb):
    go(page, "make")
    choose(page, "tiny")
    page.locator(".strip .thumb").nth(2).click()
    page.get_by_text(verb, exact=True).click()
    page.locator("#view-make .form .primary").click()
    page.wait_for_selector(f"body[data-made='{verb.lower()}']")
    page.locator(".made img").first.wait_for()
    if verb == "Interpolate":
        first = shown(page, ".film img")
        page.get_by_label("From one to the other").fill("11")
        assert not np.array_equal(shown(page, ".film img"), first)
    page.locator(".recipe summary").click()
    assert f"vqkit {verb.lower()} " in page.locator(".recipe code").first.text_content()


def test_a_file_is_dropped_compressed_downloaded_and_opened_again(page, studio, tmp_path):
    path = tmp_path / "some flag.png"
    model = vqkit.load(studio.folder / "tiny", "cpu")
    values = np.asarray(vqkit.load(GOLDEN).sample(1, 3)[0])
    Image.fromarray(values).save(path)
    go(page, "compress")
    choose(page, "tiny")
    page.set_input_files("#bench input[type=file]", path)
    page.get_by_role("heading", name="some flag.png").wait_for()
    page.locator("#view-compress .form .primary").click()
    page.wait_for_selector("body[data-compressed]")
    rows = page.locator(".codec b").all_text_contents()
    assert rows[:4] == ["Original", "vqkit", "JPEG", "WebP"]
    name, content = downloaded(page, lambda: page.get_by_text("Download", exact=False).click())
    assert name == "some flag.vq"
    assert content == model.compress(path, name=path.name)
    assert int(page.locator("body").get_attribute("data-compressed")) == len(content)
    again = tmp_path / name
    again.write_bytes(content)
    page.set_input_files("#view-compress input[type=file]", again)
    page.wait_for_selector("body[data-opened='1']")
    assert np.array_equal(shown(page, ".sheet img"), model.decompress(content))


def test_two_models_are_compared_on_the_same_files(page):
    go(page, "compare")
    choose(page, "tiny")
    page.get_by_label("Second model").select_option(label="twin")
    page.locator("#view-compare .form .primary").click()
    page.wait_for_selector("body[data-compared='12']")
    first, second = page.locator(".versus dd b").all_text_contents()
    # They have the same weights.
    assert first == second and float(first) > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(studio, chromium, scheme):
    """axe-core finds nothing on any section, on a phone and at a desk."""
    size = {"width": 390, "height": 844} if scheme == "dark" else {"width": 1440, "height": 900}
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    tab = opened(context, studio)
    for view in ("train", "look", "make", "compress", "compare"):
        go(tab, view)
        if view == "look":
            tab.wait_for_selector("body[data-looked]")
        check_access(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    context.close()


def test_the_server_outlives_its_worker(studio):
    """A worker that is killed in the middle is replaced, and whoever asked is told."""
    model = studio.model("tiny")
    children = Path(f"/proc/{studio.process.pid}/task/{studio.process.pid}/children")
    studio.framed("/api/look", {"model": model, "item": {"set": "emoji", "index": 1}})
    for child in children.read_text().split():
        os.kill(int(child), 9)
    status, _ = studio.ask("/api/look", {"model": model, "item": {"set": "emoji", "index": 2}})
    assert status in (200, 422)
    result, _ = studio.framed("/api/look", {"model": model, "item": {"set": "emoji", "index": 2}})
    assert len(result["codes"][0]) == 64
