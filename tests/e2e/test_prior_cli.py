"""A prior trained and used through the real entry point, on the tiny emoji model."""

import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vqkit
from tests.conftest import TINY_PRIOR
from vqkit import cli
from vqkit.apps.evaluate import open_for
from vqkit.apps.evaluate_prior import evaluate_prior, nearest_items
from vqkit.apps.generate import generate
from vqkit.apps.inpaint import blend_weights, inpaint, outpaint
from vqkit.apps.interpolate import interpolate
from vqkit.apps.variations import variations
from vqkit.errors import VqkitError
from vqkit.prior.prior import Drawing

from ..processes import run, start
from ..training.runs import wait_for


@pytest.fixture(scope="module")
def folder(prior_folder):
    """The tiny model with a prior conditioned on classes. Tests must not write there."""
    return prior_folder


@pytest.fixture(scope="module")
def values(emoji):
    return emoji.read(emoji.splits["test"][:2]).values


@pytest.fixture(scope="module")
def image(values):
    return values.permute(0, 2, 3, 1).contiguous().numpy()


def test_training_learns_and_leaves_what_was_promised(folder, prior_model, emoji):
    for name in (
        "report.html",
        "samples.png",
        "scattered.png",
        "nearest.png",
        "bits.png",
        "metrics.jsonl",
        "recipe.yaml",
    ):
        assert (folder / "prior" / name).stat().st_size > 0, name
    assert not (folder / "prior" / "checkpoint").exists()
    metrics = prior_model.prior.metrics
    assert metrics["bits_per_code"] < 6.0 and 0 <= metrics["memorised"] <= 1
    found = evaluate_prior(prior_model, open_for(prior_model, "emoji", "test"))
    assert found.metrics["bits_per_code"] == pytest.approx(metrics["bits_per_code"], rel=1e-5)
    assert found.bits_per_item.mean() == pytest.approx(64 * metrics["bits_per_code"], rel=1e-5)
    counts = {}
    for split in ("train", "test"):
        codes = prior_model.tokenizer.encode(emoji.read(emoji.splits[split]).values)
        counts[split] = np.bincount(codes.flatten().numpy(), minlength=64)
    frequencies = (counts["train"] + 1) / (counts["train"] + 1).sum()
    expected = -(counts["test"] / counts["test"].sum()) @ np.log2(frequencies)
    assert metrics["order0_bits"] == pytest.approx(expected, rel=1e-5)


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(folder, run_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(run_folder, copy)
    command = ["-m", "vqkit", "train-prior", copy, "emoji"]
    process = start([*command, "--recipe", "prior", *TINY_PRIOR])
    wait_for(lambda: list(copy.glob("prior/checkpoint/step-*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (copy / "prior.safetensors").exists()
    done = run([*command, "--resume"])
    assert done.returncode == 0, done.stderr
    whole, resumed = (load_file(path / "prior.safetensors") for path in (folder, copy))
    assert whole.keys() == resumed.keys() and all(
        torch.equal(whole[name], resumed[name]) for name in whole
    )


def test_a_run_that_is_stopped_after_its_steps_is_finished_by_resuming(
    run_folder, tmp_path, monkeypatch
):
    def interrupted(*given):
        raise KeyboardInterrupt

    copy = tmp_path / "model"
    shutil.copytree(run_folder, copy)
    with monkeypatch.context() as context:
        context.setattr("vqkit.pipelines.prior.nearness", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vqkit.train_prior(
                copy,
                "emoji",
                "prior",
                [*TINY_PRIOR, "train.steps=2", "train.checkpoint_every=1000"],
            )
    assert vqkit.train_prior(copy, "emoji", resume=True).wanted_prior().metrics["step"] == 2
    assert (copy / "prior" / "report.html").exists()
    with pytest.raises(VqkitError, match="is finished"):
        vqkit.train_prior(copy, "emoji", resume=True)


def test_another_prior_takes_the_place_of_one_once_it_is_complete(folder, few_images, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    short = [*TINY_PRIOR, "train.steps=2", "train.checkpoint_every=1", "condition=none"]

    def stopped(*given):
        raise KeyboardInterrupt

    # At the last moment before it is complete: all of the one before is there.
    with pytest.MonkeyPatch.context() as context:
        context.setattr("vqkit.pipelines.prior.write_prior_report", stopped)
        with pytest.raises(KeyboardInterrupt):
            vqkit.train_prior(copy, few_images, "prior", short, replace_prior=True)
    new = copy / "prior-new"
    assert {path: path.read_bytes() for path in files} == files and new.exists()
    assert vqkit.load(copy).prior.classes == vqkit.load(folder).prior.classes != ()
    with pytest.raises(VqkitError, match="add --resume"):
        vqkit.train_prior(copy, few_images, "prior", short, replace_prior=True)
    assert cli.main(["train-prior", str(copy), str(few_images), "--resume"]) == 0
    model = vqkit.load(copy)
    assert model.prior.classes == () and model.prior.metrics["step"] == 2
    assert not new.exists() and not (copy / "prior" / "checkpoint").exists()
    assert "condition: none" in (copy / "prior" / "recipe.yaml").read_text()
    assert (copy / "prior" / "report.html").read_bytes() != files[copy / "prior" / "report.html"]
    rest = {path for path in files if path.parent == copy and path.suffix == ".safetensors"}
    rest.remove(copy / "prior.safetensors")
    assert rest and all(path.read_bytes() == files[path] for path in rest)


def test_generated_images_do_not_depend_on_their_number(prior_model):
    drawing = Drawing(classes=["Flags", "objects"], seed=3)
    many = generate(prior_model, 18, drawing=drawing, frames=True)
    assert torch.equal(generate(prior_model, 2, drawing=drawing).values, many.values[:2])
    assert torch.equal(many.frames[-1], many.values) and many.values.shape == (18, 3, 32, 32)


def test_inpainting_leaves_what_is_outside_of_the_blend_band(prior_model, values):
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[16:, 8:24] = True
    found = inpaint(prior_model, values[0], mask, num=3, blend=2)
    outside = blend_weights(mask, 2) == 0
    assert all(torch.equal(made[:, outside], values[0][:, outside]) for made in found.values)
    assert not torch.equal(found.values[0], found.values[1])
    assert not found.known[4:, 2:6].any(), "codes whose pixels are hidden are never kept"
    sharp = inpaint(prior_model, values[0], mask, blend=0).values[0]
    assert torch.equal(sharp[:, ~mask], values[0][:, ~mask])


def test_blend_weights_by_hand():
    mask = torch.zeros(1, 7, dtype=torch.bool)
    mask[0, 0] = True
    assert blend_weights(mask, 2)[0].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0, 0, 0, 0])


def test_outpainting_adds_on_every_side(prior_model, values):
    found = outpaint(prior_model, values[0], 8, num=2, blend=0)
    assert found.values.shape == (2, 3, 48, 48) and torch.equal(
        found.values[1][:, 8:40, 8:40], values[0]
    )


def test_variations_and_interpolation_at_their_ends(prior_model, values):
    tokenizer = prior_model.tokenizer
    plain = tokenizer.decode(tokenizer.encode(values), (32, 32), double=True)
    assert torch.equal(variations(prior_model, values[0], strength=0.0, num=1)[0], plain[0])
    some = variations(prior_model, values[0], strength=0.3, num=4)
    assert not torch.equal(some[0], some[1])
    with pytest.raises(
        VqkitError, match=r"32x32 pixels \(width x height\) and 32x16 pixels \(width x height\)"
    ):
        interpolate(prior_model, values[0], values[1][:, :16])
    path = interpolate(prior_model, values[0], values[1], num=5)
    for row in (path.latents, path.morph):
        assert row.shape == (5, 3, 32, 32)
        assert torch.equal(row[0], plain[0]) and torch.equal(row[-1], plain[1])


def test_nearest_images_against_brute_force(emoji):
    wanted = emoji.read(emoji.splits["test"][:3]).values
    found, distances = nearest_items(emoji, wanted)
    train = emoji.read(emoji.splits["train"]).values.numpy().astype(np.float64)
    for index in range(3):
        every = np.sqrt(((train - wanted[index].numpy()) ** 2).mean((1, 2, 3)))
        assert distances[index] == pytest.approx(every.min(), rel=1e-4)
        assert found[index] == emoji.splits["train"][every.argmin()]


def test_every_verb_from_the_command_line(folder, image, tmp_path, capsys, emoji):
    for index in range(2):
        Image.fromarray(image[index]).save(tmp_path / f"{index}.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[20:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    first, second, out = str(tmp_path / "0.png"), str(tmp_path / "1.png"), str(tmp_path / "out.png")
    gif = str(tmp_path / "steps.gif")
    calls = [
        [
            "generate",
            folder,
            "--num",
            "3",
            "--class",
            "flags",
            "--cfg",
            "2",
            "--steps",
            "5",
            "--gif",
            gif,
        ],
        ["inpaint", folder, first, "--mask", tmp_path / "mask.png"],
        ["outpaint", folder, first, "--expand", "4"],
        ["variations", folder, first, "--strength", "0.3", "--num", "2"],
        ["interpolate", folder, first, second, "--num", "3"],
    ]
    for call in calls:
        assert cli.main([*map(str, call), "--out", out]) == 0, capsys.readouterr().err
    assert len(list(tmp_path.glob("out*.png"))) == 5, "no sheet overwrites another"
    with Image.open(gif) as film:
        assert film.n_frames == 5
    assert (
        cli.main(
            [
                "score",
                str(folder),
                first,
                second,
                str(tmp_path / "no.png"),
                "--maps",
                str(tmp_path / "m"),
            ]
        )
        == 1
    )
    printed = capsys.readouterr()
    held_out = f"of the {len(emoji.splits['test'])} held-out items of training"
    assert held_out in printed.out
    assert (
        "0.png" in printed.out
        and "no such file" in printed.err
        and (tmp_path / "m" / "0.png").exists()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "{folder}", "--class", "flag"], "did you mean 'flags'"),
        (["generate", "{folder}", "--prompt", "red"], "takes no prompt"),
        (["generate", "{folder}", "--steps", "65"], "65 steps are more than the 64 codes"),
        (["generate", "{plain}"], "no prior; train one first"),
        (["generate", "{folder}", "--top-p", "0"], "--top-p"),
        (
            ["inpaint", "{folder}", "{image}", "--mask", "{mask}"],
            "the mask has 9x5 pixels (width x height)",
        ),
        (["outpaint", "{folder}", "{image}", "--expand", "0"], "a whole number from 1"),
        (["variations", "{folder}", "{image}", "--strength", "2"], "a number from 0 up to 1"),
        (["generate", "{folder}", "--cfg-interval", "a"], "two numbers"),
        (["generate", "{folder}", "--class", "flags", "--cfg-interval", "0.8,0.2"], "must rise"),
        (["generate", "{folder}", "--class", "flags", "--cfg-ramp", "linear"], "give --cfg"),
        (["generate", "{folder}", "--cfg", "3"], "give --class or --prompt"),
        (
            ["outpaint", "{folder}", "{image}", "--expand", "4", "--blend", "-1"],
            "-1 is not a whole number from 0",
        ),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, folder, run_folder, image, tmp_path, capsys):
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    Image.fromarray(np.full((5, 9), 255, np.uint8)).save(tmp_path / "mask.png")
    names = {
        "folder": folder,
        "plain": run_folder,
        "image": tmp_path / "image.png",
        "mask": tmp_path / "mask.png",
    }
    assert (
        cli.main([word.format(**names) for word in arguments] + ["--out", str(tmp_path / "x.png")])
        == 2
    )
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and message in errors[0], errors
    assert not (tmp_path / "x.png").exists()


def test_files_are_scored_under_one_class(folder, image, tmp_path, capsys):
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    assert (
        cli.main(["score", str(folder), str(tmp_path / "image.png"), "--class", "flags,symbols"])
        == 2
    )
    assert "one class or prompt" in capsys.readouterr().err


def test_a_second_prior_and_one_of_another_model_are_refused(folder, residual_folder, tmp_path):
    with pytest.raises(VqkitError, match="has a prior already; add --replace"):
        vqkit.train_prior(folder, "emoji")
    copy = tmp_path / "other"
    shutil.copytree(residual_folder, copy)
    shutil.copy(folder / "prior.safetensors", copy)
    with pytest.warns(UserWarning, match="codes of another model"):
        assert vqkit.load(copy).prior is None


def test_captions_are_told_and_a_prior_without_any_is_refused(run_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(run_folder, copy)
    prior_model = vqkit.train_prior(
        copy, "emoji", "prior", [*TINY_PRIOR, "train.steps=4", "condition=auto"]
    )
    assert prior_model.prior.has_captions
    sheets = [
        generate(prior_model, 1, drawing=Drawing(prompts=[text])).bits
        for text in ("red apple", "flag: france")
    ]
    assert sheets[0].shape == (1,)
    np.save(
        tmp_path / "grey.npy",
        np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
    )
    with pytest.raises(VqkitError, match="no captions"):
        shutil.rmtree(copy / "prior")
        (copy / "prior.safetensors").unlink()
        vqkit.train_prior(copy, tmp_path / "grey.npy", "prior", ["condition=caption"])


@pytest.mark.parametrize("verb", ["generate", "variations", "score"])
def test_the_warning_of_a_prior_is_repeated_behind_what_it_made(
    verb, folder, image, tmp_path, capsys
):
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    words = {
        "generate": ["--num", "2", "--out", str(tmp_path / "x.png")],
        "variations": [str(tmp_path / "image.png"), "--num", "2", "--out", str(tmp_path / "x.png")],
        "score": [str(tmp_path / "image.png")],
    }
    assert cli.main([verb, str(folder), *words[verb]]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "vqkit: this prior was not healthy when it was trained: it trained for 40 steps only"
    )
