"""The folder that training ends with and everything later starts from.

config.json         resolved settings, format version, content id, and a data summary with
                    normalisation constants
model.safetensors   weights; config.json repeated in its header, so that the file alone can be
                    loaded
model-before.safetensors, model-after.safetensors   the weights that are not in use of a model that
                    was trained with an adversary; its own config.json is in its header
prior.safetensors   a prior over the codes, if one was trained; its settings and figures are in
                    its header
coder.safetensors, lossless.safetensors   see coder_files
metrics.json        figures of training and evaluation, for people

Nothing in the folder is trusted: sizes are bounded before memory is taken, pickle is never read,
and every bit of what the program uses is held against a sum.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import __version__
from ..config.loading import from_tree
from ..data.normalisation import BYTE, Normalisation
from ..errors import VqkitError
from ..files import write_text, write_whole
from ..model.autoencoder import Autoencoder
from ..prior.prior import Prior, build_prior_network
from ..settings import Config, PriorConfig
from ..shapes import Shape
from .build import build_model
from .coder_files import load_coders
from .hub import local_folder
from .record import LICENCE, PAIR_FORMAT, AdversarialStage, Artifact
from .tensor_files import TensorFile, read_header, read_json, read_tensors, reason, write_tensors

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.json"
PRIOR_FILE = "prior.safetensors"

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# Types and shapes of tensors by name.
Expected: TypeAlias = dict[str, tuple[torch.dtype, tuple[int, ...]]]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Deviation = Annotated[float, Field(allow_inf_nan=False, gt=1e-12, le=1e6)]
Levels = Annotated[StrictInt, Field(ge=1, le=1 << 32)]
# Values of an item of the training extent.
MAX_VALUES = 1 << 30


class _Normalisation(BaseModel):
    model_config = ConfigDict(extra="allow")

    mean: Annotated[list[Finite], Field(min_length=1, max_length=1024)]
    std: Annotated[list[Deviation], Field(min_length=1, max_length=1024)]
    levels: Levels | None = BYTE


class _Data(BaseModel):
    """What the program needs of the data section; the rest is for people."""

    model_config = ConfigDict(extra="allow")

    name: str
    channels: Annotated[StrictInt, Field(ge=1, le=1024)]
    size: Annotated[
        list[Annotated[StrictInt, Field(ge=1, le=1 << 24)]], Field(min_length=1, max_length=4)
    ]
    normalisation: _Normalisation

    @model_validator(mode="after")
    def _check_together(self) -> _Data:
        if self.channels * math.prod(self.size) > MAX_VALUES:
            raise ValueError(f"size {self.size} is of more than {MAX_VALUES} values")
        constants = {len(self.normalisation.mean), len(self.normalisation.std)}
        if constants != {self.channels}:
            found = " and ".join(map(str, sorted(constants)))
            raise ValueError(
                f"there are {self.channels} channels, but the normalisation is of {found}"
            )
        return self


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    in_use: Literal["before", "after"]
    began_at: Annotated[StrictInt, Field(ge=0)]
    ended_at: Annotated[StrictInt, Field(ge=0)]
    beside: Literal["model-before.safetensors", "model-after.safetensors"] | None = None


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["vqkit"]
    format_version: StrictInt
    version: str
    content_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    data: _Data
    config: dict[str, Any]
    codes_of: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    stage: _Stage | None = None
    licence: Annotated[str, Field(pattern=LICENCE)] | None = None


def save_artifact(artifact: Artifact, folder: Path) -> None:
    """Write settings, weights and figures; each file appears under its name only when it is whole.

    VqkitError.
    """
    try:
        text = _write_model(artifact, folder / MODEL_FILE)
        write_text(folder / CONFIG_FILE, text)
        save_metrics(artifact, folder)
    except (OSError, SafetensorError) as error:
        raise VqkitError(f"cannot write the artifact to {folder}: {reason(error)}") from error


def save_beside(artifact: Artifact, path: Path) -> None:
    """Write the weights of a model that are not in use, with settings of their own in the header.

    VqkitError.
    """
    try:
        _write_model(artifact, path)
    except (OSError, SafetensorError) as error:
        raise VqkitError(f"cannot write {path}: {reason(error)}") from error


def _write_model(artifact: Artifact, path: Path) -> str:
    """Write weights and, in their header, what config.json says, which is returned."""
    settings = {
        "format": "vqkit",
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "content_id": artifact.content_id,
        "data": artifact.data,
        "config": artifact.config.model_dump(mode="json"),
    }
    if artifact.codes_of is not None:
        settings["codes_of"] = artifact.codes_of
    if artifact.stage is not None:
        settings["stage"] = asdict(artifact.stage)
    if artifact.licence is not None:
        settings["licence"] = artifact.licence
    text = json.dumps(settings, indent=2)
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in artifact.network.state_dict().items()
    }
    write_whole(path, lambda where: save_file(tensors, where, metadata={"config": text}))
    return text


def save_metrics(artifact: Artifact, folder: Path) -> None:
    """Write the figures alone."""
    write_text(folder / METRICS_FILE, json.dumps(artifact.metrics, indent=2))


def load_artifact(folder: str | Path) -> Artifact:
    """Read an artifact folder, or fetch one that is named hf://user/name (see `hub`). VqkitError
    for what is not one, damaged, or of a newer format.

    A prior, a coder or figures that cannot be read do not keep a model from loading; they are noted
    in `problems`.
    """
    folder = artifact_folder(folder)
    described = _described(folder / CONFIG_FILE)
    tree = described.tree
    checked = described.checked
    path = folder / MODEL_FILE
    network, file = filled(path, described.build, frozenset({"config"}))
    if apart_from_licence(tree_of(file.metadata["config"])) != apart_from_licence(tree):
        raise VqkitError(
            f"{folder}: {CONFIG_FILE} and {MODEL_FILE} do not belong together; one of the two was "
            "changed"
        )
    stage = None if checked.stage is None else AdversarialStage(**checked.stage.model_dump())
    artifact = Artifact(
        described.config,
        network.eval(),
        tree["data"],
        codes_of=checked.codes_of,
        stage=stage,
        licence=checked.licence,
    )
    if artifact.content_id != checked.content_id:
        raise VqkitError(
            f"{path} is damaged or was replaced: its tensors are not those that {CONFIG_FILE} names"
        )
    coders, problems = load_coders(folder, artifact.codes_id, network.quantizer)
    metrics, more = read_figures(folder / METRICS_FILE)
    artifact = replace(artifact, coders=coders, metrics=metrics, problems=(*problems, *more))
    return _with_prior(artifact, folder / PRIOR_FILE)


class _Described(NamedTuple):
    """What config.json says, checked."""

    tree: dict[str, Any]
    checked: _Config
    config: Config

    def build(self) -> Autoencoder:
        shape = Shape(self.checked.data.channels, tuple(self.checked.data.size))
        normalisation = Normalisation.from_dict(self.tree["data"]["normalisation"])
        return build_model(self.config, shape, normalisation)


def _described(path: Path) -> _Described:
    """A config.json. VqkitError for what is none, or of a newer format."""
    tree = read_json(path)
    if tree.get("format") == PAIR_FORMAT:
        raise VqkitError(
            f"{path.parent} is a pair, which vqkit generate --from, score and info take; its "
            f"halves are models of their own, in folders of it: {_halves_in(path.parent)}"
        )
    if tree.get("format") != "vqkit":
        raise VqkitError(f"{path.parent} is not a vqkit artifact: {path.name} does not say so")
    check_version(tree.get("format_version"), path.parent)
    checked = _checked(tree, path)
    return _Described(tree, checked, from_tree(tree["config"], str(path), Config))


def _halves_in(folder: Path) -> str:
    return (
        " and ".join(str(path.parent) for path in sorted(folder.glob(f"*/{CONFIG_FILE}"))) or "none"
    )


def _num_bytes(path: Path) -> int:
    """Bytes of weights that a config.json describes. VqkitError."""
    return _size(_expected(path, _described(path).build))


def artifact_folder(source: str | Path) -> Path:
    """The folder of an artifact; one that is named hf://user/name is fetched. VqkitError."""
    return local_folder(source, _num_bytes)


