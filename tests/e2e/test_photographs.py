"""Recipe photos-sharp on few photographs, and files of every form that photographs have."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

import vqkit
from vqkit.cli import main

# Of the recipe's network and stage, what takes a moment.
NARROW = [
    "model.network.width=32",
    "model.quantizer.stage.channels=24",
    "data.max_memory_mb=1",
    "data.max_flat=1",
    "adversary.start=0.3",
    "adversary.alone=2",
    "adversary.ramp=2",
    "adversary.width=8",
    "adversary.num_layers=1",
    "adversary.max_fall=100",
    "train.steps=12",
    "train.batch_size=8",
    "train.accumulate=2",
    "train.log_every=1",
    "train.validate_every=6",
    "train.max_minutes=null",
    "coder.steps=0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of three photographs, one for each split."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "three").mkdir()
    for name in ("coffee", "astronaut", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(root / "three" / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        # As where the extra [perceptual] is not installed; of so few steps nothing is asked.
        patch.setattr("vqkit.signals.image.perceptual.has_features", lambda: False)
        patch.setattr("vqkit.training.stage_guard.LEARNED", -1.0)
        patch.setattr("vqkit.training.stage_guard.CHANCE", 100.0)
        vqkit.train(root / "three", root / "run", "photos-sharp", NARROW)
    return root / "run"


def photographs(root):
    """Files by name, and what each looks like: uint8 (H, W, 3)."""
    coffee = data.coffee()
    cat = data.chelsea()
    panorama = np.tile(coffee[100:300], (1, 34, 1))[:, :20000]
    looks = {"panorama.jpg": panorama, "tiny.png": coffee[:5, :3]}
    for name, image in looks.items():
        Image.fromarray(image).save(root / name, quality=95)
    Image.fromarray(coffee).convert("CMYK").save(root / "print.jpg", quality=95)
    looks["print.jpg"] = coffee
    grey = np.asarray(Image.fromarray(coffee).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(root / "deep.png")
    looks["deep.png"] = np.repeat(grey[..., None], 3, 2)
    opaque = np.dstack([cat, np.full(cat.shape[:2], 255, np.uint8)])
    opaque[:100, :, 3] = 0
    Image.fromarray(opaque).save(root / "alpha.png")
    looks["alpha.png"] = np.concatenate([np.full_like(cat[:100], 255), cat[100:]])
    exif = Image.Exif()
    # Taken with the camera turned: 6 = a quarter to the right makes it upright.
    exif[274] = 6
    Image.fromarray(cat).save(root / "turned.jpg", quality=95, exif=exif)
    looks["turned.jpg"] = np.rot90(cat, -1)
    return looks


def test_files_of_every_form_come_back_upright_at_their_own_size(folder, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    looks = photographs(files)
    written = tmp_path / "written"
    assert main(["compress", str(folder), str(files), "--out-dir", str(written)]) == 0
    paths = sorted(map(str, written.iterdir()))
    assert len(paths) == len(looks)
    back = tmp_path / "back"
    assert main(["decompress", *paths, "--model", str(folder), "--out-dir", str(back)]) == 0
    for name, look in looks.items():
        found = np.asarray(Image.open((back / name).with_suffix(".png")))
        assert found.shape == look.shape, name
        assert 10 * np.log10(255**2 / np.square(found.astype(float) - look).mean()) > 20, name


def test_the_stage_of_a_model_of_three_photographs(folder, capsys):
    model = vqkit.load(folder, device="cpu")
    assert model.metrics["cut_from"] == 1 and model.metrics["split"] == "test"
    assert model.metrics["adversary"]["in_use"] == "after"
    assert main(["info", str(folder), "--device", "cpu"]) == 0
    assert "from after the adversarial stage" in capsys.readouterr().out
