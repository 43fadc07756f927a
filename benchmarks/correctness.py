"""Claims settings_without_effect, search_wrong_codes, accumulate_difference: settings, nearest
codes, parts of a batch.

    python benchmarks/correctness.py [--quick] [--seed 0] [--json FILE]

Settings: of every family, alone and inside of every composite, and of every composite itself, each
setting is changed in turn. It has an effect if codes, loss, gradients or state differ after three
training steps, or if it is refused; what is left is counted. So are settings of all other sections
that change nothing in how files are read, a short training or a coder, and those that are refused
and would: alone, and beside every other word, switch and kind of section. Search: codes of
`nearest` against all distances in float64, with means of 0 to 1e5 and deviation 0.1, clusters,
cosine codebooks included. A code is wrong where its distance exceeds the smallest by more than 8
roundings of float32, relative to the squared distances of token and code from the middle of the
codebook.
Accumulate: of every subject a small autoencoder takes one training step on a batch of 10, as a
whole and in 3 and 4 parts of unequal size. accumulate_difference is the largest difference of a
loss, a gradient or a state, relative to the largest value of its tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np
from bench.claims import Claim, machine, options, report

PARSER = options(__doc__)

STEPS = 3
# Images of a batch, and parts of it for accumulation: neither divides it.
BATCH = 10
PARTS = (3, 4)
# Another value for settings whose type suggests none, or whose double acts only after many steps.
OTHERS = {
    "levels": (5, 3),
    "codebook_size": 24,
    "code_dim": 6,
    "decay": 0.01,
    "revive_threshold": 0.9,
    "quantizer_dropout": 1.0,
    "rate": 0.5,
    "neighbourhood": 2.0,
    "neighbourhood_steps": 2,
    "temperature_steps": 2,
    "kmeans_iterations": 1,
    "grid_dims": 1,
}
# Settings beside which others act.
VARIANTS = {
    "vq": [
        {},
        {"estimator": "gumbel"},
        {"estimator": "rotation"},
        {"neighbourhood": 3.0},
        {"update": "gradient"},
        {"update": "gradient", "revive_threshold": 0.0},
        {"rate": 0.2},
        {"distance": "cosine"},
    ],
    "gaussian_codebook": [{}, {"layout": "draws"}],
}


def families() -> Iterator[dict]:
    """Every family that composites take, small, in each of its variants, as plain settings."""
    from vqkit.config.quantizers import FAMILIES

    for section in FAMILIES:
        kind = section.model_fields["kind"].default
        size = {"codebook_size": 16} if kind in ("vq", "simvq") else {}
        for variant in VARIANTS.get(kind, [{}]):
            yield {"kind": kind, **size, **variant}


def subjects() -> Iterator[dict]:
    """Every quantizer whose settings are changed, as plain settings."""
    yield {"kind": "none"}
    for inner in families():
        yield inner
        yield {"kind": "residual", "num_stages": 2, "stage": inner}
        yield {"kind": "product", "num_groups": 2, "group": inner}
        yield {"kind": "hierarchical", "latent_dim": 8, "top": inner, "bottom": inner}
        yield {"kind": "pyramid", "num_grids": 2, "stage": inner}
    row = {
        "kind": "residual",
        "num_stages": 2,
        "stage": {"kind": "vq", "codebook_size": 16, "code_dim": 8},
    }
    yield {**row, "num_stages": 1}
    yield {"kind": "product", "num_groups": 1, "group": {"kind": "vq", "codebook_size": 16}}
    yield {"kind": "product", "num_groups": 2, "group": row}
    yield {"kind": "hierarchical", "latent_dim": 8, "top": row, "bottom": row}


def changes(tree: dict) -> Iterator[tuple[str, dict]]:
    """Every setting of the tree at any depth, and the tree with another value for it."""
    from vqkit.config import from_tree
    from vqkit.config.base import Section
    from vqkit.settings import Config

    section = from_tree({"model": {"quantizer": tree}}, "settings", Config).model.quantizer

    def walk(section: Section, tree: dict, path: str) -> Iterator[tuple[str, dict]]:
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, Section):
                inner = tree.get(name, {"kind": value.kind})
                for where, changed in walk(value, inner, f"{path}{name}."):
                    yield where, {**tree, name: changed}
            elif name != "kind":
                for other in _others(name, value, field.annotation):
                    yield f"{path}{name}={other}", {**tree, name: other}

    yield from walk(section, tree, "")


def _others(name: str, value: object, annotation: object) -> list[object]:
    """Other values of one setting: every other word or switch, or another number."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [word for word in get_args(annotation) if word != value]
    if name == "latent_dim":
        return [10 if value != 10 else 12]
    if name in OTHERS and OTHERS[name] != value:
        return [OTHERS[name]]
    return [value * 2]


def chosen(tree: dict):
    """The settings of a quantizer, as those that users set. VqkitError where one has no effect."""
    from vqkit.config import from_tree
    from vqkit.config.conditions import idle_settings, refuse_idle
    from vqkit.settings import Config

    config = from_tree({"model": {"quantizer": tree}}, "settings", Config)
    refuse_idle(idle_settings(config), "settings")
    return config.model.quantizer


def result(tree: dict, seed: int = 0) -> list[np.ndarray] | None:
    """Codes, losses, gradients and state after a few training steps; None where the settings are
    refused.
    """
    import torch

    from vqkit.errors import VqkitError
    from vqkit.model.quantizers import build_quantizer

    torch.manual_seed(seed)
    try:
        quantizer = build_quantizer(chosen(tree))
        side = 8 * quantizer.grid_multiple // 2
        latents = torch.randn(4, 64, side, side, generator=torch.Generator().manual_seed(seed))
        found = []
        for step in range(STEPS):
            latents = latents[:, : quantizer.latent_dim].detach().requires_grad_()
            made = quantizer(latents, torch.Generator().manual_seed(step))
            (made.loss + made.quantized.square().mean()).backward()
            found += [made.codes, made.loss, latents.grad, made.quantized]
    except (VqkitError, ValueError):
        return None
    found += list(quantizer.state_dict().values())
    return [np.asarray(value.detach()) for value in found]


