"""Lesson 02 beyond its notebook: any text, several processes, bad input, no network."""
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from helpers_runs import HANGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from annotated_mpnet import corpus as corpus_module
from annotated_mpnet import tokenization
from annotated_mpnet.configuration import ModelConfig, UserError
from annotated_mpnet.corpus import docstrings, documents, embedded_corpus, is_prose
from annotated_mpnet.corpus import paragraphs, passages, sentences
from annotated_mpnet.tokenization import load_tokenizer
from annotated_mpnet.word_starts import word_starts
from annotated_mpnet.wordpiece import DEMO_VOCAB_SIZE, demo_tokenizer, tokenize, train_tokenizer

SENTENCE = "the task is sentence classification"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMES = {f"{kind}_token": t for kind, t in zip(["bos", "pad", "eos", "unk", "mask"], SPECIAL)}
WORD = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
WORDS = st.lists(WORD, min_size=1, max_size=8)
unchecked = [HealthCheck.function_scoped_fixture]
fewer = settings(deadline=None, max_examples=60, suppress_health_check=unchecked)


def refused(call, *args):
    "The message of the UserError that `call` raises; it is one line."
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 400
    return message


# The corpus

def test_corpus_is_readable_and_without_duplicates():
    corpus = embedded_corpus()
    assert corpus is embedded_corpus()
    # Docstrings change from Python to Python: 3.11 to 3.13 give 6,800 to 7,500 passages of 1.29 to
    # 1.43 million characters, in which 99.8 % begin in a way of their own, and no sentence comes
    # twice.
    assert len(corpus) > 2000 and sum(map(len, corpus)) > 1_000_000
    assert min(map(len, corpus)) >= 64 and "\n" not in "".join(corpus)
    normal = [re.sub(r"\W+", " ", passage.lower()) for passage in corpus]
    assert len(set(normal)) == len(normal)
    assert len({text[:60] for text in normal}) > 0.99 * len(normal)
    whole = [s for passage in corpus for s in sentences(passage)]
    assert len(set(whole)) > 0.999 * len(whole) # a cut may join two sentences or part one
    assert not any(">>>" in passage or "::=" in passage for passage in corpus)


DIGEST = """
import hashlib
from annotated_mpnet.corpus import *
from annotated_mpnet.wordpiece import *
v = demo_tokenizer().get_vocab()
print(hashlib.sha256(repr([embedded_corpus(), sorted(v.items())]).encode()).hexdigest())
"""


def test_corpus_and_tokenizer_are_the_same_in_another_process():
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    env = os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-c", DIGEST]
    there = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    here = repr([embedded_corpus(), sorted(demo_tokenizer().get_vocab().items())])
    assert there.strip() == hashlib.sha256(here.encode()).hexdigest()


def test_corpus_needs_the_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "zipped" in refused(lambda: list(documents()))


TRAP = '''"the module"
raise SystemExit
try:
    class A:
        "the class"
        def f(self):
            """the
            method"""
except ImportError:
    async def g(): "the fallback"
match 1:
    case 1: pass
'''


def test_docstrings_are_read_without_running_the_file(tmp_path):
    file = tmp_path / "trap.py"
    file.write_text(TRAP)
    assert docstrings(file) == ["the module", "the class", "the\nmethod", "the fallback"]
    file.write_bytes(b"\x00 def (")
    assert docstrings(file) == []


MARKUP = st.text(alphabet=st.sampled_from("ab .:>*`\"'|=-+[1]_\n\té"), max_size=200)


@given(MARKUP | st.text(max_size=100))
@fewer
def test_cleaning_takes_any_text(text):
    for paragraph in paragraphs(text):
        assert paragraph == paragraph.strip() and "\n" not in paragraph
        assert all(is_prose(s) or is_prose(s[:-1]) for s in sentences(paragraph))
    assert all(len(passage) >= 64 for passage in passages(text, set()) if passage)


# Training

def test_special_ids_are_mpnets():
    tokenizer = demo_tokenizer()
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == DEMO_VOCAB_SIZE - 1
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (0, 2)
    assert tokenizer.model_max_length == 512
    assert ModelConfig(vocab_size=len(tokenizer)).padded_vocab_size % 128 == 0
    assert len(tokenizer) % 128 # else the padding shows nowhere


