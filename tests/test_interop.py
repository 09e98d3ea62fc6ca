"""The same weights, the same numbers: our model against other programs' files and transformers."""
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from helpers_batches import shake
from helpers_runs import FIXTURES
from transformers import MPNetConfig, MPNetForMaskedLM

from annotated_mpnet.configuration import ModelConfig
from annotated_mpnet.foreign import convert
from annotated_mpnet.model import MPNetForPretraining

# Logits of up to 7 in float32, computed elsewhere: with plain, AVX2 and AVX-512 kernels, on 1 and 2
# threads, they differ by 6e-6 at most. What would be another computation differs by more than
# 1e-2, as the tests below show.
ROUNDING = 5e-5

TINY = {
    "vocab_size": 500, "max_positions": 64, "encoder_layers": 2,
    "encoder_embed_dim": 32, "encoder_ffn_dim": 64, "encoder_attention_heads": 4,
}


def foreign(name, objective="mpnet"): # (our model with the file's weights, the other's numbers)
    "Load a fixture; the Namespace of arguments in two of them is all that may stand by tensors."
    with torch.serialization.safe_globals([Namespace]):
        saved = torch.load(FIXTURES / f"{name}.pt", weights_only=True)
    io = torch.load(FIXTURES / f"{name}_io.pt", weights_only=True)
    config, weights = convert(saved)
    assert config == ModelConfig(**TINY)
    model = MPNetForPretraining(replace(config, objective=objective)).eval()
    model.load_state_dict(weights, strict=True)
    return model, io


def computed(model, io, mask=None, **more): # our logits
    "Of a file's inputs."
    return model(io["input_ids"], io["positions"], io["pred_size"], mask, **more)


def largest_difference(ours, theirs): # logits, ours perhaps wider
    "Over all logits of the real vocabulary."
    width = theirs.shape[-1]
    assert ours.shape[:-1] == theirs.shape[:-1] and ours.shape[-1] >= width
    assert theirs.std() > 0.1  # logits that say something
    return float((ours[..., :width] - theirs).abs().max())


# The original's code, and ports that write its names

@torch.no_grad()
def test_original_mpnet_and_auxiliary_mlm():
    model, io = foreign("fairseq_mpnet")
    main, auxiliary = computed(model, io, return_mlm=True)
    assert largest_difference(main, io["mpnet_logits"]) < ROUNDING
    assert largest_difference(auxiliary, io["mlm_aux_logits"]) < ROUNDING
    alone = computed(model, io)
    assert largest_difference(alone, io["mpnet_logits"]) < ROUNDING
    assert largest_difference(main, io["mlm_aux_logits"]) > 0.01  # the two are not the same thing


@torch.no_grad()
@pytest.mark.parametrize("objective", ["plm", "mlm"])
def test_original_plm_and_mlm(objective):
    model, io = foreign("fairseq_mpnet", objective)
    ids = io[f"{objective}_input_ids"]  # plm (3, T + P), mlm (3, T)
    logits = model(ids, io["positions"][:, :ids.shape[1]], io["pred_size"])
    assert largest_difference(logits, io[f"{objective}_logits"]) < ROUNDING


@torch.no_grad()
def test_pszemraj_with_padding_and_padded_vocabulary():
    model, io = foreign("pszemraj_a")
    assert (io["attention_mask"] == 0).any() and io["logits"].shape[-1] == 512
    main, auxiliary = computed(model, io, io["attention_mask"], return_mlm=True)
    assert main.shape[-1] == 512
    assert largest_difference(main, io["logits"]) < ROUNDING
    assert largest_difference(auxiliary, io["mlm_logits"]) < ROUNDING
    unmasked = computed(model, io)
    assert largest_difference(unmasked, io["logits"]) > 0.1  # the mask matters


@torch.no_grad()
def test_yext_which_ignores_the_attention_mask():
    model, io = foreign("yext_legacy")
    unmasked = computed(model, io)
    assert largest_difference(unmasked, io["logits"]) < ROUNDING
    masked = computed(model, io, io["attention_mask"])
    full = io["attention_mask"].bool().all(1)
    assert full.any() and not full.all()
    assert largest_difference(masked[full], io["logits"][full]) < ROUNDING
    assert largest_difference(masked[~full], io["logits"][~full]) > 0.1


# transformers

