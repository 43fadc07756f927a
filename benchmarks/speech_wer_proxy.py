"""Claims speech_wer_proxy and speech_word_proxy: what a recogniser still recognises after our
codec.

    python benchmarks/speech_wer_proxy.py [--quick] [--seed 0] [--minutes 10] [--work DIR]
        [--json FILE]

The codec is that of benchmarks/speech.py (with the same DIR the same run): recipe speech at 8 kHz,
trained on English and Spanish prompts. Recognised are, by a network of two layers that never hears
a codec, trained on original recordings alone:

phones: 50 classes of Russian, in the sentences of festvox-ru (one speaker, resampled to 8 kHz) that
are not in training, a tenth by name; where each begins and ends is told. A voice and a language
that the codec never heard.
words: digits, letters and the phonetic alphabet of the five voices of asterisk-core-sounds, a word
of a voice being a class. There is one recording of each: the recogniser is trained on it 30 times,
at other speeds, from 0.85 to 1.18, with noise 15 to 40 dB below it, and tested on it as it is.
Three of the voices, French, Italian and Russian, the codec never heard.

A claim is the share of the accuracy on originals that is left on what came through the codec at
two kilobits a second at most. Codec2 at 2.4 kilobits stands beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.recogniser import RATE, Recogniser, altered, log_mel, of_phone, of_word, read_phones
from bench.speech_codecs import codec2
from bench.speech_scores import decoded, ours, trained
from bench.speech_sets import (
    TRAINED,
    WORDS,
    read_all,
    write_prompts,
    write_sentences,
    write_words,
)

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=10.0)

PAUSE = "pau"
# The shortest word that is recognised, seconds.
LEAST = 0.2
Recordings = dict[str, np.ndarray]


class Amounts(NamedTuple):
    """Kilobits a second that are asked for at most, sentences to train and to test on, words,
    copies of each, and steps of the recogniser.
    """

    rates: tuple[float, ...] = (1.0, 2.0)
    trained: int = 1000
    tested: int = 1000
    words: int = 10_000
    copies: int = 30
    steps: int = 4000


QUICK = Amounts((2.0,), trained=30, tested=6, words=100, copies=4, steps=200)


def read_sentences(folder: Path, most: int) -> Recordings:
    """int16 at 8 kHz, by the names of files."""
    import soxr

    found = read_all(folder, most, rate=2 * RATE)
    return {name: soxr.resample(samples, 2 * RATE, RATE) for name, samples in found.items()}


def phones_of(folder: Path, sentences: Recordings) -> tuple[np.ndarray, list[str]]:
    """What is seen of all phones of sentences, and their names."""
    seen = []
    names = []
    for name, samples in sentences.items():
        logs = log_mel(samples)
        for phone in read_phones((folder / name).with_suffix(".lab")):
            if phone.name != PAUSE and phone.end * RATE <= len(samples):
                seen.append(of_phone(logs, phone))
                names.append(phone.name)
    return np.stack(seen), names


def of_codecs(recordings: Recordings, run: Path, rates: tuple[float, ...]) -> dict[str, tuple]:
    """What comes out of codecs, and their kilobits; the originals first."""
    found = {"original": (recordings, 128.0)}
    codec = ours(run)
    for kbps in rates:
        heard = decoded(recordings, codec(kbps))
        found[f"vqkit {kbps:g}"] = (heard.recordings, heard.kbps)
    heard = decoded(recordings, lambda whole: codec2(whole, 2400), may_be_late=True)
    found["codec2 2400"] = (heard.recordings, heard.kbps)
    return found


def measure_phones(work: Path, run: Path, seed: int, amounts: Amounts) -> list[dict]:
    folder = work / "sentences"
    train = read_sentences(folder / "train", amounts.trained)
    recogniser = Recogniser(*phones_of(folder / "train", train), seed, amounts.steps)
    test = read_sentences(folder / "held-out", amounts.tested)
    rows = []
    for codec, (heard, kbps) in of_codecs(test, run, amounts.rates).items():
        right = recogniser.is_right(*phones_of(folder / "held-out", heard))
        rows.append(row_of(codec, kbps, right, recogniser))
    return kept_shares(rows)


def measure_words(work: Path, run: Path, seed: int, amounts: Amounts) -> dict[str, list[dict]]:
    """Of the voices that the codec was trained on, and of those that it was not."""
    words = read_all(work / "words", amounts.words, LEAST)
    random = np.random.default_rng(seed)
    copies = range(amounts.copies)
    seen = [of_word(altered(one, random)) for one in words.values() for _ in copies]
    names = [name for name in words for _ in copies]
    recogniser = Recogniser(np.stack(seen), names, seed, amounts.steps)
    found: dict[str, list[dict]] = {}
    for group in ("trained", "unheard"):
        is_trained = group == "trained"
        chosen = {name: one for name, one in words.items() if (name[:2] in TRAINED) == is_trained}
        rows = []
        for codec, (heard, kbps) in of_codecs(chosen, run, amounts.rates).items():
            spectra = np.stack([of_word(one) for one in heard.values()])
            right = recogniser.is_right(spectra, list(heard))
            rows.append(row_of(codec, kbps, right, recogniser))
        found[group] = kept_shares(rows)
    return found


def row_of(codec: str, kbps: float, right: np.ndarray, recogniser: Recogniser) -> dict:
    return {
        "codec": codec,
        "kbps": kbps,
        "items": len(right),
        "classes": len(recogniser.names),
        "accuracy": float(right.mean()),
    }


def kept_shares(rows: list[dict]) -> list[dict]:
    """Rows with the share of the first one's accuracy that each has."""
    whole = rows[0]["accuracy"]
    return [{**row, "kept": row["accuracy"] / whole} for row in rows]


def print_table(name: str, rows: list[dict]) -> None:
    print(f"{name}: {rows[0]['items']} items, {rows[0]['classes']} classes")
    for row in rows:
        accuracy = 100 * row["accuracy"]
        kept = 100 * row["kept"]
        print(
            f"  {row['codec']:<14}{row['kbps']:>7.2f} kbps {accuracy:>6.1f} % {kept:>7.1f} % kept"
        )


def main() -> None:
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="vqkit-recognised-"))
    write_prompts(work)
    write_words(work)
    write_sentences(work)
    minutes = None if arguments.quick else arguments.minutes
    out = work / f"run-{arguments.seed}"
    run = trained(work / "train", out, minutes, [f"seed={arguments.seed}"])
    amounts = QUICK if arguments.quick else Amounts()
    phones = measure_phones(work, run, arguments.seed, amounts)
    words = measure_words(work, run, arguments.seed, amounts)
    print_table("phones, unheard", phones)
    for group, rows in words.items():
        print_table(f"words, {group}", rows)
    settings = {**machine(), "seed": arguments.seed, "minutes": minutes, "voices": WORDS}
    settings |= {"phones": phones, "words": words}
    two = f"vqkit {amounts.rates[-1]:g}"
    claims = []
    for name, rows in (("speech_wer_proxy", phones), ("speech_word_proxy", words["unheard"])):
        kept = next(row["kept"] for row in rows if row["codec"] == two)
        claims.append(Claim(name, 100 * kept, "%", ">= 95", "original", settings))
    report(claims, arguments)


if __name__ == "__main__":
    main()
