"""Write src/vqkit/recipes/*.yaml: every recipe complete, commented with the descriptions in
vqkit.config.

    python scripts/make_recipes.py

A recipe is a job that a user has: a summary line, and what it sets beside the defaults. A variant
that a few overrides reach (another quantizer, another network) is no recipe: `vqkit recipes
--quantizers` lists those. A test checks that the files are up to date.
"""

from __future__ import annotations

from pathlib import Path

from vqkit import config
from vqkit.config import (
    CoderConfig,
    FSQConfig,
    GaussianCodebookConfig,
    LossConfig,
    NoneConfig,
    PriorNetworkConfig,
    ProductConfig,
    ResidualConfig,
    ScalarConfig,
    TrainConfig,
    TransformConfig,
    VQConfig,
    WeightConfig,
)
from vqkit.config.adversary import PatchAdversary
from vqkit.settings import Config, ModelConfig, PairConfig, PriorConfig
from vqkit.signals.array.config import ArrayConfig, SeriesData, VolumeData
from vqkit.signals.audio.config import AugmentConfig as Louder
from vqkit.signals.audio.config import DataConfig as AudioData
from vqkit.signals.audio.config import LappedConfig, StftAdversary, VocoderConfig
from vqkit.signals.audio.config import NoiseConfig as Hiss
from vqkit.signals.image.config import (
    AugmentConfig,
    DataConfig,
    MultiscaleConfig,
    NoiseConfig,
    PatchConfig,
)
from vqkit.signals.text.config import BytesConfig
from vqkit.signals.text.config import DataConfig as TextData
from vqkit.signals.text.config import NoiseConfig as TextNoise

FOLDER = Path(__file__).parents[1] / "src" / "vqkit" / "recipes"

IMAGES = DataConfig(image_size=(64, 64), augment=AugmentConfig(flip=True))
SMALL = DataConfig(image_size=(32, 32), augment=AugmentConfig(shift=1, flip=True))
SHORT = TrainConfig(steps=3000)
# The best found for Fashion-MNIST on a validation split (docs/experiments.md), used wherever it
# fits.
TUNED = TrainConfig(
    optimizer="muon",
    lr=6e-3,
    muon_lr=0.04,
    weight_decay=0.01,
    batch_size=48,
    final_lr=0.0,
    clip_norm=0.0,
    ema_decay=0.99,
)
SHARP = LossConfig(distortion="log_mse", commitment=1.0)
# Gradients of a likelihood are steepest where it is sure; clipped, short runs ended 0.01 to 0.03
# bits per value lower.
MIXTURE = LossConfig(distortion="logistic_mixture", commitment=1.0)
NATS = TUNED.model_copy(update={"clip_norm": 1.0})
DEEP = PatchConfig(encoder_blocks=4, decoder_blocks=4)
CODES = VQConfig(decay=0.98, revive_threshold=0.1)
STAGES = ResidualConfig(
    num_stages=4,
    stage=CODES.model_copy(update={"codebook_size": 256, "rate": 0.1}),
    quantizer_dropout=0.5,
)

# Patches of photographs at every size, and a network that a minute of training cannot make worse
# than a classical codec: what was measured is in docs/benchmarks/photos.md.
PHOTOS = Config(
    data=IMAGES.model_copy(update={"fit": "patches", "num_scales": 3, "max_flat": 0.5}),
    model=ModelConfig(
        network=MultiscaleConfig(),
        quantizer=ResidualConfig(
            num_stages=3,
            stage=ScalarConfig(channels=384, step=1.5, levels=511),
            quantizer_dropout=1.0,
        ),
        max_gain=3.0,
    ),
    # Where another bit of a value lowers the mse as much as the last one did.
    losses=LossConfig(distortion="log_mse", rate=WeightConfig(peak=1.4)),
    train=TUNED.model_copy(
        update={
            "batch_size": 32,
            "lr": 3e-3,
            "muon_lr": 0.02,
            "clip_norm": 1.0,
            "ema_decay": 0.995,
            "max_minutes": 20.0,
        }
    ),
)
# As `vqkit sharpen` has it: a feature term beside the adversarial one (docs/experiments.md).
PERCEPTUAL = WeightConfig(peak=1.0)