SHAPES = {  # layers, width, heads, feed-forward, vocabulary, positions, epsilon
    "one head":             (1, 8, 1, 16, 100, 20, 1e-5),
    "small":                (2, 32, 4, 64, 500, 64, 1e-12),
    "deeper":               (5, 48, 3, 40, 384, 300, 1e-5),
    "large epsilon":        (2, 64, 8, 128, 1000, 512, 1e-2),
}


TIED = {"lm_head.decoder.weight", "lm_head.decoder.bias"}
PADDED = ("mpnet.embeddings.word_embeddings.weight", "lm_head.bias")


def pair(shape, # a name of SHAPES
        ): # (transformers' model, ours with its weights), in eval mode
    "A random model of transformers and its weights in ours: equal names, a padded vocabulary."
    layers, width, heads, inner, vocab, positions, eps = SHAPES[shape]
    torch.manual_seed(len(shape))
    theirs = MPNetForMaskedLM(MPNetConfig(
        vocab_size=vocab, max_position_embeddings=positions + 2, pad_token_id=1, layer_norm_eps=eps,
        num_hidden_layers=layers, hidden_size=width, intermediate_size=inner,
        num_attention_heads=heads)).eval()
    shake(theirs)
    ours = MPNetForPretraining(ModelConfig(
        vocab_size=vocab, max_positions=positions, layer_norm_eps=eps,
        encoder_layers=layers, encoder_embed_dim=width, encoder_ffn_dim=inner,
        encoder_attention_heads=heads)).eval()
    weights = {name: x for name, x in theirs.state_dict().items() if name not in TIED}
    for name in PADDED:
        x = weights[name]
        weights[name] = torch.cat([x, x.new_zeros(-vocab % 128, *x.shape[1:])])
    ours.load_state_dict(weights, strict=True)
    return theirs, ours


def texts(lengths, vocab, side): # (batch, longest) ids and mask, padded on one side
    "Random texts of the given lengths."
    ids = torch.ones(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, n in enumerate(lengths):
        at = slice(0, n) if side == "right" else slice(max(lengths) - n, None)
        ids[row, at], mask[row, at] = torch.randint(4, vocab, (n,)), 1
    return ids, mask


@torch.no_grad()
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_hidden_states_and_logits(shape, side):
    theirs, ours = pair(shape)
    vocab, positions = SHAPES[shape][4:6]
    ids, mask = texts([positions, 1, positions // 2, 7], vocab, side)
    hidden = ours.encode(ids, mask)
    expected = theirs.mpnet(ids, attention_mask=mask).last_hidden_state
    real = mask.bool()
    assert hidden.shape == expected.shape
    assert float((hidden - expected)[real].abs().max()) < ROUNDING
    logits, expected_logits = ours.logits(hidden), theirs(ids, attention_mask=mask).logits
    assert largest_difference(logits[real], expected_logits[real]) < ROUNDING


@torch.no_grad()
def test_transformers_without_attention_mask():
    theirs, ours = pair("small")
    # then padding is looked at, and places are counted as before
    ids, _ = texts([30, 20], 500, "right")
    difference = ours.encode(ids) - theirs.mpnet(ids).last_hidden_state
    assert float(difference.abs().max()) < ROUNDING


@torch.no_grad()
def test_comparison_would_notice_a_difference():
    theirs, ours = pair("small")
    ids, mask = texts([40, 12], 500, "right")
    expected = theirs.mpnet(ids, attention_mask=mask).last_hidden_state
    # every single tensor takes part, but for what softmax takes out:
    for name, p in ours.mpnet.named_parameters():
        if name.endswith("attn.k.bias"): continue  # it adds the same to all scores of a row
        kept = p.clone()
        p += 0.01 * torch.randn_like(p)
        assert float((ours.encode(ids, mask) - expected)[mask.bool()].abs().max()) > 1e-4, name
        p.copy_(kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_parameter_names(shape):
    theirs, ours = pair(shape)
    assert set(theirs.state_dict()) - TIED == set(ours.state_dict())
    names = [{name for name, _ in model.named_parameters()} for model in (theirs, ours)]
    assert names[0] - TIED == names[1]
    padding = -SHAPES[shape][4] % 128
    for name, x in ours.state_dict().items():
        rows = x.shape[0] - (padding if name in PADDED else 0)
        assert theirs.state_dict()[name].shape == (rows, *x.shape[1:])
