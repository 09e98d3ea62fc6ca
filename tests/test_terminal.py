"""What reaches a terminal, what a broken one costs, and how every command ends."""
import ast
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from helpers_ranks import Group
from helpers_runs import HANGS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from annotated_mpnet import cli, ending, ranks, rules, start, terminal, tracking, workers
from annotated_mpnet.checkpoints import load_model
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.fast_attention import STEPS
from annotated_mpnet.terminal import Screen, one_line, screens, show, visible
from annotated_mpnet.values import home_expanded

PACKAGE = Path(terminal.__file__).parent
# small, and with texts that come along
RUN = ("--demo --encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-dim 16 --max-tokens 16 "
       "--encoder-attention-heads 2 --batch-size 4 --logging-steps 1 --total-updates 6 "
       "--checkpoint-dir run").split()
PROGRAM, LINE = "pretrain-mpnet", "pretrain-mpnet: error: "

# Texts


TEXTS = st.text(st.characters(), max_size=30)  # surrogates too: bytes of names that are no UTF-8
EVIL = "\x1b[2J\r\x9b1A\u202e\u2028\n\npretrain-mpnet: error: forged\ud800"
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(shown: str, lines: int) -> None:
    "No control character, no line that was not ours."
    assert not HIDDEN.search(shown) and shown.count("\n") == lines, ascii(shown)


@given(TEXTS)
@example(EVIL)
def test_nothing_is_hidden(text):
    harmless(visible(text), 0)
    harmless(one_line(text), 0)
    harmless(visible(text, lines=True), text.count("\n"))
    kept = "".join(c for c in text if c.isalnum() and c.isprintable())
    assert visible(kept) == kept


@given(TEXTS)
@example(EVIL)
def test_no_way_to_the_terminal_shows_a_control_character(text):
    "Each function that prints, the logger, warnings, threads, libraries, errors and their pages."
    def fails():
        raise ValueError(text)

    def waits(ending):
        raise UserError(text)

    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, screens(PROGRAM):
        terminal.log_as(PROGRAM, logging.DEBUG)
        show(text, text)
        terminal.complain(PROGRAM, text)
        terminal.logger.warning("%s and %r", text, text)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(text, stacklevel=1)
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
        with tracking.Tracker(PretrainConfig(total_updates=9)) as tracker:
            tracker.say(text)
            tracker.log(3, {f"train/{text}": 1.0})
        assert ending.Ending(PROGRAM, False).code_of(waits) == 2
    harmless(out.getvalue(), 4)
    harmless(err.getvalue(), 5)
    assert all(line.startswith(PROGRAM) for line in err.getvalue().splitlines())
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, screens(PROGRAM):
        print(text)
        print(text, file=sys.stderr)
        assert ending.Ending(PROGRAM, True).code_of(waits) == 2  # shows the traceback
    harmless(out.getvalue(), text.count("\n") + 1)
    said = err.getvalue()[text.startswith("\r"):]  # a progress bar
    harmless(said, said.count("\n"))
    ours = [line for line in said.splitlines() if line.startswith(f"{PROGRAM}: ")]
    assert ours == [one_line(f"{LINE}{one_line(text) or 'UserError'}")]


@given(TEXTS)
@example(EVIL)
@example("[red]x[/red] :smile: [/]")
def test_a_bar_and_its_console(text):
    "On a terminal, where rich's own codes pass, the texts are the same as elsewhere."
    class Terminal(StringIO):
        def isatty(self):
            return True

    with redirect_stdout(Terminal()) as out:
        terminal.console().print(text, style="bold")
        codes = re.compile(r"\x1b\[[0-9;]*m")
        assert codes.sub("", out.getvalue()) == visible(text, lines=True) + "\n"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
       st.sampled_from(["ascii", "latin-1", "cp1252", "koi8-r", "utf-8", "utf-16"]))
def test_any_console_can_show_any_text(text, encoding):
    behind = BytesIO()
    screen = Screen(TextIOWrapper(behind, encoding=encoding, write_through=True), "standard output")
    screen.write(text)
    assert not screen.failed and all(
        c in visible(text, lines=True) or c in r"\xuU0123456789abcdef"
        for c in behind.getvalue().decode(encoding))


