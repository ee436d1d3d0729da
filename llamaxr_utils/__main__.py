"""The commands: ``python -m llamaxr_utils course | score | report`` ...

Only reads the command line; the work is done by the functions it calls.
"""

import argparse
import io
import logging
import sys
from pathlib import Path

from .course.errors import CourseError, printable

#: Options of any command that name what it reads and what it writes.
READS = ("file", "folder", "frontal", "grid", "lateral")
WRITES = ("csv", "html", "write_rexrank")


def _course(o: argparse.Namespace) -> bool:
    from .course.runner import run_course, shown
    from .studies.report import write_index

    run_course(o.profile, o.images, o.first, o.last, o.force)
    if results := write_index(o.profile, o.images):
        page, numbers = results
        for name, number, meaning in numbers.to_numpy():
            print(f"{name:14} {number:.3f}  {meaning}")
        rebuilt = page.with_name("reproduction.html")
        print(f"Results: {shown(page)}.", f"The paper: {shown(rebuilt)}."
              if rebuilt.is_file() else "Next: make study (08 to 11).")
    return True


def _check(o: argparse.Namespace) -> bool:
    from .studies.check import run_check

    return run_check(o.profile, o.images)


def _score(o: argparse.Namespace) -> bool:
    from .evaluation import score

    if o.write_rexrank:
        score.write_rexrank(o.write_rexrank, score.read_predictions(o.file)[0])
    scored = score.score_file(o.file, o.samples, radeval=o.radeval)
    print(score.as_json(scored) if o.json else score.as_text(scored))
    return True


def _fetch(o: argparse.Namespace) -> bool:
    from .datasets import downloads
    from .llm.models import fetch_smollm2
    from .vision import backbones

    origin = o.origin or o.mirror
    if o.name == "openi":
        missing = downloads.fetch_xrays(o.mirror, o.origin)
        print(f"Missing: {len(missing):,} images. {downloads.LICENCE}")
        print(f"They lie in {downloads.home()}; choose them: IMAGES=real.")
        return not missing
    if o.name == "smollm2-135m":
        print(f"{fetch_smollm2(origin)}\nUse it: make course PROFILE=laptop")
        return True
    path = downloads.fetch(o.name, origin)
    if source := downloads.SOURCES.get(o.name):
        print(f"{path}  ({source.licence})")
        print(f"Score it: python -m llamaxr_utils score {path}")
    else:
        backbones.load_released()  # read once, kept safe
        print(f'{path}\nUse it: BACKBONE = "{o.name}" in notebook 02.')
    return True


def _report(o: argparse.Namespace) -> bool:
    from .studies.report import as_text, write_draft, write_page

    paths = {"frontal": o.frontal, "lateral": o.lateral}
    draft = write_draft(paths, o.profile, o.images)
    print(printable(as_text(draft)))
    if o.html:
        write_page(draft, o.html)
        print(f"{o.html} is written.")
    return True


def _sweep(o: argparse.Namespace) -> bool:
    from .course import tables
    from .studies import sweep

    rows = sweep.rows(o.grid) if o.report else sweep.sweep(o.grid, o.address)
    if o.csv:
        tables.write_csv(o.csv, rows.drop(columns="change").round(5))
    if "gap" in rows:
        columns = ["point", "run", "seeds", "gap", "gap_from", "gap_to",
                   "f1", "BLEU-4", "CIDEr"]
        print(tables.markdown(sweep.over_seeds(rows)[columns]))
    print(f"{len(rows)} points are finished.")
    return True


def _grade(o: argparse.Namespace) -> bool:
    from .course import grade, tables

    table = grade.grade(o.folder, o.run, o.limit)
    counts = table.groupby("student")["outcome"].value_counts().unstack()
    print(printable(counts.fillna(0).astype(int).to_string()))
    for student, name, *_, note in table[table["note"] != ""].to_numpy():
        print(printable(f"{student} {name}: {note}".replace("\n", " ")))
    tables.write_csv(o.csv, table)
    print(f"{len(table)} rows are in {o.csv}.")
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m llamaxr_utils", description="The LLaMA-XR course. For "
        "research and teaching, not for diagnosis.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(work, about):
        name = work.__name__.removeprefix("_")
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(work=work)
        if work in (_course, _check, _report):
            sub.add_argument("--profile", default="cpu")
            sub.add_argument("--images", help="phantom or real")
        return sub.add_argument

    add = command(_course, "run the notebooks in order")
    add("--from", dest="first", default="01", metavar="NN")
    add("--to", dest="last", default="11", metavar="NN")
    add("--force", action="store_true", help="skip nothing")

    command(_check, "does this machine have what a profile asks for?")

    add = command(_score, "score generated reports: a CSV (id, generated), "
                  "ReXrank's JSON or a run's folder")
    add("file", help="predictions.csv, predictions.json or runs/cpu")
    add("--json", action="store_true", help="all numbers, as JSON")
    add("--samples", type=int, default=1000, help="of the bootstrap")
    add("--radeval", nargs="+", default=(), help="radgraph f1chexbert green")
    add("--write-rexrank", metavar="FILE", help="its JSON of these reports")

    add = command(_fetch, "get X-rays, weights or predictions, once")
    add("name", help="openi, densenet121-res224-all, smollm2-135m or "
        "cvt2distilgpt2")
    add("--from", dest="origin", default="", metavar="FILE")
    add("--mirror", default="", metavar="URL")

    add = command(_report, "draft a report of one or two images")
    add("frontal")
    add("lateral", nargs="?")
    add("--html", metavar="FILE", help="and a page with heatmaps")
    add = command(_sweep, "run the notebooks over a grid of knobs")
    add("grid", help="its YAML file, such as figures/designs.yaml")
    add("--address", default="", help="of a Ray cluster: local, auto ...")
    add("--report", action="store_true", help="only what is finished")
    add("--csv", type=Path, metavar="FILE", help="a row a point and seed")
    add = command(_grade, "one table of what a class has solved")
    add("folder", help="of folders, one a student, of executed notebooks")
    add("--csv", type=Path, default=Path("grades.csv"), metavar="FILE")
    add("--run", action="store_true", help="run them first, all their code")
    add("--limit", type=int, default=600, help="of a cell, in seconds")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a console's own encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        from .course.artifacts import check_outputs

        paths = {name: Path(value) for name, value in vars(options).items()
                 if name in (*READS, *WRITES) and value}
        check_outputs([paths[name] for name in WRITES if name in paths],
                      [paths[name] for name in READS if name in paths])
        return 0 if options.work(options) else 1
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # The task of a kernel that was stopped is nobody's to retrieve.
        logging.getLogger("asyncio").disabled = True
        print("\nStopped. The same command continues.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
