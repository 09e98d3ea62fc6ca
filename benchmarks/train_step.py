"""A whole update (forward, backward, clipping, AdamW): ours, the textbook's, transformers' MLM.

    python benchmarks/train_step.py [--short]

The textbook has two calls of attention a layer. Sizes: small = 4 layers, width 256, 128 tokens,
batch 16; base = MPNet-base, 512 tokens, batch 2 on a CPU; on a GPU base with 32 x 512 and 128 x 128
tokens. `--short` measures small alone, in about a minute. All alternatives take turns; a ratio is
the median over the rounds of the ratio within a round. Tokens are those of the text: the copies
that the two streams add don't count. MLM predicts the same 15 %.

On a CPU every alternative has a process of its own, as when it is run for itself: what one leaves
in memory would help the next. Ours keeps its memory (lesson 10b, `keep_memory`), as the trainer
does; without `--short` there is a second table in which all do.
"""
import multiprocessing
import os
import resource
import sys
import time
from functools import partial
from itertools import product
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))   # a step may use the whole machine
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")            # as the command does
from common import SHORT, report

import torch
from textbook import use_textbook
from torch.nn.functional import pad
from torch.profiler import ProfilerActivity, profile
from transformers import MPNetConfig, MPNetForMaskedLM

from annotated_mpnet.configuration import ModelConfig, PretrainConfig
from annotated_mpnet.fast_attention import fast_bias
from annotated_mpnet.machine import keep_memory
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.optimization import clip_gradient, make_optimizer
from annotated_mpnet.permutation import few_sizes
from annotated_mpnet.tracking import update_flops

SMALL = dict(encoder_layers=4, encoder_embed_dim=256, encoder_ffn_dim=1024,
             encoder_attention_heads=4, vocab_size=5000, max_positions=128)
BASE = dict(vocab_size=30527, max_positions=512)
CPU_SIZES = {"small": (SMALL, 16, 128), "base": (BASE, 2, 512)}  # model, rows, tokens of a row
GPU_SIZES = {"base": (BASE, 32, 512), "base, short texts": (BASE, 128, 128)}
if SHORT:
    CPU_SIZES = GPU_SIZES = {"small": (SMALL, 16, 128)}
KINDS = ("textbook", "ours", "transformers MLM")
FLEX = "ours, flex, no attention dropout"
PRECISIONS = ("float32", "bfloat16")
CONTEXT = multiprocessing.get_context("spawn")                  # of the processes that measure
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def make_batch(vocab: int, rows: int, length: int) -> dict:
    "Random tokens, permuted, the last 15 % predicted; nothing is padding."
    P = round(0.15 * (length - 2))
    ids = torch.randint(5, vocab - 1, (rows, length))
    positions = torch.stack([torch.randperm(length) for _ in range(rows)])
    masks, last = torch.full((rows, P), vocab - 1), positions[:, length - P:]
    return {
        "input_ids": torch.cat([ids, masks, masks], 1),
        "positions": torch.cat([positions, last, last], 1),
        "pred_size": P,
        "attention_mask": torch.ones(rows, length + 2 * P, dtype=torch.long),
        "targets": ids[:, length - P:].clone(),
        "predicted": torch.arange(rows * P),
    }


def padded(batch: dict, C: int, P: int) -> dict:
    "The same batch with C places for the context and P slots for the targets (lesson 03)."
    p, n = batch["pred_size"], batch["input_ids"].shape[1]
    sizes = [n - 3 * p, p, p, p]

    def wide(x: torch.Tensor, fill: int) -> torch.Tensor:
        context, *others = x.split(sizes, 1)
        right = [pad(block, (P - p, 0), value=fill) for block in others]
        return torch.cat([pad(context, (0, C - sizes[0]), value=fill), *right], 1)

    fills = {"input_ids": 1, "positions": 0, "attention_mask": 0}
    targets = pad(batch["targets"], (P - p, 0), value=-100)
    where = (targets != -100).flatten().nonzero().flatten()
    return ({name: wide(batch[name], fill) for name, fill in fills.items()}
            | {"targets": targets, "pred_size": P, "predicted": where})


