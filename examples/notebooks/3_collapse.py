# %% [markdown]
# # Collapse: make it, see it, cure it
#
# A codebook *collapses* when a few codes win everything and the others are never chosen again: a
# code without latents gets no gradient and no mean to move to, so it stays where nobody needs it.
# It is the most common complaint about VQ-VAEs, and it is silent: the loss still falls.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from look import BLUE, GREEN, GREY, ORANGE, RED, subplots
from torch import nn

import vqkit
from vqkit.nn import FSQ, SimVQ, VectorQuantizer
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images

digits = open_images("digits", DataConfig(image_size=(8, 8)), seed=0)
train = digits.read(digits.splits["train"]).values / 255
test = digits.read(digits.splits["validation"]).values / 255
print(f"{len(train)} digits of 8x8 pixels, {len(test)} for validation")

# %% [markdown]
# ## Make it
#
# Sixteen positions an image, latents of two channels, so that they can be drawn, and 128 codes. The
# first codebook begins at random and learns by gradient alone, as the paper's formula has it and as
# many implementations do:
#
# $$L = \lVert x - g(e_k) \rVert^2 + \lVert \mathrm{sg}[z] - e_k \rVert^2
# + \beta \lVert z - \mathrm{sg}[e_k] \rVert^2$$

# %%
CODES = 128


def fit(quantizer, steps=300):
    """Train a small autoencoder around a quantizer; codes in use and PSNR on the way, and the
    latents of validation images at the end.
    """
    torch.manual_seed(0)
    fold, unfold = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
    encode = nn.Sequential(fold, nn.Conv2d(4, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 2, 1))
    decode = nn.Sequential(nn.Conv2d(2, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 4, 1), unfold)
    parameters = [*encode.parameters(), *decode.parameters(), *quantizer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    history = []
    for step in range(steps + 1):
        images = train[torch.randint(len(train), (64,))]
        quantizer.train()
        out = quantizer(encode(images))
        loss = (decode(out.quantized) - images).square().mean() + 0.2 * out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            quantizer.eval()
            with torch.no_grad():
                latents = encode(test)
                codes = quantizer.encode(latents)
                error = (decode(quantizer.decode(codes)) - test).square().mean((1, 2, 3))
            counts = torch.bincount(codes.flatten(), minlength=CODES).double()
            share = counts / counts.sum()
            perplexity = float(torch.exp(-(share[share > 0] * share[share > 0].log()).sum()))
            psnr = float(-10 * error.log10().mean())
            history.append((step, int((counts > 0).sum()), perplexity, psnr))
    return np.array(history), latents.movedim(1, -1).reshape(-1, 2).numpy(), quantizer


bare = {"kmeans_iterations": 0, "revive_threshold": 0.0, "channel_first": True}
torch.manual_seed(0)
collapsed = VectorQuantizer(dim=2, codebook_size=CODES, update="gradient", **bare)
with torch.no_grad():
    collapsed.codebook.mul_(4.0).add_(4.0)  # far from where latents begin
results = {"random start, gradient": fit(collapsed)}


def say(name):
    _, used, perplexity, psnr = results[name][0][-1]
    print(f"{name:<24} {used:.0f} of {CODES} codes, perplexity {perplexity:.1f}, {psnr:.2f} dB")


say("random start, gradient")

# %% [markdown]
# ## See it
#
# Usage (codes that occur in the *whole* validation split) and perplexity $2^H$ (as many codes as
# would carry as much if all were used alike). A loss curve alone would not tell.
#
# ## Cure it
#
# 1. **Start from the data**: k-means on the latents of the first batch, then moving averages.
# 2. **Revive**: a code below a tenth of uniform use jumps to a place between a latent and its code.
# 3. **Or choose a quantizer that cannot collapse**: SimVQ moves all codes at once through one map,
#    FSQ has no codebook.

# %%
torch.manual_seed(0)
cures = {
    "k-means start": VectorQuantizer(
        dim=2, codebook_size=CODES, revive_threshold=0.0, channel_first=True
    ),
    "k-means and revival": VectorQuantizer(dim=2, codebook_size=CODES, channel_first=True),
    "SimVQ": SimVQ(dim=2, codebook_size=CODES, code_dim=2, channel_first=True),
    "FSQ": FSQ(dim=2, levels=[16, 8], channel_first=True),
}
for name, quantizer in cures.items():
    results[name] = fit(quantizer)
    say(name)

# %%
figure, axes = subplots(1, 3, figsize=(11, 3.1))
colours = [RED, ORANGE, BLUE, GREEN, GREY]
for (name, (history, _, _)), colour in zip(results.items(), colours, strict=True):
    for axis, column in zip(axes, (1, 2, 3), strict=True):
        axis.plot(history[:, 0], history[:, column], color=colour, label=name)
for axis, title in zip(axes, ("codes in use", "perplexity", "PSNR, dB"), strict=True):
    axis.set_title(title)
    axis.set_xlabel("step")
axes[2].legend(fontsize=8.5)
plt.show()

# %% [markdown]
# Quality hardly tells these runs apart, and the loss would not either: collapse has to be counted.
#
# Where the codes lie, over the latents of the validation images. Left, what has collapsed: the
# codes stay where they began, away from all latents, and the few nearest ones serve everyone.
# Right: every code has latents of its own.

# %%
figure, axes = subplots(1, 2, figsize=(9, 4))
for axis, name in zip(axes, ("random start, gradient", "k-means and revival"), strict=True):
    _, latents, quantizer = results[name]
    with torch.no_grad():
        vectors = quantizer.decode(torch.arange(CODES)[:, None])[:, :, 0].numpy()
    axis.scatter(*latents.T, s=5, color=GREY, alpha=0.35, linewidths=0, label="latents")
    axis.scatter(*vectors.T, s=18, color=BLUE if axis is axes[1] else RED, label="codes")
    axis.set_title(name)
    axis.legend(fontsize=8.5)
plt.show()

# %% [markdown]
# ## The guard of `vqkit train`
#
# Training with vqkit has the cures on by default, and a guard besides: it watches usage, perplexity
# and movement of every codebook over a sliding window, says when one collapses, at which step, and
# what it did. Here k-means and revival are switched off and the commitment weight is far too large.

# %%
sabotage = [
    "model.quantizer.kmeans_iterations=0",
    "model.quantizer.revive_threshold=0",
    "model.quantizer.update=gradient",
    "losses.commitment=10",
    "model.quantizer.codebook_size=128",
    *["train.steps=120", "train.precision=float32", "train.optimizer=adamw", "coder.steps=0"],
    *["train.validate_every=40", "train.log_every=20", "train.batch_size=32"],
    *["model.network.width=32", "model.network.encoder_blocks=1", "model.network.decoder_blocks=1"],
]
for guard in ("warn", "act"):
    overrides = [*sabotage, f"train.guard={guard}"]
    model = vqkit.train("digits", f"runs/{guard}", "images", overrides, display=vqkit.live())
    print(
        f"guard={guard}: {100 * model.metrics['usage']:.0f} % of the codes in use, "
        f"{model.metrics['psnr']:.1f} dB"
    )

# %%
vqkit.Report("runs/warn")

# %%
vqkit.Report("runs/act")
