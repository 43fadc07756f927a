"""Speech at 8 kHz: `vqkit train FOLDER` without an option, its files beside Codec2 and Opus.

    python benchmarks/speech.py [--quick] [--seed 0] [--minutes 10] [--streams] [--work DIR]
        [--json FILE] [SETTING ...]

Trains on the English and Spanish prompts of Debian's asterisk-core-sounds but a tenth, by the
names of the prompts. Tests on the French ones, a voice and a language that were not heard in
training, for which the goals hold, and on that tenth; of each 120 recordings of 1.5 s and more, or
all, in files of a minute of sound. A file has at most so many kilobits a second as its claim says,
every byte counted. STOI and narrowband PESQ are means over the recordings, each cut out of its
minute. Peers decode the same minutes, and the delay of each is taken out. Bytes against Opus are
those of the smallest rate of ours whose STOI reaches that of Opus at 6 kbit/s, both with their
containers. The saving of entropy coding is that of a whole file with all stages, against codes of
fixed length. Seconds of work are of one thread, in a process that has loaded its model. SETTINGs
are of the training, such as model.causal=true. --streams counts the codes that differ between
streams and wholes, and measures nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.speech_codecs import codec2, opus
from bench.speech_scores import at, bytes_against_opus, curve, measured, run_folder, trained
from bench.speech_sets import RATE, UNHEARD, read_all, write_prompts

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=10.0)
PARSER.add_argument("--streams", action="store_true")
PARSER.add_argument("settings", nargs="*", metavar="SETTING")

# Recordings of a set that are measured, at most.
MOST = 120
RATES = (0.7, 1.0, 1.5, 2.0)
# Samples that come at once.
PIECES = (1, 37, 160, 320, 1000, 8000, 33333)
WANTED_CODES = 1_000_000


def peers(recordings: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    found = {}
    for bits in (1200, 2400, 3200):
        found[f"codec2 {bits}"] = measured(
            recordings, lambda whole, b=bits: codec2(whole, b), may_be_late=True
        )
    with opus() as encode:
        for kbps in (6, 8):
            found[f"opus {kbps}k"] = measured(
                recordings, lambda whole, k=kbps: encode(whole, k), may_be_late=True
            )
    return found


# ------------------------------------------------------------------------------ beside the quality


def speed(run: Path, samples: np.ndarray) -> float:
    """Seconds of work a second of sound, of encoding and decoding a file, on one thread."""
    code = (
        "import sys, time, numpy as np, torch, vqkit\n"
        "torch.set_num_threads(1)\n"
        "model = vqkit.load(sys.argv[1], device='cpu')\n"
        "samples = np.load(sys.argv[2])\n"
        "model.decompress(model.compress(samples[:16000], rate='medium'))\n"
        "began = time.process_time()\n"
        "model.decompress(model.compress(samples, rate='medium'))\n"
        "print((time.process_time() - began) / (len(samples) / 8000))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npy"
        np.save(path, samples)
        command = [sys.executable, "-c", code, str(run), str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def stream_differences(run: Path, samples: np.ndarray, count: int) -> tuple[int, int]:
    """Codes that differ between the whole and pieces of seven sizes, batches and padded items; and
    how many were compared.
    """
    import torch

    import vqkit

    model = vqkit.load(run, device="cpu")
    encode = model.tokenizer.encode
    values = torch.from_numpy(samples)[None]
    per_second = RATE // model.network.tile[0] * model.tokenizer.num_codebooks
    length = min(values.shape[1], max(4, count // (9 * per_second)) * RATE)
    whole = encode(values[None, :, :length])[0]
    different = 0
    compared = 0
    for size in PIECES:
        # A sample at a time is tried on a few seconds.
        end = min(length, 4 * RATE) if size == 1 else length
        wanted = whole if end == length else encode(values[None, :, :end])[0]
        stream, _ = model.stream()
        parts = [stream.push(values[:, at : min(end, at + size)]) for at in range(0, end, size)]
        found = torch.cat([*parts, stream.finish()], 1)
        different += int((found != wanted).sum())
        compared += wanted.numel()
    clips = values[:, : length // 4 * 4].view(4, 1, -1)
    alone = torch.cat([encode(one[None]) for one in clips])
    different += int((encode(clips) != alone).sum())
    compared += alone.numel()
    mask = torch.ones(len(clips), clips.shape[2] + 3200, dtype=torch.bool)
    mask[:, clips.shape[2] :] = False
    padded = encode(torch.nn.functional.pad(clips, (0, 3200)), mask)[..., : alone.shape[2]]
    different += int((padded != alone).sum())
    return different, compared + alone.numel()


def entropy_saving(run: Path, samples: np.ndarray) -> float:
    """Share of bits that a file with all stages has less than codes of fixed length."""
    import vqkit

    model = vqkit.load(run, device="cpu")
    fixed = model.network.num_bits((len(samples),))
    return 1 - 8 * len(model.compress(samples)) / fixed


def measure(work: Path, run: Path, quick: bool) -> dict:
    most = 8 if quick else MOST
    sets = {name: read_all(work / name, most) for name in ("unheard", "held-out")}
    rates = (1.0, 2.0) if quick else RATES
    found: dict = {"recordings": {name: len(each) for name, each in sets.items()}}
    found["ours"] = {name: curve(run, each, rates) for name, each in sets.items()}
    found["peers"] = kept(
        work / f"peers{'-quick' if quick else ''}.json",
        lambda: {name: peers(each) for name, each in sets.items()},
    )
    speech = np.concatenate(list(sets["unheard"].values()))
    minute = speech[: 60 * RATE]
    began = time.perf_counter()
    found["seconds"] = speed(run, minute)
    found["differences"] = stream_differences(run, speech, codes_to_compare(quick))
    found["saving"] = entropy_saving(run, minute)
    found["measuring"] = time.perf_counter() - began
    return found


def codes_to_compare(quick: bool) -> int:
    return 20_000 if quick else WANTED_CODES


def streams_claim(differences: tuple[int, int], settings: dict) -> Claim:
    different, compared = differences
    where = {**settings, "different": different, "compared": compared}
    value = different * 1e6 / compared
    return Claim("audio_stream_differences", value, "in 10^6", "0", None, where)


def print_table(found: dict) -> None:
    for name, points in found["ours"].items():
        print(f"{name}: {found['recordings'][name]} recordings of 1.5 s and more")
        print(f"  {'codec':<14}{'kbps':>6}{'STOI':>8}{'PESQ':>7}")
        rows = [(f"vqkit {point['asked']:g}", point) for point in points]
        for codec, point in [*rows, *found["peers"][name].items()]:
            print(f"  {codec:<14}{point['kbps']:>6.2f}{point['stoi']:>8.3f}{point['pesq']:>7.2f}")


def main() -> None:
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="vqkit-speech-"))
    write_prompts(work)
    minutes = 0.7 if arguments.quick else arguments.minutes
    run = run_folder(work, arguments.seed, arguments.settings)
    chosen = [f"seed={arguments.seed}", *arguments.settings]
    trained(work / "train", run, minutes, chosen)
    settings = {**machine(), "seed": arguments.seed, "minutes": minutes, "voice": UNHEARD}
    settings |= {"settings": arguments.settings}
    if arguments.streams:
        speech = np.concatenate(list(read_all(work / "unheard", MOST).values()))
        found = stream_differences(run, speech, codes_to_compare(arguments.quick))
        report([streams_claim(found, settings)], arguments)
        return
    found = measure(work, run, arguments.quick)
    print_table(found)
    report(
        [*quality_claims(found, settings), streams_claim(found["differences"], settings)], arguments
    )


def quality_claims(found: dict, settings: dict) -> list[Claim]:
    points = found["ours"]["unheard"]
    rivals = found["peers"]["unheard"]
    one = at(points, 1.0)
    two = at(points, 2.0)
    opus_share = bytes_against_opus(points, rivals["opus 6k"])
    rows = [
        ("speech_stoi_1kbps", one["stoi"], "", ">= 0.87", "codec2 1200"),
        ("speech_pesq_1kbps", one["pesq"], "", ">= 2.1", "codec2 1200"),
        ("speech_stoi_2kbps", two["stoi"], "", ">= 0.90", "codec2 2400"),
        ("speech_pesq_2kbps", two["pesq"], "", ">= 2.4", "codec2 2400"),
        ("speech_bytes_vs_opus", opus_share, "share", "<= 0.5", "opus 6k"),
        ("audio_prior_saving", 100 * found["saving"], "%", ">= 25", None),
        ("audio_realtime", found["seconds"], "s/s", "<= 0.03", None),
    ]
    return [
        Claim(name, value, unit, goal, peer, settings) for name, value, unit, goal, peer in rows
    ]


if __name__ == "__main__":
    main()
