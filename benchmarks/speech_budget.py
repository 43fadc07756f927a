"""Claims speech_mflops and speech_latency: what a second of speech takes, and what it waits for,
beside a public budget of codecs for small devices.

    python benchmarks/speech_budget.py [--quick] [--seed 0] [--json FILE]

Recipe speech at 8 and at 16 kHz, as it is and with model.causal=true, two steps of training on
sounds made by formula, as nothing here depends on weights. Operations are counted in both networks
and the search of codes, of codes and sound as `encode` and `decode` give them, over ten seconds:
two for every multiplication of a matrix product and a convolution, 2.5 N log2 N for a Fourier
transform of N real samples, and one for every number that any other operation makes. Entropy coding
of files, which live use can do without, is not in it. Latency is what the streams of the model wait
for: the encoder for its own position and what it sees behind it, the decoder for what it sees
behind a position. The budget, 700 MFLOPS and 30 ms without the time of computing, is that of track
1 of the Low-Resource Audio Codec challenge of 2025 (arXiv 2510.00264), which is of sound at 24 kHz
and counts products alone.
"""

from __future__ import annotations

import math
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from bench.claims import Claim, machine, options, report
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

PARSER = options(__doc__)

RATES = (8000, 16000)
SECONDS = 10
BUDGET = {"mflops": 700.0, "latency": 30.0}
FOURIER = (torch.ops.aten._fft_r2c, torch.ops.aten._fft_c2r)


class Operations(TorchDispatchMode):
    """Counts what runs inside: floating-point operations of products (matrix products and
    convolutions), of Fourier transforms, and of all else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = 0.0
        self.fourier = 0.0
        self.others = 0.0

    @property
    def total(self) -> float:
        return self.products + self.fourier + self.others

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.products += flop_registry[packet](*args, **kwargs, out_val=made)
        elif packet in FOURIER:
            # Of the two, the one that is real has all samples.
            samples = args[0] if packet is FOURIER[0] else made
            (axis,) = args[1]
            self.fourier += 2.5 * samples.numel() * math.log2(samples.shape[axis])
        elif isinstance(made, torch.Tensor) and not func.is_view and made.is_floating_point():
            self.others += made.numel()
        return made


def write_sounds(folder: Path, rate: int, seed: int) -> None:
    """A dozen glides of a buzz with hiss, two seconds each."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(12):
        times = np.arange(2 * rate) / rate
        phase = 2 * np.pi * np.cumsum(120 + 60 * random.random() + 20 * np.sin(3 * times)) / rate
        buzz = sum(np.cos(k * phase) / k for k in range(1, 12))
        sound = 0.1 * buzz + 0.01 * random.standard_normal(len(times))
        soundfile.write(folder / f"{number}.wav", sound.clip(-1, 1), rate)


def model_at(rate: int, seed: int, is_causal: bool):
    """Recipe speech after two steps."""
    import vqkit

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sounds(folder / "sounds", rate, seed)
        settings = ["train.steps=2", "train.max_minutes=null", "coder.steps=0", f"seed={seed}"]
        settings.append(f"model.causal={str(is_causal).lower()}")
        vqkit.train(folder / "sounds", folder / "run", "speech", settings)
        return vqkit.load(folder / "run", device="cpu")


def measured(rate: int, seed: int, is_causal: bool) -> dict[str, float]:
    model = model_at(rate, seed, is_causal)
    generator = torch.Generator().manual_seed(seed)
    sound = (3000 * torch.randn(1, 1, SECONDS * rate, generator=generator)).to(torch.int16)
    found: dict[str, float] = {}
    with torch.no_grad():
        with Operations() as encoding:
            codes = model.tokenizer.encode(sound)
        with Operations() as decoding:
            model.tokenizer.decode(codes)
    for name, counted in (("encoder", encoding), ("decoder", decoding)):
        found[f"{name} products"] = counted.products / SECONDS / 1e6
        found[f"{name} Fourier"] = counted.fourier / SECONDS / 1e6
        found[f"{name} others"] = counted.others / SECONDS / 1e6
    found["mflops"] = (encoding.total + decoding.total) / SECONDS / 1e6
    encoder, decoder = model.stream()
    found["encoder ms"] = 1000 * encoder.delay / rate
    found["decoder ms"] = 1000 * decoder.delay / rate
    found["latency"] = found["encoder ms"] + found["decoder ms"]
    return found


def main() -> None:
    arguments = PARSER.parse_args()
    claims = []
    rates = RATES[:1] if arguments.quick else RATES
    for rate, is_causal in product(rates, (False, True)):
        found = measured(rate, arguments.seed, is_causal)
        kind = "causal" if is_causal else "plain"
        for name, value in found.items():
            print(f"{rate} Hz  {kind:<8}{name:<18}{value:>9.1f}")
        settings = {**machine(), "seed": arguments.seed, "rate": rate, "causal": is_causal}
        settings |= {"rows": found}
        for what, unit in (("mflops", "MFLOPS"), ("latency", "ms")):
            goal = f"<= {BUDGET[what]:g}"
            name = f"speech_{what}_{rate // 1000}khz{'_causal' if is_causal else ''}"
            claims.append(Claim(name, found[what], unit, goal, "budget", settings))
    report(claims, arguments)


if __name__ == "__main__":
    main()
