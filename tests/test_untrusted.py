"""Files from strangers: what they name, what they claim, how deep they are, what is in them."""
import copy
import hashlib
import json
import math
import os
import pickle
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from helpers_runs import FIXTURES, context, finished
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotated_mpnet import schema
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.bounds import DEEPEST
from annotated_mpnet.carried import OUTSIDE, SOURCES, carry_over, own_names, signatures
from annotated_mpnet.checkpoints import FORMAT, load_model, read_checkpoint
from annotated_mpnet.configuration import FIELDS, PretrainConfig, UserError, flag, kind
from annotated_mpnet.huggingface import from_huggingface, to_huggingface
from annotated_mpnet.sealed import write_sealed, write_whole
from annotated_mpnet.tokenization import load_tokenizer
from annotated_mpnet.tracking import read_scalars
from annotated_mpnet.trainer import pretrain
from annotated_mpnet.update import Step

BEFORE = Path(__file__).parent / "fixtures/before"
TEXTS = ["the task is sentence classification", "a list of names is sorted in place"] * 8
SOURCE = "--train-dir texts --valid-file valid.txt --test-file valid.txt".split()
SMALL = """
    --encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 16 --encoder-attention-heads 2
    --max-tokens 16 --batch-size 2 --update-freq 1 --precision float32 --buffer-size 8
    --save-optimizer-state --checkpoint-interval 2 --logging-steps 3 --checkpoint-dir run
""".split()
TOKENIZER = ["--tokenizer-name", str(FIXTURES / "tokenizer")]
RESUME = "--resume --checkpoint-dir run --total-updates".split()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    "A folder with texts and a run of two updates in it."
    folder = tmp_path_factory.mktemp("made")
    (folder / "texts").mkdir()
    (folder / "texts/a.txt").write_text("\n".join(TEXTS))
    (folder / "valid.txt").write_text("\n".join(TEXTS[:4]))
    places = "--tensorboard-log-dir logs --num-workers 1 --total-updates 2".split()
    finished([*SMALL, *TOKENIZER, *SOURCE, *places], folder)
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    "A copy of it, to work in."
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def seal(content: dict) -> None:
    "Write what a stranger wants, as this program does."
    write_sealed(Path("run/checkpoint2.pt"), content)  # write_whole would walk through a bomb


def line(error) -> str:
    "The message of a `UserError`: one line, not long, however long what it speaks of is."
    text = str(error.value if hasattr(error, "value") else error)
    assert text and "\n" not in text and len(text) < 1000, text[:2000]
    return text


# --- places, services and processes that a checkpoint names (14) ---

def named(name: str):
    "A value for an argument, other than its default."
    return {bool: True, int: 40, str: "/elsewhere"}[kind(FIELDS[name])]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_of_a_stranger_is_taken_over(name):
    stored = {name: named(name), "lr": 0.25}
    strangers = dict.fromkeys(OUTSIDE, "0" * 64)
    for signed in ({}, strangers, signatures({}, None), signatures(stored | {name: None}, None)):
        own = own_names(stored, None, signed)
        assert name not in own
        remarks: list = []
        if name in SOURCES:
            with pytest.raises(UserError) as error:
                carry_over(PretrainConfig(), stored, own=own)
            said = line(error)
        else:
            found = carry_over(PretrainConfig(), stored, remarks=remarks, own=own)
            assert getattr(found, name) == FIELDS[name].default and found.lr == 0.25
            said = remarks[0][1]
        assert flag(name) in said and "--trust-checkpoint" in said
    own = own_names(stored, None, signatures(stored, None))
    assert getattr(carry_over(PretrainConfig(), stored, own=own), name) == named(name)


def test_all_that_names_a_place_or_a_service_is_marked():
    marked = {name for name, f in FIELDS.items() if f.metadata["outside"]}
    words = ("folder", "file", "wandb", "processes", "Hub", "Weights & Biases")
    spoken = {n for n, f in FIELDS.items() if any(w in n + f.metadata["help"] for w in words)}
    others = {"tokenizer_name", "overwrite", "resume", "trust_checkpoint", "fsdp",
              "skip_broken_shards", "max_broken_share", "buffer_size", "text_field",
              "document_per_file"}  # how a folder is read, not which
    assert marked <= spoken | {"dataset_config_name", "wandb_name", "wandb_watch", "wandb_project"}
    assert spoken - others <= marked