def test_all_that_is_printed_goes_through_the_terminal():
    "No module but `terminal` prints, writes to a stream or makes a console or a handler."
    streams = r"sys\.(stdout|stderr|__stdout__|__stderr__)"
    forbidden = re.compile(rf"print|{streams}(\.\w+)*|(rich\.console\.)?Console|os\.write"
                           r"|(logging\.)?(StreamHandler|basicConfig|captureWarnings)"
                           r"|traceback\.print_\w+|pprint(\.pprint)?|warnings\.warn|rich\.print")
    modules = [path for path in PACKAGE.glob("*.py") if path.name != "terminal.py"]
    found = []
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and forbidden.fullmatch(ast.unparse(node.func)):
                found.append(f"{path.name}, line {node.lineno}: {ast.unparse(node.func)}")
            if isinstance(node, ast.Attribute) and re.fullmatch(streams, ast.unparse(node)):
                found.append(f"{path.name}, line {node.lineno}: {ast.unparse(node)}")
    # the lock of a run's folder, which is a file
    assert [f for f in found if not (f.startswith("lock.py") and "os.write" in f)] == []
    assert len(modules) > 40


# A console that breaks


def shell(line: str, folder: Path, **more) -> subprocess.CompletedProcess:
    "The command in a shell; `run` stands for the command itself."
    run = f'"{sys.executable}" -m annotated_mpnet.cli {" ".join(RUN)}'
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | more
    return subprocess.run(["bash", "-c", line.replace("RUN", run)], cwd=folder, env=env,
                          capture_output=True, text=True, timeout=HANGS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
@pytest.mark.parametrize("line, lost, said_on_error", [
    ("RUN | head -2; exit ${PIPESTATUS[0]}", "standard output", True),
    ("RUN > /dev/full", "standard output", True),
    ("RUN >&-", "standard output", True),
    ("RUN 2>/dev/full", "", False),
    ("RUN 2>&-", "", False),
    ("RUN >&- 2>&-", "", False),
    ("RUN >/dev/full 2>&1", "", False),
], ids=["head", "full", "closed", "full-error", "closed-error", "both", "both-full"])
def test_a_console_that_breaks_ends_nothing(line, lost, said_on_error, tmp_path):
    done = shell(line, tmp_path)
    assert done.returncode == 0, done
    assert load_model(tmp_path / "run" / "final_checkpoint.pt") is not None
    said = [text for text in done.stderr.splitlines() if "can't be written" in text]
    assert len(said) == said_on_error and all(lost in text for text in said)
    assert "Traceback" not in done.stdout + done.stderr and "ignored" not in done.stderr


def test_an_ascii_console(tmp_path):
    (tmp_path / "é.yaml").write_text("nonsensé: 1", encoding="utf-8")
    done = shell("RUN --config é.yaml", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and r"\xe9" in done.stderr and done.stderr.isascii()


def test_what_a_full_stream_kept_is_not_tried_again():
    "Else Python ends with 120."
    code = ("import sys; from annotated_mpnet.terminal import screens\n"
            "with screens('x'): print('a' * 10000); print('b')")
    if Path("/dev/full").exists():
        done = shell(f'"{sys.executable}" -c "{code}" > /dev/full', Path.cwd())
        assert done.returncode == 0 and "Exception" not in done.stderr


# Every end


class Odd(BaseException):
    "No Exception, and without words."
    def __str__(self):
        raise RuntimeError


KINDS = [KeyError("x"), ZeroDivisionError(), Odd(), RecursionError("deep"), AssertionError(),
         RuntimeError("CUDA error: an illegal memory access"), StopIteration(), GeneratorExit(),
         ExceptionGroup("two", [ValueError(), KeyError()]),
         UnicodeDecodeError("utf-8", b"", 0, 1, "x"), ValueError("several\nlines \x1b[2J"),
         EOFError(), ImportError("no module"), OSError(), MemoryError(), UserError("one\nline"),
         SystemExit("words"), PermissionError(13, "no", "f")]
FUNCTIONS = [name for name, thing in vars(start).items() if inspect.isfunction(thing)]
FIRST = ["agreed", "read_origin", "resolve", "spread_of", "tokenizer_for", "build_model",
         "batches_of", "on_texts", "check_texts"]  # those that a fresh run calls


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FIRST), error=st.sampled_from(KINDS))
def test_any_exception_ends_in_one_line(name, error, tmp_path, monkeypatch):
    assert set(FIRST) <= set(FUNCTIONS)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        Path("t").mkdir(exist_ok=True)
        for file in ("t/a.txt", "v"):
            Path(file).write_text("the task is sentence classification\n" * 9)
        patch.setattr(ending.tempfile, "gettempdir", lambda: str(tmp_path))

        def fails(*given, **more):
            raise error

        patch.setattr(start, name, fails)
        files = [word for word in RUN if word != "--demo"]
        words = [*files, "--train-dir", "t", "--valid-file", "v", "--test-file", "v",
                 "--tokenizer-name", "demo"]
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = cli.main(words)
    said = err.getvalue()
    harmless(said, 1)
    assert said.startswith(LINE) and not out.getvalue() and "Traceback" not in said
    expected = isinstance(error, (OSError, MemoryError, UserError))
    assert code == (2 if expected else 1)
    pages = list(tmp_path.glob("traceback-*.txt"))
    foreseen = expected or isinstance(error, SystemExit)
    assert len(pages) == (not foreseen)
    for page in pages:
        assert str(page) in said and "in fails" in page.read_text()
        page.unlink()


