"""Claims wideband_*: speech at 16 kHz, its files beside Opus.

    python benchmarks/speech_wideband.py [--quick] [--seed 0] [--minutes 10] [--work DIR]
        [--json FILE] [SETTING ...]

Trains recipe speech on the sentences of festvox-ru, one speaker of Russian at 16 kHz, but a tenth
by name. Tests on 60 of that tenth, and on 60 acted Czech dialogues of fillets-ng-data-cs, resampled
from 22.05 kHz: voices, a language and a kind of recording that were never heard, for which the
goals hold. Files of a minute of sound, every byte counted; STOI and wideband PESQ (P.862.2) are
means over recordings, each cut out of its minute. Ours at its full rate stands beside Opus at the
least that its encoder takes, 6 kbit/s, and at 8, 10 and 12, with frames of 60 ms: at equal bytes
there is no Opus, so that every gain at fewer bytes is one at equal bytes too. Bytes against Opus
are those of our smallest rate whose STOI, or PESQ, reaches that of Opus at 6 kbit/s. SETTINGs are
of the training, such as model.quantizer.num_stages=24.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.claims import Claim, kept, machine, options, report
from bench.speech_codecs import opus
from bench.speech_scores import bytes_against_opus, curve, measured, run_folder, trained
from bench.speech_sets import read_all, write_dialogues, write_sentences

PARSER = options(__doc__, work=True)
PARSER.add_argument("--minutes", type=float, default=10.0)
PARSER.add_argument("settings", nargs="*", metavar="SETTING")

RATE = 16000
MOST = 60
# Kilobits a second that are asked for at most; the last is more than any file of recipe speech has.
RATES = (1.0, 1.5, 2.0, 100.0)
PEERS = (6, 8, 10, 12)
UNHEARD = "dialogues"


def read_sets(work: Path, most: int) -> dict[str, dict]:
    folders = {UNHEARD: work / "dialogues", "held-out": work / "sentences" / "held-out"}
    return {name: read_all(folder, most, rate=RATE) for name, folder in folders.items()}


def peers(recordings: dict, rates: tuple[int, ...]) -> dict[str, dict[str, float]]:
    with opus() as encode:
        return {
            f"opus {kbps}k": measured(
                recordings, lambda whole, k=kbps: encode(whole, k, RATE), rate=RATE
            )
            for kbps in rates
        }


def print_table(found: dict) -> None:
    for name, points in found["ours"].items():
        print(f"{name}: {found['recordings'][name]} recordings of 1.5 s and more")
        print(f"  {'codec':<14}{'kbps':>6}{'STOI':>8}{'PESQ':>7}")
        rows = [("vqkit", point) for point in points]
        for codec, point in [*rows, *found["peers"][name].items()]:
            print(f"  {codec:<14}{point['kbps']:>6.2f}{point['stoi']:>8.3f}{point['pesq']:>7.2f}")


def claims_of(points: list[dict], rival: dict[str, float], settings: dict) -> list[Claim]:
    full = points[-1]
    stoi = bytes_against_opus(points, rival)
    pesq = bytes_against_opus(points, rival, "pesq")
    rows = [
        ("wideband_stoi_over_opus_6k", full["stoi"] - rival["stoi"], "", "> 0"),
        ("wideband_pesq_over_opus_6k", full["pesq"] - rival["pesq"], "", "> 0"),
        ("wideband_share_of_its_bytes", full["kbps"] / rival["kbps"], "share", "<= 0.5"),
        ("wideband_bytes_vs_opus_stoi", stoi, "share", "<= 0.5"),
        ("wideband_bytes_vs_opus_pesq", pesq, "share", "<= 0.5"),
    ]
    return [Claim(name, value, unit, goal, "opus 6k", settings) for name, value, unit, goal in rows]


def main() -> None:
    arguments = PARSER.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="vqkit-wideband-"))
    write_sentences(work)
    write_dialogues(work, RATE, MOST)
    minutes = None if arguments.quick else arguments.minutes
    words = ["--recipe", "speech", f"seed={arguments.seed}", *arguments.settings]
    # The tenth is read and cut into clips sooner.
    source = work / "sentences" / ("held-out" if arguments.quick else "train")
    run = trained(source, run_folder(work, arguments.seed, arguments.settings), minutes, words)
    most = 4 if arguments.quick else MOST
    sets = read_sets(work, most)
    rates = RATES[2:] if arguments.quick else RATES
    found: dict = {"recordings": {name: len(each) for name, each in sets.items()}}
    found["ours"] = {name: curve(run, each, rates, RATE) for name, each in sets.items()}
    their_rates = PEERS[:1] if arguments.quick else PEERS
    found["peers"] = kept(
        work / f"peers-{most}.json",
        lambda: {name: peers(each, their_rates) for name, each in sets.items()},
    )
    print_table(found)
    settings = {**machine(), "seed": arguments.seed, "minutes": minutes, "voices": UNHEARD}
    settings |= {"settings": arguments.settings, "rows": found}
    rival = found["peers"][UNHEARD]["opus 6k"]
    report(claims_of(found["ours"][UNHEARD], rival, settings), arguments)


if __name__ == "__main__":
    main()
