"""Who may ask a server for what: the gate by itself, and a real server that is attacked."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from vqkit.cli import main
from vqkit.errors import VqkitError
from vqkit.web.limits import Limits
from vqkit.web.security import Access, Gate
from vqkit.web.workspace import Workspace

from .conftest import TOKEN, Studio

LIMITS = Limits(file_bytes=1000, idle_seconds=0.2)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Reads all of the body, and says how much that was; fails where it is asked to."""
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/broken":
        raise RuntimeError("/secret/path of a mistake")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    access: Access,
    path: str = "/api/state",
    method: str = "GET",
    parts: list[bytes] | None = None,
    query: str = "",
    more: list[tuple[str, str]] | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """What a gate answers. parts: of the body; None = one that never comes."""
    named = {"host": f"127.0.0.1:{access.port}", **headers}
    pairs = [(name.replace("_", "-"), value) for name, value in named.items()] + (more or [])
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }
    waiting = list(parts if parts is not None else [])
    sent: list[Any] = []

    async def receive() -> Any:
        if not waiting:
            await asyncio.sleep(60)
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Gate(_app, access, LIMITS)(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent)


LOCAL = Access("127.0.0.1", 8000)
OPEN = Access("0.0.0.0", 8000, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "[::1]:8000", "LocalHost"])
def test_names_of_this_machine_are_answered(host):
    assert ask(LOCAL, parts=[b""], host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.2", "", "["])
def test_a_name_that_was_rebound_to_this_machine_is_not(host):
    assert ask(LOCAL, parts=[b""], host=host)[0] == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8001", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_requests_of_other_pages_are_refused(origin, method):
    assert ask(LOCAL, method=method, parts=[b""], origin=origin)[0] == 403


def test_the_page_may_ask_and_may_be_opened_from_elsewhere_but_not_used():
    assert ask(LOCAL, method="POST", parts=[b""], origin="http://127.0.0.1:8000")[0] == 200
    assert ask(LOCAL, path="/", parts=[b""], sec_fetch_site="cross-site")[0] == 200
    assert ask(LOCAL, parts=[b""], sec_fetch_site="cross-site")[0] == 403
    assert ask(LOCAL, path="/", method="POST", parts=[b""], sec_fetch_site="same-site")[0] == 403


def test_other_addresses_need_a_token():
    for address in ("0.0.0.0", "192.168.1.2", "::"):
        with pytest.raises(VqkitError, match="--token"):
            Access(address, 8000).check()
    with pytest.raises(VqkitError, match="16 characters"):
        Access("0.0.0.0", 8000, "short").check()
    with pytest.raises(VqkitError, match="letters and digits"):
        Access("0.0.0.0", 8000, "0123456789abcdef; Domain=evil").check()
    OPEN.check()
    Access("127.0.0.1", 8000).check()


def test_without_the_token_nothing_is_answered():
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": "vqkit_token=wrong"},
        {"authorization": "Bearer \xe9"},
    ):
        status, _, body = ask(OPEN, parts=[b""], **headers)
        assert status == 401, headers
        assert TOKEN.encode() not in body
    assert ask(OPEN, parts=[b""], authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(OPEN, parts=[b""], cookie=f"a=b; vqkit_token={TOKEN}")[0] == 200


def test_the_token_of_an_address_becomes_a_cookie_that_scripts_cannot_read():
    status, headers, _ = ask(OPEN, path="/", parts=[b""], query=f"token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
    status, headers, _ = ask(OPEN, path="/", parts=[b""], query="token=0123456789abcdefghiX")
    assert status == 401 and "set-cookie" not in headers
    # Only the page is opened so.
    assert ask(OPEN, parts=[b""], query=f"token={TOKEN}")[0] == 401


def test_bodies_are_bounded_before_and_while_they_come():
    assert ask(LOCAL, method="POST", parts=[b"x" * 1000])[2] == b"1000"
    assert ask(LOCAL, method="POST", parts=[b""], content_length="1001")[0] == 413
    for length in ("-1", "1e9", "9" * 30, "\u0661"):
        assert ask(LOCAL, method="POST", parts=[b""], content_length=length)[0] in (400, 413)
    # One that says less than it sends.
    assert ask(LOCAL, method="POST", parts=[b"x" * 600] * 2, content_length="5")[0] == 413


def test_slow_clients_are_sent_away():
    assert ask(LOCAL, method="POST", parts=None)[0] == 408


def test_headers_that_decide_must_not_come_twice():
    twice = [("host", "evil.example")]
    assert ask(LOCAL, parts=[b""], more=twice)[0] == 400


def test_mistakes_of_the_server_say_nothing_of_it(capsys):
    status, headers, body = ask(LOCAL, path="/broken", parts=[b""])
    assert status == 500
    assert "secret" not in json.loads(body)["error"]
    assert "secret" in capsys.readouterr().err
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["content-security-policy"]


# ------------------------------------------------------------------------------------ a real server


def test_what_strangers_wrote_into_a_folder_breaks_nothing(tmp_path):
    texts = ("[]", "{", '{"data": 3}', '{"data": {"name": [1], "size": [NaN]}}', "[" * 100_000)
    for number, text in enumerate(texts):
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        (folder / "config.json").write_text(text)
        (folder / "model.safetensors").write_bytes(b"")
    workspace = Workspace(tmp_path, Limits())
    described = [workspace.described(*model) for model in workspace.models().items()]
    assert len(json.dumps(described, allow_nan=False)) > 100 and len(described) == len(texts)


def test_ids_are_no_paths(studio: Studio):
    model = studio.model("tiny")
    for name in ("../../etc", "..", "%2e%2e", "a" * 12, "0123456789ab", "", ".studio"):
        for method, path in (("POST", f"/api/sets/{name}/files?name=a.png"),):
            assert studio.ask(path, b"x", method)[0] in (404, 405), name
        assert studio.ask("/api/samples", {"model": model, "set": name})[0] == 404
        assert studio.ask("/api/samples", {"model": name, "set": "emoji"})[0] == 404
        assert studio.ask(f"/api/runs/{name}")[0] in (404, 405)
        assert studio.ask("/api/runs", {"set": name, "minutes": 1})[0] == 404
    for path in ("/static/../studio.py", "/static/%2e%2e/studio.py", "/static//etc/passwd"):
        assert studio.ask(path)[0] == 404
    for item in ({"set": "emoji", "index": -1}, {"path": "/etc/passwd"}, [], {"set": []}, None):
        status, _ = studio.ask("/api/look", {"model": model, "item": item})
        assert status in (400, 404), item


def test_names_of_uploads_are_text_alone(studio: Studio):
    files = studio.get("/api/sets", {})["id"]
    image = (Path(__file__).parents[2] / "docs" / "images" / "samples.png").read_bytes()
    for name in ("..%2f..%2fevil.png", "%2fetc%2fcron.png", "a%00b.png", "..%5c..%5cevil.png"):
        found = studio.get(f"/api/sets/{files}/files?name={name}", image)
        assert "/" not in found["name"] and "\x00" not in found["name"]
    kept = sorted(
        path.name for path in (studio.folder / ".studio/sets" / files / "files").iterdir()
    )
    assert kept == [f"{number:06}.png" for number in range(4)]
    for name in ("a", "a.png.", "a.p/g", "a.exe", ""):
        assert studio.ask(f"/api/sets/{files}/files?name={name}", image)[0] == 400, name


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is large."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def test_files_are_refused_by_their_headers(studio: Studio):
    files = studio.get("/api/sets", {})["id"]
    path = f"/api/sets/{files}/files?name=a.png"
    status, body = studio.ask(path, bomb(8000, 8000))
    assert status == 400 and b"8000x8000 pixels" in body
    assert studio.ask(path, bomb(200_000, 200_000))[0] == 400
    assert studio.ask(path, b"this is no image")[0] == 400
    assert studio.ask(path, b"")[0] in (400, 411)
    assert not list((studio.folder / ".studio/sets" / files / "files").iterdir())
    # What its header says is fine, and what is behind it is not: said, not shown.
    studio.get(path, bomb(64, 64))
    model = studio.model("tiny")
    status, body = studio.ask("/api/look", {"model": model, "item": {"set": files, "index": 0}})
    assert status == 400
    assert str(studio.folder).encode() not in body


def test_what_is_no_request_is_refused(studio: Studio):
    model = studio.model("tiny")
    item = {"set": "emoji", "index": 0}
    for body in (b"", b"{", b"[]", b"[" * 100_000, b'{"a": NaN', b"\xff"):
        assert studio.ask("/api/look", body, content_type="application/json")[0] == 400, body[:9]
    form = "application/x-www-form-urlencoded"
    assert studio.ask("/api/look", b"{}", content_type=form)[0] == 415
    for edits in ([[0, 0, -9]], [[0, 64, 0]], [[0, 0, 1 << 70]], [[0, 0]], "x", [[0, 0, 1.5]]):
        body = {"model": model, "item": item, "edits": edits}
        assert studio.ask("/api/paint", body)[0] == 400, edits
    for more in ({"num": 10_000}, {"temperature": 1e999}, {"seed": -1}, {"prompt": "x" * 9999}):
        assert studio.ask("/api/do/generate", {"model": model, **more})[0] == 400, more
    assert studio.ask("/api/do/nothing", {"model": model})[0] == 404
    assert studio.ask("/api/runs", {"set": "emoji", "minutes": -1})[0] == 400
    assert studio.ask("/openapi.json")[0] == 404
    assert studio.ask("/api/look", method="PUT", body=b"")[0] == 405


def test_a_port_that_is_taken_is_a_sentence(studio: Studio, tmp_path, capsys):
    port = studio.url.rpartition(":")[2]
    assert main(["studio", str(tmp_path), "--port", port]) == 2
    assert f"port {port}" in capsys.readouterr().err
    assert main(["studio", str(tmp_path), "--address", "0.0.0.0"]) == 2
    assert "--token" in capsys.readouterr().err


def test_half_a_request_keeps_nobody_waiting(studio: Studio):
    host, _, port = studio.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        assert studio.get("/api/state")["version"]
