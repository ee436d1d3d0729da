"""The commands: ``python -m llamaxr_utils course | tidy``.

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
