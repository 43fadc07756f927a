"""Claims images_per_s_vs_plain_pytorch, time_to_pythae_quality_ratio, trainer_overhead: speed of
training.

    python benchmarks/training.py [--quick] [--seed 0] [--json FILE]

One data set (Fashion-MNIST), in turn:
(a) pythae's VQVAE with its ResNets for MNIST (144 bits: 4x4 codes of 9 bits) and its own trainer,
    EMA codebook, Adam 1e-3, batches of 100, as its documentation has it; then vqkit at the same 144
    bits (patches of 7 pixels) with a tenth and a fifth of that time: which share is enough for
    pythae's PSNR on the test images.
(b) a plain loop over the network of recipe fashion-mnist as a tutorial has it: the default memory
    layout, a one-hot quantizer, DataLoader, AdamW; against vqkit with AdamW at the same batch size.
(c) the same network, layout and optimiser in a bare loop without any trainer, for what the trainer
    adds.
(b) and (c) have a row for each precision that the processor computes quickly: float32, and bfloat16
where it has instructions for it. All loops of a row compute in the same precision. Each runs in a
process of its own, as one would run it; speeds are medians of alternating windows, so that every
loop sees the machine in the same mood.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from bench.claims import Claim, machine, options, report
from bench.command_line import train_fashion_mnist
from bench.image_sets import open_set
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from vqkit.artifact.build import build_model
from vqkit.config import load
from vqkit.model.precision import use_bfloat16
from vqkit.settings import Config
from vqkit.signals.image.measures import psnr
from vqkit.signals.image.source import ImageData
from vqkit.signals.registry import signal_of
from vqkit.training.engine import Engine
from vqkit.training.loop import Run
from vqkit.training.progress import Silent
from vqkit.training.tasks.autoencoder import AutoencoderTask

PARSER = options(__doc__)

BATCH = 64
PLAIN = [
    "train.optimizer=adamw",
    f"train.batch_size={BATCH}",
    "losses.distortion=mse",
    "train.lr=1e-3",
]


# ------------------------------------------------------------------------------- (b) the plain loop


class PlainBlock(nn.Module):
    """The block as the ConvNeXt paper's code has it: same function as ours, the library's default
    memory layout.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        return x + self.contract(F.gelu(self.expand(y))).permute(0, 3, 1, 2)


class PlainNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PlainQuantizer(nn.Module):
    """The quantizer of most tutorials: all distances, one-hot codes, matrix products with them."""

    def __init__(self, size: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", torch.randn(size, width))
        self.register_buffer("count", torch.ones(size))
        self.register_buffer("total", self.codebook.clone())

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        x = latents.permute(0, 2, 3, 1).contiguous()
        flat = x.view(-1, x.shape[-1])
        distances = (
            flat.pow(2).sum(1, keepdim=True)
            + self.codebook.pow(2).sum(1)
            - 2 * flat @ self.codebook.t()
        )
        one_hot = F.one_hot(distances.argmin(1), len(self.codebook)).float()
        quantized = (one_hot @ self.codebook).view_as(x)
        with torch.no_grad():
            self.count.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
            self.total.mul_(self.decay).add_(one_hot.t() @ flat, alpha=1 - self.decay)
            self.codebook.copy_(self.total / (self.count + 1e-5).unsqueeze(1))
        loss = F.mse_loss(x, quantized.detach())
        return (x + (quantized - x).detach()).permute(0, 3, 1, 2).contiguous(), loss


class PlainAutoencoder(nn.Module):
    def __init__(self, settings: Config) -> None:
        super().__init__()
        network, quantizer = settings.model.network, settings.model.quantizer
        width, pixels, hidden = (
            network.width,
            network.patch_size**2,
            network.expansion * network.width,
        )
        self.patch = network.patch_size
        self.encoder = nn.Sequential(
            nn.Conv2d(pixels, width, 1),
            *(PlainBlock(width, hidden) for _ in range(network.encoder_blocks)),
            PlainNorm(width),
            nn.Conv2d(width, quantizer.code_dim, 1),
        )
        self.quantizer = PlainQuantizer(
            quantizer.codebook_size, quantizer.code_dim, quantizer.decay
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(quantizer.code_dim, width, 1),
            *(PlainBlock(width, hidden) for _ in range(network.decoder_blocks)),
            PlainNorm(width),
            nn.Conv2d(width, pixels, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, loss = self.quantizer(self.encoder(F.pixel_unshuffle(x, self.patch)))
        return F.pixel_shuffle(self.decoder(quantized), self.patch), loss


def autocast(precision: str) -> torch.autocast:
    """What a loop computes under: nothing for float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def plain_steps(data: ImageData, settings: Config, folder: Path):
    """Yields once per step of the plain loop."""
    images = data.normalisation.apply(data.read(data.splits["train"]).values)
    model = PlainAutoencoder(settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(images), BATCH, shuffle=True, drop_last=True)
    while True:
        for (x,) in loader:
            with autocast(settings.train.precision):
                reconstruction, commitment = model(x)
                loss = F.mse_loss(reconstruction, x) + 0.25 * commitment
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


# ------------------------------------------------------------------------ (c) bare loop and trainer


def bare_steps(data: ImageData, settings: Config, folder: Path):
    """Our model, layout and optimiser with nothing around them."""
    images = data.read(data.splits["train"]).values
    model = build_model(settings, data.shape, data.normalisation).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    generator = torch.Generator()
    while True:
        for indices in torch.randperm(len(images)).split(BATCH)[:-1]:
            x = data.normalisation.apply(images[indices]).contiguous(
                memory_format=torch.channels_last
            )
            with autocast(settings.train.precision):
                terms = model(x, generator).terms
            loss = terms["reconstruction"] + 0.25 * terms["commitment"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield loss.item()


def trainer_steps(data: ImageData, settings: Config, folder: Path):
    """The steps of vqkit's loop as `vqkit train` takes them, logging included."""
    task = AutoencoderTask(data, settings, signal_of(settings.data))
    run = Run(task, folder, Engine(settings.train), Silent(), None)
    for batch in task.batches(0, 0, 1):
        row, output = run.step(batch, 0.5)
        run.watch(row, 0.5)
        if run.state.step % settings.train.log_every == 0:
            run.log_step(row, output, batch, 0.5)
        yield row["loss"]


LOOPS = {"plain": plain_steps, "bare": bare_steps, "vqkit": trainer_steps}


def serve(name: str, precision: str, seed: int, folder: Path) -> None:
    """Of one loop, in a process of its own: reads a number of steps from each line of standard
    input, takes them, and writes the seconds.
    """
    settings = load(
        "fashion-mnist", [*PLAIN, f"train.precision={precision}", f"seed={seed}"], Config
    )
    data = open_set("fashion-mnist", seed, settings.data)
    loop = LOOPS[name](data, settings, folder)
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            next(loop)
        print(time.perf_counter() - begin, flush=True)


class Loop:
    """A loop that runs in a process of its own, as no trainer's settings of the C library, of
    threads or of memory should reach another.
    """

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--loop", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, steps: int) -> float:
        """What so many more steps take."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def speeds(
    precision: str, seed: int, windows: int, steps: int, folder: Path
) -> dict[str, list[float]]:
    """Images per second of every loop in each of several rounds, one after the other."""
    loops = {name: Loop(name, precision, str(seed), str(folder / name)) for name in LOOPS}
    found: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop.seconds(5)
    for _ in range(windows):
        for name, loop in loops.items():
            found[name].append(steps * BATCH / loop.seconds(steps))
    for loop in loops.values():
        loop.close()
    return found


def precisions() -> list[str]:
    """What this processor computes quickly: float32, and bfloat16 where it has instructions
    for it.
    """
    return ["float32", "bfloat16"] if use_bfloat16("auto") else ["float32"]


def measured_at(precision: str, seed: int, windows: int, steps: int, folder: Path) -> dict:
    """Rows of one precision, which all three loops compute in. overhead: of the trainer over the
    bare loop.
    """
    rates = speeds(precision, seed, windows, steps, folder / precision)
    rounds = list(zip(rates["plain"], rates["bare"], rates["vqkit"], strict=True))
    return {
        "precision": precision,
        "images_per_s": {name: median(values) for name, values in rates.items()},
        "ratio": median(ours / plain for plain, _, ours in rounds),
        "overhead": median(bare / ours - 1 for _, bare, ours in rounds),
    }


# --------------------------------------------------------------------------------------- (a) pythae


def pythae_run(epochs: int, count: int, seed: int, folder: Path) -> dict:
    """Train pythae's VQVAE in a process of its own; PSNR of the test images, seconds of training,
    peak memory.
    """
    code = [sys.executable, __file__, "--pythae", str(epochs), str(count), str(seed), str(folder)]
    subprocess.run(code, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "pythae.json").read_text())


def pythae_main(epochs: int, count: int, seed: int, folder: Path) -> None:
    from pythae.models import VQVAE, VQVAEConfig
    from pythae.models.nn.benchmarks.mnist import (
        Decoder_ResNet_VQVAE_MNIST,
        Encoder_ResNet_VQVAE_MNIST,
    )
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    torch.manual_seed(seed)
    data = open_set("fashion-mnist", seed, load("fashion-mnist", [], Config).data)
    images = {
        name: data.read(data.splits[name][:count]).values.float() / 255
        for name in ("train", "validation")
    }
    settings = VQVAEConfig(
        input_dim=(1, 28, 28), latent_dim=16, num_embeddings=512, use_ema=True, decay=0.99
    )
    model = VQVAE(
        settings,
        encoder=Encoder_ResNet_VQVAE_MNIST(settings),
        decoder=Decoder_ResNet_VQVAE_MNIST(settings),
    )
    trainer = BaseTrainerConfig(
        output_dir=str(folder / "pythae"),
        num_epochs=epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=100,
        per_device_eval_batch_size=100,
        seed=seed,
        no_cuda=True,
        scheduler_cls="CosineAnnealingLR",
        scheduler_params={"T_max": epochs},
    )
    begin = time.perf_counter()
    TrainingPipeline(model=model, training_config=trainer)(images["train"], images["validation"])
    seconds = time.perf_counter() - begin
    model.eval()
    found = []
    with torch.no_grad():
        for part in data.read(data.splits["test"]).values.split(500):
            shown = model({"data": part.float() / 255}).recon_x
            found.append(psnr((255 * shown).round().clamp(0, 255).to(torch.uint8), part))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"psnr": float(torch.cat(found).mean()), "seconds": seconds, "peak_memory_mb": peak}
    (folder / "pythae.json").write_text(json.dumps(result))


def vqkit_run(minutes: float, seed: int, folder: Path) -> dict:
    """metrics.json of vqkit at 144 bits with a time budget."""
    out = folder / f"{minutes:.4f}"
    settings = ["model.network.patch_size=7", f"train.max_minutes={minutes}", f"seed={seed}"]
    # No files are written here.
    settings.append("coder.steps=0")
    return train_fashion_mnist(out, settings, quiet=True)


def main() -> None:
    arguments = PARSER.parse_args()
    epochs, count, windows, steps = (1, 2000, 3, 10) if arguments.quick else (5, 10**6, 15, 20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = pythae_run(epochs, count, arguments.seed, folder)
        shares = {}
        for share in (0.05, 0.1, 0.2):
            shares[share] = vqkit_run(share * peer["seconds"] / 60, arguments.seed, folder)
            if shares[share]["psnr"] >= peer["psnr"]:
                break
        rows = [measured_at(one, arguments.seed, windows, steps, folder) for one in precisions()]
    reached = shares[share]["psnr"] >= peer["psnr"]
    used = shares[share]["training_seconds"] / peer["seconds"]
    shared = {**machine(), "seed": arguments.seed, "batch_size": BATCH}
    keys = ("psnr", "training_seconds", "peak_memory_mb")
    vqkit = {str(key): {key: run[key] for key in keys} for key, run in shares.items()}
    print(f"{shared['cpu']}: {', '.join(row['precision'] for row in rows)}")
    report(
        [
            *speed_claims(rows, shared),
            time_claim(
                used if reached else float("inf"),
                {**shared, "epochs": epochs, **peer, "vqkit": vqkit},
            ),
        ],
        arguments,
    )


def speed_claims(rows: list[dict], shared: dict) -> list[Claim]:
    """Of each precision, and under the plain names that of the precision which `vqkit train`
    chooses here.
    """
    claims = []
    for row in rows:
        settings = {**shared, **row}
        suffixes = [f"_{row['precision']}", *([""] if row is rows[-1] else [])]
        for suffix in suffixes:
            name = f"images_per_s_vs_plain_pytorch{suffix}"
            claims.append(Claim(name, row["ratio"], "x", ">= 2.2", "plain PyTorch loop", settings))
            name = f"trainer_overhead{suffix}"
            claims.append(Claim(name, 100 * row["overhead"], "%", "<= 5", "bare loop", settings))
    return claims


def time_claim(share: float, settings: dict) -> Claim:
    return Claim("time_to_pythae_quality_ratio", share, "share", "<= 0.2", "pythae 0.1.2", settings)


if __name__ == "__main__":
    if "--pythae" in sys.argv:
        pythae_main(*map(int, sys.argv[2:5]), Path(sys.argv[5]))
    elif "--loop" in sys.argv:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
