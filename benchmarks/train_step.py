"""A whole update (forward, backward, clipping, AdamW): ours, the textbook's two calls of attention, and transformers' MLM.

    python benchmarks/train_step.py [--short]

Sizes: small = 4 layers, width 256, 128 tokens, batch 16; base = MPNet-base, 512 tokens, batch 2 on a CPU; on a GPU base with
32 x 512 and 128 x 128 tokens. `--short` measures small alone, in about a minute. All alternatives take turns; a ratio is the
median over the rounds of the ratio within a round. Tokens are those of the text: the copies that the two streams add don't count.
MLM predicts the same 15 %. On a CPU every alternative has a process of its own, as when it is run for itself: what one leaves
in memory would help the next. Ours keeps its memory (lesson 10b, `keep_memory`), as the trainer does; without `--short` there is a
second table in which all do.
"""
import multiprocessing
import os
import resource
import sys
import time
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))   # a step may use the whole machine
if "OMP_WAIT_POLICY" not in os.environ: os.environ.setdefault("GOMP_SPINCOUNT", "20000")   # as the command does
from common import SHORT, report

import torch
from textbook import use_textbook
from transformers import MPNetConfig, MPNetForMaskedLM

from annotated_mpnet.attention import dense_bias
from annotated_mpnet.configuration import ModelConfig, PretrainConfig
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.optimization import clip_gradient, make_optimizer
from annotated_mpnet.tracking import update_flops
from annotated_mpnet.machine import keep_memory

SMALL = dict(encoder_layers=4, encoder_embed_dim=256, encoder_ffn_dim=1024, encoder_attention_heads=4, vocab_size=5000, max_positions=128)
BASE = dict(vocab_size=30527, max_positions=512)
CPU_SIZES = {"small": (SMALL, 16, 128)} | ({} if SHORT else {"base": (BASE, 2, 512)})
GPU_SIZES = {"small": (SMALL, 16, 128)} if SHORT else {"base": (BASE, 32, 512), "base, short texts": (BASE, 128, 128)}
KINDS = ("textbook", "ours", "transformers MLM")
PRECISIONS = ("float32", "bfloat16")
CONTEXT = multiprocessing.get_context("spawn")                  # of the processes that measure
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def make_batch(vocab: int, rows: int, length: int) -> dict:
    "Random tokens, permuted, the last 15 % predicted; nothing is padding."
    P = round(0.15 * (length - 2))
    ids, places = torch.randint(5, vocab - 1, (rows, length)), torch.stack([torch.randperm(length) for _ in range(rows)])
    masks, last = torch.full((rows, P), vocab - 1), slice(length - P, None)
    return {"input_ids": torch.cat([ids, masks, masks], 1), "positions": torch.cat([places, places[:, last], places[:, last]], 1), "pred_size": P,
            "attention_mask": torch.ones(rows, length + 2 * P, dtype=torch.long), "targets": ids[:, last].clone(), "predicted": torch.arange(rows * P)}


class Alternatives:
    "The models of one size, and one update of each."
    def __init__(self, size: dict, rows: int, length: int):
        torch.manual_seed(0)
        config, run = ModelConfig(**size), PretrainConfig(lr=1e-5)
        self.ours = MPNetForPretraining(config).to(DEVICE).train()
        theirs = MPNetConfig(vocab_size=config.vocab_size, hidden_size=config.encoder_embed_dim, num_hidden_layers=config.encoder_layers,
                             num_attention_heads=config.encoder_attention_heads, intermediate_size=config.encoder_ffn_dim,
                             max_position_embeddings=config.max_positions + 2)                        # dropout 0.1 twice, by default
        self.theirs = MPNetForMaskedLM(theirs).to(DEVICE).train()
        self.optimizers = {model: make_optimizer(model, run) for model in (self.ours, self.theirs)}
        batch = make_batch(config.vocab_size, rows, length)
        P, order = batch["pred_size"], batch["positions"][:, :length].argsort(1)
        plain = batch["input_ids"][:, :length].clone()
        labels = torch.full_like(plain, -100)
        labels[:, -P:], plain[:, -P:] = plain[:, -P:].clone(), config.vocab_size - 1
        self.batch = {name: x.to(DEVICE) if torch.is_tensor(x) else x for name, x in batch.items()}
        self.plain = {"input_ids": plain.gather(1, order).to(DEVICE), "labels": labels.gather(1, order).to(DEVICE)} # the same tokens, in order
        self.compiled = False

    def compile(self) -> None:
        "From here on the models are compiled."
        self.compiled = True
        self.ours.mpnet.compile(dynamic=False)
        self.theirs.compile(dynamic=False)

    def update(self, kind: str, precision: str) -> None:
        "One update of one of them."
        model = self.theirs if kind.startswith("transformers") else self.ours
        if model is self.ours: use_textbook(model, kind.startswith("textbook"))
        if self.compiled: self.ours.mpnet.bias = dense_bias                        # as the trainer does
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            if model is self.ours:
                total, n, _ = model.loss(self.batch)
                loss = total / n
            else: loss = model(**self.plain).loss
        loss.backward()
        clip_gradient(model, 1.0)
        self.optimizers[model].step()
        model.zero_grad(set_to_none=True)

    def seconds(self, kind: str, precision: str) -> float:
        if GPU: torch.cuda.synchronize()
        begun = time.perf_counter()
        self.update(kind, precision)
        if GPU: torch.cuda.synchronize()
        return time.perf_counter() - begun


