"""Claims serve_throughput, serve_soak, serve_attacks: `vqkit serve` under load, and under attack.

    python benchmarks/serve.py [--quick] [--seed 0] [--minutes 20] [--only NAME ...] [--json FILE]

throughput  encode requests a second of single 64x64 PNG files by 16 clients that keep their
            connections, over those of a loop of `model.encode` in Python on the same files, each
            opened with Pillow. Server and clients share the machine; best of three, in turns.
soak        so many minutes of all verbs by eight clients, every twentieth request with bad input:
            answers other than 2xx and, of bad input, 4xx; requests without an answer; growth of the
            memory of the server and its workers (private, as in streaming.py) from a tenth of the
            time to its end.
attacks     paths that climb, images and files that claim to be huge, 64 clients that stop in the
            middle of a request, bodies beyond the bound, other hosts and origins, missing and wrong
            tokens, and 10,000 bodies that are good ones with bytes changed, cut or repeated, over
            all verbs: answers that are neither a refusal nor, of changed bodies, good; and whether
            the server still answers.

The model is the small one of emoji that lies in the repository.
"""

from __future__ import annotations

import http.client
import io
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from bench.claims import Claim, machine, options, report
from PIL import Image
from streaming import private_kib

PARSER = options(__doc__)
NAMES = ("throughput", "soak", "attacks")
PARSER.add_argument("--minutes", type=float, default=20.0)
PARSER.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")

MODEL = Path(__file__).parents[1] / "tests" / "golden" / "emoji-model"
TOKEN = "0123456789abcdefghijklmnop"
JSON = "application/json"
CLIENTS = 16


class Server:
    """A process of `vqkit serve`, which needs a token."""

    def __enter__(self) -> Server:
        command = [sys.executable, "-m", "vqkit", "serve", str(MODEL), "--port", "0"]
        environment = {**os.environ, "VQKIT_TOKEN": TOKEN}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split(":")[3].partition("/")[0])
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def memory(self) -> float:
        """Private MiB of it and its workers."""
        process = psutil.Process(self.process.pid)
        members = (process, *process.children(recursive=True))
        return sum(private_kib(member.pid) for member in members) / 1024


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, path: str, body: bytes | None, kind: str = "", **headers: str) -> int | None:
        """The status; None where no answer came."""
        named = {"authorization": f"Bearer {TOKEN}", "content-type": kind, **headers}
        try:
            self.connection.request("GET" if body is None else "POST", path, body, named)
            answer = self.connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return None


def images(count: int, side: int, seed: int) -> list[bytes]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(buffer, "PNG", compress_level=1)
        found.append(buffer.getvalue())
    return found


# --------------------------------------------------------------------------------------- throughput


def loop(files: list[bytes], seconds: float) -> float:
    """Images a second of single calls."""
    import vqkit

    model = vqkit.load(MODEL, device="cpu")
    model.encode(Image.open(io.BytesIO(files[0])))
    began = time.perf_counter()
    count = 0
    for file in itertools.cycle(files):
        model.encode(Image.open(io.BytesIO(file)))
        count += 1
        if time.perf_counter() - began > seconds:
            return count / (time.perf_counter() - began)
    raise AssertionError


