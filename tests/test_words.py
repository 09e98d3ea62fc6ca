"""Words of any script and tokenizer: where predictions fall, and what stays as it was."""
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from annotated_mpnet.permutation import MaskedPermutedCollator, draw_uniforms
from annotated_mpnet.word_starts import word_starts
from annotated_mpnet.words import (
    BEFORE, Words, bound_of, cut_long, join_words, too_long, token_bytes, words_of)

MADE_BEFORE = Path(__file__).parent / "fixtures" / "words"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMES = {f"{kind}_token": t for kind, t in zip(["bos", "pad", "eos", "unk", "mask"], SPECIAL)}
some = settings(deadline=None, derandomize=True, max_examples=100)
TEXTS = {
    "Han": "任务是对句子进行分类模型读一个句子然后说出它属于哪一个类别词与词之间没有空格所以要另外"
           "找出词的边界在这里每一个片段都是一个单位",
    "Kana": "これはひらがなだけでかいたぶんですモデルはひとつのぶんをよんでどのクラスにはいるかを"
            "こたえますことばのあいだにくうはくはありません",
    "Thai": "งานนี้คือการจำแนกประโยคแบบจำลองอ่านประโยคแล้วบอกว่าประโยคนั้นอยู่ในกลุ่มใดภาษาไทย"
            "ไม่มีช่องว่างระหว่างคำ",
    "Khmer": "ភាសាខ្មែរសរសេរដោយគ្មានដកឃ្លារវាងពាក្យកិច្ចការនេះគឺការចាត់ថ្នាក់ប្រយោគ"
             "គំរូអានប្រយោគមួយហើយប្រាប់ថាវាស្ថិតក្នុងក្រុមណា",
    "URL": "https://example.org/Y2xhc3NpZnkgdGhlIHNlbnRlbmNl/lessons?row=12&word=VGhlIHRhc2s",
    "base64": "Y2xhc3NpZnkgdGhlIHNlbnRlbmNlIHdpdGggYSBtb2RlbCBvZiBtYXNrZWQgcHJldHJhaW5pbmc0NTY3",
    "code": "x=sorted(map(lambda a:a.strip().lower(),open(path,encoding='utf-8')),key=len)[::-1]",
    "letters": "rindfleischetikettierungsueberwachungsaufgabenuebertragungsgesetzesentwurf",
}
KINDS = ["WordPiece", "BPE", "Unigram", "bytes"]


def trained(kind):
    "A tokenizer of that kind, which has seen the texts."
    size = dict(special_tokens=SPECIAL, show_progress=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    if kind == "WordPiece":
        model = models.WordPiece(unk_token="<unk>", max_input_chars_per_word=10_000)
        trainer = trainers.WordPieceTrainer(vocab_size=500, **size)
        before = pre_tokenizers.BertPreTokenizer()
    elif kind == "Unigram":
        model, before = models.Unigram(), pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=500, unk_token="<unk>", **size)
    else:  # "bytes" has learnt nothing: each token is one byte
        model, before = models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=True)
        n = 700 if kind == "BPE" else 0
        trainer = trainers.BpeTrainer(vocab_size=n, initial_alphabet=letters, **size)
    backend = Tokenizer(model)
    backend.pre_tokenizer, backend.normalizer = before, normalizers.NFKC()
    backend.train_from_iterator(TEXTS.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: trained(kind) for kind in KINDS}


