"""Numbers in the lessons' prose, and limits in comments and help, are those that the code gives."""
import re
from functools import cache

import lessons
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotated_mpnet.arguments import NOT_HERE, OTHER_NAMES, meant, spellings, tidy
from annotated_mpnet.configuration import FIELDS, ModelConfig, PretrainConfig, UserError
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.positions import bucket_starts
from annotated_mpnet.tokenization import demo_tokenizer

LONGEST = 512  # tokens of a sequence, in the examples of many lessons
PREDICTED = [rf"\b(\d\d+) of (?:its )?{LONGEST}\b", rf"{LONGEST} \+ 2 \* (\d+)",
             r"\b(\d+) (?:of them |tokens )?predicted\b"]


@cache
def paragraphs() -> list[tuple[str, str]]: # where, text
    "Every paragraph of the lessons, code and prose, and of the pages beside them."
    found = []
    for path in sorted(lessons.NBS.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            where = f"{path.name}, cell {cell.id}"
            found += [(where, part) for part in cell.source.split("\n\n")]
    for path in sorted((lessons.ROOT / "docs").glob("*.md")):
        found += [(path.name, part) for part in path.read_text(encoding="utf-8").split("\n\n")]
    return found


def stated(*patterns: str, beside: str = "") -> list[tuple[str, str]]: # where, what was said
    "What the patterns' group holds, in every paragraph that also holds `beside`."
    return [(where, said) for where, text in paragraphs() if beside in text
            for pattern in patterns for said in re.findall(pattern, text)]


def test_lessons_say_how_many_of_512_tokens_are_predicted():
    tokenizer = demo_tokenizer()
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [start] + tokenizer("the")["input_ids"][1:-1] * (LONGEST - 2) + [end]
    batch = MaskedPermutedCollator(tokenizer)([{"input_ids": ids}])
    said = stated(*PREDICTED, beside=str(LONGEST))
    assert len(said) >= 4
    assert {(where, int(n)) for where, n in said} == {(where, batch["pred_size"])
                                                      for where, _ in said}


def test_lessons_say_where_the_last_bucket_begins():
    said = stated(r"last bucket[^.]*? begins at (\d+)")
    assert len(said) >= 2
    assert {int(n) for _, n in said} == {bucket_starts(32, 128)[-1]}
    wrong = stated(r"(from \d+ on,? (?:all )?shar\w+|[Ff]rom \d+ on share one)")
    assert not wrong, "the last bucket begins before the largest distance"


@given(st.integers(2, 40).map(lambda half: 2 * half), st.integers(1, 3000))
def test_the_last_bucket_has_begun_by_the_largest_distance(buckets, beyond):
    starts = bucket_starts(buckets, buckets // 4 + beyond)
    assert starts == sorted(starts) and starts[-1] <= buckets // 4 + beyond


def accepts(make) -> bool:
    try:
        make()
    except UserError:
        return False
    return True


def test_the_number_of_buckets_is_checked_as_it_is_described():
    for n in range(1, 80):
        right = n % 2 == 0 and n >= 4
        assert accepts(lambda: bucket_starts(n, 128)) == right, n
        make = lambda: ModelConfig(12, relative_attention_num_buckets=n)
        assert accepts(make) == right, n
    said = stated(r"buckets`?:? (?:is |must be |, |: )?(?:an )?(multiple of \d+|even)",
                  r"how many buckets[:,] (?:a )?(multiple of \d+|even)")
    assert len(said) >= 4 and {what for _, what in said} == {"even"}
    help_ = FIELDS["relative_attention_num_buckets"].metadata
    assert "even" in str(help_) and "at least 4" in str(help_)


# What people bring along from transformers, fairseq and other programs

LIKELY = {
    "--learning-rate": "--lr", "--learning_rate": "--lr", "--max-lr": "--lr",
    "--epochs": "--total-updates", "--num-train-epochs": "--total-updates",
    "--max-steps": "--total-updates", "--steps": "--total-updates",
    "--output-dir": "--checkpoint-dir", "--output_dir": "--checkpoint-dir",
    "--per-device-train-batch-size": "--batch-size",
    "--gradient-accumulation-steps": "--update-freq", "--warmup": "--warmup-updates",
    "--num-warmup-steps": "--warmup-updates", "--max-seq-length": "--max-tokens",
    "--sequence-length": "--max-tokens", "--gradient-clipping": "--clip-grad-norm",
    "--lr-scheduler-type": "--power", "--report-to": "--wandb", "--fp16": "--precision",
    "--amp": "--precision", "--save-every": "--checkpoint-interval",
    "--eval-every": "--eval-interval-steps", "--log-every": "--logging-steps",
    "--model": "--hf-model-path", "--resume-from-checkpoint": "--resume-checkpoint",
    "--mlm-probability": "--pred-prob", "--d-model": "--encoder-embed-dim",
}


@pytest.mark.parametrize("name", LIKELY)
def test_a_name_from_elsewhere_leads_to_ours(name):
    with pytest.raises(UserError) as refused:
        tidy([name, "1"])
    assert str(refused.value) == f"unknown argument {name!r}; did you mean {LIKELY[name]}?"


def test_every_name_from_elsewhere_is_refused_with_its_hint_or_none():
    known = list(spellings().values())
    for field, others in OTHER_NAMES.items():
        assert hasattr(PretrainConfig, field)
        for name in others.split():
            for written in (f"--{name}", "--" + name.replace("-", "_")):
                assert meant(written, known) == meant(f"--{others.split()[0]}", known) != ""
                assert not accepts(lambda: tidy([written]))
    for name in NOT_HERE.split():
        assert meant(f"--{name}", known) == ""
