# %% [markdown]
# # VQ-VAE from nothing
#
# Five models in one small network: an autoencoder, a VAE, a $\beta$-VAE, a VQ-VAE, and the
# variational feature-transform model. Each adds one idea to the one before. Beside every formula
# stands the class of vqkit that computes it; the loop is plain PyTorch, with nothing hidden.

# %%
import matplotlib.pyplot as plt
import torch
from look import BLUE, GREY, ORANGE, grids, rows, subplots
from torch import nn

from vqkit.config import TransformConfig
from vqkit.model import gaussian
from vqkit.model.normality import SlicedWasserstein
from vqkit.model.transform import build_transform
from vqkit.nn import GaussianCodebook, VectorQuantizer
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images

emoji = open_images("emoji", DataConfig(image_size=(32, 32)), seed=0)
train = emoji.read(emoji.splits["train"]).values / 255  # (N, 3, 32, 32) in [0, 1]
test = emoji.read(emoji.splits["test"]).values / 255
print(f"{len(train)} emoji to learn from, {len(test)} held out")

# %% [markdown]
# ## The network
#
# An encoder that turns an image $x$ of 32x32 pixels into latents $z$ on a grid of 8x8, and a
# decoder $\hat x = g(z)$ that turns them back. Pixels are folded into channels first
# (`PixelUnshuffle`), which is as good as strided convolutions at this size and much faster.

# %%
WIDTH, LATENT = 64, 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
            nn.GroupNorm(1, WIDTH),
            nn.Conv2d(WIDTH, 2 * WIDTH, 1),
            nn.GELU(),
            nn.Conv2d(2 * WIDTH, WIDTH, 1),
        )

    def forward(self, x):
        return x + self.layers(x)


def encoder(channels=LATENT):
    return nn.Sequential(
        nn.PixelUnshuffle(4),
        nn.Conv2d(48, WIDTH, 1),
        Block(),
        Block(),
        nn.Conv2d(WIDTH, channels, 1),
    )


def decoder():
    return nn.Sequential(
        nn.Conv2d(LATENT, WIDTH, 1), Block(), Block(), nn.Conv2d(WIDTH, 48, 1), nn.PixelShuffle(4)
    )


def fit(step, modules, steps=400, batch=48):
    """Minimise the loss of `step(images)`; the same images in the same order for every model."""
    torch.manual_seed(0)
    parameters = [value for module in modules for value in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps)
    for _ in range(steps):
        images = train[torch.randint(len(train), (batch,))]
        optimizer.zero_grad()
        step(images).backward()
        optimizer.step()
        schedule.step()
    for module in modules:
        module.eval()


def log_error(reconstruction, images):
    """Mean log of each image's squared error: up to a factor, minus its mean PSNR in dB."""
    return (reconstruction - images).square().mean((1, 2, 3)).log().mean()


@torch.no_grad()
def psnr(reconstruction):
    return float(-10 * log_error(reconstruction, test) / 2.302585)


found, figures = {"originals": test[:12]}, {}

# %% [markdown]
# ## 1. Autoencoder
#
# $$L = \log \lVert x - g(f(x)) \rVert^2$$
#
# The logarithm weighs all images alike and makes the loss a PSNR; without it the first steps are
# the same and hard images get all attention. Nothing holds the latents together. It reconstructs
# best, and its latents are real numbers: neither a small file nor something that a language model
# could read. In vqkit: `quantizer.kind=none`.

# %%
encode, decode = encoder(), decoder()
fit(lambda x: log_error(decode(encode(x)), x), [encode, decode])
with torch.no_grad():
    found["autoencoder"] = decode(encode(test))
figures["autoencoder"] = psnr(found["autoencoder"])
print(f"autoencoder {figures['autoencoder']:.2f} dB")

