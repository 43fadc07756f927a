import re

import numpy as np
import yaml
from PIL import Image

from vqkit.report.card import add_prior_to_card, write_card
from vqkit.report.summary import Ranked

from .summaries import EVIL, summary


def parts(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_header_links_and_commands(tmp_path):
    folder = tmp_path / "my model"
    write_card(summary(), folder)
    header, body = parts(folder)
    assert (
        header["library_name"] == "vqkit"
        and header["license"] == "other"
        and "vq-vae" in header["tags"]
    )
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", body)
    assert sorted(links) == [
        "samples/codes.png",
        "samples/curves.png",
        "samples/reconstructions.png",
    ]
    for link in links:
        with Image.open(folder / link) as picture:
            assert min(picture.size) > 100
    assert "vqkit reconstruct 'my model' FILES... --out reconstructed" in body
    assert "model = vqkit.load('my model')" in body
    assert "| PSNR | 26.4 dB |" in body and "vqkit train images --out run" in body
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "samples"]


def test_no_dead_links_when_parts_are_missing(tmp_path):
    nothing = np.zeros((0, 8, 8, 3), np.uint8)
    write_card(
        summary(
            originals=nothing,
            reconstructions=nothing,
            history=(),
            code_counts=None,
            metrics={},
            data={},
            psnr_per_image=np.zeros(0),
            worst=Ranked(),
            best=Ranked(),
        ),
        tmp_path,
    )
    assert "samples/" not in parts(tmp_path)[1] and not (tmp_path / "samples").exists()


def test_untrusted_names_stay_text(tmp_path):
    write_card(
        summary(title=EVIL, data={"bad_files": {EVIL: "a\nb|c"}}, command="```\n# x"), tmp_path
    )
    body = parts(tmp_path)[1]
    assert "<img" not in body and "&lt;img src=x onerror=alert(1)&gt;\\|\\`\\*.png: a b\\|c" in body
    assert "````sh\n```\n# x\n````" in body


METRICS = {
    "bits_per_code": 3.04,
    "saving_vs_order0": 0.24,
    "label_bits": None,
    "split": "test",
    "lr_of_no_interest": 1,
}


def test_prior_section_is_replaced_and_not_doubled(tmp_path):
    write_card(summary(), tmp_path)
    path = tmp_path / "README.md"
    before = path.read_bytes()
    add_prior_to_card(tmp_path, METRICS)
    first = path.read_bytes()
    assert first.startswith(before), "what was there is as it was"
    text = first.decode()
    assert (
        "| Bits per code | 3.04 |" in text
        and "| Saving | 24 % |" in text
        and "(prior/samples.png)" in text
    )
    assert "interest" not in text and "| Bits of the class |" not in text
    path.write_bytes(first + b"My own words.\r\n")
    add_prior_to_card(tmp_path, {**METRICS, "bits_per_code": 2.5})
    assert path.read_bytes() == first.replace(b"3.04", b"2.5") + b"My own words.\r\n"
    assert {entry.name for entry in tmp_path.iterdir()} == {"README.md", "samples"}


def test_prior_section_spares_what_lies_between_broken_markers(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- prior: begin -->\n\nkeep me")
    for bits in (3.0, 2.0):
        add_prior_to_card(tmp_path, {"bits_per_code": bits, "split": r"\1 |x"})
    text = path.read_text()
    assert text.startswith("<!-- prior: begin -->\n\nkeep me\n\n<!-- prior: begin -->\n\n## Prior")
    assert (
        text.count("## Prior") == 1
        and "| Bits per code | 2 |" in text
        and "3" not in text.partition("## Prior")[2]
    )


def test_no_card_no_section(tmp_path):
    add_prior_to_card(tmp_path, METRICS)
    assert not list(tmp_path.iterdir())


def test_hostile_names_are_harmless_in_the_card(tmp_path):
    hostile = "a\x1b[31m<script>alert(1)</script>\u202e|`b`\udc80"
    bad = [{"name": hostile, "reason": hostile}]
    data = {**summary().data, "name": hostile, "bad": bad}
    found = summary(title=hostile, command=f"vqkit train {hostile}", data=data)
    write_card(found, tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not set("\x1b\u202e\udc80") & set(card)
    # Inside of a fence tags are text; everywhere else they are escaped.
    outside = re.sub(r"(`{3,})[a-z]*\n.*?\n\1", "", card, flags=re.DOTALL)
    assert "<script" not in outside and "&lt;script" in outside
