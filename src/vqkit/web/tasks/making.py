"""New items, and items made anew: one app a task, with the command and the Python that give the
same.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...apps.denoise import denoise as denoised
from ...apps.generate import generate as generated
from ...apps.inpaint import inpaint as inpainted
from ...apps.interpolate import interpolate as interpolated
from ...apps.restyle import METHODS
from ...apps.restyle import restyle as restyled
from ...apps.variations import variations as varied
from ...artifact.model import Model
from ...errors import VqkitError
from ...prior.prior import Drawing, Prior
from ...prior.sampling import Sampling
from .context import Context, Result, Tell

Args = dict[str, Any]
SPLITS = ("train", "validation", "test")


def abilities(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model. What can be done with it."""
    model = context.model(args["model"])
    prior = model.prior
    return Result(
        {
            "suffix": model.signal.suffix,
            "is_image": model.signal.is_aligned,
            "has_prior": prior is not None,
            "classes": [] if prior is None else list(prior.classes),
            "has_prompts": prior is not None and prior.has_captions,
            "rates": list(model.artifact.coders.rates),
            "has_lossless": model.artifact.coders.values is not None,
            "removes_noise": model.signal.removes_noise(model.config.data),
            "methods": list(METHODS),
            "facts": [list(fact) for fact in model.facts()],
            "prior": [] if prior is None else _facts(prior),
        }
    )


def _facts(prior: Prior) -> list[tuple[str, str]]:
    """What a prior is, in words; of figures, which anyone may have written, those that are such."""
    told = "captions" if prior.has_captions else "nothing"
    if prior.classes:
        told = f"classes: {len(prior.classes)}"
    facts = [("Conditions", told)]
    figures = prior.metrics
    known = {name: one for name, one in figures.items() if isinstance(one, (int, float))}
    if "bits_per_code" in known:
        split = f" ({figures['split']} split)" if figures.get("split") in SPLITS else ""
        facts.append(("Bits a code", f"{known['bits_per_code']:.3f}{split}"))
    if "order0_bits" in known:
        facts.append(("By frequency alone", f"{known['order0_bits']:.3f}"))
    if {"step", "training_seconds"} <= known.keys():
        minutes = known["training_seconds"] / 60
        facts.append(("Trained for", f"{known['step']:,.0f} steps, {minutes:.1f} min"))
    if isinstance(figures.get("warning"), str):
        facts.append(("Look closer", figures["warning"]))
    return facts


