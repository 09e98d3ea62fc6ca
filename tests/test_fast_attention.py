"""The fast paths against the textbook's two calls: logits, gradients, dropout, and refusals."""
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from helpers_batches import logits_of, make_batch, make_row, tiny_model
from textbook import use_textbook
from torch import nn
from torch.autograd import gradcheck

from annotated_mpnet import dropout_and_bias, fast_attention
from annotated_mpnet.attention import dense_bias, two_stream_mask
from annotated_mpnet.configuration import PretrainConfig, UserError
from annotated_mpnet.fast_attention import (
    PIECE, STEPS, Dropout, FlexBias, SharedBias, fast_bias, keep_mask)
from annotated_mpnet.positions import RelativePositionBias, relative_position_bucket
from annotated_mpnet.rules import check

OBJECTIVES = ["mpnet", "plm", "mlm"]
SIZES = [[(9, 5), (3, 6), (12, 4)], [(0, 3), (4, 1)], [(30, 8)]]
TWO_STREAMS = [0, 1, 2, 3, 4, 5, 4, 5, 4, 5]  # columns of the places, where 2 of 6 are predicted


def learn(model, batch, return_mlm=False):
    "Logits, and the gradient of the loss for every parameter."
    model.zero_grad()
    losses, _ = model.token_losses(batch, return_mlm=return_mlm)
    losses.sum().backward()
    with torch.no_grad():
        logits = logits_of(model, batch)
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                 for name, p in model.named_parameters()}
    return logits, gradients


