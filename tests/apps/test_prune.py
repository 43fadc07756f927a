"""Pruning a codebook to which dead codes and duplicates were added by hand, and what is refused."""

import pytest
import torch

import vqkit
from vqkit.apps.prune import compare, prune, with_codes
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact, Coders
from vqkit.artifact.store import save_artifact
from vqkit.config import from_tree
from vqkit.data.normalisation import Normalisation
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.image.source import ImageData

# Distance of a duplicate, far below that of different codes.
NEAR = 1e-4


@pytest.fixture(scope="module")
def some(emoji) -> ImageData:
    """A few of the emoji, so that counting takes no time."""
    few = ImageData.__new__(ImageData)
    few.__dict__ = {
        **emoji.__dict__,
        "splits": {name: indices[:200] for name, indices in emoji.splits.items()},
    }
    return few


def values_of(data: ImageData, *splits: str) -> torch.Tensor:
    return torch.cat([data.read(data.splits[split]).values for split in splits])


def used_codes(model: Model, data: ImageData) -> torch.Tensor:
    codes = model.tokenizer.encode(values_of(data, "train", "validation"))
    return torch.bincount(codes.flatten(), minlength=64)


def larger(model: Model, rows: torch.Tensor) -> Model:
    """The model with the codebook `rows`; settings and statistics to match."""
    artifact = model.artifact
    quantizer = model.config.model.quantizer.model_copy(
        update={"codebook_size": len(rows), "neighbourhood": 0}
    )
    model_config = model.config.model.model_copy(update={"quantizer": quantizer})
    config = model.config.model_copy(update={"model": model_config})
    network = build_model(config, artifact.shape, artifact.normalisation).eval()
    new = {
        "quantizer.codebook": rows,
        "quantizer.ema_sum": rows,
        "quantizer.ema_count": torch.ones(len(rows)),
    }
    network.load_state_dict({**artifact.network.state_dict(), **new})
    coders = Coders(codes=artifact.coders.codes)
    return Model(
        Artifact(config, network, artifact.data, coders=coders, metrics={"psnr": 1.0}), "cpu"
    )


@pytest.fixture(scope="module")
def padded(model, some):
    """Rows 0 to 4 dead and far away; then the used codes; then a near duplicate of each of the
    first three of these.
    """
    used = used_codes(model, some).nonzero()[:, 0]
    codebook = model.network.quantizer.codebook[used]
    generator = torch.Generator().manual_seed(0)
    shift = (
        torch.nn.functional.normalize(torch.randn(3, codebook.shape[1], generator=generator), dim=1)
        * NEAR
    )
    rows = torch.cat([torch.full((5, codebook.shape[1]), 1e3), codebook, codebook[:3] + shift])
    return larger(model, rows), len(used)


def test_dead_codes_and_duplicates_go_and_pictures_stay(padded, some):
    model, used = padded
    found = prune(model, some, tolerance=2)
    assert found.dead >= 5 and found.merged >= 3 and len(found.kept) <= used
    assert not set(range(5)) & set(found.kept.tolist()), "dead ones are gone"
    for first in range(3):
        assert len({5 + first, 5 + used + first} & set(found.kept.tolist())) <= 1, (
            "one of each pair is left at most"
        )
    images = values_of(some, "train")
    smaller = Model(found.artifact, "cpu").tokenizer
    before, after = (one.reconstruct(images).int() for one in (model.tokenizer, smaller))
    assert (before - after).abs().max() == found.proof.largest <= 2
    assert found.proof.images == 200 and found.proof.beyond == 0
    codes = model.tokenizer.encode(images)
    renumbered = found.kept[smaller.encode(images)]
    assert found.proof.changed == pytest.approx(float((codes != renumbered).double().mean()))
    assert found.held_out.images == len(some.splits["test"])
    assert (
        found.artifact.metrics["pruned_from"] == model.content_id
        and "psnr" not in found.artifact.metrics
    )


def test_without_tolerance_only_what_changes_nothing_goes(padded, some):
    model, _ = padded
    found = prune(model, some, tolerance=0)
    assert found.dead >= 5 and found.proof.largest == 0


def test_a_larger_tolerance_takes_out_no_fewer_and_keeps_its_word(padded, some):
    model, _ = padded
    small, large = (prune(model, some, tolerance=tolerance) for tolerance in (2, 80))
    assert len(large.kept) < len(small.kept) and 2 < large.proof.largest <= 80


