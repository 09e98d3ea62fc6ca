"""Where a run begins: from a transformers model or another program's checkpoint, by the command."""
import pytest
import torch
from helpers_runs import FIXTURES, failed, finished
from transformers import AutoTokenizer, MPNetConfig, MPNetForMaskedLM, MPNetModel

from annotated_mpnet import origin, reading, start
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.checkpoints import load_model, read_checkpoint
from annotated_mpnet.huggingface import from_huggingface

TEXTS = [
    "the task is sentence classification",
    "the value of a function is returned",
    "a list of names is sorted in place",
] * 4
RUN = """
    --train-dir texts --valid-file valid.txt --test-file valid.txt --max-tokens 16
    --batch-size 4 --update-freq 1 --total-updates 2 --lr 1e-9 --weight-decay 0 --precision float32
""".split()
FINAL = "checkpoints/final_checkpoint.pt"


@pytest.fixture
def place(tmp_path):
    "A folder with texts, a tokenizer, and a random transformers model with that tokenizer."
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "valid.txt").write_text("\n".join(TEXTS[:3]))
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "tokenizer")
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = MPNetConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, hidden_size=16,
        max_position_embeddings=26, layer_norm_eps=1e-5, **layers)
    torch.manual_seed(0)
    for name, kind in (("model", MPNetForMaskedLM), ("headless", MPNetModel)):
        kind(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def close(a: dict, b: dict) -> bool:
    "Two updates at a rate of 1e-9 change nothing that can be seen."
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=1e-7) for name in a)


def test_from_a_transformers_model(place):
    # architecture and tokenizer come from it
    said = finished([*RUN, "--hf-model-path", "model"], place)
    assert "only the weights are taken from model" in said and "update 0" in said
    trained, (origin, _) = load_model(place / FINAL), from_huggingface(place / "model")
    assert close(trained.state_dict(), origin.state_dict())
    assert trained.config.max_positions == 24
    assert not torch.equal(trained.lm_head.dense.weight, origin.lm_head.dense.weight)


def test_from_a_model_without_a_head(place):
    said = finished([*RUN, "--hf-model-path", "headless", "--seed", "4"], place)
    assert "head" in said.split("parameters")[0]
    headless, _ = from_huggingface(place / "headless")
    assert close(load_model(place / FINAL).mpnet.state_dict(), headless.mpnet.state_dict())


@pytest.mark.parametrize("more, says", [
    (["--max-tokens", "64"],
     "--max-tokens 64 is more than the 24 positions of model; give --max-tokens 24 or less"),
    (["--encoder-layers", "2"], "--encoder-layers 2 contradicts model, which has 1"),
    (["--resume"], "give one of them"),
    (["--hf-model-path", "nowhere"], "nowhere"),
    (["--hf-model-path", "texts"], "texts"),
])
def test_refused(place, more, says):
    assert says in failed([*RUN, "--hf-model-path", "model", *more], place)
    assert not (place / "checkpoints").exists()


@pytest.mark.parametrize("name, trust", [
    ("pszemraj_a", False), ("yext_legacy", True), ("fairseq_mpnet", True)])
def test_from_other_programs(place, name, trust):
    path = FIXTURES / f"{name}.pt"
    argv = [*RUN, "--resume", "--resume-checkpoint", str(path)]
    argv += ["--tokenizer-name", str(FIXTURES / "tokenizer")]
    if trust:
        assert "--trust-checkpoint" in failed(argv, place)
    said = finished(argv + ["--trust-checkpoint"] * trust, place)
    assert "only the weights are taken" in said
    trained, origin = load_model(place / FINAL), load_model(path, trust_checkpoint=trust)
    assert close(trained.state_dict(), origin.state_dict())
    assert read_checkpoint(place / FINAL)["update"] == 2
    deeper = "--encoder-layers 7 --trust-checkpoint --checkpoint-dir other".split()
    assert "contradicts" in failed([*argv, *deeper], place)


def test_a_foreign_file_without_a_tokenizer_needs_its_name(place):
    argv = [*RUN, "--resume", "--resume-checkpoint", str(FIXTURES / "pszemraj_a.pt")]
    assert "microsoft/mpnet-base" in failed(argv, place)
    assert "name the tokenizer" in failed([*argv, "--tokenizer-name", "demo"], place)


def test_a_start_reads_each_file_once_checks_once_and_builds_one_model(place, monkeypatch):
    "In a folder of five checkpoints, of which only the newest is opened."
    state = "--save-optimizer-state --checkpoint-interval 1 --total-updates 3".split()
    tokenizer = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
    finished([*RUN, *state, *tokenizer, "--encoder-layers", "1", "--encoder-embed-dim", "16",
              "--encoder-ffn-dim", "16", "--encoder-attention-heads", "2"], place)
    monkeypatch.chdir(place)
    opened, checks, models = [], [], []
    read, check, build = reading._load_plain, start.check, origin.MPNetForPretraining
    monkeypatch.setattr(reading, "_load_plain",
                        lambda path, trust: opened.append(path.name) or read(path, trust))
    monkeypatch.setattr(start, "check", lambda *given: checks.append(given) or check(*given))
    monkeypatch.setattr(origin, "MPNetForPretraining",
                        lambda shape: models.append(shape) or build(shape))
    begun = start.prepare(parse_args(["--resume", "--total-updates", "5"]))
    assert (opened, len(checks), len(models)) == (["checkpoint3.pt"], 1, 1)
    assert begun.content["update"] == 3 and begun.config.total_updates == 5
    with pytest.raises(AttributeError):
        begun.config = None  # frozen
