"""Every table and figure of the paper beside what the runs on disk give.

Reads the registry (``figures/README.md``), the records of finished notebooks
and their tables and figures; computes nothing anew but counts, trains
nothing, and puts all of it on one page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from ..course import artifacts, plots, run, tables
from ..course.errors import CourseError
from ..course.run import (
    NOTEBOOKS,
    WARNING,
    Run,
    project_folder,
    read_record,
    runs_folder,
)
from ..datasets.conditions import NATIVE_ORDER
from ..datasets.reports import DATA, load_image_ids, load_studies
from ..evaluation import published
from ..evaluation.cases import PAGES
from ..vision.backbones import RELEASED

TRAINABLE = 41_943_040  #: parameters, by the paper's section 3.5
#: Llama 3.1 8B (its config.json, arXiv 2407.21783): blocks, width, and the
#: seven linear layers of a block as (inputs, outputs).
LAYERS, WIDTH, VOCABULARY = 32, 4096, 128_256
LINEAR = {
    "q": (4096, 4096), "k": (4096, 1024), "v": (4096, 1024),
    "o": (4096, 4096), "gate": (4096, 14336), "up": (4096, 14336),
    "down": (14336, 4096),
}  # fmt: skip
#: Tables of the course with these columns hold numbers of systems, as the
#: artifact ``summary`` does.
SUMMARY = {"system", "protocol", "split", "n", "metric", "value", "low"}
KINDS = (("tables", ".md"), ("tables", ".html"), ("figures", ".png"))
NO_NUMBER = ("figure-2", "figure-3", "figure-4", "table-1", "table-2",
             "table-4", "table-5", "table-6")  # fmt: skip
COLUMNS = ["item", "quantity", "paper", "computed here", "difference",
           "verdict", "why", "from"]  # fmt: skip


def lora_parameters(rank: int) -> int:
    """Trainable parameters of LoRA on the seven linear layers of a block of
    Llama 3.1 8B: rank x (inputs + outputs) each."""
    return LAYERS * rank * sum(a + b for a, b in LINEAR.values())


# --- the registry -----------------------------------------------------------


def registry(path: Path | None = None) -> pd.DataFrame:
    """The table in ``figures/README.md``, one row a paper item: ``item``
    (figure-1), ``title``, ``notebook`` (two digits), ``tag``, ``file`` (in a
    run folder), ``committed`` (in figures/, or ""), ``status``."""
    path = path or project_folder() / "figures" / "README.md"
    text = path.read_text("utf-8") if path.is_file() else ""
    rows = []
    for line in text.splitlines():
        cells = [c.strip().strip("`") for c in line.strip("|").split("|")]
        match = re.match(r"(Figure|Table) (\d+) \((.+)\)$", cells[0])
        if match and len(cells) == 6:
            kind, number, title = match.groups()
            rows.append((f"{kind.lower()}-{number}",
                         f"{kind} {number}: {title}", *cells[1:]))
    if not rows:
        raise CourseError(
            "The registry of paper items was not found.",
            f"It is a table in {path.parent.name}/{path.name}.",
            "Run the notebook inside a clone of the course.",
        )
    table = pd.DataFrame(rows, columns=["item", "title", "notebook", "tag",
                                        "file", "committed", "status"])
    return table.replace({"committed": {"–": ""}})


# --- what is on disk --------------------------------------------------------


class Output(NamedTuple):
    """A table or figure that a finished notebook wrote."""

    run: str
    notebook: str
    name: str  #: ``table-3``
    path: Path  #: the Markdown of a table, the PNG of a figure, a page
    changed: bool  #: not the file that the notebook's record describes


def images_of(name: str) -> str:
    """"phantom" or "real" for the name of a run folder, "" for others."""
    return {run.run_name(profile, images): images
            for profile in run.declared()["profiles"]
            for images in run.IMAGE_SOURCES}.get(name, "")


def _command(name: str, first: str = "", last: str = "") -> str:
    """``make course`` for (a part of) a run."""
    ends = f" FROM={first}" if first else ""
    ends += f" TO={last}" if last else ""
    return f"make course{ends}{artifacts.run_options(Path(name))}"


def runs_on_disk() -> pd.DataFrame:
    """A row a run folder, then one for each profile that has none: ``run``,
    ``images``, ``finished`` and ``missing`` (numbers of notebooks 01 to 10),
    ``do`` (the command for what is missing)."""
    home, rows = runs_folder(), []
    there = sorted(p.name for p in home.glob("*") if images_of(p.name))
    for name in dict.fromkeys([*there, *run.declared()["profiles"]]):
        finished = [n[:2] for n in NOTEBOOKS[:-1]
                    if read_record(home / name, n)]
        missing = [n[:2] for n in NOTEBOOKS[:-1] if n[:2] not in finished]
        # In between, the runner skips what is up to date.
        ends = (missing[0], missing[-1]) if finished and missing else ()
        rows.append((name, images_of(name), " ".join(finished),
                     " ".join(missing),
                     _command(name, *ends) if missing else ""))
    return pd.DataFrame(
        rows, columns=["run", "images", "finished", "missing", "do"]
    )


def outputs(name: str) -> Iterator[Output]:
    """Tables, figures and pages of a run's finished notebooks, in order."""
    folder = runs_folder() / name
    for notebook in NOTEBOOKS[:-1]:
        record = read_record(folder, notebook) or {"outputs": {}}
        for written, recorded in record["outputs"].items():
            path = folder / written
            kind = (path.parent.name, path.suffix)
            if path.is_file() and kind in KINDS:
                other = artifacts.sha256(path) != recorded
                yield Output(name, notebook, path.stem, path, other)


