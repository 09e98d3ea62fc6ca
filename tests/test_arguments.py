"""Every argument does what the reference says: short real runs, one for each effect."""
import itertools
import os
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml
from helpers_runs import FIXTURES, Run, failed, finished
from test_tracking import wandb_history, wandb_records

from annotated_mpnet import configuration, machine, pieces, workers
from annotated_mpnet.checkpoints import load_model, read_checkpoint
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.configuration import ACTIVATIONS, FIELDS, UserError
from annotated_mpnet.huggingface import to_huggingface
from annotated_mpnet.tokenization import embedded_corpus, load_tokenizer
from annotated_mpnet.tracking import read_scalars
from annotated_mpnet.trainer import pretrain

TOKENIZER = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
TINY = ("--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 32 "
        "--encoder-attention-heads 2 --max-tokens 24").split()
SHORT = ("--batch-size 4 --update-freq 2 --total-updates 6 --lr 1e-2 --seed 3 "
         "--buffer-size 64 --precision float32").split()
SMALL = [*TINY, *TOKENIZER, *SHORT]
FILES = "--train-dir texts --valid-file valid.txt --test-file test.txt".split()
STREAM = "--dataset-name stream --eval-samples 8 --min-text-length 0".split()
BASE = [*SMALL, *FILES, "--checkpoint-dir", "run"]
NO_DROPOUT = "--dropout 0 --attention-dropout 0 --activation-dropout 0".split()


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    "The same 130 passages as text files and as Parquet files."
    import pyarrow as pa
    import pyarrow.parquet as pq
    folder = tmp_path_factory.mktemp("texts")
    passages = embedded_corpus()[:130]
    for name in ("texts", "stream"):
        (folder / name).mkdir()
    (folder / "texts/a.txt").write_text("\n".join(passages[20:]))
    for name, part in (("valid.txt", passages[:10]), ("test.txt", passages[10:20])):
        (folder / name).write_text("\n".join(part))
    for i, part in enumerate((passages[:65], passages[65:])):
        table = pa.table({"text": part, "backwards": [p[::-1] for p in part]})
        pq.write_table(table, folder / f"stream/{i}.parquet")
    return folder


@pytest.fixture
def place(tmp_path, texts, monkeypatch) -> Path:
    "An empty folder to run in, with the texts in it."
    for path in texts.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COUNT = itertools.count()


def trained(*more: str, base=BASE, **given) -> dict:
    "A run in this process, in a folder of its own; what its final checkpoint holds."
    result = pretrain(parse_args([*base, "--checkpoint-dir", f"run{next(COUNT)}", *more]), **given)
    return read_checkpoint(result["final_checkpoint"]) | {"result": result}


def apart(a: dict, b: dict) -> float:
    "The largest difference between the weights of two runs; infinite where they have other shapes."
    a, b = a["model"], b["model"]
    if {name: x.shape for name, x in a.items()} != {name: x.shape for name, x in b.items()}:
        return float("inf")
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def final_checkpoint(folder: str = "run") -> dict:
    return read_checkpoint(f"{folder}/final_checkpoint.pt")


def lines(said: str, name: str) -> list[int]:
    "The updates at which a number was shown."
    return [int(line.split()[0]) for line in said.splitlines() if f"  {name}/loss " in line]


# --compile


QUICK = """
import torch._inductor.config as c
c.cpp_cache_precompile_headers = False             # less for the C++ compiler to do
c.cpp.simdlen = c.compile_threads = 1
from annotated_mpnet import pieces                 # without a second graph to compile:
pieces.evaluate = lambda *_: dict(loss=1.0, accuracy=0.0, mask_loss=1.0)
"""
COUNTED = """
import sys, torch._dynamo.utils
from annotated_mpnet import model
original = model.MPNetEncoder.compile
leave = sys.exit
def compile(self, **how):
    original(self, **how, backend="eager")         # all of it but the C++ compiler
def exit(code=0):
    print("compiled", torch._dynamo.utils.counters["stats"]["unique_graphs"], "graphs")
    leave(code)
model.MPNetEncoder.compile = compile
sys.exit = exit
"""


