"""Training on one rank and on two: tokens a second, and the share of the time of communication.

    python benchmarks/scaling.py [--short]

The same work on each rank (micro-batches of 4 rows of 128 tokens), so two ranks do twice as much.
On a machine with two cores that nobody else uses, the ratio says what the second core brings.
Communication: the time of an update on two ranks, less the time of the same update without an
exchange of gradients and numbers, measured in turn in the same processes.
"""
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

CHILD = "RANK" in os.environ                  # set in the processes that are measured
if not CHILD:
    from common import report

REPEATS, UPDATES, ACCUMULATE = (3, 1, (1, 4)) if "--short" in sys.argv else (9, 3, (1, 2, 8))
MODEL = dict(encoder_layers=2, encoder_embed_dim=256,
             encoder_ffn_dim=1024, encoder_attention_heads=4)


@dataclass
class Measured:
    "What a run found for a number of micro-batches."
    tokens: int       # of an update, on all ranks
    seconds: float    # of an update
    silent: float     # seconds of an update without communication
    parameters: int

    @property
    def speed(self) -> float: # tokens a second
        return self.tokens / self.seconds


def make_batches(tokenizer) -> list[dict]:
    "Eight micro-batches of 4 rows of 128 tokens."
    from annotated_mpnet.permutation import MaskedPermutedCollator
    from annotated_mpnet.tokenization import embedded_corpus, tokenize
    documents = tokenize(tokenizer, embedded_corpus()[:400], 128)
    flat = [token for ids in documents for token in ids[1:-1]]
    start, *_, end = tokenizer("")["input_ids"]
    rows = [[start, *flat[126 * i:126 * (i + 1)], end] for i in range(32)]
    examples = [{"input_ids": row, "sample_id": i} for i, row in enumerate(rows)]
    collate = MaskedPermutedCollator(tokenizer)
    return [collate(examples[4 * k:4 * k + 4]) for k in range(8)]


def child() -> None:
    "Print what is measured, a line for each number of micro-batches."
    import torch

    from annotated_mpnet.configuration import ModelConfig
    from annotated_mpnet.model import MPNetForPretraining
    from annotated_mpnet.spread import OneProcess, how_to_spread
    from annotated_mpnet.tokenization import demo_tokenizer
    from annotated_mpnet.update import accumulate
    from annotated_mpnet.watch import join_ranks
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = demo_tokenizer()
    batches = make_batches(tokenizer)
    with join_ranks() as ranks:
        model = MPNetForPretraining(ModelConfig(vocab_size=len(tokenizer), **MODEL)).train()
        spread = how_to_spread(ranks, fsdp=False)
        together = spread.place(model, torch.device("cpu"))
        plain, n = torch.autocast("cpu", enabled=False), 1000 * ranks.size

        def exchanging(micro: int) -> None:
            ranks.gather([n] * 7)
            loss, right, _ = accumulate(together, batches[:micro], plain, False, n, spread)
            ranks.sum(torch.stack([loss, right, loss]))
            model.zero_grad(set_to_none=True)
            ranks.agree([])

        def silent(micro: int) -> None:
            accumulate(model, batches[:micro], plain, False, n, OneProcess())
            model.zero_grad(set_to_none=True)

        for micro in ACCUMULATE:
            seconds = in_turn(ranks, (exchanging, silent), micro)
            if ranks.first:
                tokens = ranks.size * sum(batch["n_tokens"] for batch in batches[:micro])
                print(json.dumps([tokens, *seconds, size_of(model)]), flush=True)


def size_of(model) -> int: # parameters
    return sum(p.numel() for p in model.parameters())


def in_turn(ranks, updates: tuple, micro: int) -> list[float]:
    "The median seconds of each kind of update, which take turns; the first turn warms up."
    seconds: list[list[float]] = [[] for _ in updates]
    for _ in range(REPEATS + 1):
        for update, taken in zip(updates, seconds):
            ranks.wait()
            begun = time.perf_counter()
            for _ in range(UPDATES):
                update(micro)
            taken.append((time.perf_counter() - begun) / UPDATES)
    return [median(taken[1:]) for taken in seconds]


def run(size: int) -> list[Measured]: # for each number of micro-batches
    "So many ranks, as torchrun would start them."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    env = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command, ranks = [sys.executable, __file__, *sys.argv[1:]], []
    for rank in map(str, range(size)):
        own = env | {"RANK": rank, "LOCAL_RANK": rank}
        ranks.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True))
    said = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit("a rank failed")
    return [Measured(*json.loads(line)) for line in said[0].splitlines() if line.startswith("[")]


def main():
    "One rank, two ranks, one rank again: a machine that grows slower or faster meanwhile shows."
    first, two, again = run(1), run(2), run(1)
    rows = []
    for micro, a, b, c in zip(ACCUMULATE, first, two, again):
        one = (a.speed + c.speed) / 2
        rows.append([str(micro), f"{a.speed:,.0f} and {c.speed:,.0f}", f"{b.speed:,.0f}",
                     f"{b.speed / one:.2f}x", f"{max(0, 1 - b.silent / b.seconds):.1%}"])
    millions = first[0].parameters / 1e6
    model = f"{millions:.1f} million parameters, {4 * millions:.0f} MB of gradients an update, Gloo"
    report(f"Tokens a second on 1 and 2 ranks; {model}",
           ["micro-batches of an update", "1 rank, before and after", "2 ranks",
            "of a single one", "communication, of the time"], rows)


if __name__ == "__main__":
    if CHILD:
        child()
    else:
        main()
