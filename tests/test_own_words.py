"""A model goes on with another vocabulary: what is kept, what is made, what is refused."""
from dataclasses import replace

import pytest
import torch
from helpers_batches import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from annotated_mpnet.checkpoints import read_checkpoint
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.corpus import embedded_corpus
from annotated_mpnet.huggingface import from_huggingface, to_huggingface
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.own_words import in_own_words, rows_from, same_vocabulary, surfaces
from annotated_mpnet.trainer import pretrain
from annotated_mpnet.wordpiece import train_tokenizer

TEXTS = embedded_corpus()
NAMES = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
             mask_token="<mask>")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WEIGHT, BIAS = "mpnet.embeddings.word_embeddings.weight", "lm_head.bias"


def of_kind(kind: str) -> PreTrainedTokenizerFast:
    "A tokenizer of another kind, trained on the embedded corpus."
    if kind == "wordpiece":
        return train_tokenizer(TEXTS[:1500], 800)
    how = dict(vocab_size=800, special_tokens=SPECIAL, show_progress=False)
    if kind == "bytes":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **how)
    else:
        inner = Tokenizer(models.Unigram())
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **how)
    inner.train_from_iterator(TEXTS[:1500], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **NAMES)


KINDS = {kind: of_kind(kind) for kind in ("wordpiece", "bytes", "unigram")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A model of `transformers` with the WordPiece vocabulary."
    place = tmp_path_factory.mktemp("own") / "model"
    tokenizer = KINDS["wordpiece"]
    model = tiny_model(vocab_size=len(tokenizer), encoder_layers=1)
    to_huggingface(model, place, tokenizer)
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vocabulary_is_kept_whole(kind):
    tokenizer = KINDS[kind]
    rows = rows_from(tokenizer, tokenizer)
    assert rows.kept == len(tokenizer) and rows.dropped == 0
    assert rows.of == [[i] for i in range(len(tokenizer))]


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_tokens_of_all_kinds_that_stand_for_the_same_are_the_same(old, new):
    old, new = KINDS[old], KINDS[new]
    rows, before, after = rows_from(old, new), surfaces(old), surfaces(new)
    for i, of in enumerate(rows.of):
        if i in new.all_special_ids:  # all three know the five roles
            assert old.convert_ids_to_tokens(of) == [new.convert_ids_to_tokens(i)]
        elif after[i].strip() and after[i] in before:
            assert [before[j] for j in of] == [after[i]]
    assert rows.kept > 250  # they are of one corpus
    word = after.index(" the")
    assert [before[j] for j in rows.of[word]] == [" the"]


def test_a_new_word_is_the_mean_of_its_pieces_and_an_unknown_one_of_all():
    old = KINDS["wordpiece"]
    new = train_tokenizer([*TEXTS[:1500], *["zygomorphic 漢字"] * 500], 900)
    model = tiny_model(vocab_size=len(old), encoder_layers=1)
    weights, shape, said = in_own_words(model.state_dict(), model.config, old, new)
    table = model.state_dict()[WEIGHT][:len(old)]
    pieces = old("zygomorphic", add_special_tokens=False)["input_ids"]
    assert len(pieces) > 1
    at = new.convert_tokens_to_ids("zygomorphic")
    torch.testing.assert_close(weights[WEIGHT][at], table[pieces].mean(0))
    torch.testing.assert_close(weights[BIAS][at], model.lm_head.bias[pieces].mean())
    han = new.convert_tokens_to_ids("漢")
    torch.testing.assert_close(weights[WEIGHT][han], table.mean(0))
    assert shape.vocab_size == len(new) and f"{len(new):,} tokens" in said
    padded = weights[WEIGHT][shape.vocab_size:]
    assert len(weights[WEIGHT]) == shape.padded_vocab_size and (padded == 0).all()
    assert (weights[WEIGHT][new.pad_token_id] == 0).all()
    assert weights[WEIGHT].dtype == model.state_dict()[WEIGHT].dtype


def test_the_inside_of_a_word_is_cut_as_an_inside():
    old = KINDS["wordpiece"]
    new = train_tokenizer([*TEXTS[:1500], *["qingly wingly dingly"] * 500], 900)
    at = new.convert_tokens_to_ids("##ingly")
    assert at != new.unk_token_id
    pieces = old.convert_ids_to_tokens(rows_from(old, new).of[at])
    assert pieces and all(piece.startswith("##") for piece in pieces)


def test_what_a_text_of_kept_tokens_means_stays():
    old, new = KINDS["wordpiece"], train_tokenizer(TEXTS[-1500:], 800)
    model = tiny_model(vocab_size=len(old), encoder_layers=1)
    weights, shape, _ = in_own_words(model.state_dict(), model.config, old, new)
    again = MPNetForPretraining(shape).eval()
    again.load_state_dict(weights)
    ids = [tokenizer("the name of the function", return_tensors="pt")["input_ids"]
           for tokenizer in (old, new)]
    kept = rows_from(old, new).of
    assert [kept[i] for i in ids[1][0]] == [[i] for i in ids[0][0].tolist()]
    with torch.no_grad():
        assert torch.equal(model.encode(ids[0]), again.encode(ids[1]))


def test_weights_without_a_head_stay_without_one():
    old, new = KINDS["wordpiece"], KINDS["bytes"]
    model = tiny_model(vocab_size=len(old), encoder_layers=1)
    weights = {name: x for name, x in model.state_dict().items() if "lm_head" not in name}
    made, _, _ = in_own_words(weights, model.config, old, new)
    assert set(made) == set(weights)


def test_where_the_old_tokenizer_is_unknown_the_new_one_has_to_fit():
    tokenizer, remarks = KINDS["wordpiece"], []
    shape = tiny_model(vocab_size=len(tokenizer)).config
    same_vocabulary(shape, tokenizer, "a model", remarks)
    assert remarks == []
    same_vocabulary(replace(shape, vocab_size=len(tokenizer) + 8), tokenizer, "a model", remarks)
    assert "the tokenizer has 800 tokens, a model has 808" in remarks[0][1]
    for other in ({"vocab_size": 799}, {"pad_token_id": 0}):
        with pytest.raises(UserError, match="name the tokenizer that it was trained with"):
            same_vocabulary(replace(shape, **other), tokenizer, "a model", remarks)


# Where a run begins


def a_run(folder, place, **more) -> dict:
    config = PretrainConfig(
        hf_model_path=str(folder), checkpoint_dir=str(place), total_updates=2, batch_size=4,
        warmup_updates=1, max_tokens=64, logging_steps=1, **more)
    texts = TEXTS[:60]
    return pretrain(config, train=texts[10:], valid=texts[:10])


@pytest.mark.parametrize("kind", ["bytes", "unigram"])
def test_a_run_goes_on_in_another_vocabulary(folder, kind, tmp_path, caplog):
    KINDS[kind].save_pretrained(tmp_path / "mine")
    with caplog.at_level("INFO", logger="annotated_mpnet"):
        end = a_run(folder, tmp_path / "run", tokenizer_name=str(tmp_path / "mine"))
    rows = rows_from(KINDS["wordpiece"], KINDS[kind])
    said = [line for line in caplog.messages if "another vocabulary" in line]
    assert len(said) == 1 and f"{rows.kept:,} keep their rows" in said[0]
    made = read_checkpoint(end["final_checkpoint"])
    assert made["model"][WEIGHT].shape[0] >= len(KINDS[kind])
    _, tokenizer = from_huggingface(folder)  # the model that it began from is as it was
    assert tokenizer.get_vocab() == KINDS["wordpiece"].get_vocab()


def test_a_run_that_is_resumed_keeps_its_vocabulary(folder, tmp_path):
    KINDS["bytes"].save_pretrained(tmp_path / "mine")
    a_run(folder, tmp_path / "run", save_optimizer_state=True)
    config = PretrainConfig(resume=True, checkpoint_dir=str(tmp_path / "run"), total_updates=4,
                            tokenizer_name=str(tmp_path / "mine"))
    config.given = frozenset({"resume", "checkpoint_dir", "total_updates", "tokenizer_name"})
    with pytest.raises(UserError, match="another vocabulary.*--hf-model-path"):
        pretrain(config, train=TEXTS[10:60], valid=TEXTS[:10])


def test_a_tokenizer_without_start_and_end_is_said(folder, tmp_path, caplog):
    a_run(folder, tmp_path / "run")
    assert "start token" not in caplog.text
    KINDS["bytes"].save_pretrained(tmp_path / "mine")
    a_run(folder, tmp_path / "other", tokenizer_name=str(tmp_path / "mine"))
    assert "puts no start token and no end token around a text" in caplog.text
