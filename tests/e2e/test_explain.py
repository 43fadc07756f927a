"""The page of `vqkit explain` in a browser, by clicks; and the verbs explain and prune through the
real entry point.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vqkit
from vqkit import cli
from vqkit.apps.evaluate import open_for
from vqkit.apps.explain import explain
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact, Coders
from vqkit.artifact.store import save_artifact
from vqkit.config.loading import load
from vqkit.data.normalisation import Normalisation
from vqkit.report.explain_page import render_explanation, write_explanation
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.image.source import ImageData

from ..report.pages import assert_escaped, assert_sound


@pytest.fixture(scope="module")
def folder(prior_folder) -> Path:
    """The tiny model with a prior. Tests must not write there."""
    return prior_folder


@pytest.fixture(scope="module")
def page(tmp_path_factory, folder) -> Path:
    target = tmp_path_factory.mktemp("page") / "report.html"
    command = [
        "explain",
        str(folder),
        "emoji",
        "--out",
        str(target),
        "--label-column",
        "group",
        "--num",
        "400",
    ]
    assert cli.main([*command, "--swap", *swap_of(folder)]) == 0
    return target


def swap_of(folder: Path) -> list[str]:
    """A code that test images have and that is none of the common ones, and another."""
    model = vqkit.load(folder)
    data = open_for(model, "emoji", "test")
    codes = model.tokenizer.encode(data.read(data.splits["test"]).values)
    counts = np.bincount(codes.flatten(), minlength=64)
    return [str(code) for code in np.where(counts > 0, counts, 1 << 30).argsort()[:2]]


def test_the_page_is_whole_small_and_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert_sound(text)
    assert len(text) < 15_000_000
    for section in (
        "books",
        "atlas",
        "map",
        "labels",
        "importance",
        "swaps",
        "surprise",
        "dead",
        "reproduce",
    ):
        assert f'<section id="{section}">' in text
    for caption in (
        "One card for each code",
        "Click one",
        "The redder, the more",
        "Red cells",
        "ridge regression",
    ):
        assert caption in text, "every image says how to read it"
    assert "picture" not in text.lower(), "the word is image"


def test_a_second_page_replaces_nothing(page, folder, capsys):
    before = page.read_bytes()
    assert cli.main(["explain", str(folder), "emoji", "--out", str(page), "--num", "16"]) == 0
    assert (
        page.read_bytes() == before
        and f"page: {page.with_name('report-2.html')}" in capsys.readouterr().out
    )


def ink(canvas: str) -> str:
    """Script: whether the canvas of this selector has at least two colours."""
    return (
        f"(() => {{ const canvas = document.querySelector('{canvas}'); if (!canvas || "
        "!canvas.width) return false; "
        "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, "
        "canvas.height).data; "
        "const data = new Uint32Array(pixels.buffer); return data.some((pixel) => pixel !== "
        "data[0]); })()"
    )


def test_a_click_on_a_card_shows_the_code_and_its_neighbours(browser, page):
    browser.open(page)
    browser.wait_for(ink(".card canvas"))
    code = browser.run("document.querySelector('.card').dataset.code")
    browser.run("document.querySelector('.card').click()")
    assert browser.run("document.querySelector('#code h2').textContent") == f"Code {code}"
    browser.wait_for(ink("#code .strip canvas"))
    assert browser.run("document.querySelectorAll('#code .bars tr').length") > 0
    browser.run("[...document.querySelectorAll('#code .mini')].at(-1).click()")
    assert browser.run("document.querySelector('#code h2').textContent") != f"Code {code}"
    browser.run("document.querySelector('#code header button').click()")
    assert browser.run("document.getElementById('code').open") is False


def test_searching_sorting_and_filtering_change_the_cards(browser, page):
    browser.open(page)
    data = json.loads(browser.run("document.getElementById('data').textContent"))
    book = data["books"][0]
    cards = "[...document.querySelectorAll('.card')].map((card) => +card.dataset.code)"

    def choose(name, value):
        browser.run(
            f"(() => {{ const one = $('{name}'); one.value = '{value}'; one.oninput(); }})()"
        )
        return browser.run(cards)

    assert choose("sort", "usage")[:10] == book["codes"][:10]
    assert choose("sort", "rare")[0] == book["codes"][-1]
    assert choose("sort", "number")[:10] == sorted(book["codes"])[:10]
    assert (
        sorted(choose("sort", "alike")) == sorted(book["codes"])[: len(book["codes"])]
        or len(book["codes"]) > 60
    )
    wanted = [code for code in book["codes"] if str(code).startswith("1")]
    assert sorted(choose("search", "1")) == sorted(wanted)
    assert choose("search", "no such label") == []
    label = data["labels"][book["marks"][0][1]]
    marked = {
        book["codes"][row] for row, number, _ in book["marks"] if number == book["marks"][0][1]
    }
    assert set(choose("search", label)) == marked
    choose("search", "")
    assert set(choose("marks", book["marks"][0][1])) == marked
    assert f"{len(marked)} of" in browser.run("document.getElementById('found').textContent")


def test_swaps_map_and_heat_maps_answer_clicks(browser, page, folder):
    browser.open(page)
    code, other = swap_of(folder)
    browser.run(f"document.querySelector('#asked button[data-swap=\"{code}-{other}\"]').click()")
    browser.wait_for(
        f"document.querySelector('#stages').textContent.includes('{code} became {other}')"
    )
    browser.wait_for(ink("#stages figure:nth-child(3) canvas"))
    here = browser.run("document.querySelector('#matrix button').textContent")
    browser.run("document.getElementById('where-everywhere').click()")
    everywhere = browser.run("document.querySelector('#matrix button').textContent")
    assert float(everywhere) >= float(here)
    browser.run("document.getElementById('map').scrollIntoView()")
    browser.wait_for(ink("#plane"))
    browser.run("document.getElementById('paint-label').click()")
    browser.wait_for("document.getElementById('plane-key').children.length > 1")
    browser.run(
        "(() => { const box = $('plane').getBoundingClientRect(), [x, y] = spot(D.books[0], 0); "
        "const at = { clientX: box.left + x * box.width / 1044, clientY: box.top + y * box.width / "
        "1044 }; "
        "$('plane').dispatchEvent(new MouseEvent('click', at)); })()"
    )
    assert browser.run("document.getElementById('code').open") is True
    browser.run(
        "document.getElementById('code').close(); "
        "document.getElementById('importance').scrollIntoView()"
    )
    browser.wait_for(ink("#heats canvas"))
    browser.run("document.getElementById('surprise').scrollIntoView()")
    browser.wait_for(ink("[data-surprise]"))


def test_the_browser_asked_for_nothing_and_nothing_failed(browser, page):
    earlier = len(browser.requests())
    browser.open(page)
    browser.wait_for(ink(".card canvas"))
    asked = browser.requests()[earlier:]
    outside = [url for url in asked if not url.startswith("data:image/png;base64,")]
    assert set(outside) <= {page.as_uri(), "about:blank"} and browser.errors() == []


def test_sixteen_thousand_codes_make_a_page_that_opens_and_scrolls(browser, model, emoji, tmp_path):
    """Every token of some images as a code of its own: the page stays small, and only what is seen
    is made.
    """
    with torch.no_grad():
        x = model.tokenizer.standardise(emoji.read(emoji.splits["train"][:256]).values)
        tokens = model.network.latents(x).movedim(1, -1).reshape(-1, 16)
    quantizer = model.config.model.quantizer.model_copy(update={"codebook_size": 16384})
    config = model.config.model_copy(
        update={"model": model.config.model.model_copy(update={"quantizer": quantizer})}
    )
    network = build_model(config, model.shape, model.artifact.normalisation).eval()
    rows = {
        "quantizer.codebook": tokens,
        "quantizer.ema_sum": tokens,
        "quantizer.ema_count": torch.ones(16384),
    }
    network.load_state_dict({**model.artifact.network.state_dict(), **rows})
    save_artifact(Artifact(config, network, model.data), tmp_path / "large")
    target = tmp_path / "large.html"
    assert (
        cli.main(
            ["explain", str(tmp_path / "large"), "emoji", "--out", str(target), "--num", "300"]
        )
        == 0
    )
    assert target.stat().st_size < 15_000_000
    browser.open(target)
    browser.wait_for(ink(".card canvas"))
    first = browser.run("document.querySelectorAll('.card').length")
    assert browser.run("D.books[0].codes.length") > 8000 and first < 200, (
        "cards are made as one scrolls"
    )
    browser.run("document.getElementById('shelf').scrollTop = 1e6")
    browser.wait_for(f"document.querySelectorAll('.card').length > {first}")


@pytest.mark.parametrize(
    ("kind", "quantizer"),
    [
        ("residual", "{kind: residual, num_stages: 3, stage: {kind: vq, codebook_size: 8}}"),
        (
            "hierarchical",
            "{kind: hierarchical, top: {kind: vq, codebook_size: 16}, bottom: {kind: vq}}",
        ),
        ("topological", "{kind: vq, neighbourhood: 4}"),
    ],
)
def test_pages_without_labels_and_with_several_codebooks_open(
    kind, quantizer, browser, emoji, tmp_path
):
    torch.manual_seed(0)
    settings = [f"model.quantizer={quantizer}", "model.network.width=16", "losses.distortion=mse"]
    config = load("emoji", settings, Config)
    normalisation = Normalisation((0.5,) * 3, (0.3,) * 3)
    network = build_model(config, Shape(3, (32, 32)), normalisation).eval()
    data = {
        "channels": 3,
        "size": [32, 32],
        "normalisation": normalisation.to_dict(),
        "name": "emoji",
    }
    bare = ImageData.__new__(ImageData)
    bare.__dict__ = {**emoji.__dict__, "groups": None, "captions": None}
    found = dataclasses.asdict(explain(Model(Artifact(config, network, data), "cpu"), bare, num=32))
    write_explanation(found, tmp_path / "page.html", title=kind, command="-", settings="-")
    assert_sound((tmp_path / "page.html").read_text(encoding="utf-8"))
    failures = len(browser.errors())
    browser.open(tmp_path / "page.html")
    browser.wait_for(ink(".card canvas"))
    browser.run(
        "$('book').value = D.books.length - 1; $('book').oninput(); "
        "document.querySelector('.card').click()"
    )
    browser.wait_for(ink("#code .strip canvas"))
    assert len(browser.errors()) == failures and browser.run("$('sort').value") == "usage"
    assert browser.run("Boolean($('labels'))") is False and browser.run("Boolean($('peel'))") is (
        kind == "residual"
    )


def test_names_are_escaped(model, emoji):
    evil = "</script><img src=x onerror=alert(1)>&amp;"
    data = ImageData.__new__(ImageData)
    groups = [evil if group == "flags" else group for group in emoji.groups]
    data.__dict__ = {**emoji.__dict__, "groups": groups}
    found = dataclasses.asdict(explain(model, data, num=64))
    text = render_explanation(found, title=evil, command=evil, settings=evil)
    assert_sound(text)
    assert_escaped(text)
    assert evil in json.loads(text.split('id="data">')[1].split("</script>")[0])["labels"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "{folder}", "emoji", "--label-column", "colour"], "no label column 'colour'"),
        (["explain", "{folder}", "emoji", "--label-column", "caption"], "different values"),
        (["explain", "{folder}", "nowhere"], "no file or folder 'nowhere'"),
        (["explain", "{folder}", "emoji", "--num", "0"], "a whole number from 1"),
        (["explain", "{folder}", "emoji", "--num", "16", "--swap", "0", "64"], "0 to 63"),
        (["prune", "{folder}", "--tolerance", "-1"], "a whole number from 0 up to 255"),
        (["prune", "{folder}", "--data", "nowhere"], "with --data DATA"),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing(arguments, message, folder, tmp_path, capsys):
    words = [word.format(folder=folder) for word in arguments]
    assert cli.main([*words, "--out", str(tmp_path / "x")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and message in errors[0], errors
    assert not (tmp_path / "x").exists()


def test_prune_writes_a_new_model_and_says_what_to_run_again(folder, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    before = sorted((path.name, path.read_bytes()) for path in model.iterdir() if path.is_file())
    assert cli.main(["prune", str(model), "--tolerance", "120"]) == 0
    printed = capsys.readouterr().out
    target = tmp_path / "model-pruned"
    assert (
        f"vqkit train-coder {target} emoji" in printed
        and f"vqkit train-prior {target} emoji" in printed
    )
    assert "training items, which decided" in printed and "test items, which did not" in printed
    small = vqkit.load(target)
    assert (
        small.network.quantizer.codebook_size < 64
        and small.prior is None
        and small.artifact.coders == Coders()
    )
    assert small.metrics["proof"]["largest"] <= 120
    assert (
        sorted((path.name, path.read_bytes()) for path in model.iterdir() if path.is_file())
        == before
    )
    assert cli.main(["prune", str(model), "--out", str(target), "--tolerance", "120"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert cli.main(["evaluate", str(target), "emoji"]) == 0