# What is likely in arrays that nobody here has seen: latents of any size, and files of every rate.
NUMBERS = ResidualConfig(
    num_stages=3,
    stage=ScalarConfig(channels=32, step=1.0, levels=511),
    quantizer_dropout=1.0,
)
STEADY = {
    "batch_size": 32,
    "lr": 3e-3,
    "muon_lr": 0.02,
    "clip_norm": 1.0,
    "ema_decay": 0.995,
    "max_minutes": 10.0,
}

# Single samples say little of what is heard, and nothing where phases are made up.
HEARD = LossConfig(reconstruction=WeightConfig(peak=0.0), perceptual=WeightConfig(peak=1.0))
SOUND = TUNED.model_copy(
    update={
        "batch_size": 16,
        "lr": 1e-3,
        "muon_lr": 0.01,
        "clip_norm": 1.0,
        "ema_decay": 0.995,
        "max_minutes": 10.0,
    }
)

# Voices as a model of speech has them: what was measured is in docs/benchmarks/speech.md.
SPEECH = Config(
    data=AudioData(augment=Louder(level=12.0, invert=True)),
    model=ModelConfig(
        network=VocoderConfig(),
        quantizer=ResidualConfig(
            num_stages=8,
            stage=VQConfig(codebook_size=1024, code_dim=136),
            quantizer_dropout=0.5,
        ),
    ),
    losses=HEARD,
    train=SOUND,
    # There is little speech in an hour: it would be learned by heart.
    coder=CoderConfig(steps=2000, dropout=0.2),
)

# What was measured is in docs/benchmarks/text.md: the fewer bytes a code stands for, the sooner it
# is learnt, and the network tells apart by what is around them those that share one.
TEXT = Config(
    data=TextData(),
    model=ModelConfig(network=BytesConfig(), quantizer=FSQConfig(levels=(4,) * 5)),
    losses=LossConfig(distortion="categorical"),
    # A few megabytes of text are learned by heart in ten minutes, hence the weight decay.
    train=SOUND.model_copy(update={"lr": 8e-3, "muon_lr": 0.08, "weight_decay": 0.1}),
)

# A small network sees more of the text in minutes, and codes keep all that it lets through: what is
# repaired is decided by how likely letters are, not by what codes cannot say.
TEXT_DENOISE = TEXT.model_copy(
    update={
        "data": TextData(noise=TextNoise(level=0.2)),
        "model": ModelConfig(
            network=BytesConfig(
                patch_size=4, width=128, embedding=32, encoder_blocks=5, decoder_blocks=3
            ),
            quantizer=ProductConfig(num_groups=8, group=FSQConfig(levels=(4,) * 5)),
        ),
        "train": SOUND.model_copy(update={"batch_size": 8, "lr": 2e-3, "muon_lr": 0.02}),
    }
)

