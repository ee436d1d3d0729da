"""The commands: ``python -m llamaxr_utils course | score | report`` ...

Only reads the command line; the work is done by the functions it calls.
"""

from __future__ import annotations

import argparse
import sys

from .course.errors import CourseError


def _course(options: argparse.Namespace) -> int:
    from .course.runner import run_course

    run_course(
        options.profile,
        options.images,
        options.first,
        options.last,
        options.force,
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    from .studies.check import run_check

    return 0 if run_check(options.profile, options.images) else 1


def _score(options: argparse.Namespace) -> int:
    from .evaluation.score import as_text, check_output, score_file, write

    check_output(options.json, options.file, options.against)
    scored = score_file(
        options.file,
        options.against,
        options.references,
        options.samples,
        say=lambda text: print(f"  {text} ...", file=sys.stderr),
    )
    if options.json:
        write(scored, options.json)
    print(as_text(scored))
    return 0


def _fetch_openi(options: argparse.Namespace) -> int:
    from .datasets import downloads

    if not ((options.studies or 0) > 0 or options.all or options.origin):
        raise CourseError(
            "It is not said how many images to fetch.",
            "All 7,470 are 1.4 GB; the images of 100 studies about 50 MB.",
            "Add --studies N or --all.",
        )
    studies = None if options.all else options.studies
    missing = downloads.fetch_xrays(studies, options.mirror, options.origin)
    print(downloads.summary(downloads.wanted_images(studies), missing))
    print(f"They lie in {downloads.home()}; choose them with IMAGES=real.")
    return 1 if missing else 0


def _fetch(options: argparse.Namespace) -> int:
    if options.name == "openi":
        return _fetch_openi(options)
    from .datasets import downloads

    origin = options.origin or options.mirror
    if options.name == "smollm2-135m":
        from .llm import models

        print(models.fetch_smollm2(origin))
        print("Use it: make course PROFILE=laptop")
        return 0
    path = downloads.fetch(options.name, origin)
    if options.name in downloads.SOURCES:
        print(f"{path}  ({downloads.SOURCES[options.name].licence})")
        print(f"Score it: python -m llamaxr_utils score {path}")
        return 0
    downloads.state_dict(options.name)  # read once, kept safe
    print(f'{path}\nUse it: BACKBONE = "{options.name}" in notebook 02.')
    return 0


def _report(options: argparse.Namespace) -> int:
    from .studies.report import as_text, write_draft, write_page

    paths = {"frontal": options.frontal, "lateral": options.lateral}
    draft = write_draft(paths, options.profile, options.images)
    if options.text or not options.html:
        print(as_text(draft))
    if options.html:
        write_page(draft, options.html)
        print(f"{options.html} is written.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llamaxr_utils",
        description="The LLaMA-XR course. For research and teaching, not "
        "for diagnosis.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    course = commands.add_parser("course", help="run the notebooks in order")
    course.add_argument("--profile", default="cpu")
    course.add_argument("--images", help="phantom or real")
    course.add_argument("--from", dest="first", metavar="NN")
    course.add_argument("--to", dest="last", metavar="NN")
    course.add_argument("--force", action="store_true", help="skip nothing")
    course.set_defaults(command=_course)

    check = commands.add_parser(
        "check", help="does this machine have what a profile asks for?"
    )
    check.add_argument("--profile", default="cpu")
    check.add_argument("--images", help="phantom or real")
    check.set_defaults(command=_check)

    score = commands.add_parser(
        "score",
        help="score generated IU X-ray reports",
        description="A CSV with the columns id (CXR3030), generated and, if "
        "you like, reference: both protocols with 95 % intervals, clinical "
        "scores, baselines, distinct reports. It takes a minute.",
    )
    score.add_argument("file", help="predictions.csv")
    score.add_argument("--against", metavar="FILE", help="paired test")
    score.add_argument(
        "--references",
        choices=("column", "wheel"),
        help="the file's column (the default where there is one), or the "
        "findings in torchxrayvision's wheel, by id",
    )
    score.add_argument("--json", metavar="FILE")
    score.add_argument(
        "--samples", type=int, default=1000, help="of bootstrap and test"
    )
    score.set_defaults(command=_score)

    fetch = commands.add_parser(
        "fetch", help="get X-rays, weights or predictions, checked"
    )
    fetch.add_argument(
        "name", help="openi, densenet121-res224-all ..., smollm2-135m or "
        "cvt2distilgpt2"
    )
    number = fetch.add_mutually_exclusive_group()
    number.add_argument("--studies", type=int, metavar="N")
    number.add_argument("--all", action="store_true", help="all of openi")
    place = fetch.add_mutually_exclusive_group()
    place.add_argument("--from", dest="origin", default="", metavar="FILE")
    place.add_argument("--mirror", default="", metavar="URL")
    fetch.set_defaults(command=_fetch)

    report = commands.add_parser(
        "report",
        help="draft a report of one or two images",
        description="Scores, draft report and caveats by the models of a "
        "run (make course). For research and teaching, not for diagnosis.",
    )
    report.add_argument("frontal", help="frontal.png")
    report.add_argument("lateral", nargs="?", help="lateral.png")
    report.add_argument("--profile", default="cpu")
    report.add_argument("--images", help="phantom or real: which run writes")
    report.add_argument("--html", metavar="FILE", help="a page with heatmaps")
    report.add_argument(
        "--text", action="store_true", help="print it (the default alone)"
    )
    report.set_defaults(command=_report)

    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nStopped. What was finished is kept; the same command "
            "continues with the notebook that was running.",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
