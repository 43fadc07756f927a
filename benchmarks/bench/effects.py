"""What a setting changes: every setting of a schema, other values for it, and what a tiny run with
it gives.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow
import torch
from PIL import Image
from pyarrow import parquet
from torch import nn

from vqkit.artifact.build import build_model
from vqkit.artifact.halves import BytesHalf, CodedHalf
from vqkit.artifact.model import Model
from vqkit.artifact.pair import Pairs
from vqkit.artifact.record import Artifact
from vqkit.artifact.tokenizer import Tokenizer
from vqkit.config import from_tree
from vqkit.config.base import Root, Section
from vqkit.config.conditions import idle_settings
from vqkit.config.loading import TAGS, with_overrides
from vqkit.errors import VqkitError
from vqkit.settings import Config, PairConfig, PriorConfig
from vqkit.signals.registry import signal_of
from vqkit.training.loop import fit
from vqkit.training.progress import Silent
from vqkit.training.tasks.autoencoder import AutoencoderTask
from vqkit.training.tasks.code_coder import CodeCoderTask
from vqkit.training.tasks.pair import PairTask
from vqkit.training.tasks.prior import PriorTask

TRAIN = [
    "train.steps=3",
    "train.batch_size=8",
    "train.validate_every=1",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.precision=float32",
    "train.lr=0.1",
]
# A prior as small as can be.
TINY_PRIOR = [
    *TRAIN,
    "train.lr=0.01",
    "network.width=16",
    "network.num_heads=2",
    "network.num_blocks=1",
]
# Schemas whose settings are looked at.
ROOTS: tuple[type[Root], ...] = (Config, PriorConfig, PairConfig)
# Runs that are as short as can be, and still show what every setting does.
SHORT: dict[type[Root], list[str]] = {
    Config: [
        *TRAIN,
        "data.image_size=[16,16]",
        "data.max_memory_mb=1",
        "data.validation=0.1",
        "model.network.width=16",
        "model.network.encoder_blocks=1",
        "model.network.decoder_blocks=0",
        "model.quantizer.codebook_size=16",
        "coder.steps=1",
    ],
    PriorConfig: [*TINY_PRIOR, "condition=caption"],
    # Texts of the items are as long, so that a length of four cuts them.
    PairConfig: [*TINY_PRIOR, "network.caption_bytes=8"],
}
# What else must be set for settings of a section, or one of them, to show what they do in a run
# that short: a set larger than the memory that it may have, a codebook that collapses.
NEEDS: dict[tuple[type[Root], str], list[str]] = {
    (Config, "train.guard"): [
        "train.steps=41",
        "train.batch_size=32",
        "train.validate_every=100",
        "train.log_every=100",
        "losses.commitment=10",
        "model.quantizer.codebook_size=64",
        "model.quantizer.update=gradient",
        "model.quantizer.kmeans_iterations=0",
        "model.quantizer.revive_threshold=0",
    ],
    (Config, "data"): ["data.image_size=[96,96]"],
    # Codes with others around them, whatever the network.
    (Config, "coder"): ["data.image_size=[32,32]"],
    (Config, "data.max_memory_mb"): ["data.image_size=[180,180]"],
    (Config, "data.num_workers"): ["data.image_size=[180,180]"],
    # Patches that there are many of, also of an image at half its size.
    (Config, "data.num_scales"): ["data.image_size=[8,8]"],
    (Config, "data.max_flat"): ["data.image_size=[8,8]"],
    (Config, "train.patience"): ["train.lr=10"],
    (PriorConfig, "train.patience"): ["train.lr=10"],
    (PairConfig, "train.patience"): ["train.lr=10"],
}
# What must be set with others for both to show what they do in a run that short: a stage whose
# decoder learns.
BESIDE = {
    "adversary.kind=patch": [
        "train.steps=32",
        "train.batch_size=32",
        "adversary.alone=8",
        "adversary.ramp=4",
        "adversary.lr=0.005",
    ],
}
# What acts on sets that are larger than memory; the arrays here are not.
STREAMED = {"data.max_memory_mb", "data.num_workers"}
# The place of events in what a fit gives.
EVENTS = 1
# Figures that differ from run to run.
TIMES = ("seconds", "per_second", "memory_mb")


# --------------------------------------------------------------------------------------- the schema


def settings(section: Section, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, value and type of every setting, at any depth."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from settings(value, f"{at}{name}.")
        elif name not in TAGS or len(_words(field.annotation)) > 1:
            yield f"{at}{name}", value, field.annotation


def kinds(section: Section, at: str = "") -> Iterator[tuple[str, str]]:
    """Key and name of every other section that could be in the place of one: model.network.kind,
    conv.
    """
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            for member in _members(field.annotation):
                for tag in TAGS:
                    if tag in member.model_fields and not isinstance(value, member):
                        yield f"{at}{name}.{tag}", member.model_fields[tag].default
            yield from kinds(value, f"{at}{name}.")


def _members(annotation: Any) -> Iterator[type[Section]]:
    """The classes of a union of sections, and of unions in it; without those of other signals than
    images, of which the sets here are.
    """
    for one in get_args(annotation):
        if isinstance(one, type) and issubclass(one, Section):
            if ".signals." not in one.__module__ or ".signals.image." in one.__module__:
                yield one
        else:
            yield from _members(one)


def others(value: Any, annotation: Any) -> list[Any]:
    """Values that a setting could have instead; some may be out of its range."""
    words = [word for word in _words(annotation) if word != value]
    if words:
        return words
    match value:
        case bool():
            return [not value]
        case int():
            return [2 * value, value + 1, value // 2, 0, 4]
        case float():
            return [2 * value, value / 2, 0.5, 0.01 * value, 0.0]
        case tuple():
            return [[each // 2 if isinstance(each, int) else each / 2 for each in value]]
        case dict():
            return [{"flip": True}]
    return [1000, 1, 2, 1e-6, [0, 100], [12, 12]]


def _words(annotation: Any) -> list[Any]:
    """The members of the literals that a type is made of."""
    members = get_args(annotation)
    return [
        word
        for member in members
        for word in (_words(member) if get_args(member) else [member])
        if isinstance(word, str | int)
    ]


def changed(config: Root, key: str, value: Any) -> Root | None:
    """The settings with another value, whether it has an effect or not; None where it is none that
    the setting may have.
    """
    tree = holder = config.model_dump(mode="json")
    *parents, last = key.split(".")
    try:
        for parent in parents:
            if isinstance(holder[parent], float):
                # The short form of a weight.
                holder[parent] = {"peak": holder[parent]}
            holder = holder[parent]
        holder[last] = value
        return from_tree(tree, "settings", type(config))
    except (VqkitError, TypeError):
        return None


def variants(config: Root, key: str) -> list[Root]:
    """The settings with each other value for one of them."""
    found = {at: (value, annotation) for at, value, annotation in settings(config)}
    tried = (changed(config, key, value) for value in others(*found[key]))
    return [one for one in tried if one is not None and one != config]


def is_idle(config: Root, key: str) -> bool:
    """Whether a setting is refused because it has no effect beside the others."""
    return any(f"{key}.".startswith(f"{one.key}.") for one in idle_settings(config))


class Condition(NamedTuple):
    """A condition as it stands: whose it is, where, of which settings, and whether it holds."""

    section: type[Section]
    at: str
    names: tuple[str, ...]
    holds: bool


def conditions(section: Section, at: str = "") -> Iterator[Condition]:
    """Every condition of a section and those in it."""
    for one in section.conditions:
        yield Condition(type(section), at, one.names, one.holds(section))
    for name, value in section:
        if isinstance(value, Section):
            yield from conditions(value, f"{at}{name}.")


def idle_keys(config: Root) -> set[str]:
    """Settings of which another value would be refused for having no effect."""
    failed = {
        f"{one.at}{name}." for one in conditions(config) if not one.holds for name in one.names
    }
    return {
        key for key, _, _ in settings(config) if any(f"{key}.".startswith(name) for name in failed)
    }


# ------------------------------------------------------------------------------------ what it does


@cache
def folder() -> Path:
    """Files of every sort that settings of data are about."""
    root = Path(tempfile.mkdtemp())
    source = np.random.default_rng(0)
    few = source.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.save(root / "few.npy", few)
    np.save(root / "unclear.npy", few[:16, :, :, 0])
    np.savez_compressed(root / "packed.npz", few)
    mixed = root / "mixed"
    mixed.mkdir()
    for number in range(12):
        smooth = Image.fromarray(source.integers(0, 256, (4, 6, 4), dtype=np.uint8), "RGBA")
        image = smooth.resize((120 + number, 100), Image.Resampling.BICUBIC)
        image.save(mixed / f"{number}.png")
        image.resize((115, 97)).save(mixed / f"{number}-again.png")
        wide = source.integers(1000, 3000, (100, 110)).astype(np.uint16)
        Image.fromarray(wide).save(mixed / f"{number}-wide.png")
    half_flat = source.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    half_flat[:50] = 200
    Image.fromarray(half_flat).save(mixed / "half-flat.png")
    frames = [Image.fromarray(one).resize((100, 100)) for one in few[:6]]
    frames[0].save(mixed / "moving.gif", save_all=True, append_images=frames[1:])
    rows = [path.read_bytes() for path in sorted(mixed.glob("*-again.png"))]
    parquet.write_table(pyarrow.table({"image": rows}), root / "table.parquet", row_group_size=2)
    return root


def data_result(config: Config) -> list[Any]:
    """How files are read, split and changed, and by how many processes."""
    found: list[Any] = []
    for name in ("mixed", "unclear.npy", "packed.npz", "table.parquet"):
        try:
            data = signal_of(config.data).open(folder() / name, config.data, config.seed)
            batches = data.train(0, 6, config.seed)
            batch = next(batches)
            found += [name, data.splits, data.in_memory, data.describe(), batch]
            found.append(len(multiprocessing.active_children()))
            batches.close()
        except VqkitError as error:
            found.append(str(error))
    return found


class _Watch(Silent):
    """Notes which checkpoints there are after every step."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.seen: list[list[str]] = []

    def update(self, progress: float, row: Any) -> None:
        self.seen.append(sorted(path.name for path in self.work.glob("checkpoint/*")))


