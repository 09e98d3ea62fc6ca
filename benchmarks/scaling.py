"""Training on one rank and on two: tokens a second, and the share of the time that goes into communication.

    python benchmarks/scaling.py [--short]

The same work on each rank (micro-batches of 4 rows of 128 tokens), so two ranks do twice as much. On a machine with two cores that
nobody else uses, the ratio says what the second core brings. Communication: the time of an update on two ranks, less the
time of the same update without an exchange of gradients and numbers, measured in turn in the same processes.
"""
import json
import os
import socket
import subprocess
import sys
from statistics import median

CHILD = "RANK" in os.environ                  # set in the processes that are measured
if not CHILD: from common import report

REPEATS, UPDATES, ACCUMULATE = (3, 1, (1, 4)) if "--short" in sys.argv else (9, 3, (1, 2, 8))
MODEL = dict(encoder_layers=2, encoder_embed_dim=256, encoder_ffn_dim=1024, encoder_attention_heads=4)


def child() -> None:
    "Print a line for each number of micro-batches: tokens of an update, seconds of it with and without communication."
    import time

    import torch

    from annotated_mpnet.configuration import ModelConfig
    from annotated_mpnet.model import MPNetForPretraining
    from annotated_mpnet.permutation import MaskedPermutedCollator
    from annotated_mpnet.spread import OneProcess, how_to_spread
    from annotated_mpnet.tokenization import demo_tokenizer, embedded_corpus, tokenize
    from annotated_mpnet.update import accumulate
    from annotated_mpnet.watch import join_ranks
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = demo_tokenizer()
    flat = [i for ids in tokenize(tokenizer, embedded_corpus()[:400], 128) for i in ids[1:-1]]
    start, *_, end = tokenizer("")["input_ids"]
    collate = MaskedPermutedCollator(tokenizer)
    batches = [collate([{"input_ids": [start, *flat[126 * i:126 * (i + 1)], end], "sample_id": i} for i in range(4 * k, 4 * k + 4)]) for k in range(8)]
    with join_ranks() as ranks:
        model = MPNetForPretraining(ModelConfig(vocab_size=len(tokenizer), **MODEL)).train()
        spread = how_to_spread(ranks, fsdp=False)
        together = spread.place(model, torch.device("cpu"))
        plain = torch.autocast("cpu", enabled=False)
        def update(exchange: bool, micro: int) -> float: # seconds
            ranks.wait()
            begun = time.perf_counter()
            for _ in range(UPDATES):
                n = 1000 * ranks.size
                if exchange: ranks.gather([n] * 7)
                how = (together, spread) if exchange else (model, OneProcess())
                loss, right, _ = accumulate(how[0], batches[:micro], plain, False, n, how[1])
                if exchange: ranks.sum(torch.stack([loss, right, loss]))
                model.zero_grad(set_to_none=True)
                if exchange: ranks.agree([])
            return (time.perf_counter() - begun) / UPDATES
        for micro in ACCUMULATE:
            update(True, micro), update(False, micro)
            seconds = [(update(True, micro), update(False, micro)) for _ in range(REPEATS)]
            if ranks.first:
                tokens = ranks.size * sum(batch["n_tokens"] for batch in batches[:micro])
                parameters = sum(p.numel() for p in model.parameters())
                print(json.dumps([tokens, *(median(column) for column in zip(*seconds)), parameters]), flush=True)


def run(size: int) -> list[list[float]]: # for each number of micro-batches: tokens, seconds with and without communication, parameters
    "So many ranks, as torchrun would start them."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        env = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    ranks = [subprocess.Popen([sys.executable, __file__, *sys.argv[1:]], env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                              stdout=subprocess.PIPE, text=True) for rank in range(size)]
    said = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks): sys.exit("a rank failed")
    return [json.loads(line) for line in said[0].splitlines() if line.startswith("[")]


def main():
    "One rank, two ranks, one rank again, so that a machine that grows slower or faster meanwhile shows."
    first, two, again = run(1), run(2), run(1)
    rows = []
    for micro, a, b, c in zip(ACCUMULATE, first, two, again):
        one = (a[0] / a[1] + c[0] / c[1]) / 2
        rows.append([str(micro), f"{a[0] / a[1]:,.0f} and {c[0] / c[1]:,.0f}", f"{b[0] / b[1]:,.0f}", f"{b[0] / b[1] / one:.2f}x", f"{max(0, 1 - b[2] / b[1]):.1%}"])
    report(f"Tokens a second on 1 and 2 ranks; {first[0][3] / 1e6:.1f} million parameters, {4 * first[0][3] / 1e6:.0f} MB of gradients an update, Gloo",
           ["micro-batches of an update", "1 rank, before and after", "2 ranks", "of a single one", "communication, of the time"], rows)


if __name__ == "__main__": child() if CHILD else main()
