"""To Hugging Face and back: the same numbers, or an error that says why not; no half folders."""
import ast
import json
import logging
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers.dynamic_module_utils
from helpers_batches import shake, tiny_model
from helpers_runs import FIXTURES
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel
from transformers import MPNetConfig, MPNetForMaskedLM, MPNetModel, pipeline
from transformers.utils import logging as transformers_logging

from annotated_mpnet import export, huggingface, own_code
from annotated_mpnet.checkpoints import load_checkpoint_tokenizer, save_checkpoint
from annotated_mpnet.cli import convert_main
from annotated_mpnet.configuration import ACTIVATIONS, ModelConfig, PretrainConfig, UserError
from annotated_mpnet.huggingface import from_huggingface, to_huggingface
from annotated_mpnet.model import MPNetForPretraining, fill_mask
from annotated_mpnet.obstacles import TEXTS, obstacles, sample_batch
from annotated_mpnet.optimization import make_optimizer
from annotated_mpnet.own_code import modelling_code
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import load_tokenizer

transformers_logging.disable_progress_bar()
WORDS = "mpnet.embeddings.word_embeddings.weight"
ORIGINAL, PORT, LEGACY = (
    FIXTURES / f"{name}.pt" for name in ("fairseq_mpnet", "pszemraj_a", "yext_legacy"))


@pytest.fixture(scope="module")
def tokenizer(): return load_tokenizer(FIXTURES / "tokenizer", 64) # 500 tokens


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    "transformers copies a model's own code into a cache; not into the user's."
    modules = tmp_path / "modules"
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    monkeypatch.syspath_prepend(modules)


def small(**changes): # a model of the fixture's tokenizer, in eval mode
    return tiny_model(**{"vocab_size": 500} | changes)


def same(a, b): # states
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


@torch.no_grad()
def apart(ours, theirs, tokenizer=None): # over all real tokens
    ids, mask = sample_batch(ours.config, tokenizer)
    logits = ours.logits(ours.encode(ids, mask))[..., :ours.config.vocab_size]
    difference = logits - theirs(input_ids=ids, attention_mask=mask).logits
    return float(difference[mask.bool()].abs().max())


@torch.no_grad()
def bodies_apart(ours, theirs): # theirs is a body without a head
    "The largest difference of hidden vectors, over all real tokens."
    ids, mask = sample_batch(ours.config)
    difference = ours.encode(ids, mask) - theirs(ids, attention_mask=mask).last_hidden_state
    return float(difference[mask.bool()].abs().max())


def padding_is_zero(model): # of a vocabulary of 500
    "Nothing stands in the rows beyond the vocabulary."
    table = model.mpnet.embeddings.word_embeddings.weight
    return not table[500:].any() and not model.lm_head.bias[500:].any()


def files(folder): return sorted(path.name for path in Path(folder).iterdir())


# Ours, theirs, ours

OTHER_SIZES = {
    "encoder_layers": 1, "encoder_embed_dim": 24,
    "encoder_ffn_dim": 10, "encoder_attention_heads": 3,
}


@pytest.mark.parametrize("changes", [
    {},
    OTHER_SIZES,
    {"objective": "plm"},
    {"activation_dropout": 0.3, "attention_dropout": 0.2},
    {"max_positions": 300},
    {"layer_norm_eps": 1e-3},
])
def test_round_trip_is_exact(changes, tokenizer, tmp_path):
    model = small(**changes)
    assert to_huggingface(model, tmp_path / "hf", tokenizer) < 1e-4
    again, its_tokenizer = from_huggingface(tmp_path / "hf")
    assert again.config == model.config and not again.training
    assert same(again.state_dict(), model.state_dict()) and padding_is_zero(again)
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert its_tokenizer.model_max_length == model.config.max_positions
    assert to_huggingface(again, tmp_path / "second", its_tokenizer) < 1e-4
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("hf", "second")]
    assert weights[1] == weights[0]


