"""`open_audio`: recordings, decoded, cut into clips, split and measured."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...config.base import section_of
from ...data.indexed import Found, IndexedDataset
from ...data.names import MAX_BAD, BadFile, PackedStrings, check_bad
from ...data.normalisation import Normalisation
from ...data.splits import derive_seed, digest, pack, split, tie
from ...errors import VqkitError
from ...files import delete_with, temporary_file
from ...shapes import Shape
from ..paths import files_below
from .config import AugmentConfig, DataConfig, NoiseConfig
from .files import FULL, BadSound, Header, Samples, Target, is_sound, load, read_header
from .look import Look, quiet_share, spread_out

# Values of whole numbers of 16 bits stand for -1 to 1.
NORMALISATION = Normalisation((0.0,), (1.0,), levels=FULL, is_signed=True)
MAX_CAPTION = 1 << 16
# Classes that a description counts.
MAX_NAMED = 100
# Files whose headers are looked at to choose settings.
LOOKED_AT = 200


class Recording(NamedTuple):
    """A file that can be used. start: of its samples among all. group: its folder below the
    source.
    """

    name: str
    start: int
    length: int
    content: bytes
    group: str
    caption: str


class Kept(NamedTuple):
    """All recordings one behind the other (C, T) int16, in memory or mapped from a file."""

    samples: np.ndarray
    recordings: list[Recording]


class AudioData(IndexedDataset):
    """Clips of recordings.

    starts, lengths, owners, places: (N,) int64 of every clip: where it begins among all samples,
    how many of them are real, its recording, and where in that it begins.
    seconds: of sound in each split, every sample counted once.
    """

    in_memory = True

    def __init__(
        self, name: str, kept: Kept, rate: int, bad: list[BadFile], settings: DataConfig
    ) -> None:
        length = round(settings.seconds * rate)
        clips = _clips(kept.recordings, length, settings.overlap)
        self.starts = clips.starts
        self.lengths = clips.lengths
        self.owners = clips.owners
        firsts = np.array([recording.start for recording in kept.recordings])
        self.places = clips.starts - firsts[clips.owners]
        self.kept = kept
        self.rate = rate
        self.settings = settings
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self._noise: Kept | None = None
        recordings = kept.recordings
        names = []
        for owner, start in zip(clips.owners.tolist(), clips.starts.tolist(), strict=True):
            recording = recordings[owner]
            names.append(f"{recording.name}@{(start - recording.start) / rate:.2f}s")
        captions = [recordings[owner].caption for owner in clips.owners.tolist()]
        groups = [recordings[owner].group for owner in clips.owners.tolist()]
        super().__init__(
            name,
            PackedStrings(names),
            Shape(len(kept.samples), (length,)),
            captions=PackedStrings(captions) if any(captions) else None,
            groups=groups if any(groups) else None,
            bad=bad,
            num_workers=settings.num_workers,
        )
        self.normalisation = normalisation_of(len(kept.samples))

    def apart(self, name: str) -> np.ndarray:
        ids = self.splits[name]
        return ids[self.places[ids] % self.shape.extent[0] == 0]

    def firsts(self) -> np.ndarray:
        return np.flatnonzero(self.places == 0)

    def files(self) -> list[str]:
        return [self.kept.recordings[owner].name for owner in self.owners.tolist()]

    def read_good(self, ids: np.ndarray) -> Found:
        (length,) = self.shape.extent
        values = np.zeros((len(ids), self.shape.channels, length), np.int16)
        lengths = self.lengths[ids]
        for row, (start, real) in enumerate(zip(self.starts[ids], lengths, strict=True)):
            values[row, :, :real] = self.kept.samples[:, start : start + real]
        mask = None
        if (lengths < length).any():
            places = torch.arange(length)
            mask = places < torch.from_numpy(lengths)[:, None]
        return Found(ids, torch.from_numpy(values), mask, [])

    def augmented(
        self, values: Tensor, size: int, generator: torch.Generator, rows: slice
    ) -> Tensor:
        settings = self.settings.augment
        if not settings.level and not settings.invert:
            return values
        draws = torch.rand(size, 2, generator=generator)[rows]
        factors = 10 ** ((2 * draws[:, 0] - 1) * settings.level / 20)
        if settings.invert:
            factors = torch.where(draws[:, 1] < 0.5, -factors, factors)
        # No clip is made louder than full scale.
        loudest = values.abs().amax((1, 2)).clamp(min=1).float()
        factors = factors.clamp(-(FULL - 1) / loudest, (FULL - 1) / loudest)
        return (values * factors[:, None, None]).round_().to(torch.int16)

    def noisy(self, values: Tensor, names: Sequence[tuple[Any, ...]]) -> Tensor | None:
        level = self.settings.noise.level
        if not level:
            return None
        self.read_noise()
        seeds = [derive_seed(*name) for name in names]
        return with_noise(values, level, seeds, self._noise.samples if self._noise else None)

    def read_noise(self) -> None:
        """Read what data.noise.source holds, if that was not done yet. VqkitError as `open_audio`.

        Only training needs it: a model is used where the noise of its training is not.
        """
        source = self.settings.noise.source
        if self._noise is None and source is not None:
            channels = self.shape.channels
            found = _read_source(source, self.settings, rate=self.rate, channels=channels)
            self._noise = found.kept

    @property
    def fingerprint(self) -> dict[str, Any]:
        found = super().fingerprint
        if self._noise is not None:
            contents = b"".join(recording.content for recording in self._noise.recordings)
            found["noise"] = digest(contents).hex()
        return found

    @property
    def is_unchanged(self) -> bool:
        return self.settings.augment == AugmentConfig() and not self.settings.noise.level

    def for_codes(self, augment: Mapping[str, Any]) -> AudioData:
        """VqkitError for what is no setting of data.augment."""
        found = super().for_codes(augment)
        hint = "see data.augment of the model's recipe"
        changes = section_of(AugmentConfig, augment, "augment", hint)
        update = {"augment": changes, "noise": NoiseConfig()}
        found.settings = self.settings.model_copy(update=update)
        return found

    def notes_in_words(self) -> list[str]:
        return self.notes

    def describe(self) -> dict[str, Any]:
        description: dict[str, Any] = {
            "name": self.name,
            "images": len(self),
            "recordings": len(self.kept.recordings),
            "sample_rate": self.rate,
            "size": list(self.shape.extent),
            "channels": self.shape.channels,
            "seconds": self.seconds,
        }
        if self.groups:
            groups = [recording.group for recording in self.kept.recordings]
            description["classes"] = dict(Counter(groups).most_common(MAX_NAMED))
        description["bad"] = [dataclasses.asdict(bad) for bad in self.bad]
        description["splits"] = {name: len(ids) for name, ids in self.splits.items()}
        description["normalisation"] = self.normalisation.to_dict()
        return description


def normalisation_of(channels: int) -> Normalisation:
    """What turns whole numbers of 16 bits into -1 to 1."""
    return dataclasses.replace(NORMALISATION, mean=(0.0,) * channels, std=(1.0,) * channels)


def with_noise(
    values: Tensor, level: float, seeds: Sequence[int], recorded: np.ndarray | None = None
) -> Tensor:
    """Clips (B, C, T) with noise, each of a strength from 0 to `level` of its own level.

    recorded: samples (C, N) of noise, of which each takes what follows a place of its own, from the
    beginning again behind the end; None = white noise.
    """
    noisy = torch.empty_like(values)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        share = level * torch.rand((), generator=generator)
        clip = values[row].float()
        if recorded is None:
            unit = torch.randn(clip.shape, generator=generator)
        else:
            unit = _some_of(recorded, clip.shape[1], generator)
        noise = unit * clip.square().mean().sqrt() * share
        noisy[row] = (clip + noise).round_().clamp_(-FULL, FULL - 1).to(values.dtype)
    return noisy


def _some_of(recorded: np.ndarray, length: int, generator: torch.Generator) -> Tensor:
    """Samples (C, length) from some place on, of power 1; silence where there is nothing."""
    total = recorded.shape[1]
    start = int(torch.randint(total, (), generator=generator))
    places = np.arange(start, start + length) % total
    found = torch.from_numpy(recorded[:, places].astype(np.float32))
    return found / found.square().mean().sqrt().clamp(min=1)


def open_audio(
    source: str | Path,
    settings: DataConfig,
    seed: int,
    *,
    rate: int | None = None,
    channels: int | None = None,
    max_bad: float = MAX_BAD,
    progress: Callable[[float], None] | None = None,
) -> AudioData:
    """Recordings of a file or a folder and all below it, as clips.

    rate, channels: of a trained model that is used on them; without, recorded noise is read too.
    Recordings of equal samples never lie in different splits. Errors: VqkitError with one sentence
    that says what is wrong and what to do.
    """
    found = _read_source(
        source,
        settings,
        rate=rate or settings.sample_rate,
        channels=channels or settings.channels,
        max_bad=max_bad,
        progress=progress,
    )
    assert found.target.rate is not None
    data = AudioData(str(source), found.kept, found.target.rate, found.bad, settings)
    _split(data, seed)
    data.notes = _notes(found.headers, found.target, data)
    if rate is None:
        data.read_noise()
    return data


class _Read(NamedTuple):
    """What a source holds, the headers of its files, what it was brought to, and files that are
    left out.
    """

    kept: Kept
    headers: dict[Path, Header]
    target: Target
    bad: list[BadFile]


def _read_source(
    source: str | Path,
    settings: DataConfig,
    *,
    rate: int | None,
    channels: int | None,
    max_bad: float = MAX_BAD,
    progress: Callable[[float], None] | None = None,
) -> _Read:
    """All recordings of a file or a folder; rate and channels are those of most of the sound where
    they are not given. VqkitError.
    """
    root = Path(source).expanduser()
    paths = _paths(source, root)
    headers, bad = _headers(root, paths)
    target = Target(
        rate or _commonest(headers, lambda each: each.rate),
        channels or min(2, _commonest(headers, _channels)),
        3600 * settings.max_hours,
    )
    check_bad(str(source), bad, len(headers), max_bad)
    kept = _load_all(root, headers, target, settings, bad, progress)
    check_bad(str(source), bad, len(kept.recordings), max_bad)
    if not kept.recordings:
        raise VqkitError(f"{source} holds no recording that can be used")
    return _Read(kept, headers, target, bad)


def look_at(source: str | Path) -> Look | None:
    """The sound of a source, by the headers of its first files and the beginnings of some of them;
    None of what cannot be read.
    """
    root = Path(source).expanduser()
    try:
        headers, _ = _headers(root, _paths(source, root)[:LOOKED_AT])
    except VqkitError:
        return None
    if not headers:
        return None
    return Look(
        _commonest(headers, lambda each: each.rate),
        _commonest(headers, _channels),
        quiet_share(spread_out(list(headers))),
    )


def bad_files(
    source: str | Path, settings: DataConfig, progress: Callable[[float], None] | None = None
) -> tuple[list[BadFile], int]:
    """All files of a source that cannot be used, and the number of those that can."""
    root = Path(source).expanduser()
    paths = _paths(source, root)
    headers, bad = _headers(root, paths)
    good = 0
    for number, path in enumerate(headers, 1):
        try:
            _usable(path, Target(None, None, 3600 * settings.max_hours))
            good += 1
        except BadSound as error:
            bad.append(BadFile(_name(root, path), str(error)))
        if progress:
            progress(number / len(headers))
    return bad, good


def _paths(source: str | Path, root: Path) -> list[Path]:
    if not root.exists():
        raise VqkitError(f"there is no file or folder '{source}'")
    paths = files_below(root, is_sound) if root.is_dir() else [root]
    if not paths:
        raise VqkitError(f"{source} holds no recordings")
    return paths


def _name(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path != root else path.name


def _headers(root: Path, paths: Sequence[Path]) -> tuple[dict[Path, Header], list[BadFile]]:
    headers = {}
    bad = []
    for path in paths:
        try:
            headers[path] = read_header(path)
        except BadSound as error:
            bad.append(BadFile(_name(root, path), str(error)))
    return headers, bad


def _channels(header: Header) -> int:
    return header.channels


def _commonest(headers: Mapping[Path, Header], what: Callable[[Header], int]) -> int:
    """What most of the sound has, by its length."""
    seconds: Counter[int] = Counter()
    for header in headers.values():
        seconds[what(header)] += max(1, round(100 * header.seconds))
    return seconds.most_common(1)[0][0] if seconds else 1


def _usable(path: Path, target: Target) -> Samples:
    """The samples of a file. BadSound."""
    samples, _ = load(path, target)
    if not samples.any():
        raise BadSound("nothing but silence")
    return samples


def _load_all(
    root: Path,
    headers: Mapping[Path, Header],
    target: Target,
    settings: DataConfig,
    bad: list[BadFile],
    progress: Callable[[float], None] | None,
) -> Kept:
    """All samples, on disk where they are more than fits into memory."""
    assert target.channels is not None
    seconds = sum(header.seconds for header in headers.values())
    num_bytes = 2 * target.channels * seconds * (target.rate or 1)
    blocks: list[Samples] = []
    on_disk = temporary_file("sound") if num_bytes > settings.max_memory_mb << 20 else None
    recordings: list[Recording] = []
    start = 0
    for number, path in enumerate(headers, 1):
        try:
            samples = _usable(path, target)
        except BadSound as error:
            bad.append(BadFile(_name(root, path), str(error)))
            continue
        if on_disk is None:
            blocks.append(samples)
        else:
            on_disk[1].write(samples.T.tobytes())
        content = digest(np.ascontiguousarray(samples).tobytes())
        recordings.append(
            Recording(
                _name(root, path),
                start,
                samples.shape[1],
                content,
                _group(root, path),
                _caption(path),
            )
        )
        start += samples.shape[1]
        if progress:
            progress(number / len(headers))
    if on_disk is None:
        nothing = np.zeros((target.channels, 0), np.int16)
        return Kept(np.concatenate([nothing, *blocks], 1), recordings)
    on_disk[1].close()
    mapped = np.memmap(on_disk[0], np.int16, "r", shape=(start, target.channels))
    delete_with(mapped, on_disk[0])
    return Kept(mapped.T, recordings)


def _group(root: Path, path: Path) -> str:
    """The folder right below the source that a file lies in, such as a speaker; '' for none."""
    if path == root:
        return ""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _caption(path: Path) -> str:
    """The transcript beside a recording; '' for none."""
    text = path.with_suffix(".txt")
    try:
        if not text.is_file():
            return ""
        content = text.read_bytes()[:MAX_CAPTION]
    except OSError:
        return ""
    return " ".join(content.decode("utf-8", "replace").split())


class _Clips(NamedTuple):
    starts: np.ndarray
    lengths: np.ndarray
    owners: np.ndarray


def _clips(recordings: Sequence[Recording], length: int, overlap: int) -> _Clips:
    """Clips that begin at every `overlap`-th part of a clip."""
    starts, lengths, owners = [], [], []
    step = max(1, length // overlap)
    for owner, recording in enumerate(recordings):
        whole = np.arange(0, max(1, recording.length - length + 1), step)
        # What is left behind the last whole clip is padded, beginning where clips do that are
        # measured.
        rest = recording.length // length * length
        places = np.unique(np.append(whole, rest if rest < recording.length else 0))
        starts.append(recording.start + places)
        lengths.append(np.minimum(length, recording.length - places))
        owners.append(np.full(len(places), owner))
    return _Clips(np.concatenate(starts), np.concatenate(lengths), np.concatenate(owners))


def _split(data: AudioData, seed: int) -> None:
    """Splits by recording or by folder; those that are measured hold every sample once."""
    settings = data.settings
    recordings = data.kept.recordings
    contents = pack([recording.content for recording in recordings])
    keys = contents
    if settings.split_by == "folder":
        _, labels = np.unique([recording.group for recording in recordings], return_inverse=True)
        if labels.max() == 0:
            raise VqkitError(
                f"data.split_by=folder needs several folders right below {data.name}, such as one "
                "a speaker"
            )
        keys = tie(contents, [labels.astype(np.int64)])
    shares = (settings.validation, settings.test)
    of_recordings = split(contents, keys, seed, shares)
    for name, ids in of_recordings.items():
        rank = np.full(len(recordings), -1)
        rank[ids] = np.arange(len(ids))
        wanted = rank[data.owners] >= 0
        data.seconds[name] = sum(recordings[index].length for index in ids) / data.rate
        if name != "train":
            wanted &= data.places % data.shape.extent[0] == 0
        clips = np.flatnonzero(wanted)
        order = np.argsort(rank[data.owners[clips]], kind="stable")
        data.splits[name] = clips[order].astype(np.int64)


def _notes(headers: Mapping[Path, Header], target: Target, data: AudioData) -> list[str]:
    notes = []
    resampled = sum(header.rate != target.rate for header in headers.values())
    if resampled:
        notes.append(f"{resampled} recordings were resampled to {target.rate} samples a second")
    mixed = sum(header.channels > (target.channels or 1) for header in headers.values())
    if mixed:
        notes.append(f"{mixed} recordings were mixed down to {target.channels} channel(s)")
    minutes = {name: seconds / 60 for name, seconds in data.seconds.items()}
    notes.append(
        f"{minutes['train']:.1f} minutes of sound to train on, {minutes['validation']:.1f} held "
        f"out for validation and {minutes['test']:.1f} for test, at {data.rate} samples a second"
    )
    return notes
