"""What every test stands on: its own folders, and no network."""

import contextlib
import io
import json
import os
import runpy
import tarfile
import tempfile
import threading
import zipfile
from functools import partial
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest

# Before anything is imported: the models' libraries read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
# A Java that would write decimal commas: METEOR's numbers do not change.
os.environ["JAVA_TOOL_OPTIONS"] = "-Duser.language=de -Duser.country=DE"
_PLACE = tempfile.TemporaryDirectory(prefix="llamaxr-tests-")
os.environ["LLAMAXR_RUNS"] = str(Path(_PLACE.name) / "runs")
os.environ["LLAMAXR_DATA"] = str(Path(_PLACE.name) / "data")
#: Of all processes: METEOR's tables of paraphrases take ten seconds each.
TABLES = Path(os.environ.setdefault("LLAMAXR_TEST_TABLES", _PLACE.name))

FIXTURES = Path(__file__).parent / "fixtures"
FIRST = ("test_notebooks.py", "test_rehearsal.py")  #: the longest files
runpy.run_path(str(FIXTURES / "offline" / "sitecustomize.py"))  # no network


def pytest_collection_modifyitems(items):
    """No process may wait for a long file, or one of `llm`, at the end."""
    items.sort(key=lambda item: (item.path.name not in FIRST,
                                 item.path.parent.name != "llm"))


def pytest_make_parametrize_id(val):
    """Bytes name no test: a packed archive holds the time of its making."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def shared_tables():
    name = "llamaxr_utils.evaluation.meteor.cache_folder"
    with patch(name, lambda: TABLES):
        yield


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A place of its own for runs and data; returns the runs folder."""
    monkeypatch.setenv("LLAMAXR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LLAMAXR_DATA", str(tmp_path / "data"))
    return tmp_path / "runs"


@pytest.fixture
def data(folders):
    """The data folder of this test, empty."""
    place = folders.parent / "data"
    place.mkdir()
    return place


@pytest.fixture
def no_java(monkeypatch):
    """METEOR 1.5 takes seconds to start; for tests that need no METEOR."""
    name = "llamaxr_utils.evaluation.metrics.java_version"
    monkeypatch.setattr(name, lambda: None)


@pytest.fixture(scope="session")
def studies():
    """All 3,955 of IU X-ray, as they are in torchxrayvision."""
    from llamaxr_utils.datasets import reports

    return reports.load_studies()


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A folder with a tiny language model, untaught."""
    from test_models import tiny_base

    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def pairs():
    """A few prompts with their reports, for training."""
    from test_finetune import make_pairs

    return make_pairs()


@pytest.fixture(scope="session")
def pictures():
    """Grey squares and labels: where the lower half is bright, the first nine
    conditions (of the network's order), effusion among them."""
    import numpy as np

    grey = np.random.default_rng(0).integers(0, 80, (48, 64, 64))
    grey[::2, 32:] += 150
    labels = np.zeros((48, 18), int)
    labels[::2, :9] = 1
    labels[:4, 9:17] = 1  # the last one never occurs
    return grey.astype(np.uint8), labels


@pytest.fixture(scope="session")
def model(pictures):
    """A network trained on them; its losses are in `losses`."""
    from llamaxr_utils.vision import backbones

    model = backbones.build("densenet-small@phantom")
    model.losses = backbones.train(model, *pictures, 8, batch_size=8)
    return model


def cells(number):
    """Name -> source of every cell of a notebook."""
    (path,) = Path(__file__).parents[1].glob(f"notebooks/{number}_*.ipynb")
    listed = json.loads(path.read_text("utf-8"))["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in listed}


def run_cells(*names, **space):
    """What these cells, and their second halves ("-b"), define."""
    code = "\n".join(source for name in names for id_, source in cells(
        name[:2]).items() if id_.removesuffix("-b") == name)
    exec(code, space)  # noqa: S102
    return space


def keep(folder, name, value, *inputs, **knobs):
    """Save an artifact as its notebook does; a column not given is empty."""
    from llamaxr_utils.course import artifacts
    from llamaxr_utils.datasets.conditions import CONDITIONS

    kind = artifacts.ARTIFACTS[name]
    if kind.columns:
        scores = [c for c in CONDITIONS if c in value]
        value = value.reindex(columns=[*kind.columns, *scores], fill_value="")
    artifacts.save(folder, name, value, writer=kind.writer, inputs=inputs,
                   parameters=knobs)


def hand_over(folder, table, tokenizer, base, **knobs):
    """What notebooks 01 and 03 leave for 04, of a table of both."""
    keep(folder, "studies", table, SPLIT="r2gen")
    keep(folder, "tokenizer", tokenizer, "studies", BASE=base)
    keep(folder, "prompts", table, "studies", "tokenizer", **knobs)


def tarred(*entries, kind=tarfile.REGTYPE):
    """The bytes of a .tgz of these names and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        for name, body in entries:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(body), kind
            info.linkname = "" if kind == tarfile.REGTYPE else "/etc/hostname"
            content.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def zipped(*entries):
    """The bytes of a .zip of these names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        for name, body in entries:
            content.writestr(name, body)
    return buffer.getvalue()


def send(to, body, length=None):
    """Answer a request; a wrong `length` breaks it off."""
    to.send_response(200)
    to.send_header("Content-Length", str(length or len(body)))
    to.end_headers()
    to.wfile.write(body)
    to.wfile.flush()


@contextlib.contextmanager
def serving(files, faults=()):
    """Address and list of asked paths; `faults`: path -> its first answer."""
    asked, waiting = [], dict(faults)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            waiting.pop(self.path, send)(self, files[self.path])

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serve = partial(server.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


class Reader(HTMLParser):
    """What a page holds; fails where tags are not closed in turn."""

    void = ("meta", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.pictures, self.text = [], [], [], []
        self.ids, self.links, self.attributes = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(values)
        self.open += [tag] if tag not in self.void else []
        self.pictures += [values] if tag == "img" else []
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
