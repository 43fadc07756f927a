"""Claims search_* and nn_speedup_*: time and memory of one quantizer step against
vector-quantize-pytorch, from 512 to 262,144 codes.

    python benchmarks/quantizers.py [--quick] [--seed 0] [--json FILE] [--only search|layers]

N = 4096 tokens (--quick: 64), K x d over 512x64, 8192x32, 16384x8, 65536x16 and 262144x32, two
threads, float32, the same random latents. Train: forward, the quantizer's own loss, backward, and
the EMA update, both with their defaults (vqkit: decay 0.98, revival on; the peer: decay 0.8,
rotation trick; k-means off in both, as it runs once). Eval: forward. In the same table the search
alone: torch.cdist and argmin, a matrix product and argmin, faiss IndexFlatL2. Then lookup-free
families at 2^18 codes and FSQ at 64,000.

Every cell is a process of its own. Time: the median of REPEATS calls after one to warm up. Memory:
growth of the peak resident set over what is resident before a call, with an allocator that gives
large blocks back at once. A process may take 20 GiB; what needs more is written as out of memory.

nn_speedup_*: layers of vqkit.nn beside the peer's modules, 1024 tokens (--quick and *_few: 64), one
thread. Both take turns in one process, and the figure is the median over rounds of the ratio of
their processor times: other work on the machine slows both alike. Each pair has the settings of the
peer's defaults (rotation trick, decay 0.8, no revival) and of ours (straight-through, decay 0.98,
revival of codes below a tenth of uniform usage); k-means is off in all. Train: forward, the layer's
loss, backward and updates; eval: forward.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from bench.claims import Claim, machine, options, report

PARSER = options(__doc__)
PARSER.add_argument("--only", choices=["search", "layers"], help="one kind of claims")

# Side of the grid of tokens; 64 x 64 = 4096.
SIDE = 64
QUICK_SIDE = 8
# Codes and their dimensions.
SIZES = [(512, 64), (8192, 32), (16384, 8), (65536, 16), (262144, 32)]
# Timed calls.
REPEATS = {512: 15, 8192: 15, 16384: 15, 65536: 5, 262144: 3}
# Contenders at every size, and codebooks without a search: bits and levels, with their size.
CLAIMED = ("vqkit train", "peer train")
BESIDE = ("vqkit eval", "peer eval", "cdist", "matmul", "faiss")
BITS = {
    "vqkit-lfq train": (1 << 18, 18),
    "peer-lfq train": (1 << 18, 18),
    "vqkit-bsq train": (1 << 18, 18),
    "peer-bsq train": (1 << 18, 18),
}
LEVELS = {"vqkit-fsq train": (64000, 6), "peer-fsq train": (64000, 6)}
LIMIT = 20 << 30

# Tokens that a layer gets, and rounds in which both take turns, of steps that take seconds fewer.
LAYER_TOKENS = 1024
FEW_TOKENS = 64
ROUNDS = 5
FEW_ROUNDS = 3
# Where steps take less, rounds go on for so many processor seconds, or until there are so many.
ENOUGH = 0.5
MOST_ROUNDS = 300
RESIDUAL = (8, 1024, 64)  # stages, codes of each, width
LFQ_BITS = 18
# Pairs of layers by the names of their claims: kind, codes, width, tokens. Those of few tokens tell
# what a call costs around its arithmetic.
PAIRS = {
    **{f"{codes}x{width}": ("vq", codes, width, LAYER_TOKENS) for codes, width in SIZES},
    "residual_8x1024": ("residual", *RESIDUAL[1:], LAYER_TOKENS),
    "lfq_2_18": ("lfq", 1 << LFQ_BITS, LFQ_BITS, LAYER_TOKENS),
    "512x64_few": ("vq", *SIZES[0], FEW_TOKENS),
    "lfq_2_18_few": ("lfq", 1 << LFQ_BITS, LFQ_BITS, FEW_TOKENS),
}
# From so many codes on, steps that search are to be five times as fast.
LARGE = 16384


def call(what: str, codes: int, width: int, side: int, seed: int) -> Callable[[], object]:
    """One step of a contender as a function without arguments."""
    import torch

    torch.manual_seed(seed)
    name, _, mode = what.partition(" ")
    latents = torch.randn(1, width, side, side)
    if name in ("cdist", "matmul", "faiss"):
        return _search(name, latents.flatten(2)[0].t().contiguous(), torch.randn(codes, width))
    module = _ours(name, codes, width) if name.startswith("vqkit") else _theirs(name, codes, width)
    module.train(mode == "train")
    if mode == "eval":
        return torch.no_grad()(lambda: module(latents))
    latents.requires_grad_()

    def step() -> None:
        result = module(latents)
        values, loss = (
            (result.quantized, result.loss) if name.startswith("vqkit") else (result[0], result[-1])
        )
        total = values.sum() + (loss.sum() if name != "peer-fsq" else 0.0)
        latents.grad = None
        total.backward()

    return step


def _ours(name: str, codes: int, width: int):
    from vqkit import config
    from vqkit.model.quantizers import build_quantizer

    bits = codes.bit_length() - 1
    return build_quantizer(
        {
            "vqkit": lambda: config.VQConfig(
                codebook_size=codes, code_dim=width, kmeans_iterations=0
            ),
            "vqkit-lfq": lambda: config.LFQConfig(bits=bits),
            "vqkit-bsq": lambda: config.BSQConfig(bits=bits),
            "vqkit-fsq": lambda: config.FSQConfig(levels=(8, 8, 8, 5, 5, 5)),
        }[name]()
    )


def _theirs(name: str, codes: int, width: int):
    import vector_quantize_pytorch as peer

    if name == "peer":
        return peer.VectorQuantize(dim=width, codebook_size=codes, accept_image_fmap=True)
    if name == "peer-fsq":
        return peer.FSQ(levels=[8, 8, 8, 5, 5, 5])
    return peer.LFQ(
        codebook_size=codes, dim=width, entropy_loss_weight=0.1, spherical=name == "peer-bsq"
    )


def _search(name: str, tokens, codebook) -> Callable[[], object]:
    import torch

    if name == "cdist":
        return lambda: torch.cdist(tokens, codebook).argmin(1)
    if name == "matmul":
        return lambda: (codebook.square().sum(1) - 2 * tokens @ codebook.t()).argmin(1)
    import faiss

    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.numpy())
    return lambda: index.search(tokens.numpy(), 1)


# ------------------------------------------------------------------------------------------- layers


def layers(kind: str, codes: int, width: int, whose: str, tokens: int) -> tuple:
    """A layer of vqkit.nn and the peer's module that does the same, with the defaults of `whose`
    library, "peer" or "vqkit".
    """
    import vector_quantize_pytorch as peer

    from vqkit.nn import LFQ, ResidualVQ, VectorQuantizer

    if kind == "lfq":
        entropy = {"inverse_temperature": 100.0, "diversity": 1.0} if whose == "peer" else {}
        theirs = {} if whose == "peer" else {"diversity_gamma": 20.0}
        return LFQ(width, width, **entropy), peer.LFQ(dim=width, codebook_size=codes, **theirs)
    ours = {"kmeans_iterations": 0}
    theirs = {}
    if whose == "peer":
        ours |= {"decay": 0.8, "estimator": "rotation", "revive_threshold": 0.0}
    else:
        dead = 0.1 * tokens / codes
        theirs |= {"decay": 0.98, "rotation_trick": False, "threshold_ema_dead_code": dead}
    if kind == "vq":
        layer = VectorQuantizer(width, codes, **ours)
        return layer, peer.VectorQuantize(dim=width, codebook_size=codes, **theirs)
    stages = RESIDUAL[0]
    layer = ResidualVQ(width, stages, stage=VectorQuantizer(width, codes, **ours))
    module = peer.ResidualVQ(dim=width, num_quantizers=stages, codebook_size=codes, **theirs)
    return layer, module


def layer_step(module, x, training: bool) -> Callable[[], object]:
    """One step of a layer, or of a module of the peer."""
    import torch

    module.train(training)
    if not training:
        return torch.no_grad()(lambda: module(x))
    x = x.clone().requires_grad_()

    def step() -> None:
        result = module(x)
        if isinstance(result, tuple):
            quantized, _, loss = result
        else:
            quantized, loss = result.quantized, result.loss
        x.grad = None
        (quantized.sum() + loss.sum()).backward()

    return step


def pair_child(kind: str, codes: int, width: int, tokens: int, rounds: int, seed: int) -> dict:
    """Processor seconds of both, by settings and mode: lists of (ours, theirs), a round each."""
    import torch

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    torch.set_num_threads(1)
    found = {}
    for whose in ("peer", "vqkit"):
        for training in (True, False):
            torch.manual_seed(seed)
            x = torch.randn(1, tokens, width)
            pair = layers(kind, codes, width, whose, tokens)
            steps = [layer_step(module, x, training) for module in pair]
            times = []
            spent = 0.0
            for number in range(1 + (rounds if rounds == 1 else MOST_ROUNDS)):
                if number > rounds and spent > ENOUGH:
                    break
                turn = []
                for step in steps:
                    begin = time.process_time()
                    step()
                    turn.append(time.process_time() - begin)
                spent += sum(turn)
                if number:  # the first warms up
                    times.append(turn)
            found[f"{'train' if training else 'eval'}, defaults of {whose}"] = times
    return found


def measure_pairs(arguments) -> list[Claim]:
    """The claims nn_speedup_*."""
    claims = []
    for name, (kind, codes, width, tokens) in PAIRS.items():
        tokens = FEW_TOKENS if arguments.quick else tokens
        rounds = ROUNDS if codes <= LARGE else FEW_ROUNDS
        if arguments.quick:
            rounds = 1
        words = [kind, codes, width, tokens, rounds, arguments.seed]
        command = [sys.executable, __file__, "--pair", json.dumps(words)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            error = (done.stderr.strip().splitlines() or ["killed"])[-1][:100]
            print(f"{name}: not measured: {error}", flush=True)
            continue
        for case, times in json.loads(done.stdout.splitlines()[-1]).items():
            ratio = median(theirs / ours for ours, theirs in times)
            ours, theirs = (1e3 * median(one) for one in zip(*times, strict=True))
            print(
                f"{name:<16} {case:<26} {ours:9.2f} ms {theirs:9.2f} ms {ratio:6.1f}x", flush=True
            )
            goal = ">= 1" if codes < LARGE else ">= 5"
            settings = {**machine(), "threads": 1, "tokens": tokens, "case": case, "times": times}
            claim = f"nn_speedup_{name}_{case.replace(', defaults of ', '_')}"
            claims.append(Claim(claim, ratio, "x", goal, "vector-quantize-pytorch", settings))
    return claims


# ---------------------------------------------------------------------------------------- measuring


def _status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024


def child(
    what: str, codes: int, width: int, side: int, seed: int, repeat: int, memory: bool
) -> dict:
    """Seconds of a call, or bytes that it takes at its peak."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    step = call(what, codes, width, side, seed)
    step()
    if memory:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts again from here
        before = _status("VmRSS")
        step()
        return {"bytes": _status("VmHWM") - before}
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {"seconds": median(times)}


