"""The command as a process: exit codes, one line for each error; and any words, in this process."""
import hashlib
import logging
import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from helpers_runs import HANGS, completed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from annotated_mpnet import arguments, cli
from annotated_mpnet import configuration as c
from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.tokenization import train_tokenizer

SENTENCES = ["the task is sentence classification",
             "the task is to predict the masked words of a sentence",
             "a model sees the positions of all words",
             "the words of a sentence are permuted"]
FILES = ("--train-dir texts --valid-file valid.txt --test-file test.txt "
         "--tokenizer-name tokenizer").split()
SMALL = ("--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 16 "
         "--encoder-attention-heads 2 --max-tokens 16 --batch-size 2 --update-freq 1 "
         "--total-updates 2 --checkpoint-dir run").split()
RUN = FILES + SMALL
LINE = "pretrain-mpnet: error: "


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory) -> Path:
    "A folder with a tokenizer that will do, and one that has no mask token."
    folder = tmp_path_factory.mktemp("tokenizers")
    train_tokenizer(SENTENCES * 3, 200).save_pretrained(folder / "tokenizer")
    words = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "the", "task"])}
    bare = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
             "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=bare, **names).save_pretrained(folder / "no-mask")
    return folder


@pytest.fixture
def place(tmp_path, tokenizers) -> Path:
    "A folder with everything that a run from local files needs."
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("\n".join(SENTENCES) + "\n")
    for name in ("valid.txt", "test.txt"):
        (tmp_path / name).write_text("\n".join(SENTENCES[:2]) + "\n")
    for name in ("tokenizer", "no-mask"):
        (tmp_path / name).symlink_to(tokenizers / name)
    return tmp_path


