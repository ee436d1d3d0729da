"""Files handed from notebook to notebook, with a manifest beside each.

An artifact is a table (parquet or CSV) or a folder (a model). Its manifest
``<name>.json`` records the hash of the artifact and of everything it was
made from, so that `load` can refuse what is damaged or out of date. Every
artifact has one writer, every run one folder. All that the kit writes goes
through `write_whole`.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import uuid4

import pandas as pd
import yaml

from .errors import problem
from .machine import versions


class Spec(NamedTuple):
    """Where an artifact lies, who writes it, which columns it has."""

    file: str
    writer: str
    columns: tuple[str, ...] = ()


#: Every artifact of a run.
ARTIFACTS = {
    name: Spec(row["file"], row["writer"], tuple(row.get("columns", ())))
    for name, row in yaml.safe_load(
        (Path(__file__).parents[1] / "artifacts.yaml").read_text("utf-8")
    ).items()
}


def path_of(folder: Path, name: str) -> Path:
    """Path of an artifact (a key of `ARTIFACTS`) inside a run folder."""
    return Path(folder) / ARTIFACTS[name].file


def read_json(path: Path, **fields: Any) -> dict | None:
    """A JSON object that the kit wrote, with these fields (name=type); None
    if it is not there, is damaged or is of another schema version."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("schema_version", 1) != 1:
        return None
    fit = [isinstance(content.get(key), fields[key]) for key in fields]
    return content if all(fit) else None


def manifest(folder: Path, name: str) -> dict | None:
    """The manifest of an artifact, or None when there is none; its inputs
    are artifacts that come before it."""
    record = read_json(Path(folder) / f"{name}.json", schema_version=int,
                       sha256=str, inputs=dict, parameters=dict)
    if record is None or not os.path.exists(path_of(folder, name)):
        return None
    earlier = [*ARTIFACTS][: [*ARTIFACTS].index(name)]
    return record if {*earlier} >= {*record["inputs"]} else None


def save(folder: Path, name: str,
         value: pd.DataFrame | Callable[[Path], Any], *, writer: str,
         inputs: Iterable[str] = (),
         parameters: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """Write an artifact and its manifest: a table, or a function that fills
    the folder whose path it is given; `inputs`: what it was made from."""
    spec, path = ARTIFACTS[name], path_of(folder, name)
    if writer != spec.writer:
        raise ValueError(f"{writer} may not write {name}")
    if isinstance(value, pd.DataFrame):
        if missing := [c for c in spec.columns if c not in value.columns]:
            raise ValueError(f"{name} lacks the columns {missing}")
        table = value.reset_index(drop=True)
        csv = path.suffix == ".csv"
        value = partial(table.to_csv, index=False) if csv else table.to_parquet
    write_whole(path, value)
    record = {
        "schema_version": 1, "name": name, "sha256": sha256(path),
        "writer": writer, "parameters": dict(parameters),
        "written": datetime.now(UTC).isoformat("T", "seconds"),
        "inputs": {i: sha256(path_of(folder, i)) for i in inputs},
        "versions": versions()}
    write_json(Path(folder) / f"{name}.json", record)
    return path


def stale_because(folder: Path, name: str) -> tuple[str, str] | None:
    """The artifact furthest upstream that must be written again before `name`
    can be trusted, and a sentence why; None if every recorded hash, its own
    and those of its inputs, is that of the file now in the folder."""
    record = manifest(folder, name)
    if record is None:
        return name, f"{name} is not there"
    for source in record["inputs"]:
        if upstream := stale_because(folder, source):
            return upstream
    for source, recorded in record["inputs"].items():
        if sha256(path_of(folder, source)) != recorded:
            return name, f"{name} was made from another {source}"
    if sha256(path_of(folder, name)) != record["sha256"]:
        return name, f"{name} is not the file that its manifest describes"
    return None


def run_options(folder: Path) -> str:
    """`` PROFILE=... IMAGES=real``: a run folder for the make command."""
    profile, *images = Path(folder).name.split("-")
    return f" PROFILE={profile}" + "".join(f" IMAGES={i}" for i in images)


def load(folder: Path, name: str) -> Any:
    """Read an artifact: a DataFrame, or the path of a folder. CourseError if
    it is missing, damaged or stale: it names the notebook to rerun."""
    path = path_of(folder, name)
    if stale := stale_because(folder, name):
        redo, reason = stale
        state = "is out of date" if path.exists() else "was not found"
        writer = ARTIFACTS[redo].writer
        options = f"FROM={writer[:2]}{run_options(folder)}"
        raise problem(
            "stale artifact", name=name, state=state, run=Path(folder).name,
            reason=reason, redo=redo, writer=writer, options=options)
    if path.is_dir():
        return path
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    return read(path)


@lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file, or of a folder's relative names and contents."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = [file.relative_to(path).as_posix() for file in files]
        lines = [f"{sha256(f)}  {name}" for f, name in zip(files, names)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    info = path.stat()
    return _file_hash(path.resolve(), info.st_size, info.st_mtime_ns)


def digest(content: Any) -> str:
    """Hash of facts: what was made of the same ones is the same."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# --- writing, whole or not at all -------------------------------------------

@contextmanager
def disk_errors(path: Path):
    """A disk that is full, or that may not be written, and a name that no
    file can have become a `CourseError` about `path`."""
    names = ("ENOSPC EDQUOT EROFS EACCES EPERM EEXIST ENOTDIR EISDIR ENOTEMPTY"
             " ENAMETOOLONG ELOOP ENOLCK EOPNOTSUPP")
    codes = {getattr(errno, name) for name in names.split()}
    # safetensors and torch say it in exceptions of their own.
    words = (*(f"(os error {code})" for code in codes), "inline_container.cc",
             "embedded null")
    try:
        yield
    except Exception as error:
        by_word = any(word in str(error) for word in words)
        if not by_word and getattr(error, "errno", None) not in codes:
            raise
        raise problem(
            "disk", file=path.name, error=error, folder=path.parent) from error


def write_whole(path: Path, write: Callable[[Path], Any] | None) -> None:
    """Let `write` fill a temporary file or folder, then put it in place in
    one step: until then the old content of `path` is there and whole. A file
    takes the place of no folder that holds something, and nothing that of a
    link or a device. Without `write` it is only tried."""
    folder = path.parent / f".part{uuid4().hex}"
    part, old = folder / "new", folder / "old"
    with disk_errors(path):
        regular = path.is_file() or path.is_dir() or not os.path.exists(path)
        if path.is_symlink() or not regular:
            raise problem("no file to write", path=path)
        folder.mkdir(parents=True)
        try:
            if write is None:
                trial = path if path.exists() else folder / path.name
                return trial.open("ab").close()
            write(part)
            if path.is_dir() and part.is_file():
                path.rmdir()
            elif path.is_dir():
                path.replace(old)
            part.replace(path)
        finally:
            if old.exists() and not path.exists():
                old.replace(path)
            shutil.rmtree(folder, ignore_errors=True)


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Before a command's work: a `CourseError` for an output that can't be
    written, is an input or another output by any name or link, or is a file
    of an input folder and no table for people."""
    taken = [path for path in inputs if os.path.exists(path)]
    for path in outputs:
        write_whole(path, None)
        for other in taken:
            here, place, there = path.resolve(), other.resolve(), path.exists()
            inside = place in here.parents and path.suffix != ".csv"
            linked = there and other.exists() and path.samefile(other)
            if place == here or linked or there and inside:
                raise problem("output is taken", path=path, other=other)
        taken.append(path)


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    write_whole(path, lambda part: part.write_text(
        text + "\n", "utf-8", "replace"))