def test_a_planted_folder_writes_nowhere_else_and_its_owner_goes_on(place, tmp_path):
    before = (place / "run/checkpoint2.pt").read_bytes()
    content, evil = read_checkpoint(place / "run/checkpoint2.pt"), tmp_path / "evil"
    content["config"] |= {"tensorboard_log_dir": str(evil), "num_workers": 2}
    content["state"]["wandb_id"] = "another"
    seal(content)
    said = finished([*RESUME, "3", *SOURCE], place).replace("\n", " ")
    assert not evil.exists() and "not of a run of yours" in said and "--num-workers 2" in said
    assert final()["state"]["wandb_id"] is None and final()["config"]["num_workers"] == 0
    for path in (place / "run").iterdir():
        path.unlink()
    (place / "run/checkpoint2.pt").write_bytes(before)
    assert "not of a run of yours" not in finished([*RESUME, "4"], place)
    assert "train/loss" in read_scalars(place / "logs") and final()["config"]["num_workers"] == 1


def final() -> dict:
    return read_checkpoint(Path("run/final_checkpoint.pt"))


def test_without_its_texts_a_strangers_run_is_refused(place, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "another account"))
    with pytest.raises(UserError) as error:
        pretrain(parse_args([*RESUME, "3"]))
    assert "--train-dir texts" in line(error) and "--num-workers 1" in line(error)
    pretrain(parse_args([*RESUME, "3", "--trust-checkpoint"]))
    assert final()["config"]["train_dir"] == "texts"


# --- sizes that a file claims (16) ---

def deflated(path: Path) -> None:
    "The same file, its entries compressed, with a million zeros in one."
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in entries.items():
            new.writestr(name, data if "/data/" not in name else bytes(1_000_000))


def claims() -> dict:
    "What a stranger's content may claim, as a change of an honest one."
    one = torch.zeros(1)
    word = "mpnet.embeddings.word_embeddings.weight"
    giant = {"vocab_size": 10**9, "encoder_layers": 1}
    return {
        "layers": lambda c: c["model_config"].update(encoder_layers=100_000),
        "width": lambda c: c["model_config"].update(encoder_embed_dim=2**30),
        "beyond 64 bits": lambda c: c["model_config"].update(encoder_ffn_dim=2**200),
        "vocabulary": lambda c: c["model_config"].update(giant),
        "stride 0": lambda c: c["model"].update({word: one.as_strided((10**6, 16), (0, 0))}),
        "no device": lambda c: c["model"].update({word: torch.empty(10**6, 16, device="meta")}),
        "one for all": lambda c: c["model"].update(
            {f"x{i}": c["model"][word] for i in range(1000)}),
        "a bomb of lists": lambda c: c["state"]["data"].update(more=bomb()),
    }


def bomb():
    x = [1]
    for _ in range(60):
        x = [x, x]
    return x


@pytest.mark.parametrize("claim", claims())
def test_a_claim_is_compared_before_anything_is_made(claim, place, monkeypatch):
    content = read_checkpoint(place / "run/checkpoint2.pt")
    claims()[claim](content)
    torch.save(content, "planted.pt")
    planted = torch.load("planted.pt")
    monkeypatch.setattr("annotated_mpnet.checkpoints.MPNetForPretraining", pytest.fail)
    with pytest.raises(UserError) as error:
        schema.check_content(planted, Path("planted.pt"))
        schema.check_claim(schema.ModelConfig(**planted["model_config"]), planted["model"], "it")
    line(error)


def test_a_compressed_file_is_not_unpacked(place):
    for path in ("run/checkpoint2.pt", FIXTURES / "pszemraj_a.pt"):
        shutil.copy(path, "planted.pt")
        deflated(Path("planted.pt"))
        with pytest.raises(UserError) as error:
            load_model("planted.pt")
        assert "would unpack to" in line(error) or "checksum" in line(error)


