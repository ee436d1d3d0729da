"""Hashes, and writing that leaves a file whole or as it was.

Everything that the kit writes goes through `write_whole`, so that a full
disk or a killed process costs the last step and nothing before it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import CourseError


@lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256(path: Path) -> str:
    """Hash of a file, or of a folder's relative names and contents."""
    if path.is_dir():
        lines = [
            f"{sha256(file)}  {file.relative_to(path).as_posix()}"
            for file in sorted(path.rglob("*"))
            if file.is_file()
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    info = path.stat()
    return _file_hash(path.resolve(), info.st_size, info.st_mtime_ns)


# --- writing, whole or not at all -------------------------------------------


@contextmanager
def disk_errors(path: Path):
    """A full or read-only disk becomes a `CourseError` about `path`."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    try:
        yield
    except Exception as error:
        # safetensors and torch say it in exceptions of their own.
        said = [f"(os error {code})" in str(error) for code in codes]
        torn = "inline_container.cc" in str(error)
        if not (getattr(error, "errno", None) in codes or any(said) or torn):
            raise
        reason = getattr(error, "strerror", None) or (
            "No space left on device" if torn else str(error)
        )
        raise CourseError(
            f"{path.name} could not be written; what was there is unharmed.",
            f"{reason} ({path.parent}).",
            "Free some space, or move the data folder with LLAMAXR_DATA; "
            "then the same command continues.",
        ) from error


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary path, then put it in place in one step.

    Works for files and folders. When `write` fails or the process dies, the
    old content of `path` is still there and whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    old = path.with_name(f".{path.name}.old{os.getpid()}")
    try:
        with disk_errors(path):
            write(part)
            if part.is_file():
                with part.open("rb+") as handle:
                    os.fsync(handle.fileno())
                part.replace(path)
            else:
                if path.exists():
                    path.rename(old)
                part.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for leftover in (part, old):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    write_whole(path, lambda part: part.write_text(text + "\n", "utf-8"))
