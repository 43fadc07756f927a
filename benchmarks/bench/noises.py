"""Recorded noise that Debian's packages bring, and speech with it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import soundfile

from bench.debian_packages import unpacked

# What is learned from: wind, thunder, humming, alien machines and nights of UFO: Alien Invasion
# (without what is spoken, rung or played there, and without the kinds that are tested on), wind and
# a desert of Lugaru, slides over snow, mud and leaves of Extreme Tux Racer.
UFO = "usr/share/games/ufoai/base/0snd.pk3"
NOT_NOISE = ("radiomessage", "tv_newswav", "disco", "jingle", "jingle2")
# What names begin with of noises of the kinds that are tested on: fire, water, wind wheels, mines,
# plants.
TESTED_KINDS = ("fire", "smallfire", "water", "wind_turbine", "minepump", "machine", "steam")
LUGARU = "usr/share/games/lugaru/Sounds"
FROM_LUGARU = ("Wind", "DesertAmbient")
RACER = "usr/share/games/etr/sounds"
# What is tested on, from LinCity-NG: traffic, trains, crowds, markets, industry, power stations,
# mines, water, fire and windmills.
LINCITY = "usr/share/games/lincity-ng/sounds"
HEARD_IN_TEST = (
    "Trafic",
    "RailTrain",
    "SportsCroud",
    "Market",
    "Industry",
    "PowerCoal",
    "CoalMine",
    "Water",
    "Fire",
    "WindMill",
)


def write_noises(work: Path) -> None:
    """work/noise/{train,test}, of different packages and of different kinds of noise."""
    if (work / "noise").exists():
        return
    made = work / "noise.part"
    for part in ("train", "test"):
        (made / part).mkdir(parents=True, exist_ok=True)
    with unpacked("ufoai-sound") as files, zipfile.ZipFile(files / UFO) as archive:
        for name in archive.namelist():
            path = Path(name)
            if path.parent.name != "ambience" or not path.suffix:
                continue
            if path.stem not in NOT_NOISE and not path.name.startswith(TESTED_KINDS):
                (made / "train" / path.name).write_bytes(archive.read(name))
    with unpacked("lugaru-data") as files:
        for stem in FROM_LUGARU:
            shutil.copy(files / LUGARU / f"{stem}.ogg", made / "train")
    with unpacked("extremetuxracer-data") as files:
        for path in (files / RACER).glob("*_slide.wav"):
            shutil.copy(path, made / "train")
    with unpacked("lincity-ng-data") as files:
        for path in (files / LINCITY).glob("*.wav"):
            if path.stem.startswith(HEARD_IN_TEST):
                shutil.copy(path, made / "test")
    made.rename(work / "noise")


def read_noises(folder: Path, rate: int) -> dict[str, np.ndarray]:
    """float64 (T,) at so many samples a second, by name, in the order of names."""
    import soxr

    found = {}
    for path in sorted(folder.iterdir()):
        samples, its_rate = soundfile.read(path, always_2d=True)
        sound = soxr.resample(samples.mean(1), its_rate, rate)
        # Some begin or end with nothing at all.
        loud = np.flatnonzero(np.abs(sound) > 1e-3)
        if len(loud):
            found[path.name] = sound[loud[0] : loud[-1] + 1]
    return found


def with_noise(speech: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    """int16 speech (T,) with noise, again and again from its beginning, so many dB below it over
    the whole recording; both are softer where their sum were beyond full scale.
    """
    repeated = np.resize(noise, len(speech))
    wanted = speech.astype(np.float64)
    share = np.sqrt(np.square(wanted).mean() / np.square(repeated).mean()) * 10 ** (-decibels / 20)
    mixed = wanted + share * repeated
    return np.rint(mixed * min(1.0, 32767 / np.abs(mixed).max())).astype(np.int16)
