"""What a server, an address, an archive or a copy can do to `fetch`."""

import socket
import tarfile
import time
from itertools import count

import pandas as pd
import pytest
from conftest import send, serving, tarred, zipped

from llamaxr_utils.__main__ import main
from llamaxr_utils.course import artifacts
from llamaxr_utils.datasets import downloads, images
from llamaxr_utils.vision import backbones

PEER = "cvt2distilgpt2"
BODY = b"dicom_id,report\nCXR1,Clear.\n" * 999
PATH = f"/{downloads.file_name(PEER)}"
SENT = {PEER: {PATH: BODY}, "openi": {
    f"/{downloads.ARCHIVE}": tarred(("x/CXR1_1_IM-0001-3001.png", b"1"))}}
steps = count()


def answer(status, *parts, wait=0.0, **headers):
    def fault(to, _body):
        to.send_response(status)
        for header in headers.items():
            to.send_header(*header)
        to.end_headers()
        for part in parts:
            to.wfile.write(part)
            to.wfile.flush()
            time.sleep(wait)
    return fault


def hop(to, body):
    answer(302, Location=f"/{next(steps)}")(to, body)


COPIES = {"cut": BODY[:999], "empty": b"", "page": b"<html>Log in</html>",
          "code": b"cos\nsystem\n(S'false'\ntR.", "more": BODY * 2,
          "another": b"x" * len(BODY)}
FAULTS = {name: answer(200, body) for name, body in COPIES.items()} | {
    "broken off": lambda to, body: send(to, body[:99], len(body)),
    "endless": answer(200, *[b"x" * 2**16] * 9999),
    "slow": answer(200, *[b"x"] * 99, wait=0.2),
    "silent": answer(200, b"x", b"x", wait=3), "hops": hop,
    "slow headers": lambda to, _: [time.sleep(0.1) or to.wfile.write(part)
        for part in (b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 99)]} | {
    str(code): answer(code) for code in (401, 403, 404, 416, 429, 500, 503)}


@pytest.fixture
def peer(folders, monkeypatch, tmp_path, capsys):
    """A published file that `BODY` is; an error of its fetch is told."""
    (tmp_path / "good").write_bytes(BODY)
    facts = downloads.FILES[PEER]._replace(
        sha256=artifacts.sha256(tmp_path / "good"), size=len(BODY))
    monkeypatch.setitem(downloads.FILES, PEER, facts)
    monkeypatch.setattr(downloads, "DEADLINE", 1)
    monkeypatch.setattr(downloads, "SILENCE", 1)

    def refused(*order):
        began = time.monotonic()
        assert main(["fetch", *order]) == 1
        shown = capsys.readouterr().err
        assert all(shown.count(f"\n  {part}") == 1
                   for part in ("What: ", "Why:  ", "Do:   "))
        assert not set("\x1b\u202e") & {*shown}
        assert time.monotonic() - began < 5
        assert not any(p.is_file() for p in (tmp_path / "data").rglob("*"))
    return refused


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", SENT)
def test_a_server_that_misbehaves(name, fault, peer, monkeypatch):
    """And then does not, and then is not asked again."""
    known = pd.DataFrame({"image_id": ["CXR1_1_IM-0001-3001"]})
    monkeypatch.setattr(images, "known_views", known.copy)
    ((path, body),) = SENT[name].items()
    paths = {path, *(f"/{i}" for i in range(next(steps), next(steps) + 99))}
    with serving(dict.fromkeys(paths, body), dict.fromkeys(
            paths if fault == "hops" else [path], FAULTS[fault])) as (url, _):
        peer(name, "--mirror", url)
    with serving(SENT[name]) as (url, asked):
        assert main(["fetch", name, "--mirror", f"{url}/"]) == 0
        assert main(["fetch", name, "--mirror", url]) == 0
    assert asked == [path] and not (downloads.home() / ".work").exists()


@pytest.mark.parametrize("copy", COPIES)
def test_a_bad_copy_is_replaced(copy, peer):
    file = downloads.cache_folder() / "predictions" / PATH[1:]
    file.parent.mkdir(parents=True)
    file.write_bytes(COPIES[copy])
    with serving({PATH: BODY}) as (url, _):
        assert main(["fetch", PEER, "--mirror", url]) == 0
    assert file.read_bytes() == BODY


@pytest.mark.parametrize("name", [PEER, "openi"])
@pytest.mark.parametrize("address", [
    "http://[::1", "file:///etc", "ftp://127.0.0.1", "htp://x", "/tmp", ".",
    "http://127.0.0.1:1", "http://127.0.0.1:99999", "http://", "http:///x",
    "http://a b", "http://\x1b[31m\u202e", "http://" + "a" * 300, "http://%",
    "http://127.0.0.1:1/" + "a" * 9999, "//x", "://", "https://127.0.0.1:1"])
def test_an_address_that_is_none(address, name, peer):
    peer(name, "--mirror", address)


@pytest.mark.parametrize("name", [PEER, "openi", "smollm2-135m",
                                  backbones.RELEASED])
@pytest.mark.parametrize("file", [
    *COPIES, "nowhere", ".", "..", "/dev/zero", "/dev/null", "a" * 300,
    "a.zip", "\x1b[31m\u202e", "a\n  Do:   rm"])
def test_a_file_of_this_machine(file, name, peer, tmp_path, monkeypatch):
    """And no connection is tried."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: 1 / 0)
    if file in COPIES:
        (tmp_path / file).write_bytes(COPIES[file])
        file = str(tmp_path / file)
    peer(name, "--from", file)


ARCHIVES = [pack(*((name, b"1") for name in names)) for names in (
    ("../x.png",), ("/x.png",), ("a/../../x.png",), ("a.png", "a.png"),
    ("a.png", "./a.png"), ("a.png", "a.png/b.png"), ("a" * 300 + ".png",),
    ("..",), ("a.png", "../x/a.png"), ("x.txt",), ("x.py", "b.png"),
    ("C:\\x.png",), ("..\\x.png",), (".unpacked",), ("a.PNG", "a.dcm"),
    ("x/../a.png",)) for pack in (zipped, tarred)]
BOMBS = [pack(("a.png", bytes(10**7))) for pack in (zipped, tarred)] + [
    pack(("a.png", b"1"))[:-30] for pack in (zipped, tarred)] + [
    tarred(("a.png", b""), kind=kind) for kind in (
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)]


@pytest.mark.parametrize("content", ARCHIVES + BOMBS)
def test_an_archive_gives_images_inside_or_nothing(content, peer, tmp_path):
    archive = tmp_path / ("a.zip" if content[:1] == b"P" else "a.tgz")
    archive.write_bytes(content)
    before = {*tmp_path.rglob("*")}
    assert main(["fetch", "openi", "--from", str(archive)]) == 1
    new = {p for p in {*tmp_path.rglob("*")} - before if not p.is_dir()}
    assert not (new and content in BOMBS)
    for file in new:
        assert file.is_relative_to(downloads.home() / "a")
        assert file.name.lower().endswith((".png", ".dcm", downloads.NOTE))