def test_compiled_by_the_real_compiler(place):
    argv = [*NO_DROPOUT, "--lr", "1e-3", "--total-updates", "4"]
    finished([*BASE, *argv, "--compile"], place, QUICK)
    compiled, eager = final_checkpoint(), trained(*argv)
    # Rounding, of which Adam makes most where the gradient is 0 but for it: 9e-7 was seen.
    # What is learned moves weights by 1e-3.
    assert apart(compiled, eager) < 1e-5
    loss, expected = (run["metrics"]["train/loss"] for run in (compiled, eager))
    assert loss == pytest.approx(expected, abs=1e-5)


def test_compiled_once_for_all_shapes_and_resumed(place):
    argv = "--compile --save-optimizer-state --save-steps 5 --total-updates 20".split()
    said = finished([*BASE, *argv], place, COUNTED)
    assert "compiled 2 graphs" in said                     # one to train and one to evaluate
    argv = "--resume --resume-checkpoint run/checkpoint10.pt --checkpoint-dir again".split()
    said = finished(argv, place, COUNTED)
    assert "compiled 2 graphs" in said
    assert apart(final_checkpoint(), final_checkpoint("again")) == 0


NO_COMPILER = """
import os
os.environ |= dict(CXX='/nonexistent', TORCHINDUCTOR_CACHE_DIR='none')
import torch._inductor.config as c
c.cpp.cxx = None, '/nonexistent'
c.force_disable_caches = True
"""


def test_no_compiler_is_said_in_a_line(place):
    last = failed([*BASE, "--compile"], place, NO_COMPILER)
    assert "--compile" in last and "C++ compiler" in last and "without --compile" in last
    assert not list(place.glob("run/*.pt"))


# The model


def test_gradient_checkpointing_changes_nothing(place):
    for more in ([], ["-prenorm"]):
        plain = trained("--encoder-layers", "2", *more)
        less_memory = trained("--encoder-layers", "2", *more, "--gradient-checkpointing")
        assert less_memory["config"]["gradient_checkpointing"]
        assert apart(plain, less_memory) == 0              # with dropout


def test_activations_and_norms_are_seven_and_two(place):
    runs = {name: trained("-activation", name) for name in ACTIVATIONS}
    runs["prenorm"] = trained("-prenorm")
    assert len(ACTIVATIONS) == 7
    for a, b in itertools.combinations(runs, 2):
        assert apart(runs[a], runs[b]) > 1e-6, (a, b)
    for name, run in runs.items():
        config = load_model(Path(run["result"]["final_checkpoint"])).config
        assert config.activation_fn == (name if name != "prenorm" else "gelu")
        assert config.normalize_before == (name == "prenorm")


def test_precision(place, caplog, capsys, monkeypatch):
    full = trained("--precision", "float32")
    assert "in float32" in capsys.readouterr().out
    half = trained("--precision", "bfloat16")
    assert "in bfloat16" in capsys.readouterr().out and 0 < apart(full, half)
    loss, expected = (run["metrics"]["train/loss"] for run in (half, full))
    assert loss == pytest.approx(expected, rel=0.01)       # 8 bits: 3e-5 was seen
    for has, same_as in ((True, half), (False, full)):
        monkeypatch.setattr(machine, "has_bfloat16", lambda device: has)
        assert apart(trained("--precision", "auto"), same_as) == 0
    assert all(x.dtype == torch.float32 for x in half["model"].values())


def test_objectives_and_the_auxiliary_loss(place):
    kinds = ("--objective mpnet", "--objective mlm", "--objective plm", "--return-mlm")
    runs = {name: trained(*name.split()) for name in kinds}
    for a, b in itertools.combinations(runs, 2):
        assert apart(runs[a], runs[b]) > 1e-6, (a, b)
    assert {run["model_config"]["objective"] for run in runs.values()} == {"mpnet", "mlm", "plm"}
    with pytest.raises(UserError, match="--return-mlm goes with"):
        trained("--return-mlm", "--objective", "mlm")


