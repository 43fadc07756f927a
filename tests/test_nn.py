"""Layers for other people's networks: shapes, types, loops and weights."""

from __future__ import annotations

import copy
import doctest
import inspect
import io
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
import vector_quantize_pytorch as theirs
from torch import nn

import vqkit.nn as layers
from vqkit.config import quantizers as settings
from vqkit.errors import VqkitError
from vqkit.nn import (
    BSQ,
    FSQ,
    LFQ,
    Codebook,
    GaussianCodebook,
    HierarchicalVQ,
    ProductVQ,
    PyramidVQ,
    QuantizerLayer,
    ResidualVQ,
    ScalarQuantizer,
    SimVQ,
    VectorQuantizer,
    load_vector_quantize_pytorch,
)

from .processes import run_ranks

DIM = 12
# Every class, with projections and without where it has both, by what it is called with.
MAKERS = {
    "vq": lambda **also: VectorQuantizer(DIM, 32, **also),
    "vq projected": lambda **also: VectorQuantizer(DIM, 32, code_dim=4, **also),
    "vq cosine": lambda **also: VectorQuantizer(DIM, 32, distance="cosine", **also),
    "vq gradient": lambda **also: VectorQuantizer(DIM, 32, update="gradient", **also),
    "simvq": lambda **also: SimVQ(DIM, 32, **also),
    "fsq": lambda **also: FSQ(DIM, (8, 5, 5), **also),
    "lfq": lambda **also: LFQ(DIM, 6, **also),
    "bsq": lambda **also: BSQ(DIM, DIM, **also),
    "gaussian": lambda **also: GaussianCodebook(DIM, (4, 4, 4), **also),
    "scalar": lambda **also: ScalarQuantizer(DIM, **also),
    "residual": lambda **also: ResidualVQ(DIM, 3, 32, **also),
    "residual fsq": lambda **also: ResidualVQ(DIM, 3, stage=FSQ(3, (5, 5, 5)), **also),
    "product": lambda **also: ProductVQ(DIM, 3, 32, **also),
    "product residual": lambda **also: ProductVQ(DIM, 2, group=ResidualVQ(4, 2, 16), **also),
    "hierarchical": lambda **also: HierarchicalVQ(DIM, 16, code_dim=4, **also),
    "pyramid": lambda **also: PyramidVQ(DIM, 2, 16, **also),
    "given": lambda **also: Codebook(normal(32, DIM, seed=9), **also),
}
# Those that take a grid of two dimensions alone.
GRIDS = ("hierarchical", "pyramid")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(name: str, **also) -> QuantizerLayer:
    torch.manual_seed(1)
    return MAKERS[name](**also)


@pytest.fixture(params=MAKERS)
def name(request) -> str:
    return request.param


def trained(name: str, **also) -> QuantizerLayer:
    layer = made(name, **also).train()
    x = normal(2, 6, 8, DIM)
    layer(
        x.movedim(-1, 1) if layer.channel_first else x, generator=torch.Generator().manual_seed(2)
    )
    return layer.eval()


# ------------------------------------------------------------------------------------ what is given


def test_the_code_of_the_guide_to_layers_runs():
    page = Path(__file__).parents[1] / "docs" / "layers.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    # Of random weights one set in sixty has two codes equally near to a token, up to rounding.
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, str(page), "exec"), {})


def test_every_class_has_an_example_that_is_so():
    classes = [getattr(layers, name) for name in layers.__all__]
    classes = [one for one in classes if inspect.isclass(one)]
    ours = [one for one in classes if issubclass(one, QuantizerLayer) and one is not QuantizerLayer]
    assert len(ours) == 12
    for one in ours:
        assert ">>>" in (one.__doc__ or ""), one
    modules = {sys.modules[one.__module__] for one in ours}
    results = [doctest.testmod(module, extraglobs={"torch": torch}) for module in modules]
    assert sum(one.failed for one in results) == 0
    assert sum(one.attempted for one in results) > 20