# --- beside the paper -------------------------------------------------------


def _counted() -> Iterator[tuple]:
    """What can be counted or multiplied, whatever was run."""
    for item, what, paper, value, where in (
        ("figure-1", "trainable parameters", TRAINABLE, lora_parameters(16),
         "Llama 3.1 8B, rank 16 on seven layers a block"),
        ("table-2", "reports", 3955, len(load_studies()), "the reports"),
        ("table-2", "images", 7470, len(load_image_ids()), "the reports"),
    ):
        word = "reproduced" if paper == value else "differs"
        yield (item, what, paper, value, value - paper, word,
               "counted, exact", where)
    quoted = published.published_results().set_index("system")
    claim, rest = quoted.loc["LLaMA-XR"], quoted.drop(index="LLaMA-XR")
    for metric, printed in (("ROUGE-L", 4.34), ("METEOR", 54.13)):
        gain = 100 * (claim[metric] / rest[metric].max() - 1)
        why = "right as a division, but of two protocols, llamaxr and r2gen"
        yield ("table-3", f"gain in {metric}, %", printed, gain, None,
               "not comparable", why, "the paper's rows")


def _artifact(name: str, artifact: str) -> pd.DataFrame | None:
    """A table of a run, None if it is missing, damaged or out of date.
    Inputs that were not brought along (an adapter left on Colab) are no
    objection; inputs that are there must be the recorded ones."""
    folder = runs_folder() / name
    record = artifacts.manifest(folder, artifact)
    path = artifacts.path_of(folder, artifact)
    if record is None or artifacts.sha256(path) != record["sha256"]:
        return None
    for source, recorded in record["inputs"].items():
        other = artifacts.path_of(folder, source)
        if other.exists() and artifacts.sha256(other) != recorded:
            return None
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    return read(path)


def _summaries(name: str) -> Iterator[pd.DataFrame]:
    """Numbers of systems that a run holds, in the columns of `SUMMARY`."""
    summary = _artifact(name, "summary")
    if summary is not None:
        yield summary
    for output in outputs(name):
        csv = output.path.with_suffix(".csv")
        if csv.is_file() and not output.changed:
            table = pd.read_csv(csv)
            if set(table) >= SUMMARY:
                yield table


