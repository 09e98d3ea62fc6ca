"""The command line, the YAML file and the reference page come from one dataclass: do they agree?"""
import json
import logging
import re
import shlex
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from configuration_page import docs_table
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_mpnet import arguments
from annotated_mpnet import configuration as c
from annotated_mpnet.arguments import parse_args
from annotated_mpnet.configuration import ModelConfig, PretrainConfig, UserError, scaled_buckets
from annotated_mpnet.rules import RULES_BETWEEN, check, refuse

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = json.loads((ROOT / "tests/fixtures/configuration-reference.json").read_text())
PAGE = ROOT / "docs/configuration.md"
ALL = list(c.FIELDS.values())
DEMO = ["--demo"]


def words(f, value) -> list[str]:
    "An argument and its value as words of a command line."
    if isinstance(value, bool):
        return [c.flag(f.name) if value else arguments.off_flag(f.name)]
    return [c.flag(f.name), str(value)]


def another(f):
    "A value that is right for a field and isn't its default."
    if f.metadata["choices"]:
        return next(x for x in f.metadata["choices"] if x != f.default)
    if c.kind(f) is bool:
        return not f.default
    if c.kind(f) is str:
        return "some-text"
    allowed = c.RULES[f.metadata["rule"]]
    of_its_kind = [x for x in (0.5, 7, 8) if isinstance(x, c.kind(f))]
    return next(x for x in of_its_kind if x != f.default and allowed(x))


# What was asked for


def test_every_argument_of_the_reference_in_its_order():
    ours = []
    for heading, members in c.groups().items():
        ours += [(heading, list(c.names(f)), c.kind(f).__name__, f.default, f.metadata["choices"])
                 for f in members if not f.metadata["added"]]
    asked = []
    for r in REFERENCE:
        choices = tuple(r["choices"]) if "choices" in r else None
        asked.append((r["section"], r["names"], r["type"], r["default"], choices))
    assert ours == asked


def test_additions_are_marked_and_stand_last():
    added = [f.name for f in ALL if f.metadata["added"]]
    assert added == [f.name for f in ALL[len(REFERENCE):]]
    assert added == [f.name for f in c.groups()["Additions"]]
    assert added == [
        "demo", "config", "dataset_config_name", "skip_broken_shards", "max_broken_share",
        "document_per_file", "packing", "objective", "return_mlm", "pred_prob", "keep_prob",
        "rand_prob", "no_whole_word_mask", "max_gram", "precision", "attention_backend",
        "overwrite", "fsdp",
    ]


def test_every_field_is_declared_whole():
    for f in ALL:
        meaning, rule = f.metadata["help"], f.metadata["rule"]
        assert meaning and not meaning.endswith(".") and "\n" not in meaning
        if c.kind(f) in (int, float):
            assert rule in c.RULES and (f.default is None or c.RULES[rule](f.default))
        assert f.default is None or type(f.default) is c.kind(f)
        if f.metadata["choices"]:
            assert f.default in f.metadata["choices"]


def test_names_are_unique():
    on = [name.replace("_", "-") for f in ALL for name in c.names(f)]
    off = [arguments.off_flag(f.name) for f in ALL if c.kind(f) is bool]
    assert len(set(on + off)) == len(on + off)


def test_lists_of_names_name_fields():
    for name, value in c.DEMO_DEFAULTS.items():
        assert c.read_value(c.FIELDS[name], value) == value


# The page


