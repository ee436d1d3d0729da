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

import pandas as pd
import yaml

from .errors import CourseError
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


def manifest(folder: Path, name: str) -> dict | None:
    """The manifest of an artifact, or None when there is none."""
    path = Path(folder) / f"{name}.json"
    if not (path.is_file() and path_of(folder, name).exists()):
        return None
    return json.loads(path.read_text("utf-8"))


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
    if problem := stale_because(folder, name):
        redo, reason = problem
        state = "is out of date" if path.exists() else "was not found"
        writer = ARTIFACTS[redo].writer
        options = f"FROM={writer[:2]}{run_options(folder)}"
        raise CourseError(f"{name} {state} in runs/{Path(folder).name}.",
                          f"{reason}; {redo} is written by {writer}.",
                          f"Run that notebook, or `make course {options}`.")
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


# --- writing, whole or not at all -------------------------------------------

@contextmanager
def disk_errors(path: Path):
    """A disk that is full, or that may not be written, becomes a `CourseError`
    about `path`."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES,
             errno.EPERM)
    # safetensors and torch say it in exceptions of their own.
    words = (*(f"(os error {code})" for code in codes), "inline_container.cc")
    try:
        yield
    except Exception as error:
        by_word = any(word in str(error) for word in words)
        if not by_word and getattr(error, "errno", None) not in codes:
            raise
        raise CourseError(
            f"{path.name} could not be written; what was there is unharmed.",
            f"The disk is full, or may not be written: {error} "
            f"({path.parent}).",
            "Free some space, or set LLAMAXR_RUNS and LLAMAXR_DATA to folders "
            "of your own; then the same command continues.",
        ) from error


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file or folder, then put it in place in
    one step: until then the old content of `path` is there and whole."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    old = path.with_name(f".{path.name}.old{os.getpid()}")
    try:
        with disk_errors(path):
            write(part)
            if path.is_dir():
                path.replace(old)
            part.replace(path)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)
            if rest.is_file():
                rest.unlink()


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    write_whole(path, lambda part: part.write_text(
        text + "\n", "utf-8", "replace"))
