# %% [markdown]
# # Codes explained
#
# What does code 37 stand for? What happens to an image when it becomes code 12? Which codes give
# away the label? `vqkit explain DIR DATA --out codes.html` makes a page to click through; this
# notebook shows what it measures, from Python.

# %%
import numpy as np
import torch
from look import BLUE, mosaic, pixels, subplots

import vqkit
from vqkit.apps.explain import explain, open_data

settings = [
    *["train.steps=150", "train.precision=float32", "train.max_minutes=null", "coder.steps=0"],
    *["model.network.width=64", "model.quantizer.codebook_size=64", "train.validate_every=75"],
]
model = vqkit.train("emoji", "runs/emoji", "emoji", settings, display=vqkit.live())
print(f"{model.metrics['psnr']:.1f} dB with 64 positions of 6 bits")

# %%
emoji = open_data(model, "emoji")
found = explain(model, emoji, num=1500)
book = found.books[0]
print(f"{len(book.codes)} of 64 codes occur, perplexity {book.perplexity:.0f}")

# %% [markdown]
# ## An atlas
#
# The mean of all patches that got a code, the most used first; under it the real patches nearest to
# that mean. White is common, and edges of every direction and colour come next.

# %%
shown = 16
figure, axis = subplots(figsize=(10, 3.4))
patches = [book.means[:shown], *(book.typical[:shown, row] for row in range(4))]
axis.imshow(mosaic(np.concatenate(patches), shown, gap=1), interpolation="nearest")
axis.set_yticks([])
side = book.means.shape[1] + 1
axis.set_xticks([side * column + side / 2 for column in range(shown)], book.codes[:shown])
axis.tick_params(length=0)
axis.set_title("mean patch (top row) and four real ones, by the number of the code")
for spine in axis.spines.values():
    spine.set_visible(False)
figure.show()

# %% [markdown]
# ## Where codes occur, and how often

# %%
figure, axes = subplots(1, 2, figsize=(9, 3.0), width_ratios=[1.4, 1])
share = np.sort(book.counts)[::-1] / book.counts.sum()
axes[0].bar(range(len(share)), 100 * share, color=BLUE, width=0.85)
axes[0].set_title("share of each code, %")
axes[0].set_xlabel("codes, most used first")
image = axes[1].imshow(found.importance, cmap="viridis")
axes[1].set_title("pixels change by so many levels\nwhen the code at a position changes")
axes[1].set_axis_off()
figure.colorbar(image, ax=axes[1], shrink=0.85)
figure.show()

# %% [markdown]
# ## Paint with codes
#
# Codes are a grid of numbers that can be edited. Here the code that is commonest in the middle of
# an image is replaced everywhere by others of the codebook; nothing else changes.

# %%
item = emoji.read(emoji.splits["test"][3:4]).values
codes = model.tokenizer.encode(item)
values, counts = codes[0, 0, 2:6, 2:6].unique(return_counts=True)
common = int(values[counts.argmax()])
targets = [int(code) for code in book.codes[1:8] if code != common][:6]
painted = [item]
for target in (common, *targets):
    changed = torch.where(codes == common, target, codes)
    painted.append(model.tokenizer.decode(changed, item.shape[2:]))
figure, axes = subplots(1, len(painted), figsize=(10, 1.7))
titles = ["original", "its codes", *(f"{common} to {target}" for target in targets)]
for axis, title, values in zip(axes, titles, painted, strict=True):
    axis.imshow(pixels(values)[0], interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
figure.show()

# %% [markdown]
# ## What codes tell of the label
#
# Emoji come in groups: faces, animals, flags. How many bits does the presence of a code give about
# the group? The same number with shuffled labels is what chance gives. And a linear probe on counts
# of codes, fitted on one part of the images and tested on another, says how much all codes together
# know.

# %%
probe = found.probe
print(f"the commonest group: {100 * probe.majority:.0f} %")
for seen, accuracy in probe.accuracy.items():
    print(f"a linear probe that sees {seen}: {100 * accuracy:.0f} %")

# %% [markdown]
# The whole page, with everything to click:
#
#     vqkit explain runs/emoji emoji --out codes.html
