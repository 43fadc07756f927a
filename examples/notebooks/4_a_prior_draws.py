# %% [markdown]
# # A prior draws
#
# Codes of a VQ-VAE do not come independently of one another. A *prior*, here a transformer over the
# codes, learns which go together; then it can draw new items, complete old ones, and say in bits
# how unusual one is. Eight-pixel digits of scikit-learn keep this page within a minute.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from look import BLUE, GREY, RED, rows, subplots
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import vqkit
from vqkit.apps.generate import generate
from vqkit.prior.prior import Drawing
from vqkit.prior.sampling import Sampling

# %% [markdown]
# ## Two trainings
#
# First the model that makes codes, 16 of 6 bits a digit, then the prior over them, conditioned on
# the class. On the command line:
#
#     vqkit train digits --out runs/digits
#     vqkit train-prior runs/digits digits

# %%
settings = [
    *["data.image_size=[8,8]", "model.network.patch_size=2", "model.quantizer.codebook_size=64"],
    *["train.steps=300", "train.precision=float32", "train.max_minutes=null", "coder.steps=0"],
    *["model.network.width=64", "train.validate_every=150"],
]
model = vqkit.train("digits", "runs/digits", "images", settings, display=vqkit.live())
print(f"{model.metrics['psnr']:.1f} dB, {100 * model.metrics['usage']:.0f} % of 64 codes in use")

# %%
short = [
    *["network.width=64", "network.num_blocks=2", "network.num_heads=4", "condition=class"],
    *["train.steps=300", "train.precision=float32", "train.max_minutes=null", "train.patience=0"],
    *["train.validate_every=150", "train.batch_size=64"],
]
model = vqkit.train_prior("runs/digits", "digits", "prior", short, display=vqkit.live())
bits = model.prior.metrics["bits_per_code"]
print(f"{bits:.2f} bits a code under the prior, 6 without it")

# %% [markdown]
# ## Draw
#
# $$p(k_1, \dots, k_{16} \mid c) = \prod_i p(k_i \mid k_{<i}, c)$$
#
# Uniform random codes, beside what the prior draws for each class, beside real digits. The same
# seed gives the same images for any batch size and number of threads.

# %%
generator = torch.Generator().manual_seed(0)
uniform = model.decode(torch.randint(64, (10, 1, 4, 4), generator=generator))
classes = [str(digit) for digit in range(10)]
drawn = generate(model, 40, drawing=Drawing(seed=0, classes=classes, sampling=Sampling(cfg=2.0)))
images = model.signal.to_array(drawn.values, model.data)

real = load_digits()
first = [np.flatnonzero(real.target == digit)[0] for digit in range(10)]
shown = {
    "uniform codes": uniform,
    **{f"drawn, {number + 1}": images[10 * number : 10 * number + 10] for number in range(3)},
    "real": (real.images[first] * 15.9375).astype(np.uint8)[..., None],
}
rows(shown, width=8)

# %% [markdown]
# Do they show what was asked for? A nearest-neighbour classifier, fitted on real digits, says how
# many of 400 drawn ones it takes for their class.

# %%
classifier = KNeighborsClassifier(3).fit(real.images.reshape(-1, 64), real.target)
many = generate(model, 400, drawing=Drawing(seed=1, classes=classes, sampling=Sampling(cfg=2.0)))
flat = many.values.reshape(400, 64).numpy() / 15.9375
right = (classifier.predict(flat) == np.arange(400) % 10).mean()
print(f"{100 * right:.0f} % are taken for their class; chance is 10 %")

# %% [markdown]
# ## Score
#
# The same prior tells how many bits an item costs. Digits upside down are made of the same strokes,
# but not in these places.

# %%
held_out = (real.images[::20] * 15.9375).astype(np.uint8)[..., None]
costs = {}
for name, items in (("as they are", held_out), ("upside down", held_out[:, ::-1])):
    values = model.to_values(np.ascontiguousarray(items))
    costs[name] = model.wanted_prior().bits(model.tokenizer.encode(torch.stack(values))).numpy()
    print(f"{name}: {costs[name].mean():.0f} bits")
figure, axis = subplots(figsize=(7.5, 2.6))
for (name, values), colour in zip(costs.items(), (BLUE, RED), strict=True):
    axis.hist(values, bins=30, range=(20, 120), alpha=0.6, color=colour, label=name)
axis.axvline(96, color=GREY, linestyle=(0, (3, 3)))
axis.text(96.5, axis.get_ylim()[1] * 0.9, "16 codes of 6 bits", color=GREY, fontsize=9)
axis.set_title("bits of a digit under the prior")
axis.legend()
plt.show()