def measure(
    what: str, codes: int, width: int, side: int, seed: int, repeat: int, kinds: tuple[bool, ...]
) -> dict:
    """Seconds and bytes of a contender, each from a process of its own; None where it did not run.
    kinds: False for seconds, True for bytes.
    """
    found: dict = {"what": what, "codes": codes, "width": width, "seconds": None, "bytes": None}
    for memory in kinds:
        environment = dict(
            os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536"
        )
        command = [
            sys.executable,
            __file__,
            "--child",
            json.dumps([what, codes, width, side, seed, repeat, memory]),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment if memory else None
        )
        if done.returncode == 0:
            found |= json.loads(done.stdout.splitlines()[-1])
        else:
            found["error"] = (done.stderr.strip().splitlines() or ["killed"])[-1][:100]
            break
    time_text = "-" if found["seconds"] is None else f"{1e3 * found['seconds']:.1f} ms"
    memory_text = (
        found.get("error", "-") if found["bytes"] is None else f"{found['bytes'] / 2**20:.1f} MiB"
    )
    print(f"{codes:>7} x {width:<3} {what:<16} {time_text:>12} {memory_text}", flush=True)
    return found


def cells(quick: bool) -> list[tuple]:
    """What is measured: contender, codes, width, calls, and whether seconds (False), bytes (True)
    or both. quick: what the claims need, and every other kind of contender once.
    """
    seconds, both = (False,), (False, True)
    if quick:
        found = [
            (what, codes, width, 1, both if codes >= 65536 else seconds)
            for codes, width in SIZES
            for what in CLAIMED
        ]
        found += [(what, *SIZES[0], 1, seconds) for what in BESIDE]
        return found + [(what, *size, 1, seconds) for what, size in LEVELS.items()]
    found = []
    for codes, width in SIZES:
        found += [(what, codes, width, REPEATS[codes], both) for what in (*CLAIMED, *BESIDE)]
    return found + [(what, *size, 3, both) for what, size in (BITS | LEVELS).items()]