RECIPES: dict[str, tuple[str, Config]] = {
    "images": (
        "a folder of images at 64x64, vq codes: the default for your own files",
        Config(
            data=IMAGES,
            model=ModelConfig(
                network=PatchConfig(), quantizer=CODES.model_copy(update={"codebook_size": 1024})
            ),
            losses=SHARP,
            train=TUNED.model_copy(update={"max_minutes": 20.0}),
        ),
    ),
    "emoji": (
        "the built-in emoji at 32x32, minutes on a laptop: the demo",
        Config(
            data=SMALL,
            model=ModelConfig(network=PatchConfig(), quantizer=CODES),
            losses=SHARP,
            train=TUNED.model_copy(
                update={"steps": 4000, "max_minutes": 4.0, "validate_every": 250}
            ),
        ),
    ),
    "fashion-mnist": (
        "Fashion-MNIST at 441 bits an image (7x7 codes of 9 bits): the benchmark",
        Config(
            model=ModelConfig(network=DEEP, quantizer=CODES),
            losses=SHARP,
            train=TUNED.model_copy(
                update={"steps": 8000, "validate_every": 1000, "checkpoint_every": 1000}
            ),
        ),
    ),
    "rates": (
        "four stages of 7x7 codes of 8 bits: small files at many rates, of 28x28 images or of "
        "yours",
        Config(
            model=ModelConfig(
                network=DEEP,
                quantizer=STAGES,
            ),
            losses=SHARP,
            train=TUNED.model_copy(
                update={"steps": 8000, "validate_every": 1000, "checkpoint_every": 1000}
            ),
            coder=CoderConfig(steps=2000),
        ),
    ),
    "photos": (
        "large photographs: patches of 64x64 at their own size, a half and a quarter of it; files "
        "of every rate from 0.1 bits a pixel on",
        PHOTOS,
    ),
    "photos-sharp": (
        "photos with an adversary for the decoder at the end: texture that mean errors blur, at "
        "the same codes and bytes",
        PHOTOS.model_copy(
            update={
                "losses": PHOTOS.losses.model_copy(update={"perceptual": PERCEPTUAL}),
                # Reconstructions of photographs are hard to tell: with lr=5e-4 a discriminator was
                # hardly above chance after 200 steps (docs/experiments.md).
                "adversary": PatchAdversary(train="decoder", lr=2e-3, alone=300),
                # The stage comes on top of the time that the codes have.
                "train": PHOTOS.train.model_copy(update={"max_minutes": 30.0}),
            }
        ),
    ),
    "photos-gpu": (
        "photographs at 256x256 on a graphics card: 32x32 vq codes of 14 bits (f8), adversary; "
        "f16: model.network.downsampling_factor=16",
        Config(
            data=IMAGES.model_copy(update={"image_size": (256, 256), "num_workers": 8}),
            model=ModelConfig(
                network=MultiscaleConfig(
                    downsampling_factor=8,
                    width=512,
                    expansion=4,
                    encoder_blocks=(2, 2, 4),
                    decoder_blocks=(2, 2, 4),
                ),
                quantizer=CODES.model_copy(update={"codebook_size": 16384, "latent_dim": 128}),
            ),
            losses=SHARP.model_copy(update={"perceptual": PERCEPTUAL}),
            adversary=PatchAdversary(width=64, alone=1000, ramp=5000),
            train=TUNED.model_copy(
                update={
                    "steps": 100_000,
                    "batch_size": 32,
                    "lr": 3e-3,
                    "muon_lr": 0.02,
                    "clip_norm": 1.0,
                    "ema_decay": 0.999,
                    "validate_every": 2000,
                    "checkpoint_every": 2000,
                    "log_every": 50,
                }
            ),
        ),
    ),
    "speech": (
        "recordings of voices: eight stages of 10-bit codes around a model of speech, files from a "
        "quarter of a kilobit a second on",
        SPEECH,
    ),
    "speech-sharp": (
        "speech with an adversary for the decoder at the end: more natural sound where bits are "
        "few, at the same codes and bytes",
        SPEECH.model_copy(
            update={
                # A third of ten minutes, of which steps cost three times as much.
                "adversary": StftAdversary(
                    train="decoder", start=0.65, alone=60, ramp=100, lr=2e-3
                ),
                "train": SOUND.model_copy(update={"validate_every": 100}),
            }
        ),
    ),
    "music": (
        "music and other sound, mono or stereo: a lapped transform whose coefficients are scalar "
        "codes, files of every rate",
        Config(
            data=AudioData(seconds=0.75, augment=Louder(level=12.0, invert=True)),
            model=ModelConfig(
                network=LappedConfig(),
                quantizer=ResidualConfig(
                    num_stages=3,
                    stage=ScalarConfig(channels=1024, step=6.0, levels=511),
                    quantizer_dropout=1.0,
                ),
                max_gain=4.0,
            ),
            losses=HEARD,
            train=SOUND,
        ),
    ),
    "signal": (
        "series of numbers along time, one channel or many, such as ECG, sensors or motion: .npy, "
        ".csv or .parquet; scalar codes, files of every rate",
        Config(
            data=SeriesData(),
            model=ModelConfig(network=ArrayConfig(), quantizer=NUMBERS, max_gain=3.0),
            losses=LossConfig(distortion="log_mse", rate=WeightConfig(peak=1.0)),
            train=TUNED.model_copy(update=STEADY),
        ),
    ),
    "volume": (
        "volumes such as scans: .npy of (depth, height, width), cut into cubes; three-dimensional "
        "blocks, scalar codes, files of every rate",
        Config(
            data=VolumeData(),
            model=ModelConfig(network=ArrayConfig(patch=4), quantizer=NUMBERS, max_gain=3.0),
            # Of cubes in which nothing happens, the log of an error would count as much.
            losses=LossConfig(distortion="mse", rate=WeightConfig(peak=0.02)),
            train=TUNED.model_copy(update={**STEADY, "batch_size": 16}),
        ),
    ),
    "speech-denoise": (
        "noisy recordings of voices in, clean ones out: a filter before a lapped transform whose "
        "coefficients are fine scalar codes; data.noise.source takes a folder of your noise",
        Config(
            data=AudioData(
                seconds=1.28, augment=Louder(level=12.0, invert=True), noise=Hiss(level=1.4)
            ),
            model=ModelConfig(
                network=LappedConfig(hop=128, filter_blocks=6, decoder_blocks=1),
                # As fine as sound of 80 dB needs: what the filter keeps, codes keep.
                quantizer=ScalarConfig(channels=128, step=1.0, levels=511),
            ),
            # Mean errors say which phase is right, and few bits are not asked for.
            losses=HEARD.model_copy(
                update={
                    "distortion": "log_mse",
                    "reconstruction": WeightConfig(peak=0.3),
                    "rate": WeightConfig(peak=0.0),
                }
            ),
            train=SOUND,
        ),
    ),
    "text": (
        "files of text of any language or format: 10 bits for two bytes, which nearly all come "
        "back; and the coder of lossless files",
        TEXT,
    ),
    "text-denoise": (
        "text with up to 20 % of its bytes wrong in, the text as it was out: for vqkit denoise",
        TEXT_DENOISE,
    ),
    "denoise": (
        "noisy images in, clean ones out: four stages of 8-bit codes, one for every 2x2 pixels, "
        "32x32",
        Config(
            data=SMALL.model_copy(update={"fit": "patches", "noise": NoiseConfig(sigma=75.0)}),
            model=ModelConfig(
                network=PatchConfig(patch_size=2, width=96, encoder_blocks=4, decoder_blocks=3),
                quantizer=ResidualConfig(
                    num_stages=4,
                    stage=CODES.model_copy(update={"codebook_size": 256}),
                    quantizer_dropout=0.25,
                ),
            ),
            losses=SHARP,
            train=TUNED.model_copy(update={"steps": 6000, "max_minutes": 15.0, "batch_size": 32}),
        ),
    ),
    "likelihood": (
        "vq codes with a probability for every pixel: lossless bits of grey 28x28 images, or of "
        "yours",
        Config(
            model=ModelConfig(network=DEEP, quantizer=CODES),
            losses=MIXTURE,
            train=NATS.model_copy(
                update={"steps": 8000, "validate_every": 1000, "checkpoint_every": 1000}
            ),
        ),
    ),
    "vae": (
        "a variational autoencoder with a mixture of discretised logistics: its loss is a bound "
        "in nats, 32x32",
        Config(
            data=SMALL,
            model=ModelConfig(network=DEEP, quantizer=NoneConfig(code_dim=16), variational=True),
            losses=LossConfig(distortion="logistic_mixture"),
            train=NATS.model_copy(update={"steps": 4000}),
        ),
    ),
    "variational": (
        "latents sampled, mapped to N(0, 1) and quantised by a codebook made for N(0, 1), 32x32",
        Config(
            data=SMALL,
            model=ModelConfig(
                quantizer=GaussianCodebookConfig(),
                variational=True,
                transform=TransformConfig(kind="mlp", latent_dim=16),
            ),
            losses=SHARP.model_copy(
                update={
                    "kl": WeightConfig(peak=0.01, schedule="warmup"),
                    "transform": WeightConfig(peak=1.0, schedule="warmup", share=0.1),
                }
            ),
            train=TUNED.model_copy(
                update={"steps": 4000, "max_minutes": 6.0, "validate_every": 250}
            ),
        ),
    ),
}