def settings_without_effect(seed: int = 0, quick: bool = False) -> list[str]:
    """Settings that neither change the result nor are refused, with what they were tried beside."""
    from bench import effects

    idle = list(effects.faults(quick))
    for tree in subjects():
        before = result(tree, seed)
        if before is None:
            raise SystemExit(f"these settings are refused: {tree}")
        for name, changed in changes(tree):
            after = result(changed, seed)
            if after is not None and _same(before, after):
                idle.append(f"{name} of {tree}")
    return idle


def _same(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    return len(before) == len(after) and all(map(np.array_equal, before, after))


# ------------------------------------------------------------------------------------------- search


def wrong_codes(tokens, codebook) -> int:
    """Codes of `nearest` that are further away than the nearest in float64, ties of rounding left
    out.
    """
    from vqkit.model.quantizers.search import nearest

    found = nearest(tokens, codebook).numpy()
    tokens = tokens.double().numpy()
    codebook = codebook.double().numpy()
    middle = codebook.mean(0)
    from_middle = np.square(codebook - middle).sum(1)
    wrong = 0
    for token, code in zip(tokens, found, strict=True):
        distances = np.square(token - codebook).sum(1)
        rounding = (
            8 * np.finfo(np.float32).eps * (np.square(token - middle).sum() + from_middle[code])
        )
        wrong += int(distances[code] - distances.min() > rounding)
    return wrong


def search_cases(seed: int, quick: bool = False) -> Iterator[tuple[str, object, object]]:
    """Names, tokens and codebooks: every mean in every size."""
    import torch
    from torch.nn import functional as F

    for codes, width in ((512, 64), (2048, 16)) if quick else ((512, 64), (16384, 8), (65536, 16)):
        for mean in (0.0, 1.0, 10.0, 100.0, 1000.0, 1e5):
            source = torch.Generator().manual_seed(seed)
            tokens = mean + 0.1 * torch.randn(300, width, generator=source)
            codebook = mean + 0.1 * torch.randn(codes, width, generator=source)
            yield f"{codes}x{width} at {mean:g}", tokens, codebook
            if mean:
                yield (
                    f"{codes}x{width} cosine at {mean:g}",
                    F.normalize(tokens, dim=1),
                    F.normalize(codebook, dim=1),
                )


# ------------------------------------------------------------------------------------- accumulation


def step(tree: dict, parts: int, seed: int) -> dict[str, np.ndarray] | None:
    """Losses, gradients and state after one step with `train.accumulate=parts`; None where settings
    are refused.
    """
    import torch

    from vqkit.artifact.build import build_model
    from vqkit.config import from_tree
    from vqkit.data.normalisation import Normalisation
    from vqkit.errors import VqkitError
    from vqkit.settings import Config
    from vqkit.shapes import Shape

    network = {"kind": "patch", "width": 16, "encoder_blocks": 1, "decoder_blocks": 1}
    config = from_tree({"model": {"quantizer": tree, "network": network}}, "settings", Config)
    torch.manual_seed(seed)
    try:
        model = build_model(config, Shape(3, (16, 16)), Normalisation((0.0,) * 3, (1.0,) * 3))
    except VqkitError:
        return None
    x = torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    terms = model(x, torch.Generator().manual_seed(seed), parts=parts).terms
    torch.stack(list(terms.values())).sum().backward()
    found = {f"loss {name}": term.detach() for name, term in terms.items()}
    found |= {
        f"gradient {name}": one.grad
        for name, one in model.named_parameters()
        if one.grad is not None
    }
    found |= {f"state {name}": one for name, one in model.state_dict().items()}
    return {name: np.asarray(value.detach().double()) for name, value in found.items()}


def accumulate_differences(seed: int, quick: bool = False) -> dict[str, float]:
    """The largest relative difference of each subject, by its settings."""
    found = {}
    for tree in subjects():
        whole = step(tree, 1, seed)
        if whole is None:
            continue
        differences = [0.0]
        for parts in (4,) if quick else PARTS:
            divided = step(tree, parts, seed)
            assert divided is not None and divided.keys() == whole.keys()
            differences += [_difference(value, divided[name]) for name, value in whole.items()]
        found[str(tree)] = max(differences)
    return found


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if not one.size:
        return 0.0
    return float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-3))


def main() -> None:
    arguments = PARSER.parse_args()
    idle = settings_without_effect(arguments.seed, arguments.quick)
    wrong = {
        name: wrong_codes(*case) for name, *case in search_cases(arguments.seed, arguments.quick)
    }
    for name in idle:
        print(f"without effect: {name}")
    parts = accumulate_differences(arguments.seed, arguments.quick)
    worst = max(parts, key=parts.__getitem__)
    print(f"accumulation differs most for {worst}: {parts[worst]:.2e}")
    settings = machine()
    accumulated = settings | {"subjects": parts}
    report(
        [
            Claim(
                "settings_without_effect",
                len(idle),
                "settings",
                "== 0",
                None,
                settings | {"settings": idle},
            ),
            Claim(
                "search_wrong_codes",
                sum(wrong.values()),
                "codes",
                "== 0",
                "float64",
                settings | {"cases": wrong},
            ),
            Claim(
                "accumulate_difference",
                parts[worst],
                "relative",
                "<= 1e-6",
                "one batch",
                accumulated,
            ),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
