"""Helpers of the LLaMA-XR course: thin functions behind the notebooks.

Six folders, each importing only from those before it: `course` (runs, files,
pictures), `datasets`, `vision` and `llm`, `evaluation`, `studies`; and
`exercises`. Importing is light: torch and transformers are imported inside
the functions that need them. For research and teaching, not for diagnosis.
"""

from importlib import import_module

from .course.machine import prepare

__version__ = "0.1.0"
prepare()
#: ``from llamaxr_utils import metrics`` and the like, imported when asked for.
_WINGS = {
    "reports": "datasets", "conditions": "datasets", "features": "vision",
    "prompts": "llm", "generate": "llm", "metrics": "evaluation",
    "findings": "evaluation", "grounding": "studies"}


def __getattr__(name: str):
    if name in _WINGS:
        return import_module(f".{_WINGS[name]}.{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