def argument_lines() -> list[tuple[str, str]]:
    "(heading, line) of each argument on the page."
    found, heading = [], None
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `-") and line.count(" | ") == 3:
            found.append((heading, line))
    return found


def page_rows() -> list[tuple[str, list[str], str, str]]:
    "(heading, names, type, default) of each argument on the page, as read from the Markdown."
    rows = []
    for heading, line in argument_lines():
        names, kind, default, _ = line.strip("| ").split(" | ", 3)
        names = re.findall(r"`([^`]+)`", names)
        rows.append((heading, names, kind.strip("`"), default.strip("`")))
    return rows


def test_page_is_current():
    assert PAGE.read_text() == docs_table(), "python tools/configuration_page.py"


def test_page_has_every_argument():
    assert page_rows() == [(heading, list(c.names(f)), c.kind(f).__name__, c.show(f.default))
                           for heading, members in c.groups().items() for f in members]


def test_page_marks_what_it_should():
    lines = {re.search(r"`--([^`]+)`", line)[1].replace("-", "_"): line
             for _, line in argument_lines() if line.startswith("| `--")}
    for f in ALL:
        assert ("*Addition.*" in lines[f.name]) == f.metadata["added"]


def test_page_has_anchors_for_its_groups():
    text = PAGE.read_text()
    anchors = re.findall(r'<a id="([^"]+)"></a>\n\n##', text)
    assert len(anchors) == len(set(anchors)) >= len(c.groups()) + 1
    headings = [*c.groups(), "Data Source", "Rules between arguments"]
    assert all(f"# {heading}\n" in text for heading in headings)


def test_page_lists_the_demos_defaults():
    text = PAGE.read_text()
    for name, value in c.DEMO_DEFAULTS.items():
        assert f"| `{c.flag(name)}` | `{c.show(value)}` |" in text


def page_commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text().replace("\\\n", ""), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("pretrain-mpnet")]


def test_commands_on_the_page():
    assert len(page_commands()) >= 5
    for argv in page_commands():
        assert check(parse_args(argv))
    assert parse_args(page_commands()[0]) == PretrainConfig() # the first spells out the defaults


def test_rules_name_real_arguments():
    for text in [*(rule.text for rule in RULES_BETWEEN), *(f.metadata["help"] for f in ALL)]:
        for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text):
            assert name in arguments.spellings(), f"{name} in {text!r}"


# --help


def test_help_has_every_argument_under_its_heading():
    text = arguments.build_parser().format_help()
    places = [text.index(f"\n{heading}:\n") for heading in c.groups()]
    assert places == sorted(places)
    for members, start, end in zip(c.groups().values(), places, [*places[1:], len(text)]):
        part = " ".join(text[start:end].split())
        for f in members:
            for name in c.names(f):
                assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", part), f.name
            meaning = f.metadata["help"].replace(" ", "")
            assert meaning in part.replace(" ", ""), f.name # wherever it is wrapped


