"""The commands: ``python -m llamaxr_utils course | tidy | score | fetch``.

Only reads the command line; the work is done by the functions it calls.
"""

from __future__ import annotations

import argparse
import sys

from .errors import CourseError


def _course(options: argparse.Namespace) -> int:
    from .course import run_course

    run_course(
        options.profile,
        options.images,
        options.first,
        options.last,
        options.force,
    )
    return 0


def _tidy(options: argparse.Namespace) -> int:
    from .pageform import problems
    from .pages import read, tidy
    from .run import project_folder

    found = 0
    for path in sorted((project_folder() / "notebooks").glob("*.ipynb")):
        print(f"{path.name}: {'tidied' if tidy(path) else 'tidy'}")
        for problem in problems(read(path), path.stem):
            found += 1
            print(f"  {problem}")
    return 1 if found else 0


def _score(options: argparse.Namespace) -> int:
    from .score import score_file
    from .scorecard import as_text, check_output, write

    for out in (options.json, options.markdown):
        check_output(out, options.file, options.against)
    found = score_file(
        options.file,
        options.against,
        options.references,
        options.samples,
        say=lambda text: print(f"  {text} ...", file=sys.stderr),
    )
    write(found, options.json, options.markdown)
    print(as_text(found))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from .downloads import SOURCES, fetch
    from .run import cache_folder

    origin = options.origin or options.mirror
    path = fetch(options.name, cache_folder(), origin)
    print(f"{path}  ({SOURCES[options.name].licence})")
    print(f"Score it: python -m llamaxr_utils score {path}")
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

    tidy = commands.add_parser("tidy", help="strip and check the notebooks")
    tidy.set_defaults(command=_tidy)

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
    score.add_argument("--markdown", metavar="FILE")
    score.add_argument(
        "--samples", type=int, default=1000, help="of bootstrap and test"
    )
    score.set_defaults(command=_score)

    fetch = commands.add_parser(
        "fetch", help="get published predictions, checked"
    )
    fetch.add_argument("name", help="cvt2distilgpt2")
    place = fetch.add_mutually_exclusive_group()
    place.add_argument("--from", dest="origin", default="", metavar="FILE")
    place.add_argument("--mirror", default="", metavar="URL")
    fetch.set_defaults(command=_fetch)

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