def save_prior(artifact: Artifact, folder: Path) -> None:
    """Write the prior beside the other files. VqkitError when that fails."""
    prior = artifact.wanted_prior()
    header = {
        "format": "vqkit-prior",
        "format_version": FORMAT_VERSION,
        "content_id": artifact.codes_id,
        "classes": prior.classes,
        "has_captions": prior.has_captions,
        "metrics": prior.metrics,
        "config": prior.config.model_dump(mode="json"),
    }
    write_tensors(folder / PRIOR_FILE, prior.network.state_dict(), {"prior": json.dumps(header)})


def filled(
    path: Path, build: Callable[[], ModuleT], keys: frozenset[str]
) -> tuple[ModuleT, TensorFile]:
    """A module with the weights of a file; sizes are known from the settings before any memory is
    taken.

    VqkitError for a file whose names, shapes or types are not those of the module.
    """
    expected = _expected(path, build)
    num_bytes = _size(expected)
    _check_size(path, num_bytes)
    file = read_tensors(path, num_bytes, keys)
    found = {name: (value.dtype, tuple(value.shape)) for name, value in file.tensors.items()}
    if found != expected:
        wrong = sorted(set(found.items()) ^ set(expected.items()), key=lambda pair: pair[0])[0][0]
        raise VqkitError(
            f"{path} does not fit its settings (tensor {wrong}); one of the two was replaced"
        )
    with _Unfilled(torch.device("cpu")):
        module = build()
    module.load_state_dict(file.tensors)
    return module, file