@pytest.mark.parametrize("more", [["--num-workers", "2"], ["--num-workers", "2", "--packing"]])
def test_workers_change_nothing(place, more):
    assert apart(trained(*more), trained(*more[2:])) == 0


# Optimization


def test_clipping_off_and_the_norm_is_still_logged(place):
    free = trained("--clip-grad-norm", "0")
    clipped = trained("-grad_clip", "0.01")
    wide = trained("-grad_clip", "1e9")
    assert apart(free, wide) == 0 < apart(free, clipped)
    short = [trained("-grad_clip", limit, "--total-updates", "1") for limit in ("0", "0.01")]
    first = [run["metrics"]["train/grad_norm"] for run in short]
    assert first[0] == first[1] > 0.01                     # as it was before clipping


def test_the_schedule_as_logged(place):
    schedule = "--lr 1e-2 --end-learning-rate 1e-3 --power 2 --warmup-updates 2 --total-updates 6"
    trained(*schedule.split(), "--logging-steps", "1", "--tensorboard-log-dir", "logs")
    decay = [1e-3 + 9e-3 * (left / 4) ** 2 for left in (4, 3, 2, 1)]
    logged = [value for _, value in read_scalars("logs")["train/learning_rate"]]
    assert logged == pytest.approx([5e-3, 1e-2, *decay])


def test_intervals(place):
    argv = "--total-updates 11 --logging-steps 4 --eval-interval-steps 3".split()
    said = finished([*BASE, *argv], place)
    assert lines(said, "train") == [4, 8, 11]
    assert lines(said, "valid") == [3, 6, 9, 11]
    assert lines(said, "test") == [11]
    argv = "--overwrite --total-updates 4 --save-steps 2 --logging-steps 100".split()
    said = finished([*BASE, *argv], place)
    assert lines(said, "train") == [4]
    assert lines(said, "valid") == [2, 4]                  # by default as often as checkpoints


# Evaluation


def test_every_evaluation_is_the_same(place):
    "Nothing is learned, so the same text with the same masks gives the same loss."
    for more in ([], ["-prenorm", "--objective", "mlm"], STREAM):
        logs = f"logs{len(more)}"
        trained("--lr", "1e-30", "--eval-interval-steps", "2", "--tensorboard-log-dir", logs, *more)
        for name in ("loss", "accuracy", "mask_loss"):
            (a, x), (b, y), (c, z) = read_scalars(logs)[f"valid/{name}"]
            assert (a, b, c) == (2, 4, 6) and x == y == z


def test_the_test_is_done_once_with_the_best_model(place, monkeypatch):
    "The second of three evaluations is made to look the best; the test has the same text."
    found, better = [], (0, 100, 0, 0)
    evaluate = pieces.evaluate

    def shifted(*given):
        found.append(evaluate(*given)["loss"])
        return {"loss": found[-1] - better[len(found) - 1], "accuracy": 0.0, "mask_loss": 0.0}

    monkeypatch.setattr(pieces, "evaluate", shifted)
    argv = "--eval-interval-steps 2 --test-file valid.txt --tensorboard-log-dir logs".split()
    run = trained(*argv)["result"]
    assert len(found) == 4 and len(set(found)) == 3        # three models, and the test of one
    assert run["test/loss"] == found[3] == found[1] and run["valid/loss"] == found[2]
    assert read_checkpoint(run["best_checkpoint"])["update"] == 4
    assert [step for step, _ in read_scalars("logs")["test/loss"]] == [6]


@pytest.mark.parametrize("lost", ["deleted", "nan"])
def test_a_run_without_a_best_checkpoint_still_ends(place, lost, monkeypatch):
    argv = [*BASE, "--save-optimizer-state", "--save-steps", "3"]
    if lost == "nan":
        nothing = dict.fromkeys(("loss", "accuracy", "mask_loss"), float("nan"))
        monkeypatch.setattr(pieces, "evaluate", lambda *_: nothing)
    result = pretrain(parse_args(argv))
    if lost == "deleted":
        Path(result["best_checkpoint"]).unlink()
        result = pretrain(parse_args([*argv, "--resume"]))
    assert Path(result["best_checkpoint"]).exists() and "test/loss" in result


