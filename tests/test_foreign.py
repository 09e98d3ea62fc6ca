"""Checkpoints of other programs: every kind gives the numbers that its own program computed, and every damaged one a line."""
import math
import random
import sys
import types
import zipfile
from argparse import Namespace
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from helpers_batches import shake
from helpers_runs import FIXTURES

from annotated_mpnet.checkpoints import load_model
from annotated_mpnet.configuration import ACTIVATIONS, ModelConfig, UserError
from annotated_mpnet.foreign import FAIRSEQ, PROGRAMS, PSZEMRAJ, YEXT, convert, load_trusted
from annotated_mpnet.model import ACTIVATION_FUNCTIONS, MPNetForPretraining
from annotated_mpnet.positions import relative_position_bucket

ORIGINAL, FIRST, PORT = PROGRAMS


# What the other programs computed

@torch.no_grad()
@pytest.mark.parametrize("name, logits, masked, trust", [("fairseq_mpnet", "mpnet_logits", False, True), ("pszemraj_a", "logits", True, False),
                                                         ("yext_legacy", "logits", False, True)])
def test_every_fixture_gives_its_stored_logits(name, logits, masked, trust):
    model, io = load_model(FIXTURES / f"{name}.pt", trust), torch.load(FIXTURES / f"{name}_io.pt", weights_only=True)
    assert not model.training and (model.config.vocab_size, model.config.max_positions) == (500, 64)
    ours = model(io["input_ids"], io["positions"], io["pred_size"], io["attention_mask"] if masked else None)
    width = io[logits].shape[-1]                        # 500, or 512 where the file's vocabulary is padded
    assert float((ours[..., :width] - io[logits]).abs().max()) < 5e-5 # rounding: 6e-6 at most was seen (tests/test_interop.py)


@pytest.mark.parametrize("name", ["fairseq_mpnet", "yext_legacy"])
def test_a_pickled_namespace_needs_trust(name):
    with pytest.raises(UserError, match="--trust-checkpoint"): load_model(FIXTURES / f"{name}.pt")


# Files of all kinds, made here: by names and shapes, from nothing of ours

def foreign_file(program,  # a key of PROGRAMS
                 relative=True, # with a table of relative biases
                 rows=None,     # of the vocabulary in the file
                 vocab=70, layers=2, width=24, inner=40, heads=3, positions=50, buckets=32, pad=1, seed=0, **args):
    "What torch.save would write there: arguments and weights, all of them random."
    torch.manual_seed(seed)
    rows, prefix = rows or vocab, "decoder." if program == ORIGINAL else ""
    shapes = {"sentence_encoder.embed_tokens.weight": (rows, width), "sentence_encoder.embed_positions.weight": (positions + pad + 1, width),
              "sentence_encoder.emb_layer_norm.weight": (width,), "sentence_encoder.emb_layer_norm.bias": (width,)}
    if relative: shapes["sentence_encoder.relative_attention_bias.weight"] = (buckets, heads)
    if program == PORT and args.get("normalize_before"):
        shapes |= {"sentence_encoder.final_layer_norm.weight": (width,), "sentence_encoder.final_layer_norm.bias": (width,)}
    for n in range(layers):
        layer = {"self_attn.in_proj_weight": (3 * width, width), "self_attn.in_proj_bias": (3 * width,), "self_attn.out_proj.weight": (width, width),
                 "self_attn.out_proj.bias": (width,), "self_attn_layer_norm.weight": (width,), "self_attn_layer_norm.bias": (width,),
                 "fc1.weight": (inner, width), "fc1.bias": (inner,), "fc2.weight": (width, inner), "fc2.bias": (width,),
                 "final_layer_norm.weight": (width,), "final_layer_norm.bias": (width,)}
        shapes |= {f"sentence_encoder.layers.{n}.{name}": shape for name, shape in layer.items()}
    shapes |= {"lm_head.dense.weight": (width, width), "lm_head.dense.bias": (width,), "lm_head.layer_norm.weight": (width,),
               "lm_head.layer_norm.bias": (width,), "lm_head.bias": (rows,)}
    weights = {prefix + name: torch.randn(shape) * (0.5 if len(shape) == 1 else 0.3) + ("norm.weight" in name) for name, shape in shapes.items()}
    weights[f"{prefix}lm_head.weight"] = weights[f"{prefix}sentence_encoder.embed_tokens.weight"]
    inner_name = "encoder_ffn_embed_dim" if program == ORIGINAL else "encoder_ffn_dim"
    args = {"encoder_layers": layers, "encoder_embed_dim": width, inner_name: inner, "encoder_attention_heads": heads, "dropout": 0.1,
            "attention_dropout": 0.1, "activation_dropout": 0.1, "activation_fn": "gelu", "normalize_before": False, "max_positions": positions} | args
    if program == ORIGINAL: return {"args": Namespace(**args, use_relative_positions=relative), "model": weights, "optimizer_history": [], "extra_state": {"epoch": 1}}
    if program == FIRST: return {"args": Namespace(**args), "model_states": weights}
    return {"args": args | {"relative_attention_num_buckets": buckets, "original_vocab_size": vocab}, "model_states": weights, "steps": 0, "best_loss": 9.0}


