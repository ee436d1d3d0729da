"""Files of predictions as they should not be, for `score`."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from conftest import zipped

from llamaxr_utils.__main__ import main
from llamaxr_utils.datasets import reports
from llamaxr_utils.evaluation import metrics, score, stats

TEXT = "id,generated\nCXR1,The lungs are clear.\nCXR2,Heart size is normal.\n"
GOOD, ODD = TEXT.encode(), "\x1b[31m\u202e\u2066\x07"
ZST = pa.compress(GOOD, "zstd", asbytes=True)
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
        ".zip": lambda body: zipped(("a.csv", body))}
HURT = [lambda body: body[:-9], lambda body: body[:40], lambda body: b"",
        lambda body: GOOD, lambda body: body[:30] + b"??????" + body[36:],
        lambda body: gzip.compress(body), lambda body: b"<html>"]
TABLES = [
    b"", b"\n\n\n", b"id,generated\n", b"id\nCXR1\n", b"a,b\nc,d\n",
    TEXT.encode("utf-16"), TEXT.encode("utf-16-le"), GOOD + b"CXR3,\xfc\n",
    bytes(9999), b"id,generated\nCXR\x001,x\n", GOOD + b"CXR4\n",
    GOOD + b"CXR4,a,b\n", GOOD + b'CXR4,"a\n', gzip.compress(GOOD),
    *(GOOD.replace(b",", sign) for sign in (b";", b"\t", b"|")),
    b"id,generated,generated\nCXR1,a,b\n", b"id,generated,ID\nCXR1,a,b\n",
    GOOD + b"CXR1,x\n", b",".join([b"c"] * 10**5) + b"\n" + b"," * 99999,
    b"id,generated\nCXR1," + b"x" * 200_000, f"{ODD},b\nc,d\n".encode(),
    f"id,generated\n{ODD},b\n".encode(), b"id,generated\nCXR99999,y\n",
    b"id,generated\nCXR3,x\n", b"\x89PNG\r\n\x1a\n\x00\xff"]
CASES = [
    "", "{", "[]", "{}", "null", "3", '"x"', "NaN", '[{"id": "CXR1"}]',
    '{"CXR1": "x"}', '{"CXR1": null}', '{"CXR1": {}}', '{"CXR1": []}',
    "[" * 10**5, '{"CXR1": {"a": ' * 9999, "9" * 9999,
    '{"CXR1": {"report": "a"}, "CXR1": {"report": "b"}}',
    '{"CXR1": {"report": "a", "report": "b"}}',
    '{"\\ud800": {"report": "a"}}'] + [
    f'{{"CXR1": {{"prediction": "a"}}, "CXR2": {{"prediction": {odd}}}}}'
    for odd in ("null", "0", "1.5", "true", "[]", '["a", "b"]', "{}", "NaN",
                '{"findings": "x"}')] + [
    f'{{"CXR2": {{"prediction": "a", "reference": {odd}}}}}'
    for odd in ("0", '["a"]', "{}")]
#: Name of a file -> content that is refused.
BAD = {f"{i}.csv{end}": hurt(pack(GOOD)) for i, hurt in enumerate(HURT)
       for end, pack in PACK.items()} | {
    f"{i}.csv": body for i, body in enumerate(TABLES)} | {
    f"{i}.json": body.encode() for i, body in enumerate(CASES)} | {
    "bomb.csv.gz": gzip.compress(bytes(score.LARGEST + 9), 1),
    "two.csv.zip": zipped(("a", GOOD), ("b", GOOD)), "no.csv.zip": zipped(),
    "a.csv.zst": GOOD, "b.csv.zst": ZST[:-9], ODD + ".csv": b"a,b\n",
    "a\n  Do:   rm": b"x\n"}
#: Name of a file -> content that says what `GOOD` says.
ALIKE = {f"a.csv{end}": pack(GOOD) for end, pack in PACK.items()} | {
    f"{i}.csv": text.encode() for i, text in enumerate((
        "\ufeff" + TEXT, TEXT.replace("\n", "\r\n"), f"\n{TEXT}\n", TEXT[:-1],
        TEXT.replace("id,generated", " ID , Generated "),
        TEXT.replace("id,generated", "\ufeff\ufeffStudy ID,PREDICTION"),
        TEXT.replace(".\n", ".,\n").replace("generated", "generated,"),
        TEXT.replace("CXR1", '"CXR1"')))} | {"a.csv.zst": ZST} | {
    f"a.json{end}": pack(b"""{"CXR1": {"prediction": "The lungs are clear."},
        "CXR2": {"prediction": "Heart size is normal.", "id": 5,
        "reference": null}}""") for end, pack in (PACK | {"": bytes}).items()}
LONG = {
    "words": " ".join(f"w{i}" for i in range(17_000)), "letters": "a" * 10**5,
    "blanks": "a" + " " * 10**5 + "b", "breaks": "a" + "\n" * 10**5 + "b",
    "mixed": "a." + " \n\t" * 33_000 + "b", "loops": "no scar. " * 11_000,
    "impressions": "impression " * 9_000, "colons": "impression" + " " * 10**5,
    "signs": ". " * 50_000, "commas": "no, " * 25_000}
pytestmark = pytest.mark.usefixtures("no_java")


def refused(path, capsys, *options):
    began = time.monotonic()
    assert main(["score", str(path), *options]) == 1
    shown = capsys.readouterr().err
    assert all(shown.count(f"\n  {part}") == 1
               for part in ("What: ", "Why:  ", "Do:   "))
    assert not {*ODD[:1], *ODD[5:]} & {*shown}
    assert time.monotonic() - began < 9
    return shown


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_refused(name, tmp_path, capsys):
    (tmp_path / name).write_bytes(BAD[name])
    shown = refused(tmp_path / name, capsys)
    assert "CXR2" in shown or b'"CXR2": {' not in BAD[name]  # the study


@pytest.mark.parametrize("name", ALIKE)
def test_a_file_that_says_the_same(name, tmp_path):
    (tmp_path / name).write_bytes(ALIKE[name])
    table = score.read_predictions(tmp_path / name)[0]
    assert table[["study_id", "generated"]].to_numpy().tolist() == [
        line.split(",") for line in TEXT.splitlines()[1:]]


@pytest.mark.parametrize("path", [
    "/dev/zero", "/dev/null", "/dev/random", "/", ".", "..", "nowhere",
    "a" * 300, ODD, "/dev/stdin", "/dev/fd/99", "empty", "full"])
def test_what_is_no_file_is_not_waited_for(path, tmp_path, capsys):
    if path in ("empty", "full"):
        os.mkfifo(pipe := tmp_path / "pipe")
        end = os.open(pipe, os.O_RDWR)
        path = pipe if path == "empty" else f"/dev/fd/{end}"
        os.write(end, GOOD)
    refused(path, capsys)


@pytest.mark.parametrize("samples", ["0", "-1", "1000000000"])
def test_a_bootstrap_of_no_size(samples, tmp_path, capsys):
    (tmp_path / "a.csv").write_bytes(GOOD)
    refused(tmp_path / "a.csv", capsys, "--samples", samples)


@pytest.mark.parametrize("name", [
    "random report", "constant by BLEU-4", "constant by ROUGE-L",
    "constant by me.csv", "ceiling: true labels", "medoid report", "image",
    "a constant by.csv", "n", "value", "system", ODD, "{n}.csv", "-", "--"])
def test_any_name_is_a_name(name, tmp_path, monkeypatch):
    monkeypatch.setattr(score.baselines, "constants", lambda: {
        "constant by a": "a", "constant by b": "b"})
    ids = reports.r2gen_split().query("split == 'test'")["study_id"][200:204]
    lines = [f"{i},Old scar {i}.{ODD}" for i in ids]
    (tmp_path / name).write_text("\n".join(["id,generated", *lines]), "utf-8")
    scored = score.score_file(tmp_path / name, n_samples=9)
    images = scored["rows"].groupby("system")["images"].agg(set)
    assert len(images) == 4 and images[scored["file"]] == {"not known"}
    shown = score.as_text(scored) + score.as_json(scored)
    assert not {*ODD[:1], *ODD[5:]} & {*shown}


@pytest.mark.parametrize("odd", [["a", "b"], ("a",), {"a": 1}, np.array([1])])
def test_tokens_are_no_text(odd):
    with pytest.raises(TypeError, match="a report is a text"):
        metrics.score_reports(["a b"], [odd])


@pytest.mark.parametrize("text", LONG)
def test_long_texts_take_seconds(text, tmp_path):
    began, other = time.process_time(), LONG["words"][::-1]
    (tmp_path / "a.json").write_text(json.dumps({"x": {
        "prediction": LONG[text], "reference": other + LONG[text]}}), "utf-8")
    assert len(score.score_file(tmp_path / "a.json", n_samples=9)["rows"])
    assert time.process_time() - began < 10


@pytest.mark.parametrize("change", [
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "de_DE", "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}])
def test_numbers_hang_on_no_locale(change, tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD.replace(b"clear", "klär".encode()))
    command = [sys.executable, "-m", "llamaxr_utils", "score", "--json",
               "--samples", "9", str(tmp_path / "a.csv")]
    there = subprocess.run(command, stdout=-1, check=True, env={
        **os.environ, "PATH": "", **change}).stdout.decode("ascii")
    scored = score.score_file(tmp_path / "a.csv", n_samples=9)
    assert there == score.as_json(scored) + "\n" and "NaN" not in there


def test_a_bootstrap_in_pieces_is_the_same(monkeypatch):
    rows = np.random.default_rng(1).random((7, 3))
    whole = stats.bootstrap_interval(rows, n_samples=99)
    monkeypatch.setattr(stats, "DRAWN", 70)
    pieces = stats.bootstrap_interval(rows, n_samples=99)
    for name, values in whole.items():
        assert pieces[name] == pytest.approx(values, abs=1e-14)