def test_training_does_not_depend_on_the_order_of_texts():
    texts = embedded_corpus()[:300]
    backwards = train_tokenizer(reversed(texts), 600)
    assert train_tokenizer(texts, 600).get_vocab() == backwards.get_vocab()


def test_a_small_text_gives_a_small_vocabulary():
    tokenizer = train_tokenizer([SENTENCE] * 2, 1000)
    assert len(tokenizer) < 100 and tokenizer.mask_token_id == len(tokenizer) - 1
    assert tokenizer.tokenize(SENTENCE) == SENTENCE.split()
    assert "no room" in refused(train_tokenizer, [SENTENCE], 20)
    assert len(train_tokenizer([], 10)) == 5


@given(st.text(max_size=80))
@fewer
def test_any_text_gets_ids_and_the_frame(text):
    tokenizer = demo_tokenizer()
    encoding = tokenizer(text)
    ids = encoding["input_ids"]
    assert set(encoding) == {"input_ids", "attention_mask"}
    assert ids[0] == 0 and ids[-1] == 2 and all(0 <= i < len(tokenizer) for i in ids)


@given(st.text(max_size=80) | WORDS.map(" ".join))
@fewer
def test_word_starts_agree_with_the_librarys_word_ids(text):
    tokenizer = demo_tokenizer()
    encoding = tokenizer(text)
    ids, words, starts = encoding["input_ids"], encoding.word_ids(), word_starts(tokenizer)
    for place in range(1, len(words)):
        before, word = words[place - 1], words[place]
        # an added token in the text, such as <s>, has no word id of its own
        if None not in (before, word) and ids[place - 1] not in tokenizer.all_special_ids:
            assert starts[ids[place]] == (word != before)


@given(st.text("abcdefghijklmnopqrstuvwxyz ABCXYZ.,", max_size=60))
@fewer
def test_the_text_comes_back(text):
    tokenizer = demo_tokenizer()
    back = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert back.replace(" ", "") == text.lower().replace(" ", "")


def test_mask_takes_the_space_before_it():
    tokenizer = demo_tokenizer()
    ids = tokenizer("the task is <mask> classification")["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == 1
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("the <s> is")["input_ids"].count(0) == 2


@pytest.mark.parametrize("with_config", [False, True])
def test_saved_and_loaded_is_the_same(tmp_path, with_config):
    tokenizer = load_tokenizer("demo", 128)
    tokenizer.save_pretrained(tmp_path)
    if with_config:
        (tmp_path / "config.json").write_text('{"model_type": "mpnet"}')
    texts = [*embedded_corpus()[:200], "a <mask> here", "é☃ 中文 \u0000", ""]
    ours = [load_tokenizer(folder, 128) for folder in (tmp_path, str(tmp_path))]
    for again in (AutoTokenizer.from_pretrained(tmp_path), *ours):
        assert again.get_vocab() == tokenizer.get_vocab() and again.model_max_length == 128
        assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
        assert set(again("a", "b")) == {"input_ids", "attention_mask"}
        assert again("a", "b")["input_ids"] == tokenizer("a", "b")["input_ids"]
        assert (again.mask_token, again.unk_token, again.pad_token_id) == ("<mask>", "<unk>", 1)
    assert demo_tokenizer().model_max_length == 512 # the shared one is untouched


# in transformers 5; in both
@pytest.mark.parametrize("name", ["TokenizersBackend", "PreTrainedTokenizerFast"])
def test_what_another_version_saved_is_read(tmp_path, name):
    tokenizer = load_tokenizer("demo", 128)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": name}))
    again, texts = load_tokenizer(tmp_path, 128), embedded_corpus()[:50]
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]


# Where words begin, in tokenizers of other kinds

def framed(backend, **names):
    "A transformers tokenizer around `backend`, with `<s> ... </s>`."
    frame = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=frame)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(names or NAMES))


def trained(model, trainer, pre_tokenizer=None, decoder=None):
    "A tokenizer learnt from a few hundred passages."
    backend = Tokenizer(model)
    if pre_tokenizer:
        backend.pre_tokenizer = pre_tokenizer
    if decoder:
        backend.decoder = decoder
    backend.train_from_iterator([passage.lower() for passage in embedded_corpus()[:300]], trainer)
    return framed(backend)


