"""Outputs that can't be, or that would cost an input; writes that fail."""

import errno
import os
from pathlib import Path

import pytest

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course import artifacts, run, runner
from llamaxr_utils.course.errors import CourseError

#: Command: what it reads, its output's option; names of what it reads.
COMMANDS = {
    "report new.png x.png --html": "x.png ./x.png hard link",
    "score x.png --write-rexrank": "x.png run/../x.png hard link",
    "score run --write-rexrank": "run/a.json run/../run/a.json to-run/a.json",
    "grade run --csv": "run/a.json ./run/a.json to-run/a.json run",
    "sweep x.png --csv": "x.png ./x.png hard link"}
NO_PLACE = ["a" * 256, "é" * 128, "b/" + "a" * 256, "a" * 256 + "/b", *(
    "run to-run to-null dangling . .. / /dev/full /dev/null /dev/stdout fifo "
    "x.png/a x.png/b/a dangling/a a\0b").split(" ")]
GOOD = ["new", "b/new", "other", "a" * 255]
CODES = [errno.EROFS, errno.EDQUOT, errno.ENOSPC, errno.EACCES, errno.EPERM]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to stand in, with files, links and a pipe."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    for name in ("x.png", "run/a.json", "other"):
        Path(name).write_text(f"old {name}")
    os.link("x.png", "hard")
    for name, target in (("link", "x.png"), ("to-run", "run"),
                         ("dangling", "gone"), ("to-null", "/dev/null")):
        os.symlink(target, name)
    os.mkfifo("fifo")
    return tmp_path


@pytest.mark.parametrize(("command", "output"), [
    (command, output) for command in COMMANDS
    for output in NO_PLACE + GOOD + COMMANDS[command].split()], ids=ascii)
def test_an_output_is_refused_before_the_work(
    place, monkeypatch, capsys, command, output
):
    def tree():
        return {p: p.is_file() and p.read_bytes() for p in place.rglob("*")
                if p.name != "b"}  # the folder of an output is made

    name, before, began = command.split()[0], tree(), []
    work = lambda options: not began.append(options)
    work.__name__ = f"_{name}"
    monkeypatch.setattr(commands, work.__name__, work)
    refused = commands.main([*command.split(), output])
    assert refused == (output not in GOOD) == (not began)
    assert ("Do:   " in capsys.readouterr().err) == refused
    assert tree() == before


def test_two_outputs_of_one_name(place):
    with pytest.raises(CourseError, match="belongs to"):
        artifacts.check_outputs([Path("new"), place / "run/../new"], [])


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("step", ["Path.replace", "Path.write_text"])
@pytest.mark.parametrize("fault", [
    *(OSError(code, "no") for code in CODES), KeyboardInterrupt(),
    MemoryError(), SystemExit(1)], ids=repr)
def test_a_write_is_whole(place, monkeypatch, folder, step, fault):
    """Or as it was, and another name of the old file keeps the old one."""
    def fill(part, text="new"):
        part = part / "a" if folder and not part.mkdir() else part
        part.write_text(text)

    def fail(self, *given):
        if step == "Path.replace" and self.name != "new":
            return real(self, *given)
        raise fault

    target, real = Path("t"), Path.replace
    artifacts.write_whole(target, lambda part: fill(part, "old"))
    file = target / "a" if folder else target
    os.link(file, "kept")
    with monkeypatch.context() as patch:
        patch.setattr(f"pathlib.{step}", fail)
        with pytest.raises((CourseError, type(fault))):
            artifacts.write_whole(target, fill)
    assert file.read_text() == "old"
    artifacts.write_whole(target, fill)
    assert (file.read_text(), Path("kept").read_text()) == ("new", "old")
    assert not list(Path().glob(".part*"))


def tries(folder):
    """What makes a folder or writes, by name."""
    nb = run.Run("01_explore_data", "smoke", None)
    nb.folder = folder
    return {
        "json": lambda: artifacts.write_json(folder / "a.json", {}),
        "file": lambda: nb.file("tables", "a.csv"), "finish": nb.finish,
        "lock": lambda: runner.one_writer(folder).__enter__(),
        "output": lambda: artifacts.check_outputs([folder / "a/b"], [])}


@pytest.mark.parametrize("code", [*CODES, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize(("name", "step"), [
    *((name, "pathlib.Path.mkdir") for name in tries(Path())),
    ("lock", "filelock.FileLock.acquire")])
def test_a_disk_that_refuses_is_said(place, monkeypatch, name, step, code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(step, fail)
    with pytest.raises(CourseError, match=os.strerror(code)):
        tries(place / "new")[name]()