def assert_equal_to(got, expected):
    "Logits to 1e-5, every gradient to 1e-4 of its length."
    real = ~expected[0].isnan()
    torch.testing.assert_close(got[0][real], expected[0][real], atol=1e-5, rtol=0)
    largest = max(float(g.norm()) for g in expected[1].values())
    # The gradient of k's bias is 0 but for rounding: a softmax doesn't see a shift.
    for name, g in expected[1].items():
        length = max(float(g.norm()), 1e-3 * largest)
        assert float((got[1][name] - g).norm()) <= 1e-4 * length, name


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_fast_paths_equal_the_textbook(objective, normalize_before, sizes, backend):
    kind = {"objective": objective, "normalize_before": normalize_before}
    model = tiny_model(encoder_layers=3, **kind).train()
    batch = make_batch([make_row(c, p, seed=7 * i) for i, (c, p) in enumerate(sizes)], objective)
    for return_mlm in [False, True] if objective == "mpnet" else [False]:
        use_textbook(model, True)
        expected = learn(model, batch, return_mlm)
        use_textbook(model, False)
        model.mpnet.bias = partial(fast_bias, backend=backend)
        assert_equal_to(learn(model, batch, return_mlm), expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_equal_at_a_size_that_takes_several_blocks(objective, monkeypatch):
    # A block of heads is smaller than all heads, cells come in several pieces.
    for module in (fast_attention, dropout_and_bias):
        monkeypatch.setattr(module, "PIECE", 4000)
    wide = {"encoder_attention_heads": 8, "encoder_embed_dim": 32, "encoder_ffn_dim": 64}
    model = tiny_model(objective=objective, **wide).train()
    batch = make_batch([make_row(40, 9, seed=1), make_row(25, 12, seed=2)], objective)
    use_textbook(model, True)
    expected = learn(model, batch)
    use_textbook(model, False)
    assert_equal_to(learn(model, batch), expected)


def test_blockwise_attention_has_the_gradient_of_its_dropout():
    "With a fixed seed dropout is a fixed function: its backward pass is compared with differences."
    torch.manual_seed(0)
    table, sees = RelativePositionBias(32, 2).double(), two_stream_mask(4, 2)[None]
    places = torch.stack([torch.randperm(6), torch.randperm(6)])[:, TWO_STREAMS]
    q, k, v = (torch.randn(2, 2, n, 3, dtype=torch.float64, requires_grad=True) for n in (10, 8, 8))

    def attend(q, k, v, weight, p):
        table.weight.data = weight.detach()
        torch.manual_seed(1)
        shared = SharedBias(table, places, places[:, :8], sees, torch.float64)
        return shared(q, k, v, p)
    for p in (0.0, 0.3):
        assert gradcheck(lambda q, k, v: attend(q, k, v, table.weight, p), (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_as_often_as_it_says(dtype, p):
    n = 3 * PIECE + 5
    layer, x = Dropout(p).train(), torch.ones(n, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    y = layer(x)
    exact = round(p * STEPS) / STEPS
    zeros = (y == 0).double().mean().item()
    assert abs(zeros - exact) < 5 * (exact * (1 - exact) / n) ** 0.5
    assert y.dtype == dtype and len(y.unique()) == 2
    rounding = 1e-2 if dtype == torch.bfloat16 else 1e-6
    assert y.max().item() == pytest.approx(1 / (1 - exact), rel=rounding)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    pairs = (y[:-1] == 0) & (y[1:] == 0)                     # neighbours in a word are independent
    assert abs(pairs.double().mean().item() - exact ** 2) < 5 * (exact ** 2 / n) ** 0.5


def test_dropout_follows_pytorchs_seed_and_rests_outside_training():
    layer, x = Dropout(0.3).train(), torch.randn(50, 40)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first) and torch.equal(layer(x), second)
    assert not torch.equal(first, second)
    assert layer.eval()(x) is x and Dropout(0.0).train()(x) is x
    assert torch.equal(keep_mask((7, 3), STEPS // 2, np.random.SFC64(2), torch.float32) != 0,
                       keep_mask((7, 3), STEPS // 2, np.random.SFC64(2), torch.bfloat16) != 0)


def test_the_table_gets_the_sum_over_all_layers_at_once(monkeypatch):
    "Autograd adds up what the layers give; the cells of a bucket are added up once."
    given = []
    backward = fast_attention.LookUp.backward

    def counted(ctx, grad):
        given.append(grad)
        return backward(ctx, grad)
    monkeypatch.setattr(fast_attention.LookUp, "backward", staticmethod(counted))
    model = tiny_model(encoder_layers=4).train()
    model.loss(make_batch([make_row(6, 2, seed=1)]))[0].backward()
    assert len(given) == 1 and given[0] is not None


def test_where_it_is_compiled_the_bias_is_that_of_lesson_05(monkeypatch):
    "torch.export and torch.compile of the whole model trace `fast_bias` too."
    torch.manual_seed(0)
    table, sees = RelativePositionBias(32, 2), two_stream_mask(4, 2)[None]
    places = torch.randperm(6)[None, TWO_STREAMS]
    expected = dense_bias(table, places, places[:, :8], sees)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(fast_bias(table, places, places[:, :8], sees), expected)


def test_a_backward_pass_leaves_nothing_for_the_next():
    model = tiny_model().train()
    table = model.mpnet.encoder["relative_attention_bias"].weight
    batch = make_batch([make_row(6, 2, seed=1)])
    loss = model.loss(batch)[0]
    query = model.mpnet.encoder["layer"][0].attention["attn"].q.weight
    torch.autograd.grad(loss, model.lm_head.bias, retain_graph=True)   # asks nothing of the table
    torch.autograd.grad(loss, query, retain_graph=True)
    (again,) = torch.autograd.grad(loss, table, retain_graph=True)
    (alone,) = torch.autograd.grad(model.loss(batch)[0], table)
    torch.testing.assert_close(again, alone, atol=1e-6, rtol=1e-5)


def test_buckets_are_those_of_every_distance():
    for buckets, largest in [(32, 128), (8, 20), (64, 256)]:
        table = RelativePositionBias(buckets, 1, largest)
        queries, keys = torch.randperm(600)[None, :80], torch.randperm(600)[None, :70]
        distances = keys[:, None, :] - queries[:, :, None]
        expected = relative_position_bucket(distances, buckets, largest)
        assert torch.equal(table.buckets(queries, keys), expected)


def test_flex_computes_the_same_forward_and_refuses_what_it_cannot():
    torch.manual_seed(0)
    table = RelativePositionBias(32, 2)
    real = torch.ones(2, 11, dtype=torch.bool)
    real[1, 3:5] = False
    sees = two_stream_mask(5, 3)[None] & real[:, None]
    places = torch.stack([torch.randperm(8), torch.randperm(8)])[:, [*range(8), 5, 6, 7, 5, 6, 7]]
    q, k, v = torch.randn(2, 2, 14, 16), torch.randn(2, 2, 11, 16), torch.randn(2, 2, 11, 16)
    bias = dense_bias(table, places, places[:, :11], sees)
    attend = nn.functional.scaled_dot_product_attention
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flex = FlexBias(table, places, places[:, :11], sees)
        for rows in (14, 3):                     # the last layer has the query rows alone
            expected = attend(q[:, :, -rows:], k, v, bias[:, :, -rows:])
            got = flex(q[:, :, -rows:], k, v)
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="attention-dropout 0"):
        flex(q, k, v, 0.1)
    with pytest.raises(UserError, match="GPU"):
        flex(q.requires_grad_(), k, v)
    files = {"train_dir": "x", "valid_file": "y", "test_file": "z"}
    with pytest.raises(UserError, match="attention-dropout 0"):
        check(PretrainConfig(attention_backend="flex", **files))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gpu_backends_equal_the_textbook(objective, backend):
    wide = {"encoder_embed_dim": 32, "encoder_ffn_dim": 64}            # flex needs heads of 16
    model = tiny_model(objective=objective, **wide).train().cuda()
    batch = make_batch([make_row(9, 5, seed=1), make_row(3, 6, seed=2)], objective)
    batch = {name: x.cuda() if torch.is_tensor(x) else x for name, x in batch.items()}
    use_textbook(model, True)
    expected = learn(model, batch)
    use_textbook(model, False)
    model.mpnet.bias = partial(fast_bias, backend=backend)
    assert_equal_to(learn(model, batch), expected)


def test_rows_that_see_nothing_gather_nothing_in_every_sequence():
    torch.manual_seed(0)
    table = RelativePositionBias(32, 3)
    sees = two_stream_mask(0, 3, "plm")[None]    # the first query row has no context
    places = torch.stack([torch.randperm(3), torch.randperm(3)])[:, [0, 1, 2, 0, 1, 2]]
    q, k, v = (torch.randn(2, 3, n, 4) for n in (6, 3, 3))
    for p in (0.0, 0.2):
        out = SharedBias(table, places, places[:, :3], sees, torch.float32)(q, k, v, p)
        assert (out[:, :, 3] == 0).all() and out.isfinite().all()
        assert (out[:, :, 4:] != 0).any(-1).float().mean() > 0.5
