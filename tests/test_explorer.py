"""The explorer: the model computes in the browser what PyTorch computes."""
import base64
import json
import random
import sys
import threading
import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from annotated_mpnet.attention import two_stream_mask
from annotated_mpnet.configuration import UserError
from annotated_mpnet.data import split_corpus
from annotated_mpnet.huggingface import from_huggingface
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.objectives import OBJECTIVES
from annotated_mpnet.permutation import columns
from annotated_mpnet.positions import relative_position_bucket

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "experiments"))
import explorer_model  # noqa: E402

FOLDER = explorer_model.FOLDER
ODD = [
    "the task is sentence classification", "", " ", "a", "Don't  stop\tnow!\n", "naïve café",
    "ÅNGSTRÖM and İstanbul", "ὈΔΥΣΣΕΎΣ ΣΟΦΌΣ", "Привет, мир", "こんにちは世界", "你好,世界。ok",
    "안녕하세요 세계", "नमस्ते दुनिया", "שלום עולם", "مرحبا بالعالم", "ไทย", "e\u0301tude",
    "zero\u200bwidth\u00adsoft", "nul\x00bell\x07", "\ufeffmark \ufffd", "no\u00a0break\u3000wide",
    "line\u2028and\u0085vertical\x0btab", "emoji 👩‍👩‍👧 flag 🇪🇺", "ﬁligature ｆｕｌｌ", "x" * 101,
    "𝒞 𐍈 \U000e0001", "<mask> in <s> a </s>text<unk> <MASK>", "f(x)=x**2; # a comment",
    "``quoted'' — “dash” … ‰", "1,000.50 €", "𠀀𪜀 㐀 豈",
    "self.__class__.__name__", "\\n \\t raw", "a-b_c/d", "½ ² Ⅳ", "ß ẞ ŉ ǰ",
]
# These have another category in later versions of Unicode than the tokenizer's.
MOVED = set("\u166d\u1734\u1885\u1886")