def bpe_trainer(vocab_size=600, **more):
    special = {"special_tokens": SPECIAL, "show_progress": False}
    return trainers.BpeTrainer(vocab_size=vocab_size, **special, **more)


def byte_level():
    trainer = bpe_trainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return trained(models.BPE(unk_token="<unk>"), trainer, pre_tokenizer, decoders.ByteLevel())


def metaspace_bpe():
    parts = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    pre_tokenizer = pre_tokenizers.Sequence(parts)
    model, decoder = models.BPE(unk_token="<unk>"), decoders.Metaspace()
    return trained(model, bpe_trainer(), pre_tokenizer, decoder)


def unigram():
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    return trained(models.Unigram(), trainer, pre_tokenizers.Metaspace(), decoders.Metaspace())


def wordpiece_bpe():
    prefix = {"continuing_subword_prefix": "@@"}
    model = models.BPE(unk_token="<unk>", **prefix)
    decoder = decoders.WordPiece(prefix="@@")
    return trained(model, bpe_trainer(**prefix), pre_tokenizers.Whitespace(), decoder)


MAKERS = [byte_level, metaspace_bpe, unigram, wordpiece_bpe]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def foreign(request):
    return request.param()


@given(WORDS)
@fewer
def test_word_starts_of_other_kinds(foreign, words):
    starts = word_starts(foreign)
    assert starts.dtype == bool and starts.shape == (len(foreign),)
    assert starts[foreign.all_special_ids].all()
    frame = set(foreign.all_special_ids) - {foreign.unk_token_id}
    ids = [i for i in foreign(" ".join(words))["input_ids"] if i not in frame]
    groups = np.split(ids, [place for place in range(1, len(ids)) if starts[ids[place]]])
    if foreign.unk_token_id not in ids: # a character it never met
        assert [foreign.decode(group).strip() for group in groups] == words


def test_word_starts_of_a_word_level_tokenizer():
    ids = {token: i for i, token in enumerate([*SPECIAL, *SENTENCE.split()])}
    assert word_starts(framed(Tokenizer(models.WordLevel(ids, unk_token="<unk>")))).all()


def test_unknown_word_boundaries_are_none_and_warned_about(tmp_path, caplog):
    suffix, words = {"end_of_word_suffix": "</w>"}, pre_tokenizers.Whitespace()
    suffixed = trained(models.BPE(unk_token="<unk>", **suffix), bpe_trainer(300, **suffix), words)
    bare = trained(models.BPE(unk_token="<unk>"), bpe_trainer(300), words)
    for tokenizer in (suffixed, bare):
        assert word_starts(tokenizer) is None
    bare.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "annotated_mpnet"):
        load_tokenizer(tmp_path, 64)
    assert [record.name for record in caplog.records] == ["annotated_mpnet"]
    assert "whole-word masking is off" in caplog.text


def test_added_tokens_begin_words():
    tokenizer = load_tokenizer("demo", 64)
    tokenizer.add_tokens(["##new", "qqother"])
    starts = word_starts(tokenizer)
    assert len(starts) == len(tokenizer) == DEMO_VOCAB_SIZE + 2 and starts[-2:].all()


# What load_tokenizer refuses

def saved(folder, drop=(), **change):
    "The demo tokenizer saved in `folder` with some special tokens changed or left out."
    names = {**NAMES, "cls_token": "<s>", "sep_token": "</s>", **change}
    backend = Tokenizer.from_str(demo_tokenizer().backend_tokenizer.to_str())
    kept = {kind: token for kind, token in names.items() if kind not in drop}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **kept)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("drop, said", [
    (["mask_token"], "no mask"),
    (["pad_token"], "no padding"),
    (["bos_token", "cls_token"], "no start"),
    (["eos_token", "sep_token"], "no end"),
])
def test_a_missing_special_token_is_refused(tmp_path, drop, said):
    assert said in refused(load_tokenizer, saved(tmp_path, drop), 64)


def test_bert_style_names_are_enough(tmp_path):
    assert load_tokenizer(saved(tmp_path, ["bos_token", "eos_token"]), 64).cls_token_id == 0


def test_one_id_for_two_is_refused(tmp_path):
    assert "one id for two" in refused(load_tokenizer, saved(tmp_path, pad_token="</s>"), 64)


