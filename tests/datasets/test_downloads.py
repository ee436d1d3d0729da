"""Fetched files and archives, from a local server that misbehaves."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads, images, reports

IDS = [f"CXR2_IM-0652-{n}001" for n in range(1, 7)]
ARCHIVE = f"/{downloads.ARCHIVE}"


def picture(seed=0, form="PNG"):
    noise = np.random.default_rng(seed).integers(0, 255, (48, 48), "u1")
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, form)
    return buffer.getvalue()


def zipped(*entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        for name, body in entries:
            content.writestr(name, body)
    return buffer.getvalue()


def tarred(*entries):
    """Entries: (name, bytes) or a TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                content.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            content.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


SINGLES = {f"/{i}.png": picture(n) for n, i in enumerate(IDS)}
EVERYTHING = dict(zip(IDS, SINGLES.values(), strict=True))
WHOLE = {ARCHIVE: tarred(*((f"{i}.png", b) for i, b in EVERYTHING.items()))}


# --- a server ---------------------------------------------------------------


def send(to, body, status=200, length=None, kind="image/png", stop=None):
    to.send_response(status)
    to.send_header("Content-Type", kind)
    to.send_header("Content-Length", str(length or len(body)))
    to.end_headers()
    to.wfile.write(body[:stop])


