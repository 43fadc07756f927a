"""Sets, and training on them, as a person does it: in a browser, with real files."""

from __future__ import annotations

import gzip
import io
import os
import shlex
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from PIL import Image

from vqkit.artifact.store import save_artifact, save_prior
from vqkit.config import load
from vqkit.prior.prior import Prior, build_prior_network
from vqkit.settings import PriorConfig
from vqkit.web.limits import Limits
from vqkit.web.runs import Runs
from vqkit.web.workspace import Workspace

from ..signals.audio.conftest import RATE, voice
from ..untrained import STAGE, untrained
from .conftest import PATCHES, Studio
from .pages import PATIENCE, check_access, go, keep_screenshots, opened, pixels


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


def test_the_newest_sets_come_last(tmp_path):
    workspace = Workspace(tmp_path, Limits())
    made = [workspace.new_set() for _ in range(6)]
    for seconds, files in enumerate(made):
        os.utime(files.folder, (seconds, seconds))
    for one in (workspace, Workspace(tmp_path, Limits())):
        assert [files.id for files in one.sets()] == [files.id for files in made]


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


def run_of(studio: Studio, kind: str, name: str) -> dict[str, Any]:
    runs = studio.get("/api/state")["runs"]
    (run,) = [run for run in runs if (run["kind"], run["name"]) == (kind, name)]
    return run


@pytest.mark.long
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
    run = run_of(studio, "model", "first-run")
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


@pytest.mark.long
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


@pytest.mark.long
def test_another_prior_is_trained_beside_the_one_that_is_there(page, studio):
    folder = studio.folder / "with-a-prior"
    artifact = untrained(PATCHES, STAGE).artifact
    config = load("prior", ["network.width=16", "network.num_blocks=1"], PriorConfig)
    network = build_prior_network(config, artifact.network, 2, False)
    figures = {"bits_per_code": 3.25, "split": "test", "step": 60, "training_seconds": 90.0}
    artifact = replace(artifact, prior=Prior(config, network, ("cat", "dog"), figures))
    save_artifact(artifact, folder)
    save_prior(artifact, folder)
    os.utime(folder / "config.json", (0, 0))
    before = (folder / "prior.safetensors").read_bytes()
    page.reload()
    page.wait_for_selector("body[data-open]")
    go(page, "make")
    page.get_by_label("Model", exact=True).select_option(label="with-a-prior")
    page.get_by_text("The prior of this model").click()
    known = page.locator(".known").inner_text().splitlines()
    assert known == ["Conditions", "classes: 2", "Bits a code", "3.250 (test split)", *known[4:]]
    assert known[4:] == ["Trained for", "60 steps, 1.5 min"]
    check_access(page)
    keep_screenshots(page, "a_model_with_a_prior")
    page.get_by_label("Learns from").select_option("digits")
    page.get_by_label("Is told").select_option("none")
    page.get_by_role("button", name="Train another prior").click()
    page.wait_for_selector(".run[data-state=running]:not([data-step='0'])")
    told = shlex.split(page.locator(".recipe code").first.text_content())
    assert told[-3:] == ["train.max_minutes=null", "condition=none", "--replace"]
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".run[data-state=stopped]")
    keep_screenshots(page, "another_prior_that_was_stopped")
    # It waits beside the one that is there, with which items are still drawn.
    assert (folder / "prior.safetensors").read_bytes() == before
    assert page.get_by_role("button", name="Generate").is_enabled()
    assert "condition: none" in (folder / "prior-new" / "recipe.yaml").read_text()
    # Once it has taken the place of the other, nothing is left to resume.
    shutil.rmtree(folder / "prior-new" / "checkpoint")
    (folder / "prior-new" / "report.html").touch()
    (folder / "prior-new").rename(folder / "prior")
    assert run_of(studio, "prior", "with-a-prior")["state"] == "finished"
    shutil.rmtree(folder)