@pytest.mark.parametrize(
    ("layer", "section"),
    [
        (VectorQuantizer, settings.VQConfig),
        (SimVQ, settings.SimVQConfig),
        (FSQ, settings.FSQConfig),
        (LFQ, settings.LFQConfig),
        (BSQ, settings.BSQConfig),
        (GaussianCodebook, settings.GaussianCodebookConfig),
        (ScalarQuantizer, settings.ScalarConfig),
        (ResidualVQ, settings.ResidualConfig),
        (ProductVQ, settings.ProductConfig),
        (HierarchicalVQ, settings.HierarchicalConfig),
        (PyramidVQ, settings.PyramidConfig),
    ],
)
def test_defaults_are_those_of_recipes(layer, section):
    """All settings of a section are there, by the same name, but those that follow from others."""
    given = inspect.signature(layer.__init__).parameters
    for key, field in section.model_fields.items():
        if key in ("kind", "latent_dim", "layout", "stage", "group", "top", "bottom"):
            continue
        if key in ("codebook_size", "code_dim") and layer is GaussianCodebook:
            continue
        assert key in given, key
        if given[key].default is not None:
            assert given[key].default == field.default, key
    # What is no setting would be left out without a word.
    others = {"self", "dim", "channel_first", "code_dim", "codebook_size"}
    assert set(given) <= {*section.model_fields, *others}


def test_settings_without_effect_are_refused():
    with pytest.raises(VqkitError, match=r"vqkit.nn.VectorQuantizer: temperature has no effect"):
        VectorQuantizer(8, 32, temperature=2.0)
    with pytest.raises(VqkitError, match="codebook_size"):
        VectorQuantizer(8, 1)
    with pytest.raises(VqkitError, match="no multiple"):
        ProductVQ(10, 3)
    with pytest.raises(VqkitError, match="cannot lie inside"):
        ResidualVQ(8, stage=HierarchicalVQ(8))
    with pytest.raises(ValueError, match="finite"):
        Codebook(torch.full((3, 4), torch.nan))


def test_codes_and_values_are_the_same_wherever_the_channels_are(name):
    last, first = trained(name), trained(name, channel_first=True)
    x = normal(2, 6, 8, DIM, seed=3)
    one, other = last(x), first(x.movedim(-1, 1))
    assert one.quantized.shape == x.shape
    assert torch.equal(one.quantized, other.quantized.movedim(1, -1))
    codes = other.codes if last.num_codebooks == 1 else other.codes.movedim(1, -1)
    assert torch.equal(one.codes, codes) and torch.equal(one.loss, other.loss)
    expected = [2, 6, 8] if name not in GRIDS else [2, 3, 4]
    assert list(one.codes.shape) == expected + [last.num_codebooks] * (last.num_codebooks > 1)
    assert torch.equal(last.encode(x), one.codes)
    assert torch.equal(last.decode(one.codes), one.quantized)
    assert torch.equal(first.decode(other.codes), other.quantized)


def test_padding_has_no_part_in_anything(name):
    layer = trained(name)
    x = normal(2, 6, 8, DIM, seed=3)
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    mask[1, :, 4:] = False
    before = layer(x, mask)
    after = layer(x.masked_fill(~mask[..., None], torch.nan), mask)
    assert torch.equal(before.codes, after.codes) and torch.equal(before.quantized, after.quantized)
    assert torch.equal(before.loss, after.loss) and bool(before.loss.isfinite())
    assert not before.quantized[~mask].any() and before.quantized[mask].any()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast_and_half_latents_change_no_arithmetic(name, kind):
    layer = trained(name)
    x = normal(2, 6, 8, DIM, seed=3).to(kind)
    wanted = layer(x.float())
    with torch.autocast("cpu", kind):
        found = layer(x)
    assert torch.equal(found.codes, wanted.codes) and torch.equal(found.loss, wanted.loss)
    assert found.quantized.dtype == kind
    assert torch.equal(found.quantized, wanted.quantized.to(kind))


def test_gradients_reach_the_latents(name):
    layer = made(name).train()
    x = normal(2, 6, 8, DIM).requires_grad_()
    out = layer(x, generator=torch.Generator().manual_seed(2))
    (out.loss + out.quantized.square().sum()).backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0) and bool(x.grad.isfinite().all())
    weights = layer.quantizer.default_weights
    wanted = sum(weights[name] * term.item() for name, term in out.terms.items())
    assert out.loss.item() == pytest.approx(wanted, rel=1e-5)


# --------------------------------------------------------------------------------- what loops do


def test_copies_and_saved_states_give_the_same_codes(name):
    layer = trained(name)
    x = normal(2, 6, 8, DIM, seed=3)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    loaded = made(name)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded.eval()):
        assert torch.equal(other(x).codes, layer(x).codes)
        assert torch.equal(other(x).quantized, layer(x).quantized)


def test_codes_do_not_depend_on_what_else_is_in_the_batch(name):
    layer = trained(name)
    x = normal(16, 6, 8, DIM, seed=3)
    whole = layer.encode(x)
    for row in (0, 7, 15):
        assert torch.equal(layer.encode(x[row : row + 1])[0], whole[row])