def _measured(name: str, split: str | None) -> Iterator[tuple]:
    """Rows of Table 3 that a run has numbers for; always the paper's own."""
    record = artifacts.manifest(runs_folder() / name, "prompts")
    base = (record or {"parameters": {}})["parameters"].get("BASE", "")
    parts = [f"{images_of(name)} images", *([base] if base else [])]
    source = f"{name} ({', '.join(parts)})"
    rows = pd.concat([pd.DataFrame(columns=[*SUMMARY, "images", "note"]),
                      *_summaries(name)]).drop_duplicates()
    public = set(published.published_results()["system"]) & set(rows["system"])
    pairs = [("this run", "LLaMA-XR"), *((s, s) for s in sorted(public))]
    for system, paper in pairs:
        compared = published.compare_with_paper(
            rows, system, paper, paper_split=split,
            command=_command(name, last="06"),
        )
        for row in compared.itertuples(index=False, name=None):
            metric, *_, printed, value, gap, word, why = row
            yield ("table-3", f"{paper}: {metric}", printed, value, gap,
                   word, why, source)
    training = runs_folder() / name / "tables" / "training.csv"
    if training.is_file() and base:
        facts = pd.read_csv(training, index_col=0).iloc[:, 0]
        count = str(facts.get("trainable parameters", "")).replace(",", "")
        if count.isdigit():
            same = base == "llama-3.1-8b"
            gap = int(count) - TRAINABLE if same else None
            word = "differs" if gap else "reproduced"
            yield ("figure-1", "trainable parameters", TRAINABLE,
                   int(count), gap, word if same else "not comparable",
                   "counted in the model" if same else f"the base is {base}",
                   source)


def _golden(names: list[str]) -> tuple:
    """The 36 scores printed in Figure 4, those of study CXR24."""
    what = "36 scores of CXR24, largest difference"
    for name in names:
        scores = _artifact(name, "image_scores")
        if images_of(name) != "real" or scores is None:
            continue
        scores = scores[(scores["study_id"] == "CXR24")
                        & (scores["backbone"] == RELEASED)]
        if len(scores) == 2:
            ours = scores.sort_values("view")[list(NATIVE_ORDER)]
            printed = pd.read_csv(DATA / "figure_4_scores.csv")
            gap = abs(ours.to_numpy().T - printed[["first", "second"]])
            largest = float(gap.to_numpy().max())
            word = "reproduced" if largest < 0.001 else "differs"
            why = "reproduced: within 0.001, in the network's own order"
            return ("figure-4", what, 0.0, largest, largest, word, why, name)
    return ("figure-4", what, 0.0, None, None, "not run",
            _command("paper", last="02"), "paper")


def _shown_only(names: list[str], items: pd.DataFrame) -> Iterator[tuple]:
    """Items without a number to compare: shown, or not run."""
    written = {name: {o.name for o in outputs(name)} for name in names}
    for row in items[items["item"].isin(NO_NUMBER)].itertuples():
        where = ", ".join(n for n in names if row.item in written[n])
        why, word = "shown; the paper prints no number", "not comparable"
        if row.item == "table-4":
            why = "shown; the paper's numbers are those of one pair"
        if not where:
            number, word = str(row.notebook), "not run"
            why = _command(names[0], number, number)
        yield (row.item, "shown whole", None, None, None, word, why,
               where or names[0])