def fit_result(task: Any) -> list[Any]:
    """Figures, events, checkpoints and weights of a fit, and the calls that its networks got."""
    calls: dict[str, int] = {}

    def count(module: Any, inputs: Any, output: Any) -> None:
        name = f"{type(module).__name__} {module._compiled_call_impl is not None}"
        calls[name] = calls.get(name, 0) + 1

    hook = nn.modules.module.register_module_forward_hook(count)
    # Whether networks would be compiled is what is asked here, and compiling takes long.
    before, torch._dynamo.config.disable = torch._dynamo.config.disable, True
    try:
        with tempfile.TemporaryDirectory() as name:
            watch = _Watch(Path(name))
            finished = fit(task, Path(name), watch)
    finally:
        hook.remove()
        torch._dynamo.config.disable = before
    assert finished is not None
    figures = [finished.figures, *finished.history]
    kept = [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in figures]
    # To say that a setting does nothing is no effect.
    events = [event for event in finished.events if "does nothing" not in event["message"]]
    beside = finished.beside.state_dict() if finished.beside else None
    return [kept, events, finished.model.state_dict(), beside, watch.seen, calls]


def train_result(config: Config) -> list[Any]:
    """What a short training of an autoencoder gives."""
    signal = signal_of(config.data)
    data = signal.open(folder() / "few.npy", config.data, config.seed)
    return fit_result(AutoencoderTask(data, config, signal))


