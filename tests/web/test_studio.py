"""Everything that the studio offers, as a person does it: in a browser, with real files."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import shlex
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from PIL import Image

import vqkit
from vqkit.apps.explain import open_data
from vqkit.cli import main
from vqkit.web.limits import Limits
from vqkit.web.runs import Runs
from vqkit.web.workspace import Workspace

from ..signals.audio.conftest import RATE, RESIDUAL, voice
from ..signals.audio.conftest import TINY as SPEECH
from ..signals.text.conftest import TINY as TEXT
from ..signals.text.conftest import note
from .conftest import GOLDEN, Studio, begun

# A pass of Chromium over a page on one busy core.
PATIENCE = 60_000


# Pixels: a phone, a tablet, a desk.
WIDTHS = (390, 820, 1440)


@pytest.fixture
def page(studio: Studio, chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page on a model, without a word in the console at the end."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    tab = opened(context, studio)
    yield tab
    keep_screenshots(tab, request.node.name)
    assert tab.said == []
    context.close()


def keep_screenshots(tab: Any, name: str) -> None:
    """How the page looks now, where VQKIT_SCREENSHOTS names a folder: at three widths, light and
    dark.
    """
    folder = os.environ.get("VQKIT_SCREENSHOTS")
    if not folder or tab.url == "about:blank":
        return
    stem = re.sub(r"\W+", "-", name.removeprefix("test_").replace("_", "-")).strip("-")
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.screenshot(path=Path(folder) / f"{stem}-{width}-{scheme}.png", full_page=True)


def opened(context: Any, studio: Studio) -> Any:
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.on("request", lambda request: _check_own(studio, request.url))
    tab.goto(studio.url)
    tab.wait_for_selector("body[data-open]")
    return tab


def _check_own(studio: Studio, url: str) -> None:
    assert url.startswith((studio.url, "blob:", "data:")), url


def go(page: Any, view: str) -> None:
    page.click(f".rail nav a[href='#{view}']")
    page.wait_for_selector(f"#view-{view}:not([hidden])")


def choose(page: Any, name: str) -> None:
    page.get_by_label("Model", exact=True).select_option(label=name)
    page.wait_for_function("() => document.querySelectorAll('.strip .thumb').length > 4")


def check_access(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def shown(page: Any, selector: str) -> np.ndarray:
    """The pixels of an image of the page."""
    address = page.eval_on_selector(
        selector,
        """async (image) => {
            await image.decode();
            const canvas = document.createElement("canvas");
            canvas.width = image.naturalWidth;
            canvas.height = image.naturalHeight;
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png");
        }""",
    )
    return pixels(base64.b64decode(address.partition(",")[2]))


def downloaded(page: Any, click: Any) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


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


def archive(path: Path, contents: list[bytes], suffix: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"{number:03}.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def encoded(images: np.ndarray) -> list[bytes]:
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file, "PNG")
    return [file.getvalue() for file in files]


def test_archives_and_tables_of_images_are_sets_whose_items_lie_in_them(page, studio, tmp_path):
    rng = np.random.default_rng(0)
    images = encoded(rng.integers(0, 256, (200, 16, 16, 3), np.uint8))
    tar = archive(tmp_path / "images-0.tar", images, "png")
    go(page, "train")
    page.set_input_files("#view-train .target input[type=file] >> nth=0", tar)
    page.get_by_role("heading", name="What was found").wait_for()
    assert page.locator(".tiles dd").first.text_content() == "200"
    # It can be chosen again, though it is one file alone.
    assert page.locator(".source", has_text="images-0.tar").count() == 1
    table = tmp_path / "images.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": images}), table)
    model = studio.model("coarse")
    for path in (tar, table):
        name = studio.upload([path])
        found, files = studio.framed("/api/samples", {"model": model, "set": name})
        item = {"set": name, "index": 1}
        looked, shown = studio.framed("/api/look", {"model": model, "item": item})
        original = pixels(shown[looked["original"]["image"]["file"]])
        assert found["items"][1]["name"] == "item 1"
        assert np.array_equal(original, pixels(files[found["items"][1]["image"]["file"]]))
        assert any(np.array_equal(original, pixels(image)) for image in images)


def test_what_archives_are_not_taken_in_is_said(studio, tmp_path):
    sound = io.BytesIO()
    soundfile.write(sound, voice(0.2, 0), RATE, format="WAV")
    (image,) = encoded(np.zeros((1, 8, 8, 3), np.uint8))
    name = studio.get("/api/sets", {})["id"]

    def refused(called: str, content: bytes) -> str:
        status, said = studio.ask(f"/api/sets/{name}/files?name={called}", content)
        assert status == 400
        return said.decode()

    sounds = archive(tmp_path / "sounds.tar", [sound.getvalue()], "wav").read_bytes()
    images = archive(tmp_path / "images.tar", [image], "png").read_bytes()
    assert "where it holds images" in refused("sounds.tar", sounds)
    assert "unpack it with gunzip" in refused("images.tgz", gzip.compress(images))
    studio.get(f"/api/sets/{name}/files?name=one.png", image)
    assert "a set without other files" in refused("images.tar", images)
    # A table of numbers is a series, and an item by itself.
    table = tmp_path / "series.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": [1.0, 2.0]}), table)
    asked = {"model": studio.model("tiny"), "set": studio.upload([table])}
    found, _ = studio.framed("/api/samples", asked)
    assert found["items"] == []
    # Without the folders that it lies in here.
    assert found["skipped"][0]["reason"].startswith("cannot read 000000.parquet: ")


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


def run_of(studio: Studio, kind: str) -> dict[str, Any]:
    (run,) = [run for run in studio.get("/api/state")["runs"] if run["kind"] == kind]
    return run


def test_a_run_outlives_the_tab_and_the_server_and_goes_on(page, studio, chromium):
    go(page, "train")
    page.locator("[data-set=emoji]").click()
    page.get_by_role("heading", name="What was found").wait_for()
    assert page.locator(".tiles dd").first.text_content() == "3\u202f375"
    page.get_by_label("Name").fill("first run")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_selector("body[data-followed]")
    assert page.locator(".pairs img").count() == 16
    page.goto("about:blank")
    studio.kill()
    studio.start()
    context = chromium.new_context()
    tab = opened(context, studio)
    go(tab, "train")
    tab.wait_for_selector(".run[data-state=running]")
    tab.get_by_role("button", name="Stop").click()
    tab.wait_for_selector(".run[data-state=stopped]")
    run = run_of(studio, "model")
    seen = studio.get(f"/api/runs/{run['id']}")["rows"][-1]["step"]
    assert (studio.folder / "first-run" / "checkpoint").is_dir()
    tab.get_by_role("button", name="Resume").click()
    tab.wait_for_selector(".run[data-state=running]")
    # It goes on from where it was, and is told to stop once more.
    tab.wait_for_function(
        f"() => Number(document.querySelector('.run').dataset.step) > {seen}", timeout=PATIENCE
    )
    tab.get_by_role("button", name="Stop").click()
    tab.wait_for_selector(".run[data-state=stopped]")
    steps = [row["step"] for row in studio.get(f"/api/runs/{run['id']}")["rows"]]
    assert steps == sorted(set(steps)) and steps[-1] > seen
    keep_screenshots(tab, "a_run_that_was_stopped")
    assert tab.said == []
    context.close()


def test_a_prior_is_trained_where_there_is_none_outlives_the_tab_and_goes_on(page, studio):
    go(page, "make")
    page.get_by_label("Model", exact=True).select_option(label="coarse")
    check_access(page)
    keep_screenshots(page, "a_model_without_a_prior")
    page.get_by_label("Learns from").select_option("digits")
    page.get_by_label("Minutes").fill("9")
    page.get_by_role("button", name="Train the prior").click()
    page.wait_for_selector("body[data-followed]")
    drawn = page.locator(".drawn li")
    assert drawn.count() == 12
    check_access(page)
    # Of each class in turn.
    assert drawn.nth(11).locator("figcaption").text_content() == "1"
    command, program = page.locator(".recipe code").all_text_contents()
    folder = f"{studio.folder.name}/coarse"
    settings = ["train.max_minutes=null"]
    told = shlex.split(command)
    assert told == ["vqkit", "train-prior", folder, "digits", "--minutes", "9", *settings]
    call = f"vqkit.train_prior('{folder}', 'digits', overrides={settings}, minutes=9)"
    assert program.splitlines()[-1] == f"model = {call}"
    page.goto("about:blank")
    # As a server that starts anew finds it, by its files.
    runs = Runs(Workspace(studio.folder, Limits())).all()
    assert [run["state"] for run in runs if run["kind"] == "prior"] == ["running"]
    page.goto(studio.url)
    page.wait_for_selector("body[data-open]")
    go(page, "make")
    page.get_by_label("Model", exact=True).select_option(label="coarse")
    page.wait_for_selector("#view-make .run[data-state=running]")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".run[data-state=stopped]")
    body = {"model": studio.model("coarse"), "set": "digits", "minutes": 1}
    status, said = studio.ask("/api/priors", body)
    assert status == 409 and b"resume it" in said
    page.get_by_role("button", name="Resume").click()
    page.locator(".log", has_text="resumed at step").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".run[data-state=stopped]")
    body["model"] = studio.model("tiny")
    assert studio.ask("/api/priors", body)[0] == 409


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
