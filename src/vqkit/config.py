"""Every setting of vqkit: frozen sections in the order of the data flow, loaded from one YAML file and overrides.

A recipe is a complete YAML file; `load` merges `key.subkey=value` overrides into it and checks the result, `dump`
writes it back with every field's description as a comment. Only the errors are imported from here.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from .errors import VqkitError


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors and attribute docstrings describe the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=8192)]


class AugmentConfig(Section):
    shift: Annotated[int, Field(ge=0)] = 0
    """largest random shift in pixels, edges repeated; 0 = off"""
    flip: bool = False
    """mirror half of the images left to right"""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """smallest side of a random crop as a share of the image, resized back; 1 = off"""
    colour: Share = 0.0
    """strength of random brightness, contrast and saturation; 0 = off"""


class DataConfig(Section):
    image_size: tuple[Side, Side] | None = None
    """height and width that the model sees; null = the size that all images share"""
    channels: Literal[1, 2, 3, 4] | None = None
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; null = what most of the images have, without alpha"""
    fit: Literal["crop", "resize"] = "crop"
    """images of another size: crop = scale the short side and cut the middle, resize = squeeze both sides"""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """RGB colour laid under transparent pixels when alpha is not kept"""
    validation: Share = 0.05
    """share of the images held out to watch training and to choose"""
    test: Share = 0.05
    """share held out for the final figures; never trained on, never used to choose"""
    augment: AugmentConfig = AugmentConfig()
    max_memory_mb: Count = 2048
    """sets that are larger than this as uint8 are streamed from disk by worker processes"""
    num_workers: Annotated[int, Field(ge=0, le=64)] = 2
    """worker processes for streamed sets"""


class ConvConfig(Section):
    """The strided network of van den Oord et al. 2017 (arXiv 1711.00937, section 4.1)."""

    kind: Literal["conv"] = "conv"
    width: Count = 128
    """channels of the hidden layers"""
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 2
    """strided layers; each halves height and width"""
    num_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks at the latent grid, on either side"""


class MLPConfig(Section):
    """Fully connected encoder and decoder on flattened images, as in the classic tutorials."""

    kind: Literal["mlp"] = "mlp"
    widths: tuple[Count, ...] = Field(default=(512,), min_length=1)
    """hidden widths of the encoder; the decoder mirrors them"""
    grid: tuple[Count, Count] = (7, 7)
    """the latents are arranged as a grid of this height and width"""


class PatchConfig(Section):
    """Space-to-depth, residual blocks at the latent grid, depth-to-space: nearly all work at low resolution."""

    kind: Literal["patch"] = "patch"
    patch_size: Annotated[int, Field(ge=1, le=64)] = 4
    """side in pixels of the square that becomes one latent"""
    width: Count = 128
    """channels of the residual blocks"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of width"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks before the quantizer"""
    decoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks after the quantizer"""


class NoneConfig(Section):
    """No bottleneck: a plain autoencoder. Codes are the float32 latents, bit for bit."""

    kind: Literal["none"] = "none"
    code_dim: Count = 64
    """channels of the latents"""


class GaussianConfig(Section):
    """The variational autoencoder (Kingma & Welling 2014); `losses.kl` above 1 makes it a beta-VAE."""

    kind: Literal["gaussian"] = "gaussian"
    code_dim: Count = 16
    """channels of the latent mean; the encoder predicts as many log-variances"""


class VQConfig(Section):
    """A learned codebook with nearest-neighbour assignment (van den Oord et al. 2017)."""

    kind: Literal["vq"] = "vq"
    codebook_size: Annotated[int, Field(ge=2, le=1 << 20)] = 512
    """number of code vectors, K"""
    code_dim: Count = 16
    """width of a code vector; latents are projected down to it when latent_dim differs"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = code_dim, no projection"""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """cosine compares directions only: latents and codes are scaled to unit length"""
    update: Literal["ema", "gradient"] = "ema"
    """how codes learn: moving averages of the latents they win, or the optimiser through codebook_loss"""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """of the moving averages, per step; shorter in the first steps"""
    kmeans_iterations: Annotated[int, Field(ge=0, le=100)] = 10
    """Lloyd steps on the first training batch; 0 = random initial codes"""
    revive_threshold: Share = 0.05
    """a code used less than this share of uniform usage is replaced by a latent of the batch; 0 = never"""


