"""Hostile inputs and faults, a suite a file: `make torture` runs all of them
and counts; `make test` takes a sample of each kind."""

import os
from collections import Counter

ALL = bool(os.environ.get("LLAMAXR_TORTURE"))
EVERY = 25  #: of each parametrized test, one case in so many is the sample
TRIED: Counter[str] = Counter()
MISHANDLED: Counter[str] = Counter()


def pytest_collection_modifyitems(config, items):
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        here = "torture" in item.path.parts
        place = seen[item.nodeid.split("[")[0]]
        seen[item.nodeid.split("[")[0]] += 1
        if ALL or not here or place % EVERY == 0:
            kept.append(item)
    items[:] = kept


def pytest_runtest_logreport(report):
    suite = report.location[0]
    if "torture" in suite and (report.when == "call" or report.failed):
        TRIED[suite] += 1
        MISHANDLED[suite] += report.failed


def pytest_terminal_summary(terminalreporter):
    for suite in sorted(TRIED):
        name = suite.split("test_")[-1].removesuffix(".py")
        terminalreporter.write_line(
            f"{name:12} tried {TRIED[suite]:4}, "
            f"mishandled {MISHANDLED[suite]}")
    if TRIED:
        terminalreporter.write_line(
            f"{'all':12} tried {TRIED.total():4}, "
            f"mishandled {MISHANDLED.total()}")
