# %% [markdown]
# # Your photographs to a codec in ten minutes
#
# A folder of photographs goes in; a model comes out that writes files smaller than JPEG's. Here
# six photographs that ship with scikit-image and scikit-learn stand in for yours, and training
# stops after 60 steps so that this page runs in a minute. With a folder of your own, leave
# `overrides` out: ten minutes are what the settings are made for.

# %%
import io
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage
import sklearn.datasets
from look import subplots
from PIL import Image

import vqkit

folders = [Path(skimage.data_dir), Path(sklearn.datasets.__file__).parent / "images"]
names = ["astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "china.jpg"]
Path("photos").mkdir(exist_ok=True)
for folder in folders:
    for name in [*names, "flower.jpg"]:
        if (folder / name).exists():
            shutil.copy(folder / name, "photos")
print(len(list(Path("photos").iterdir())), "photographs")

# %% [markdown]
# ## Train
#
# `vqkit.train` looks at the folder and chooses settings; `photos` is the recipe for a few large
# photographs. Its networks begin as a classical transform codec and learn what to add, so that
# even a minute is of use. On the command line this is
#
#     vqkit train photos --out runs/photos --minutes 10

# %%
short = ["train.steps=60", "train.precision=float32", "coder.steps=0"]
model = vqkit.train("photos", "runs/photos", overrides=short, display=vqkit.live())
model

# %% [markdown]
# ## Look
#
# Training always ends with a usable model and a report. The report says what speaks against the
# run, here rightly that it was cut short. The page itself is `runs/photos/report.html`.

# %%
vqkit.Report("runs/photos")

# %% [markdown]
# ## Compress a photograph that it has never seen
#
# The cat is not among the photographs above. The model writes a real file of at most 0.25 bits a
# pixel, header and all. JPEG and WebP get the same number of bytes, or as few more as they can.

# %%
cat = Image.open(folders[0] / "chelsea.png").convert("RGB").crop((60, 20, 316, 276))
file = model.compress(cat, rate=0.25)
back = model.decompress(file)


def psnr(one, other):
    error = np.square(np.asarray(one, float) - np.asarray(other, float)).mean()
    return 10 * np.log10(255**2 / error)


def classical(kind, size):
    """The image as this codec has it in the fewest bytes that are no fewer than `size`."""
    for quality in range(1, 100):
        buffer = io.BytesIO()
        cat.save(buffer, kind, quality=quality)
        if len(buffer.getvalue()) >= size:
            return len(buffer.getvalue()), np.asarray(Image.open(buffer).convert("RGB"))


shown = {"vqkit": (len(file), back)}
for kind in ("WEBP", "JPEG"):
    shown[kind] = classical(kind, len(file))
for name, (size, image) in shown.items():
    print(f"{name:<6} {size} bytes  {psnr(image, cat):.1f} dB")

# %%
figure, axes = subplots(1, 4, figsize=(11, 3.1))
axes[0].set_title(f"original, {3 * 256 * 256 // 1024} kB")
axes[0].imshow(cat)
for axis, (name, (size, image)) in zip(axes[1:], shown.items(), strict=True):
    axis.imshow(image)
    axis.set_title(f"{name}, {size:,} bytes")
for axis in axes:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# One model writes every rate. A larger file is a larger number behind `rate`, and the same `.vq`
# file opens on every machine, because its bytes are decoded with integers only.

# %%
for rate in (0.1, 0.25, 0.5, 1.0):
    file = model.compress(cat, rate=rate)
    print(
        f"at most {rate} bits a pixel: {len(file)} bytes  "
        f"{psnr(model.decompress(file), cat):.1f} dB"
    )

# %% [markdown]
# AVIF is not in the figure: after twenty minutes of training on a thousand photographs it still
# needs a fifth fewer bytes than vqkit (docs/benchmarks/photos.md). What a model of your own can do
# that no standard can is the rest of these pages: codes, priors, sound, text.