# %% [markdown]
# ## 2. VAE and 3. $\beta$-VAE
#
# The encoder gives a mean and a variance of each latent, training draws from them, and a term pulls
# every distribution to $N(0, 1)$ (Kingma & Welling 2014; Higgins et al. 2017):
#
# $$L = \frac{D}{2} \log \lVert x - g(z) \rVert^2 + \beta \, KL(q(z \mid x) \Vert N(0, I)),
# \qquad z = \mu + e^{\frac12 \log s^2} \varepsilon$$
#
# where $D$ is the number of values of an image, and the logarithm stands for a normal distribution
# of the pixels whose variance is the best one (Rybkin et al. 2021). `gaussian.sample` is the draw,
# `gaussian.kl` the term in nats an image. With $\beta = 1$ this is a bound of $-\log p(x)$; a
# larger $\beta$ buys smoother latents with blur.


# %%
def variational(beta):
    encode, decode = encoder(2 * LATENT), decoder()

    def step(x):
        mean, log_variance = gaussian.mean_and_log_variance(encode(x))
        error = log_error(decode(gaussian.sample(mean, log_variance)), x)
        return error + beta * gaussian.kl(mean, log_variance) * 2 / x[0].numel()

    fit(step, [encode, decode])
    with torch.no_grad():
        mean, log_variance = gaussian.mean_and_log_variance(encode(test))
        return decode(mean), float(gaussian.kl(mean, log_variance)), decode


for name, beta in (("VAE", 1.0), ("beta-VAE", 8.0)):
    found[name], nats, decode_variational = variational(beta)
    figures[name] = psnr(found[name])
    print(f"{name:<9} {figures[name]:.2f} dB  {nats / 0.6931:.0f} bits an image by the KL term")

# %% [markdown]
# ## 4. VQ-VAE
#
# Every latent is replaced by the nearest of $K$ learned vectors (van den Oord et al. 2017):
#
# $$q(z) = e_k, \quad k = \operatorname{argmin}_j \lVert z - e_j \rVert^2, \qquad
# L = \log \lVert x - g(q(z)) \rVert^2 + \beta \lVert z - \mathrm{sg}[e_k] \rVert^2$$
#
# The gradient passes the choice as if it were not there (straight-through), and the vectors move to
# the mean of the latents that they win (moving averages). `VectorQuantizer` does all of it, starts
# from k-means and revives dead codes. Now an image is 64 codes of 9 bits: 576 bits, whatever
# happens.

# %%
torch.manual_seed(0)
encode, decode = encoder(), decoder()
quantizer = VectorQuantizer(dim=LATENT, codebook_size=512, channel_first=True)


def vq_step(x):
    out = quantizer(encode(x))
    return log_error(decode(out.quantized), x) + out.terms["commitment"]


fit(vq_step, [encode, quantizer, decode])
with torch.no_grad():
    codes = quantizer.encode(encode(test))
    vq_codes = quantizer.encode(encode(train[:1000]))
    found["VQ-VAE"] = decode(quantizer.decode(codes))
figures["VQ-VAE"] = psnr(found["VQ-VAE"])
print(
    f"VQ-VAE {figures['VQ-VAE']:.2f} dB  {codes[0].numel() * 9} bits  "
    f"{len(codes.unique())} of 512 codes used"
)

# %% [markdown]
# ## 5. The variational feature-transform model
#
# A VQ-VAE learns its codebook, and how often each code occurs is an accident: random codes decode
# to noise, and a prior has to be learned. Here the *prior comes first*. The encoder is variational;
# a learnable map $f$ takes its draw to a feature space, where a term pulls it to $N(0, I)$; and the
# codebook is not learned at all: every channel is cut into $L$ bins of equal probability under the
# normal distribution, $\Phi^{-1}(i / L)$, and a code is the tuple of bins.
#
# $$z \sim q(z \mid x), \quad z' = f(z), \quad q = Q_{N(0, I)}(z'), \quad \hat x = g(q)$$
# $$L = \log \lVert x - \hat x \rVert^2 + \beta\, KL(q(z \mid x) \Vert N(0, I))
# + \gamma\, D(z', N(0, I)) + \lVert z' - \mathrm{sg}[q] \rVert^2$$
#
# | formula | class |
# |---|---|
# | $q(z \mid x)$, $KL$ | `vqkit.model.gaussian.sample`, `.kl` |
# | $f$ | `vqkit.model.transform` (`mlp`, `conv`, or `linear`, which the decoder undoes) |
# | $D$ | `vqkit.model.normality.SlicedWasserstein`: sorted random projections against $\Phi^{-1}$ |
# | $Q_{N(0, I)}$ | `vqkit.nn.GaussianCodebook` |
#
# If $z'$ follows the normal distribution, all codes are equally likely, so that uniform random
# codes *are* the prior. As a recipe: `vqkit train emoji --out DIR --recipe variational`.

