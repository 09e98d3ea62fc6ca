"""Collating: from arrays of token ids to a masked and permuted batch, on one core.

    python benchmarks/collate.py [--short]

The goal is 3 million tokens a second, counted in T (a row of 512 tokens counts 512, without its
mask copies), and the seconds are CPU seconds.
"""
import time

from common import SHORT, long_documents, medians, report

import numpy as np
import torch

from annotated_mpnet.permutation import MaskedPermutedCollator, draw_uniforms
from annotated_mpnet.tokenization import demo_tokenizer, tokenize

BATCH, LENGTH, GOAL = 16, 512, 3e6


def make_rows(tokenizer) -> np.ndarray: # (at most 4 * BATCH, LENGTH)
    "Rows of token ids without padding."
    inside = LENGTH - 2
    documents = tokenize(tokenizer, long_documents()[:200], 2000)
    ids = np.concatenate([np.asarray(document[1:-1]) for document in documents])
    rows = ids[:len(ids) // inside * inside].reshape(-1, inside)[:4 * BATCH]
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    first, last = (np.full((len(rows), 1), token) for token in ends)
    return np.concatenate([first, rows, last], axis=1)


def main():
    "Each objective, and what of its time goes into random numbers."
    torch.set_num_threads(1)
    tokenizer = demo_tokenizer()
    examples = [{"input_ids": row, "sample_id": n, "cycle": 0}
                for n, row in enumerate(make_rows(tokenizer))]
    batches = [examples[BATCH * i:BATCH * (i + 1)] for i in range(len(examples) // BATCH)]
    calls = {}
    for objective in ("mpnet", "mlm", "plm"):
        collator = MaskedPermutedCollator(tokenizer, objective, seed=1)
        calls[objective] = lambda collator=collator: [collator(batch) for batch in batches]
    numbers = [example["sample_id"] for batch in batches for example in batch]
    calls["random numbers alone"] = lambda: [draw_uniforms(1, 0, n, LENGTH) for n in numbers]
    seconds = medians(calls, 15 if SHORT else 101, clock=time.process_time)
    rows = []
    for name, s in seconds.items():
        speed = len(batches) * BATCH * LENGTH / s
        ms = 1000 * s / len(batches)
        rows.append([name, f"{ms:.2f}", f"{speed / 1e6:.2f}", f"{speed / GOAL:.2f}x"])
    report(f"Collating {BATCH} x {LENGTH} tokens from arrays of ids, one core",
           ["", "ms a batch", "million tokens/s", "of the goal"], rows)


if __name__ == "__main__":
    main()