def main() -> None:
    arguments = PARSER.parse_args()
    claims = []
    if arguments.only != "layers":
        claims += measure_search(arguments)
    if arguments.only != "search":
        claims += measure_pairs(arguments)
    report(claims, arguments)


def measure_search(arguments) -> list[Claim]:
    """The claims search_*."""
    side = QUICK_SIDE if arguments.quick else SIDE
    rows = {}
    for what, codes, width, repeat, kinds in cells(arguments.quick):
        found = measure(what, codes, width, side, arguments.seed, repeat, kinds)
        rows[what, codes] = found
    settings = {**machine(), "tokens": side**2, "rows": list(rows.values())}
    return _claims(rows, settings)


def _claims(rows: dict, settings: dict) -> list[Claim]:
    peer = "vector-quantize-pytorch"
    claims = []
    goals = {512: ">= 5", 8192: "reported", 16384: ">= 20", 65536: ">= 20"}
    for codes, width in SIZES:
        ours = rows["vqkit train", codes]
        theirs = rows["peer train", codes]
        if codes in goals and ours["seconds"] and theirs["seconds"]:
            ratio = theirs["seconds"] / ours["seconds"]
            claims.append(
                Claim(f"search_speedup_{codes}x{width}", ratio, "x", goals[codes], peer, settings)
            )
        if codes == 65536 and theirs["bytes"]:
            ratio = ours["bytes"] / theirs["bytes"]
            claims.append(
                Claim("search_memory_ratio_65536x16", ratio, "of peer", "<= 0.05", peer, settings)
            )
        if codes == 262144:
            name = "search_extra_bytes_262144x32"
            claims.append(Claim(name, ours["bytes"], "bytes", "<= 1e9", None, settings))
    return claims


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*json.loads(sys.argv[2]))))
    elif sys.argv[1:2] == ["--pair"]:
        print(json.dumps(pair_child(*json.loads(sys.argv[2]))))
    else:
        main()
