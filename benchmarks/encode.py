"""The encoder in use: ours and the exported code beside `transformers`' MPNet, tokens a second.

    python benchmarks/encode.py [--short]

MPNet-base with random weights, float32, no gradient; texts of 16, 128 and 512 tokens, half of them
shorter by a quarter and padded. `transformers`' MPNet has no fast attention: it keeps its scores.
All three give the same vectors at real tokens, to 1e-5, or the benchmark ends. They take turns; a
ratio is that of the medians. `--short` measures a small model.
"""
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))   # as the command does
from common import SHORT, medians, report

import torch
from transformers import AutoModel

from annotated_mpnet.configuration import ModelConfig
from annotated_mpnet.huggingface import to_huggingface
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.tokenization import demo_tokenizer

TOKENS = 2048   # of a batch
LENGTHS = (16, 128, 512)
SMALL = dict(encoder_layers=4, encoder_embed_dim=256, encoder_ffn_dim=1024,
             encoder_attention_heads=4)


def exported(model: MPNetForPretraining, with_code: bool) -> torch.nn.Module:
    "What `transformers` loads of a model."
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        to_huggingface(model, folder, demo_tokenizer(), with_code=with_code)
        trust = {"trust_remote_code": True} if with_code else {"add_pooling_layer": False}
        return AutoModel.from_pretrained(folder, **trust).eval()


def texts(vocab: int, length: int) -> dict[str, torch.Tensor]:
    "Random tokens; every second text ends in padding."
    ids = torch.randint(5, vocab - 1, (TOKENS // length, length))
    mask = torch.ones_like(ids)
    mask[1::2, length * 3 // 4:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


@torch.no_grad()
def measured(models: dict[str, Callable], batch: dict[str, torch.Tensor]) -> dict[str, float]:
    "The seconds of each; an end with a line if one gives other vectors than the first."
    real = batch["attention_mask"].bool()
    found = {name: model(**batch)[real] for name, model in models.items()}
    expected = next(iter(found.values()))
    for name, vectors in found.items():
        if (apart := float((vectors - expected).abs().max())) > 1e-5:
            sys.exit(f"{name} is {apart:.1e} from transformers")
    return medians({name: partial(model, **batch) for name, model in models.items()},
                   5 if SHORT else 9)


def main() -> None:
    torch.manual_seed(0)
    size = SMALL if SHORT else {}
    model = MPNetForPretraining(
        ModelConfig(vocab_size=len(demo_tokenizer()), max_positions=512, **size)).eval()
    theirs, code = exported(model, False), exported(model, True)
    models = {
        "transformers, eager": lambda **batch: theirs(**batch).last_hidden_state,
        "encode": model.encode,
        "exported with its code": lambda **batch: code(**batch).last_hidden_state,
    }
    table = []
    for length in LENGTHS:
        batch = texts(model.config.vocab_size, length)
        n, seconds = int(batch["attention_mask"].sum()), measured(models, batch)
        first = next(iter(seconds.values()))
        table += [[name, length, f"{n / s:,.0f}", f"{first / s:.2f}x"]
                  for name, s in seconds.items()]
    what = "the small model" if SHORT else "base"
    report(f"The encoder of {what}, {TOKENS} tokens a batch, an eighth of them padding",
           ["", "tokens of a text", "real tokens/s", "of transformers"], table)


if __name__ == "__main__":
    main()