def serve(kept: bool, size: tuple, kind: str, precision: str, pipe) -> None:
    "A process of its own for one alternative; it times an update whenever it is asked to."
    if kept: keep_memory()
    models = Alternatives(*size)
    while pipe.recv(): pipe.send(models.seconds(kind, precision))


def peak(size: tuple, kind: str, precision: str, checkpointing: bool, pipe) -> None:
    "What two updates add to the memory of a process, in MB."
    if kind == "ours": keep_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    models = Alternatives(*size)
    models.ours.mpnet.gradient_checkpointing = checkpointing
    for _ in range(2): models.update(kind, precision)
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def start(target, *arguments):
    "A process of its own, and the pipe to it."
    here, there = multiprocessing.Pipe()
    process = CONTEXT.Process(target=target, args=(*arguments, there), daemon=True)
    process.start()
    return process, here


def rows_of(times: dict[tuple, list[float]], tokens: int) -> list[list]:
    "A line for each alternative: its speed, and how many times faster than others it is."
    def faster(than, key): return f"{median(a / b for a, b in zip(times[than], times[key])):.2f}x" if than in times else ""
    rows = []
    for key in times:
        name, precision = key
        rows.append([name, precision, f"{1000 * median(times[key]):,.0f}", f"{tokens / median(times[key]):,.0f}",
                     faster(("textbook", "float32"), key), faster(("textbook", precision), key), faster(("transformers MLM", precision), key)])
    return rows


HEAD = ["", "precision", "ms an update", "tokens/s", "of textbook float32", "of textbook", "of transformers"]


def in_turn(size: tuple, keys: list[tuple], everyone: bool, rounds: int) -> dict[tuple, list[float]]:
    "The seconds of each alternative, round by round; `everyone` keeps its memory, or ours alone."
    workers = {key: start(serve, everyone or key[0] == "ours", size, *key) for key in keys}
    times = {key: [] for key in keys}
    for i in range(rounds + 2):                                                  # two rounds to warm up
        for key, (_, pipe) in workers.items():
            pipe.send(True)
            seconds = pipe.recv()
            if i > 1: times[key].append(seconds)
    for process, pipe in workers.values():
        pipe.send(False)
        process.join()
    return times


def on_cpu() -> None:
    "Each alternative in a process of its own, all in turn; then the peak of memory."
    for name, size in CPU_SIZES.items():
        for everyone in (False,) if SHORT else (False, True):
            rows = []
            for precision in PRECISIONS:
                keys = dict.fromkeys([*([] if everyone else [("textbook", "float32")]),       # four that keep all of base don't fit beside each other
                                      *((kind, precision) for kind in KINDS)])
                rows += rows_of(in_turn(size, list(keys), everyone, 9 if name == "small" else 5), size[1] * size[2])
            report(f"An update of {name}: {size[1]} x {size[2]} tokens, dropout 0.1; {'every process keeps its memory' if everyone else 'ours keeps its memory, as the trainer does'}", HEAD, rows)
    if SHORT: return
    table = []
    for kind, checkpointing in [("textbook", False), ("transformers MLM", False), ("ours", False), ("ours", True)]:
        process, pipe = start(peak, CPU_SIZES["base"], kind, "bfloat16", checkpointing)
        table.append([kind + ", gradient checkpointing" * checkpointing, f"{pipe.recv():,.0f}"])
        process.join()
    report("Peak memory of an update of base, bfloat16, above that of the imports", ["", "MB"], table)


def matmul_flops() -> float: # a second
    "What a large product of bfloat16 matrices reaches here: the bar for the share of the machine that a step uses."
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    def once():
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(10): a @ a
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / 10
    once()
    return 2 * 8192**3 / median(once() for _ in range(5))


def on_gpu() -> None:
    "Eager and compiled, with the share of a matrix product's speed that was measured in the same run, and the peak of memory."
    for name, size in GPU_SIZES.items():
        config, rows, length = size
        models, times, memory, too_large = Alternatives(*size), {}, {}, []
        for compiled in (False, True):
            if compiled: models.compile()
            keys = [(kind, p) for kind in KINDS for p in (("bfloat16",) if compiled else PRECISIONS)]
            for i in range(3 + (3 if SHORT else 10)):
                for kind, precision in keys:
                    label = (kind + ", compiled" * compiled, precision)
                    if label in too_large: continue
                    if not i: torch.cuda.reset_peak_memory_stats()
                    try: seconds = models.seconds(kind, precision)
                    except torch.cuda.OutOfMemoryError:
                        too_large.append(label)
                        models.ours.zero_grad(), models.theirs.zero_grad()
                        continue
                    if not i: memory[label] = torch.cuda.max_memory_allocated() / 2**20
                    if i >= 3: times.setdefault(label, []).append(seconds)
        bar, batch = matmul_flops(), models.batch
        flops = update_flops(models.ours.config, rows, batch["input_ids"].shape[1], batch["pred_size"], rows * batch["pred_size"])
        table = rows_of(times, rows * length)
        for row, key in zip(table, times):
            share = flops / median(times[key]) / bar if not key[0].startswith("transformers") and key[1] == "bfloat16" else None
            row += [f"{share:.0%}" if share else "", f"{memory[key]:,.0f}"]
        table += [[*label, "out of memory", *[""] * 6] for label in too_large]
        report(f"An update of {name}: {rows} x {length} tokens, dropout 0.1, on {torch.cuda.get_device_name()}", [*HEAD, "MFU", "peak MB"], table,
               f"MFU: of {bar / 1e12:,.0f} TFLOP/s, an 8192 x 8192 x 8192 product in bfloat16 measured in this run.")


if __name__ == "__main__": sys.exit(on_gpu() if GPU else on_cpu())