@pytest.mark.parametrize("vocab", [127, 128, 129])
def test_padded_vocabulary_without_a_tokenizer(vocab, tmp_path):
    model = small(vocab_size=vocab)
    to_huggingface(model, tmp_path / "hf")
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path / "hf")
    rows = len(theirs.mpnet.embeddings.word_embeddings.weight)
    assert rows == theirs.config.vocab_size == len(theirs.lm_head.bias) == vocab
    again, none = from_huggingface(tmp_path / "hf")
    assert none is None and same(again.state_dict(), model.state_dict())


def test_what_a_folder_holds(tokenizer, tmp_path):
    to_huggingface(small(max_positions=40), tmp_path / "deep/er/hf", tokenizer)
    folder = tmp_path / "deep/er/hf"
    tokenizer.save_pretrained(tmp_path / "tokenizer")  # of transformers 4, there is a file more
    its_files = files(tmp_path / "tokenizer")
    assert files(folder) == sorted(["README.md", "config.json", "model.safetensors", *its_files])
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(its_files)
    assert files(folder.parent) == ["hf"]  # nothing temporary is left
    config = json.loads((folder / "config.json").read_text())
    wanted = {
        "model_type": "mpnet", "architectures": ["MPNetForMaskedLM"],
        "vocab_size": 500, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "hidden_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "max_position_embeddings": 42, "relative_attention_num_buckets": 32,
    }
    assert wanted.items() <= config.items()
    theirs = AutoModelForMaskedLM.from_pretrained(folder)
    its = AutoTokenizer.from_pretrained(folder)
    assert len(its) == theirs.get_input_embeddings().weight.shape[0] == 500
    assert its.model_max_length == 40
    assert set(its("one two", "three").keys()) == {"input_ids", "attention_mask"}
    assert tokenizer.model_max_length == 64  # the caller's own is left alone


@torch.no_grad()
def test_what_the_comparison_covers(tokenizer):
    model = small(max_positions=300)
    for given in (None, tokenizer):
        ids, mask = sample_batch(model.config, given)
        assert ids.shape == (2, 300) and mask.sum(1).tolist()[1] == 300 and 3 < mask.sum(1)[0] < 20
        assert ((ids == 1) == (mask == 0)).all()  # padding where there is no text, and nowhere else


# What plain transformers can't represent

ALL_AT_ONCE = {
    "normalize_before": True, "activation_fn": "silu",
    "relative_attention_num_buckets": 48, "pad_token_id": 7,
}
BEYOND = {
    "Pre-LN": ({"normalize_before": True}, "Pre-LN"),
    "buckets": ({"relative_attention_num_buckets": 16}, "16 buckets"),
    "distance": ({"relative_attention_max_distance": 64}, "distance 64"),
    "padding id": ({"pad_token_id": 0}, "padding id is 0"),
    "all": (ALL_AT_ONCE, "silu"),
} | {name: ({"activation_fn": name}, name) for name in ACTIVATIONS if name != "gelu"}


@torch.no_grad()
@pytest.mark.parametrize("kind", BEYOND)
def test_refused_plain_and_exported_with_code(kind, tmp_path):
    changes, reason = BEYOND[kind]
    model = small(**changes)
    with pytest.raises(UserError) as caught:
        to_huggingface(model, tmp_path / "hf")
    said = str(caught.value)
    assert reason in said and "with_code" in said and "\n" not in said
    assert not (tmp_path / "hf").exists() and len(obstacles(model.config)) == len(changes)
    assert to_huggingface(model, tmp_path / "hf", with_code=True) < 1e-5
    again, _ = from_huggingface(tmp_path / "hf")
    assert again.config == model.config and same(again.state_dict(), model.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["Pre-LN", "all"])