@pytest.mark.parametrize("code", [
    "parse_args(['--help'])",
    "parse_args(['--demo', '--lr', '1e-3'])",
    "check(parse_args(['--demo', '--config', 'run.yaml']))",
    "refuse(parse_args(['--demo']))",
    "docs_table()",
])
def test_torch_is_not_imported(code, tmp_path):
    (tmp_path / "run.yaml").write_text("lr: 1e-3\n")
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
from annotated_mpnet.arguments import *
from annotated_mpnet.rules import *
from configuration_page import docs_table
try: {code}
except SystemExit as stop: assert not stop.code
heavy = {{'torch', 'transformers', 'datasets', 'numpy'}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Every spelling of every argument


@pytest.mark.parametrize("f", ALL, ids=lambda f: f.name)
def test_spellings(f, tmp_path):
    if f.name == "config":
        return
    value = another(f)
    for name in c.names(f):
        bare = name.lstrip("-")
        for written in {bare, bare.replace("-", "_"), bare.replace("_", "-")}:
            written = "-" * (len(name) - len(bare)) + written
            rest = [] if c.kind(f) is bool else [str(value)]
            assert getattr(parse_args([written, *rest]), f.name) == value
            if rest:
                assert getattr(parse_args([f"{written}={value}"]), f.name) == value
            path = tmp_path / "run.yaml"
            path.write_text(yaml.safe_dump({written.lstrip("-"): value}))
            assert getattr(parse_args(["--config", str(path)]), f.name) == value


def test_negative_values():
    for argv in (["--checkpoint-interval", "-1"], ["--save-steps=-1"],
                 ["-wd", "0.5", "--keep_checkpoints", "-1"]):
        assert parse_args(argv).checkpoint_interval == -1
    with pytest.raises(UserError, match="--lr must be above 0, not -0.001"):
        parse_args(["--lr", "-1e-3"])


# Who wins


def test_order_of_sources(tmp_path):
    path = tmp_path / "run.yaml"
    for name, demo_value in c.DEMO_DEFAULTS.items():
        f = c.FIELDS[name]
        plain = words(f, f.default) if f.default is not None else None
        assert getattr(parse_args([]), name) == f.default
        assert getattr(parse_args(DEMO), name) == demo_value
        if plain: # asking for the plain default is asking
            assert getattr(parse_args(DEMO + plain), name) == f.default
            assert getattr(parse_args(plain + DEMO), name) == f.default
        path.write_text(yaml.safe_dump({name: f.default, "demo": True}))
        from_file = ["--config", str(path)]
        assert getattr(parse_args(from_file), name) == f.default
        assert getattr(parse_args([*from_file, *words(f, demo_value)]), name) == demo_value


def test_flags_turn_off_what_a_file_turned_on(tmp_path):
    path = tmp_path / "run.yaml"
    from_file = ["--config", str(path)]
    for f in ALL:
        if c.kind(f) is bool:
            path.write_text(f"{f.name}: true\n")
            assert getattr(parse_args(from_file), f.name) is True
            off = parse_args([*from_file, arguments.off_flag(f.name)])
            assert getattr(off, f.name) is False
    path.write_text("demo: true\n")
    plain = replace(PretrainConfig(), config=str(path))
    assert parse_args([*from_file, "--no-demo"]) == plain


def test_the_last_of_two_flags_wins():
    assert parse_args(["--lr", "1", "--lr", "2"]).lr == 2


def values(f) -> st.SearchStrategy:
    "Right values of a field."
    if f.metadata["choices"]:
        return st.sampled_from(f.metadata["choices"])
    if c.kind(f) is bool:
        return st.booleans()
    if c.kind(f) is str:
        return st.text("abcxyz /._-é0123456789", min_size=1).filter(lambda s: not s.startswith("-"))
    numbers = st.floats(0, 10, allow_nan=False) | st.floats(1e-12, 1)
    if c.kind(f) is int:
        numbers = st.integers(-2, 10**6)
    return numbers.filter(c.RULES[f.metadata["rule"]])


FIELD = st.sampled_from([f for f in ALL if f.name not in ("config", "demo")])
SOME = st.lists(FIELD, unique_by=lambda f: f.name, max_size=8).flatmap(
    lambda chosen: st.fixed_dictionaries({f.name: values(f) for f in chosen}))


def command_line(settings: dict) -> list[str]:
    return [word for name, value in settings.items() for word in words(c.FIELDS[name], value)]


@settings(max_examples=60, deadline=None)
@given(SOME, SOME)
def test_file_and_command_line_say_the_same(tmp_path_factory, in_file, on_command_line):
    path = tmp_path_factory.mktemp("yaml") / "run.yaml"
    path.write_text(yaml.safe_dump(in_file, allow_unicode=True), encoding="utf-8")
    from_file = replace(parse_args(["--config", str(path)]), config=None)
    assert from_file == parse_args(command_line(in_file)) == PretrainConfig(**in_file)
    both = parse_args(["--config", str(path), *command_line(on_command_line)])
    assert replace(both, config=None) == PretrainConfig(**(in_file | on_command_line))


# Bad input: one line that names what was wrong


def line_of(argv, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        check(parse_args(argv), **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("argv, says", [
    (["--encoder-layer", "3"], "'--encoder-layer'; did you mean --encoder-layers?"),
    (["--grad-clip", "3"], "'--grad-clip'; did you mean -grad_clip?"),
    (["-pre"], "'-pre'; did you mean -prenorm?"),
    (["--total", "3"], "'--total'"),
    (["--zzz"], "'--zzz'"),
    (["-hello"], "'-hello'"),
    (["--total-updates", "ten"], "--total-updates takes a whole number, not 'ten'"),
    (["--total-updates", "1.5"], "--total-updates takes a whole number, not '1.5'"),
    (["--total-updates", "0"], "--total-updates must be at least 1, not 0"),
    (["--total-updates"], "--total-updates"),
    (["--learning-rate", "1e-3"], "'--learning-rate'; did you mean --lr?"),
    (["--num_train_epochs=3"], "'--num_train_epochs'; did you mean --total-updates?"),
    (["--fp16"], "'--fp16'; did you mean --precision?"),
    (["--lr", "nan"], "--lr takes a number, not 'nan'"),
    (["--lr", "inf"], "--lr takes a number, not 'inf'"),
    (["--lr", "0"], "--lr must be above 0"),
    (["--dropout", "1"], "--dropout must be in [0, 1)"),
    (["--pred-prob", "0"], "--pred-prob must be in (0, 1)"),
    (["--checkpoint-interval", "0"], "--checkpoint-interval must be -1 or at least 1"),
    (["--seed", "-1"], "--seed must be in [0, 2^63)"),
    (["--activation-fn", "rellu"],
     "--activation-fn takes one of gelu, gelu_accurate, relu, relu2, silu, tanh, linear, "
     "not 'rellu'; did you mean relu?"),
    (["--objective", "clm"], "--objective takes one of mpnet, mlm, plm, not 'clm'"),
    (["--precision", "float16"], "--precision takes one of auto, float32, bfloat16, not 'float16'"),
    (["--checkpoint-dir", ""], "--checkpoint-dir takes text, not ''"),
    (["--debug=yes"], "--debug"),
    (["texts/"], "texts/"),
    (["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file"),
    (["--demo", "--encoder-attention-heads", "5"], "--encoder-attention-heads 5"),
    (["--demo", "--max-positions", "50"], "--max-positions 50 is below --max-tokens"),
    (["--demo", "--keep-prob", "0.7", "--rand-prob", "0.4"], "add up to more than 1"),
    (["--demo", "--return-mlm", "--objective", "plm"],
     "--return-mlm goes with --objective mpnet, not plm"),
    (["--demo", "--lr", "1e-3", "--end-learning-rate", "2e-3"],
     "--end-learning-rate 0.002 is above --lr 0.001"),
    (["--demo", "--relative-attention-num-buckets", "15"],
     "--relative-attention-num-buckets must be even, not 15"),
    (["--demo", "-num_buckets", "64", "--relative-attention-max-distance", "16"],
     "--relative-attention-max-distance 16"),
    (["--train-dir", "texts"], "--train-dir also needs --valid-file and --test-file"),
    (["--demo", "--train-dir", "texts", "--valid-file", "v.txt"], "also needs --test-file"),
    (["--demo", "--test-file", "t.txt"], "--test-file also needs --train-dir and --valid-file"),
])
def test_bad_arguments(argv, says):
    assert says in line_of(argv)


@pytest.mark.parametrize("text, says", [
    (b"encoder_layer: 3", "unknown key 'encoder_layer'; did you mean encoder_layers?"),
    (b"--lr: 1", "unknown key '--lr'"),
    (b"output_dir: run", "unknown key 'output_dir'; did you mean checkpoint_dir?"),
    (b"config: other.yaml", "unknown key 'config'"),
    (b"7: 7", "unknown key '7'"),
    (b"lr: fast", "--lr takes a number, not 'fast'"),
    (b"lr: [1, 2]", "--lr takes a number, not [1, 2]"),
    (b"lr:", "--lr takes a number, not None"),
    (b"lr: .nan", "--lr takes a number, not nan"),
    (b"total_updates: 1.5", "--total-updates takes a whole number, not 1.5"),
    (b"total_updates: true", "--total-updates takes a whole number, not True"),
    (b"debug: 1", "--debug takes true or false, not 1"),
    (b"debug: 'false'", "--debug takes true or false, not 'false'"),
    (b"wandb_id: 123", "--wandb-id takes text, not 123"),
    (b"objective: off", "--objective takes text, not False"),
    (b"save-steps: 3\ncheckpoint_interval: 3", "given twice"),
    (b"- lr", "holds a list"),
    (b"just words", "holds a str"),
    (b"lr: [1", "not YAML at line 1"),
    (b"lr: !!python/object:os.system 1", "not YAML at line 1"),
    (b"\x00\x01\x02", "not a text file in YAML"),
    (b"\xff\xfe\xfa", "not a text file in YAML"),
    (b"[" * 5000, "not "),
    (b"date: 2024-99-99", "not a text file in YAML"),
])
def test_bad_files(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_bytes(text)
    line = line_of(["--config", "run.yaml"])
    assert line.startswith("--config run.yaml") and says in line


def test_a_folder_is_no_file(tmp_path):
    assert f"--config {tmp_path}: Is a directory" in line_of(["--config", str(tmp_path)])


FLAGS = [name for f in ALL for name in c.names(f)]
ODD = ["-1", "0", "1e400", "9" * 5000, "--", "-", "=", "--=", "-1x", "nan", "--lr=", "-wd=3"]
WORD = st.sampled_from(FLAGS) | st.text(max_size=8) | st.sampled_from(ODD)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORD, max_size=6))
def test_any_words_give_a_config_or_one_exception(argv):
    try:
        check(parse_args(argv))
    except (UserError, SystemExit) as stop: # --help and -h end with 0
        assert isinstance(stop, UserError) or not stop.code


@pytest.mark.parametrize("words", [
    "--demo", "--max-tokens 64", "--encoder-embed-dim 100 --encoder-attention-heads 3",
    "-num_buckets 9", "--return-mlm --objective mlm", "--max-positions 8", "--keep-prob 1",
    "--train-dir texts", "--fsdp --compile", "--wandb-watch", "--resume-checkpoint a.pt -end_lr 9",
])
def test_refused_before_anything_is_worked_out(words):
    "What `check` refuses, `refuse` does, in the same words and without changing anything."
    config = parse_args(words.split())
    said, before = [], c.arguments_of(config)
    for action in (refuse, check):
        try:
            action(config)
        except UserError as error:
            said.append(str(error))
    assert len(said) in (0, 2) and len(set(said)) < 2 and c.arguments_of(config) == before


# What was given, and what is stored


def test_given(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr: 0.0006\n")
    config = parse_args(["--demo", "--config", str(path), "-gc_steps", "8"])
    assert c.given_names(config) == config.given == {"demo", "config", "lr", "update_freq"}
    assert c.given_names(parse_args([])) == set()
    assert c.given_names(PretrainConfig(lr=6e-4, batch_size=3)) == {"batch_size"}
    assert check(config).given == replace(config, lr=1.0).given == config.given
    assert list(c.arguments_of(config)) == list(c.FIELDS) and "given" not in c.FIELDS
    assert PretrainConfig(**c.arguments_of(config)) == config


# What is worked out


def test_unset_values():
    plain = check(PretrainConfig(), own_data=True)
    assert (plain.max_positions, plain.warmup_updates) == (512, 1000)
    assert plain.eval_interval_steps == 5000
    assert check(plain, own_data=True) == plain
    assert check(parse_args(["--demo", "--max-tokens", "64"])).max_positions == 64
    assert check(parse_args(["--demo", "--warmup-updates", "0"])).warmup_updates == 0
    assert check(parse_args(["--demo", "--total-updates", "3"])).warmup_updates == 0
    assert check(PretrainConfig(lr=1), own_data=True).lr == 1.0


def test_check_changes_a_copy():
    config = parse_args(DEMO)
    check(config)
    assert config == parse_args(DEMO)


def test_eval_interval_follows_the_checkpoints():
    assert check(parse_args(["--save-steps", "70"])).eval_interval_steps == 70
    argv = ["--save-steps", "70", "--eval-interval-steps", "7"]
    assert check(parse_args(argv)).eval_interval_steps == 7
    assert check(parse_args([])).eval_interval_steps == 5000


def test_warnings(caplog):
    caplog.set_level(logging.INFO, "annotated_mpnet")
    check(parse_args(["--demo", "--warmup-updates", "50", "--total-updates", "10"]))
    check(parse_args(["--demo", "--max-positions", "2048"]))
    said = [(r.levelname, r.getMessage().split(" ")[0]) for r in caplog.records]
    assert said == [("WARNING", "--warmup-updates"), ("INFO", "2048")]
    caplog.clear()
    check(parse_args(DEMO))
    assert not caplog.records


# Where the text comes from


def test_sources(caplog):
    files = ["--train-dir", "texts", "--valid-file", "v.txt", "--test-file", "t.txt"]
    for argv in (files, DEMO + files):
        assert check(parse_args(argv)).train_dir == "texts"
    assert check(parse_args(DEMO)).dataset_name is None
    assert check(parse_args([])).dataset_name == c.DEFAULT_DATASET
    assert check(PretrainConfig(), own_data=True).dataset_name is None
    assert not caplog.records
    both = check(parse_args(["--dataset-name", "some/texts", *files]))
    files = (both.train_dir, both.valid_file, both.test_file)
    assert both.dataset_name == "some/texts" and files == (None, None, None)
    assert ("--dataset-name some/texts is used; "
            "--train-dir and --valid-file and --test-file ignored") in caplog.text


def test_a_file_in_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("notes")
    for name in ("--checkpoint-dir", "--tensorboard-log-dir"):
        line = line_of(["--demo", name, "notes.txt"])
        assert f"{name} notes.txt can't be a folder" in line
        line = line_of(["--demo", name, "notes.txt/run"])
        assert f"{name} notes.txt/run can't be a folder: notes.txt is a file" in line


def test_two_sources_of_weights():
    assert "give one of them" in line_of(["--hf-model-path", "model", "--resume"])


# The model's part


def positions(model: ModelConfig) -> tuple[int, int, int]:
    "How many, and the buckets and the largest distance of the relative ones."
    buckets, distance = model.relative_attention_num_buckets, model.relative_attention_max_distance
    return model.max_positions, buckets, distance


def test_model_config_takes_the_runs_values():
    run = parse_args("--demo -prenorm -activation relu2 --max-tokens 40 --objective mlm "
                     "--dropout 0.2".split())
    model = ModelConfig.from_pretrain(run, vocab_size=1000, pad_token_id=3)
    both = [f.name for f in fields(ModelConfig) if f.name in c.FIELDS]
    shared = [name for name in both if not name.startswith(("max_", "relative_"))]
    assert len(shared) == 10
    assert all(getattr(model, name) == getattr(run, name) for name in shared)
    assert (model.vocab_size, model.pad_token_id, model.layer_norm_eps) == (1000, 3, 1e-5)
    assert positions(model) == (40, 32, 128)
    longer = ModelConfig.from_pretrain(replace(run, max_positions=1024), 1000)
    assert positions(longer) == (1024, 64, 256)


def test_model_config_defaults_are_those_of_a_run():
    assert ModelConfig(1000) == ModelConfig.from_pretrain(PretrainConfig(), 1000)


def test_model_config_round_trip():
    model = ModelConfig(1000, max_positions=700, encoder_layers=1)
    assert ModelConfig(**vars(model)) == model


@pytest.mark.parametrize("bad", [
    dict(vocab_size=0), dict(vocab_size=1), dict(pad_token_id=-1), dict(pad_token_id=10),
    dict(encoder_layers=0), dict(encoder_embed_dim=770), dict(encoder_attention_heads=0),
    dict(encoder_ffn_dim=-1), dict(dropout=1.0), dict(attention_dropout=-0.1),
    dict(activation_fn="swish"), dict(objective="clm"), dict(max_positions=None),
    dict(max_positions=0), dict(layer_norm_eps=0.0), dict(relative_attention_num_buckets=2),
    dict(relative_attention_num_buckets=9), dict(relative_attention_max_distance=8),
])
def test_bad_models(bad):
    with pytest.raises(UserError):
        ModelConfig(**{"vocab_size": 10} | bad)


@given(st.integers(1, 10**6))
def test_padded_vocabulary(size):
    padded = ModelConfig(size, pad_token_id=0).padded_vocab_size
    assert padded % 128 == 0 and 0 <= padded - size < 128


@given(st.integers(3, 10**6))
def test_scaled_buckets(positions):
    buckets, distance = scaled_buckets(positions)
    if positions <= 512:
        assert (buckets, distance) == (32, 128)
    else:
        assert buckets % 8 == distance % 8 == 0
        assert 0 <= buckets - 32 * positions / 512 < 8 and 0 <= distance - 128 * positions / 512 < 8
