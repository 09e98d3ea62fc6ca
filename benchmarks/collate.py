"""Collating: from arrays of token ids to a masked and permuted batch, on one core.

    python benchmarks/collate.py [--short]

The goal is 3 million tokens a second, counted in T (a row of 512 tokens counts 512, without its mask copies).
"""
from common import SHORT, long_documents, medians, report

import numpy as np
import torch

from annotated_mpnet.permutation import MaskedPermutedCollator, draw_uniforms
from annotated_mpnet.tokenization import demo_tokenizer, tokenize

BATCH, LENGTH, GOAL = 16, 512, 3e6


def main():
    "Each objective, and what of its time goes into random numbers."
    torch.set_num_threads(1)
    tokenizer = demo_tokenizer()
    ids = np.concatenate([np.asarray(x[1:-1]) for x in tokenize(tokenizer, long_documents()[:200], 2000)])
    rows = ids[:len(ids) // (LENGTH - 2) * (LENGTH - 2)].reshape(-1, LENGTH - 2)[:4 * BATCH]
    ends = np.broadcast_to([[tokenizer.bos_token_id], [tokenizer.eos_token_id]], (2, len(rows)))[..., None]
    rows = np.concatenate([ends[0], rows, ends[1]], axis=1)
    batches = [[{"input_ids": row, "sample_id": BATCH * i + j, "cycle": 0} for j, row in enumerate(rows[BATCH * i:BATCH * (i + 1)])]
               for i in range(len(rows) // BATCH)]
    calls = {}
    for objective in ("mpnet", "mlm", "plm"):
        collator = MaskedPermutedCollator(tokenizer, objective, seed=1)
        calls[objective] = lambda collator=collator: [collator(examples) for examples in batches]
    calls["random numbers alone"] = lambda: [draw_uniforms(1, 0, e["sample_id"], LENGTH) for examples in batches for e in examples]
    seconds = medians(calls, 15 if SHORT else 101)
    tokens = len(batches) * BATCH * LENGTH
    report(f"Collating {BATCH} x {LENGTH} tokens from arrays of ids, one core",
           ["", "ms a batch", "million tokens/s", "of the goal"],
           [[name, f"{1000 * s / len(batches):.2f}", f"{tokens / s / 1e6:.2f}", f"{tokens / s / GOAL:.2f}x"] for name, s in seconds.items()])


if __name__ == "__main__": main()