# Logging


def test_debug_says_more(place):
    plain = finished(BASE, place)
    more = finished([*BASE, "--overwrite", "--debug"], place)
    assert "DEBUG" not in plain
    assert more.count("pretrain-mpnet: DEBUG: ") >= 2 and "checkpoint.pt" in more


def test_a_yaml_file(place):
    given = parse_args(BASE)
    settings = {name: getattr(given, name) for name in given.given - {"update_freq"}}
    (place / "run.yaml").write_text(yaml.safe_dump(settings | {"gc_steps": 1, "prenorm": True}))
    finished(["--config", "run.yaml", "--total-updates", "4"], place)
    found = final_checkpoint()
    config = found["config"]
    assert found["update"] == 4
    assert (config["update_freq"], config["normalize_before"]) == (1, True)


OFFLINE = """
import os
here = os.getcwd()
os.environ |= {"WANDB_MODE": "offline", "HOME": here,
               "WANDB_CONFIG_DIR": here + "/c", "WANDB_CACHE_DIR": here + "/c"}
"""
KILLED = OFFLINE + """
import signal
from annotated_mpnet import trainer
original = trainer.accumulate
count = []
def accumulate(*given):
    count.append(1)
    if len(count) == 7:
        os.kill(os.getpid(), signal.SIGTERM)
    return original(*given)
trainer.accumulate = accumulate
"""


def wandb_runs(folder: Path) -> list:
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    records = [record for path in paths for record in wandb_records(path)]
    return [record.run for record in records if record.HasField("run")]


def test_wandb_through_the_command_stopped_and_resumed(place):
    pytest.importorskip("wandb")
    tracked = "--wandb --wandb-project my-project --wandb-name night --wandb-watch".split()
    often = "--logging-steps 1 --eval-interval-steps 3 --total-updates 12".split()
    run = Run([*BASE, *tracked, *often], place, KILLED)
    assert run.finish() == 143, run.said()
    again = "--resume --checkpoint-dir run".split()        # --wandb comes from the checkpoint
    finished(again, place, OFFLINE)
    rows, runs = wandb_history(place / "run"), wandb_runs(place / "run")
    assert len({r.run_id for r in runs}) == 1
    assert {(r.project, r.display_name) for r in runs} == {("my-project", "night")}
    steps = {"train/loss": range(1, 13), "valid/loss": range(3, 13, 3), "test/loss": [12]}
    for name, at in steps.items():
        assert [row["_step"] for row in rows if name in row] == list(at), name
    assert any("gradients/mpnet" in name for row in rows for name in row)
    finished([*again, "--wandb-id", "another", "--total-updates", "13"], place, OFFLINE)
    assert wandb_runs(place / "run")[-1].run_id == "another"


# The reference's common configurations; what follows `SMALLER` makes them small


SMALLER = [*TINY, *TOKENIZER, *STREAM, "--total-updates", "3"]
REFERENCE = {
    "MPNet-base": "--encoder-layers 12 --encoder-embed-dim 768 --encoder-ffn-dim 3072 "
                  "--encoder-attention-heads 12",
    "Memory-constrained": "--batch-size 8 --update-freq 16 --gradient-checkpointing",
    "Resumable": "--save-optimizer-state --checkpoint-interval 2500",
    "Resumed": "--resume --resume-checkpoint ./checkpoints/checkpoint2500.pt",
    "Full logging": "--tensorboard-log-dir ./logs --wandb --wandb-project my-project "
                    "--logging-steps 10",
}


@pytest.mark.parametrize("name", ["MPNet-base", "Memory-constrained"])
def test_common_configuration(name, place):
    finished([*REFERENCE[name].split(), *SMALLER], place)
    config = final_checkpoint("checkpoints")["config"]
    found = tuple(config[x] for x in ("batch_size", "update_freq", "gradient_checkpointing"))
    assert found == ((16, 8, False) if name == "MPNet-base" else (8, 16, True))
    assert config["dataset_name"] == "stream" and config["save_optimizer_state"] is False


