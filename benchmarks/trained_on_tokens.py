"""Claims tokens_bits and tokens_drawn: a language model of nobody's own learns from train.bin.

    python benchmarks/trained_on_tokens.py [--quick] [--seed 0] [--json FILE] [--out DIR]

The emoji go through `vqkit tokenize` and `vqkit tokens materialize --to bin16`. A small GPT in
plain PyTorch, which knows the number of ids and nothing else of vqkit, learns to predict the next
token from the memory map of uint16 that nanoGPT reads, an item a window. It then writes items from
`bos` on, each token among those that the manifest allows, and `vqkit tokens decode` shows them.

tokens_bits   bits a code on items that were held out, beside the entropy of single codes there
tokens_drawn  drawn items that decode, of all
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench.claims import Claim, machine, options, report
from torch import Tensor, nn
from torch.nn import functional as F

PARSER = options(__doc__)
PARSER.add_argument("--out", type=Path, metavar="DIR", help="keeps the images that were drawn")
# Items at the end of the file that the model does not learn from.
HELD_OUT = 256


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
    def __init__(self, num_ids: int, length: int, width: int, depth: int) -> None:
        super().__init__()
        self.length = length
        self.tokens = nn.Embedding(num_ids, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        return self.norm(self.blocks(x)) @ self.tokens.weight.T


def learn(train: np.ndarray, model: GPT, steps: int, seed: int) -> None:
    """Random items of (N, L); each is a window."""
    draw = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    for step in range(steps):
        rows = torch.from_numpy(train[draw.integers(0, len(train), 32)])
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - 0.9 * step / steps)
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def bits_a_code(model: GPT, held_out: np.ndarray) -> float:
    """Bits of the codes between bos and eos, the mean over all of them."""
    total = 0.0
    for rows in torch.from_numpy(held_out).split(32):
        logits = model(rows[:, :-1])[:, :-1]
        total += float(
            F.cross_entropy(logits.flatten(0, 1), rows[:, 1:-1].flatten(), reduction="sum")
        )
    return total / math.log(2) / (len(held_out) * (held_out.shape[1] - 2))


@torch.no_grad()
def write(model: GPT, vocabulary: dict, length: int, count: int, seed: int) -> Tensor:
    """Items from bos to eos (count, L), of a model of one codebook."""
    generator = torch.Generator().manual_seed(seed)
    (codebook,) = vocabulary["codebooks"]
    allowed = slice(codebook["offset"], codebook["offset"] + codebook["size"])
    tokens = torch.full((count, 1), vocabulary["special"]["bos"])
    for _ in range(length - 2):
        logits = model(tokens)[:, -1, allowed] / 0.9
        drawn = torch.multinomial(logits.softmax(1), 1, generator=generator)
        tokens = torch.cat([tokens, drawn + codebook["offset"]], 1)
    return torch.cat([tokens, torch.full((count, 1), vocabulary["special"]["eos"])], 1)


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


def main() -> None:
    arguments = PARSER.parse_args()
    torch.manual_seed(arguments.seed)
    steps, count = (20, 2) if arguments.quick else (2000, 16)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = [f"train.steps={20 if arguments.quick else 400}", "coder.steps=2"]
        vqkit("train", "emoji", "--recipe", "emoji", "--out", work / "model", *settings)
        vqkit("tokenize", work / "model", "emoji", "--out", work / "tokens", "--workers", 1)
        vqkit("tokens", "materialize", work / "tokens", "--to", "bin16", "--out", work / "ds")

        manifest = json.loads((work / "ds" / "manifest.json").read_text())
        tokens = np.memmap(work / "ds" / "train.bin", dtype=np.uint16, mode="r").astype(np.int64)
        items = tokens.reshape(manifest["num_items"], -1)
        # Neighbours in the set look alike.
        items = items[np.random.default_rng(arguments.seed).permutation(len(items))]
        length = items.shape[1]
        model = GPT(manifest["vocabulary"]["size"], length, width=128, depth=4)
        began = time.perf_counter()
        learn(items[:-HELD_OUT], model, steps, arguments.seed)
        seconds = time.perf_counter() - began
        held_out = items[-HELD_OUT:]
        bits = bits_a_code(model, held_out)
        counts = np.bincount(held_out[:, 1:-1].reshape(-1))
        shares = counts[counts > 0] / counts.sum()
        entropy = float(-(shares * np.log2(shares)).sum())
        drawn = write(model, manifest["vocabulary"], length, count, arguments.seed)
        good = decoded(drawn, work, arguments.out or work / "drawn")
    where = {**machine(), "steps": steps, "seconds": seconds, "entropy": entropy}
    report(
        [
            Claim("tokens_bits", bits, "bits", f"< {entropy:.3f}", "codes one by one", where),
            Claim("tokens_drawn", good, f"of {count}", str(count), None, where),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