def generate(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, num, and those of a drawing."""
    model = context.model(args["model"])
    found = generated(model, args["num"], drawing=drawing_of(args), progress=tell)
    words = ["generate", args["shown"], "--num", str(args["num"]), *_drawing_words(args)]
    call = f"values = generate(model, {args['num']}, drawing=drawing).values"
    return _made(model, found.values, words, ["generate"], [_drawing_line(args), call], args)


def inpaint(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, item, name, num, mask, and those of a drawing.

    mask: base64 of a bit for each position, row after row, set where it is made anew.
    """
    model = context.model(args["model"])
    values = context.item(model, args["item"])
    mask = _mask(args["mask"], tuple(values.shape[1:]))
    found = inpainted(model, values, mask, num=args["num"], drawing=drawing_of(args), progress=tell)
    words = ["inpaint", args["shown"], args["name"], "--mask", "mask.png"]
    words += ["--num", str(args["num"]), *_drawing_words(args)]
    lines = [
        _drawing_line(args),
        _value_line("item", args["name"]),
        'mask = model.signal.read_mask("mask.png", tuple(item.shape[1:]), model.data)',
        f"values = inpaint(model, item, mask, num={args['num']}, drawing=drawing).values",
    ]
    return _made(model, found.values, words, ["inpaint"], lines, args)


def variations(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, item, name, num, strength, and those of a drawing."""
    model = context.model(args["model"])
    values = context.item(model, args["item"])
    how = {"num": args["num"], "strength": args["strength"]}
    found = varied(model, values, **how, drawing=drawing_of(args), progress=tell)
    words = ["variations", args["shown"], args["name"], "--strength", f"{args['strength']:g}"]
    words += ["--num", str(args["num"]), *_drawing_words(args)]
    lines = [
        _drawing_line(args),
        _value_line("item", args["name"]),
        f"values = variations(model, item, strength={args['strength']:g}, num={args['num']}, "
        "drawing=drawing)",
    ]
    return _made(model, found, words, ["variations"], lines, args)


def interpolate(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, item, name, other, other_name, num, and those of a drawing.

    Items by the line between latents, or, with a prior and `codes`, by codes.
    """
    model = context.model(args["model"])
    first = context.item(model, args["item"])
    second = context.item(model, args["other"])
    found = interpolated(
        model, first, second, num=args["num"], drawing=drawing_of(args), progress=tell
    )
    values = found.morph if args["codes"] and found.morph is not None else found.latents
    kind = "morph" if values is found.morph else "latents"
    words = ["interpolate", args["shown"], args["name"], args["other_name"]]
    words += ["--num", str(args["num"]), *_drawing_words({**args, "class": "", "prompt": ""})]
    lines = [
        _drawing_line(args),
        _value_line("first", args["name"]),
        _value_line("second", args["other_name"]),
        f"found = interpolate(model, first, second, num={args['num']}, drawing=drawing)",
        f"values = found.{kind}",
    ]
    return _made(model, values, words, ["interpolate"], lines, args)


def restyle(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, item, name, other, other_name, method, alpha."""
    model = context.model(args["model"])
    content = context.item(model, args["item"])
    style = context.item(model, args["other"])
    how = {"method": args["method"], "alpha": args["alpha"]}
    found = restyled(model, content, [style], **how, progress=tell)
    words = ["restyle", args["shown"], "--content", args["name"], "--style", args["other_name"]]
    words += ["--method", args["method"], "--alpha", f"{args['alpha']:g}"]
    lines = [
        _value_line("content", args["name"]),
        _value_line("style", args["other_name"]),
        f'values = restyle(model, content, [style], method="{args["method"]}", '
        f"alpha={args['alpha']:g})[None]",
    ]
    return _made(model, found[None], words, ["restyle"], lines, args)


def denoise(context: Context, args: Args, blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, shown, item, name, strength (None = found from the item)."""
    model = context.model(args["model"])
    values = context.item(model, args["item"])
    strength = args["strength"]
    found = denoised(model, values, strength=strength, progress=tell)
    words = ["denoise", args["shown"], args["name"]]
    words += [] if strength is None else ["--strength", f"{strength:g}"]
    how = "" if strength is None else f", strength={strength:g}"
    lines = [
        _value_line("item", args["name"]),
        f"values = denoise(model, item{how}).values[None]",
    ]
    made = _made(model, found.values[None], words, ["denoise"], lines, {**args, "out": "clean"})
    made.values["original"] = made.item(model, values)
    made.values["told"] = f"took out noise of deviation {found.sigma:.1f}"
    if model.signal.has_symbols:
        changed = float(model.signal.change(found.values[None], values[None])[0])
        made.values["told"] = f"changed {changed:.2f} {model.signal.change_in_words}"
    return made


# ------------------------------------------------------------------------------------------ drawing


def drawing_of(args: Args) -> Drawing:
    """Errors: VqkitError for guidance without a condition."""
    classes = [args["class"]] if args["class"] else []
    prompts = [args["prompt"]] if args["prompt"] else []
    if args["cfg"] != 1 and not classes and not prompts:
        raise VqkitError("guidance is by a class or a prompt: give one of them, or set it to 1")
    sampling = Sampling(temperature=args["temperature"], cfg=args["cfg"])
    return Drawing(classes, prompts, None, args["seed"], sampling)


def _drawing_words(args: Args) -> list[str]:
    """As options of a command; defaults are left out."""
    words = ["--seed", str(args["seed"])]
    if args["temperature"] != 1:
        words += ["--temperature", f"{args['temperature']:g}"]
    if args["class"]:
        name = args["class"]
        quoted = '"' + name.replace('"', '""') + '"' if set(name) & set('",') else name
        words += ["--class", quoted]
    if args["prompt"]:
        words += ["--prompt", args["prompt"]]
    if args["cfg"] != 1:
        words += ["--cfg", f"{args['cfg']:g}"]
    return words


def _drawing_line(args: Args) -> str:
    given = [f"classes={[args['class']]!r}"] if args["class"] else []
    given += [f"prompts={[args['prompt']]!r}"] if args["prompt"] else []
    given.append(f"seed={args['seed']}")
    sampling = [f"temperature={args['temperature']:g}"] if args["temperature"] != 1 else []
    sampling += [f"cfg={args['cfg']:g}"] if args["cfg"] != 1 else []
    if sampling:
        given.append(f"sampling=Sampling({', '.join(sampling)})")
    return f"drawing = Drawing({', '.join(given)})"


# ------------------------------------------------------------------------------------------ results


def _made(
    model: Model, values: Tensor, words: list[str], apps: list[str], lines: list[str], args: Args
) -> Result:
    """Items (N, C, *extent), each to be seen and saved, and how else one gets them."""
    result = Result()
    made = []
    for one in values:
        shown = result.item(model, one)
        shown["save"] = result.add(model.signal.write(one, model.data), "application/octet-stream")
        made.append(shown)
    # The command that takes a folder is the one that takes many files.
    out = args.get("out") or f"made{model.signal.suffix if len(values) == 1 else '.png'}"
    result.values = {
        "items": made,
        "suffix": model.signal.suffix,
        "command": shlex.join(["vqkit", *words, "--out", out]),
        "python": _program(args["shown"], apps, lines),
    }
    return result


def _program(shown: str, apps: list[str], lines: list[str]) -> str:
    """The same in Python."""
    text = "\n".join(lines)
    imports = ["from pathlib import Path", ""] if "Path(" in text else []
    imports.append("import vqkit")
    imports += [f"from vqkit.apps.{app} import {app}" for app in apps]
    if "Drawing(" in text:
        imports.append("from vqkit.prior.prior import Drawing")
    if "Sampling(" in text:
        imports.append("from vqkit.prior.sampling import Sampling")
    opened = f"model = vqkit.load({shown!r})"
    return "\n".join([*imports, "", opened, *lines, "items = model.signal.display(values)"])


def _value_line(variable: str, name: str) -> str:
    return f"{variable} = model.to_values(Path({name!r}))[0]"


def _mask(text: str, extent: tuple[int, ...]) -> Tensor:
    """(*extent) bool. VqkitError for one of another size."""
    content = base64.b64decode(text)
    count = torch.Size(extent).numel()
    if len(content) != -(-count // 8):
        raise VqkitError("the mask is of another size than the image")
    bits = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    spread = (bits[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return spread.flatten()[:count].reshape(extent).bool()
