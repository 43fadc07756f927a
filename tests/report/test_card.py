import re

import numpy as np
import yaml
from PIL import Image

from vqkit.report import Ranked, write_card

from .summaries import EVIL, summary


def parts(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_header_links_and_commands(tmp_path):
    folder = tmp_path / "my model"
    write_card(summary(), folder)
    header, body = parts(folder)
    assert header["library_name"] == "vqkit" and header["license"] == "other" and "vq-vae" in header["tags"]
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", body)
    assert sorted(links) == ["samples/codes.png", "samples/curves.png", "samples/reconstructions.png"]
    for link in links:
        with Image.open(folder / link) as picture:
            assert min(picture.size) > 100
    assert "vqkit reconstruct 'my model' FILES... --out reconstructed" in body
    assert "artifact = vqkit.load('my model')" in body
    assert "| PSNR | 26.4 dB |" in body and "vqkit train images --out run" in body
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "samples"]


def test_no_dead_links_when_parts_are_missing(tmp_path):
    nothing = np.zeros((0, 8, 8, 3), np.uint8)
    write_card(summary(originals=nothing, reconstructions=nothing, history=(), code_counts=None, metrics={}, data={},
                       psnr_per_image=np.zeros(0), worst=Ranked(), best=Ranked()), tmp_path)  # fmt: skip
    assert "samples/" not in parts(tmp_path)[1] and not (tmp_path / "samples").exists()


def test_untrusted_names_stay_text(tmp_path):
    write_card(summary(title=EVIL, data={"bad_files": {EVIL: "a\nb|c"}}, command="```\n# x"), tmp_path)
    body = parts(tmp_path)[1]
    assert "<img" not in body and "&lt;img src=x onerror=alert(1)&gt;\\|\\`\\*.png: a b\\|c" in body
    assert "````sh\n```\n# x\n````" in body