def compare(paper_split: str = "unknown") -> pd.DataFrame:
    """Each number of the paper beside ours, for every run on disk: `COLUMNS`,
    by item. `paper_split` ("unknown", "r2gen", "random") is what the paper's
    is taken to be; it published none. The paper's own run always has its
    lines; the tests' run (smoke) only where there is no other."""
    items, runs = registry(), runs_on_disk()
    rows = list(_counted())
    names = list(runs.loc[runs["finished"] != "", "run"])
    names = [n for n in names if not n.startswith("smoke")] or names
    for name in dict.fromkeys([*names, "paper"]):
        rows += _measured(name, None if paper_split == "unknown"
                          else paper_split)
    rows += [_golden(names), *_shown_only(names or ["cpu"], items)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table[COLUMNS[2:5]] = table[COLUMNS[2:5]].astype(float)
    order = {item: i for i, item in enumerate(items["item"])}
    return table.sort_values("item", key=lambda c: c.map(order),
                             kind="stable", ignore_index=True)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`compare` as text: counts without decimals, "–" where nothing is."""
    shown = table.astype({c: object for c in COLUMNS[2:5]})
    for column in COLUMNS[2:5]:
        sign = "+" if column == "difference" else ""
        shown[column] = pd.Series([
            "–" if pd.isna(value) else
            f"{value:{sign},.{3 if paper < 1 else 2 * (paper % 1 != 0)}f}"
            for paper, value in zip(table["paper"], table[column])
        ], dtype=object)  # fmt: skip
    return shown


# --- the page ---------------------------------------------------------------


def _cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table of `tables.markdown`, header first."""
    lines = [li for li in text.splitlines() if li.startswith("|")]
    return [[c.strip().replace("\\|", "|")
             for c in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            for line in lines if not line.startswith("| ---")]


def _shown(output: Output, place: Path) -> dict[str, Any]:
    """What the template shows of an output: a picture, a link or a table."""
    shown: dict[str, Any] = {}
    if output.path.suffix == ".png":
        shown["picture"] = Markup(plots.as_html(output.path))
    elif output.path.suffix == ".html":
        shown["link"] = Path("..") / output.path.relative_to(place.parent)
    else:
        title, _, rest = output.path.read_text("utf-8").partition("\n")
        shown = {"title": title.strip("*"), "rows": _cells(rest)}
        shown["stamp"] = rest.rstrip().splitlines()[-1]
    return shown


def _items(written: list[Output], place: Path) -> Iterator[dict[str, Any]]:
    """Each paper item with every run's version; a quoted table, which is the
    same in all runs, once."""
    for item in registry().to_dict("records"):
        drawn = project_folder() / "figures" / (item["committed"] or "-")
        drawn = drawn.with_suffix(".png")
        picture = plots.as_html(drawn) if drawn.is_file() else ""
        first: dict[str, str] = {}
        versions = []
        for output in (o for o in written if o.name == item["item"]):
            shown = _shown(output, place)
            body = str({k: v for k, v in shown.items() if k != "stamp"})
            shown |= output._asdict() | {"images": images_of(output.run),
                                         "same_as": first.get(body)}
            first.setdefault(body, output.run)
            versions.append(shown)
        yield item | {"drawn": Markup(picture), "outputs": versions}


def page(nb: Run, table: pd.DataFrame) -> str:
    """The whole reproduction on one page: the run of `nb` in full, of other
    runs the paper's items. `table` is of `compare`. No script, font or
    address of another machine; figures embedded with alt text."""
    runs = runs_on_disk()
    others = [r for r in runs["run"] if r != nb.name and r[:5] != "smoke"]
    written = [o for name in [nb.name, *others] for o in outputs(name)]
    titles = list(registry()["item"])
    rest = [o._asdict() | _shown(o, nb.folder) for o in written
            if o.run == nb.name and o.name not in titles]
    return PAGES.get_template("reproduction.html").render(
        run=nb.name, stamp=nb.stamp, warning=WARNING, titles=titles,
        marks=dict(zip(published.VERDICTS, ("✓", "≠", "–", "○"))),
        counts=table["verdict"].value_counts().to_dict(), rest=rest,
        verdicts=_cells(tables.markdown(readable(table))),
        runs=_cells(tables.markdown(runs)),
        items=list(_items(written, nb.folder)),
    )