def eighths(collator, ids, n_draws=1500):
    "How often each eighth of a row is predicted, relative to its share."
    batch = collator([{"input_ids": [0, *ids, 2], "sample_id": i} for i in range(n_draws)])
    places = batch["positions"][:, -batch["pred_size"]:].numpy() - 1
    eighth = np.arange(len(ids)) * 8 // len(ids)
    drawn = np.bincount(eighth[places.ravel()], minlength=8)
    return drawn / places.size / (np.bincount(eighth) / len(ids))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_fall_everywhere(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    ids = tokenizer(TEXTS[text])["input_ids"]
    assert tokenizer.unk_token_id not in ids and len(ids) >= 16
    shares = eighths(MaskedPermutedCollator(tokenizer, seed=1), ids)
    assert 0.5 < shares.min() and shares.max() < 2


def test_what_was_wrong(tokenizers):
    "By spaces alone, all but the last eighths of such a row would stay unpredicted."
    tokenizer = tokenizers["Unigram"]
    ids = tokenizer(TEXTS["Han"])["input_ids"]
    collator = MaskedPermutedCollator(tokenizer, seed=1)
    spaces = Words(word_starts(tokenizer).astype(np.uint8) * BEFORE)
    collator.units = collator.units._replace(words=spaces)
    cuts = eighths(collator, ids)  # the bound alone makes it fair
    assert 0.5 < cuts.min() and cuts.max() < 2
    collator.units = SimpleNamespace(begins=lambda ids, *rest: spaces.begins(ids))
    assert (eighths(collator, ids)[:6] == 0).all()


# English as before

def test_english_rows_are_what_they_were():
    made = importlib.util.spec_from_file_location("words_before", MADE_BEFORE / "make.py")
    before = importlib.util.module_from_spec(made)
    made.loader.exec_module(before)
    tokenizer = AutoTokenizer.from_pretrained(before.TOKENIZER, local_files_only=True)
    stored = json.loads((MADE_BEFORE / "before.json").read_text(encoding="utf-8"))
    assert before.collated(tokenizer) == stored


def test_more_numbers_leave_the_first_as_they_are():
    for n in (1, 7, 512):
        more = draw_uniforms(3, 1, 5, n, rows=6)
        assert (more[:4] == draw_uniforms(3, 1, 5, n)).all() and more.shape == (6, n)


def letters(text, bytewise):
    "A tokenizer whose tokens are the characters of a text, or their bytes."
    kind = pre_tokenizers.ByteLevel(add_prefix_space=False) if bytewise else \
        pre_tokenizers.Metaspace(prepend_scheme="never")
    alphabet = kind.alphabet() if bytewise else set(text.replace(" ", "▁"))
    backend = Tokenizer(models.BPE({char: i for i, char in enumerate(sorted(alphabet))}, []))
    backend.pre_tokenizer = kind
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("text, expected, alike", [
    ("the task, is", "the|task|,|is", True),
    ("don't (re)use x=1", "don|'|t|(|re|)|use|x|=|1", True),
    ("one\ntwo", "one|\n|two", True),
    ("größer als 한국어 हिन्दी", "größer|als|한국어|हिन्दी", True),
    ("GPUを使う", "GPU|を|使|う", True),
    ("ab中文", "ab|中|文", True),
    ("中文。ab", "中|文|。|ab", False),  # of the last byte alone nothing can be told
    ("กินข้าว", "กิ|น|ข้|า|ว", False),  # a consonant and its marks
    ("ខ្មែរ", "ខ្|មែ|រ", False),
    ("می\u200cخواهم", "می\u200cخواهم", True),
])
def test_words_of_letters(text, expected, alike):
    "With tokens that are characters, or bytes, all is up to the rules."
    for bytewise in (False, True)[:1 + alike]:
        tokenizer = letters(text, bytewise)
        ids = np.array([tokenizer(text)["input_ids"]])
        begins, known = words_of(tokenizer).begins(ids)[0], token_bytes(tokenizer)
        words = np.split(ids[0], np.flatnonzero(begins[1:]) + 1)
        found = [b"".join(known[i] for i in word).decode() for word in words]
        assert "|".join(word for word in found if word) == expected  # a space may be a token


def test_no_word_breaks_inside_of_a_character(tokenizers):
    for kind in ("BPE", "bytes"):
        tokenizer = tokenizers[kind]
        words, known = words_of(tokenizer), token_bytes(tokenizer)
        for text in TEXTS.values():
            ids = np.array([tokenizer(text)["input_ids"]])
            inside = np.array([b"\x80" <= known[i][:1] < b"\xc0" for i in ids[0]])
            assert not (words.begins(ids)[0] & inside).any()


def test_byte_fallback():
    vocabulary = [("<unk>", 0.0), ("▁a", -1.0), *((f"<0x{b:02X}>", -9.0) for b in range(256))]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    ids = np.array([tokenizer("a中文")["input_ids"]])
    assert words_of(tokenizer).begins(ids)[0].tolist()[-6:] == [True, False, False] * 2


# Pieces and groups

rows = st.integers(1, 80).flatmap(lambda n: st.tuples(
    st.lists(st.booleans(), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n,
                                                               max_size=n)))


def sizes_of(begins):
    "How long each unit of a row is."
    return np.diff(np.concatenate([[0], np.flatnonzero(begins[1:]) + 1, [len(begins)]]))


@some
@given(rows, st.integers(0, 99), st.integers(1, 30))
def test_pieces(row, seed, predicted):
    begins, joins = np.array(row, dtype=bool)[:, None]
    begins[:, 0] = True
    uniforms, P = np.random.default_rng(seed).random(begins.shape), np.array([predicted])
    cut = cut_long(begins, joins & ~begins, uniforms, P)
    bound = int(bound_of(P)[0])
    assert (cut & begins == begins).all()
    assert sizes_of(cut[0]).max() <= bound + 3  # three more out of a character
    if not joins.any():
        assert sizes_of(cut[0]).max() <= bound
    long = sizes_of(begins[0]).max() > bound
    assert not long or list(too_long(begins, bound)) == [0]
    if not long:
        assert (cut == begins).all()


@some
@given(rows, st.integers(0, 99), st.integers(1, 5))
def test_groups(row, seed, max_gram):
    begins, special = np.array(row, dtype=bool)[:, None]
    begins |= special
    begins[:, 0] = True
    groups = join_words(begins, special, np.random.default_rng(seed).random(begins.shape), max_gram)
    assert (groups <= begins).all() and (groups[special]).all()
    number = np.maximum.accumulate(np.where(groups[0], np.arange(begins.shape[1]), 0))
    words = np.bincount(number, weights=begins[0])
    assert words.max(initial=0) <= max_gram


def test_groups_have_lengths_in_proportion(tokenizers):
    many, none = np.ones((1, 60_000), dtype=bool), np.zeros((1, 60_000), dtype=bool)
    groups = join_words(many, none, np.random.default_rng(0).random(many.shape), 3)
    counts = np.bincount(sizes_of(groups[0]), minlength=4)[1:]
    assert np.abs(counts / counts.sum() - np.array([6, 3, 2]) / 11).max() < 0.01


def test_max_gram_hides_more_in_a_row(tokenizers):
    tokenizer = tokenizers["WordPiece"]
    ids = [0, *tokenizer(TEXTS["Han"])["input_ids"], 2]
    examples = [{"input_ids": ids, "sample_id": i} for i in range(200)]

    def neighbours(**more):
        "How many predicted tokens stand beside another one."
        batch = MaskedPermutedCollator(tokenizer, **more)(examples)
        places = np.sort(batch["positions"][:, -batch["pred_size"]:].numpy())
        return (np.diff(places) == 1).sum()

    assert neighbours() == neighbours(max_gram=1)
    assert neighbours() < 0.7 * neighbours(max_gram=2) < 0.7 * neighbours(max_gram=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_gram", [1, 3])
def test_a_sample_is_the_same_in_any_batch(tokenizers, kind, max_gram):
    "Also where other rows have something to cut, and where they are longer."
    tokenizer = tokenizers[kind]
    collator = MaskedPermutedCollator(tokenizer, seed=2, max_gram=max_gram)
    examples = [{"input_ids": [0, *tokenizer(text)["input_ids"], 2], "sample_id": i, "cycle": 1}
                for i, text in enumerate([*TEXTS.values(), "ab", "the task"])]

    def shown(batch, row):
        "Everything of one row, padding removed."
        real = batch["attention_mask"][row].bool()
        return [batch[name][row][real].tolist() for name in ("input_ids", "positions")]

    together = collator([{"input_ids": [0, 2]}, *examples])
    for i, example in enumerate(examples):
        assert shown(together, i) == shown(collator([example]), 0)