def cut(to, body):
    send(to, body, stop=len(body) // 2, length=len(body))


def web_page(to, body):
    send(to, b"<html>Please log in to the network</html>", kind="text/html")


def status(code):
    return lambda to, body: to.send_error(code)


@contextlib.contextmanager
def serving(files, faults=None):
    """Address and list of asked paths; `faults`: path -> one answer each."""
    asked, faults = [], faults or {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            waiting = faults.get(self.path, [])
            if self.path not in files:
                self.send_error(404)
            elif waiting:
                waiting.pop(0)(self, files[self.path])
            else:
                send(self, files[self.path])

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
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


# --- the X-rays -------------------------------------------------------------


@pytest.fixture
def collection(folders, monkeypatch):
    """Six images in folders of their own."""
    views = pd.DataFrame({"image_id": IDS, "view": ["frontal", "lateral"] * 3})
    monkeypatch.setattr(images, "known_views", views.copy)


def fetch(mirror="", **options):
    return downloads.fetch_xrays(mirror=mirror, say=lambda _: None, **options)


def kept():
    """What counts as an image, by content."""
    table = images.find_images()[["image_id", "path"]].to_numpy()
    return {image_id: path.read_bytes() for image_id, path in table}


@pytest.mark.usefixtures("collection")
class TestXrays:
    def test_the_archive_becomes_images_and_is_not_fetched_twice(self):
        with serving(WHOLE) as (url, asked):
            assert fetch(url) == fetch(url) == {}
            assert asked == [ARCHIVE]
        assert kept() == EVERYTHING
        assert not (downloads.home() / ".work").exists()

    def test_single_images_where_the_mirror_has_no_archive(self):
        with serving(SINGLES) as (url, asked):
            assert fetch(f"{url}/") == {}
            assert asked == [ARCHIVE, *SINGLES]
        assert kept() == EVERYTHING

    def test_jpegs_and_the_first_study_under_its_other_name(
        self, monkeypatch
    ):
        ids = [*IDS[:2], "CXR1_1_IM-0001-3001"]
        monkeypatch.setattr(images, "known_views", lambda: pd.DataFrame(
            {"image_id": ids, "view": "frontal"}))
        names = [*IDS[:2], "CXR1_IM-0001-3001"]
        files = {f"/{n}.jpg": picture(i, "JPEG") for i, n in enumerate(names)}
        with serving(files) as (url, _):
            assert fetch(url) == {}
        assert set(kept()) == set(ids)

    def test_an_archive_by_its_own_address_and_what_it_lacks(self):
        half = tarred((f"x/{IDS[0]}.png", EVERYTHING[IDS[0]]),
                      ("x/holiday.png", picture()))
        with serving({"/half.tgz": half}) as (url, asked):
            for _ in range(2):  # the second run asks for nothing
                missing = fetch(f"{url}/half.tgz")
                assert missing == dict.fromkeys(IDS[1:], "not in half.tgz")
            assert asked == ["/half.tgz"]
        assert list(kept()) == IDS[:1]

    @pytest.mark.parametrize("fault", [cut, web_page, status(503)])
    def test_a_bad_answer_is_refused_and_the_next_run_works(self, fault):
        with serving(WHOLE, {ARCHIVE: [fault]}) as (url, _):
            with pytest.raises(CourseError, match="could not be"):
                fetch(url)
            assert kept() == {}
            assert fetch(url) == {}
        assert kept() == EVERYTHING

    def test_a_disk_too_full_to_unpack_does_not_cost_the_download(
        self, monkeypatch
    ):
        def full(folder, size, name):
            if name == downloads.ARCHIVE and not folder.name.startswith("."):
                raise CourseError("There is not enough space.", "", "")

        with serving(WHOLE) as (url, asked):
            with monkeypatch.context() as patch, pytest.raises(CourseError):
                patch.setattr(downloads, "check_space", full)
                fetch(url)
            assert kept() == {} and fetch(url) == {}
            assert asked == [ARCHIVE]

    def test_bad_single_images_are_listed_and_the_rest_goes_on(self):
        names = list(SINGLES)
        truncated = SINGLES[names[2]][:-200]
        faults = {
            names[0]: [cut],
            names[1]: [web_page],
            names[2]: [lambda to, _: send(to, truncated)],
        }
        with serving(SINGLES, faults) as (url, asked):
            missing = fetch(url)
            assert list(missing) == IDS[:3]
            assert "no whole image" in missing[IDS[2]]
            assert "http" not in "".join(missing.values())
            assert kept() == {i: EVERYTHING[i] for i in IDS[3:]}
            asked.clear()
            assert fetch(url) == {}
            assert asked == [ARCHIVE, *names[:3]]

    def test_a_server_that_only_fails_is_left_alone(self, monkeypatch):
        monkeypatch.setattr(downloads, "GIVE_UP", 3)
        faults = {name: [web_page] * 9 for name in list(SINGLES)[2:]}
        with (
            serving(SINGLES, faults) as (url, asked),
            pytest.raises(CourseError, match="Stopped after 2 of 6") as caught,
        ):
            fetch(url)
        assert asked[-1] == list(SINGLES)[4]
        assert "is kept" in caught.value.do
        assert set(kept()) == set(IDS[:2])

    def test_without_network_one_message(self, monkeypatch):
        monkeypatch.setattr(downloads, "GIVE_UP", 2)
        for studies in (None, 2955):
            with pytest.raises(CourseError) as caught:
                fetch(studies=studies)
            assert "no connection to openi.nlm.nih.gov" in caught.value.why
            assert "HTTPS_PROXY" in caught.value.why
            assert "wget -c" in caught.value.do

    def test_a_folder_is_copied_but_for_half_files(self, tmp_path):
        folder = tmp_path / "kaggle" / "images_normalized"
        folder.mkdir(parents=True)
        for i in IDS[:3]:
            name = f"{i.removeprefix('CXR')}.dcm.png"
            (folder / name).write_bytes(EVERYTHING[i])
        half = folder / f"{IDS[2].removeprefix('CXR')}.dcm.png"
        half.write_bytes(half.read_bytes()[:-40])
        missing = fetch(origin=str(folder.parent))
        assert kept() == {i: EVERYTHING[i] for i in IDS[:2]}
        assert "no whole image" in missing[IDS[2]]
        assert missing[IDS[3]] == "not in kaggle"
        assert len(list(folder.iterdir())) == 3

    def test_an_archive_from_this_machine_stays_where_it_is(self, tmp_path):
        archive = tmp_path / "NLMCXR_png.tgz"
        archive.write_bytes(WHOLE[ARCHIVE])
        assert fetch(origin=str(archive)) == {}
        assert kept() == EVERYTHING
        assert archive.exists()
        with pytest.raises(CourseError, match="is no folder and no archive"):
            fetch(origin=str(tmp_path / "nowhere"))

    def test_the_command_says_what_is_there_and_the_licence(self, capsys):
        some = {k: v for k, v in SINGLES.items() if IDS[5] not in k}
        with serving(some) as (url, _):
            asked = ["fetch", "openi", "--all", "--mirror", url]
            assert commands.main(asked) == 1
        shown = capsys.readouterr().out
        assert "Wanted: 6 images, 5 are there." in shown
        assert f"Missing 1 (first {IDS[5]}): The server answered: 404" in shown
        assert "CC BY-NC-ND 4.0" in shown
        assert commands.main(["fetch", "openi"]) == 1
        assert "--studies N or --all" in capsys.readouterr().err


def test_a_killed_run_goes_on(folders):
    """kill -9 while the third image is on its way."""
    wanted = downloads.wanted_images(2)
    files = {f"/{i}.png": picture(n) for n, i in enumerate(wanted)}
    reached = threading.Event()

    def stall(to, body):
        send(to, body[:700], length=len(body))
        to.wfile.flush()
        reached.set()
        time.sleep(1.5)

    command = [sys.executable, "-m", "llamaxr_utils", "fetch", "openi",
               "--studies", "2", "--mirror"]  # fmt: skip
    with serving(files, {list(files)[2]: [stall]}) as (url, asked):
        run = subprocess.Popen([*command, url], env=dict(os.environ))
        assert reached.wait(30)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert set(kept()) == set(wanted[:2])
        asked.clear()
        done = subprocess.run(
            [*command, url], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert asked == list(files)[2:]
    assert kept() == dict(zip(wanted, files.values(), strict=True))


def test_a_sample_is_seeded_and_grows():
    small, large = downloads.wanted_images(5), downloads.wanted_images(20)
    assert small == downloads.wanted_images(5)
    assert set(small) < set(large) < set(downloads.wanted_images())
    assert len({i.split("_")[0] for i in large}) == 20
    assert len(downloads.wanted_images()) == 7426


@pytest.mark.parametrize(
    ("image_id", "path"),
    [  # as they stand on public pages
        ("CXR253_IM-1045-1001", "253/253"),
        ("CXR2961_IM-1355-1001", "154/2961"),
        ("CXR1_1_IM-0001-3001", "1/1"),
    ],
)
def test_the_address_of_a_single_image(image_id, path):
    address = downloads.image_address(image_id)
    base = "https://openi.nlm.nih.gov/imgs/512"
    assert address == f"{base}/{path}/{image_id}.png"


# --- archives ---------------------------------------------------------------

PACKERS = pytest.mark.parametrize(
    ("pack", "name"), [(zipped, "a.zip"), (tarred, "a.tgz")]
)


def unpack(place, name, content):
    (place / name).write_bytes(content)
    target = downloads.unpack_images(place / name, place / "deep" / "out")
    return {
        p.relative_to(target).as_posix()
        for p in target.rglob("*")
        if p.is_file() and p.name != downloads.NOTE
    }


@PACKERS
def test_only_images_are_unpacked_and_a_new_archive_again(
    tmp_path, pack, name
):
    first = [("x/1.png", b"one"), ("2.JPG", b"two"), ("run.sh", b"no"),
             ("__MACOSX/._2.jpg", b"no")]  # fmt: skip
    assert unpack(tmp_path, name, pack(*first)) == {"x/1.png", "2.JPG"}
    whole = pack(("1.png", b"1"), ("2.png", b"22"))
    with pytest.raises(CourseError, match="could not be unpacked"):
        unpack(tmp_path, name, whole[:-20])  # what was there stays
    assert (tmp_path / "deep/out/2.JPG").read_bytes() == b"two"
    assert unpack(tmp_path, name, whole) == {"1.png", "2.png"}


@PACKERS
@pytest.mark.parametrize(
    "bad", ["../out.png", "/out.png", "x/../../o.png", "..\\o.png", "../a.txt"]
)
def test_no_path_leads_out(tmp_path, pack, name, bad):
    content = pack(("good.png", b"1"), (bad, b"2"))
    assert unpack(tmp_path, name, content) == {"good.png"}
    outside = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.name for p in outside} == {name, "good.png", downloads.NOTE}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
             tarfile.BLKTYPE, tarfile.FIFOTYPE],
)  # fmt: skip
def test_links_and_devices_are_left_out(tmp_path, kind):
    entry = tarfile.TarInfo("x.png")
    entry.type, entry.linkname = kind, "/etc/hostname"
    content = tarred(("good.png", b"1"), entry)
    assert unpack(tmp_path, "a.tgz", content) == {"good.png"}


