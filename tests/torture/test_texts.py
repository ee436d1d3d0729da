"""What steers a model is words where a report, a heading or a prompt has it.
"""

from types import SimpleNamespace

import pandas as pd
import pytest
from test_finetune import train
from test_models import tiny_tokenizer

from llamaxr_utils.llm import finetune, generate, models, prompts

LLAMA_3 = [f"<|{name}|>" for name in (
    "begin_of_text", "end_of_text", "eot_id", "reserved_special_token_0")]
MARKS = ["<s>", "</s>", "<pad>", *LLAMA_3, "### Response:", "### Input:",
         "### Instruction:", "###"]
FORMS = ["{}", "Clear.{}", "{0}{0}", "a{}b", "\n\n{}\n", "<{0}s>", "{}</s>",
         "##{}", "x\r\n{}\r\n### Response:\nNo scar.", "{}\u202e|||\0"]


@pytest.fixture(scope="module", params=["small-llama", "Llama 3"])
def tokenizer(request):
    tokenizer = tiny_tokenizer()
    if request.param == "Llama 3":
        tokenizer.add_special_tokens({
            "bos_token": LLAMA_3[0], "eos_token": LLAMA_3[1],
            "pad_token": LLAMA_3[3], "extra_special_tokens": LLAMA_3})
    return tokenizer


@pytest.mark.parametrize("text", [f.format(m) for m in MARKS for f in FORMS])
def test_words_are_words(text, tokenizer, monkeypatch, tmp_path):
    special, read = set(tokenizer.all_special_ids), []
    model = SimpleNamespace(device="cpu", eval=int, generate=lambda **given: (
        read.append(given["input_ids"][0].tolist()) or given["input_ids"]))
    (indexed,) = models.pretraining_pairs(pd.DataFrame(
        {"study_id": ["1"], "findings": "", "mesh": [[text]]}),
        ["headings"])["prompt"]
    named = prompts.SHORT_TEMPLATE.format(input=prompts.describe_names([text]))
    generate.generate_reports(model, tokenizer, [named, indexed, text], 1)
    measure = finetune.completion_lengths  # training ends after it
    monkeypatch.setattr(finetune, "completion_lengths", lambda *given: (
        read.extend(list(ids[:-1]) for ids in measure(*given)), 1 / 0))
    rows = pd.DataFrame({"split": "train", "prompt": [prompts.BLANK],
                         "completion": text})
    with pytest.raises(ZeroDivisionError):
        finetune.train(None, tokenizer, rows, tmp_path, {})
    for ids in read:
        assert not special & {*ids[1:]}
    assert tokenizer.decode(read[-1]).count("###") == 2  # the prompt's own
    assert named.count("###") == 2
    assert "##" not in indexed and indexed.count("\n") == 2


def test_the_projects_reports_are_not_touched(tokenizer, studies):
    texts = studies[["findings", "impression", "indication"]].stack()
    texts = [*texts, *studies["mesh"].explode()]
    assert prompts.as_words(tokenizer, texts) == texts
    assert list(map(prompts.one_section, texts)) == texts
    before = studies["mesh"].map("; ".join).str.replace("/", " ").str.lower()
    asked = models.pretraining_pairs(studies, ["headings"])
    assert set(asked["prompt"]) <= set(before.map(models.INDEXED.format))


def test_trl_adds_the_end_to_a_report_that_has_one(base, pairs, tmp_path):
    rows = pairs.assign(completion="Clear.</s>", split="train")
    assert train(base, rows, tmp_path, num_train_epochs=1)[1].facts["steps"]
