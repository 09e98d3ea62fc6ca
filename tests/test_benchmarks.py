"""The benchmarks run, on a CPU and on what takes a GPU's place, at a tiny size.

What they measure is no test; that they measure the right thing is.
"""
import os
import re
import sys
from itertools import groupby
from pathlib import Path

import pytest
from helpers_runs import python

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


def run(code: str, logs: Path) -> str:
    "What a benchmark prints, started as with --short."
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = python(SHORT + code, cwd=ROOT, env=env, logs=logs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tables(printed: str) -> list[list[list[str]]]:
    "The cells of each table that was printed."
    groups = groupby(printed.splitlines(), lambda line: line.startswith("|"))
    found = [[line.strip("|") for line in lines] for is_table, lines in groups if is_table]
    return [[[cell.strip() for cell in line.split("|")] for line in table] for table in found]


@pytest.mark.parametrize("code, on_gpu", [(ON_CPU, False), (ON_GPU, True)], ids=["cpu", "gpu"])
def test_a_step_is_measured(code, on_gpu, tmp_path):
    (head, _, *table), *parts = tables(run(code, tmp_path))
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


# Time to a loss

@pytest.fixture
def time_to_loss(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--short"])
    import time_to_loss
    return time_to_loss


@pytest.mark.parametrize("loss, seconds", [(7.5, 10), (7.0, 10), (6.5, 15), (5.5, 30), (5.4, None)])
def test_the_time_to_a_loss_lies_between_two_checkpoints(time_to_loss, loss, seconds):
    curve = [(50, 10.0, 7.0), (100, 20.0, 6.0), (150, 25.0, 6.5), (200, 30.0, 5.5)]
    found = time_to_loss.seconds_to(loss, curve)
    assert found == (float("inf") if seconds is None else pytest.approx(seconds))


def test_one_evaluation_judges_our_file_and_the_folder_of_transformers_alike(
        time_to_loss, tmp_path):
    import torch
    from helpers_batches import tiny_model

    from annotated_mpnet.checkpoints import save_checkpoint
    from annotated_mpnet.configuration import PretrainConfig
    from annotated_mpnet.huggingface import to_huggingface
    from annotated_mpnet.tokenization import train_tokenizer
    texts = ["the task is sentence classification", "what is hidden is the same for all " * 9]
    tokenizer = train_tokenizer(texts, 100)
    model = tiny_model(vocab_size=len(tokenizer), max_positions=64).eval()
    torch.nn.init.normal_(model.mpnet.embeddings.word_embeddings.weight)
    save_checkpoint(tmp_path / "checkpoint20.pt", model, tokenizer, PretrainConfig(), 20, {})
    to_huggingface(model, tmp_path / "checkpoint-20", tokenizer)
    batches = time_to_loss.hidden_texts(tokenizer, texts)
    ours, theirs = (time_to_loss.loss_of(tmp_path / name, batches)
                    for name in ("checkpoint20.pt", "checkpoint-20"))
    assert ours == pytest.approx(theirs, abs=1e-4) and ours > 1
    (batch,) = batches
    assert torch.equal(batch["input_ids"][batch["at"]],
                       torch.full_like(batch["targets"], tokenizer.mask_token_id))


PEER = f"""{sys.executable} -c "
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
for name in ('checkpoint-20', 'notes.txt', 'model_40.pt'):
    while time.process_time() < 0.3 * len(list(out.parent.rglob('*'))): pass
    (out / name).mkdir(parents=True)
" """


def test_a_command_is_watched_and_its_checkpoints_timed(time_to_loss, tmp_path):
    seen = time_to_loss.watched(f"{PEER} {tmp_path / 'out'}", tmp_path / "out")
    assert [path.name for path in seen] == ["checkpoint-20", "model_40.pt"]
    first, second = seen.values()
    assert 0 <= first < second
    with pytest.raises(SystemExit, match="ended with 3: so it said"):
        fails = f"{sys.executable} -c \"import sys; sys.stderr.write('so it said'); sys.exit(3)\""
        time_to_loss.watched(fails, tmp_path / "none")
RANKS = """
import ranks
ranks.GLOBAL, ranks.DOCUMENTS, ranks.LENGTH, ranks.RANKS = 64, 192, 64, (1, 2, 4)
ranks.main()
"""


def test_what_ranks_have_together_is_checked_before_their_cost_is_measured(tmp_path):
    printed = run(RANKS, tmp_path)
    assert printed.count("ranks have what one has") == 4
    (head, _, *table), = tables(printed)
    assert head == ["", "1 of 1", "1 of 2", "1 of 4"] and len(table) == 8
    assert all(re.fullmatch(r"[\d,]+ \(1.00\)", row[1]) for row in table)
