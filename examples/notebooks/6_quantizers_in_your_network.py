# %% [markdown]
# # Quantizers in your own network
#
# `vqkit.nn` has every quantizer as a plain `torch.nn.Module`. The contract is the same for all:
# `forward` gives `quantized`, `codes` and `loss`; `encode` gives the codes alone; `decode` gives
# what the decoder gets, to the bit.

# %%
import numpy as np
import torch
from look import BLUE, GREY, subplots
from sklearn.datasets import load_digits
from torch import nn

from vqkit.nn import BSQ, FSQ, GaussianCodebook, ProductVQ, ResidualVQ, SimVQ, VectorQuantizer

quantizer = VectorQuantizer(dim=16, codebook_size=512)
x = torch.randn(4, 100, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
out = quantizer(x)
out.loss.backward()  # the commitment term has a gradient to x
print("quantized", tuple(out.quantized.shape), "codes", tuple(out.codes.shape), out.codes.dtype)
quantizer.eval()
assert torch.equal(quantizer.decode(quantizer.encode(x)), quantizer(x).quantized)

# %% [markdown]
# ## One loop, seven quantizers
#
# A small network for 8x8 digits with a grid of 2x2 latents. Only the line that makes the quantizer
# changes. All have 9 or 10 bits a position, so that their errors can be compared.

# %%
digits = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
train, test = digits[:1500], digits[1500:]
DIM = 12
MAKERS = {
    "VectorQuantizer": lambda: VectorQuantizer(DIM, codebook_size=512, channel_first=True),
    "SimVQ": lambda: SimVQ(DIM, codebook_size=512, channel_first=True),
    "FSQ": lambda: FSQ(DIM, levels=[8, 8, 8], channel_first=True),
    "BSQ": lambda: BSQ(DIM, bits=9, channel_first=True),
    "GaussianCodebook": lambda: GaussianCodebook(DIM, levels=[8, 8, 8], channel_first=True),
    "ProductVQ": lambda: ProductVQ(DIM, num_groups=2, codebook_size=32, channel_first=True),
    "ResidualVQ": lambda: ResidualVQ(DIM, num_stages=2, codebook_size=32, channel_first=True),
}


def fit(quantizer, steps=300):
    """PSNR on held-out digits, share of the codes that occur there, and bits of an image."""
    torch.manual_seed(0)
    encode = nn.Sequential(nn.Conv2d(1, 64, 4, 4), nn.GELU(), nn.Conv2d(64, DIM, 1))
    decode = nn.Sequential(nn.Conv2d(DIM, 64, 1), nn.GELU(), nn.ConvTranspose2d(64, 1, 4, 4))
    network = nn.ModuleList([encode, quantizer, decode])
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(steps):
        images = train[torch.randint(len(train), (64,))]
        out = quantizer(encode(images))
        loss = (decode(out.quantized) - images).square().mean() + 0.1 * out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        codes = quantizer.encode(encode(test))
        error = (decode(quantizer.decode(codes)) - test).square().mean((1, 2, 3))
    used = len(codes.unique()) if codes.dim() == 3 else len(codes[:, 0].unique())
    bits = 4 * quantizer.num_codebooks * np.log2(quantizer.codebook_size)
    return float(-10 * error.log10().mean()), used, bits


results = {}
for name, make in MAKERS.items():
    torch.manual_seed(0)
    results[name] = fit(make())
    psnr, used, bits = results[name]
    print(f"{name:<17} {psnr:.2f} dB  {bits:.0f} bits an image  {used} codes occur")

# %%
figure, axis = subplots(figsize=(7.5, 2.9))
order = sorted(results, key=lambda name: results[name][0])
axis.plot([results[name][0] for name in order], order, "o", color=BLUE, markersize=9)
for row, name in enumerate(order):
    axis.text(results[name][0] + 0.12, row, f"{results[name][0]:.1f} dB", va="center", fontsize=9)
axis.grid(axis="y", color="#e6e8eb")
axis.set_axisbelow(True)
axis.margins(x=0.12, y=0.1)
axis.set_title("PSNR on held-out digits after 300 steps, one seed")
figure.show()

# %% [markdown]
# Here a position stands for 16 pixels, which is much for the three or four channels of FSQ, SimVQ
# and the Gaussian codebook; codes of learned codebooks have all twelve. With smaller patches the
# differences nearly vanish: `docs/benchmarks/families.md` has three seeds, two data sets and the
# peers of another library.
#
# ## Sequences of different lengths
#
# `mask` marks real positions. Padding may hold anything, NaN too: it has no part in codes, loss and
# statistics, and its codes are -1.

# %%
residual = ResidualVQ(dim=16, num_stages=4, codebook_size=64)
sequences = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
sequences[1, 4:] = torch.nan
out = residual(sequences, mask=mask)
print(
    "codes of the padded sequence, first stage:", np.sign(out.codes[1, :, 0].numpy() + 0.5).tolist()
)
print("loss is finite:", bool(out.loss.isfinite()))

# %% [markdown]
# ## Fewer stages
#
# A residual row decodes from its first stages alone: codes of -1 are stages that were left out. The
# error falls with each.

# %%
residual.eval()
x = torch.randn(500, 16, generator=torch.Generator().manual_seed(1))
for _ in range(60):
    residual.train()(x)
residual.eval()
errors = []
for kept in range(1, 5):
    codes = residual.encode(x)
    codes[:, kept:] = -1
    errors.append(float((residual.decode(codes) - x).square().mean()))
    print(f"{kept} stages: squared error {errors[-1]:.2f}")

# %%
figure, axis = subplots(figsize=(5, 2.5))
axis.plot(range(1, 5), errors, marker="o", color=BLUE)
axis.axhline(1.0, color=GREY, linestyle=(0, (3, 3)))
axis.text(1, 1.01, "variance of the input", color=GREY, fontsize=9, va="bottom")
axis.set_xticks(range(1, 5), [f"{kept} x 6 bits" for kept in range(1, 5)])
axis.set_ylim(0, 1.15)
axis.set_title("squared error by stages kept")
figure.show()

# %% [markdown]
# More: `docs/layers.md` (Lightning, Accelerate, DDP, FSDP2, `torch.compile`, and how to come from
# vector-quantize-pytorch with your weights).