def in_order(batch: dict, length: int, mask: int) -> dict:
    "The same tokens and predictions as transformers wants them: in the order of the text."
    P, order = batch["pred_size"], batch["positions"][:, :length].argsort(1)
    ids = batch["input_ids"][:, :length].clone()
    labels = torch.full_like(ids, -100)
    labels[:, -P:], ids[:, -P:] = ids[:, -P:].clone(), mask
    return {"input_ids": ids.gather(1, order), "labels": labels.gather(1, order)}


def on_device(batch: dict) -> dict:
    return {name: x.to(DEVICE) if torch.is_tensor(x) else x for name, x in batch.items()}


class Alternatives:
    "The models of one size, and one update of each."
    def __init__(self, size: dict, rows: int, length: int):
        torch.manual_seed(0)
        config, run = ModelConfig(**size), PretrainConfig(lr=1e-5)
        self.ours = MPNetForPretraining(config).to(DEVICE).train()
        theirs = MPNetConfig(   # its dropout is 0.1, twice, by default
            vocab_size=config.vocab_size,
            hidden_size=config.encoder_embed_dim,
            num_hidden_layers=config.encoder_layers,
            num_attention_heads=config.encoder_attention_heads,
            intermediate_size=config.encoder_ffn_dim,
            max_position_embeddings=config.max_positions + 2)
        self.theirs = MPNetForMaskedLM(theirs).to(DEVICE).train()
        self.optimizers = {model: make_optimizer(model, run) for model in (self.ours, self.theirs)}
        batch = make_batch(config.vocab_size, rows, length)
        self.batch = on_device(batch)
        sizes = few_sizes(length, 0.15) if GPU else []
        P, C = batch["pred_size"], length - batch["pred_size"]
        fits = [(c, p) for c, p in sizes if c >= C and p >= P]
        self.few = on_device(padded(batch, *fits[0])) if fits else self.batch
        self.plain = on_device(in_order(batch, length, mask=config.vocab_size - 1))
        self.compiled = False

    def compile(self) -> None:
        "From here on the layers are compiled, as by `--compile`."
        self.compiled = True
        for layer in [*self.ours.mpnet.encoder["layer"], *self.theirs.mpnet.encoder.layer]:
            layer.compile(dynamic=False)

    def take_flex(self, on: bool) -> None:
        "FlexAttention, which can't drop weights."
        if on:
            self.ours.mpnet.bias = partial(fast_bias, backend="flex")
        for layer in self.ours.mpnet.encoder["layer"]:
            layer.attention["attn"].dropout = 0.0 if on else 0.1

    def update(self, kind: str, precision: str) -> None:
        "One update of one of them."
        textbook = kind.startswith("textbook")
        model = self.theirs if kind.startswith("transformers") else self.ours
        if model is self.ours:
            use_textbook(model, textbook)
        if self.compiled and not textbook:
            self.ours.mpnet.bias = partial(fast_bias, backend="sdpa")   # as the trainer does
        if GPU:
            self.take_flex(kind == FLEX)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            if model is self.ours:
                total, n, _ = model.loss(self.batch if textbook else self.few)
                loss = total / n
            else:
                loss = model(**self.plain).loss
        loss.backward()
        clip_gradient(model, 1.0)
        self.optimizers[model].step()
        model.zero_grad(set_to_none=True)

    def seconds(self, kind: str, precision: str) -> float:
        if GPU:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        self.update(kind, precision)
        if GPU:
            torch.cuda.synchronize()
        return time.perf_counter() - begun


def serve(kept: bool, size: tuple, kind: str, precision: str, pipe) -> None:
    "A process of its own for one alternative; it times an update whenever it is asked to."
    if kept:
        keep_memory()
    models = Alternatives(*size)
    while pipe.recv():
        pipe.send(models.seconds(kind, precision))


def peak(size: tuple, kind: str, precision: str, checkpointing: bool, pipe) -> None:
    "What two updates add to the memory of a process, in MB."
    if kind == "ours":
        keep_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    models = Alternatives(*size)
    models.ours.mpnet.gradient_checkpointing = checkpointing
    for _ in range(2):
        models.update(kind, precision)
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def start(target, *arguments):
    "A process of its own, and the pipe to it."
    here, there = multiprocessing.Pipe()
    process = CONTEXT.Process(target=target, args=(*arguments, there), daemon=True)
    process.start()
    return process, here