def _expected(path: Path, build: Callable[[], nn.Module]) -> Expected:
    """Types and shapes of the weights of a module, which take no memory. VqkitError."""
    try:
        with _Unfilled(torch.device("meta")):
            state = build().state_dict()
            return {name: (value.dtype, tuple(value.shape)) for name, value in state.items()}
    except VqkitError as error:
        raise VqkitError(f"cannot read {path}: {error}") from error
    except (RuntimeError, OverflowError, TypeError) as error:
        raise VqkitError(
            f"cannot read {path}: its settings describe a network that cannot be built"
        ) from error


def _size(expected: Expected) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in expected.values())


class _Unfilled(TorchFunctionMode):
    """Modules are made without first weights, which a file is about to replace; on the meta device
    they take no memory either.

    Loading then neither changes the global random state nor waits for draws. `torch.device("meta")`
    would put all else there too, for which PyTorch imports its compiler: more than a second.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Draws with a generator of their own are no first weights.
        is_draw = kwargs.get("generator") is None
        if func in _FILLS and is_draw:
            return args[0] if args else kwargs["tensor"]
        if func is torch.empty or (func is torch.randn and is_draw):
            return torch.empty(*args, **(kwargs | {"device": self.device}))
        return func(*args, **kwargs)


# What fills a tensor in place with random numbers.
_FILLS = (
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.normal_,
    nn.init.orthogonal_,
    nn.init.trunc_normal_,
    nn.init.uniform_,
    nn.init.xavier_normal_,
    nn.init.xavier_uniform_,
    Tensor.normal_,
    Tensor.uniform_,
)


def _check_size(path: Path, num_bytes: int) -> None:
    """VqkitError for a file that cannot hold what its settings describe, before a network of that
    size is built.
    """
    try:
        there = path.stat().st_size
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if there < num_bytes:
        raise VqkitError(
            f"{path} does not fit its settings: {num_bytes} bytes of weights are needed, it has "
            f"{there}"
        )


def check_version(version: object, path: Path) -> None:
    """VqkitError for another version of the format than this one."""
    if type(version) is not int or version != FORMAT_VERSION:
        raise VqkitError(
            f"{path} has format version {version!r}; this vqkit reads {FORMAT_VERSION}"
        )


def _checked(tree: dict[str, Any], path: Path) -> _Config:
    try:
        return _Config.model_validate(tree)
    except ValidationError as error:
        raise VqkitError(f"cannot read {path}: {first_error(error)}") from error


def first_error(error: ValidationError) -> str:
    """What is wrong first, and where, in a clause."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{where}: {message[0].lower()}{message[1:]}"


def tree_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def apart_from_licence(tree: Any) -> Any:
    """The settings that two files of an artifact have in common: a model may be given a licence
    when it is finished, and a process that ends between the two files is to leave it as good as it
    was.
    """
    if not isinstance(tree, dict):
        return tree
    return {name: value for name, value in tree.items() if name != "licence"}


def read_figures(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What metrics.json holds, and why it cannot be shown."""
    if not path.exists():
        return {}, ()
    try:
        return read_json(path), ()
    except VqkitError as error:
        return {}, (f"{error}; the figures are not shown",)


def _with_prior(artifact: Artifact, path: Path) -> Artifact:
    if not path.exists():
        return artifact
    try:
        return replace(artifact, prior=_load_prior(path, artifact))
    except VqkitError as error:
        return replace(
            artifact, problems=(*artifact.problems, f"{error}; the model is used without its prior")
        )


def _load_prior(path: Path, artifact: Artifact) -> Prior:
    """VqkitError for a file that is damaged, or was trained on the codes of another model."""
    try:
        # The settings of the network decide how large the file may be, and they are in its header.
        header = json.loads(read_header(path)["prior"])
        check_version(header["format_version"], path)
        if header["content_id"] != artifact.codes_id:
            raise VqkitError(
                f"{path} was trained on the codes of another model; delete it and run vqkit "
                "train-prior"
            )
        config = from_tree(header["config"], str(path), PriorConfig)
        classes = tuple(map(str, header["classes"]))
        captions = bool(header["has_captions"])
        network, file = filled(
            path,
            lambda: build_prior_network(config, artifact.network, len(classes), captions),
            frozenset({"prior"}),
        )
        if json.loads(file.metadata["prior"]) != header:
            raise VqkitError(f"{path} changed while it was read")
        return Prior(config, network.eval(), classes, dict(header["metrics"]))
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise VqkitError(f"cannot read the prior {path}: {reason(error)}") from error