@pytest.fixture(scope="module")
def address():
    "Where the explorer's files are served."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    shown = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(FOLDER)))
    threading.Thread(target=shown.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{shown.server_address[1]}/"
    shown.shutdown()


@pytest.fixture(scope="module")
def page(browser, address):
    "A page in which the model is loaded."
    opened = browser.new_page()
    opened.goto(address + "model.json")
    opened.evaluate("""async address => {
      for (const name of ["model", "rule", "wordpiece"]) {
        window[name] = await import(`${address}${name}.js`);
      }
      window.loaded = await model.load(address);
    }""", address)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tokenizer():
    return from_huggingface(explorer_model.MODEL)[1]


def with_objective(objective: str) -> MPNetForPretraining:
    "The model with the weights that are stored for the browser."
    config = from_huggingface(explorer_model.MODEL)[0].config
    config.objective = objective
    model = MPNetForPretraining(config).eval()
    padded, weights = model.state_dict(), explorer_model.stored()
    for name, x in weights.items():
        padded[name][:len(x)] = x
    model.load_state_dict(padded)
    return model


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    "A hundred texts: odd ones and passages that were held out."
    held_out = split_corpus()[1]
    return [*ODD, *(text[:250] for text in held_out)][:100]


@pytest.fixture(scope="module")
def cases(sentences, tokenizer) -> list[tuple[list[int], list[int]]]:
    "The ids of each text, and some of its positions in an order in which they are predicted."
    rng, found = random.Random(0), []
    for text in sentences:
        ids = tokenizer(text, truncation=True, max_length=64)["input_ids"]
        within = range(1, len(ids) - 1)
        predicted = rng.sample(within, min(len(within), rng.randint(1, 5)))
        found.append((ids, predicted or [0]))
    return found


def test_a_hundred_sentences(cases):
    assert len(cases) == 100 and max(len(ids) for ids, _ in cases) == 64
    assert any(a > b for _, p in cases for a, b in zip(p, p[1:])), "not only from left to right"


def test_texts_are_cut_as_the_tokenizer_cuts_them(page, tokenizer, sentences):
    script = "texts => texts.map(text => loaded.tokenizer.encode(text, 64))"
    expected = tokenizer(sentences, truncation=True, max_length=64)["input_ids"]
    for text, ours, theirs in zip(sentences, page.evaluate(script, sentences), expected):
        assert ours == theirs, text


def test_every_character_is_treated_alike(page, tokenizer):
    "All of Unicode 3.2; the tokenizer's own tables are older than those of a browser."
    known = [chr(c) for c in range(1, 0x110000) if not 0xd800 <= c < 0xe000]
    known = [c for c in known if unicodedata.ucd_3_2_0.category(c) not in ("Cn", "Co")]
    script = "all => JSON.stringify([...all].map(c => wordpiece.splitWords(`a${c}b`)))"
    words = json.loads(page.evaluate(script, "".join(known)))
    backend = tokenizer.backend_tokenizer
    normalize, split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
    differ = {c for c, found in zip(known, words)
              if found != [word for word, _ in split(normalize(f"a{c}b"))]}
    assert differ <= MOVED


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_rule_is_the_mask_of_lesson_05(page, objective):
    script = """([ids, predicted, objective]) => {
      const rows = rule.layout(ids, predicted, objective, 4999);
      const keys = rule.keysOf(rows, objective);
      return rows.map(row => keys.map(key => rule.sees(row, key)));
    }"""
    for C, P in ((1, 1), (6, 3), (5, 0), (9, 7)):
        given = [list(range(C + P)), list(range(C, C + P)), objective]
        assert page.evaluate(script, given) == two_stream_mask(C, P, objective).tolist()


def laid_out(ids: list[int], predicted: list[int], objective: str, mask: int) -> dict:
    "A sentence as the collator lays it out, with every hidden token masked."
    places = [i for i in range(len(ids)) if i not in predicted] + predicted
    whole = np.array([[ids[i] for i in places]])
    shown = np.full((1, len(predicted)), mask)
    return {"input_ids": columns(whole, shown, objective),
            "positions": columns(np.array([places]), np.array([predicted]), objective),
            "pred_size": len(predicted)}


def test_rows_are_the_columns_of_a_batch(page, cases, tokenizer):
    script = """([ids, predicted, objective]) => {
      const rows = rule.layout(ids, predicted, objective, loaded.tokenizer.mask);
      return [rows.map(row => row.id), rows.map(row => row.position)];
    }"""
    for ids, predicted in cases[::9]:
        for objective in OBJECTIVES:
            batch = laid_out(ids, predicted, objective, tokenizer.mask_token_id)
            given = page.evaluate(script, [ids, predicted, objective])
            assert given == [batch["input_ids"][0].tolist(), batch["positions"][0].tolist()]


def test_buckets(page):
    distances = list(range(-200, 201))
    script = "all => all.map(d => model.bucketOf(d, loaded.config.starts))"
    expected = relative_position_bucket(torch.tensor(distances)).tolist()
    assert page.evaluate(script, distances) == expected


def in_the_browser(page, ids: list[int], predicted: list[int], objective: str) -> np.ndarray:
    "(P, vocabulary) logits."
    script = """([ids, predicted, objective]) => loaded.logits(ids, predicted, objective)
      .map(row => btoa(Array.from(new Uint8Array(row.slice().buffer),
                                  byte => String.fromCharCode(byte)).join("")))"""
    rows = page.evaluate(script, [ids, predicted, objective])
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_logits_are_those_of_pytorch(page, cases, tokenizer, objective):
    model, worst = with_objective(objective), 0.0
    for ids, predicted in cases:
        batch = laid_out(ids, predicted, objective, tokenizer.mask_token_id)
        with torch.no_grad():
            expected = model(**batch)[0, :, :len(tokenizer)].numpy()
        found = in_the_browser(page, ids, predicted, objective)
        assert found.shape == expected.shape
        worst = max(worst, float(np.abs(found - expected).max()))
    assert worst < 1e-4


def test_files_are_those_of_the_model(tmp_path):
    "Fails where the model or the script has changed: `python experiments/explorer_model.py`."
    explorer_model.write(explorer_model.MODEL, tmp_path)
    for name in ("model.json", "weights.bin"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name
    described = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    assert described["bytes"] == (FOLDER / "weights.bin").stat().st_size < 10_000_000


def test_without_rounding_the_weights_are_the_models(tmp_path):
    explorer_model.write(explorer_model.MODEL, tmp_path, bits=32)
    model = from_huggingface(explorer_model.MODEL)[0]
    for name, x in explorer_model.stored(tmp_path).items():
        assert torch.equal(x, model.state_dict()[name][:len(x)]), name


def test_rounding_moves_a_weight_by_half_a_step_at_most(tmp_path):
    model, near = from_huggingface(explorer_model.MODEL)[0].state_dict(), explorer_model.stored()
    for name, x in near.items():
        whole = model[name][:len(x)]
        step = whole.abs().amax(-1, keepdim=True) / 127
        assert ((x - whole).abs() <= step * 0.5001).all(), name


def test_a_model_that_the_browser_cannot_compute_is_refused():
    config = from_huggingface(explorer_model.MODEL)[0].config
    config.normalize_before = True
    with pytest.raises(UserError, match="Post-LN with GELU"):
        explorer_model.describe(config, 5000)