def rows_of(times: dict[tuple, list[float]], tokens: int) -> list[list]:
    "A line for each alternative: its speed, and how many times faster than others it is."
    def times_faster(than: tuple, seconds: list[float]) -> str:
        ratios = [a / b for a, b in zip(times.get(than, []), seconds)]
        return f"{median(ratios):.2f}x" if ratios else ""

    rows = []
    for (name, precision), seconds in times.items():
        others = [("textbook", "float32"), ("textbook", precision), ("transformers MLM", precision)]
        middle = median(seconds)
        rows.append([name, precision, f"{1000 * middle:,.0f}", f"{tokens / middle:,.0f}",
                     *(times_faster(other, seconds) for other in others)])
    return rows


HEAD = ["", "precision", "ms an update", "tokens/s",
        "of textbook float32", "of textbook", "of transformers"]


def in_turn(size: tuple, # model, rows, tokens of a row
            keys: list[tuple], # alternative, precision
            everyone: bool, # keeps its memory, or ours alone
            rounds: int,
           ) -> dict[tuple, list[float]]:
    "The seconds of each alternative, round by round."
    workers = {key: start(serve, everyone or key[0] == "ours", size, *key) for key in keys}
    times = {key: [] for key in keys}
    for i in range(rounds + 2):                                      # two rounds to warm up
        for key, (_, pipe) in workers.items():
            pipe.send(True)
            seconds = pipe.recv()
            if i > 1:
                times[key].append(seconds)
    for process, pipe in workers.values():
        pipe.send(False)
        process.join()
    return times


def on_cpu() -> None:
    "Each alternative in a process of its own, all in turn; then the peak of memory."
    for name, size in CPU_SIZES.items():
        _, rows, length = size
        for everyone in (False,) if SHORT else (False, True):
            table = []
            for precision in PRECISIONS:
                keys = [(kind, precision) for kind in KINDS]
                if not everyone:  # four that keep all of base don't fit beside each other
                    keys = list(dict.fromkeys([("textbook", "float32"), *keys]))
                times = in_turn(size, keys, everyone, 9 if name == "small" else 5)
                table += rows_of(times, rows * length)
            who = "every process keeps its memory"
            if not everyone:
                who = "ours keeps its memory, as the trainer does"
            report(f"An update of {name}: {rows} x {length} tokens, dropout 0.1; {who}",
                   HEAD, table)
    if not SHORT:
        report_peaks()


def report_peaks() -> None:
    "The peak of memory of each alternative."
    table = []
    kinds = [("textbook", False), ("transformers MLM", False), ("ours", False), ("ours", True)]
    for kind, checkpointing in kinds:
        process, pipe = start(peak, CPU_SIZES["base"], kind, "bfloat16", checkpointing)
        table.append([kind + ", gradient checkpointing" * checkpointing, f"{pipe.recv():,.0f}"])
        process.join()
    report("Peak memory of an update of base, bfloat16, above that of the imports",
           ["", "MB"], table)


def matmul_flops() -> float: # a second
    "What a large product of bfloat16 matrices reaches here: the bar for what a step uses."
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    def once():
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(10):
            a @ a
        torch.cuda.synchronize()
        return (time.perf_counter() - begun) / 10
    once()
    return 2 * 8192**3 / median(once() for _ in range(5))


class OnGPU:
    "The seconds and the peak of memory of each alternative, or that it is too large."
    def __init__(self, models: Alternatives):
        self.models = models
        self.times: dict[tuple, list[float]] = {}
        self.memory: dict[tuple, float] = {}    # MB
        self.too_large: list[tuple] = []

    def measure(self, kind: str, precision: str, label: tuple, number: int) -> None:
        "Time an update; of the second take the memory, and the first three warm up."
        if label in self.too_large:
            return
        if number == 1:
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            seconds = self.models.seconds(kind, precision)
        except torch.cuda.OutOfMemoryError:
            self.too_large.append(label)
            self.models.ours.zero_grad()
            self.models.theirs.zero_grad()
            return
        if number == 1:
            self.memory[label] = (torch.cuda.max_memory_allocated() - before) / 2**20
        if number >= 3:
            self.times.setdefault(label, []).append(seconds)


