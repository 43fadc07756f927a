"""The HTML page of an explanation: an atlas that stays quick with sixteen thousand codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from . import figures
from .images import code_map, data_uri
from .tables import Row
from .templates import drawing_uri, fill, image_uri, media_uri, shown_size, titled
from .verdict import Finding, Verdict
from .wording import count, number, share

# A browser decodes only the sheets that it shows.
CODES_PER_SHEET = 256
TOP_LABELS = 5
MAX_PAIRS = 24
MAX_MARKS = 8
MAX_MAPS = 8
MAX_BARS = 16


def write_explanation(
    explanation: Mapping[str, Any], path: Path, *, title: str, command: str, settings: str
) -> None:
    """Write the page of an explanation: the fields of apps.explain.Explanation and of its parts, as
    dictionaries.

    title: of the model. command: how to get the page again. settings: of the model, as YAML. At
    `path` there is the old file or the whole new one.
    """
    page = render_explanation(explanation, title=title, command=command, settings=settings)
    write_text(Path(path), page)


def render_explanation(
    explanation: Mapping[str, Any], *, title: str, command: str, settings: str
) -> str:
    """The page as text. All strings are escaped: names of labels and files are not to be
    trusted.
    """
    books = explanation["books"]
    metrics = explanation["metrics"]
    labels = explanation["labels"]
    probe = explanation["probe"]
    peel = explanation["peel"]
    surprise = explanation["surprise"]
    wording = explanation["wording"]
    first = explanation["mean_item"]
    if first is None:
        first = explanation["pool"]["shown"][0]
    usage = figures.code_usage([book["counts"] for book in books])
    return fill(
        "explain.html",
        summary={"title": title, "command": command, "config_yaml": settings},
        kicker=["vqkit explain", f"{count(metrics['items'])} training {wording['item']}s"],
        verdict=_verdict(metrics, wording, len(books)),
        tiles=_tiles(metrics, wording),
        pixels=shown_size(*first.shape),
        wording=wording,
        item=wording["item"],
        an_item=f"{'an' if wording['item'][0] in 'aeiou' else 'a'} {wording['item']}",
        pool=explanation["pool"] is not None,
        strings=any(book.get("strings") for book in books),
        places=explanation["places"],
        lengths=_lengths(explanation),
        metrics=metrics,
        books=[_book_rows(book) for book in books],
        usage=titled({"How often each code is used": usage}),
        maps=[_usage_map(book) for book in books[:MAX_MAPS]],
        # Parts that were not measured are None, and stay so.
        labels=labels and _label_rows(labels, wording["item"], explanation["places"]),
        probe=probe and _probe_bars(probe),
        peel=peel and _peel_rows(peel, wording),
        surprise=surprise and _surprise_rows(surprise, wording),
        pairs=_pairs(books),
        data=_data(explanation),
    )


def _lengths(explanation: Mapping[str, Any]) -> dict[str, str]:
    """Lengths within an item, with their unit."""
    wording = explanation["wording"]
    field = explanation["field"]
    side = [length + 2 * field["margin"] for length in field["cell"]]
    lengths = {"cell": field["cell"], "side": side, "extent": field["extent"]}
    pool = explanation["pool"]
    if pool:
        lengths["window"] = [pool["window"]]
        lengths["item"] = [pool["longest"]]
    return {name: _size(sides, wording) for name, sides in lengths.items()}


# -------------------------------------------------------------------------------------------- texts


def _verdict(metrics: Mapping[str, Any], wording: Mapping[str, Any], num_books: int) -> Verdict:
    dead = metrics["dead_codes"]
    pairs = metrics["close_pairs"]
    used = "every code is in use"
    if dead:
        used = f"{share(metrics['usage'])} of the codes are in use"
    told = f"{used}; a code is decided by {_size(metrics['receptive_field'], wording)}"
    item = wording["item"]
    if "label_bits" in metrics:
        told += (
            f", and the code that tells most tells {number(metrics['information_at_best'])} of "
            f"the {number(metrics['label_bits'])} bits that name the {metrics['label']}"
        )
    findings = []
    if dead:
        text = f"{count(dead)} of {count(metrics['codes'])} codes never occur in these {item}s."
        told_next = f"vqkit prune takes out those that no training {item} uses."
        findings.append(Finding("dead codes", text, told_next if num_books == 1 else ""))
    if pairs:
        text = f"{count(pairs)} pairs of codes are nearly the same vector."
        told_next = f"vqkit prune merges them as far as the {item}s allow."
        findings.append(Finding("duplicates", text, told_next if num_books == 1 else ""))
    steps = (
        "vqkit explain DIR DATA --swap 12 34 adds a swap of two codes that you choose.",
        "vqkit prune DIR takes out dead codes and merges duplicates of a single learned codebook, "
        f"and measures that the {item}s stay.",
    )
    return Verdict(not dead, "In short", told + ".", tuple(findings), steps)


def _tiles(metrics: Mapping[str, Any], wording: Mapping[str, Any]) -> list[Row]:
    rows = [
        Row("Codes", count(metrics["codes"])),
        Row("Usage", *share(metrics["usage"]).rsplit(" ", 1)),
        Row("Perplexity", number(metrics["perplexity"])),
        Row("A code sees", *_size(metrics["receptive_field"], wording).rsplit(" ", 1)),
    ]
    if "information_at_best" in metrics:
        bits = number(metrics["information_at_best"])
        rows.append(Row("Best code tells", bits, f"bits of {metrics['label']}"))
    if "probe_codes" in metrics:
        value, unit = share(metrics["probe_vectors_of_the_codes"]).rsplit(" ", 1)
        rows.append(Row("Label read off", value, unit))
    return rows


def _size(sides: Sequence[int], wording: Mapping[str, Any]) -> str:
    """Positions along each side of a box, with the unit that lengths are told in."""
    return f"{' × '.join(_in_unit(side, wording) for side in sides)} {wording['unit']}"


def _in_unit(positions: float, wording: Mapping[str, Any]) -> str:
    return count(positions / wording["positions"])


def _book_rows(book: Mapping[str, Any]) -> dict[str, Any]:
    counts = book["counts"]
    used = int((counts > 0).sum())
    explained = book["explained"]
    return {
        "name": book["name"],
        "size": count(len(counts)),
        "used": f"{count(used)} ({share(used / len(counts))})",
        "perplexity": number(book["perplexity"]),
        "bits": f"{number(book['entropy_bits'])} of {number(np.log2(len(counts)))}",
        "close": count(len(book["close"])),
        "shown": len(book["codes"]),
        "is_leftover": book.get("gain", 0) > 0,
        "explained": None if explained is None else share(explained),
    }


def _usage_map(book: Mapping[str, Any]) -> dict[str, Any]:
    image = code_map(book["counts"])
    dead = int((book["counts"] == 0).sum())
    return {
        "uri": data_uri(image),
        "columns": image.width,
        "rows": image.height,
        "name": book["name"],
        "dead": dead,
    }


def _label_rows(labels: Mapping[str, Any], item: str, places: Sequence[str]) -> dict[str, Any]:
    information = labels["information"]
    rows = []
    totals = np.bincount(labels["numbers"], minlength=len(labels["names"]))
    for index, name in enumerate(labels["names"]):
        marks = _marks_of(labels, index, item)
        rows.append({"name": name, "items": count(totals[index]), "marks": marks})
    net = _net(information)
    p_values = information["p_values"]
    return {
        "column": labels["column"],
        "bits": number(labels["entropy_bits"]),
        "p_value": f"{information['p_value']:.3g}",
        "mean": number(net.mean()),
        "best": number(net.max()),
        "chance": number(information["chance"].mean()),
        "significant": f"{int((p_values <= 0.01).sum())} of {p_values.size}",
        "of_places": _information_bars(net, labels["entropy_bits"], places),
        "rows": rows,
    }


def _information_bars(net: np.ndarray, most: float, places: Sequence[str]) -> list[dict[str, Any]]:
    """What one code tells, by its place along Q: bits of `most`."""
    bars = []
    for name, bits in zip(places, net.reshape(len(places), -1).mean(1), strict=True):
        bars.append({"name": name, "percent": 100 * bits / most, "text": f"{number(bits)} bits"})
    return bars[:MAX_BARS]


def _marks_of(labels: Mapping[str, Any], label: int, item: str) -> list[dict[str, Any]]:
    """The codes that speak for a label, the most significant first."""
    marks = []
    for book, each in enumerate(labels["marks"]):
        for mark in each:
            if mark["label"] == label:
                marks.append((book, mark))
    marks.sort(key=lambda pair: pair[1]["p_value"])
    return [_mark(book, mark, item) for book, mark in marks[:MAX_MARKS]]


def _mark(book: int, mark: Mapping[str, Any], item: str) -> dict[str, Any]:
    told = (
        f"{mark['of_label']} of {mark['items']} {item}s with this code; p = "
        f"{max(mark['p_value'], 1e-300):.0e}"
    )
    return {"book": book, "row": mark["row"], "lift": number(mark["lift"]), "told": told}


def _net(information: Mapping[str, Any]) -> np.ndarray:
    return np.maximum(information["bits"] - information["chance"], 0)


def _probe_bars(probe: Mapping[str, Any]) -> dict[str, Any]:
    bars = []
    for kind, accuracy in probe["accuracy"].items():
        text = f"{share(accuracy)} ± {100 * probe['error'][kind]:.1f}"
        bars.append({"name": kind, "percent": 100 * accuracy, "text": text})
    majority = probe["majority"]
    text = share(majority)
    bars.append({"name": "always the commonest", "percent": 100 * majority, "text": text})
    return {"bars": bars, "items": list(map(count, probe["items"]))}


def _peel_rows(peel: Mapping[str, Any], wording: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [{"name": "original", "note": "", "items": _seen_and_heard(peel, 0, wording)}]
    for index, stages in enumerate(peel["stages"]):
        name = "stage 1" if stages == 1 else f"stages 1 to {stages}"
        size = f"{count(peel['bits'][index])} bits"
        if wording["media_type"]:
            size = f"{number(peel['rates'][index])} {peel['rate_in_words']}"
        note = f"{peel['quality'][index]:.2f} {wording['quality_unit']}, {size}"
        rows.append(
            {"name": name, "note": note, "items": _seen_and_heard(peel, index + 1, wording)}
        )
    return rows


def _seen_and_heard(
    peel: Mapping[str, Any], row: int, wording: Mapping[str, Any]
) -> list[dict[str, str]]:
    """The items of one row, the originals first: as an image, and as a file where there is one."""
    shown = peel["originals"] if row == 0 else peel["shown"][row - 1]
    played = _media(peel["played"][row], wording)
    uris = list(map(_uri(wording), shown))
    items = []
    for index, name in enumerate(peel["names"]):
        heard = played[index] if played else ""
        items.append({"shown": uris[index], "played": heard, "name": name})
    return items


def _surprise_rows(surprise: Mapping[str, Any], wording: Mapping[str, Any]) -> dict[str, Any]:
    played = _media(surprise["played"], wording)
    rows = []
    for index, name in enumerate(surprise["names"]):
        bits = surprise["bits"][index]
        rows.append(
            {
                "name": name,
                "bits": count(bits.sum()),
                "each": number(bits.mean()),
                "rank": count(surprise["ranks"][index]),
                "played": played[index] if played else "",
            }
        )
    return {"source": surprise["source"], "items": count(surprise["items"]), "rows": rows}


def _media(files: Sequence[bytes], wording: Mapping[str, Any]) -> list[str]:
    return [media_uri(file, wording["media_type"]) for file in files]


def _uri(wording: Mapping[str, Any]) -> Callable[[np.ndarray], str]:
    """How what is seen of an item becomes the source of an <img>: drawings have few colours."""
    return drawing_uri if wording["media_type"] else image_uri


def _pairs(books: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    pairs = []
    for index, book in enumerate(books):
        for rows in book["close"]:
            codes = [int(book["codes"][row]) for row in rows]
            pairs.append({"book": index, "rows": rows, "codes": codes})
    return pairs[:MAX_PAIRS]


# --------------------------------------------------------------------------------------------- data


def _data(explanation: Mapping[str, Any]) -> Any:
    """What the script of the page draws from, as JSON inside of a script element."""
    from markupsafe import Markup

    books = explanation["books"]
    labels = explanation["labels"]
    surprise = explanation["surprise"]
    pool = explanation["pool"]
    wording = explanation["wording"]
    book_data = _patch_data if pool is None else _cutout_data
    tree: dict[str, Any] = {
        "item": wording["item"],
        "books": [],
        "labels": labels["names"] if labels else [],
        "swaps": _swap_data(explanation["swaps"], wording),
    }
    for index, book in enumerate(books):
        tree["books"].append(_book_data(book, labels, index) | book_data(book))
    if pool is None:
        tree["core"] = _core(explanation["field"])
        tree["mean"] = image_uri(explanation["mean_item"])
        tree["heats"] = _heats(explanation)
    else:
        tree["pool"] = _pool_data(pool, labels, wording)
    if surprise:
        extents = []
        for extent in surprise["extents"]:
            extents.append([side / wording["positions"] for side in extent])
        tree["surprise"] = {
            "shown": list(map(_uri(wording), surprise["shown"])),
            "bits": [_rounded(bits) for bits in surprise["bits"]],
            "changes": [_rounded(changes) for changes in surprise["changes"]],
            "extents": extents,
            "change": wording["change"],
        }
    text = json.dumps(tree, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    return Markup(text)


def _core(field: Mapping[str, Any]) -> list[float]:
    """Top, left, height and width of the cell in a patch, as shares of its sides."""
    starts = []
    lengths = []
    for cell in field["cell"]:
        side = cell + 2 * field["margin"]
        starts.append(round(field["margin"] / side, 4))
        lengths.append(round(cell / side, 4))
    return starts + lengths


def _book_data(
    book: Mapping[str, Any], labels: Mapping[str, Any] | None, index: int
) -> dict[str, Any]:
    """What is known of the codes of any model."""
    plane = book["plane"] - book["plane"].min(0)
    tree = {
        "name": book["name"],
        "codes": book["codes"].tolist(),
        "counts": book["counts"][book["codes"]].tolist(),
        "total": int(book["counts"].sum()),
        "plane": _rounded(plane / np.maximum(plane.max(0), 1e-12)),
        "near": book["neighbours"].tolist(),
        "items": [],
        "told": [],
        "marks": [],
    }
    if labels:
        presence = labels["presence"][index]
        top = np.argsort(-presence, axis=1, kind="stable")[:, :TOP_LABELS]
        tree["items"] = presence.sum(1).tolist()
        tree["told"] = np.stack([top, np.take_along_axis(presence, top, 1)], 2).tolist()
        for mark in labels["marks"][index]:
            tree["marks"].append([mark["row"], mark["label"], round(mark["lift"], 2)])
    return tree


def _patch_data(book: Mapping[str, Any]) -> dict[str, Any]:
    """The patches of the codes, and where these occur."""
    # A row for each shown code: its mean, then the typical patches, (S, 1 + n, s, s, C).
    strips = np.concatenate([book["means"][:, None], book["typical"]], 1)
    num, columns, height, width, channels = strips.shape
    rows = strips.transpose(0, 2, 1, 3, 4).reshape(num * height, columns * width, channels)
    positions = book["positions"] / np.maximum(book["positions"].max((1, 2), keepdims=True), 1)
    cells = np.rint(255 * positions).astype(np.uint8)
    high, wide = cells.shape[1:]
    return {
        "patch": [height, width, columns - 1],
        "sheets": _sheets(rows, height),
        "grid": [high, wide],
        "maps": _sheets(cells.reshape(num * high, wide, 1), high),
        "typical": book["num_typical"].tolist(),
    }


def _cutout_data(book: Mapping[str, Any]) -> dict[str, Any]:
    """For each code its cut-outs: part, first position, first position of the code in the part; and
    its strings with their counts.
    """
    pairs = zip(book["cutouts"], book["num_cutouts"], strict=True)
    cutouts = [places[:num].tolist() for places, num in pairs]
    return {"cutouts": cutouts, "strings": book["strings"]}


def _pool_data(
    pool: Mapping[str, Any], labels: Mapping[str, Any] | None, wording: Mapping[str, Any]
) -> dict[str, Any]:
    starts = [f"{_in_unit(start, wording)} {wording['unit']}" for start in pool["starts"]]
    return {
        "shown": list(map(_uri(wording), pool["shown"])),
        "played": _media(pool["played"], wording),
        "lengths": pool["lengths"].tolist(),
        "names": pool["names"],
        "starts": starts,
        "labels": labels["numbers"][pool["items"]].tolist() if labels else [],
        "window": pool["window"],
        "cell": pool["cell"],
        "unit": wording["unit"],
        "each": wording["positions"],
    }


def _sheets(rows: np.ndarray, height: int) -> list[str]:
    """Rows (S * height, W, C) of pixels as images of CODES_PER_SHEET codes each."""
    step = CODES_PER_SHEET * height
    return [image_uri(rows[start : start + step]) for start in range(0, len(rows), step)]


def _swap_data(
    swaps: Sequence[Mapping[str, Any]], wording: Mapping[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for swap in swaps:
        side_by_side = np.concatenate(list(swap["shown"]), 1)
        rows.append(
            {
                "code": swap["code"],
                "other": swap["other"],
                "place": list(swap["place"]),
                "here": round(swap["here"], 2),
                "everywhere": round(swap["everywhere"], 2),
                "places": swap["places"].astype(int).tolist(),
                "strip": _uri(wording)(side_by_side),
                "played": _media(swap["played"], wording),
            }
        )
    return rows


def _heats(explanation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Maps over the mean item: importance for the item, and what each place tells of the label."""
    heats = [
        {
            "title": f"For the {explanation['wording']['item']}",
            "unit": "levels",
            "values": _rounded(explanation["importance"]),
            "group": "output",
        }
    ]
    labels = explanation["labels"]
    if not labels:
        return heats
    places = explanation["places"]
    for place, values in enumerate(_net(labels["information"])[:MAX_MAPS]):
        title = f"For the {labels['column']}"
        if len(places) > 1:
            title += f", {places[place]}"
        heats.append({"title": title, "unit": "bits", "values": _rounded(values), "group": "label"})
    return heats


def _rounded(values: np.ndarray) -> Any:
    return np.round(values, 4).tolist()