def weights_of(content): return content.get("model") or content["model_states"]


@torch.no_grad()
def by_hand(content, ids, distance=128): # (batch, length) plain text -> (batch, length, vocabulary) logits
    "The model of a file computed with its own names, straight from the description in the paper and the programs."
    args = content["args"] if isinstance(content["args"], dict) else vars(content["args"])
    w = {name.removeprefix("decoder."): x for name, x in weights_of(content).items()}
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
    linear = lambda x, name: F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
    act, heads, pre, e = ACTIVATION_FUNCTIONS[args["activation_fn"]], args["encoder_attention_heads"], args["normalize_before"], "sentence_encoder"
    places = torch.arange(ids.shape[1])
    x = w[f"{e}.embed_tokens.weight"][ids] + w[f"{e}.embed_positions.weight"][places + 2]
    own_norm = f"{e}.final_layer_norm.weight" in w
    if not pre or own_norm: x = norm(x, f"{e}.emb_layer_norm")
    bias = 0.0
    if f"{e}.relative_attention_bias.weight" in w:
        table = w[f"{e}.relative_attention_bias.weight"]
        bias = table[relative_position_bucket(places[None] - places[:, None], len(table), distance)].permute(2, 0, 1)
    for n in range(args["encoder_layers"]):
        name = f"{e}.layers.{n}"
        h = norm(x, f"{name}.self_attn_layer_norm") if pre else x
        q, k, v = (F.linear(h, w[f"{name}.self_attn.in_proj_weight"], w[f"{name}.self_attn.in_proj_bias"])
                   .unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4))                            # each (batch, heads, length, width / heads)
        mixed = ((q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{name}.self_attn.out_proj")
        if not pre: x = norm(x, f"{name}.self_attn_layer_norm")
        h = norm(x, f"{name}.final_layer_norm") if pre else x
        x = x + linear(act(linear(h, f"{name}.fc1")), f"{name}.fc2")
        if not pre: x = norm(x, f"{name}.final_layer_norm")
    if pre: x = norm(x, f"{e}.final_layer_norm" if own_norm else f"{e}.emb_layer_norm")
    return F.linear(norm(act(linear(x, "lm_head.dense")), "lm_head.layer_norm"), w[f"{e}.embed_tokens.weight"]) + w["lm_head.bias"]


def model_of(content, path=None): # through a file, if there is a path
    "Our model of another program's checkpoint."
    if path is not None:
        torch.save(content, path)
        return load_model(path, trust_checkpoint=True)
    config, weights = convert(content)
    model = MPNetForPretraining(config).eval()
    model.load_state_dict(weights, strict=True)
    return model


OWN_NORM = "embedding_norm" in {f.name for f in fields(ModelConfig)}
KINDS = {
    "plain": {}, "Pre-LN": {"normalize_before": True}, "one layer": {"layers": 1, "heads": 1, "width": 8}, "four": {"layers": 4, "width": 32, "heads": 8},
    "no dropout": {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}, "long": {"positions": 300, "vocab": 300},
} | {name: {"activation_fn": name} for name in ACTIVATIONS if name != "gelu"}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_all_kinds(program, kind, tmp_path):
    if program == PORT and kind == "Pre-LN" and not OWN_NORM: pytest.skip("not represented yet: norms at both ends")
    content = foreign_file(program, **KINDS[kind])
    model = model_of(content, tmp_path / "x.pt")
    ids = torch.randint(2, model.config.vocab_size, (2, min(model.config.max_positions, 200)))
    expected = by_hand(content, ids)
    assert expected.std() > 0.1
    assert float((model.logits(model.encode(ids))[..., :model.config.vocab_size] - expected).abs().max()) < 1e-4 * expected.std()


@torch.no_grad()
@pytest.mark.parametrize("buckets, distance", [(8, 20), (48, 128), (64, 256)])
def test_other_buckets(buckets, distance):
    content = foreign_file(PORT, buckets=buckets, positions=300, relative_attention_max_distance=distance)
    model = model_of(content)
    assert (model.config.relative_attention_num_buckets, model.config.relative_attention_max_distance) == (buckets, distance)
    ids = torch.randint(2, 70, (1, 300))
    assert float((model.logits(model.encode(ids))[..., :70] - by_hand(content, ids, distance)).abs().max()) < 1e-4


@pytest.mark.parametrize("positions, expected", [(512, 128), (514, 128), (1024, 256), (2000, 504)])
def test_unset_distance_is_scaled_as_the_port_scales_it(positions, expected):
    config, _ = convert(foreign_file(PORT, positions=positions, relative_attention_max_distance=None))
    assert config.relative_attention_max_distance == expected       # from 513 positions on, ours would be rounded up


@torch.no_grad()
def test_no_relative_positions():
    content = foreign_file(ORIGINAL, relative=False)
    model, ids = model_of(content), torch.randint(2, 70, (2, 50))
    assert not model.mpnet.encoder["relative_attention_bias"].weight.any()
    assert float((model.logits(model.encode(ids))[..., :70] - by_hand(content, ids)).abs().max()) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("program", [FIRST, PORT])
@pytest.mark.parametrize("pad", [0, 3])
def test_another_padding_id(program, pad):
    content = foreign_file(program, pad=pad)
    names = [name for name in weights_of(content) if "embed_tokens" in name]
    if program == FIRST: weights_of(content)[names[0]][pad] = 0     # never learned
    else: content["args"]["pad_token_id"] = pad
    config, weights = convert(content)
    assert config.pad_token_id == pad
    table, first = weights_of(content)["sentence_encoder.embed_positions.weight"], 2 if program == FIRST else pad + 1
    rows = min(50, len(table) - first)                              # the first annotated-mpnet counts from 2 whatever the id: with 0 it lacks a place
    assert config.max_positions == rows and torch.equal(weights["mpnet.embeddings.position_embeddings.weight"][2:], table[first:first + rows])


def test_vocabulary_padded_there_or_not():
    padded, plain = convert(foreign_file(PORT, vocab=70, rows=128)), convert(foreign_file(PORT, vocab=70))
    for config, weights in (padded, plain):
        assert config.vocab_size == 70 and len(weights["lm_head.bias"]) == len(weights["mpnet.embeddings.word_embeddings.weight"]) == 128
    assert not plain[1]["mpnet.embeddings.word_embeddings.weight"][70:].any() and not plain[1]["lm_head.bias"][70:].any()
    assert padded[1]["lm_head.bias"][70:].all()                     # as the other program has them; nobody predicts them


@pytest.mark.parametrize("objective", ["mpnet", "plm", "mlm"])
def test_objective_of_the_original(objective):
    assert convert(foreign_file(ORIGINAL, input_mode=objective))[0].objective == objective


def test_wrapped_names_and_half_precision():
    content = foreign_file(PORT)
    expected = convert(content)[1]
    content["model_states"] = {f"module._orig_mod.{name}": x for name, x in content["model_states"].items()}
    assert all(torch.equal(x, expected[name]) for name, x in convert(content)[1].items())
    content["model_states"] = {name: x.half() for name, x in content["model_states"].items()}
    assert all(x.dtype == torch.float32 and torch.equal(x, expected[name].half().float()) for name, x in convert(content)[1].items())


def test_later_versions_of_fairseq():
    content = foreign_file(ORIGINAL)
    expected = convert(content)
    weights = content["model"]
    for name in [name for name in weights if "in_proj_" in name]:   # three projections, and arguments in another place
        for part, x in zip("qkv", weights.pop(name).chunk(3)): weights[name.replace("in_proj_", f"{part}_proj.")] = x
    later = {"args": None, "cfg": {"model": content["args"], "task": {}}, "model": weights}
    config, ours = convert(later)
    assert config == expected[0] and ours.keys() == expected[1].keys() and all(torch.equal(x, expected[1][name]) for name, x in ours.items())


def test_without_arguments_that_the_weights_tell():
    content, full = foreign_file(PORT, relative_attention_max_distance=128), foreign_file(PORT, relative_attention_max_distance=128)
    for name in ("encoder_layers", "encoder_embed_dim", "encoder_ffn_dim", "encoder_attention_heads", "max_positions", "original_vocab_size",
                 "relative_attention_num_buckets", "activation_fn", "normalize_before", "dropout"): del content["args"][name]
    assert convert(content)[0] == convert(full)[0]


def test_tables_name_every_weight_once():
    for table in (YEXT, PSZEMRAJ, FAIRSEQ):
        assert len(set(table.values())) == len(table)
        made = {f"{new.replace('*', '0')}.{kind}" for new in table.values() for kind in ("weight", "bias")}
        made |= {name.replace("qkv", part) for name in made if "qkv" in name for part in "qkv"}
        model = MPNetForPretraining(ModelConfig(70, encoder_layers=1, encoder_embed_dim=8, encoder_attention_heads=1))
        assert set(model.state_dict()) <= made


# What can't be converted is said in a line

def refusal(content): # what convert says
    "The one line."
    with pytest.raises(UserError) as caught: convert(content)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize("content, said", [
    (None, "holds a NoneType"), ([1], "holds a list"), ({}, "holds a dict"), ({"weights": 1, "epoch": 2}, "'weights', 'epoch'"),
    ({str(i): i for i in range(20)}, "and 14 more"), ({"args": {}, "model_states": {}}, "'model_states'"), ({"args": {}, "model_states": 3}, "known are"),
    ({"args": {}, "model": {"encoder.weight": torch.zeros(1)}}, "decoder."), ({"model_states": {"a": 1}}, "known are"), ({"args": 3, "model_states": {"a": 1}}, "known are"),
])
def test_no_known_format(content, said): assert said in refusal(content)


def change(name, value): # (content) -> None
    "Another value for every weight whose name ends so; None deletes it."
    def change(content):
        weights = weights_of(content)
        for n in [n for n in weights if n.endswith(name)]:
            x = weights.pop(n)
            if value is not None: weights[n] = value(x)
    return change


def say(**args): return lambda content: content["args"].update(args)


@pytest.mark.parametrize("damage, said", [
    (change("fc1.weight", None), "layer.0.intermediate.dense.weight"),
    (change("fc2.bias", None), "no weights for mpnet.encoder.layer.0.output.dense.bias, mpnet.encoder.layer.1.output.dense.bias"),
    (change("lm_head.dense.bias", None), "no weights for lm_head.dense.bias"),
    (change("relative_attention_bias.weight", None), "no weights for mpnet.encoder.relative_attention_bias.weight"),
    (change("fc2.weight", lambda x: x[:-1]), "of a wrong shape: mpnet.encoder.layer.0.output.dense.weight (23, 40) instead of (24, 40)"),
    (change("in_proj_bias", lambda x: x[:-1]), "can't be split"), (change("in_proj_weight", lambda x: x[:-3]), "wrong shape"),
    (change("embed_tokens.weight", lambda x: x[0]), "should be a matrix"), (change("embed_positions.weight", lambda x: x[:-1]), "50 positions"),
    (change("embed_positions.weight", lambda x: x[:0]), "should be a matrix"),
    (change("lm_head.weight", lambda x: x + 1), "output matrix is not its table"),
    (change("lm_head.bias", lambda x: x[:-1]), "69 tokens, its embeddings 70"),
    (change("lm_head.bias", lambda x: x.long()), "torch.int64"), (change("lm_head.bias", lambda x: "x"), "str"), (change("lm_head.bias", lambda x: x.to_sparse()), "lm_head.bias"),
    (lambda c: c["model_states"].update({f"extra.{i}": torch.zeros(1) for i in range(9)}), "unknown names: extra.0, extra.1, extra.2 and 6 more"),
    (lambda c: c["model_states"].update({7: torch.zeros(1)}), "unknown names: 7"),
    (lambda c: c["model_states"].update({"sentence_encoder.layers.7.fc1.bias": torch.zeros(1)}), "arguments say encoder_layers 2, its weights 3"),
    (say(encoder_layers=3), "arguments say encoder_layers 3, its weights 2"), (say(encoder_attention_heads=5), "its weights 3"),
    (say(relative_attention_num_buckets=16), "its weights 32"), (say(max_positions=64), "64 positions"), (say(max_positions="many"), "many"),
    (say(original_vocab_size=71), "71 tokens, its weights 70"), (say(original_vocab_size="x"), "original_vocab_size 'x'"), (say(activation_fn="swiglu"), "swiglu"),
    (say(dropout="much"), "much"), (say(normalize_before="yes"), "yes"), (say(relative_attention_max_distance=2), "must be above"), (say(input_mode="nsp"), "nsp"),
])
def test_refusals(damage, said):
    content = foreign_file(PORT)
    convert(content)
    damage(content)
    found = refusal(content)
    assert said in found and "annotated-mpnet 0.1" in found


def test_original_that_lacks_the_biases_it_asks_for():
    content = foreign_file(ORIGINAL, relative=False)
    content["args"].use_relative_positions = True
    assert "relative_attention_bias" in refusal(content)
    del content["args"].encoder_attention_heads, content["args"].use_relative_positions
    assert "attention heads" in refusal(content)


# Opening what is trusted

def test_classes_that_are_not_installed_become_shells(tmp_path, monkeypatch):
    module = types.ModuleType("fairseq_meters")
    exec("import collections\nclass Meter:\n  def __init__(self): self.sum = 3\n"
         "class Log(list): pass\nclass Table(collections.OrderedDict): pass\ndef make(x): return Meter()\n"
         "class Made:\n  def __reduce__(self): return make, (1,)\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "fairseq_meters", module)
    for thing in (module.Meter, module.Log, module.Table, module.Made, module.make): thing.__module__ = "fairseq_meters"
    content = foreign_file(ORIGINAL)
    content["extra_state"] = {"meter": module.Meter(), "log": module.Log([1, 2]), "table": module.Table(a=1), "made": module.Made()}
    for new in (True, False):
        torch.save(content, tmp_path / f"{new}.pt", _use_new_zipfile_serialization=new)
    monkeypatch.delitem(sys.modules, "fairseq_meters")
    for new in (True, False):
        found = load_trusted(tmp_path / f"{new}.pt")
        assert found["extra_state"]["meter"].sum == 3 and type(found["extra_state"]["log"]).__name__ == "Log"
        assert convert(found)[0].vocab_size == 70


def test_what_can_not_be_opened(tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    for name in ("text.pt", "absent.pt", "."):
        with pytest.raises(UserError) as caught: load_trusted(tmp_path / name)
        assert "\n" not in str(caught.value)


# Fuzz: damaged files end in a line, never in a crash

def damaged_bytes(raw, rng): # bytes of a file -> bytes of a damaged one
    "Cut short, header broken, a stretch overwritten, bytes flipped, bytes inserted, emptied."
    at, kind = rng.randrange(len(raw)), rng.randrange(6)
    if kind == 0: return raw[:at]
    if kind == 1: return bytes(rng.randrange(256) for _ in range(4)) + raw[4:]
    if kind == 2: return raw[:at] + bytes(rng.randrange(256) for _ in range(64)) + raw[at + 64:]
    if kind == 3: return bytes(b ^ 0xFF if i % 997 == at % 997 else b for i, b in enumerate(raw))
    if kind == 4: return raw[:at] + b"damage" + raw[at:]
    return raw[at:]


def outcome(path): # None, or the one line
    "Load a file as a user would; anything but a model or a UserError in one line fails the test."
    try: load_model(path, trust_checkpoint=True)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["fairseq_mpnet", "pszemraj_a", "yext_legacy"])
def test_fuzz_bytes(name, tmp_path):
    raw, rng = (FIXTURES / f"{name}.pt").read_bytes(), random.Random(name)
    quiet = 0
    for _ in range(60):
        (tmp_path / "x.pt").write_bytes(damaged_bytes(raw, rng))
        quiet += outcome(tmp_path / "x.pt") is None
    assert quiet <= 3                                               # what hits only the zip file's own padding does no harm


@pytest.mark.parametrize("name", ["fairseq_mpnet", "yext_legacy"])
def test_a_damaged_record_is_found_in_what_is_trusted(name, tmp_path):
    rng = random.Random(name)
    with zipfile.ZipFile(FIXTURES / f"{name}.pt") as archive:
        records = [(info.filename, info.header_offset, info.file_size) for info in archive.infolist() if info.file_size > 100]
    for _, begin, size in rng.sample(records, 20):
        raw = bytearray((FIXTURES / f"{name}.pt").read_bytes())
        raw[begin + 160 + rng.randrange(size - 100)] ^= 1 << rng.randrange(8)
        (tmp_path / "x.pt").write_bytes(raw)
        with pytest.raises(UserError, match="damaged"): load_trusted(tmp_path / "x.pt")


@pytest.mark.parametrize("program", PROGRAMS)
def test_fuzz_content(program):
    rng = random.Random(program)
    for _ in range(40):
        content = foreign_file(program)
        weights, kind = weights_of(content), rng.randrange(5)
        name = rng.choice([n for n in weights if not n.endswith("lm_head.weight")])
        x = weights.pop(name)
        if kind == 1: weights[name + "x"] = x
        if kind == 2: weights[name] = torch.cat([x, x[:1]]) if rng.random() < 0.5 else x[..., :-1]
        if kind == 3: weights[name] = x.unsqueeze(0)
        if kind == 4: weights[name] = rng.choice([x.int(), x.tolist(), None, x.bool(), x.to(torch.complex64), 3])
        refusal(content)


def test_fixtures_keep_all_that_was_in_them():
    config, weights = convert(load_trusted(FIXTURES / "fairseq_mpnet.pt"))
    source = load_trusted(FIXTURES / "fairseq_mpnet.pt")["model"]
    assert sum(x.numel() for x in weights.values()) == sum(x.numel() for x in source.values()) - 500 * 32 + 12 * (32 + 1) # untied copy, padding
    again = MPNetForPretraining(replace(config, objective="plm"))
    shake(again)
    again.load_state_dict(weights)
