"""Encode and decode an image with `vqkit export DIR --to onnx --out FOLDER`, without PyTorch.

pip install onnxruntime numpy pillow
python onnx_without_torch.py FOLDER in.png out.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(folder: str, source: str, target: str) -> None:
    encoder = onnxruntime.InferenceSession(f"{folder}/encoder.onnx")
    decoder = onnxruntime.InferenceSession(f"{folder}/decoder.onnx")
    said = encoder.get_modelmeta().custom_metadata_map
    channels, *_ = json.loads(said["vqkit.shape"])
    tile = json.loads(said["vqkit.tile"])
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    with Image.open(source) as file:
        pixels = np.asarray(file.convert(mode)).reshape(file.height, file.width, channels)

    height, width, _ = pixels.shape
    # Whole tiles, and enough of them: the last row and column are repeated.
    least = json.loads(said["vqkit.least_tiles"])
    sides = zip((height, width), tile, strict=True)
    behind = [(0, max(-side % step, least * step - side)) for side, step in sides]
    padded = np.pad(pixels, [*behind, (0, 0)], mode="edge")
    values = padded.transpose(2, 0, 1)[None]  # (1, C, H, W) uint8
    (codes,) = encoder.run(None, {"values": values})
    print(" x ".join(map(str, codes.shape[1:])), "codes")
    (decoded,) = decoder.run(None, {"codes": codes})
    image = decoded[0, :, :height, :width].transpose(1, 2, 0)
    Image.fromarray(image.squeeze() if channels == 1 else image).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
