"""Claim pair_audio_word: does a pair of recordings and text know which word a new voice says?

    python benchmarks/pairs_speech.py [--quick] [--seed 0] [--minutes 20] [--json FILE]
        [--work DIR]

Words: the numbers from zero to twenty, the tens, and the 26 names of letters from alpha to zulu.
Training hears them from synthesisers alone (bench/voices.py), whose packages from Debian and PyPI
are unpacked, not installed: copies of what they say at other speeds, which moves pitch and formants
as another speaker would, in other colours and with noise. `vqkit train`, recipe speech with nine
codes of 256 for every 80 ms, each for 16 channels of the latents, so that pitch and voicing have
codes of their own; `vqkit pairs MODEL bytes`, the text being the word.

Tested on all 54 words of Allison, the English voice of Asterisk's prompts, of whom nothing was
trained on: which of the words a recording is, by the bits of the text told the recording; and
whether the text that is generated, always the likeliest byte, is that word. Settings were chosen by
Dawson, the voice of the package saytime, who says 24 of them. Beside it the share with words
shuffled, and a peer: a network that sees spectra, trained on the same copies.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench.claims import Claim, kept, machine, options, report
from bench.spoken_words import (
    CHOSEN_BY,
    TESTED,
    WORDS,
    WordNetwork,
    read_copies,
    read_people,
    write_copies,
)
from bench.voices import write_takes

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=20.0, help="that the pair is trained")

# Copies of a take at most.
COPIES = 8
PEER_STEPS = 1500
CODEC = [
    "data.test=0",
    "data.validation=0.08",
    "data.split_by=folder",
    "data.overlap=1",
    "model.network.frames=8",
    "model.network.bands=16",
    "model.network.decoder_blocks=1",
    "model.network.width=64",
    "model.quantizer={kind: product, num_groups: 9, "
    "group: {kind: vq, code_dim: 16, codebook_size: 256}}",
    "coder.steps=0",
    "train.steps=300",
]
PAIR = [
    "network.width=128",
    "network.num_blocks=3",
    "network.dropout=0.2",
    "network.caption_bytes=12",
    "train.batch_size=32",
    "train.max_minutes=null",
    "train.patience=0",
]


def train(work: Path, minutes: float, seed: int, quick: bool) -> tuple[Path, Path]:
    """The folder of what was heard, and that of a pair that has heard no person."""
    takes, heard, model, pair = (
        work / name for name in ("takes", f"heard-{seed}", f"codec-{seed}", f"pair-{seed}")
    )
    _made(takes, partial(write_takes, quick=quick))
    _made(heard, lambda part: write_copies(takes, part, 1 if quick else COPIES, seed))
    vqkit = [sys.executable, "-m", "vqkit"]
    if not (model / "model.safetensors").exists():
        command = ["train", str(heard), "--recipe", "speech", "--out", str(model), f"seed={seed}"]
        short = ["train.steps=10"] if quick else []
        subprocess.run([*vqkit, *command, *CODEC, *short], check=True)
    if not (pair / "config.json").exists():
        command = ["pairs", str(model), "bytes", str(heard), "--out", str(pair), f"seed={seed}"]
        short = ["train.steps=10"] if quick else ["--minutes", str(minutes)]
        subprocess.run([*vqkit, *command, *PAIR, *short], check=True)
    return heard, pair


def _made(folder: Path, make: Callable[[Path], None]) -> None:
    """A folder that is there in full."""
    if not folder.exists():
        part = folder.with_suffix(".part")
        make(part)
        part.rename(folder)


class Known:
    """What a pair makes of one speaker's words."""

    def __init__(self, folder: Path, name: str) -> None:
        import vqkit

        self.pair = vqkit.load(folder, device="cpu")
        self.spoken = read_people(name)
        self.sounds = torch.cat(
            [self.pair.halves[0].encode(sound).codes for sound in self.spoken.values()]
        )

    def by_bits(self) -> list[str]:
        """The word whose text costs least told each recording."""
        texts = self.pair.halves[1].encode(list(WORDS)).codes
        count = len(WORDS)
        both = torch.cat(
            [self.sounds.repeat_interleave(count, 0), texts.repeat(len(self.sounds), 1)], 1
        )
        bits = self.pair.prior.bits(both, 0)[:, 1].reshape(-1, count)
        return [WORDS[place] for place in bits.argmin(1).tolist()]

    def written(self) -> list[str]:
        """What is generated of each recording, always the likeliest byte."""
        from vqkit.prior.sampling import Sampling

        text = self.pair.halves[1]
        drawn = self.pair.prior.draw(1, self.sounds, Sampling(temperature=0.0))
        return text.array(text.decode(drawn))


def measure(folder: Path, name: str, seed: int) -> dict:
    """Shares in [0, 1] of a speaker's words that are known."""
    known = Known(folder, name)
    words = list(known.spoken)
    found = known.by_bits()
    shuffled = list(np.random.default_rng(seed).permutation(words))
    return {
        "words": len(words),
        "known": agreement(found, words),
        "shuffled": agreement(found, shuffled),
        "written": agreement(known.written(), words),
        "taken_for": dict(zip(words, found, strict=True)),
        "prior": known.pair.prior.metrics,
    }


def peer(heard: Path, seed: int, steps: int) -> dict[str, float]:
    """The shares that a network which sees spectra knows, by speaker."""
    recogniser = WordNetwork(*read_copies(heard), seed, steps)
    found = {}
    for name in (TESTED, CHOSEN_BY):
        spoken = read_people(name)
        found[name] = agreement(recogniser.words_of(list(spoken.values())), list(spoken))
    return found


def agreement(found: list[str], words: list[str]) -> float:
    return float(np.mean([one == word for one, word in zip(found, words, strict=True)]))


def main() -> None:
    arguments = PARSER.parse_args()
    seed, quick = arguments.seed, arguments.quick
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        heard, pair = train(work, arguments.minutes, seed, quick)

        steps = 10 if quick else PEER_STEPS
        peers = kept(work / f"peer-{seed}.json", partial(peer, heard, seed, steps))
        rows = {
            name: kept(work / f"{name}-{seed}.json", partial(measure, pair, name, seed))
            | {"peer": peers[name]}
            for name in (TESTED, CHOSEN_BY)
        }
    claims = []
    for name, key, goal in (
        ("pair_audio_word", "known", ">= 60"),
        ("pair_audio_word_shuffled", "shuffled", "chance"),
        ("pair_audio_word_written", "written", "published"),
        ("pair_audio_word_peer", "peer", "published"),
    ):
        value = 100 * rows[TESTED][key]
        claims.append(Claim(name, value, "%", goal, None, {**machine(), "rows": rows}))
    report(claims, arguments)


if __name__ == "__main__":
    main()
