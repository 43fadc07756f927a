"""Claim pair_audio_word: does a pair of recordings and text know which word a new voice says?

    python benchmarks/pairs_speech.py [--quick] [--seed 0] [--voices es-Colombia ...] [--steps 700]
        [--json FILE] [--work DIR]

Numbers from 0 to 30 and the tens, spoken by seven voices in four languages, from Debian's packages
of prompts for Asterisk. For each of --voices: it is held out, and the six others are trained on,
each recording COPIES times: at other speeds, which moves pitch and formants as another speaker
would, with noise, and a pause before it. `vqkit train`, recipe speech with one code of 128 for
every 40 ms; `vqkit pairs MODEL bytes`, the text being the number in digits. Tested on all numbers
of the held-out voice that the others have: which of them the recording is, by the bits of the text
told the recording; and whether the text that is generated, always the likeliest byte, is that
number. Beside it the share with numbers shuffled, and a peer: the recogniser of
benchmarks/speech_wer_proxy.py, which sees spectra, trained on the same copies.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
from bench.claims import Claim, kept, machine, options, report
from bench.recogniser import Recogniser, altered, of_word
from bench.speech_sets import NUMBERS, RATE, read_numbers

PARSER = options(__doc__, work=True)
PARSER.add_argument("--voices", nargs="+", default=["es-Colombia"], choices=list(NUMBERS))
PARSER.add_argument("--steps", type=int, default=700)

COPIES = 12
PEER_STEPS = 400
# Seconds of silence before a word, at most.
PAUSE = 0.15
CODEC = [
    "model.quantizer.num_stages=1",
    "model.quantizer.quantizer_dropout=0",
    "model.quantizer.stage.codebook_size=128",
    "model.network.decoder_blocks=1",
    "model.network.width=64",
    "data.test=0",
    "coder.steps=0",
]
PAIR = [
    "network.width=128",
    "network.num_blocks=3",
    "network.dropout=0.2",
    "network.caption_bytes=4",
    "train.batch_size=32",
    "train.max_minutes=null",
    "train.patience=0",
    "augment={level: 6}",
]


def write_copies(folder: Path, held_out: str, copies: int, seed: int) -> None:
    """All voices but one, each recording so many times, with its number beside it."""
    rng = np.random.default_rng(seed)
    for voice in NUMBERS:
        if voice == held_out:
            continue
        (folder / voice).mkdir(parents=True)
        for number, samples in read_numbers(voice).items():
            for copy in range(copies):
                pause = np.zeros(rng.integers(0, round(PAUSE * RATE)), np.int16)
                sound = altered(samples, rng).clip(-32768, 32767).astype(np.int16)
                path = folder / voice / f"{number}-{copy}.wav"
                soundfile.write(path, np.concatenate([pause, sound]), RATE, "PCM_16")
                path.with_suffix(".txt").write_text(number, encoding="utf-8")


def train(work: Path, held_out: str, steps: int, seed: int, quick: bool) -> Path:
    """The folder of a pair that has not heard a voice."""
    vqkit = [sys.executable, "-m", "vqkit"]
    data, model, pair = (work / f"{name}-{held_out}-{seed}" for name in ("heard", "codec", "pair"))
    if not data.exists():
        part = data.with_suffix(".part")
        write_copies(part, held_out, 2 if quick else COPIES, seed)
        part.rename(data)
    codec = ["train.steps=20"] if quick else ["train.max_minutes=2"]
    if not (model / "model.safetensors").exists():
        command = ["train", str(data), "--recipe", "speech", "--out", str(model), f"seed={seed}"]
        subprocess.run([*vqkit, *command, *CODEC, *codec], check=True)
    if not (pair / "config.json").exists():
        command = ["pairs", str(model), "bytes", str(data), "--out", str(pair), f"seed={seed}"]
        how = [*PAIR, f"train.steps={10 if quick else steps}"]
        subprocess.run([*vqkit, *command, *how], check=True)
    return pair


def measure(folder: Path, data: Path, held_out: str, seed: int) -> dict:
    """Shares in [0, 1] of the numbers of a voice that are known."""
    import torch

    import vqkit
    from vqkit.prior.sampling import Sampling

    pair = vqkit.load(folder, device="cpu")
    heard = {path.read_text(encoding="utf-8") for path in data.rglob("*.txt")}
    spoken = {name: one for name, one in read_numbers(held_out).items() if name in heard}
    words = sorted(spoken, key=int)
    sounds = torch.cat([pair.halves[0].encode(spoken[word]).codes for word in words])
    texts = pair.halves[1].encode(words).codes
    count = len(words)
    both = torch.cat([sounds.repeat_interleave(count, 0), texts.repeat(count, 1)], 1)
    bits = pair.prior.bits(both, 0)[:, 1].reshape(count, count)
    found = bits.argmin(1).numpy()
    shuffled = np.random.default_rng(seed).permutation(count)
    drawn = pair.prior.draw(1, sounds, Sampling(temperature=0.0))
    said = pair.halves[1].array(pair.halves[1].decode(drawn))
    return {
        "voice": held_out,
        "words": count,
        "known": float((found == np.arange(count)).mean()),
        "shuffled": float((found == shuffled).mean()),
        "written": float(np.mean([one == word for one, word in zip(said, words, strict=True)])),
        "peer": peer(data, spoken, words, seed),
        "taken_for": {word: words[index] for word, index in zip(words, found, strict=True)},
        "prior": pair.prior.metrics,
    }


def peer(data: Path, spoken: dict[str, np.ndarray], words: list[str], seed: int) -> float:
    """The share that a recogniser of spectra knows."""
    seen, names = [], []
    for path in sorted(data.rglob("*.wav")):
        seen.append(of_word(soundfile.read(path, dtype="int16")[0]))
        names.append(path.with_suffix(".txt").read_text(encoding="utf-8"))
    recogniser = Recogniser(np.stack(seen), names, seed, PEER_STEPS)
    tested = np.stack([of_word(spoken[word]) for word in words])
    return float(recogniser.is_right(tested, words).mean())


def main() -> None:
    arguments = PARSER.parse_args()
    seed, quick = arguments.seed, arguments.quick
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for voice in arguments.voices:
            folder = train(work, voice, arguments.steps, seed, quick)
            data = work / f"heard-{voice}-{seed}"
            found = partial(measure, folder, data, voice, seed)
            rows.append(kept(work / f"word-{voice}-{seed}.json", found))
    claims = []
    for name, key, goal in (
        ("pair_audio_word", "known", ">= 60"),
        ("pair_audio_word_shuffled", "shuffled", "chance"),
        ("pair_audio_word_written", "written", "published"),
        ("pair_audio_word_peer", "peer", "published"),
    ):
        value = 100 * mean(row[key] for row in rows)
        claims.append(Claim(name, value, "%", goal, None, {**machine(), "rows": rows}))
    report(claims, arguments)


if __name__ == "__main__":
    main()