def test_a_folder_that_a_person_unpacked_is_left_alone(tmp_path):
    mine = tmp_path / "deep" / "out" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"m")
    assert unpack(tmp_path, "a.zip", zipped(("1.png", b"1"))) == {"mine.png"}


@PACKERS
def test_a_damaged_archive_leaves_nothing(tmp_path, pack, name):
    noise = random.Random(1).randbytes(4000)
    whole = pack(("1.png", noise), ("2.png", noise))
    damaged = whole[:60] + b"?" * 400 + whole[460:]
    for content in (whole[:-30], damaged, b"", b"PK", b"<html>Log in</html>"):
        with pytest.raises(CourseError, match="could not be unpacked"):
            unpack(tmp_path, name, content)
        assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [name]


def test_what_would_fill_the_disk(tmp_path, monkeypatch):
    usage = downloads.shutil.disk_usage(tmp_path)._replace(free=60_000_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    downloads.check_space(tmp_path / "not" / "there", 1_000_000, "a file")
    with serving({}) as (url, asked):
        with pytest.raises(CourseError, match="20 MB and some to spare; 60"):
            downloads.download(f"{url}/a.csv", "0", 20_000_000, tmp_path)
        assert asked == []
    usage = usage._replace(free=1000)
    with pytest.raises(CourseError, match="not enough space for a.zip"):
        unpack(tmp_path, "a.zip", zipped(("1.png", b"1" * 1000)))


# --- published files --------------------------------------------------------

RAW = (
    "report,dicom_id\n"
    '"the lungs, clear.",CXR1_IM-0001\n'
    "a scar.,CXR2_IM-0652\n"
)
ROWS = [["CXR1_IM-0001", "the lungs, clear."], ["CXR2_IM-0652", "a scar."]]


@pytest.fixture
def pinned(folders, monkeypatch):
    """A made-up source; its address leads nowhere."""
    source = downloads.Published(
        "https://raw.example.org/commit/reports.csv",
        len(RAW),
        hashlib.sha256(RAW.encode()).hexdigest(),
        "peer_iu_test.csv",
        "a licence",
    )
    monkeypatch.setattr(downloads, "SOURCES", {"peer": source})


def content(path):
    return pd.read_csv(path, dtype=str).to_numpy().tolist()


@pytest.mark.usefixtures("pinned")
def test_predictions_from_a_mirror_or_this_machine(tmp_path):
    with serving({"/files/reports.csv": RAW.encode()}) as (url, asked):
        path = downloads.fetch("peer", f"{url}/files")
        assert path.name == "peer_iu_test.csv" and content(path) == ROWS
        assert downloads.fetch("peer") == path  # it is there
        assert asked == ["/files/reports.csv"]
    copy = tmp_path / "raw.csv"
    copy.write_text(RAW)
    assert content(downloads.fetch("peer", str(copy))) == ROWS


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize(
    "answer",
    [web_page, cut, status(404), status(503),
     lambda to, _: to.connection.close()],
    ids=["html", "cut", "404", "503", "hangs up"],
)
def test_what_is_not_the_whole_file_is_not_kept(answer):
    faults = {"/reports.csv": [answer]}
    with (
        serving({"/reports.csv": RAW.encode()}, faults) as (url, _),
        pytest.raises(CourseError, match="could not be downloaded") as caught,
    ):
        downloads.fetch("peer", url)
    assert "--from" in caught.value.do and "\n" not in caught.value.why
    cache = downloads.cache_folder()
    assert not [p for p in cache.rglob("*") if p.is_file()]


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("text", ["", "id,generated\nCXR1,x\n", "\0\1\2"])
def test_another_local_file_is_refused(tmp_path, text):
    copy = tmp_path / "copy.csv"
    copy.write_text(text)
    with pytest.raises(CourseError, match="not the released file of peer"):
        downloads.fetch("peer", str(copy))


@pytest.mark.usefixtures("pinned")
def test_the_command(tmp_path, capsys):
    copy = tmp_path / "raw.csv"
    copy.write_text(RAW)
    assert commands.main(["fetch", "peer", "--from", str(copy)]) == 0
    shown = capsys.readouterr().out
    assert "peer_iu_test.csv  (a licence)" in shown
    assert "llamaxr_utils score" in shown
    assert commands.main(["fetch", "pear"]) == 1
    assert "What: 'pear'" in capsys.readouterr().err


def test_the_pinned_source_is_whole():
    source = downloads.SOURCES["cvt2distilgpt2"]
    assert len(source.sha256) == 64 and source.size == 139_099
    commit = source.url.split("/")[5]
    assert len(commit) == 40 and set(commit) <= set("0123456789abcdef")
    assert reports.r2gen_split()["study_id"].nunique() == 2955
