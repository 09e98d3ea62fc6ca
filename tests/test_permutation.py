"""The collator: what it permutes, hides and lays out, in any batch and in the right proportions."""
import copy
import pickle
from collections import Counter
from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch
from helpers_runs import FIXTURES
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from annotated_mpnet import words as words_module
from annotated_mpnet.configuration import UserError
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import wrap_vocabulary
from annotated_mpnet.words import SHORTEST

PIECES = AutoTokenizer.from_pretrained(FIXTURES / "tokenizer", local_files_only=True)  # 500 tokens
PARTS = [*"abcdefgh", *("##" + c for c in "abcdefgh")]
LETTERS = wrap_vocabulary(["<s>", "<pad>", "</s>", "<unk>", *PARTS, "<mask>"])  # 21 tokens
TOKENS = PIECES.convert_ids_to_tokens(list(range(len(PIECES))))
SPECIAL = set(PIECES.all_special_ids)
PAD, MASK = PIECES.pad_token_id, PIECES.mask_token_id
PLAIN = [i for i in range(len(PIECES)) if i not in SPECIAL]
LETTER = [i for i in PLAIN if TOKENS[i].removeprefix("##").isalnum()]  # not punctuation
BEGIN = [i for i in LETTER if not TOKENS[i].startswith("##")]
CONTINUE = [i for i in LETTER if TOKENS[i].startswith("##")]

# shrinking takes minutes; what fails is small
some = settings(deadline=None, derandomize=True, max_examples=100, phases=[Phase.generate])
begin, rest = st.sampled_from(BEGIN), st.lists(st.sampled_from(CONTINUE), max_size=2)
word = st.builds(lambda first, rest: [first, *rest], begin, rest)
# pieces without a word, special tokens inside
stray = st.lists(st.sampled_from(CONTINUE + sorted(SPECIAL)), min_size=1, max_size=2)
body = st.lists(st.one_of(word, word, word, stray), max_size=20).map(lambda parts: sum(parts, []))
framed = lambda ids: [0, *ids, 2]
padded = body.map(lambda ids: [0, *ids, 2, PAD, PAD])
whole_words = st.lists(begin, min_size=1, max_size=60).map(framed)
sequence = st.one_of(body, body.map(framed), padded, whole_words)
sample_ids, cycles = st.integers(0, 2 ** 40), st.integers(0, 1000)
numbers = st.fixed_dictionaries({"sample_id": sample_ids, "cycle": cycles})
example = st.builds(lambda ids, more: {"input_ids": ids, **more}, sequence, numbers)
batches = st.lists(example, min_size=1, max_size=6)
seeds = st.integers(0, 2 ** 32)


def predictable(ids): # places
    "The places of the tokens that can be predicted."
    return [place for place, token in enumerate(ids) if token not in SPECIAL]


def words_of(ids): # lists of places
    "A word is a beginning and what goes on with it; a special token ends a word."
    words, inside = [], False
    for place, token in enumerate(ids):
        if token in SPECIAL:
            inside = False
        elif inside and TOKENS[token].startswith("##"):
            words[-1].append(place)
        else:
            words.append([place])
            inside = True
    return words


COLUMNS = ("input_ids", "positions", "attention_mask", "targets")
BLOCKS = {"mpnet": ["target", "key", "query"], "plm": ["target", "query"], "mlm": ["query"]}


def unpack(batch, objective="mpnet"): # one dict a row; padding removed
    "What each row of a batch holds, read column by column."
    P = batch["pred_size"]
    names = BLOCKS[objective]
    C = batch["input_ids"].shape[1] - len(names) * P
    blocks = [("context", 0, C), *((name, C + i * P, P) for i, name in enumerate(names))]
    rows = []
    for ids, places, real, targets in zip(*(batch[name].tolist() for name in COLUMNS)):
        row = {"true": [t for t in targets if t != -100]}
        for name, start, size in blocks:
            at = [i for i in range(start, start + size) if real[i]]
            row[name], row[name + " places"] = [ids[i] for i in at], [places[i] for i in at]
        rows.append(row)
    return rows


def collated(examples, objective="mpnet", **more): # one dict a row
    "What the collator makes of some examples."
    return unpack(MaskedPermutedCollator(PIECES, objective, **more)(examples), objective)


def kept(examples): # those with something to predict
    "In their order."
    return [e for e in examples if predictable(e["input_ids"])]


def how_many(ids, share=0.15): # p
    "The number of predicted tokens that a sequence must have."
    return max(1, round(share * len(predictable(ids))))


# What a batch holds