HASTY = """
from annotated_mpnet import trainer
learn = trainer.learn
first = []
def hasty(run, batches, counts):
    "Counts most updates without computing them: when things happen counts, not what is learned."
    if 2 <= run.update < 2490:
        run.update += 1
        return first[0]
    first.append(learn(run, batches, counts))
    return first[-1]
trainer.learn = hasty
"""
SMALLEST = ("--encoder-embed-dim 2 --encoder-attention-heads 1 --encoder-ffn-dim 2 --max-tokens 6 "
            "--batch-size 1 --update-freq 1 --logging-steps 500 --precision float32").split()


def test_common_configuration_resumable(place):
    argv = [*REFERENCE["Resumable"].split(), *SMALLER, *SMALLEST]
    said = finished([*argv, "--total-updates", "2500"], place, HASTY)
    assert (place / "checkpoints/checkpoint2500.pt").exists() and lines(said, "valid") == [2500]
    argv = REFERENCE["Resumed"].split()                    # all else comes from the checkpoint
    said = finished([*argv, "--total-updates", "2505"], place)
    assert "resumed after update 2,500" in said
    final = final_checkpoint("checkpoints")
    assert final["update"] == 2505 and "state" in final
    assert final["config"]["checkpoint_interval"] == 2500


def test_common_configuration_full_logging(place):
    pytest.importorskip("wandb")
    smaller = [*SMALLER, *"--total-updates 20 --batch-size 2 --update-freq 1".split()]
    said = finished([*REFERENCE["Full logging"].split(), *smaller], place, OFFLINE)
    curves = {name: [step for step, _ in line] for name, line in read_scalars("logs").items()}
    assert curves["train/loss"] == lines(said, "train") == [10, 20]
    assert curves["valid/loss"] == curves["test/loss"] == [20]
    rows = wandb_history(place / "checkpoints")
    tracked = {(row["_step"], name) for row in rows for name in row if "/" in name}
    assert tracked == {(step, name) for name, steps in curves.items() for step in steps}
    assert [r.project for r in wandb_runs(place / "checkpoints")] == ["my-project"]


# Mutual exclusivity and constraints, row by row


def test_streaming_overrides_files(place, caplog):
    run = trained(*STREAM, "--train-dir", "not-even-there")
    assert ("--dataset-name stream is used; "
            "--train-dir and --valid-file and --test-file ignored") in caplog.text
    assert run["config"]["train_dir"] is None and apart(run, trained(*STREAM, base=SMALL)) == 0


def test_one_source_of_weights(place):
    assert "give one of them" in failed([*BASE, "--hf-model-path", "model", "--resume"], place)


def test_max_positions_and_max_tokens(place, caplog):
    last = failed([*BASE, "--max-positions", "16"], place)
    assert "--max-positions 16 is below --max-tokens 24" in last
    assert apart(trained("--max-positions", "24"), trained()) == 0       # they match
    with caplog.at_level("INFO", "annotated_mpnet"):
        longer = trained("--max-positions", "48")
    assert "48 positions for texts of up to 24 tokens" in caplog.text
    assert longer["model_config"]["max_positions"] == 48


@pytest.mark.parametrize("workers", ["0", "2"])
def test_exact_resume_of_a_stream(place, workers):
    "The reference promises it for no workers; here any number will do."
    saves = "--save-optimizer-state --save-steps 3 --keep-checkpoints -1".split()
    whole = trained(*STREAM, *saves, base=SMALL)
    middle = Path(whole["result"]["final_checkpoint"]).with_name("checkpoint3.pt")
    argv = ["--resume", "--resume-checkpoint", str(middle), "--num-workers", workers]
    again = trained(base=argv)
    assert apart(whole, again) == 0
    assert again["metrics"]["train/loss"] == whole["metrics"]["train/loss"]


def test_full_resume_needs_the_state(place, caplog):
    saved = trained("--save-steps", "3")["result"]
    path = Path(saved["final_checkpoint"]).with_name("checkpoint3.pt")
    argv = ["--resume", "--resume-checkpoint", str(path), "--lr", "1e-30", "--total-updates", "2"]
    with caplog.at_level("INFO", "annotated_mpnet"):
        again = trained(*argv)
    assert "only the weights are taken" in caplog.text
    assert again["update"] == 2 and apart(again, read_checkpoint(path)) < 1e-6