def asked(port: int, files: list[bytes], seconds: float) -> float:
    """Requests a second of all clients."""
    end = time.perf_counter() + seconds
    counts = [0] * CLIENTS

    def work(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for file in itertools.cycle(files[number:] + files[:number]):
                head = (
                    f"POST /encode HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n"
                    f"content-length: {len(file)}\r\n\r\n"
                )
                connection.sendall(head.encode() + file)
                read_answer(connection)
                counts[number] += 1
                if time.perf_counter() > end:
                    return

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def read_answer(connection: socket.socket) -> None:
    content = b""
    while b"\r\n\r\n" not in content:
        content += connection.recv(1 << 16)
    head, _, body = content.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(content.decode())
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(1 << 16)


def throughput(quick: bool, seed: int, minutes: float) -> list[Claim]:
    files = images(64, 64, seed)
    seconds = 2.0 if quick else 15.0
    alone = []
    together = []
    for _ in range(1 if quick else 3):
        # In a process of its own, as clients have theirs.
        command = [sys.executable, __file__, "--loop", str(seconds), str(seed)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        alone.append(float(done.stdout))
        with Server() as server:
            asked(server.port, files, 1.0)
            together.append(asked(server.port, files, seconds))
    where = {**machine(), "loop": alone, "served": together, "clients": CLIENTS}
    print(where)
    ratio = max(together) / max(alone)
    return [Claim("serve_throughput", ratio, "x", ">= 3", "a loop of single calls", where)]


# --------------------------------------------------------------------------------------------- soak


def good_requests(port: int, seed: int) -> list[tuple[str, bytes, str]]:
    """A few of every verb."""
    found: list[tuple[str, bytes, str]] = []
    token = {"authorization": f"Bearer {TOKEN}"}
    for file in images(4, 64, seed):
        found += [("/encode", file, "")] * 4
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for path, answer_to, kind in (
            ("/encode", "/decode", JSON),
            ("/compress", "/decompress", ""),
        ):
            connection.request("POST", path, file, token)
            found.append((answer_to, connection.getresponse().read(), kind))
        found.append(("/compress", file, ""))
        connection.close()
    found.append(("/compress?lossless=true", images(1, 64, seed)[0], ""))
    found.append(("/generate", b'{"num": 1, "seed": 3}', JSON))
    return found


def bad_requests(seed: int) -> list[tuple[str, bytes, str]]:
    (file,) = images(1, 64, seed)
    bomb = io.BytesIO()
    Image.new("1", (50_000, 50_000)).save(bomb, "PNG")
    return [
        ("/encode", b"no image", ""),
        ("/encode", file[: len(file) // 2], ""),
        ("/encode", bomb.getvalue(), ""),
        ("/decode", b'{"codes": [[[-7]]]}', JSON),
        ("/decode", b"{", JSON),
        ("/decompress", file, ""),
        ("/compress?rate=1e9", file, ""),
        ("/generate", b'{"num": -1}', JSON),
        ("/nothing", b"", ""),
    ]


def soak(quick: bool, seed: int, minutes: float) -> list[Claim]:
    seconds = 20.0 if quick else 60 * minutes
    counts: Counter[str] = Counter()
    with Server() as server:
        good = good_requests(server.port, seed)
        bad = bad_requests(seed)
        end = time.perf_counter() + seconds

        def work(number: int) -> Counter[str]:
            random = np.random.default_rng((seed, number))
            client = Client(server.port)
            found: Counter[str] = Counter()
            while time.perf_counter() < end:
                is_bad = random.random() < 0.05
                path, body, kind = (bad if is_bad else good)[
                    int(random.integers(len(bad if is_bad else good)))
                ]
                status = client.ask(path, body, kind)
                found["asked"] += 1
                if status is None:
                    found["lost"] += 1
                elif is_bad and 400 <= status < 500 or not is_bad and status in (200, 429):
                    found["right"] += 1
                else:
                    found[f"{path} {status}"] += 1
            return found

        with ThreadPoolExecutor(8) as pool:
            working = [pool.submit(work, number) for number in range(8)]
            time.sleep(seconds / 10)
            early = server.memory()
            for one in working:
                counts += one.result()
            late = server.memory()
    where = {**machine(), "minutes": seconds / 60, "counts": dict(counts), "mib": [early, late]}
    print(where)
    wrong = counts["asked"] - counts["right"] - counts["lost"]
    growth = 100 * (late / early - 1)
    return [
        Claim("serve_soak_errors", wrong, f"of {counts['asked']}", "0", None, where),
        Claim("serve_soak_lost", counts["lost"], f"of {counts['asked']}", "0", None, where),
        Claim("serve_soak_growth", growth, "%", "<= 5", None, where),
    ]


# ------------------------------------------------------------------------------------------ attacks


def refusals(port: int, seed: int) -> Counter[str]:
    """Single requests that must be refused, by what came instead."""
    client = Client(port)
    (file,) = images(1, 64, seed)
    found: Counter[str] = Counter()
    cases: list[tuple[str, bytes | None, dict[str, str]]] = [
        (path, None, {})
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/static/../../config.json",
            "//etc/passwd",
            "/model/..%2f..%2fetc",
        )
    ]
    for name, value in (
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("authorization", ""),
        ("authorization", "Bearer "),
        ("authorization", f"Bearer {TOKEN[:-1]}"),
        ("authorization", f"Bearer {TOKEN}x"),
        ("authorization", f"Basic {TOKEN}"),
        ("content-length", str(1 << 40)),
        ("content-length", "-1"),
    ):
        cases.append(("/encode", file, {name: value}))
    for path, body, kind in bad_requests(seed):
        cases.append((path, body, {"content-type": kind}))
    for path, body, headers in cases:
        status = client.ask(path, body, **headers)
        client.connection.close()
        if status is None or not 400 <= status < 500:
            found[f"{path} {headers} {status}"] += 1
    return found


def too_long(port: int) -> Counter[str]:
    """A body beyond the bound whose length is not said."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = (
            f"POST /encode HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n"
            "transfer-encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        part = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        try:
            for _ in range(200):
                connection.sendall(part)
        except OSError:
            # It is cut off.
            pass
        try:
            answer = connection.recv(1 << 16)
        except OSError:
            return Counter()
    return Counter() if b" 413 " in answer[:20] or not answer else Counter({"too long": 1})


def slow(port: int) -> tuple[Counter[str], float]:
    """Clients that stop after the head of a request: that all of them are cut off, and what a
    request beside them takes, in seconds.
    """
    connections = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(64)]
    head = (
        f"POST /encode HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n"
        "content-length: 5000\r\n\r\n"
    )
    for connection in connections:
        connection.sendall(head.encode())
    began = time.perf_counter()
    status = Client(port).ask("/encode", images(1, 64, 0)[0])
    seconds = time.perf_counter() - began
    found: Counter[str] = Counter() if status == 200 else Counter({"starved": 1})
    for connection in connections:
        try:
            answer = connection.recv(1 << 16)
        except OSError:
            answer = b""
        if answer and b" 408 " not in answer[:20]:
            found[f"slow {answer[:20]!r}"] += 1
        connection.close()
    return found, seconds


def changed(body: bytes, random: np.random.Generator) -> bytes:
    """Bytes of a body set, cut out, or repeated."""
    content = bytearray(body)
    for _ in range(int(random.integers(1, 8))):
        at = int(random.integers(0, max(1, len(content))))
        kind = int(random.integers(4))
        if kind == 0 and content:
            content[at % len(content)] = int(random.integers(256))
        elif kind == 1:
            del content[at : at + int(random.integers(1, 64))]
        elif kind == 2:
            content[at:at] = content[at : at + int(random.integers(1, 64))]
        else:
            content[at:at] = random.integers(0, 256, 8, dtype=np.uint8).tobytes()
    return bytes(content)


def fuzzed(port: int, count: int, seed: int) -> Counter[str]:
    good = good_requests(port, seed)

    def work(number: int) -> Counter[str]:
        random = np.random.default_rng((seed, number))
        client = Client(port)
        found: Counter[str] = Counter()
        for _ in range(count // 8):
            path, body, kind = good[int(random.integers(len(good)))]
            status = client.ask(path, changed(body, random), kind)
            found["asked"] += 1
            if status is None or status >= 500:
                found[f"{path} {status}"] += 1
        return found

    total: Counter[str] = Counter()
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            total += found
    return total


def attacks(quick: bool, seed: int, minutes: float) -> list[Claim]:
    with Server() as server:
        wrong = refusals(server.port, seed)
        wrong += too_long(server.port)
        found, seconds = slow(server.port)
        wrong += found
        bodies = fuzzed(server.port, 400 if quick else 10_000, seed)
        wrong += bodies
        del wrong["asked"]
        is_up = Client(server.port).ask("/health", None) == 200
    if not is_up:
        wrong["the server is gone"] += 1
    where = {**machine(), "bodies": bodies["asked"], "seconds_beside_slow": seconds}
    where["wrong"] = dict(wrong)
    print(where)
    value = sum(wrong.values())
    return [Claim("serve_attacks", value, "not refused", "0", None, where)]


def main() -> None:
    if sys.argv[1:2] == ["--loop"]:
        print(loop(images(64, 64, int(sys.argv[3])), float(sys.argv[2])))
        return
    arguments = PARSER.parse_args()
    claims: list[Claim] = []
    for name in arguments.only:
        measure = {"throughput": throughput, "soak": soak, "attacks": attacks}[name]
        claims += measure(arguments.quick, arguments.seed, arguments.minutes)
    report(claims, arguments)


if __name__ == "__main__":
    main()
