"""`fetch openi` against a local server that misbehaves in every way it can."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads, layouts, openi, reports

IDS = [f"CXR2_IM-0652-{n}001" for n in range(1, 7)]
ARCHIVE = f"/{openi.IMAGES}"


def picture(seed=0, size=48, form="PNG"):
    noise = np.random.default_rng(seed).integers(0, 255, (size, size), "u1")
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, form)
    return buffer.getvalue()


def packed(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


SINGLES = {f"/{i}.png": picture(n) for n, i in enumerate(IDS)}
WHOLE = {ARCHIVE: packed({f"{i}.png": picture(n)
                          for n, i in enumerate(IDS)})}  # fmt: skip


@pytest.fixture(autouse=True)
def small_collection(folders, monkeypatch):
    """Six images, no waiting, folders of its own."""
    views = pd.DataFrame({"image_id": IDS, "view": ["frontal", "lateral"] * 3})
    monkeypatch.setattr(layouts, "known_views", views.copy)
    monkeypatch.setattr(downloads, "PAUSE", 0)


class Mirror:
    """Files under addresses, and faults: one for each coming request."""

    def __init__(self, files, ranges=True, version="1"):
        self.files, self.ranges, self.version = dict(files), ranges, version
        self.faults, self.asked, self.parts = {}, [], []

    def answer(self, to):
        self.asked.append(to.path)
        self.parts.append(to.headers.get("Range"))
        body = self.files.get(to.path)
        waiting = self.faults.get(to.path, [])
        fault = waiting.pop(0) if waiting else None
        if body is None:
            return to.send_error(404)
        if fault:
            return fault(to, self, body)
        return self.send(to, body)

    def send(self, to, body, stop=None, length=None):
        """`stop`: bytes of the file after which the connection is cut;
        `length`: what the server says instead of the truth."""
        start, asked = 0, to.headers.get("Range")
        same = to.headers.get("If-Range") == f'"{self.version}"'
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                to.send_response(416)
                to.send_header("Content-Range", f"bytes */{len(body)}")
                to.send_header("Content-Length", "0")
                return to.end_headers()
            to.send_response(206)
            to.send_header(
                "Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}"
            )
        else:
            to.send_response(200)
        to.send_header("ETag", f'"{self.version}"')
        to.send_header("Content-Length", str(length or len(body) - start))
        to.end_headers()
        to.wfile.write(body[start:stop])


def cut(after):
    return lambda to, mirror, body: mirror.send(to, body, stop=after)


def lie(by):
    return lambda to, mirror, body: mirror.send(
        to, body, length=len(body) + by
    )


def status(code):
    return lambda to, mirror, body: to.send_error(code)


def html(kind="text/html; charset=utf-8"):
    def answer(to, mirror, body):
        page = b"<html>Please log in to the network</html>"
        to.send_response(200)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(page)))
        to.end_headers()
        to.wfile.write(page)

    return answer


@contextmanager
def served(mirror):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            mirror.answer(self)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, args=(0.02,), daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def quiet(text):
    pass


def fetch(url, **options):
    return openi.fetch(mirror=url, say=quiet, **options)


def kept():
    """What counts as an image, by content."""
    return {
        image_id: path.read_bytes()
        for image_id, path in layouts.find_images()[
            ["image_id", "path"]
        ].to_numpy()
    }


EVERYTHING = dict(zip(IDS, SINGLES.values(), strict=True))


# --- what goes well ---------------------------------------------------------


def test_the_archive_becomes_images_and_is_not_fetched_twice():
    with served(Mirror(mirror := WHOLE)) as url:
        assert fetch(url) == {}
    assert kept() == EVERYTHING
    assert not (openi.home() / ".work").exists()
    with served(late := Mirror(mirror)) as url:
        assert fetch(url) == {}
        assert late.asked == []


def test_single_images_where_the_mirror_has_no_archive():
    with served(mirror := Mirror(SINGLES)) as url:
        assert fetch(f"{url}/") == {}
        assert mirror.asked == [ARCHIVE, *SINGLES]
    assert kept() == EVERYTHING


def test_jpegs_and_the_first_study_under_its_other_name(monkeypatch):
    """After the first .jpg no .png is asked for."""
    files = {f"/{i}.jpg": picture(n, form="JPEG") for n, i in enumerate(IDS)}
    files["/CXR1_IM-0001-3001.jpg"] = picture(9, form="JPEG")
    ids = [*IDS, "CXR1_1_IM-0001-3001"]
    monkeypatch.setattr(
        layouts, "known_views",
        lambda: pd.DataFrame({"image_id": ids, "view": "frontal"}),
    )  # fmt: skip
    with served(mirror := Mirror(files)) as url:
        assert fetch(url) == {}
        assert len([a for a in mirror.asked if a.endswith(".png")]) == 2
    assert set(kept()) == set(ids)


def test_an_archive_by_its_own_address_and_what_it_lacks():
    files = {"/half.tgz": packed({f"x/{IDS[0]}.png": SINGLES[f"/{IDS[0]}.png"],
                                  "x/holiday.png": picture()})}  # fmt: skip
    with served(mirror := Mirror(files)) as url:
        for _ in range(2):  # the second run asks for nothing
            missing = fetch(f"{url}/half.tgz")
            assert missing == dict.fromkeys(IDS[1:], "not in half.tgz")
        assert mirror.asked == ["/half.tgz"]
    assert list(kept()) == IDS[:1]


def test_a_sample_is_seeded_and_grows(monkeypatch):
    monkeypatch.undo()
    small, large = openi.wanted_images(5), openi.wanted_images(20)
    assert small == openi.wanted_images(5)
    assert set(small) < set(large) < set(openi.wanted_images())
    assert len({i.split("_")[0] for i in large}) == 20
    assert len(openi.wanted_images()) == 7426
    with pytest.raises(CourseError, match="asks for no study"):
        openi.wanted_images(0)


@pytest.mark.parametrize(
    ("image_id", "path"),
    [  # as they stand on public pages
        ("CXR253_IM-1045-1001", "253/253"),
        ("CXR145_IM-0290-1001", "145/145"),
        ("CXR2961_IM-1355-1001", "154/2961"),
        ("CXR1_1_IM-0001-3001", "1/1"),
    ],
)
def test_the_address_of_a_single_image(image_id, path):
    found = openi.image_address(image_id)
    assert found == f"https://openi.nlm.nih.gov/imgs/512/{path}/{image_id}.png"


# --- connections that break -------------------------------------------------


def test_a_cut_archive_goes_on_where_it_stopped():
    half = len(WHOLE[ARCHIVE]) // 2
    mirror = Mirror(WHOLE)
    mirror.faults[ARCHIVE] = [cut(half), cut(half + 900)]
    with served(mirror) as url:
        assert fetch(url) == {}
    assert mirror.parts == [None, f"bytes={half}-", f"bytes={half + 900}-"]
    assert kept() == EVERYTHING


def test_without_range_it_begins_again():
    mirror = Mirror(WHOLE, ranges=False)
    mirror.faults[ARCHIVE] = [cut(900), cut(2000)]
    with served(mirror) as url:
        assert fetch(url) == {}
    assert kept() == EVERYTHING


def test_the_next_run_resumes_and_nothing_half_counts():
    mirror, half = Mirror(WHOLE), len(WHOLE[ARCHIVE]) // 2
    mirror.faults[ARCHIVE] = [cut(half)] * (downloads.TRIES + 1)
    with served(mirror) as url:
        with pytest.raises(CourseError, match="broke off"):
            fetch(url)
        assert kept() == {}
        mirror.parts.clear()
        assert fetch(url) == {}
    assert mirror.parts == [f"bytes={half}-"]
    assert kept() == EVERYTHING


def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one():
    mirror, half = Mirror(WHOLE), len(WHOLE[ARCHIVE]) // 2
    mirror.faults[ARCHIVE] = [cut(half)] * (downloads.TRIES + 1)
    with served(mirror) as url:
        with pytest.raises(CourseError):
            fetch(url)
        newer = {f"{i}.png": picture(n + 50) for n, i in enumerate(IDS)}
        mirror.files, mirror.version = {ARCHIVE: packed(newer)}, "2"
        assert fetch(url) == {}
    assert kept() == {k.removesuffix(".png"): v for k, v in newer.items()}


def test_503_twice_then_fine():
    mirror = Mirror(WHOLE)
    mirror.faults[ARCHIVE] = [status(503), status(503)]
    with served(mirror) as url:
        assert fetch(url) == {}
    assert kept() == EVERYTHING


# --- servers that lie -------------------------------------------------------


def test_a_length_that_is_too_long_is_settled_by_asking_for_the_rest():
    mirror = Mirror(WHOLE)
    mirror.faults[ARCHIVE] = [lie(+500)]
    with served(mirror) as url:
        assert fetch(url) == {}
    assert kept() == EVERYTHING


@pytest.mark.parametrize("by", [+500, -500])
def test_a_wrong_length_without_range_is_refused_and_the_next_run_works(by):
    saved = openi.home() / f"{IDS[0]}.png"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(SINGLES[f"/{IDS[0]}.png"])
    mirror = Mirror(WHOLE, ranges=False)
    mirror.faults[ARCHIVE] = [lie(by)] * (downloads.TRIES + 1)
    with served(mirror) as url:
        with pytest.raises(CourseError, match="broke off|could not be unp"):
            fetch(url)
        assert list(kept()) == IDS[:1]  # what was there before stays
        mirror.faults.clear()
        assert fetch(url) == {}
    assert kept() == EVERYTHING


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
def test_a_web_page_is_no_archive(kind):
    mirror = Mirror(WHOLE)
    mirror.faults[ARCHIVE] = [html(kind)]
    with served(mirror) as url:
        with pytest.raises(CourseError, match="web page|could not be unp"):
            fetch(url)
        assert kept() == {}
        assert fetch(url) == {}


def test_a_tar_that_wants_out(tmp_path):
    bad = packed({f"{IDS[0]}.png": picture(), f"../../{IDS[1]}.png": b"x"})
    with (
        served(Mirror({ARCHIVE: bad})) as url,
        pytest.raises(CourseError, match="not safe to unpack"),
    ):
        fetch(url)
    assert kept() == {}
    assert not list(tmp_path.rglob("*.png"))


def test_an_archive_larger_than_the_disk(monkeypatch):
    mirror = Mirror(WHOLE)
    mirror.faults[ARCHIVE] = [lie(10**15)]
    with (
        served(mirror) as url,
        pytest.raises(CourseError, match="not enough space for NLMCXR_png"),
    ):
        fetch(url)
    assert kept() == {}
    assert not list(openi.home().rglob("*.part"))


def test_a_disk_too_full_to_unpack_does_not_cost_the_download(monkeypatch):
    def full(*_):
        raise CourseError("There is not enough space.", "", "")

    mirror = Mirror(WHOLE)
    with served(mirror) as url:
        with monkeypatch.context() as patch, pytest.raises(CourseError):
            patch.setattr(layouts, "check_space", full)
            fetch(url)
        assert kept() == {}
        assert fetch(url) == {}
    assert mirror.asked == [ARCHIVE]
    assert kept() == EVERYTHING


# --- single images ----------------------------------------------------------


def test_bad_single_images_are_listed_and_the_rest_goes_on():
    mirror, half = Mirror(SINGLES, ranges=False), 900
    names = list(SINGLES)
    mirror.faults = {
        names[0]: [cut(half)] * 9,
        names[1]: [html(), html()],
        names[2]: [html("image/png")],
        names[3]: [lie(-700)],
        names[4]: [status(503), cut(half)],
    }
    with served(mirror) as url:
        missing = fetch(url)
        assert list(missing) == IDS[:4]
        assert "broke off" in missing[IDS[0]]
        assert "web page" in missing[IDS[1]]
        assert "no whole image" in missing[IDS[2]]
        assert "no whole image" in missing[IDS[3]]
        assert kept() == {i: EVERYTHING[i] for i in IDS[4:]}
        mirror.faults, mirror.asked = {}, []
        assert fetch(url) == {}
        assert mirror.asked == [ARCHIVE, *names[:4]]
    assert kept() == EVERYTHING


def test_what_the_mirror_lacks_is_listed():
    some = dict(list(SINGLES.items())[:4])
    with served(Mirror(some)) as url:
        missing = fetch(url)
    assert list(missing) == IDS[4:]
    assert all("404" in reason for reason in missing.values())
    assert "http" not in "".join(missing.values())


def test_a_server_that_only_fails_is_left_alone(monkeypatch):
    monkeypatch.setattr(openi, "GIVE_UP", 3)
    mirror = Mirror(SINGLES)
    for name in list(SINGLES)[2:]:
        mirror.faults[name] = [html()] * 9
    with (
        served(mirror) as url,
        pytest.raises(CourseError, match="Stopped after 2 of 6") as caught,
    ):
        fetch(url)
    assert mirror.asked[-1] == list(SINGLES)[4]
    assert "is kept" in caught.value.do
    assert set(kept()) == set(IDS[:2])


def test_a_wrong_address_is_not_asked_seven_thousand_times(monkeypatch):
    monkeypatch.setattr(openi, "NEVER_THERE", 2)
    with (
        served(mirror := Mirror({})) as url,
        pytest.raises(CourseError, match="Stopped after 0"),
    ):
        fetch(url)
    assert len(mirror.asked) == 1 + 2 * 2


def test_without_network_one_message_and_no_second_attempt(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 60)  # would be noticed
    for studies in (None, 2955):
        with pytest.raises(CourseError) as caught:
            openi.fetch(studies=studies, say=quiet)
        assert "no connection to openi.nlm.nih.gov" in caught.value.why
        assert "HTTPS_PROXY" in caught.value.do


def test_behind_a_dead_proxy(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 60)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(CourseError, match="ProxyError") as caught:
        openi.fetch(say=quiet)
    assert "HTTPS_PROXY" in caught.value.do


def test_a_killed_run_goes_on(tmp_path):
    """kill -9 while the third image is on its way."""
    ids = reports.r2gen_split()["study_id"]
    order = ids.sample(frac=1, random_state=openi.SEED)[:2]
    views = pd.read_csv(reports.DATA / "views.csv")["image_id"]
    wanted = [i for i in views if i.split("_")[0] in set(order)]
    files = {f"/{i}.png": picture(n) for n, i in enumerate(wanted)}
    reached = threading.Event()

    def stall(to, mirror, body):
        to.send_response(200)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body[:700])
        to.wfile.flush()
        reached.set()
        time.sleep(1.5)

    mirror = Mirror(files)
    mirror.faults[list(files)[2]] = [stall]
    command = [sys.executable, "-m", "llamaxr_utils", "fetch", "openi",
               "--studies", "2", "--mirror"]  # fmt: skip
    with served(mirror) as url:
        run = subprocess.Popen([*command, url], env=dict(os.environ))
        assert reached.wait(30)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert set(kept()) == set(wanted[:2])
        mirror.asked.clear()
        done = subprocess.run(
            [*command, url], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert mirror.asked == list(files)[2:]
    assert kept() == dict(zip(wanted, files.values(), strict=True))


# --- from this machine ------------------------------------------------------


def test_a_folder_is_copied_but_for_half_files(tmp_path):
    folder = tmp_path / "kaggle" / "images_normalized"
    folder.mkdir(parents=True)
    for i in IDS[:3]:
        name = f"{i.removeprefix('CXR')}.dcm.png"
        (folder / name).write_bytes(SINGLES[f"/{i}.png"])
    half = folder / f"{IDS[2].removeprefix('CXR')}.dcm.png"
    half.write_bytes(half.read_bytes()[:-40])
    missing = openi.fetch(origin=str(folder.parent), say=quiet)
    assert kept() == {i: EVERYTHING[i] for i in IDS[:2]}
    assert "no whole image" in missing[IDS[2]]
    assert missing[IDS[3]] == "not in kaggle"
    assert len(list(folder.iterdir())) == 3


def test_an_archive_from_this_machine_stays_where_it_is(tmp_path):
    archive = tmp_path / "NLMCXR_png.tgz"
    archive.write_bytes(WHOLE[ARCHIVE])
    assert openi.fetch(origin=str(archive), say=quiet) == {}
    assert kept() == EVERYTHING
    assert archive.exists()


@pytest.mark.parametrize("name", ["nowhere", "notes.txt"])
def test_other_places_on_this_machine(tmp_path, name):
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(CourseError, match="is no folder and no archive"):
        openi.fetch(origin=str(tmp_path / name), say=quiet)


# --- the command ------------------------------------------------------------


def test_the_command_says_what_is_there_and_the_licence(capsys):
    some = {k: v for k, v in SINGLES.items() if IDS[5] not in k}
    with served(Mirror(some)) as url:
        asked = ["fetch", "openi", "--all", "--mirror", url]
        assert commands.main(asked) == 1
    shown = capsys.readouterr().out
    assert "Wanted: 6 images, 5 are there." in shown
    assert "5 are there (3 frontal, 2 lateral)" in shown
    assert f"Missing 1 (first {IDS[5]}): The server answered: 404" in shown
    assert "CC BY-NC-ND 4.0" in shown
    assert "no checksum is published" in shown


def test_the_command_asks_how_many(capsys):
    assert commands.main(["fetch", "openi"]) == 1
    assert "--studies N or --all" in capsys.readouterr().err


def test_the_reports_come_along():
    with reports.bundled_archive().open("rb") as bundled:
        files = {f"/{openi.REPORTS}": bundled.read()}
    with served(mirror := Mirror(files)) as url:
        saved = openi.fetch_reports(url)
        assert saved == openi.fetch_reports(url)
    assert len(mirror.asked) == 1
    assert saved.read_bytes() == files[f"/{openi.REPORTS}"]
    saved.unlink()
    with served(Mirror({f"/{openi.REPORTS}": b"<html>no</html>"})) as url:
        assert openi.fetch_reports(url) is None
    assert not saved.exists()
