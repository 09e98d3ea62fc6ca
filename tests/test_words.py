"""Words of any script and tokenizer: where predictions fall, and what stays as it was."""
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from annotated_mpnet.permutation import MaskedPermutedCollator, draw_uniforms
from annotated_mpnet.words import LONGEST, cut_long, join_words, too_long, token_bytes, words_of

BEFORE = Path(__file__).parent / "fixtures" / "words"
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