def measured(models: Alternatives, flex: bool) -> OnGPU:
    "All alternatives in turn, eager, then compiled; FlexAttention, where it is asked for."
    found = OnGPU(models)
    for compiled in (False, True):
        if compiled:
            models.compile()
        precisions = ("bfloat16",) if compiled else PRECISIONS
        keys = list(product(KINDS, precisions))
        if flex and not compiled:
            keys.append((FLEX, "bfloat16"))
        for number in range(6 if SHORT else 10):
            for kind, precision in keys:
                name = f"{kind}, compiled" if compiled else kind
                found.measure(kind, precision, (name, precision), number)
    return found


PARTS = {  # of a kernel's name: the first that is found in it
    "attention": ("fmha", "flash", "flex", "sdpa"),
    "matrix products": ("gemm", "nvjet", "cutlass", "splitK"),
    "optimizer": ("multi_tensor", "Adam", "adam"),
    "dropout": ("dropout", "masked_scale"),
    "normalization": ("layer_norm", "GammaBeta", "LayerNorm"),
    "bias and embedding tables": ("gather", "index", "embedding", "Indexing", "scatter"),
    "softmax and loss": ("softmax", "SoftMax", "nll", "argmax", "ArgMax"),
    "copies and conversions": ("copy", "Memcpy", "Memset", "fill", "Fill", "Cat"),
}


def part_of(kernel: str) -> str:
    found = (part for part, names in PARTS.items() if any(name in kernel for name in names))
    return next(found, "other small steps")


def profiled(models: Alternatives) -> dict[str, float]: # milliseconds of each part
    "Where the time of one update of ours goes on the GPU, in bfloat16."
    models.seconds("ours", "bfloat16")  # the first one makes the moments, too
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        models.seconds("ours", "bfloat16")
    parts: dict[str, float] = {}
    for event in seen.key_averages():
        part = part_of(event.key)
        parts[part] = parts.get(part, 0.0) + event.device_time_total / 1000
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def on_gpu() -> None:
    "Eager and compiled, with the peak of memory and the share of a matrix product's speed."
    for number, (name, size) in enumerate(GPU_SIZES.items()):
        _, rows, length = size
        models = Alternatives(*size)
        eager = profiled(models)
        found, bar = measured(models, flex=number == 0), matmul_flops()
        P, width = models.batch["pred_size"], models.batch["input_ids"].shape[1]
        flops = update_flops(models.ours.config, rows, width, P, rows * P)
        table = rows_of(found.times, rows * length)
        for row, (key, seconds) in zip(table, found.times.items()):
            ours = not key[0].startswith("transformers") and key[1] == "bfloat16"
            share = f"{flops / median(seconds) / bar:.0%}" if ours else ""
            row += [share, f"{found.memory[key]:,.0f}"]
        table += [[*label, "out of memory", *[""] * 6] for label in found.too_large]
        where = f"dropout 0.1, on {torch.cuda.get_device_name()}"
        report(f"An update of {name}: {rows} x {length} tokens, {where}",
               [*HEAD, "MFU", "peak MB"], table,
               f"MFU: of {bar / 1e12:,.0f} TFLOP/s, an 8192 x 8192 x 8192 product in bfloat16 "
               "measured in this run. Peak: above weights and moments.")
        report_parts(name, eager, profiled(models))


def report_parts(name: str, eager: dict[str, float], compiled: dict[str, float]) -> None:
    "Where the time of ours goes, before and after it is compiled."
    table = [[part, f"{eager.get(part, 0):.1f}", f"{compiled.get(part, 0):.1f}"]
             for part in dict.fromkeys([*eager, *compiled])]
    table.append(["all", f"{sum(eager.values()):.1f}", f"{sum(compiled.values()):.1f}"])
    report(f"Where the time of an update of {name} goes on the GPU: ours, bfloat16",
           ["", "ms", "ms, compiled"], table)


if __name__ == "__main__":
    sys.exit(on_gpu() if GPU else on_cpu())