def listing(folder: Path) -> dict[str, str]:
    "Every file below a folder with its checksum."
    sums = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file()
        name = path.relative_to(folder).as_posix()
        sums[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else ""
    return sums


def is_one_line(text: str, begins: str = LINE) -> bool:
    return text.startswith(begins) and text.count("\n") == 1


def installed(name: str, argv: list[str], **options) -> subprocess.CompletedProcess:
    "An installed command, run to its end; options as of `subprocess.run`."
    command = Path(sys.executable).parent / name
    return subprocess.run([command, *argv], capture_output=True, text=True, **options)


def pretrain_mpnet(argv: list[str], folder: Path, env: dict[str, str] | None = None):
    "The installed command, run in a folder."
    return installed("pretrain-mpnet", argv, cwd=folder, timeout=HANGS, env=env)


def refused(argv: list[str], folder: Path, run=pretrain_mpnet, **more) -> str:
    "Run the command: it must end with 2, say one line, and write nothing. The line."
    before = listing(folder)
    done = run(argv, folder, **more)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and is_one_line(done.stderr), (done.stdout, done.stderr)
    assert listing(folder) == before
    return done.stderr.removeprefix(LINE).rstrip()


# Bad input, as a process


@pytest.fixture
def without_torch(tmp_path_factory) -> dict[str, str]:
    "An environment in which to import a slow library ends the process: what is fast needs none."
    folder = tmp_path_factory.mktemp("traps")
    for name in ("torch", "transformers", "datasets", "numpy"):
        trap = f"import os\nos.write(2, b'{name} is imported')\nos._exit(99)\n"
        (folder / f"{name}.py").write_text(trap)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize("argv, says", [
    (["--encoder-layer", "3"],
     "unknown argument '--encoder-layer'; did you mean --encoder-layers?"),
    (["--demo", "--activation-fn", "swish"], "not 'swish'"),
    (["--demo", "--encoder-embed-dim", "100", "--encoder-attention-heads", "3"],
     "--encoder-embed-dim 100"),
    (["--lr", "fast"], "not 'fast'"),
    (["--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
    (["--config", "texts/a.txt"], "--config texts/a.txt"),
    (["--demo", "--wandb-id", "7"], "--wandb-id needs --wandb"),
    (["--demo", "--resume", "--hf-model-path", "model"], "give one of them"),
    (["two\nlines"], "two lines"),
], ids=lambda x: x if isinstance(x, str) else None)
def test_refused_at_once(place, without_torch, argv, says):
    assert says in refused(argv, place, env=without_torch)


def spoil(place: Path, what: str) -> list[str]:
    "Break something in the folder, or ask for something that isn't there; the command line."
    if what == "empty dir":
        (place / "texts/a.txt").unlink()
    elif what == "no text in dir":
        (place / "texts/a.txt").write_text("\n\n")
    elif what == "binary train":
        (place / "texts/b.txt").write_bytes(bytes(range(256)) * 10)
    elif what == "binary valid":
        (place / "valid.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100))
    elif what == "empty valid":
        (place / "valid.txt").write_text("")
    elif what == "nothing to predict":
        (place / "texts/a.txt").write_text("<mask>\n</s> <s>\n")
    elif what == "nothing to validate":
        (place / "valid.txt").write_text("<mask>\n</s> <s>\n")
    elif what == "earlier run":
        (place / "run").mkdir()
        (place / "run/best_checkpoint.pt").write_bytes(b"weeks of work")
    else:
        return RUN + what.split()
    return RUN


@pytest.mark.parametrize("what, says", [
    ("empty dir", "texts"),
    ("no text in dir", "texts"),
    ("--train-dir nowhere", "nowhere"),
    ("--train-dir valid.txt", "valid.txt"),
    ("--valid-file nowhere.txt", "nowhere.txt"),
    ("--test-file texts", "texts"),
    ("binary train", "b.txt"),
    ("binary valid", "valid.txt"),
    ("empty valid", "valid.txt"),
    ("--tokenizer-name no-mask", "no mask token"),
    ("--tokenizer-name texts", "texts"),
    ("--tokenizer-name some/where", "some/where"),
    ("nothing to predict", "nothing to predict"),
    ("nothing to validate", "nothing to predict"),
    ("earlier run", "--overwrite"),
    ("--checkpoint-dir valid.txt", "valid.txt"),
])
def test_refused_by_the_trainer(place, what, says, tmp_path_factory):
    "Forked, so that not each imports everything again."
    logs = tmp_path_factory.mktemp("logs")
    assert says in refused(spoil(place, what), place, completed, logs=logs)


# Good input, as a process


def test_a_run_and_a_second_one(place):
    names = [arguments.spellings()[flag].lstrip("-") for flag in SMALL[::2]]
    lines = [f"{name}: {value}\n" for name, value in zip(names, SMALL[1::2])]
    (place / "run.yaml").write_text("".join(lines))
    done = pretrain_mpnet([*FILES, "--config", "run.yaml", "--total-updates", "3"], place)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "best checkpoint:" in done.stdout and "run/final_checkpoint.pt" in done.stdout
    left = sorted(path.name for path in (place / "run").iterdir())
    assert left == ["best_checkpoint.pt", "final_checkpoint.pt"]
    assert "already holds" in refused(RUN, place)
    again = pretrain_mpnet([*RUN, "--overwrite"], place)
    assert again.returncode == 0, again.stderr


def test_help(without_torch):
    done = pretrain_mpnet(["--help"], Path.cwd(), without_torch)
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"\n{heading}:\n" in done.stdout for heading in c.groups())


def test_debug_shows_where(place):
    done = pretrain_mpnet(["--demo", "--max-positions", "4", "--debug"], place)
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(LINE)


def test_a_warning_is_said_once(place):
    done = pretrain_mpnet([*RUN, "--warmup-updates", "5"], place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("--warmup-updates 5") == 1 == done.stderr.count("\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c(place):
    argv = [*RUN, "--total-updates", "1000000", "--logging-steps", "1"]
    process = subprocess.Popen([sys.executable, "-u", "-m", "annotated_mpnet.cli", *argv],
                               cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 130, err
    first, last = err.splitlines()
    assert first.startswith("pretrain-mpnet: SIGINT: stopping") and "second Ctrl-C" in first
    assert last.startswith("pretrain-mpnet: stopped by SIGINT after update ")


def test_convert_to_hf_without_words():
    done = installed("convert-to-hf", [])
    assert done.returncode == 2 and is_one_line(done.stderr, "convert-to-hf: error: ")


# Versions of what is installed


NEEDS = [Requirement(need) for need in metadata.requires("annotated-mpnet")]
BOUNDS = {need.name: need for need in NEEDS if not need.marker}
WHOLE_COMMANDS = {"pretrain-mpnet": (cli.main, RUN),
                  "convert-to-hf": (cli.convert_main, ["--checkpoint", "none", "--output", "out"])}


def pretend(name: str, version: str, folder: Path) -> Path:
    "A folder that says, when on Python's path, that this version of a package is installed."
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def lowest(need: Requirement) -> str:
    "The version in a requirement such as torch>=2.6."
    return next(s.version for s in need.specifier if s.operator == ">=")


@pytest.mark.parametrize("command", WHOLE_COMMANDS)
def test_an_old_version_ends_in_a_line(place, command):
    path = os.pathsep.join([str(pretend("transformers", "4.40.0", place / "old")), *sys.path])
    words, before = WHOLE_COMMANDS[command][1], listing(place)
    done = installed(command, words, cwd=place, timeout=120, env=os.environ | {"PYTHONPATH": path})
    need = str(BOUNDS["transformers"])
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr == (f"{command}: error: transformers 4.40.0 is too old for annotated-mpnet, "
                           f'which needs {need}; pip install -U "{need}"\n')
    assert listing(place) == before


@pytest.mark.parametrize("command", WHOLE_COMMANDS)
@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.usefixtures("own_logging")
def test_every_bound_is_watched(monkeypatch, capsys, place, tmp_path_factory, name, command):
    monkeypatch.chdir(place)
    monkeypatch.setattr("annotated_mpnet.trainer.Run", stop_there)
    monkeypatch.setattr("annotated_mpnet.huggingface.to_huggingface", stop_there)
    main, words = WHOLE_COMMANDS[command]
    bound = lowest(BOUNDS[name])
    for version, refused in [(bound, False), (f"{bound}+cpu", False), ("9999.1.dev0", False),
                             (f"{bound}rc1", True), ("0.0.1", True)]:
        with monkeypatch.context() as here:
            here.syspath_prepend(pretend(name, version, tmp_path_factory.mktemp("installed")))
            assert main(words) == 2
        err = capsys.readouterr().err
        assert (f"{name} {version} is too old" in err) == refused, err
        assert refused or "as far as this test goes" in err, err


@pytest.mark.usefixtures("own_logging")
def test_a_version_with_a_known_fault_ends_in_a_line(monkeypatch, capsys, place, tmp_path):
    "datasets 5.0.0 forgets where a stream is: texts held out are those that are trained on."
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(pretend("datasets", "5.0.0", tmp_path))
    assert cli.main(RUN) == 2
    err = capsys.readouterr().err
    assert is_one_line(err) and "datasets 5.0.0 doesn't work with annotated-mpnet" in err


def test_a_missing_package_ends_in_a_line(monkeypatch, capsys, place):
    monkeypatch.chdir(place)
    found = metadata.version
    def version(name):
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return found(name)
    monkeypatch.setattr("importlib.metadata.version", version)
    assert cli.main(RUN) == 2
    err = capsys.readouterr().err
    assert is_one_line(err) and f"needs {BOUNDS['rich']}, which is missing" in err


HELP_ALONE = """
import sys
from annotated_mpnet.cli import main
main(["--help"])
sys.exit(bool({"torch", "transformers", "packaging", "importlib.metadata"} & set(sys.modules)))
"""


def test_help_does_not_look_at_versions():
    path = os.pathsep.join([str(Path(cli.__file__).parents[1]), *sys.path])
    done = subprocess.run([sys.executable, "-S", "-c", HELP_ALONE], timeout=60,
                          env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# In this process


@pytest.fixture
def own_logging():
    "What `main` does to the package's logger is undone."
    logger = logging.getLogger("annotated_mpnet")
    before = logger.level, logger.handlers[:]
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def test_exit_codes(monkeypatch, capsys, own_logging, place):
    monkeypatch.chdir(place)
    denied = PermissionError(13, "Permission denied", "run")
    for raised, code, says in [(KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
                               (denied, 2, "run: Permission denied"),
                               (c.UserError("mend\nthis"), 2, "mend this"),
                               (None, 0, None)]:
        def pretrain(config, **more):
            assert isinstance(config, PretrainConfig) and config.train_dir == "texts"
            if raised is not None:
                raise raised
            return {"best_checkpoint": "best.pt", "final_checkpoint": "final.pt"}
        monkeypatch.setattr("annotated_mpnet.trainer.pretrain", pretrain)
        assert cli.main(RUN) == code
        out, err = capsys.readouterr()
        assert err.count("\n") == (says is not None) and (says or "") in err
        assert ("best.pt" in out) == (code == 0)


def test_a_bug_keeps_its_traceback(monkeypatch, capsys, own_logging, place):
    "In a file, which the line names (tests/test_terminal.py)."
    monkeypatch.chdir(place)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("annotated_mpnet.trainer.pretrain", lambda config: 1 / 0)
    assert cli.main(RUN) == 1
    page, = place.glob("traceback-*.txt")
    assert str(page) in capsys.readouterr().err and "ZeroDivisionError" in page.read_text()


def test_demo_tells_its_story(monkeypatch, capsys, own_logging, place):
    monkeypatch.chdir(place)
    # With everything else set: small, and on these files.
    assert cli.main(["--demo", *RUN, "--total-updates", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "the baseline:" in out
    assert "validation loss at <mask>" in out and "run/best_checkpoint.pt" in out
    assert out.count("before:") == out.count("after:") == len(cli.DEMO_SENTENCES)


NUMBERS = ["0", "1", "-1", "2", "3", "8", "0.5", "-0.0", "1e-3", "nan", "inf", "1e999", "9" * 30]
NAMES = ["true", "gelu", "linear", "mlm", "plm", "valid.txt", "texts", "tokenizer", "no-mask",
         "demo", "bfloat16"]
ODD = ["", " ", ".", "/", "~", "--", "-", "\n", "\0", "é"]
VALUES = st.one_of(
    st.sampled_from(NUMBERS + NAMES + ODD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
ON = [name for f in c.FIELDS.values() for name in c.names(f) if f.name != "debug"]
OFF = [arguments.off_flag(f.name) for f in c.FIELDS.values() if c.kind(f) is bool]
FLAG = st.sampled_from(ON + OFF)
PART = st.one_of(
    FLAG.map(lambda flag: [flag]),
    st.tuples(FLAG, VALUES).map(list),
    st.tuples(FLAG, VALUES).map(lambda pair: ["=".join(pair)]),
    VALUES.map(lambda value: [value]),
)
WORDS = st.lists(PART, max_size=6).map(lambda parts: sum(parts, []))
IN_ONE_FOLDER = [HealthCheck.function_scoped_fixture]


@settings(max_examples=150, deadline=None, suppress_health_check=IN_ONE_FOLDER)
@given(words=WORDS)
@example(words=["--tokenizer-name", "\0"])
@example(words=["--tokenizer-name", "no-mask"])
@example(words=["--config", "\0"])
@example(words=["--checkpoint-dir", "\0"])
@example(words=["--demo", "--train-dir", "\0"])
def test_any_words_end_in_a_line(words, place, monkeypatch, capsys, own_logging):
    monkeypatch.chdir(place)
    # Whatever gets that far is not trained.
    monkeypatch.setattr("annotated_mpnet.trainer.loop", lambda *_: None)
    monkeypatch.setattr("annotated_mpnet.pieces.load_model", lambda path: pytest.fail("trained"))
    before = listing(place)
    # The files and the sizes come last and win, so that nothing large is built; a bad folder ends
    # what is left.
    last = "--train-dir nowhere --valid-file v --test-file t --max-positions 16".split()
    code = cli.main([*words, *SMALL[:-4], *last])
    out, err = capsys.readouterr()
    assert listing(place) == before
    if code == 0:
        assert out.startswith("usage:") and err == ""
    else:
        assert code == 2 and err.splitlines()[-1].startswith(LINE)
        earlier = err.splitlines()[:-1]
        assert all(": WARNING: " in line or ": INFO: " in line for line in earlier), err


@settings(max_examples=25, deadline=None, suppress_health_check=IN_ONE_FOLDER)
@given(words=WORDS)
def test_any_words_after_good_ones(words, place, monkeypatch, capsys, own_logging):
    monkeypatch.chdir(place)
    monkeypatch.setattr("annotated_mpnet.trainer.Run", stop_there)
    code = cli.main([*RUN, *words])
    _, err = capsys.readouterr()
    assert code == 0 or (code == 2 and err.splitlines()[-1].startswith(LINE))


def stop_there(*_, **__):
    raise c.UserError("as far as this test goes")