def coder_result(config: Config) -> list[Any]:
    """What fitting the coders of an untrained model gives, as far as its settings say how."""
    data = signal_of(config.data).open(folder() / "few.npy", config.data, config.seed)
    torch.manual_seed(0)
    network = build_model(config, data.shape, data.normalisation).eval()
    tokenizer = Tokenizer(Artifact(config, network, data.describe()), "cpu")
    if network.quantizer.codebooks_per_section > 1 or CodeCoderTask.why_not(tokenizer):
        return [config.coder.steps]
    # Without steps in training, `vqkit train-coder --steps N` fits it afterwards.
    task = CodeCoderTask(tokenizer, data, config.coder.steps or 1)
    return [config.coder.steps, fit_result(task)]


@cache
def _tokenized() -> tuple[Artifact, Any]:
    """An untrained model with two codebooks, and items with captions and classes."""
    config = with_overrides(
        Config(),
        [
            *SHORT[Config],
            "model.quantizer={kind: residual, num_stages: 2, stage: {kind: vq, codebook_size: 8}}",
        ],
    )
    data = signal_of(config.data).open(folder() / "few.npy", config.data, config.seed)
    data.captions = [f"item {number}" for number in range(len(data))]
    data.groups = [f"class {number % 3}" for number in range(len(data))]
    torch.manual_seed(0)
    network = build_model(config, data.shape, data.normalisation).eval()
    return Artifact(config, network, data.describe()), data


def prior_result(config: PriorConfig) -> list[Any]:
    """What a short training of a prior gives."""
    artifact, data = _tokenized()
    return fit_result(PriorTask(artifact, data, config))


def pair_result(config: PairConfig) -> list[Any]:
    """What a short training of a prior over pairs gives."""
    artifact, data = _tokenized()
    text = BytesHalf(config.network.caption_bytes)
    partners = text.encode(data.captions).codes.int()
    halves = (CodedHalf(Model(artifact, "cpu")), text)
    return fit_result(PairTask(Pairs(data, halves, 0, partners), config))