def from_legacy(name: str) -> list[str]: # the command line
    "Resume a checkpoint of an older program, on the local files."
    source = ["--resume", "--resume-checkpoint", str(FIXTURES / name)]
    small = "--max-tokens 24 --batch-size 4 --update-freq 1".split()
    return [*TOKENIZER, *FILES, *source, *small]


@pytest.mark.parametrize("name", ["yext_legacy.pt", "pszemraj_a.pt", "fairseq_mpnet.pt"])
def test_legacy_checkpoints_only_give_weights(place, name, caplog):
    argv = "--trust-checkpoint --lr 1e-30 --total-updates 2 --precision float32".split()
    with caplog.at_level("INFO", "annotated_mpnet"):
        run = trained(*argv, base=from_legacy(name))
    assert "only the weights are taken" in caplog.text and run["update"] == 2
    assert apart(run, {"model": load_model(FIXTURES / name, True).state_dict()}) < 1e-6


# Each argument has an effect. First those that change what is learned: the weights after six
# updates differ.


LEARNS = {
    "encoder_layers": "2", "encoder_embed_dim": "32",
    "encoder_ffn_dim": "48", "encoder_attention_heads": "4",
    "dropout": "0.3", "attention_dropout": "0.3", "activation_dropout": "0.3",
    "normalize_before": None, "activation_fn": "relu",
    "max_tokens": "16", "max_positions": "40",
    "relative_attention_num_buckets": "8", "relative_attention_max_distance": "9",
    "tokenizer_name": "other", "train_dir": "more",
    "total_updates": "7", "batch_size": "3", "update_freq": "1", "seed": "4",
    "lr": "1e-3", "warmup_updates": "3", "end_learning_rate": "5e-3", "power": "2",
    "beta1": "0.5", "beta2": "0.5", "weight_decay": "0.5", "adam_eps": "0.1",
    "clip_grad_norm": "0.001", "objective": "mlm", "return_mlm": None,
    "pred_prob": "0.3", "keep_prob": "0.5", "rand_prob": "0.5", "no_whole_word_mask": None,
    "max_gram": "3", "document_per_file": None, "precision": "bfloat16", "packing": None,
    "buffer_size": "16",
}
STREAMS = {"dataset_name": "other-stream", "text_field": "backwards",
           "eval_samples": "4", "min_text_length": "200"}
KINDS = {"files": FILES, "stream": STREAM}


@pytest.fixture(scope="module")
def base(texts, tmp_path_factory):
    "The runs without the argument."
    here = Path.cwd()
    os.chdir(texts)
    try:
        folder = str(tmp_path_factory.mktemp("base"))
        yield {kind: trained("--checkpoint-dir", f"{folder}/{kind}", base=[*SMALL, *source])
               for kind, source in KINDS.items()}
    finally:
        os.chdir(here)


@pytest.mark.parametrize("name", [*LEARNS, *STREAMS])
def test_it_changes_what_is_learned(name, place, base):
    value = (LEARNS | STREAMS)[name]
    if name in ("train_dir", "dataset_name"):
        (place / value).mkdir()
        (place / value / "b.txt").write_text("\n".join(embedded_corpus()[200:260]))
    if name == "tokenizer_name":
        tokenizer = load_tokenizer(TOKENIZER[1], 24)
        tokenizer.add_tokens([f"newword{i}" for i in range(50)])
        tokenizer.save_pretrained("other")
    more = [configuration.flag(name), *([] if value is None else [value])]
    kind = "stream" if name in STREAMS else "files"
    run = trained(*more, base=[*SMALL, *KINDS[kind]])
    assert apart(run, base[kind]) > 1e-7
    if name == "relative_attention_max_distance":
        model = load_model(Path(run["result"]["final_checkpoint"]))
        assert model.config.relative_attention_max_distance == 9


# Then those that change what is measured, shown or written, each with the test that shows it.