def test_the_new_model_is_one_that_loads_and_the_coder_is_named_as_lost(padded, some, tmp_path):
    model, _ = padded
    found = prune(model, some, tolerance=2)
    assert found.dropped == ["coder"]
    save_artifact(found.artifact, tmp_path / "small")
    again = vqkit.load(tmp_path / "small", device="cpu")
    assert (
        again.network.quantizer.codebook_size == len(found.kept)
        and again.artifact.coders == Coders()
    )
    images = values_of(some, "test")[:8]
    assert torch.equal(
        again.tokenizer.encode(images), Model(found.artifact, "cpu").tokenizer.encode(images)
    )
    assert (again.network.quantizer.codebook == model.network.quantizer.codebook[found.kept]).all()


def test_test_images_do_not_decide(padded, some):
    """A code that test images alone use is dead, and what that does to them is told."""
    model, _ = padded
    other = ImageData.__new__(ImageData)
    train, test = some.splits["train"], some.splits["test"]
    codes = model.tokenizer.encode(values_of(some, "train", "test"))
    counts = torch.bincount(
        codes[len(train) :].flatten(), minlength=model.network.quantizer.codebook_size
    )
    rare = int(counts.where(counts > 0, 1 << 30).argmin())
    without = ~(codes[: len(train)] == rare).flatten(1).any(1).numpy()
    splits = {"train": train[without], "validation": train[:0], "test": test}
    other.__dict__ = {**some.__dict__, "splits": splits}
    found = prune(model, other, tolerance=2)
    assert rare not in found.kept.tolist()
    assert found.proof.beyond == 0 < found.held_out.beyond and found.held_out.largest > 2


def test_a_comparison_sees_a_code_that_is_missing(model, some):
    common = int(used_codes(model, some).argmax())
    kept = torch.arange(64)[torch.arange(64) != common]
    found = compare(model, with_codes(model, kept), kept, some, "train", 2)
    share = float((model.tokenizer.encode(values_of(some, "train")) == common).double().mean())
    assert found.beyond > 0 and found.changed == pytest.approx(share)


def test_a_frozen_codebook_behind_a_map_is_pruned_too(some):
    model = _untrained({"kind": "simvq", "codebook_size": 4096, "code_dim": 4})
    found = prune(model, some, tolerance=2)
    assert found.dead > 1000
    assert (
        found.artifact.network.quantizer.frozen == model.network.quantizer.frozen[found.kept]
    ).all()


def test_a_pruned_map_of_codes_is_no_map_and_can_be_loaded():
    model = _untrained(
        {"kind": "vq", "codebook_size": 64, "neighbourhood": 3.0, "neighbourhood_steps": 50}
    )
    settings = with_codes(model, torch.arange(10)).config
    assert settings.model.quantizer.neighbourhood == 0
    assert from_tree(settings.model_dump(mode="json"), "test", Config) == settings


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        ({"kind": "fsq"}, "nothing to prune: quantizer.kind=fsq has no codebook"),
        ({"kind": "lfq"}, "nothing to prune: quantizer.kind=lfq has no codebook"),
        ({"kind": "none"}, "nothing to prune: quantizer.kind=none has no codebook"),
        ({"kind": "residual"}, "quantizer.kind=residual share one size"),
    ],
)
def test_what_has_no_codebook_to_prune_is_refused(quantizer, message, some):
    with pytest.raises(VqkitError, match=message):
        prune(_untrained(quantizer), some)


def test_a_codebook_without_anything_to_take_out_is_left_alone(padded, some):
    model, _ = padded
    alive = Model(prune(model, some, tolerance=2).artifact, "cpu")
    with pytest.raises(VqkitError, match="every code is used"):
        prune(alive, some, tolerance=0)


def _untrained(quantizer) -> Model:
    torch.manual_seed(0)
    tree = {"model": {"network": {"kind": "patch", "width": 16}, "quantizer": quantizer}}
    config = from_tree(tree, "test", Config)
    normalisation = Normalisation((0.5,) * 3, (0.3,) * 3)
    network = build_model(config, Shape(3, (32, 32)), normalisation).eval()
    data = {"channels": 3, "size": [32, 32], "normalisation": normalisation.to_dict()}
    return Model(Artifact(config, network, data), "cpu")