# What the settings of priors were chosen by is in docs/experiments.md.
PRIOR_TRAIN = TrainConfig(
    optimizer="muon",
    steps=20000,
    max_minutes=10.0,
    batch_size=64,
    lr=2e-3,
    muon_lr=0.02,
    weight_decay=0.01,
    final_lr=0.0,
    ema_decay=0.99,
    validate_every=200,
    patience=5,
)
PRIORS: dict[str, tuple[str, PriorConfig]] = {
    "prior": (
        "a prior over the codes of your own files, conditioned on captions or classes if there "
        "are any: the default",
        PriorConfig(train=PRIOR_TRAIN),
    ),
    "fashion-mnist": (
        "classes of Fashion-MNIST, ten minutes on two cores: the benchmark",
        PriorConfig(
            random_order=0.1,
            network=PriorNetworkConfig(width=192, num_blocks=4),
            train=PRIOR_TRAIN.model_copy(update={"lr": 0.02}),
        ),
    ),
    "emoji": (
        "emoji by their captions: few images, so they are shifted and mirrored, and the network "
        "drops channels",
        PriorConfig(
            augment={"shift": 1, "flip": True},
            network=PriorNetworkConfig(dropout=0.1),
            train=PRIOR_TRAIN,
        ),
    ),
}

PAIR_TRAIN = PRIOR_TRAIN.model_copy(update={"lr": 0.01})
PAIRS: dict[str, tuple[str, PairConfig]] = {
    "pair": (
        "a prior over pairs of your own files, such as images and captions: the default",
        PairConfig(network=PriorNetworkConfig(dropout=0.1), train=PAIR_TRAIN),
    ),
    "emoji": (
        "emoji and their captions: few images, so they are shifted and mirrored",
        PairConfig(
            augment={"shift": 1, "flip": True},
            network=PriorNetworkConfig(dropout=0.1),
            train=PAIR_TRAIN,
        ),
    ),
}


def text(name: str) -> str:
    """The file of one autoencoder's recipe."""
    summary, settings = RECIPES[name]
    return f"# {summary}\n{config.dump(settings)}"


def prior_text(name: str) -> str:
    """The file of one prior's recipe."""
    summary, settings = PRIORS[name]
    return f"# {summary}\n{config.dump(settings)}"


def pair_text(name: str) -> str:
    """The file of one recipe of pairs."""
    summary, settings = PAIRS[name]
    return f"# {summary}\n{config.dump(settings)}"


def main() -> None:
    for old in FOLDER.rglob("*.yaml"):
        old.unlink()
    for recipe in RECIPES:
        (FOLDER / f"{recipe}.yaml").write_text(text(recipe), encoding="utf-8")
    for recipe in PRIORS:
        (FOLDER / "prior" / f"{recipe}.yaml").write_text(prior_text(recipe), encoding="utf-8")
    for recipe in PAIRS:
        (FOLDER / "pair" / f"{recipe}.yaml").write_text(pair_text(recipe), encoding="utf-8")


if __name__ == "__main__":
    main()