WANDB = "test_wandb_through_the_command_stopped_and_resumed"
ELSEWHERE = {
    "fsdp": "test_ranks.test_two_ranks_do_what_one_does_with_twice_the_batch",
    "attention_backend": "test_attention_backend_reaches_the_model",
    "valid_file": "test_held_out_files",
    "test_file": "test_held_out_files",
    "gradient_checkpointing": "test_gradient_checkpointing_reaches_the_model",
    "compile": "test_compiled_once_for_all_shapes_and_resumed",
    "num_workers": "test_workers_are_started",
    "checkpoint_dir": "test_common_configuration",
    "checkpoint_interval": "test_common_configuration_resumable",
    "keep_checkpoints": "test_resume.test_keep_checkpoints",
    "save_optimizer_state": "test_full_resume_needs_the_state",
    "resume": "test_exact_resume_of_a_stream",
    "resume_checkpoint": "test_exact_resume_of_a_stream",
    "trust_checkpoint": "test_trust",
    "hf_model_path": "test_weights_from_transformers",
    "eval_interval_steps": "test_intervals",
    "tensorboard_log_dir": "test_the_schedule_as_logged",
    "logging_steps": "test_intervals",
    "debug": "test_debug_says_more",
    "wandb": WANDB,
    "wandb_project": WANDB,
    "wandb_name": WANDB,
    "wandb_id": WANDB,
    "wandb_watch": WANDB,
    "demo": "test_cli.test_demo_tells_its_story",
    "config": "test_a_yaml_file",
    "dataset_config_name": "test_options_of_a_stream",
    "skip_broken_shards": "test_options_of_a_stream",
    "max_broken_share": "test_texts.test_a_share_above_the_bound_ends_the_run"
                        "_and_it_resumes_with_a_larger_one",
    "overwrite": "test_resume.test_overwrite_leaves_nothing_of_the_old_run",
}


def test_no_argument_is_without_a_test():
    assert sorted([*LEARNS, *STREAMS, *ELSEWHERE]) == sorted(FIELDS)
    for test in ELSEWHERE.values():
        module, _, name = test.rpartition(".")
        source = Path(__file__).with_name(f"{module or 'test_arguments'}.py").read_text()
        assert re.search(rf"^def {name}\(", source, re.M), test


def test_held_out_files(place, base):
    (place / "other.txt").write_text("\n".join(embedded_corpus()[300:310]))
    plain = base["files"]["result"]
    for name, other in (("valid", "test"), ("test", "valid")):
        run = trained(f"--{name}-file", "other.txt")
        assert apart(run, base["files"]) == 0
        assert run["result"][f"{name}/loss"] != plain[f"{name}/loss"]
        assert run["result"][f"{other}/loss"] == plain[f"{other}/loss"]


def test_attention_backend_reaches_the_model(place):
    sdpa, auto = trained(*NO_DROPOUT, "--attention-backend", "sdpa"), trained(*NO_DROPOUT)
    # Another way to the same numbers: 7e-6 was seen, and weights move by 1e-2.
    assert apart(sdpa, auto) < 1e-4
    # With dropout: other random numbers.
    assert apart(trained("--attention-backend", "sdpa"), trained()) > 1e-4
    with pytest.raises(UserError, match="attention-dropout 0"):
        trained("--attention-backend", "flex")
    with pytest.raises(UserError, match="GPU"):
        trained(*NO_DROPOUT, "--attention-backend", "flex")


def test_gradient_checkpointing_reaches_the_model(place, monkeypatch):
    from annotated_mpnet import encoder
    watched = Mock(wraps=encoder.checkpoint)
    monkeypatch.setattr(encoder, "checkpoint", watched)
    trained("--total-updates", "2")
    assert not watched.called
    trained("--total-updates", "2", "--gradient-checkpointing")
    assert watched.call_count == 4                 # one layer, two micro-batches, two updates


def test_workers_are_started(place, monkeypatch):
    watched = Mock(wraps=workers.worker_loader)
    monkeypatch.setattr(workers, "worker_loader", watched)
    trained("--num-workers", "2", "--total-updates", "1")
    assert [call.args[1] for call in watched.call_args_list] == [0, 1]