class FSQConfig(Section):
    """Finite scalar quantisation: every channel is rounded to a few levels (Mentzer et al. 2023, arXiv 2309.15505)."""

    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=2, le=256)], ...] = Field(default=(8, 8, 8), min_length=1, max_length=24)
    """levels per channel; their product is the codebook size"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per level, no projection"""


NetworkConfig: TypeAlias = Annotated[Union[ConvConfig, PatchConfig, MLPConfig], Field(discriminator="kind")]
QuantizerConfig: TypeAlias = Annotated[
    Union[NoneConfig, GaussianConfig, VQConfig, FSQConfig], Field(discriminator="kind")
]


class ModelConfig(Section):
    network: NetworkConfig = PatchConfig()
    """encoder and decoder: conv, patch or mlp"""
    quantizer: QuantizerConfig = VQConfig()
    """bottleneck: none, gaussian, vq or fsq"""


class LossConfig(Section):
    distortion: Literal["mse", "log_mse", "l1", "huber", "logistic"] = "mse"
    """what reconstruction measures, on standardised pixels; log_mse = mean log of each image's mse, which is mean PSNR;
    logistic = discretised logistic likelihood, nats per value"""
    reconstruction: NonNegative = 1.0
    """weight of the reconstruction term"""
    commitment: NonNegative = 0.25
    """weight of the term that pulls latents to their codes (vq)"""
    codebook: NonNegative = 1.0
    """weight of the term that pulls codes to latents (vq with update: gradient)"""
    kl: NonNegative = 1.0
    """weight of KL(q(z|x) || N(0, 1)) (gaussian); beta of the beta-VAE"""


class TrainConfig(Section):
    steps: Count = 10000
    """optimiser steps; the learning-rate schedule ends here"""
    max_minutes: Positive | None = None
    """a time budget: the schedule is stretched or shortened to end with it; null = steps alone decide"""
    batch_size: Count = 128
    """images per optimiser step, over all ranks and accumulated parts"""
    accumulate: Count = 1
    """parts that a batch is cut in, to save memory"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon = orthogonalised momentum for the matrices of residual blocks, AdamW for all else"""
    lr: Positive = 1e-3
    """peak learning rate of AdamW"""
    muon_lr: Positive = 0.02
    """peak learning rate of Muon, for the matrices that it has"""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """moment decays of AdamW"""
    weight_decay: NonNegative = 0.0
    """decoupled, on weight matrices and kernels only"""
    warmup: Share = 0.03
    """share of the schedule spent raising the learning rate from zero"""
    final_lr: Share = 0.01
    """learning rate at the end of the cosine as a share of the peak"""
    clip_norm: NonNegative = 1.0
    """largest norm of the gradient; 0 = no clipping"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """of the averaged weights that are evaluated and saved; 0 = the last weights"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto = bfloat16 autocast where the processor multiplies it in hardware, else float32"""
    validate_every: Count = 500
    """steps between two looks at the validation split"""
    patience: Annotated[int, Field(ge=0)] = 0
    """stop after this many looks without a better validation loss; 0 = never"""
    checkpoint_every: Count = 500
    """steps between two checkpoints"""
    log_every: Count = 20
    """steps between two lines of metrics.jsonl"""
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto"
    """over several processes: ddp copies the model, fsdp2 shards it; auto = ddp when there are several"""
    compile: bool = False
    """torch.compile the networks; pays on GPUs and on long runs"""