@some
@given(batches, seeds)
def test_the_permuted_sequence_is_a_permutation(examples, seed):
    batch = MaskedPermutedCollator(PIECES, seed=seed)(examples)
    assert batch["skipped"] == len(examples) - len(kept(examples))
    rows = unpack(batch)
    assert len(rows) == len(kept(examples))
    for row, example in zip(rows, kept(examples)):
        ids, places = example["input_ids"], row["context places"] + row["target places"]
        assert sorted(places) == [place for place, token in enumerate(ids) if token != PAD]
        # each token keeps its place
        assert row["context"] + row["target"] == [ids[place] for place in places]


@some
@given(batches, seeds)
def test_targets_are_true_tokens_and_never_special(examples, seed):
    for row, example in zip(collated(examples, seed=seed), kept(examples)):
        hidden = [example["input_ids"][place] for place in row["query places"]]
        assert row["target"] == row["true"] == hidden
        assert not SPECIAL & set(row["true"])
        assert row["key"] == row["query"]  # both mask copies are the same
        assert row["key places"] == row["query places"] == row["target places"]


@some
@given(batches, seeds, st.sampled_from([0.0, 0.15, 0.4, 1.0]))
def test_each_sequence_predicts_its_own_share(examples, seed, share):
    batch = MaskedPermutedCollator(PIECES, seed=seed, pred_prob=share)(examples)
    counts = [how_many(e["input_ids"], share) for e in kept(examples)]
    assert [len(row["true"]) for row in unpack(batch)] == counts
    assert batch["pred_size"] == max(counts, default=0)


def test_share_for_every_length():
    lengths = range(1, 513)
    batch = MaskedPermutedCollator(PIECES)([{"input_ids": [0, *[117] * m, 2]} for m in lengths])
    predicted = (batch["targets"] != -100).sum(1).tolist()
    assert predicted == [max(1, round(0.15 * m)) for m in lengths]


@some
@given(batches, seeds, st.sampled_from([0.15, 0.5]))
def test_words_are_predicted_whole_but_for_one(examples, seed, share):
    for row, example in zip(collated(examples, seed=seed, pred_prob=share), kept(examples)):
        predicted, ids = set(row["target places"]), example["input_ids"]
        words = words_of(ids)
        if any(len(word) >= SHORTEST for word in words):
            continue  # strays made it so long that it may be cut
        cut = [word for word in words if predicted & set(word) and not set(word) <= predicted]
        assert len(cut) <= 1
        for word in cut:
            # its end is predicted
            assert set(word[-len(predicted & set(word)):]) == predicted & set(word)
        specials = [place for place, token in enumerate(ids) if token in SPECIAL and token != PAD]
        context = row["context places"]
        assert context[:len(specials)] == specials  # special tokens first, in their order
        rest, by_first = context[len(specials):], {word[0]: word for word in words}
        while rest:  # then whole words, the cut one last
            assert rest[0] in by_first
            word = [place for place in by_first[rest[0]] if place not in predicted]
            assert word and rest[:len(word)] == word
            rest = rest[len(word):]
        if cut:
            assert context[-1] in cut[0]


@some
@given(batches, seeds)
def test_layout_and_padding(examples, seed):
    left = [e["input_ids"] for e in kept(examples)]
    sizes = [(sum(token != PAD for token in ids), how_many(ids)) for ids in left]
    C, P = max((n - p for n, p in sizes), default=0), max((p for _, p in sizes), default=0)
    for objective, blocks in [("mpnet", "ctmm"), ("plm", "ctm"), ("mlm", "cm")]:
        batch = MaskedPermutedCollator(PIECES, objective, seed=seed)(examples)
        assert batch["pred_size"] == P and batch["targets"].shape == (len(sizes), P)
        real = [[i < n - p for i in range(C)] + [i >= P - p for i in range(P)] * (len(blocks) - 1)
                for n, p in sizes]
        width = C + (len(blocks) - 1) * P
        expected = torch.tensor(real, dtype=torch.long).reshape(len(sizes), width)
        assert torch.equal(batch["attention_mask"], expected)
        assert torch.equal(batch["targets"] != -100, expected[:, expected.shape[1] - P:].bool())
        for name in ("input_ids", "positions"):
            assert batch[name].shape == expected.shape
        for name in ("input_ids", "positions", "attention_mask", "targets"):
            assert batch[name].dtype == torch.long
        assert (batch["input_ids"][expected == 0] == PAD).all()
        longest = max(len(e["input_ids"]) for e in examples)
        # padding's too: it is looked up
        assert ((batch["positions"] >= 0) & (batch["positions"] < longest)).all()


