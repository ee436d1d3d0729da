"""Artifacts: whole or not at all, one writer, stale ones are refused."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest

from llamaxr_utils.course import artifacts
from llamaxr_utils.course.errors import CourseError

ORDER = [*artifacts.ARTIFACTS]


def table(name: str, rows: int = 3) -> pd.DataFrame:
    columns = artifacts.ARTIFACTS[name].columns
    return pd.DataFrame({c: [f"{c} {i}" for i in range(rows)]
                         for c in columns})


def save(folder: Path, name: str, value=None, **options) -> Path:
    """Made from the two before it, unless `options` say otherwise."""
    spec, earlier = artifacts.ARTIFACTS[name], ORDER[: ORDER.index(name)]

    def fill(place: Path) -> None:
        place.mkdir()
        (place / "weights.bin").write_bytes(name.encode())

    if value is None:
        value = table(name) if spec.columns else fill
    options = {"writer": spec.writer, "inputs": earlier[-2:], **options}
    return artifacts.save(folder, name, value, **options)


@pytest.fixture
def folder(tmp_path):
    """A run folder with every artifact in it."""
    for name in ORDER:
        save(tmp_path / "cpu-real", name)
    return tmp_path / "cpu-real"


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_was_saved_is_loaded_and_says_where_it_comes_from(folder):
    for name, spec in artifacts.ARTIFACTS.items():
        value = artifacts.load(folder, name)
        if spec.columns:
            pd.testing.assert_frame_equal(value, table(name),
                                          check_dtype=False)
        else:
            assert (value / "weights.bin").read_bytes() == name.encode()
    save(folder, "prompts", parameters={"SEED": 3})
    record = artifacts.manifest(folder, "prompts")
    assert record["parameters"] == {"SEED": 3}
    assert record["sha256"] == artifacts.sha256(folder / "prompts.parquet")
    assert record["inputs"]["tokenizer"] == artifacts.sha256(
        folder / "tokenizer")


def test_only_its_writer_writes_an_artifact_and_with_its_columns(folder):
    with pytest.raises(ValueError, match="03_build_prompts may not write"):
        save(folder, "image_scores", writer="03_build_prompts")
    half = table("prompts").drop(columns=["completion"])
    with pytest.raises(ValueError, match=r"lacks the columns \['completion"):
        save(folder, "prompts", half)
    assert len(artifacts.load(folder, "prompts")) == 3


def test_one_byte_of_image_scores_and_all_downstream_name_it(folder):
    change_a_byte(folder / "image_scores.parquet")
    for name in ORDER:
        if ORDER.index(name) < ORDER.index("image_scores"):
            artifacts.load(folder, name)
            continue
        with pytest.raises(CourseError) as caught:
            artifacts.load(folder, name)
        assert f"{name} is out of date in runs/cpu-real" in caught.value.what
        assert "image_scores" in caught.value.why
        assert "make course FROM=0" in caught.value.do
    save(folder, "image_scores")  # the same content: all is well again
    artifacts.load(folder, "summary")
    change_a_byte(folder / "base_model" / "weights.bin")
    with pytest.raises(CourseError, match="base_model"):
        artifacts.load(folder, "generations")
    artifacts.load(folder, "prompts")


def test_a_new_input_or_no_manifest_makes_stale(folder):
    save(folder, "prompts", table("prompts", rows=4))
    assert len(artifacts.load(folder, "prompts")) == 4
    with pytest.raises(CourseError) as caught:
        artifacts.load(folder, "summary")
    assert "base_model was made from another prompts" in caught.value.why
    assert "`make course FROM=04 PROFILE=cpu IMAGES=real`" in caught.value.do
    (folder / "studies.json").unlink()
    with pytest.raises(CourseError, match="studies is not there"):
        artifacts.load(folder, "summary")


def save_and_die(folder: Path, name: str) -> None:
    """kill -9 while half of the new content is written."""
    def half(*given, **_):
        part = Path(given[-1])
        if name == "adapter":
            part.mkdir()
            part = part / "weights.bin"
        part.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    pd.DataFrame.to_parquet = half
    save(folder, name, half if name == "adapter" else None)


@pytest.mark.parametrize("name", ["prompts", "adapter"])
def test_kill_in_the_middle_of_a_save(folder, name):
    child = get_context("spawn").Process(
        target=save_and_die, args=(folder, name))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len([*folder.glob(".part*")]) == 1
    artifacts.load(folder, "summary")  # nothing happened to the old content
    save(folder, name)  # and the next save is not in its way
    artifacts.load(folder, name)
