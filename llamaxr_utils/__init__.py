"""Helpers of the LLaMA-XR course: thin functions behind the notebooks.

Importing the package is light; torch and transformers are imported inside
the functions that need them. For research and teaching, not for diagnosis.
"""

from .course.torch_setup import prepare

__version__ = "0.1.0"
prepare()