@some
@given(batches, seeds)
def test_the_three_objectives_hide_the_same(examples, seed):
    rows = [collated(examples, objective, seed=seed) for objective in ("mpnet", "plm", "mlm")]
    for mpnet, plm, mlm in zip(*rows, strict=True):
        assert plm == {name: x for name, x in mpnet.items() if not name.startswith("key")}
        assert mlm == {name: x for name, x in plm.items() if not name.startswith("target")}


@some
@given(st.lists(st.text("abcdefgh ", max_size=40), min_size=1, max_size=4), seeds)
def test_text_through_a_tokenizer(texts, seed):
    ids_of = lambda text: LETTERS(text)["input_ids"]
    examples = [{"input_ids": ids_of(text), "sample_id": i} for i, text in enumerate(texts)]
    batch = MaskedPermutedCollator(LETTERS, seed=seed, pred_prob=0.3)(examples)
    left = [e["input_ids"] for e, text in zip(examples, texts) if text.strip()]
    assert batch["skipped"] == len(texts) - len(left)
    for row, ids in zip(unpack(batch), left, strict=True):
        whole = [None] * len(ids)
        places = row["context places"] + row["target places"]
        for place, token in zip(places, row["context"] + row["true"]):
            whole[place] = token
        assert whole == ids
        torn = Counter()  # words with pieces on both sides
        tokens = LETTERS.convert_ids_to_tokens(ids)
        number = np.cumsum([not token.startswith("##") for token in tokens])
        for place in row["target places"]:
            torn[number[place]] += 1
        sizes = {n: (number == n).sum() for n in torn}
        # longer ones are cut (lesson 02g)
        whole_ones = [n for n in torn if sizes[n] < SHORTEST]
        assert sum(torn[n] < sizes[n] for n in whole_ones) <= 1


# A function of seed, cycle and sample id

@some
@given(batches, seeds, st.data())
def test_a_sample_is_the_same_in_any_batch_and_order(examples, seed, data):
    examples = kept(examples)
    collate = MaskedPermutedCollator(PIECES, seed=seed)
    alone = [unpack(collate([e]))[0] for e in examples]
    assert unpack(collate(examples)) == alone
    order = data.draw(st.permutations(range(len(examples))))
    assert unpack(collate([examples[i] for i in order])) == [alone[i] for i in order]
    again = MaskedPermutedCollator(PIECES, seed=seed)  # nothing is remembered from call to call
    assert [unpack(again([examples[i]]))[0] for i in order] == [alone[i] for i in order]


def test_seed_cycle_and_sample_id_all_count():
    ids, values = [0, *BEGIN[:60], 2], [0, 1, 2, 2 ** 31]
    made = {}
    for seed, cycle, sample_id in product(values, repeat=3):
        row, = collated([{"input_ids": ids, "cycle": cycle, "sample_id": sample_id}], seed=seed)
        made[seed, cycle, sample_id] = row["context places"], row["target places"]
    for a, b in combinations(made.values(), 2):
        assert a[0] != b[0] and a[1] != b[1]
        assert sum(x == y for x, y in zip(a[0], b[0])) < 15  # 2 and, by chance, about 1 of 51


def test_sample_id_and_cycle_default_to_zero():
    ids = [0, *BEGIN[:40], 2]
    zero = {"input_ids": ids, "sample_id": 0, "cycle": 0}
    assert collated([{"input_ids": ids}]) == collated([zero])


def test_global_generators_are_neither_used_nor_moved():
    example = {"input_ids": [0, *BEGIN[:40], 2]}
    def once(seed): # what comes out, and the generators' next numbers
        np.random.seed(seed)
        torch.manual_seed(seed)
        return unpack(MaskedPermutedCollator(PIECES)([example]))
    assert once(0) == once(1)
    moved = np.random.random(), float(torch.rand(()))
    np.random.seed(1)
    torch.manual_seed(1)
    assert moved == (np.random.random(), float(torch.rand(())))


def test_lists_arrays_and_tensors_are_the_same():
    ids = [0, *BEGIN[:40], 2]
    rows = [collated([{"input_ids": kind(ids)}]) for kind in (list, np.array, torch.tensor)]
    assert rows[0] == rows[1] == rows[2]


def test_the_examples_are_not_changed():
    examples = [{"input_ids": np.array([0, *BEGIN[:40], 2])}]
    MaskedPermutedCollator(PIECES, pred_prob=1)(examples)
    assert examples[0]["input_ids"].tolist() == [0, *BEGIN[:40], 2]