def test_the_traceback_lies_in_the_run_s_folder(tmp_path, monkeypatch, capsys):
    "Where that is its own, and something was saved there."
    monkeypatch.chdir(tmp_path)
    def fails(run, tracker):
        raise KeyError(EVIL)

    monkeypatch.setattr("annotated_mpnet.trainer.log", fails)
    assert cli.main(RUN) == 1
    page, = Path("run").glob("traceback-*.txt")
    err = capsys.readouterr().err
    assert "run/" + page.name in err.splitlines()[-1] and "holds the run's whole state" in err
    harmless(page.read_text(), page.read_text().count("\n"))
    assert cli.main([*RUN, "--resume", "--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "traceback above" in said.splitlines()[-1]
    assert list(Path("run").glob("traceback-*.txt")) == [page]


@pytest.mark.parametrize("said, gpu", [
    ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB", True),
    ("MPS backend out of memory (MPS allocated: 1 GB)", True),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
    ("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried "
     "to allocate 4000 bytes. Error code 12 (Cannot allocate memory)", False),
    ("DefaultCPUAllocator: not enough memory: you tried to allocate 4000 bytes.", False),
])
def test_memory_that_runs_out(said, gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def fails(*_, **__):
        raise RuntimeError(said)

    monkeypatch.setattr("annotated_mpnet.trainer.gradient", fails)
    assert cli.main(RUN) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(LINE + "memory ") and ("of the GPU" in line) == gpu
    for name in ("--batch-size 4", "--gradient-checkpointing", "--max-tokens 16"):
        assert name in line


def test_memory_that_really_runs_out(tmp_path):
    "A model that no machine can hold."
    done = shell("RUN --encoder-ffn-dim 100000000000", tmp_path)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(LINE + "memory ran out")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "activation_dropout"])
@pytest.mark.parametrize("value", [0.9999999, 1 - 2**-16])
def test_dropout_of_everything(name, value):
    assert round(value * STEPS) == STEPS
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* would drop everything"):
        rules.refuse(PretrainConfig(**{name: value}))
    rules.refuse(PretrainConfig(**{name: 1 - 1 / STEPS}))


@pytest.mark.parametrize("name, says", [
    (".", "this very folder"), ("empty/..", "this very folder"), ("link", "is a link"),
    ("dangling", "is a link"), ("~nobody-here/x", "no home folder ~nobody-here"),
])
def test_a_place_that_is_no_new_folder(name, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    Path("dangling").symlink_to("nowhere")
    assert cli.convert_main(["--checkpoint", "c.pt", "--output", name]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["dangling", "empty", "link"]


def test_homes_are_found_in_one_place():
    found = [path.name for path in PACKAGE.glob("*.py") if "expanduser" in path.read_text()]
    assert found == ["values.py"]
    assert home_expanded("~") == Path.home()


def test_a_folder_for_tensorboard_that_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*RUN, "--tensorboard-log-dir", "nosuch://bucket/x"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(LINE + "--tensorboard-log-dir nosuch://bucket/x can't be written")


def test_the_thread_of_tensorboard_fails(tmp_path, monkeypatch, capsys):
    "Its curves end; the run doesn't, and no page is printed."
    from tensorboard.summary.writer.record_writer import RecordWriter
    monkeypatch.chdir(tmp_path)
    original, calls = RecordWriter.write, []

    def fails(self, data):
        calls.append(data)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(RecordWriter, "write", fails)
    assert cli.main([*RUN, "--tensorboard-log-dir", "logs"]) == 0
    said = capsys.readouterr().err
    assert said.count("training continues without it") == 1 and "Traceback" not in said


def test_no_room_in_shared_memory(monkeypatch):
    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", fails)
    with pytest.raises(UserError, match=r"--num-workers 2: .*No space left.*--num-workers 0"):
        next(workers.in_turns(lambda worker: iter([1]), 2, lambda item: True))


def test_a_worker_without_shared_memory():
    deaths = workers.Deaths()
    words = "DataLoader worker (pid(s) 7) is killed by signal: Bus error. It is possible that"
    with pytest.raises(UserError, match="Bus error; give the processes more shared memory"):
        with deaths.told():
            raise RuntimeError(words)


# Ranks


@pytest.mark.parametrize("given, says", [
    ({"RANK": "0"}, "RANK=0, but no WORLD_SIZE, MASTER_ADDR, MASTER_PORT; unset RANK"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but no RANK"),
    ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0, but no RANK"),
    ({"RANK": "0", "WORLD_SIZE": "1"}, "but no MASTER_ADDR, MASTER_PORT"),
    ({"RANK": "x", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=x, which"),
    ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "-1"}, "MASTER_PORT=-1"),
    ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "count from 0"),
])
def test_half_an_environment(given, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert cli.main(RUN) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_process_alone_needs_no_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "1")
    assert not ranks.is_launched()


SHORT = "from annotated_mpnet import watch\nwatch.LATE, watch.TOO_LATE = 1, 4\n"


@pytest.mark.parametrize("awaited", [0, 1])
def test_a_rank_that_never_starts(awaited, tmp_path):
    "The other one says whom it waits for, and ends."
    hangs = f"import os, time\nif os.environ['RANK'] == '{awaited}': time.sleep({HANGS})"
    group = Group(RUN, tmp_path, patch=SHORT + hangs)
    assert group.runs[1 - awaited].finish() == 2, group.said()
    group.runs[awaited].process.kill()
    said = group.said()
    assert f"rank {awaited} of 2 has not started after 1 s" in said
    assert f"rank {awaited} of 2 did not start within 4 s" in said and "Traceback" not in said


def test_a_rank_that_stops_while_the_group_begins(tmp_path):
    "After the roll call the watch sees it."
    stops = (f"import os, signal\nbegin = watch.begin_group\n"
             f"def stopped(rank, *more):\n"
             f"    if rank == 1: os.kill(os.getpid(), {int(signal.SIGSTOP)})\n"
             f"    return begin(rank, *more)\n"
             f"watch.begin_group, watch.SILENT = stopped, 4\n")
    group = Group(RUN, tmp_path, patch="from annotated_mpnet import watch\n" + stops)
    assert group.runs[0].finish() == 2
    group.runs[1].process.kill()
    assert "rank 1 of 2 gave no sign of life for 4 s" in group.said()


def test_two_runs_of_one_process_meet_twice(tmp_path):
    "What the ranks wrote for each other in the first is not read in the second."
    again = ("from annotated_mpnet import cli\nfirst = cli._pretrain\n"
             "def twice(argv, ending):\n"
             "    first(argv, ending)\n"
             "    first([*argv, '--checkpoint-dir', 'again'], ending)\n"
             "cli._pretrain = twice\n")
    group = Group(RUN, tmp_path, patch=again)
    assert group.finish() == [0, 0], group.said()
    assert (tmp_path / "again" / "final_checkpoint.pt").exists()