# What a section's settings have their part in; those of the others have it in training.
RESULTS: dict[str, Callable[[Any], list[Any]]] = {"data": data_result, "coder": coder_result}
OF_ROOT: dict[type[Root], Callable[[Any], list[Any]]] = {
    Config: train_result,
    PriorConfig: prior_result,
    PairConfig: pair_result,
}
_known: dict[str, list[Any] | None] = {}


def result(config: Root, key: str) -> list[Any] | None:
    """What is made with the settings where one of them has its part; None where they are
    refused.
    """
    make = RESULTS.get(key.split(".")[0], OF_ROOT[type(config)])
    name = f"{make.__name__} {config.model_dump_json()}"
    if name not in _known:
        try:
            _known[name] = make(config)
        except VqkitError:
            _known[name] = None
    return _known[name]


def same(one: Any, two: Any) -> bool:
    """Whether two results are equal, to the bit."""
    if type(one) is not type(two):
        return False
    match one:
        case torch.Tensor():
            return torch.equal(one, two)
        case np.ndarray():
            return np.array_equal(one, two)
        case dict():
            return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
        case list() | tuple():
            return len(one) == len(two) and all(map(same, one, two))
    return one == two


# --------------------------------------------------------------------------------------- the audit


def short(root: type[Root], key: str, context: Sequence[str] = ()) -> Any:
    """The settings of a short run in which a setting can show what it does.

    context: settings beside the usual ones.
    """
    needs = [*NEEDS.get((root, key.split(".")[0]), []), *NEEDS.get((root, key), [])]
    return with_overrides(with_overrides(root(), [*SHORT[root], *needs]), context)


def fault(root: type[Root], key: str, context: Sequence[str] = ()) -> str | None:
    """What is wrong with a setting beside others: None when another value for it changes the result
    or is refused, and when no value is refused that would change it.

    Where the others are refused themselves, or beside what the setting needs, there is nothing to
    compare, and nothing wrong; nor for a guard that sees nothing to guard against.
    """
    try:
        config = short(root, key, context)
    except VqkitError:
        if not context:
            raise
        return None
    before = result(config, key)
    if before is None:
        return None
    if key == "train.guard" and context:
        if not any("remedy" in event["message"] for event in before[EVENTS]):
            return None
    for one in variants(config, key):
        differs = not same(before, result(one, key))
        if is_idle(one, key) and differs:
            return f"{key} is refused beside {context}, and acts"
        if is_idle(one, key) or differs:
            return None
    return f"{key} has no effect beside {context}"


def faults(quick: bool = False) -> Iterator[str]:
    """What is wrong with any setting, alone and beside each of `contexts`.

    quick: beside others only settings whose condition they turn. How far it is goes to standard
    error, with the time.
    """
    pairs = [(root, context) for root in ROOTS for context in ([], *contexts(root))]
    began = time.perf_counter()
    for number, (root, context) in enumerate(pairs, 1):
        keys = turned(root, context) if quick and context else audited(root, context)
        yield from filter(None, (fault(root, key, context) for key in keys))
        seconds = time.perf_counter() - began
        print(f"{number} of {len(pairs)}, {seconds:.0f} s: {context}", file=sys.stderr, flush=True)


def audited(root: type[Root], context: Sequence[str] = ()) -> list[str]:
    """Settings to look at beside others; those of quantizers have an audit of their own."""
    set_here = {one.partition("=")[0] for one in context}
    if "data.layout" in set_here:
        set_here |= STREAMED
    return [
        key
        for key, _, _ in settings(short(root, "", context))
        if not key.startswith("model.quantizer.") and key not in set_here
    ]


def contexts(root: type[Root]) -> Iterator[list[str]]:
    """What settings may have beside them: every other word, switch and kind of section, one for
    zero and zero for what is not, each alone.
    """
    config = short(root, "")
    for key, kind in kinds(config):
        context = f"{key}={kind}"
        yield [context, *BESIDE.get(context, [])]
    for key, value, annotation in settings(config):
        for other in _switched(value, annotation):
            one = changed(config, key, other)
            if one is not None and key not in idle_keys(one):
                yield [f"{key}={other}"]


def turned(root: type[Root], context: Sequence[str]) -> list[str]:
    """Settings that are refused without the context and act with it, or the other way round."""
    before = idle_keys(short(root, ""))
    config = short(root, "", context)
    after = idle_keys(config)
    known = {key for key, _, _ in settings(short(root, ""))}
    there = {key for key, _, _ in settings(config)}
    differ = (before ^ after) & known & there
    return [key for key in audited(root, context) if key in differ]


def _switched(value: Any, annotation: Any) -> list[Any]:
    if _words(annotation) or isinstance(value, bool):
        return others(value, annotation)
    if isinstance(value, int | float):
        return [0] if value else [1]
    return []