class Config(Section):
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """of everything random: weights, splits, order, augmentation, noise"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()


# ---------------------------------------------------------------------------------------------------------- loading


def recipe_names() -> list[str]:
    """Names of the recipes that ship with vqkit, sorted."""
    folder = resources.files("vqkit") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """YAML text of the built-in recipe `name`. VqkitError if there is none."""
    if name not in recipe_names():
        raise VqkitError(f"no recipe '{name}'{_did_you_mean(name, recipe_names())}; 'vqkit recipes' lists them")
    return (resources.files("vqkit") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def recipe_summary(name: str) -> str:
    """First comment line of a recipe: what it is for."""
    return recipe_text(name).split("\n", 1)[0].lstrip("# ")


def load(recipe: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Settings from a recipe name or a YAML file and overrides written `train.lr=1e-3`.

    An override of a section's `kind` starts that section afresh from the defaults of the new kind.
    Errors: VqkitError naming every wrong key (with a suggestion) and every wrong value (with what is allowed).
    """
    is_file = str(recipe).endswith((".yaml", ".yml"))
    try:
        text = Path(recipe).read_text(encoding="utf-8") if is_file else recipe_text(str(recipe))
        tree = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise VqkitError(f"cannot read recipe {recipe}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise VqkitError(
            f"recipe {recipe} must hold settings such as 'train: {{lr: 0.001}}', not {type(tree).__name__}"
        )
    for override in sorted(overrides, key=lambda text: ".kind=" not in text):  # a kind first: it resets its section
        _apply_override(tree, override)
    return from_tree(tree, where=f"recipe {recipe}")


def from_tree(tree: Mapping[str, Any], where: str = "settings") -> Config:
    """Checked settings from nested dictionaries (a parsed recipe or an artifact's config.json)."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors(include_url=False)]
        raise VqkitError(f"{where}: " + "; ".join(lines)) from error


def dump(config: Config) -> str:
    """YAML text of all settings, each with its description as a comment; `load` reads it back unchanged."""
    return _dump_section(config, 0)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise VqkitError(f"cannot read '{override}': settings are written key.subkey=value, for example train.lr=1e-3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VqkitError(f"{key}: cannot read the value '{text}'") from error
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise VqkitError(f"unknown key '{key}': '{parent}' is a value, not a section")
    if last == "kind" and tree.get("kind") != value:
        tree.clear()
    tree[last] = value


def _sections() -> dict[str, type[Section]]:
    """Dotted path -> class, unions by their kind, for suggestions in error messages."""
    found: dict[str, type[Section]] = {"": Config}
    pending: list[tuple[str, type[Section]]] = [("", Config)]
    while pending:
        path, section = pending.pop()
        for name, field in section.model_fields.items():
            for member in get_args(field.annotation) or (field.annotation,):
                if isinstance(member, type) and issubclass(member, Section):
                    kind = f".{member.model_fields['kind'].default}" if "kind" in member.model_fields else ""
                    dotted = f"{path}.{name}".lstrip(".") + kind
                    found[dotted] = member
                    pending.append((dotted, member))
    return found


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def _explain(item: ErrorDetails) -> str:
    location = [str(part) for part in item["loc"]]
    kinds = {member.model_fields["kind"].default for member in _sections().values() if "kind" in member.model_fields}
    path = ".".join(part for part in location if part not in kinds)
    if item["type"] == "extra_forbidden":
        section = _sections().get(".".join(location[:-1]))
        known = section.model_fields if section else ()
        hint = _did_you_mean(location[-1], known) or f" (known: {', '.join(known)})"
        parent = f" in {path.rpartition('.')[0]}" if "." in path else ""
        return f"unknown key '{location[-1]}'{hint}{parent}"
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{path}: {message}, got {item.get('input')!r}"


def _dump_section(section: Section, depth: int) -> str:
    indent, lines = "  " * depth, []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            lines.append(f"{indent}{name}:\n{_dump_section(value, depth + 1)}".rstrip())
            continue
        data = list(value) if isinstance(value, tuple) else value
        scalar = yaml.safe_dump(data, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
        comment = " ".join((field.description or "").split())
        line = f"{indent}{name}: {scalar}"
        lines.append(f"{line:<34}# {comment}" if comment else line)
        if len(lines[-1]) > 140:
            wrapped = textwrap.wrap(comment, 136 - len(indent))
            lines[-1] = "\n".join([f"{indent}# {part}" for part in wrapped] + [line])
    return "\n".join(lines) + "\n"
