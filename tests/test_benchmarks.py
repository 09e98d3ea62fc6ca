"""The benchmarks run, on a CPU and on what takes a GPU's place, at a tiny size.

What they measure is no test; that they measure the right thing is.
"""
import os
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = """(dict(encoder_layers=2, encoder_embed_dim=16, encoder_ffn_dim=32,
              encoder_attention_heads=2, vocab_size=60, max_positions=16), 2, 16)"""
SHORT = """
import sys
sys.argv = ["benchmark", "--short"]
sys.path.insert(0, "benchmarks")
"""
ON_CPU = f"""
import multiprocessing, pickle, train_step as t
fork = multiprocessing.get_context("fork")
class Forked:
    "Processes that needn't import everything again; what they are given must be fit for new ones."
    def Process(self, target, args, daemon):
        assert pickle.loads(pickle.dumps((target, args[:-1]))) == (target, args[:-1])
        return fork.Process(target=target, args=args, daemon=daemon)
t.CPU_SIZES = {{"small": {TINY}}}
t.CONTEXT = Forked()
t.on_cpu()
"""
ON_GPU = f"""
import torch, train_step as t
t.GPU_SIZES = {{"tiny": {TINY}}}
t.matmul_flops = lambda: 1e12
t.profiled = lambda models: {{"attention": 1.0, t.part_of("nvjet_sm90_tst"): 2.0}}
measured = t.measured
t.measured = lambda models, flex: measured(models, False)  # FlexAttention trains on GPUs alone
torch.cuda.get_device_name = lambda: "no GPU"
torch.cuda.reset_peak_memory_stats = torch.cuda.synchronize = lambda: None
torch.cuda.max_memory_allocated = lambda: 2**30
compile = torch.nn.Module.compile
torch.nn.Module.compile = lambda self, **options: compile(self, backend="eager", **options)
t.on_gpu()
"""


def run(code: str) -> str:
    "What a benchmark prints, started as with --short."
    done = subprocess.run([sys.executable, "-c", SHORT + code], cwd=ROOT, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tables(printed: str) -> list[list[list[str]]]:
    "The cells of each table that was printed."
    groups = groupby(printed.splitlines(), lambda line: line.startswith("|"))
    found = [[line.strip("|") for line in lines] for is_table, lines in groups if is_table]
    return [[[cell.strip() for cell in line.split("|")] for line in table] for table in found]


@pytest.mark.parametrize("code, on_gpu", [(ON_CPU, False), (ON_GPU, True)], ids=["cpu", "gpu"])
def test_a_step_is_measured(code, on_gpu):
    (head, _, *table), *parts = tables(run(code))
    kinds = {"textbook", "ours", "transformers MLM"}
    if on_gpu:
        kinds |= {f"{kind}, compiled" for kind in kinds}
    assert {row[0] for row in table} == kinds
    assert {row[1] for row in table} == {"float32", "bfloat16"}
    for row in table:
        assert float(row[2].replace(",", "")) >= 0 and float(row[3].replace(",", "")) > 0
        if row[0] == "textbook":
            assert row[5] == "1.00x"             # each is compared with its own kind
        if row[0] == "transformers MLM":
            assert row[6] == "1.00x"
        assert all(re.fullmatch(r"(\d+\.\d\dx)?", cell) for cell in row[4:7])
    if on_gpu:
        assert head[-2:] == ["MFU", "peak MB"] and all(row[-1] == "1,024" for row in table)
        shares = {row[0]: row[1:] for row in parts[0][2:]}
        assert shares["attention"] == ["1.0", "1.0"] and shares["matrix products"] == ["2.0"] * 2
        assert shares["all"] == ["3.0", "3.0"]


def test_the_textbook_of_the_benchmark_is_two_calls_with_pytorchs_dropout():
    import torch
    from helpers_batches import make_batch, make_row, tiny_model
    from textbook import TwoCalls, use_textbook
    model, calls = tiny_model(encoder_layers=3).train(), []
    original = torch.nn.functional.scaled_dot_product_attention
    def counted(*args, **options):
        calls.append(args[0].shape[2])
        return original(*args, **options)
    use_textbook(model, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        model.loss(make_batch([make_row(6, 2, seed=1)]))
    # Content and query rows of each layer, query rows alone of the last.
    assert calls == [10, 2, 10, 2, 2]
    dropouts = {type(m) for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {torch.nn.Dropout}
    use_textbook(model, False)
    assert not any(isinstance(m, TwoCalls) for m in model.modules())


RANKS = """
import ranks
ranks.GLOBAL, ranks.DOCUMENTS, ranks.LENGTH, ranks.RANKS = 64, 192, 64, (1, 2, 4)
ranks.main()
"""


def test_what_ranks_have_together_is_checked_before_their_cost_is_measured():
    printed = run(RANKS)
    assert printed.count("ranks have what one has") == 4
    (head, _, *table), = tables(printed)
    assert head == ["", "1 of 1", "1 of 2", "1 of 4"] and len(table) == 6
    assert all(re.fullmatch(r"[\d,]+ \(1.00\)", row[1]) for row in table)