def test_gaps_in_the_ids_are_refused(tmp_path):
    saved(tmp_path)
    file = tmp_path / "tokenizer.json"
    description = json.loads(file.read_text())
    description["model"]["vocab"]["task"] = 70_000
    file.write_text(json.dumps(description))
    assert "gaps" in refused(load_tokenizer, tmp_path, 64)


def test_folders_that_hold_no_tokenizer_are_refused(tmp_path):
    assert "holds no tokenizer" in refused(load_tokenizer, tmp_path, 64)
    saved(tmp_path / "torn")
    whole = (tmp_path / "torn/tokenizer.json").read_text()
    (tmp_path / "torn/tokenizer.json").write_text(whole[:len(whole) // 2])
    assert "can't be read" in refused(load_tokenizer, tmp_path / "torn", 64)
    paths = tmp_path / "nowhere", tmp_path / "torn/tokenizer.json"
    for name in (*paths, "./nowhere", "", "a/b/c", "two words"):
        assert "no tokenizer folder" in refused(load_tokenizer, name, 64)


def test_a_slow_tokenizer_is_refused(tmp_path):
    ByT5Tokenizer().save_pretrained(tmp_path)
    assert "not a fast one" in refused(load_tokenizer, tmp_path, 64)


def test_lengths(tmp_path, caplog):
    assert "no room" in refused(load_tokenizer, "demo", 2)
    assert load_tokenizer("demo", 3).model_max_length == 3
    with caplog.at_level(logging.WARNING, "annotated_mpnet"):
        load_tokenizer(saved(tmp_path), 512)
        load_tokenizer("demo", 2048)
        assert not caplog.records
        assert load_tokenizer(tmp_path, 1024).model_max_length == 1024
    assert "1024" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize("endpoint", [
    "http://127.0.0.1:9", "http://10.255.255.1", "https://no-such-host.invalid"])
def test_without_network_a_hub_name_fails_at_once(monkeypatch, endpoint, capfd):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    asked, session = [], tokenization.get_session()

    def get(url, timeout):
        asked.append((url, timeout))
        return session.get(url, timeout=timeout)

    monkeypatch.setattr(tokenization, "get_session", lambda: SimpleNamespace(get=get))
    message = refused(load_tokenizer, "no-such-user/no-such-tokenizer", 64)
    # One question, with a limit: nothing is tried again and again.
    assert asked == [(f"{endpoint}/api/models/no-such-user/no-such-tokenizer", 3)]
    assert "no-such-user/no-such-tokenizer" in message and endpoint in message and "demo" in message
    assert capfd.readouterr() == ("", "")


LOAD_UNKNOWN = """
from annotated_mpnet.tokenization import load_tokenizer, UserError
try: load_tokenizer('no-such-user/no-such-tokenizer', 64)
except UserError as error: print(error)
"""


def test_a_name_that_the_hub_does_not_know(tmp_path):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"{}")
        do_HEAD = do_GET
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    env |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
    process = {"env": env, "capture_output": True, "text": True, "timeout": HANGS}
    done = subprocess.run([sys.executable, "-c", LOAD_UNKNOWN], **process)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "no-such-user/no-such-tokenizer" in done.stdout and address in done.stdout


# tokenize

@given(st.lists(st.text(max_size=60), max_size=7), st.integers(3, 12), st.integers(1, 4))
@fewer
def test_tokenize_cuts_and_keeps_the_frame(texts, max_tokens, batch_size):
    tokenizer = demo_tokenizer()
    ids = tokenize(tokenizer, texts, max_tokens, batch_size)
    assert len(ids) == len(texts)
    for text, cut in zip(texts, ids):
        whole = tokenizer(text)["input_ids"]
        assert len(cut) == min(len(whole), max_tokens)
        assert cut == (whole if len(whole) <= max_tokens else whole[:max_tokens - 1] + [2])


def test_tokenize_wants_several_texts():
    with pytest.raises(TypeError, match="list"):
        tokenize(demo_tokenizer(), SENTENCE, 64)
    tokenizer = demo_tokenizer()
    assert tokenize(tokenizer, iter([SENTENCE]), 64) == [tokenizer(SENTENCE)["input_ids"]]
