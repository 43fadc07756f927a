"""`vqkit serve` as programs use it: a process of the command, asked over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vqkit

MODEL = Path(__file__).parents[1] / "golden" / "emoji-model"
TOKEN = "0123456789abcdefghij"
JSON = {"content-type": "application/json"}


class Server:
    """A process of `vqkit serve`."""

    def __init__(self, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "vqkit", "serve", str(MODEL), "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split(":")[3].partition("/")[0])

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        with self.process.stdout:
            status = self.process.wait(timeout=60)
        # A process that ends by a signal, after all is answered, says so.
        assert status in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def server():
    one = Server()
    yield one
    one.close()


@pytest.fixture(scope="module")
def model():
    return vqkit.load(MODEL, device="cpu")


def images(count: int, side: int = 32, seed: int = 0) -> list[bytes]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((side, side)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_codes_are_those_of_the_model_however_many_ask_at_once(server, model):
    # Of two sizes, so that a batch has both.
    files = [*images(20), *images(4, 48, 1)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda file: server.ask("/encode", file), files))
    assert [status for status, _ in answers] == [200] * len(files)
    for file, (_, content) in zip(files, answers, strict=True):
        found = json.loads(content)
        expected = model.encode(opened(file)[None])[0]
        assert torch.equal(torch.tensor(found["codes"]), expected)
        assert found["extent"] == list(opened(file).shape[:2])
    _, text = server.ask("/metrics")
    # Fewer calls than files: some went together.
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if line[0] != "#")
    assert float(lines["vqkit_batch_files_sum"]) >= len(files)
    assert float(lines["vqkit_batch_files_count"]) < len(files)


def test_codes_and_files_come_back(server, model):
    (file,) = images(1, 40, 2)
    _, codes = server.ask("/encode", file)
    status, decoded = server.ask("/decode", codes, **JSON)
    found = json.loads(codes)
    expected = model.decode(np.array(found["codes"])[None], found["extent"], double=True)[0]
    assert status == 200 and np.array_equal(opened(decoded), expected)

    status, small = server.ask("/compress", file)
    assert status == 200 and small == model.compress(opened(file))
    status, back = server.ask("/decompress", small)
    assert status == 200 and np.array_equal(opened(back), model.decompress(small))

    _, whole = server.ask("/compress?lossless=true", file)
    assert np.array_equal(opened(server.ask("/decompress", whole)[1]), opened(file))


def test_new_items_are_drawn_by_their_seed(server):
    asked = json.dumps({"num": 2, "seed": 5}).encode()
    first = json.loads(server.ask("/generate", asked, **JSON)[1])
    assert len(first["items"]) == 2 and first["suffix"] == ".png"
    assert first == json.loads(server.ask("/generate", asked, **JSON)[1])


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/encode", b"no image", {}, 400),
        ("/encode", b"", {}, 400),
        ("/decompress", b"no file", {}, 400),
        ("/compress?rate=no-such-rate", images(1)[0], {}, 400),
        ("/compress?rate=-1", images(1)[0], {}, 400),
        ("/decode", b'{"codes": [[[99]]]}', JSON, 400),
        ("/decode", b'{"codes": "many"}', JSON, 400),
        ("/decode", b'{"codes": [[[[[[[[1]]]]]]]]}', JSON, 400),
        ("/decode", b'{"codes": [[[1, 2], [3]]]}', JSON, 400),
        ("/decode", b"{", JSON, 400),
        ("/decode", b"{}", {}, 415),
        ("/generate", b'{"num": 1000}', JSON, 400),
        ("/generate", b'{"class": "none such"}', JSON, 400),
        ("/../../etc/passwd", None, {}, 404),
        ("/encode", None, {}, 405),
        ("/health", None, {"host": "evil.example"}, 421),
        ("/health", None, {"origin": "http://evil.example"}, 403),
    ],
)
def test_what_is_wrong_is_refused(server, path, body, headers, status):
    found, content = server.ask(path, body, **headers)
    assert found == status
    said = json.loads(content)["error"]
    assert said and "Traceback" not in said and str(MODEL) not in said
    assert server.ask("/health")[0] == 200


def test_an_image_that_is_too_large_is_not_decoded(server):
    # A header of 60,000 times 60,000 pixels, and nothing behind it.
    buffer = io.BytesIO()
    Image.new("1", (60_000, 60_000)).save(buffer, "PNG")
    status, content = server.ask("/encode", buffer.getvalue())
    assert status == 400 and "pixels" in json.loads(content)["error"]


def test_a_bad_file_harms_none_that_come_with_it(server):
    files = [*images(6), b"\x89PNG\r\n\x1a\n broken", *images(6, seed=3)]
    with ThreadPoolExecutor(13) as pool:
        found = list(pool.map(lambda file: server.ask("/encode", file)[0], files))
    assert found == [200] * 6 + [400] + [200] * 6


def test_it_describes_itself(server):
    described = json.loads(server.ask("/openapi.json")[1])
    verbs = {"/encode", "/decode", "/compress", "/decompress", "/generate"}
    assert verbs | {"/health", "/metrics", "/model"} == set(described["paths"])
    assert json.loads(server.ask("/model")[1])["codebook_sizes"] == [32, 32]


def test_a_token_is_asked_for():
    one = Server("--host", "codes.example", VQKIT_TOKEN=TOKEN)
    try:
        assert one.ask("/health")[0] == 401
        assert one.ask("/health", authorization="Bearer 0123456789abcdefghiX")[0] == 401
        given = f"Bearer {TOKEN}"
        assert one.ask("/health", authorization=given)[0] == 200
        assert one.ask("/health", authorization=given, host="codes.example")[0] == 200
        assert one.ask("/health", authorization=given, host="other.example")[0] == 421
    finally:
        one.close()


def test_what_was_asked_before_the_end_is_answered():
    one = Server()
    body = images(1, 256)[0]
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as waiting:
        head = f"POST /encode HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
        waiting.sendall(head.encode() + body)
        # It is there once the server has read it: a second request on another connection is
        # answered behind it.
        assert one.ask("/health")[0] == 200
        one.process.send_signal(signal.SIGTERM)
        answer = b""
        while part := waiting.recv(1 << 16):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    one.close()


@pytest.mark.parametrize("name", [".", "images.tar"])
def test_a_model_that_is_none_is_said_at_once(tmp_path, name):
    (tmp_path / "images.tar").write_bytes(b"")
    command = [sys.executable, "-m", "vqkit", "serve", str(tmp_path / name), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "is not a vqkit artifact" in done.stderr and "Traceback" not in done.stderr