# %%
torch.manual_seed(0)
CHANNELS = 3  # of 8 bins each: 512 codes, as above
encode, decode = encoder(2 * LATENT), nn.Sequential(nn.Conv2d(CHANNELS, LATENT, 1), decoder())
transform = build_transform(TransformConfig(kind="mlp", latent_dim=LATENT), quantizer_dim=CHANNELS)
bins = GaussianCodebook(dim=CHANNELS, levels=[8, 8, 8], channel_first=True)
distance = SlicedWasserstein()
KL = 0.01


def variational_step(x):
    mean, log_variance = gaussian.mean_and_log_variance(encode(x))
    features = transform(gaussian.sample(mean, log_variance))
    out = bins(features)
    nats = gaussian.kl(mean, log_variance) * 2 / x[0].numel()
    pull = distance(features)
    return log_error(decode(out.quantized), x) + KL * nats + pull + out.terms["commitment"]


fit(variational_step, [encode, transform, bins, decode])


@torch.no_grad()
def features_of(images):
    return transform(gaussian.mean_and_log_variance(encode(images))[0])


with torch.no_grad():
    own_codes = bins.encode(features_of(test))
    found["variational"] = decode(bins.decode(own_codes))
figures["variational"] = psnr(found["variational"])
print(
    f"variational {figures['variational']:.2f} dB  {own_codes[0].numel() * 9} bits  "
    f"{len(own_codes.unique())} of 512 codes used"
)

# %%
grids({"inputs": test[:16], "reconstructions": found["variational"][:16]}, columns=4, width=7)

# %% [markdown]
# ## All of them
#
# The same twelve held-out emoji. The first three keep real numbers; the last two keep 576 bits.

# %%
rows({name: images[:12] for name, images in found.items()})

# %% [markdown]
# What did the transform do? Left: the features before the bins, against the normal density that the
# bins are made for. Right: how often each of the 512 codes occurs; flat is what makes random codes
# meaningful, and what leaves an entropy coder nothing to save.


# %%
def shares(codes):
    counts = torch.bincount(codes.flatten(), minlength=512).float()
    return (counts / counts.sum()).sort(descending=True).values


def entropy(share):
    return float(-(share[share > 0] * share[share > 0].log2()).sum())


with torch.no_grad():
    wide = features_of(train[:1000])
    train_codes = {"VQ-VAE": vq_codes, "variational": bins.encode(wide)}
figure, (left, right) = subplots(1, 2, figsize=(10, 3.2))
grid = torch.linspace(-4, 4, 200)
left.hist(wide.flatten().numpy(), bins=80, range=(-4, 4), density=True, color=BLUE, alpha=0.6)
left.plot(grid, torch.exp(-grid.square() / 2) / 2.5066, color=ORANGE, label="$N(0, 1)$")
left.set_title("features $z'$ of training images")
left.set_yticks([])
left.legend()
for (name, found_codes), colour in zip(train_codes.items(), (GREY, BLUE), strict=True):
    share = shares(found_codes)
    right.plot(100 * share, color=colour, label=f"{name}: {entropy(share):.1f} of 9 bits")
    print(f"{name} codes have {entropy(share):.1f} of 9 bits of entropy")
right.set_yscale("log")
right.set_title("share of each code, most used first, %")
right.set_xlabel("rank of the code")
right.legend()
plt.show()

# %% [markdown]
# Codes drawn uniformly, decoded. The variational model gives textures and colours of emoji; neither
# gives objects, since codes of one image are not independent. That is what a prior is for: see
# *A prior draws*.

# %%
drawn = torch.randint(512, (12, 8, 8), generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    rows({"uniform codes,\nvariational": decode(bins.decode(drawn))})
print(f"order by PSNR: {', '.join(sorted(figures, key=figures.get, reverse=True))}")
