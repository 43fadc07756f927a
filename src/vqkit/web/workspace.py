"""The folder of a studio: ids to paths. No path comes from a client.

DIR/                    models, wherever they lie below; new runs, one folder each
DIR/.studio/sets/ID/    what was uploaded: files/N.suffix, and names.jsonl with what they were
                        called
DIR/.studio/runs/ID.json, ID.log    what a run was started with, and what it says
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import VqkitError
from ..files import read_bounded
from .limits import Limits, Refused
from .uploads import shown_name, suffix_of

# Sets that need no files.
BUILT_IN = ("emoji", "digits", "fashion-mnist")
HIDDEN = ".studio"
# How deep below the folder models are looked for, and how many at most.
DEPTH = 3
MAX_MODELS = 200
MAX_SETS = 1000
MAX_JSON = 1 << 24
_ID = re.compile(r"[0-9a-f]{12}")
# Not the items of a set but what belongs to them.
CAPTION = ".txt"


@dataclass
class Files:
    """An uploaded set. names: what each file was called; paths beside them. has_shards: its items
    are not its files, but lie in them.
    """

    id: str
    folder: Path
    names: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    num_bytes: int = 0
    has_shards: bool = False

    @property
    def source(self) -> Path:
        return self.folder / "files"


class Workspace:
    """See the module. VqkitError for a folder that cannot be used."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root.resolve()
        self.limits = limits
        self.hidden = self.root / HIDDEN
        self._sets: dict[str, Files] = {}
        try:
            (self.hidden / "sets").mkdir(parents=True, exist_ok=True)
            (self.hidden / "runs").mkdir(exist_ok=True)
        except OSError as error:
            raise VqkitError(f"cannot write to {root}: {error.strerror}; choose another") from error

    # --------------------------------------------------------------------------------------- models

    def models(self) -> dict[str, Path]:
        """Folders of trained models by id, the newest first."""
        found = [self.root] if _is_model(self.root) else []
        for folder in self._folders(self.root, DEPTH):
            if _is_model(folder) and len(found) < MAX_MODELS:
                found.append(folder)
        found.sort(key=lambda folder: (folder / "config.json").stat().st_mtime, reverse=True)
        return {self.id_of(folder): folder for folder in found}

    def has_only_files(self) -> bool:
        """Whether there is no model, but something that one could be trained on."""
        files = (path for path in self.root.iterdir() if not path.name.startswith("."))
        return not self.models() and any(path.is_file() for path in files)

    def model(self, name: object) -> Path:
        """The folder of a model. Refused (404)."""
        folder = self.models().get(str(name))
        if folder is None:
            raise Refused(404, "there is no such model")
        return folder

    def shown(self, folder: Path) -> str:
        """A folder as commands would name it, from where the studio was started."""
        try:
            return str(folder.relative_to(Path.cwd()))
        except ValueError:
            return str(folder.relative_to(self.root.parent))

    def id_of(self, folder: Path) -> str:
        """The id of a model that lies in a folder, or will."""
        relative = str(folder.relative_to(self.root))
        return hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def _folders(self, folder: Path, depth: int) -> Iterator[Path]:
        try:
            inside = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
        except OSError:
            return
        for path in sorted(inside):
            if path.name.startswith("."):
                continue
            yield path
            if depth > 1 and not _is_model(path):
                yield from self._folders(path, depth - 1)

    def described(self, name: str, folder: Path) -> dict[str, Any]:
        """What a page says of a model without loading it."""
        config = _json(folder / "config.json")
        data = _section(config, "data")
        settings = _section(config, "config", "data")
        return {
            "id": name,
            "name": shown_name(folder.name),
            "signal": str(settings.get("signal", "image")),
            "trained_on": shown_name(str(data.get("name", ""))),
            "set": self._set_of(data.get("name")),
        }

    def _set_of(self, source: object) -> str | None:
        """The id of the set that a model was trained on, if it is one that a page may open."""
        if source in BUILT_IN:
            return str(source)
        path = Path(str(source))
        is_ours = path.name == "files" and path.parent.parent == self.hidden / "sets"
        return path.parent.name if is_ours and path.is_dir() else None

    # ----------------------------------------------------------------------------------------- sets

    def new_set(self) -> Files:
        """An empty one. Refused (507) where the workspace is full."""
        known = self.sets()
        size = sum(one.num_bytes for one in known)
        if size > self.limits.folder_bytes or len(known) >= MAX_SETS:
            raise Refused(507, "there is no room for more files: remove a set")
        name = secrets.token_hex(6)
        files = Files(name, self.hidden / "sets" / name)
        files.source.mkdir(parents=True)
        self._sets[name] = files
        return files

    def sets(self) -> list[Files]:
        """Uploaded sets, the newest last: pages offer the last few, and open the last one."""
        paths = [path for path in (self.hidden / "sets").iterdir() if _ID.fullmatch(path.name)]
        paths.sort(key=lambda path: path.stat().st_mtime_ns)
        return [self.files(path.name) for path in paths]

    def files(self, name: object) -> Files:
        """An uploaded set. Refused (404)."""
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise Refused(404, "there is no such set")
        if name not in self._sets:
            folder = self.hidden / "sets" / name
            if not folder.is_dir():
                raise Refused(404, "there is no such set")
            self._sets[name] = _read_set(name, folder)
        return self._sets[name]

    def place(self, files: Files, name: str) -> Path:
        """Where a new file of a set goes. Refused for one too many, and names without a suffix.

        Captions go beside what they belong to: files of one name but for the suffix get one number.
        """
        if len(files.names) >= self.limits.set_files:
            raise Refused(413, f"a set has {self.limits.set_files} files at most")
        if files.num_bytes >= self.limits.set_bytes:
            raise Refused(413, f"a set has {self.limits.set_bytes >> 20} MiB at most")
        suffix = suffix_of(name)
        if not suffix:
            raise Refused(400, "a file needs a suffix that says what it is, such as .png or .wav")
        stem = shown_name(name).rpartition(".")[0]
        number = len(files.names)
        for known, path in zip(files.names, files.paths, strict=True):
            is_pair = CAPTION in (suffix, path.suffix) and suffix != path.suffix
            if is_pair and known.rpartition(".")[0] == stem:
                number = int(path.stem)
        return files.source / f"{number:06}{suffix}"

    def added(self, files: Files, name: str, path: Path, is_shard: bool) -> int:
        """Remember a file that was written; its index. Refused (400) for shards beside files that
        are items.
        """
        if any(known.suffix != CAPTION for known in files.paths) and is_shard != files.has_shards:
            raise Refused(400, "archives and tables of images go into a set without other files")
        files.has_shards = files.has_shards or is_shard
        shown = shown_name(name)
        row = {"name": shown, "file": path.name, "is_shard": is_shard}
        with open(files.folder / "names.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        files.names.append(shown)
        files.paths.append(path)
        files.num_bytes += path.stat().st_size
        return len(files.names) - 1

    def remove(self, files: Files) -> None:
        self._sets.pop(files.id, None)
        shutil.rmtree(files.folder, ignore_errors=True)

    def source(self, name: object) -> str:
        """What `vqkit train` and others call a set: a name, or its folder. Refused (404)."""
        if name in BUILT_IN:
            return str(name)
        return str(self.files(name).source)

    def is_numbered(self, name: object) -> bool:
        """Whether the items of a set have numbers, and are no files. Refused (404)."""
        return name in BUILT_IN or self.files(name).has_shards

    def item(self, given: object) -> dict[str, Any]:
        """{"set": id, "index": n} as tasks have it. Refused (404)."""
        if not isinstance(given, dict):
            raise Refused(400, "an item is a set and an index")
        index = given.get("index")
        if type(index) is not int or index < 0:
            raise Refused(400, "an item is a set and an index")
        if self.is_numbered(given.get("set")):
            return {"set": self.source(given["set"]), "index": index}
        files = self.files(given.get("set"))
        if index >= len(files.paths):
            raise Refused(404, "there is no such file in the set")
        return {"path": str(files.paths[index])}


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def _section(tree: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A part of what a file says, which anyone may have written; nothing where there is none."""
    found: Any = tree
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    """What a file says; nothing where it cannot be read."""
    try:
        found = json.loads(read_bounded(path, MAX_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_set(name: str, folder: Path) -> Files:
    files = Files(name, folder)
    try:
        lines = (folder / "names.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return files
    for line in lines:
        row = json.loads(line)
        path = files.source / row["file"]
        if path.is_file():
            files.names.append(row["name"])
            files.paths.append(path)
            files.num_bytes += path.stat().st_size
            files.has_shards = files.has_shards or row["is_shard"]
    return files