def test_yaml_knows_no_aliases_and_no_endless_numbers(tmp_path):
    bombs = {"a: &a [x, x]\nb: &b [*a, *a]\nlr: [*b, *b]": "can't be used here",
             "lr: 0x" + "f" * 50_000: "64 bits", "lr: " + "1" * 200_000: "too long",
             "[" * 50_000: "not a text file in YAML", "lr: " + "9" * 5000: "YAML"}
    for text, says in bombs.items():
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(UserError) as error:
            parse_args(["--config", str(tmp_path / "run.yaml")])
        assert says in line(error), text[:50]


# --- depth (17) ---

@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000, '[{"a":' * DEEPEST + "1"])
@pytest.mark.parametrize("name", [
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "model.safetensors.index.json"])
def test_no_parser_sees_a_deep_text(name, deep, place):
    model = load_model("run/checkpoint2.pt")
    to_huggingface(model, "hf", FIXTURES / "tokenizer")
    if "index" in name:
        Path("hf/model.safetensors").unlink()
    (place / "hf" / name).write_text(deep)
    readers = [from_huggingface, lambda folder: load_tokenizer(folder, 16)]
    for read in readers[:1 if "config.json" == name or "index" in name else 2]:
        with pytest.raises(UserError) as error:
            read("hf")
        assert "brackets inside of each other" in line(error)


def test_no_parser_sees_a_deep_text_of_a_checkpoint(place):
    for name in ("tokenizer.json", "tokenizer_config.json", "new.json"):
        content = read_checkpoint(place / "run/checkpoint2.pt")
        content["tokenizer"][name] = "[" * 100_000
        write_whole(Path("planted.pt"), content)
        with pytest.raises(UserError) as error:
            to_huggingface("planted.pt", "out")
        assert "brackets inside of each other" in line(error)


# --- contents (18) ---

STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([2**63, 2**200, -1, 0, math.nan]),
    st.floats(), st.text(max_size=5), st.just("x" * 100_000), st.just([]), st.just({}),
    st.lists(st.integers(), max_size=3), st.builds(bomb),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
    st.sampled_from([torch.zeros(0), torch.zeros(3), torch.zeros(2, 7), torch.tensor(math.nan),
                     torch.zeros(5056, dtype=torch.uint8), torch.ones(2, dtype=torch.int64)]))


def places_in(content, at=()) -> list[tuple]:
    "The path to everything in a content, but into tensors."
    if not isinstance(content, (dict, list)):
        return []
    keys = content if isinstance(content, dict) else range(len(content))
    found = [(*at, key) for key in keys]
    inside = (places_in(part, path) for path, part in zip(found, parts_of(content)))
    return [*found, *(path for paths in inside for path in paths)]


def parts_of(content) -> list:
    return list(content.values() if isinstance(content, dict) else content)


def at_path(content, path):
    for key in path:
        content = content[key]
    return content


@pytest.fixture(scope="module")
def honest(made) -> tuple[dict, list]:
    "A content, and the places in it; of the many weights and moments some, and all the rest."
    content = read_checkpoint(made / "run/checkpoint2.pt")
    content["config"] |= {"num_workers": 0, "tensorboard_log_dir": None}
    left = (("format",), ("config", "compile"))  # the compiler takes minutes
    found = [p for p in places_in(content) if p not in left]
    many = [p for p in found if p[0] in ("model", "tokenizer") or p[:2] == ("state", "optimizer")]
    rest = [p for p in found if p not in many]
    return content, [many[::7], [p for p in rest if p[0] != "state"],
                     [p for p in rest if p[0] == "state"]]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_wrong_content_ends_in_a_line(data, honest, place):
    "A piece of a state is lost, or something else stands there; it is sealed as it should be."
    content, groups = honest
    path = data.draw(st.sampled_from(groups).flatmap(st.sampled_from))
    content = copy.deepcopy(content)
    parent = at_path(content, path[:-1])
    if data.draw(st.booleans()):
        parent[path[-1]] = data.draw(STRANGE)
    else:
        del parent[path[-1]]
    for left in Path("run").glob("*"):
        left.unlink()
    seal(content)
    try:
        pretrain(parse_args([*RESUME, "3", *SOURCE]))
    except UserError as error:
        line(error)


def test_steps_have_the_columns_that_the_form_says():
    assert schema.STEP == len(Step._fields)


