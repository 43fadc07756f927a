"""Artifacts and pairs on the Hugging Face hub, by names: hf://user/name, hf://user/name@revision.

Nothing is fetched that is not named so. Cache, token, endpoint and offline mode are those of
huggingface_hub (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE), which comes with `vqkit[hub]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..errors import VqkitError
from .coder_files import MAX_BYTES
from .record import HALVES, PAIR_FORMAT
from .tensor_files import MAX_HEADER, MAX_JSON, read_json

PREFIX = "hf://"
CONFIG = "config.json"
MODEL = "model.safetensors"
PAIR = "pair.safetensors"
# Bytes of a prior at most, whose own header says how large it is.
MAX_PRIOR = 1 << 32
# Files that an artifact is used with, those that a pair is, and those that are shown beside them.
USED = re.compile(
    r"config\.json|metrics\.json|recipe\.yaml|model(-before|-after)?\.safetensors|"
    r"prior\.safetensors|(coder|lossless)(-[0-9a-f]+)?\.safetensors"
)
USED_OF_PAIR = re.compile(
    r"config\.json|metrics\.json|recipe\.yaml|pair\.safetensors|"
    rf"({'|'.join(HALVES)})/({USED.pattern})"
)
SHOWN = ("README.md", "report.html", "samples/*.png", "prior/report.html", "prior/*.png")
_NAME = re.compile(r"hf://([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?/?")


class HubName(NamedTuple):
    """A repository `user/name`, and a branch, tag or commit; None = its main branch."""

    repository: str
    revision: str | None


def is_hub_name(source: object) -> bool:
    return isinstance(source, str) and source.startswith(PREFIX)


def parsed(name: str) -> HubName:
    """VqkitError for what is no name of a model on the hub."""
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise VqkitError(f"{name} is no model on the hub: write hf://user/name, or with @revision")
    return HubName(matched[1], matched[2])


def own_folder(source: str | Path) -> Path:
    """The folder of an artifact that is to be written. VqkitError for one on the hub."""
    if is_hub_name(source):
        repository = parsed(str(source)).repository
        raise VqkitError(
            f"{source} is on the hub, and files are added to folders alone: run 'hf download "
            f"{repository} --local-dir DIR' first"
        )
    return Path(source)


def local_folder(source: str | Path, weights: Callable[[Path], int]) -> Path:
    """The folder of an artifact: of one on the hub, where its files are kept once fetched.

    weights: of a config.json, the bytes of weights that it describes. VqkitError.
    """
    if not is_hub_name(source):
        return Path(source)
    check_installed()
    name = parsed(str(source))
    return _in_a_sentence(str(source), lambda: _fetched(name, str(source), weights))


def push(
    folder: Path, repository: str, *, private: bool = False, revision: str | None = None
) -> str:
    """Upload the files of an artifact or a pair, and what is shown beside them.

    Gives the address of the repository. repository: user/name, made if it is not there. private:
    when it is made. revision: an existing branch. Folders of training (checkpoints, logs) stay.
    VqkitError.
    """
    check_installed()
    parsed(f"{PREFIX}{repository}")

    def uploaded() -> str:
        from huggingface_hub import HfApi

        api = HfApi(library_name="vqkit", library_version=__version__)
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        paths = (path.relative_to(folder).as_posix() for path in folder.glob("**/*.*"))
        used = filter(_used(folder / CONFIG).fullmatch, paths)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            revision=revision,
            allow_patterns=[*used, *SHOWN],
            commit_message="Upload a model of vqkit",
        )
        return str(made)

    return _in_a_sentence(f"{PREFIX}{repository}", uploaded)


def check_installed() -> None:
    """VqkitError without huggingface_hub."""
    if find_spec("huggingface_hub") is None:
        raise VqkitError("models on the hub need huggingface_hub: pip install 'vqkit[hub]'")


def _fetched(name: HubName, source: str, weights: Callable[[Path], int]) -> Path:
    """The folder of a snapshot, with the files of an artifact or of a pair and no others."""
    from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError

    try:
        listed = _snapshot(name, ["*.json", "*.yaml", "*.safetensors"], dry_run=True)
    except DryRunError:
        # The hub cannot be reached, and the cache may have all that is needed; or it refuses, and
        # says why when it is asked once more.
        try:
            return Path(_snapshot(name, [CONFIG]))
        except LocalEntryNotFoundError as error:
            raise VqkitError(
                f"{source} is not in the cache of huggingface_hub and the hub cannot be reached; "
                "go online for the first use (HF_HUB_OFFLINE=0)"
            ) from error
    sizes = {one.filename: one.file_size for one in listed}
    _check_sizes(source, sizes, {CONFIG: MAX_JSON})
    # What is fetched is what was looked at, although the branch may move on.
    name = HubName(name.repository, listed[0].commit_hash)
    config = Path(_snapshot(name, [CONFIG])) / CONFIG
    sizes = {path: sizes[path] for path in filter(_used(config).fullmatch, sizes)}
    limits: dict[str, int] = {}
    models = [""]
    if _is_pair(config):
        limits = {path: MAX_JSON for path in sizes if "/" not in path}
        limits[PAIR] = MAX_PRIOR + MAX_HEADER
        models = [f"{half}/" for half in HALVES if f"{half}/{CONFIG}" in sizes]
    for model in models:
        _check_sizes(source, sizes, {f"{model}{CONFIG}": MAX_JSON})
        folder = Path(_snapshot(name, [f"{model}{CONFIG}"]))
        limits |= _limits(model, sizes, weights(folder / model / CONFIG))
    _check_sizes(source, sizes, limits)
    return Path(_snapshot(name, list(limits)))


def _is_pair(config: Path) -> bool:
    return read_json(config).get("format") == PAIR_FORMAT


def _used(config: Path) -> re.Pattern[str]:
    """The files that an artifact or a pair of this config.json is used with."""
    return USED_OF_PAIR if _is_pair(config) else USED


def _limits(model: str, paths: Iterable[str], weights: int) -> dict[str, int]:
    """Bytes of each file of a model that are fetched at most: those that are read of it at most.

    model: what the paths of its files begin with. weights: bytes of its weights.
    """
    limits = {f"{model}{MODEL}": weights + MAX_HEADER}
    for path in paths:
        name = path.removeprefix(model)
        if not USED.fullmatch(name):
            continue
        if name.startswith("model"):
            limits[path] = weights + MAX_HEADER
        elif name.startswith("prior"):
            limits[path] = MAX_PRIOR + MAX_HEADER
        elif name.endswith(".safetensors"):
            limits[path] = MAX_BYTES + MAX_HEADER
        else:
            limits[path] = MAX_JSON
    return limits


def _check_sizes(source: str, sizes: Mapping[str, int], limits: Mapping[str, int]) -> None:
    """VqkitError for a file that is not there, or larger than its limit."""
    for path, limit in limits.items():
        if path not in sizes:
            raise VqkitError(f"{source} is no model of vqkit: it has no {path}")
        if sizes[path] > limit:
            raise VqkitError(
                f"{source} was not fetched: its {path} has {sizes[path]} bytes, and a model of "
                f"these settings has {limit} at most"
            )


def _snapshot(name: HubName, patterns: list[str], **options: Any) -> Any:
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name.repository,
        revision=name.revision,
        allow_patterns=patterns,
        library_name="vqkit",
        library_version=__version__,
        **options,
    )


def _in_a_sentence(source: str, work: Callable[[], Any]) -> Any:
    """What work gives. VqkitError in one sentence for whatever the hub says against it."""
    from huggingface_hub import errors

    try:
        return work()
    except VqkitError:
        raise
    except errors.GatedRepoError as error:
        raise VqkitError(
            f"{source} is gated: ask for access on its page, and log in with 'hf auth login'"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise VqkitError(
            f"{source} is not on the hub, or is private: check the name, and log in with 'hf auth "
            "login' if it is yours"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise VqkitError(f"{source} has no such revision; name a branch, tag or commit") from error
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise VqkitError(
                f"{source}: the hub does not let you: log in with 'hf auth login', with a token "
                "that may write there"
            ) from error
        # Of the client, the network and the disk there are too many to name.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VqkitError(f"{source}: the hub could not be used: {reason}") from error