def test_trust(place):
    argv = [*from_legacy("yext_legacy.pt"), "--checkpoint-dir", "run", "--total-updates", "1"]
    assert "--trust-checkpoint" in failed(argv, place)
    finished([*argv, "--trust-checkpoint"], place)


def test_weights_from_transformers(place, base):
    path = base["files"]["result"]["final_checkpoint"]
    to_huggingface(path, "exported")
    run = trained("--hf-model-path", "exported", "--lr", "1e-30")
    assert apart(run, base["files"]) < 1e-6
    last = failed([*BASE, "--hf-model-path", "exported", "--encoder-layers", "2"], place)
    assert "--encoder-layers 2 contradicts" in last


def test_options_of_a_stream(place, monkeypatch):
    import datasets
    asked, original = [], datasets.load_dataset_builder

    def load(path, name, **options):
        asked.append((name, options))
        return original(path, name)

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    for argv, wanted in (([], (None, {})),
                         (["--dataset-config-name", "default"], ("default", {})),
                         (["--skip-broken-shards"], (None, {"on_bad_files": "warn"}))):
        trained(*argv, "--total-updates", "1", base=[*SMALL, *STREAM])
        assert asked[-1] == wanted


# From Python


SENTENCES = embedded_corpus()[:40]


@pytest.mark.parametrize("what, train, valid, says", [
    ("empty train", [], SENTENCES, "no text to train on"),
    ("empty valid", SENTENCES, [], "nothing to predict"),
    ("blank", ["", " "], SENTENCES, "nothing to predict"),
    ("numbers", [1, 2, 3], SENTENCES, "int"),
    ("one is missing", [*SENTENCES, None], SENTENCES, "None"),
    ("bytes", [b"abc"], SENTENCES, "bytes"),
    ("lists", [["a", "b"]], SENTENCES, "list"),
    ("numbers to validate on", SENTENCES, [1], "int"),
    ("one text", "the task is sentence classification", SENTENCES, "list"),
    ("an iterator", iter(SENTENCES), SENTENCES, "list"),
    ("rows of a table", [{"text": "a b c"}], SENTENCES, "dict"),
    ("half of a letter", [*SENTENCES, "\ud800 abc"], SENTENCES, "UTF-8"),
    ("only one of both", SENTENCES, None, "both train and valid"),
], ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("more", [[], ["--packing"]], ids=["rows", "packed"])
def test_odd_texts(place, what, train, valid, says, more):
    with pytest.raises(UserError, match=says) as caught:
        trained(*more, base=SMALL, train=train, valid=valid)
    assert "\n" not in str(caught.value)


def test_odd_texts_in_a_worker(place):
    with pytest.raises(UserError, match="int"):
        trained("--num-workers", "2", base=SMALL, train=[1, 2, 3], valid=SENTENCES)


def test_sequences_that_are_no_lists(place):
    import datasets
    import numpy as np
    column = datasets.Dataset.from_dict({"text": SENTENCES})["text"]
    kinds = (SENTENCES, tuple(SENTENCES), np.array(SENTENCES), column)
    runs = [trained(base=SMALL, train=kind, valid=kind) for kind in kinds]
    assert all(apart(runs[0], run) == 0 for run in runs)
    assert not any("test" in name for name in runs[0]["result"])


def test_tokenizers(place):
    plain = [word for word in SMALL if word not in TOKENIZER]
    with pytest.raises(UserError, match="no tokenizer 'microsoft/mpnet-base'"):
        trained(base=plain, train=SENTENCES, valid=SENTENCES)
    bundled = load_tokenizer(TOKENIZER[1], 24)
    own = trained(base=plain, train=SENTENCES, valid=SENTENCES, tokenizer=bundled)
    assert apart(own, trained(base=SMALL, train=SENTENCES, valid=SENTENCES)) == 0
    broken = load_tokenizer(TOKENIZER[1], 24)
    broken.pad_token = None
    with pytest.raises(UserError, match="no padding token"):
        trained(base=plain, train=SENTENCES, valid=SENTENCES, tokenizer=broken)