def test_settings_of_an_optimizer_are_this_runs_own(place):
    content = read_checkpoint(place / "run/checkpoint2.pt")
    for group in content["state"]["optimizer"]["param_groups"]:
        group |= {"maximize": True, "betas": (5, 5), "foreach": "yes", "amsgrad": True}
    seal(content)
    pretrain(parse_args([*RESUME, "3", *SOURCE]))
    group = final()["state"]["optimizer"]["param_groups"][0]
    assert group["betas"] == (0.9, 0.98) and not group["maximize"] and not group["amsgrad"]


def test_folders_of_shards_that_lie(tmp_path):
    "Their files are not those that they list, or their table of contents points elsewhere."
    def lying(change) -> str:
        shutil.rmtree(tmp_path / "checkpoint15", ignore_errors=True)
        folder = shutil.copytree(BEFORE / "sharded/checkpoint15", tmp_path / "checkpoint15")
        content = torch.load(folder / "run.pt")
        change(folder, content)
        write_whole(folder / "run.pt", content)
        with pytest.raises(UserError) as error:
            load_model(folder)
        return line(error)

    def metadata(change):
        def planted(folder, content):
            path = folder / ".metadata"
            found = pickle.loads(path.read_bytes())
            change(found)
            path.write_bytes(pickle.dumps(found))
            content["files"][".metadata"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return planted

    def point_elsewhere(found):
        for info in found.storage_data.values():
            info.relative_path = "../outside"

    def claim(found):
        for x in found.state_dict_metadata.values():
            x.size = torch.Size([10**9, 10**3])

    def lose(found):
        found.storage_data.clear()

    outside = {"../outside": "0" * 64}
    assert "not listed" in lying(lambda folder, c: c["files"].clear())
    assert "a key of it.files" in lying(lambda folder, c: c["files"].update(outside))
    assert "lacks files" in lying(lambda folder, c: c.pop("files"))
    assert "not listed" in lying(lambda folder, c: (folder / "more").write_text("x"))
    assert "points to '../outside'" in lying(metadata(point_elsewhere))
    assert "claims" in lying(metadata(claim))
    for broken in (lose, lambda found: setattr(found, "storage_data", None),
                   lambda found: setattr(found, "state_dict_metadata", {"model.x": 3}),
                   lambda found: found.state_dict_metadata.clear()):
        lying(metadata(broken))


def test_a_foreign_content_of_any_form_ends_in_a_line(tmp_path):
    weights = {"decoder.x": torch.zeros(2)}
    for args in (bomb(), {"encoder_layers": bomb()}, {"max_positions": 10**5000}, {}):
        torch.save({"model": weights, "args": args}, tmp_path / "a.pt")
        with pytest.raises(UserError) as error:
            load_model(tmp_path / "a.pt")
        line(error)


# --- what a killed conversion leaves (20) ---

def killed_conversion(folder: str) -> None:
    "A conversion that is killed when all of it is written."
    from annotated_mpnet import export
    os.chdir(folder)
    export.verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    to_huggingface("run/checkpoint2.pt", "out/hf")


def test_the_next_conversion_cleans_up_after_a_killed_one(place):
    process = context.Process(target=killed_conversion, args=(str(place),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left, = (place / "out").iterdir()
    assert (left / "model.safetensors").is_file()
    others = {".hf.999999999.tmp": "no sign of ours", ".else.999999998.tmp": "another place"}
    for name in others:
        (place / "out" / name).mkdir()
    shutil.copytree(left, place / f"out/.hf.{os.getppid()}.tmp")  # a process that is alive
    to_huggingface("run/checkpoint2.pt", "out/hf")
    there = {path.name for path in (place / "out").iterdir()}
    assert there == {"hf", f".hf.{os.getppid()}.tmp", *others}
    assert not [p for p in (place / "out/hf").iterdir() if p.name.startswith(".")]


def test_json_is_still_read(place):
    "Bounds refuse nothing that is honest."
    to_huggingface("run/checkpoint2.pt", "hf")
    json.loads(Path("hf/config.json").read_text())
    from_huggingface("hf")
    assert FORMAT == read_checkpoint(Path("run/checkpoint2.pt"))["format"]
