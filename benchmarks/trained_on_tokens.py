"""Claims tokens_bits, tokens_drawn and trained_on_tokens: a language model of nobody's own learns
from train.bin.

    python benchmarks/trained_on_tokens.py [--quick] [--seed 0] [--json FILE] [--out DIR]

The emoji go through `vqkit tokenize` and `vqkit tokens materialize --to bin16`. A small GPT in
plain PyTorch, which knows the number of ids and nothing else of vqkit, learns to predict the next
token from the memory map of uint16 that nanoGPT reads, an item a window, told the item's group
(smileys, animals, food, ...), which items.parquet has beside it. It then writes items from `bos`
on, each token among those that the manifest allows, and `vqkit tokens decode` shows them.

tokens_bits        bits a code on items that were held out, beside the entropy of single codes there
tokens_drawn       drawn items that decode, of all
trained_on_tokens  share of images that a classifier of EfficientNet-lite0 features, trained on real
                   emoji that have been through the model, puts into the group that was asked for:
                   one image for each item that was held out. Beside it groups shuffled, and the
                   held-out items themselves
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from bench.claims import Claim, machine, options, report
from bench.image_features import classify_features, lite0_features, train_feature_classifier
from torch import Tensor, nn
from torch.nn import functional as F

from vqkit import load
from vqkit.apps.evaluate import open_for

PARSER = options(__doc__)
PARSER.add_argument("--out", type=Path, metavar="DIR", help="keeps the images that were drawn")
DROPOUT = 0.1


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.LayerNorm(width)
        self.second = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        queries, keys, values = (
            part.view(shape).transpose(1, 2) for part in self.qkv(self.first(x)).chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.second(x))


class GPT(nn.Module):
    """Of tokens (B, L) and groups (B,), the logits of the tokens after them (B, L, ids)."""

    def __init__(
        self, num_ids: int, num_groups: int, length: int, width: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_ids, width)
        self.groups = nn.Embedding(num_groups, width)
        self.places = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        for embedding in (self.tokens, self.groups, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, groups: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        x = self.dropout(x + self.groups(groups)[:, None])
        return self.norm(self.blocks(x)) @ self.tokens.weight.T


def learn(train: np.ndarray, groups: np.ndarray, model: GPT, steps: int, seed: int) -> None:
    """Random items of (N, L); each is a window."""
    draw = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for step in range(steps):
        chosen = draw.integers(0, len(train), 32)
        rows, told = torch.from_numpy(train[chosen]), torch.from_numpy(groups[chosen])
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - 0.9 * step / steps)
        loss = F.cross_entropy(model(rows[:, :-1], told).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


@torch.no_grad()
def bits_a_code(model: GPT, held_out: np.ndarray, groups: np.ndarray) -> float:
    """Bits of the codes between bos and eos, the mean over all of them."""
    rows, told = torch.from_numpy(held_out), torch.from_numpy(groups)
    total = 0.0
    for some, group in zip(rows.split(32), told.split(32), strict=True):
        logits = model(some[:, :-1], group)[:, :-1]
        total += float(
            F.cross_entropy(logits.flatten(0, 1), some[:, 1:-1].flatten(), reduction="sum")
        )
    return total / math.log(2) / (len(held_out) * (held_out.shape[1] - 2))


@torch.no_grad()
def write(model: GPT, vocabulary: dict, length: int, groups: np.ndarray, seed: int) -> Tensor:
    """Items from bos to eos (N, L) of these groups, of a model of one codebook."""
    generator = torch.Generator().manual_seed(seed)
    (codebook,) = vocabulary["codebooks"]
    allowed = slice(codebook["offset"], codebook["offset"] + codebook["size"])
    told = torch.from_numpy(groups)
    tokens = torch.full((len(told), 1), vocabulary["special"]["bos"])
    for _ in range(length - 2):
        logits = model(tokens, told)[:, -1, allowed] / 0.9
        drawn = torch.multinomial(logits.softmax(1), 1, generator=generator)
        tokens = torch.cat([tokens, drawn + codebook["offset"]], 1)
    return torch.cat([tokens, torch.full((len(told), 1), vocabulary["special"]["eos"])], 1)


def vqkit(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vqkit", *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"vqkit {words[0]} failed:\n{done.stderr}")


def decoded(drawn: Tensor, work: Path, out: Path) -> int:
    """How many drawn items `vqkit tokens decode` makes an image of."""
    out.mkdir(parents=True, exist_ok=True)
    good = 0
    for number, item in enumerate(drawn.tolist()):
        ids = work / f"{number}.txt"
        ids.write_text(" ".join(map(str, item)))
        target = out / f"{number:02}.png"
        target.unlink(missing_ok=True)
        vqkit("tokens", "decode", work / "ds", "--ids", ids, "--out", target)
        good += target.stat().st_size > 0
    return good


def held_out_names(tokenizer: Any) -> list[str]:
    """Items of validation and test, none of which is a near duplicate of one that was trained
    on.
    """
    data = open_for(tokenizer, "emoji", "train")
    ids = np.concatenate([data.splits["validation"], data.splits["test"]])
    return [data.names[index] for index in ids.tolist()]


def images_of(model: Any, vocabulary: dict, items: np.ndarray) -> np.ndarray:
    """Items from bos to eos (N, L) as uint8 (N, H, W, C)."""
    codes = torch.from_numpy(items[:, 1:-1] - vocabulary["codebooks"][0]["offset"])
    return model.decode(codes.reshape(len(items), 1, *model.tokenizer.grid(model.shape.extent)))


def main() -> None:
    arguments = PARSER.parse_args()
    torch.manual_seed(arguments.seed)
    steps, count = (20, 2) if arguments.quick else (2000, 16)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = [f"train.steps={20 if arguments.quick else 1500}", "coder.steps=2"]
        vqkit("train", "emoji", "--recipe", "emoji", "--out", work / "model", *settings)
        vqkit("tokenize", work / "model", "emoji", "--out", work / "tokens", "--workers", 1)
        vqkit("tokens", "materialize", work / "tokens", "--to", "bin16", "--out", work / "ds")

        manifest = json.loads((work / "ds" / "manifest.json").read_text())
        vocabulary = manifest["vocabulary"]
        tokens = np.memmap(work / "ds" / "train.bin", dtype=np.uint16, mode="r").astype(np.int64)
        items = tokens.reshape(manifest["num_items"], -1)
        table = pyarrow.parquet.read_table(work / "ds" / "items.parquet")
        names, groups = np.unique(table["label"].to_pylist(), return_inverse=True)
        tokenizer = load(work / "model", device="cpu")
        is_held_out = np.isin(table["id"].to_pylist(), held_out_names(tokenizer))
        train, learnt = items[~is_held_out], groups[~is_held_out]
        held_out, asked = items[is_held_out], groups[is_held_out]
        model = GPT(vocabulary["size"], len(names), items.shape[1], 128, 4, DROPOUT)
        began = time.perf_counter()
        learn(train, learnt, model, steps, arguments.seed)
        seconds = time.perf_counter() - began
        bits = bits_a_code(model, held_out, asked)
        counts = np.bincount(held_out[:, 1:-1].reshape(-1))
        shares = counts[counts > 0] / counts.sum()
        entropy = float(-(shares * np.log2(shares)).sum())
        drawn = write(model, vocabulary, items.shape[1], asked, arguments.seed)
        good = decoded(drawn[:count], work, arguments.out or work / "drawn")

        features = [
            lite0_features(images_of(tokenizer, vocabulary, one))
            for one in (train, held_out, drawn.numpy())
        ]
        classifier = train_feature_classifier(features[0], learnt, len(names), arguments.seed)
        real, told = (classify_features(classifier, one) for one in features[1:])
        shuffled = np.random.default_rng(arguments.seed).permutation(asked)
    kept = 100 * float((told == asked).mean())
    where = {
        **machine(),
        "steps": steps,
        "seconds": seconds,
        "entropy": entropy,
        "shuffled": 100 * float((told == shuffled).mean()),
        "held_out_items": 100 * float((real == asked).mean()),
        "largest_group": 100 * float(np.bincount(asked).max() / len(asked)),
    }
    report(
        [
            Claim("tokens_bits", bits, "bits", f"< {entropy:.3f}", "codes one by one", where),
            Claim("tokens_drawn", good, f"of {count}", str(count), None, where),
            Claim("trained_on_tokens", kept, "%", ">= 45", "groups shuffled", where),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