def test_code_works_through_the_auto_classes(kind, tmp_path):
    model = small(**BEYOND[kind][0])
    to_huggingface(model, tmp_path / f"hf_{len(kind)}", with_code=True)
    folder = tmp_path / f"hf_{len(kind)}"
    head = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    body = AutoModel.from_pretrained(folder, trust_remote_code=True)
    pad = model.config.pad_token_id
    ids = torch.randint(8, 500, (3, 20))
    ids[1, 9:], ids[2, :5] = pad, pad  # padding on either side
    mask = (ids != pad).long()
    # padding included
    assert torch.equal(body(ids, attention_mask=mask).last_hidden_state, model.encode(ids, mask))
    logits = model.logits(model.encode(ids, mask))[..., :500]
    # 500 rows there and 512 here: a kernel may add up in another order
    torch.testing.assert_close(head(ids, attention_mask=mask).logits, logits, atol=1e-5, rtol=0)
    labels = torch.where(mask.bool(), ids, -100)
    loss = head(ids, attention_mask=mask, labels=labels).loss
    assert torch.isclose(loss, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    assert head.config.hidden_size == 16 and head.config.max_position_embeddings == 66
    assert head.get_input_embeddings().weight.shape == (500, 16)
    head.save_pretrained(tmp_path / "again")  # and it survives there
    survived = load_file(tmp_path / "again/model.safetensors")
    assert same(survived, load_file(folder / "model.safetensors"))


def test_code_stands_alone():
    nodes = list(ast.walk(ast.parse(modelling_code())))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [node.names[0].name for node in nodes if isinstance(node, ast.Import)]
    wanted = {"collections", "typing", "torch", "transformers"}
    assert {name.split(".")[0] for name in names} == wanted
    assert "ModelConfig" not in modelling_code().replace("AnnotatedMPNetConfig", "")


# Theirs, ours, training, theirs

def save_theirs(model,  # of transformers
                folder, kind, # safetensors or bin
                sharded, tied):
    "What save_pretrained writes, for .bin that of old versions, with both names of tied tensors."
    model.save_pretrained(folder, max_shard_size="20KB" if sharded else "5GB")
    if kind == "safetensors": return
    names = list(Path(folder).glob("*.safetensors"))
    state = {name: x for path in names for name, x in load_file(path).items()}
    for path in names:
        path.unlink()
    (Path(folder) / "model.safetensors.index.json").unlink(missing_ok=True)
    if tied and isinstance(model, MPNetForMaskedLM):
        state["lm_head.decoder.weight"] = state[WORDS]
        state["lm_head.decoder.bias"] = state["lm_head.bias"]
    state["mpnet.embeddings.position_ids"] = torch.arange(66)[None]
    if not sharded: return torch.save(state, Path(folder) / "pytorch_model.bin")
    parts = {f"pytorch_model-{i + 1:05}-of-00003.bin": sorted(state)[i::3] for i in range(3)}
    for part, members in parts.items():
        torch.save({name: state[name] for name in members}, Path(folder) / part)
    weight_map = {name: part for part, members in parts.items() for name in members}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (Path(folder) / "pytorch_model.bin.index.json").write_text(index)


def theirs(kind=MPNetForMaskedLM, **changes): # random, in eval mode
    torch.manual_seed(1)
    sizes = {
        "vocab_size": 500, "max_position_embeddings": 66, "num_hidden_layers": 2,
        "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
    }
    model = kind(MPNetConfig(**sizes | changes)).eval()
    shake(model)
    return model


def train(model, tokenizer, updates=2):
    "A few updates by hand."
    optimizer = make_optimizer(model, PretrainConfig(lr=1e-3))
    collate = MaskedPermutedCollator(tokenizer)
    ids = tokenizer(list(TEXTS * 2), truncation=True, max_length=64)["input_ids"]
    for step in range(updates):
        samples = [{"input_ids": x, "sample_id": i, "cycle": step} for i, x in enumerate(ids)]
        total, n, _ = model.train().loss(collate(samples))
        (total / n).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def same_guesses(model, tokenizer, fill, # transformers' pipeline
                 text):
    "Both give each of the 500 tokens, and no padded id, the same probability, but for rounding."
    guesses, = fill_mask(model, tokenizer, text, top_k=500)
    ours = {tokenizer.convert_tokens_to_ids(token): p for token, p in guesses}
    theirs = {guess["token"]: guess["score"] for guess in fill(text, top_k=500)}
    assert sorted(theirs) == sorted(ours) == list(range(500))
    assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one", "sharded"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_there_and_back_with_training_between(kind, sharded, tied, tokenizer, tmp_path, caplog):
    model = theirs(tie_word_embeddings=tied)
    save_theirs(model, tmp_path / "theirs", kind, sharded, tied)
    tokenizer.save_pretrained(tmp_path / "theirs")
    assert not sharded or len(files(tmp_path / "theirs")) > 5
    ours, its_tokenizer = from_huggingface(tmp_path / "theirs")
    assert ours.config.layer_norm_eps == 1e-12 and ours.config.max_positions == 64
    if tied:
        assert apart(ours, model) < 1e-4 and not caplog.records
    else:
        assert "output matrix" in caplog.text  # said, and the hidden vectors are still the same:
    assert bodies_apart(ours, model.mpnet) < 1e-4
    before = {name: x.clone() for name, x in ours.state_dict().items()}
    train(ours, its_tokenizer)
    assert not same(before, ours.state_dict())
    assert not ours.mpnet.embeddings.word_embeddings.weight[500:].any()
    to_huggingface(ours, tmp_path / "hf", its_tokenizer)
    assert apart(ours, AutoModelForMaskedLM.from_pretrained(tmp_path / "hf"), tokenizer) < 1e-4
    fill = pipeline("fill-mask", model=str(tmp_path / "hf"))
    same_guesses(ours, its_tokenizer, fill, "the task is <mask> classification.")


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("with_code", [False, True])
def test_sentence_transformers_means_the_tokens(with_code, tokenizer, tmp_path, caplog):
    from sentence_transformers import SentenceTransformer
    model = small(normalize_before=with_code)
    folder = tmp_path / f"st_{with_code}"
    to_huggingface(model, folder, tokenizer, with_code=with_code)
    encoder = SentenceTransformer(str(folder), trust_remote_code=with_code, device="cpu")
    texts = ["the task is sentence classification", "a short one"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = model.encode(batch["input_ids"], batch["attention_mask"])
    mask = batch["attention_mask"][..., None]
    expected = (hidden * mask).sum(1) / mask.sum(1)
    assert encoder.max_seq_length == 64
    assert (torch.tensor(encoder.encode(texts)) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_without_a_head_it_gets_a_fresh_one(kind, pooler, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="annotated_mpnet")
    model = MPNetModel(theirs().config, add_pooling_layer=pooler).eval()
    shake(model)
    save_theirs(model, tmp_path / "theirs", kind, False, True)
    ours, tokenizer = from_huggingface(tmp_path / "theirs")
    assert tokenizer is None
    assert [r.levelname for r in caplog.records] == ["INFO"] * pooler + ["WARNING"]
    assert ("pooler" in caplog.text) == pooler and "head" in caplog.records[-1].getMessage()
    assert bodies_apart(ours, model) < 1e-4
    to_huggingface(ours, tmp_path / "hf")


def test_heads_of_other_tasks_and_half_precision(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="annotated_mpnet")
    model = theirs(transformers.MPNetForSequenceClassification)
    model.half().save_pretrained(tmp_path / "theirs")
    ours, _ = from_huggingface(tmp_path / "theirs")
    assert "classifier" in caplog.text and ours.lm_head.bias.dtype == torch.float32
    table, half = (m.mpnet.embeddings.position_embeddings.weight for m in (ours, model))
    assert torch.equal(table, half.float())


def test_more_buckets_than_transformers_uses(tmp_path, caplog):
    model = theirs(relative_attention_num_buckets=40, max_position_embeddings=302)
    model.save_pretrained(tmp_path / "theirs")
    ours, _ = from_huggingface(tmp_path / "theirs")
    assert "uses only 32 of its 40" in caplog.text and apart(ours, model) < 1e-4


def break_config(**changes): # (folder) -> None
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return damage


def delete(name): # (folder) -> None
    return lambda folder: (folder / name).unlink()


def write(name, text): # (folder) -> None
    return lambda folder: (folder / name).write_text(text)


def break_weights(change): # of the dict of tensors; (folder) -> None
    def damage(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")
    return damage


def other_bias(change): # of the head's bias; (folder) -> None
    return break_weights(lambda w: w.update({"lm_head.bias": change(w["lm_head.bias"])}))


BROKEN_CONFIGS = [
    (break_config(model_type="bert"), "type 'bert', not mpnet"),
    (break_config(model_type=None), "not mpnet"),
    (break_config(hidden_act="relu"), "relu"),
    (break_config(pad_token_id=0), "pad_token_id is 0"),
    (break_config(relative_attention_num_buckets=16), "16"),
    (break_config(vocab_size=501), "500 rows"),
    (break_config(hidden_size="wide"), "config.json"),
    (break_config(hidden_size=64), "hidden_size 64, its weights 32"),
    (break_config(num_hidden_layers=3), "num_hidden_layers 3, its weights 2"),
    (break_config(num_hidden_layers=10**9), "its weights 2"),
    (break_config(num_attention_heads=5), "config.json"),
    (break_config(max_position_embeddings=70), "wrong shape"),
    (break_config(layer_norm_eps=-1.0), "layer_norm_eps"),
    (break_config(tie_word_embeddings=False), "not tied"),
]
BROKEN_FILES = [
    (delete("config.json"), "can't be read"),
    (write("config.json", "{"), "not JSON"),
    (write("config.json", "[]"), "list"),
    (delete("model.safetensors"), "no weights (model.safetensors"),
    (write("tokenizer.json", "{"), "tokenizer"),
]
BROKEN_WEIGHTS = [
    (break_weights(lambda w: w.pop("lm_head.dense.bias")), "no weights for lm_head.dense.bias"),
    (break_weights(lambda w: w.pop(WORDS)), "word_embeddings"),
    (break_weights(lambda w: w.update({"mpnet.odd": torch.zeros(1)})), "no place for: mpnet.odd"),
    (other_bias(lambda x: x.long()), "torch.int64"),
    (other_bias(lambda x: x[:-1].clone()), "499 rows"),
]


@pytest.mark.parametrize("damage, said", BROKEN_CONFIGS + BROKEN_FILES + BROKEN_WEIGHTS)
def test_models_that_are_refused(damage, said, tokenizer, tmp_path):
    theirs().save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    from_huggingface(tmp_path / "theirs")
    damage(tmp_path / "theirs")
    with pytest.raises(UserError) as caught:
        from_huggingface(tmp_path / "theirs")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_another_kind_of_model(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    bert = BertModel(BertConfig(vocab_size=50, intermediate_size=8, **sizes))
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="'bert', not mpnet"):
        from_huggingface(tmp_path / "bert")


@pytest.mark.parametrize("name", ["nowhere/at-all", "../up", "a/b/c", ""])
def test_names_that_are_no_model(name, tmp_path, monkeypatch):
    # nobody answers there
    monkeypatch.setattr(huggingface.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    asked, session = [], huggingface.get_session()

    def get(url, timeout):
        asked.append((url, timeout))
        return session.get(url, timeout=timeout)

    monkeypatch.setattr(huggingface, "get_session", lambda: SimpleNamespace(get=get))
    with pytest.raises(UserError) as caught:
        from_huggingface(name)
    assert "\n" not in str(caught.value)
    # One question, with a limit, where the name may be one on the Hub; else none.
    on_hub = "http://127.0.0.1:9/api/models/nowhere/at-all", 3
    assert asked == ([on_hub] if name == "nowhere/at-all" else [])
    assert (repr(name) if name else "config.json") in str(caught.value)


def test_shards_outside_of_the_folder_are_not_read(tmp_path):
    save_theirs(theirs(), tmp_path / "theirs", "bin", True, True)
    path = tmp_path / "theirs/pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    shutil.move(tmp_path / "theirs/pytorch_model-00001-of-00003.bin", tmp_path / "outside.bin")
    for elsewhere in ("../outside.bin", str(tmp_path / "outside.bin"), "absent.bin"):
        path.write_text(json.dumps({"weight_map": dict.fromkeys(index["weight_map"], elsewhere)}))
        with pytest.raises(UserError, match="lacks parts"):
            from_huggingface(tmp_path / "theirs")


# From a checkpoint

@pytest.fixture(scope="module")
def run(tokenizer, tmp_path_factory): # the folder of a run, its model
    "A run's folder with a best checkpoint and an interval checkpoint."
    folder, model = tmp_path_factory.mktemp("run"), small(seed=3)
    names = {"tokenizer_name": "my tokenizer", "checkpoint_dir": "/secret/place"}
    shape = {"encoder_layers": 2, "normalize_before": False}
    config = PretrainConfig(demo=True, total_updates=20, lr=1e-3, **shape, **names)
    metrics = {"train/loss": 3.25, "valid/loss": 4.5, "train/tokens_per_second": 1e4}
    save_checkpoint(folder / "best_checkpoint.pt", model, tokenizer, config, 20, metrics)
    save_checkpoint(folder / "checkpoint10.pt", small(seed=4), tokenizer, config, 10, metrics)
    return folder, model


@pytest.mark.parametrize("name", ["", "best_checkpoint.pt"])
def test_top_predictions_are_the_same(name, run, tmp_path):
    folder, model = run
    assert to_huggingface(folder / name, tmp_path / "hf") < 1e-4
    tokenizer = load_checkpoint_tokenizer(folder)
    fill = pipeline("fill-mask", model=str(tmp_path / "hf"))
    sentences = "the <mask> of the function is a string.", "return a new <mask> object."
    for text in (*sentences, "<mask>"):
        same_guesses(model, tokenizer, fill, text)


def test_the_model_card(run, tmp_path):
    to_huggingface(run[0], tmp_path / "hf")
    card = (tmp_path / "hf/README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "Updates: 20 of" in card
    assert "documentation that comes with Python" in card
    assert "| train/loss | 3.25 |" in card and "| valid/loss | 4.5 |" in card
    assert "tokens_per_second" not in card
    command, = [line for line in card.splitlines() if line.startswith("pretrain-mpnet")]
    for said in ("--demo", "--total-updates 20", "--lr 0.001", "--tokenizer-name 'my tokenizer'"):
        assert said in command
    assert "/secret" not in card and "--warmup" not in command


def test_a_foreign_checkpoint_by_its_tokenizer(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer"):
        to_huggingface(PORT, tmp_path / "hf")
    bare = {"save_tokenizer": False}
    with pytest.raises(UserError, match="trust-checkpoint"):
        to_huggingface(LEGACY, tmp_path / "hf", **bare)
    assert to_huggingface(LEGACY, tmp_path / "bare", **bare, trust_checkpoint=True) < 1e-4
    assert to_huggingface(PORT, tmp_path / "hf", tokenizer=FIXTURES / "tokenizer") < 1e-4
    again, tokenizer = from_huggingface(tmp_path / "hf")
    assert len(tokenizer) == 500 and not again.lm_head.bias[500:].any()
    assert "not recorded" in (tmp_path / "hf/README.md").read_text()
    assert "tokenizer.json" not in files(tmp_path / "bare")


def test_a_tokenizer_that_does_not_fit(tokenizer, tmp_path):
    refusals = [
        ({"vocab_size": 499}, "500 tokens and the model 499"),
        ({"vocab_size": 700}, "the model 700"),
        ({"pad_token_id": 0}, "padding id"),
    ]
    for changes, said in refusals:
        with pytest.raises(UserError, match=said):
            to_huggingface(small(**changes), tmp_path / "hf", tokenizer, with_code=True)
    assert files(tmp_path) == [] or files(tmp_path) == ["modules"]


# All or nothing

def test_folders_that_are_taken(tokenizer, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name, said in (("full", "not empty"), ("file", "is a file")):
        with pytest.raises(UserError, match=said):
            to_huggingface(small(), tmp_path / name, tokenizer)
    with pytest.raises(UserError, match="could not write"):
        to_huggingface(small(), tmp_path / "file/below", tokenizer)
    to_huggingface(small(), tmp_path / "empty", tokenizer)
    assert files(tmp_path / "full") == ["mine.txt"]
    assert "model.safetensors" in files(tmp_path / "empty")


@pytest.mark.parametrize("with_code", [False, True])
@pytest.mark.parametrize("spoil", [
    lambda w: w["lm_head.bias"].add_(2e-4),
    lambda w: w["mpnet.encoder.layer.1.attention.attn.v.weight"].mul_(1.1),
    lambda w: w["mpnet.embeddings.position_embeddings.weight"].fill_(float("nan")),
])
def test_a_difference_is_an_error_and_leaves_nothing(
    spoil, with_code, tokenizer, tmp_path, monkeypatch,
):
    right = export.trimmed

    def trimmed(model):
        weights = {name: x.clone() for name, x in right(model).items()}
        spoil(weights)
        return weights

    monkeypatch.setattr(export, "trimmed", trimmed)
    with pytest.raises(UserError, match="other logits"):
        to_huggingface(small(), tmp_path / "hf", tokenizer, with_code=with_code)
    assert files(tmp_path) == []


@pytest.mark.parametrize("step", ["write_plain", "write_tokenizer", "card", "verify"])
@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("what")])
def test_an_error_on_the_way_leaves_nothing(step, error, tokenizer, tmp_path, monkeypatch):
    def fail(*args): raise error
    monkeypatch.setattr(export, step, fail)
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        to_huggingface(small(), tmp_path / "hf", tokenizer)
    assert files(tmp_path) == []


def test_the_model_itself_is_left_alone(tokenizer, tmp_path):
    model = small().train().bfloat16()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    to_huggingface(model, tmp_path / "hf", tokenizer)
    assert model.training and same(before, model.state_dict())
    assert model.lm_head.bias.dtype == torch.bfloat16
    assert from_huggingface(tmp_path / "hf")[0].lm_head.bias.dtype == torch.float32
    assert asdict(from_huggingface(tmp_path / "hf")[0].config) == asdict(model.config)


# Fuzz

def damaged(raw, rng): # bytes of a safetensors file -> bytes that can't be read as they were
    size = int.from_bytes(raw[:8], "little")
    kind = rng.randrange(4)
    if kind == 0: return raw[:rng.randrange(len(raw))]
    if kind == 1: return rng.randbytes(8) + raw[8:]
    if kind == 2:
        at = 8 + rng.randrange(size)
        return raw[:at] + rng.randbytes(3) + raw[at + 3:]
    return raw[:8 + rng.randrange(size)] + rng.randbytes(5) + raw[8:]


def test_fuzz_safetensors(tmp_path):
    theirs().save_pretrained(tmp_path / "theirs")
    path, rng = tmp_path / "theirs/model.safetensors", random.Random(0)
    raw, right = path.read_bytes(), from_huggingface(tmp_path / "theirs")[0].state_dict()
    harmless = 0
    for _ in range(120):
        path.write_bytes(damaged(raw, rng))
        try:
            found = from_huggingface(tmp_path / "theirs")[0]
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert same(found.state_dict(), right), "other weights, and no word of it"
            harmless += 1
    assert harmless < 6  # damage to the file's free-form notes


def test_fuzz_config(tmp_path):
    theirs().save_pretrained(tmp_path / "theirs")
    path, rng = tmp_path / "theirs/config.json", random.Random(0)
    content = json.loads(path.read_text())
    sizes = ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"]
    needed = ["model_type", *sizes, "max_position_embeddings", "hidden_act", "pad_token_id"]
    wrong = [-1, 0, 7, 10**9, 1.5, "x", [], {}, True]
    whole = json.dumps(content)
    for i in range(60):
        name = rng.choice(needed)
        if i % 3:
            path.write_text(json.dumps(content | {name: rng.choice(wrong)}))
        else:
            path.write_text(whole[:rng.randrange(len(whole))])
        with pytest.raises(UserError) as caught:
            from_huggingface(tmp_path / "theirs")
        assert "\n" not in str(caught.value)


def test_fuzz_our_own_files_any_bit(run, tmp_path):
    raw, rng = (run[0] / "best_checkpoint.pt").read_bytes(), random.Random(0)
    for i in range(100):
        bad = bytearray(raw)
        if i % 4:
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        else:
            bad = bad[:rng.randrange(len(bad))]
        (tmp_path / "x.pt").write_bytes(bad)
        with pytest.raises(UserError) as caught:
            to_huggingface(tmp_path / "x.pt", tmp_path / "hf")
        assert "\n" not in str(caught.value) and files(tmp_path) == ["x.pt"]


# The command

PLAIN = ["--checkpoint", "RUN", "--output", "OUT"]
OLD_NAMES = ["--mpnet-checkpoint-path", "RUN", "--hf_model_folder_path", "OUT"]


@pytest.mark.parametrize("argv", [
    PLAIN,
    ["--mpnet_checkpoint_path=RUN/best_checkpoint.pt", "--hf-model-folder-path=OUT"],
    [*OLD_NAMES, "--no_save_tokenizer"],
    [*PLAIN, "--with-code"],
])
def test_convert_to_hf(argv, run, tmp_path, capsys):
    argv = [word.replace("RUN", str(run[0])).replace("OUT", str(tmp_path / "hf")) for word in argv]
    assert convert_main(argv) == 0
    out, err = capsys.readouterr()
    assert str(tmp_path / "hf") in out and 1 <= out.count("\n") <= 3 and not err
    assert ("tokenizer.json" in files(tmp_path / "hf")) == ("--no_save_tokenizer" not in argv)
    assert (own_code.CODE_FILE in files(tmp_path / "hf")) == ("--with-code" in argv)
    assert same(from_huggingface(tmp_path / "hf")[0].state_dict(), run[1].state_dict())
    assert convert_main(argv) == 2 and "not empty" in capsys.readouterr().err


def test_convert_to_hf_with_trust(tmp_path, capsys):
    argv = ["--checkpoint", str(ORIGINAL), "--output", str(tmp_path / "hf")]
    argv += ["--tokenizer-name", str(FIXTURES / "tokenizer")]
    assert convert_main(argv) == 2
    assert "--trust-checkpoint" in capsys.readouterr().err
    assert convert_main([*argv, "--trust-checkpoint"]) == 0
    assert len(from_huggingface(tmp_path / "hf")[1]) == 500


@pytest.mark.parametrize("argv, said", [
    ([], "--checkpoint"),
    (["--checkpoint", "x"], "--output"),
    (["--checkpoint", "nowhere.pt", "--output", "OUT"], "nowhere.pt"),
    (["--checkpoint", "x", "--output", "OUT", "--fast"], "--fast"),
    (["--checkpoint"], "--checkpoint"),
    (["--checkpoint", str(FIXTURES), "--output", "OUT"], "without a checkpoint"),
    (["--checkpoint", str(PORT), "--output", "OUT"], "--tokenizer-name"),
])
def test_convert_to_hf_errors(argv, said, tmp_path, capsys):
    assert convert_main([word.replace("OUT", str(tmp_path / "hf")) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("convert-to-hf: error: ")
    assert said in err and files(tmp_path) == []


def test_convert_to_hf_help(capsys):
    assert convert_main(["--help"]) == 0
    out, _ = capsys.readouterr()
    paths = "--checkpoint --output --mpnet-checkpoint-path --hf-model-folder-path"
    others = "--no-save-tokenizer --with-code --trust-checkpoint --tokenizer-name"
    for name in (*paths.split(), *others.split()):
        assert name in out


def test_every_model_field_survives_both_kinds_of_export(tmp_path):
    config = ModelConfig(300, 2, 1e-6, "mlm", 1, 16, 8, 2, 0.2, 0.3, 0.4, True, "relu2", 33, 16, 40)
    model = MPNetForPretraining(config).eval()
    to_huggingface(model, tmp_path / "hf", with_code=True)
    assert from_huggingface(tmp_path / "hf")[0].config == config