@pytest.mark.parametrize("training", [True, False])
def test_dynamo_traces_layers_without_a_break(name, training):
    layer = made(name)
    x = normal(2, 6, 8, DIM)
    layer.initialise(x)
    layer.train(training)
    wanted = copy.deepcopy(layer).encode(x)
    torch._dynamo.reset()
    found = torch.compile(layer, fullgraph=True, backend="eager")(x)
    if not training:
        assert torch.equal(found.codes, wanted)


def test_a_compiled_step_revives_the_codes_that_another_one_does():
    """More dead codes than tokens, and as many as there are; a graph has no branches for either."""
    for count in (4, 40):
        layer = VectorQuantizer(DIM, 32, kmeans_iterations=0, revive_threshold=0.9)
        layer.initialise(normal(1, 40, DIM))
        copied = copy.deepcopy(layer)
        before = layer.codebook.clone()
        torch._dynamo.reset()
        x = normal(1, count, DIM, seed=1)
        for step in (layer, torch.compile(copied, fullgraph=True, backend="eager")):
            torch.manual_seed(5)
            step(x)
        assert not torch.equal(layer.codebook, before)
        for part, value in layer.state_dict().items():
            assert torch.equal(value, copied.state_dict()[part]), part


def test_exported_layers_give_the_same_codes(name):
    layer = trained(name)
    x = normal(2, 6, 8, DIM, seed=3)

    class Encode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x):
            out = self.layer(x)
            return out.codes, out.quantized

    program = torch.export.export(Encode().eval(), (x,))
    codes, quantized = program.module()(x)
    assert torch.equal(codes, layer.encode(x)) and torch.equal(quantized, layer(x).quantized)


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'ranks'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_wrapped_layers_take_the_step_that_they_take_alone(kind, one_rank):
    x = normal(4, 8, DIM)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(DIM, DIM)
            self.quantizer = made("vq projected")

        def forward(self, x):
            out = self.quantizer(self.encoder(x))
            return out.loss + out.quantized.square().mean()

    def step(wrap) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = Network()
        wrapped = wrap(network)
        wrapped(x).backward()
        torch.optim.SGD(wrapped.parameters(), 0.1).step()
        state = network.state_dict().items()
        return {name: getattr(value, "full_tensor", lambda v=value: v)() for name, value in state}

    def sharded(network: nn.Module) -> nn.Module:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        return torch.distributed.fsdp.fully_shard(network, mesh=mesh)

    alone = step(lambda network: network)
    wrapped = step(nn.parallel.DistributedDataParallel if kind == "ddp" else sharded)
    for name, value in alone.items():
        assert torch.equal(value, wrapped[name]), name