# In the right proportions

def naive_outcomes(ids, P, whole_words=True): # Counter of (context places, target places)
    "Each order of the words and each shuffle of the predicted tokens, all equally likely."
    words = words_of(ids) if whole_words else [[place] for place in predictable(ids)]
    specials = [place for place, token in enumerate(ids) if token in SPECIAL]
    outcomes = Counter()
    for order in permutations(words):
        places = specials + sum(order, [])
        for predicted in permutations(places[-P:]):
            outcomes[tuple(places[:-P]), predicted] += 1
    return outcomes


def chi_squared_is_likely(counts, expected): # two arrays
    "Within 5 standard deviations of what chance gives, on both sides."
    degrees = len(counts) - 1
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    return abs(chi2 - degrees) < 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("sizes, share, whole_words", [
    ((1, 2, 1), 0.5, True),
    ((1, 1, 1, 1), 0.15, True),
    ((2, 1, 3, 1), 0.3, True),
    ((3, 2), 0.9, True),
    ((1, 2, 1), 0.5, False),
    ((5,), 0.5, False),
], ids=str)
def test_distribution_is_that_of_the_naive_loop(sizes, share, whole_words):
    first, more = iter(BEGIN), iter(CONTINUE)
    ids = [0] + sum(([next(first)] + [next(more) for _ in range(n - 1)] for n in sizes), []) + [2]
    n_draws = 20_000
    batch = MaskedPermutedCollator(PIECES, seed=5, pred_prob=share, whole_word_mask=whole_words)(
        [{"input_ids": ids, "sample_id": i} for i in range(n_draws)])
    outcome = lambda row: (tuple(row["context places"]), tuple(row["target places"]))
    drawn = Counter(map(outcome, unpack(batch)))
    outcomes = naive_outcomes(ids, how_many(ids, share), whole_words)
    assert set(drawn) == set(outcomes)  # all of them, and no other
    expected = np.array(list(outcomes.values())) * n_draws / sum(outcomes.values())
    assert chi_squared_is_likely(np.array([drawn[outcome] for outcome in outcomes]), expected)


def hidden(n_samples, length=200, **more): # (true tokens, shown tokens), two flat arrays
    "All that is predicted of many samples of random tokens."
    tokens = np.random.default_rng(0).choice(PLAIN, (n_samples, length))
    examples = [{"input_ids": row, "sample_id": i} for i, row in enumerate(tokens)]
    batch = MaskedPermutedCollator(PIECES, seed=11, **more)(examples)
    return batch["targets"].numpy(), batch["input_ids"][:, -batch["pred_size"]:].numpy()


def deviations(n, share): # 5 standard deviations of a count
    "Of what n draws with this chance give."
    return 5 * (n * share * (1 - share)) ** 0.5


def test_80_10_10():
    true, shown = hidden(4000)
    assert true.shape == (4000, 30)
    n, chance = true.size, 0.1 / len(PLAIN)  # a random token may be the true one
    masked, same = shown == MASK, shown == true
    for mask, share in [(masked, 0.8), (same, 0.1 + chance), (~masked & ~same, 0.1 - chance)]:
        assert abs(mask.sum() - share * n) < deviations(n, share)
        by_rank = mask.sum(0)  # at every rank alike
        assert (abs(by_rank - share * len(true)) < deviations(len(true), share)).all()


@pytest.mark.parametrize("keep, rand", [(0.3, 0.5), (0.0, 0.2), (0.25, 0.0)])
def test_other_shares(keep, rand):
    true, shown = hidden(1500, keep_prob=keep, rand_prob=rand)
    n = true.size
    same = keep + rand / len(PLAIN)  # a random token may be the true one
    for mask, share in [(shown == MASK, 1 - keep - rand), (shown == true, same)]:
        assert abs(mask.sum() - share * n) <= deviations(n, share)


def test_random_tokens_are_never_special_and_cover_the_vocabulary():
    true, shown = hidden(400, pred_prob=1, keep_prob=0, rand_prob=1)
    counts = np.bincount(shown.ravel(), minlength=len(PIECES))
    assert counts[sorted(SPECIAL)].sum() == 0 and (counts[PLAIN] > 0).all()
    assert chi_squared_is_likely(counts[PLAIN], shown.size / len(PLAIN))
    same = (shown == true).sum()  # and don't depend on the true token
    assert abs(same - shown.size / len(PLAIN)) < 5 * (shown.size / len(PLAIN)) ** 0.5


