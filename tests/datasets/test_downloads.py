"""Downloads against a local server that misbehaves in every way it can."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads

ROWS = [("CXR1_IM-0001", "the lungs, clear."), ("CXR2_IM-0652", "a scar.")]
RAW = (
    "report,dicom_id\n"
    '"the lungs, clear.",CXR1_IM-0001\n'
    "a scar.,CXR2_IM-0652\n"
)
NAME = "reports.csv"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)


@pytest.fixture
def pinned(monkeypatch):
    """A made-up source; its address leads nowhere."""
    source = downloads.Source(
        f"https://raw.example.org/commit/{NAME}",
        hashlib.sha256(RAW.encode()).hexdigest(),
        len(RAW),
        "peer_iu_test.csv",
        "a licence",
    )
    monkeypatch.setattr(downloads, "SOURCES", {"peer": source})
    return source


@contextlib.contextmanager
def serving(answer):
    """A server on this machine; `answer` writes each reply."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer(self)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.02,), daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def reply(body, status=200, length=None):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(length or len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def content(path):
    return pd.read_csv(path, dtype=str).to_numpy().tolist()


def test_the_file_comes_from_a_mirror_and_is_not_fetched_twice(
    pinned, tmp_path
):
    with serving(reply(RAW.encode())) as (mirror, asked):
        path = downloads.fetch("peer", tmp_path, mirror + "/files")
        assert asked == [f"/files/{NAME}"]
        assert path == tmp_path / "peer_iu_test.csv"
        assert content(path) == [list(row) for row in ROWS]
        # It is there: no address is asked, not even the pinned one.
        assert downloads.fetch("peer", tmp_path) == path
        downloads.fetch("peer", tmp_path, f"{mirror}/other/{NAME}")
        assert asked[1:] == [f"/other/{NAME}"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_damaged_table_is_not_taken_for_the_file(pinned, tmp_path):
    saved = tmp_path / "peer_iu_test.csv"
    saved.write_text("id,generated\nCXR1_IM-0001,something else\n")
    with serving(reply(RAW.encode())) as (mirror, _):
        downloads.fetch("peer", tmp_path, mirror)
    assert content(saved) == [list(row) for row in ROWS]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(b"<html>Please log in</html>"), "something else than"),
        (reply(RAW.encode()[:40]), "something else than"),
        (reply(RAW.encode()[:40], length=len(RAW)), "broke off"),
        (reply(RAW.encode(), length=len(RAW) - 9), "something else than"),
        (reply(b"no", status=404), "404"),
        (reply(b"", status=503), "503"),
        (lambda handler: handler.connection.close(), "broke off"),
    ],
    ids=["html", "short", "cut", "lies", "404", "503", "hangs up"],
)
def test_what_is_not_the_whole_file_is_not_kept(
    pinned, tmp_path, answer, message
):
    with (
        serving(answer) as (mirror, _),
        pytest.raises(CourseError, match=message) as caught,
    ):
        downloads.fetch("peer", tmp_path, mirror)
    assert "--from" in caught.value.do
    assert list(tmp_path.iterdir()) == []


def test_without_network_one_clear_message(pinned, tmp_path):
    with pytest.raises(CourseError) as caught:
        downloads.fetch("peer", tmp_path)
    assert "no connection to raw.example.org" in caught.value.why
    assert "HTTPS_PROXY" in caught.value.do
    assert "\n" not in caught.value.why


def test_a_local_copy_in_either_form(pinned, tmp_path):
    raw = tmp_path / "raw.csv"
    raw.write_text(RAW)
    table = tmp_path / "table.csv"
    frame = pd.DataFrame(ROWS, columns=["id", "generated"])
    frame.assign(reference="ours").to_csv(table, index=False)
    for i, copy in enumerate((raw, table)):
        path = downloads.fetch("peer", tmp_path / str(i), str(copy))
        assert content(path) == [list(row) for row in ROWS]


@pytest.mark.parametrize(
    "text",
    ["", "not a table", "id,generated\nCXR1,x\n", "\0\1\2"],
)
def test_another_local_file_is_refused(pinned, tmp_path, text):
    copy = tmp_path / "copy.csv"
    copy.write_text(text)
    with pytest.raises(CourseError, match="not the published file"):
        downloads.fetch("peer", tmp_path / "data", str(copy))
    assert not (tmp_path / "data").exists()


def test_unknown_names_and_paths(pinned, tmp_path):
    with pytest.raises(CourseError, match="The kit knows peer"):
        downloads.fetch("pear", tmp_path)
    with pytest.raises(CourseError, match="was not found"):
        downloads.fetch("peer", tmp_path, str(tmp_path / "nowhere.csv"))


def test_space_is_checked_before_anything_is_asked(
    pinned, tmp_path, monkeypatch
):
    usage = downloads.shutil.disk_usage(tmp_path)._replace(free=60_000_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    downloads.check_space(tmp_path / "not" / "there", 1_000_000, "a file")
    with serving(reply(b"")) as (mirror, asked):
        with pytest.raises(CourseError, match="20 MB and some to spare; 60"):
            downloads.download(f"{mirror}/a.csv", "0", 20_000_000, tmp_path)
        assert asked == []


def test_the_pinned_source_is_whole():
    source = downloads.SOURCES["cvt2distilgpt2"]
    assert source.url.startswith("https://") and source.url.endswith(".csv")
    assert len(source.sha256) == 64 and source.size == 139_099
    commit = source.url.split("/")[5]
    assert len(commit) == 40 and set(commit) <= set("0123456789abcdef")


def test_the_command(pinned, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLAMAXR_DATA", str(tmp_path / "data"))
    copy = tmp_path / "raw.csv"
    copy.write_text(RAW)
    assert commands.main(["fetch", "peer", "--from", str(copy)]) == 0
    shown = capsys.readouterr().out
    assert "peer_iu_test.csv  (a licence)" in shown
    assert "llamaxr_utils score" in shown
    assert commands.main(["fetch", "pear"]) == 1
    assert "What: 'pear'" in capsys.readouterr().err