# One step of each rank on its part of a batch, and the states of all layers after it.
RANK = """
import sys, torch
from tests.test_nn import RANKED, DIM, Ranked, normal
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
wraps = {
    "ddp": lambda network: torch.nn.parallel.DistributedDataParallel(network),
    "fsdp2": lambda network: torch.distributed.fsdp.fully_shard(network, mesh=mesh),
}
x = normal(4, 8, DIM)[2 * rank : 2 * rank + 2]
found = {}
for kind, wrap in wraps.items():
    for name in RANKED:
        found[f"{kind} {name}"] = Ranked(name, x).step(x, wrap)
if rank == 0:
    torch.save(found, sys.argv[1])
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
# Layers in which a step draws no random numbers, of which every rank would draw its own.
RANKED = {
    "vq": lambda: VectorQuantizer(DIM, 16, code_dim=4, kmeans_iterations=0, revive_threshold=0.0),
    "vq gradient": lambda: VectorQuantizer(
        DIM, 16, update="gradient", kmeans_iterations=0, revive_threshold=0.0
    ),
    "simvq": lambda: SimVQ(DIM, 32, code_dim=4),
    "fsq": lambda: FSQ(DIM, (8, 5, 5)),
    "residual": lambda: ResidualVQ(
        DIM, 2, stage=VectorQuantizer(4, 16, kmeans_iterations=0, revive_threshold=0.0)
    ),
    "product": lambda: ProductVQ(
        DIM, 3, group=VectorQuantizer(4, 16, kmeans_iterations=0, revive_threshold=0.0)
    ),
}


class Ranked(nn.Module):
    """A small network around a layer, the same on every rank; x: the rank's part of a batch, from
    which codes are set.
    """

    def __init__(self, name: str, x: torch.Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(DIM, DIM)
        self.quantizer = RANKED[name]()
        # Before anything is sharded: a forward pass sees a copy of parameters that are.
        self.quantizer.initialise(x)

    def forward(self, x):
        out = self.quantizer(self.encoder(x))
        return out.loss + out.quantized.square().mean()

    def step(self, x, wrap) -> dict[str, torch.Tensor]:
        wrapped = wrap(self)
        wrapped(x).backward()
        torch.optim.SGD(wrapped.parameters(), 0.1).step()
        state = self.state_dict().items()
        return {name: getattr(value, "full_tensor", lambda v=value: v)() for name, value in state}


def test_two_ranks_take_the_step_that_one_takes_with_both_batches(tmp_path):
    for done in run_ranks(["-c", RANK, tmp_path / "states.pt"], 2):
        assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "states.pt", weights_only=True)
    assert len(found) == 2 * len(RANKED)
    for key, state in found.items():
        name = key.split(" ", 1)[1]
        x = normal(4, 8, DIM)
        before = Ranked(name, x).state_dict()
        alone = Ranked(name, x).step(x, lambda network: network)
        assert any(not torch.equal(value, before[part]) for part, value in alone.items()), key
        for part, value in alone.items():
            assert torch.allclose(state[part], value, rtol=1e-4, atol=1e-6), (key, part)


# ------------------------------------------------------------------------------- another's weights


def module_and_layer(name: str):
    torch.manual_seed(0)
    sizes = {"dim": DIM, "codebook_size": 32}
    pairs = {
        "vq": lambda: (theirs.VectorQuantize(**sizes, kmeans_init=True), VectorQuantizer(DIM, 32)),
        "projected": lambda: (
            theirs.VectorQuantize(**sizes, codebook_dim=4),
            VectorQuantizer(DIM, 32, code_dim=4),
        ),
        "cosine": lambda: (
            theirs.VectorQuantize(**sizes, use_cosine_sim=True),
            VectorQuantizer(DIM, 32, distance="cosine"),
        ),
        "learned": lambda: (
            theirs.VectorQuantize(**sizes, learnable_codebook=True, ema_update=False),
            VectorQuantizer(DIM, 32, update="gradient"),
        ),
        "heads": lambda: (
            theirs.VectorQuantize(
                **sizes, heads=2, codebook_dim=6, separate_codebook_per_head=True
            ),
            ProductVQ(DIM, 2, 32),
        ),
        "residual": lambda: (theirs.ResidualVQ(**sizes, num_quantizers=3), ResidualVQ(DIM, 3, 32)),
        "residual projected": lambda: (
            theirs.ResidualVQ(**sizes, num_quantizers=3, codebook_dim=4),
            ResidualVQ(DIM, 3, stage=VectorQuantizer(4, 32)),
        ),
        "simvq": lambda: (theirs.SimVQ(**sizes), SimVQ(DIM, 32)),
        "lfq": lambda: (theirs.LFQ(dim=DIM, codebook_size=64), LFQ(DIM, 6)),
    }
    return pairs[name]()


@pytest.mark.parametrize(
    "name",
    [
        "vq",
        "projected",
        "cosine",
        "learned",
        "heads",
        "residual",
        "residual projected",
        "simvq",
        "lfq",
    ],
)
def test_weights_of_vector_quantize_pytorch_give_its_codes(name):
    module, layer = module_and_layer(name)
    module.train()
    for seed in range(3):
        module(normal(4, 50, DIM, seed=seed))
    module.eval()
    load_vector_quantize_pytorch(layer, module.state_dict())
    x = normal(16, 100, DIM, seed=7)
    quantized, codes, *_ = module(x)
    found = layer.eval()(x)
    assert torch.equal(found.codes, codes.long())
    assert torch.allclose(found.quantized, quantized, atol=1e-6)
    # Training goes on from there, and does not begin anew. Dead codes would jump.
    before = found.codes
    for part in layer.quantizer.parts():
        part.revive_threshold = 0.0
    layer.train()(x)
    changed = (layer.eval()(x).codes != before).float().mean()
    assert changed < 0.2


def test_states_of_other_modules_are_refused():
    module, layer = module_and_layer("vq")
    state = module.state_dict()
    for wrong, said in (
        (VectorQuantizer(DIM, 64), r"the state has \(32, 12\) for codebook, .* \(64, 12\)"),
        (ResidualVQ(DIM, 2, 32), "no layers.0._codebook.embed"),
        (SimVQ(DIM, 32), "no frozen_codebook"),
        (FSQ(DIM), "no counterpart"),
        (LFQ(6, 6), "only with projections"),
    ):
        with pytest.raises(VqkitError, match=said):
            load_vector_quantize_pytorch(wrong, state)
    heads, _ = module_and_layer("heads")
    with pytest.raises(VqkitError, match=re.escape("2 heads")):
        load_vector_quantize_pytorch(layer, heads.state_dict())