def test_random_tokens_do_not_depend_on_the_kind_of_hiding_or_the_order():
    true, shown = hidden(3000, pred_prob=1, keep_prob=0.0, rand_prob=0.1)
    drawn = shown[shown != MASK]
    counts = np.bincount(drawn, minlength=len(PIECES))[PLAIN]
    assert chi_squared_is_likely(counts, drawn.size / len(PLAIN))
    halves = np.array([(shown[:, :100] != MASK).sum(), (shown[:, 100:] != MASK).sum()])
    assert abs(halves[0] - halves[1]) < 5 * halves.sum() ** 0.5


def test_extremes():
    ids = [{"input_ids": [0, *BEGIN[:50], 2]}]
    P = lambda **more: MaskedPermutedCollator(PIECES, **more)(ids)
    assert P(pred_prob=0)["pred_size"] == 1
    everything = P(pred_prob=1)
    assert everything["pred_size"] == 50 and unpack(everything)[0]["context"] == [0, 2]
    always = unpack(P(pred_prob=0.5, keep_prob=1, rand_prob=0))[0]
    assert always["query"] == always["true"]
    assert set(unpack(P(pred_prob=0.5, keep_prob=0, rand_prob=0))[0]["query"]) == {MASK}
    never = unpack(P(pred_prob=1, keep_prob=0, rand_prob=1))[0]["query"]
    assert MASK not in never and len(set(never)) > 30
    # a single token and no specials
    one = unpack(MaskedPermutedCollator(PIECES)([{"input_ids": [117]}]))[0]
    assert one["context"] == [] and one["true"] == [117]


def test_nothing_to_predict_is_skipped_and_counted():
    collate = MaskedPermutedCollator(PIECES)
    nothing, something = {"input_ids": [0, 2]}, {"input_ids": [0, 117, 118, 2]}
    another, special = something | {"sample_id": 1}, {"input_ids": [0, PAD, MASK, 2]}
    batch = collate([nothing, something, {"input_ids": []}, another, special])
    assert batch["skipped"] == 3 and len(batch["input_ids"]) == 2
    assert unpack(batch) == unpack(collate([something, another]))
    for examples in ([], [nothing], [{"input_ids": []}]):
        batch = collate(examples)
        assert batch["skipped"] == len(examples) and batch["pred_size"] == 0
        assert batch["input_ids"].shape[0] == 0


# Whole words or not, and tokenizers

def test_single_tokens():
    ids = [0] + sum(([BEGIN[i], *CONTINUE[3 * i:3 * i + 3]] for i in range(10)), []) + [2]
    examples = [{"input_ids": ids, "sample_id": i} for i in range(50)]
    n_cut = lambda predicted: sum(0 < len(set(w) & predicted) < 4 for w in words_of(ids))
    cut = lambda rows: np.mean([n_cut(set(row["target places"])) for row in rows])
    single = collated(examples, whole_word_mask=False)
    assert cut(collated(examples)) <= 1 < 3 < cut(single)


def test_tokenizer_whose_words_are_unknown(monkeypatch):
    monkeypatch.setattr(words_module, "word_starts", lambda tokenizer: None)
    ids = [0] + sum(([BEGIN[i], *CONTINUE[3 * i:3 * i + 3]] for i in range(10)), []) + [2]
    examples = [{"input_ids": ids, "sample_id": i} for i in range(20)]
    unknown = unpack(MaskedPermutedCollator(PIECES)(examples))
    assert unknown == unpack(MaskedPermutedCollator(PIECES, whole_word_mask=False)(examples))


def test_collator_can_be_pickled():
    examples = [{"input_ids": [0, *BEGIN[:n], 2], "sample_id": n} for n in (5, 40, 17)]
    for objective in ("mpnet", "plm", "mlm"):
        collate = MaskedPermutedCollator(PIECES, objective, seed=9, pred_prob=0.3)
        a, b = collate(examples), pickle.loads(pickle.dumps(collate))(examples)
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name]))


def refused(call): # the message
    "A UserError of one line."
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tokenizers_and_objectives_that_do_not_work():
    for name in ("mask", "pad"):
        tokenizer = copy.deepcopy(PIECES)
        setattr(tokenizer, f"{name}_token", None)
        assert name in refused(lambda: MaskedPermutedCollator(tokenizer))
    assert "bert" in refused(lambda: MaskedPermutedCollator(PIECES, "bert"))


def test_ids_beyond_the_tokenizer_do_not_pass():
    with pytest.raises((UserError, IndexError)):
        MaskedPermutedCollator(PIECES)([{"input_ids": [0, len(PIECES), 2]}])
