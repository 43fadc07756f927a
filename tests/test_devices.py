"""No tensor is made on the CPU for a model that may be elsewhere."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path

import pytest
import torch

import vqkit
from vqkit.config import LossConfig, PriorNetworkConfig
from vqkit.prior.layout import Layout
from vqkit.prior.network import PriorNetwork
from vqkit.settings import ModelConfig
from vqkit.signals.image.config import ConvConfig, MLPConfig, PatchConfig

from .model.quantizers.test_contract import KINDS
from .untrained import autoencoder

PACKAGE = Path(vqkit.__file__).parent
PARTS = ("model", "prior", "training", "apps", "artifact")
MAKERS = set(
    "zeros ones empty full tensor arange linspace rand randn randint randperm eye "
    "multinomial".split()
)


class Finder(ast.NodeVisitor):
    """Calls that make a tensor without a device, by the function that they stand in.

    Not those in constructors, whose tensors move with the module, nor those that go through .to()
    in the statement.
    """

    def __init__(self) -> None:
        self.where: list[str] = []
        self.found: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name != "__init__":
            self._inside(node)

    def _inside(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self.where.append(node.name)
        self.generic_visit(node)
        self.where.pop()

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt) and not isinstance(
            node, ast.ClassDef | ast.FunctionDef | ast.For | ast.With
        ):
            if any(
                isinstance(each, ast.Attribute) and each.attr == "to" for each in ast.walk(node)
            ):
                return
        super().visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        call = node.func
        is_torch = (
            isinstance(call, ast.Attribute)
            and isinstance(call.value, ast.Name)
            and call.value.id == "torch"
        )
        if (
            is_torch
            and call.attr in MAKERS
            and not any(keyword.arg == "device" for keyword in node.keywords)
        ):
            self.found.append(f"{'.'.join(self.where)}: {call.attr}")
        self.generic_visit(node)


# What is made on the CPU because it stays there, or is moved where it is used: functions by file,
# with the reason.
ON_THE_CPU: dict[str, tuple[str, set[str]]] = {
    "model/autoencoder.py": (
        "draws are those of a CPU, whatever decodes them",
        {"Autoencoder.sample_codes"},
    ),
    "model/cosine.py": ("for buffers and the first weights of networks", {"cosines"}),
    "model/order_free.py": ("exact arithmetic is that of a CPU", {""}),
    "model/quantizers/gaussian_codebook.py": ("for a buffer", {"equal_bins"}),
    "model/quantizers/base.py": ("figures for people, in float64", {"Bottleneck.bits"}),
    "artifact/scalar_search.py": (
        "numbers that are collected there, and draws that are moved",
        {"_Search._numbers", "_Search._squared_step"},
    ),
    "artifact/symbol_search.py": (
        "codes and what is known of them stay there, and candidates are moved",
        {
            "_Search.run",
            "_Search._try",
            "_Search._options",
            "_Search._compared",
            "_Search._around",
            "_Search._wrong_tiles",
        },
    ),
    "artifact/store.py": ("on the device that it was given", {"_Unfilled.__torch_function__"}),
    "prior/layout.py": (
        "orders of codes, which users move",
        {f"Layout.{name}" for name in "places rows columns inside slot_groups canonical".split()}
        | {"halton_order"},
    ),
    "prior/network.py": ("the start, before the network is moved", {"PriorNetwork.start_from"}),
    "prior/prior.py": (
        "codes, conditions and random numbers come and go on the CPU; the network moves its inputs",
        {f"Prior.{name}" for name in "condition sample complete _plan".split()}
        | {"caption_bytes", "uniform_numbers"},
    ),
    "prior/pairs.py": (
        "codes and random numbers come and go on the CPU; the network moves its inputs",
        {"PairPrior.draw", "PairPrior._draw_chunk"},
    ),
    "artifact/halves.py": ("bytes of text", {"BytesHalf.decode"}),
    "training/guard.py": (
        "fingerprints of codebooks are kept on the CPU",
        {"Guard._check_movement", "Guard._check_ranks", "fingerprint"},
    ),
    "training/loop.py": ("counts of validation, moved for their sum over ranks", {"Run.validate"}),
    "training/tasks/code_coder.py": (
        "the set of codes, and a network that is not yet moved",
        {"_codes", "_network"},
    ),
    "training/tasks/prior.py": (
        "labels of the data set; those of a batch are moved",
        {"Labels.of"},
    ),
    "training/tasks/value_coder.py": (
        "the set of values; those of a batch are moved",
        {"ValueCoderTask.validation_batches", "ValueCoderTask._drawn", "_Items.take"},
    ),
    "artifact/tokenizer.py": ("codes", {"Tokenizer._encoded_without_padding"}),
    "artifact/streaming.py": (
        "codes and values",
        {"EncodeStream._codes_until", "DecodeStream._values_until"},
    ),
    # Apps work on what a tokenizer gives back, which is on the CPU.
    "apps/check.py": ("codes and masks", {"_encode_padded", "_damaged"}),
    "apps/denoise.py": ("values", {"_hidden_errors", "_taking_out", "_neighbours"}),
    "apps/evaluate.py": ("counts and nats of codes", {"evaluate", "_code_nats"}),
    "apps/evaluate_prior.py": (
        "counts, and values",
        {"evaluate_prior", "_training_counts", "nearest_items", "_varied"},
    ),
    "apps/explain/atlas.py": (
        "counts of codes, and values",
        {f"Patches.{name}" for name in "means typical positions _cut".split()}
        | {"Shelf.row_of", "_neighbours"},
    ),
    "apps/explain/changes.py": (
        "codes, and ranks of items",
        {"_first_codes", "_swap", "changes_along", "surprise"},
    ),
    "apps/explain/cutouts.py": ("codes", {"_distances"}),
    "apps/explain/field.py": ("values", {"_energy"}),
    "apps/explain/labels.py": ("counts of codes", {"_matches", "_ridge_accuracy", "_shares"}),
    "apps/explain/sample.py": ("codes, values and masks", {"gather", "Sample.mask"}),
    "apps/inpaint.py": ("masks of values", {"outpaint", "_known_codes"}),
    "apps/interpolate.py": ("shares, and ranks of positions", {"interpolate", "_mixed"}),
    "apps/prune.py": (
        "counts of codes, and the network of the artifact",
        {"_counts", "_duplicates"},
    ),
    "apps/restyle.py": ("latents as a tokenizer gives them", {"_described", "shrunk_covariance"}),
    "apps/variations.py": ("codes", {"variations"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_tensors_are_made_on_a_device_or_are_known_to_stay_on_the_cpu(part):
    found = {}
    for file in sorted((PACKAGE / part).rglob("*.py")):
        finder = Finder()
        finder.visit(ast.parse(file.read_text(encoding="utf-8")))
        if finder.found:
            found[str(file.relative_to(PACKAGE))] = {
                each.partition(":")[0] for each in finder.found
            }
    assert found == {
        name: known for name, (_, known) in ON_THE_CPU.items() if name.startswith(f"{part}/")
    }


def test_the_audit_finds_what_it_looks_for():
    finder = Finder()
    finder.visit(
        ast.parse("def f(x):\n    y = torch.zeros(3)\n    z = torch.ones(3, device=x.device)\n")
    )
    assert finder.found == ["f: zeros"]


@pytest.fixture
def meta(monkeypatch) -> None:
    """The meta device knows no autocast: there it is off."""
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    def off_on_meta(device_type, *arguments, **options):
        if device_type == "meta":
            return contextlib.nullcontext()
        return autocast(device_type, *arguments, **options)

    monkeypatch.setattr(torch, "autocast", off_on_meta)
    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda device="cpu": device != "meta" and is_enabled(device)
    )


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_runs_where_there_is_no_data(kind):
    """On the meta device whatever mixes devices is an error."""
    model = (
        autoencoder(ModelConfig(network=PatchConfig(width=16), quantizer=KINDS[kind]))
        .eval()
        .to("meta")
    )
    x = torch.empty(2, 3, 20, 16, device="meta")
    output = model(x, target=x)
    assert output.reconstruction.shape == x.shape and output.codes.device.type == "meta"
    assert all(term.device.type == "meta" for term in output.terms.values())


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("network", [ConvConfig(width=16), MLPConfig(widths=(16,), grid=(4, 4))])
@pytest.mark.parametrize("distortion", ["log_mse", "logistic", "logistic_mixture"])
def test_every_network_and_distortion_runs_where_there_is_no_data(network, distortion):
    losses = LossConfig(distortion=distortion, transform=0.1, transform_distance="moments")
    model = (
        autoencoder(ModelConfig(network=network, variational=True), losses=losses, mean=(0.5,) * 3)
        .eval()
        .to("meta")
    )
    output = model(torch.empty(2, 3, 16, 16, device="meta"))
    assert all(term.device.type == "meta" for term in output.terms.values())


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(("num_classes", "has_captions"), [(3, False), (0, True)])
def test_a_prior_runs_where_there_is_no_data(num_classes, has_captions):
    """With one codebook: which codes are of which of several depends on data."""
    layout = Layout((4, 4), (5,), (0,))
    config = PriorNetworkConfig(width=16, num_heads=2, num_blocks=1, caption_bytes=8)
    network = PriorNetwork(config, layout, num_classes, has_captions).to("meta")
    codes = torch.empty(2, 16, dtype=torch.long, device="meta")
    order = layout.canonical[0].to("meta").expand(2, -1)
    classes = torch.empty(2, dtype=torch.long, device="meta") if num_classes else None
    captions = torch.empty(2, 8, dtype=torch.uint8, device="meta") if has_captions else None
    nats = network(codes, order, classes, captions)
    assert nats.shape == (2, 16) and nats.device.type == "meta"
