"""The path of an update on a GPU, shown without one.

On the `meta` device tensors have a shape and no numbers. So whatever asks for a number, which on a
GPU would wait for it, fails there or is counted here. Where there is a GPU, its own count is asked.
"""
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from helpers_batches import make_batch, make_row, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from annotated_mpnet.configuration import PretrainConfig
from annotated_mpnet.data import make_batches, fixed
from annotated_mpnet.fast_attention import fast_bias, members
from annotated_mpnet.objectives import OBJECTIVES, n_keys
from annotated_mpnet.optimization import clip_gradient, make_optimizer
from annotated_mpnet.permutation import MULTIPLE, RUNGS, MaskedPermutedCollator, few_sizes
from annotated_mpnet.tokenization import demo_tokenizer
from annotated_mpnet.corpus import embedded_corpus
from annotated_mpnet.trainer import pretrain
from annotated_mpnet.update import accumulate, all_finite, finite_step, to_device

META = torch.device("meta")
WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select")
NO_DROPOUT = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)


class Watched(TorchDispatchMode):
    "Counts what would wait for the device, and what is made on another one."
    def __init__(self):
        super().__init__()
        self.waits, self.elsewhere, self.n = [], [], 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.n += 1
        name = op.overloadpacket.__name__
        if name in WAITS and args[0].device == META:  # PyTorch's AdamW counts steps on the CPU
            self.waits.append(name)
        out = op(*args, **(kwargs or {}))
        made = out if isinstance(out, (list, tuple)) else [out]
        self.elsewhere += [name for x in made if torch.is_tensor(x) and x.device != META]
        return out


def gradient(model, batch, return_mlm=False, autocast=None) -> torch.Tensor: # 1: all is finite
    "Forward, backward, clipping and the numbers of an update, as the trainer does."
    n = int((batch["targets"] != -100).sum().cpu()) if batch["targets"].device != META else 9
    loss, right, n = accumulate(model, [batch], autocast or nullcontext(), return_mlm, n)
    norm = clip_gradient(model, 1.0)
    loss, right, norm = torch.stack([loss, right, norm])
    done = all_finite(torch.stack([loss, norm]))
    torch.stack([loss, right, norm, done, torch.full_like(loss, n)])
    return done


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("more", [{}, {"return_mlm": True}, {"checkpointing": True}], ids=str)
def test_an_update_on_meta_waits_for_nothing_and_makes_nothing_elsewhere(
        objective, backend, more, monkeypatch):
    return_mlm = more.get("return_mlm", False) and objective == "mpnet"
    model = tiny_model(objective=objective, dropout=0.1, attention_dropout=0.1).train().to(META)
    model.mpnet.bias = partial(fast_bias, backend=backend)
    model.mpnet.gradient_checkpointing = more.get("checkpointing", False)
    batch = make_batch([make_row(9, 5, seed=1), make_row(3, 6, seed=2)], objective)
    there = to_device(batch, META)
    monkeypatch.setattr("annotated_mpnet.update.to_device", lambda *_: there)
    optimizer = make_optimizer(model, PretrainConfig())
    with Watched() as watched:
        gradient(model, there, return_mlm)
    assert watched.n > 100
    assert watched.waits == watched.elsewhere == []
    with Watched() as watched:  # here it isn't the fused one, which counts its steps on the CPU
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert watched.waits == []


def test_what_is_watched_for_is_seen():
    x = torch.ones(3, device=META)
    with Watched() as watched, pytest.raises(RuntimeError):
        torch.zeros(2)
        bool(x.any())
    assert watched.waits and watched.elsewhere


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_update_on_a_gpu_waits_for_nothing(objective):
    model = tiny_model(objective=objective, dropout=0.1, attention_dropout=0.1).train().cuda()
    batch = make_batch([make_row(9, 5, seed=1), make_row(3, 6, seed=2)], objective)
    optimizer = make_optimizer(model, PretrainConfig())
    autocast = torch.autocast("cuda", dtype=torch.bfloat16)
    finite_step(optimizer, gradient(model, batch, autocast=autocast))  # what is made once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        finite_step(optimizer, gradient(model, batch, autocast=autocast))
        optimizer.zero_grad(set_to_none=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Few sizes


def batches_of(on_gpu: bool, objective: str = "mpnet", packing: bool = False):
    config = PretrainConfig(max_tokens=128, batch_size=16, objective=objective, packing=packing,
                            train_dir="x", valid_file="y", test_file="z")
    source = fixed(embedded_corpus()[:1500])
    source.shuffle = True
    return make_batches(config, source, demo_tokenizer(), True, on_gpu=on_gpu)


def shapes(batches, objective) -> set[tuple[int, int, int]]: # rows, keys, predicted
    found = set()
    for batch in batches.one_epoch():
        P, columns = batch["pred_size"], batch["input_ids"].shape[1]
        context = columns - P * (len(OBJECTIVES[objective]) - 1)
        found.add((columns, n_keys(objective, context, P), P))
    return found


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_batches_of_a_run_on_a_gpu_have_at_most_four_shapes(objective, packing):
    found = shapes(batches_of(True, objective, packing), objective)
    assert len(found) <= RUNGS
    assert all(n % MULTIPLE == 0 for shape in found for n in shape)
    if not packing:
        assert len(shapes(batches_of(False, objective), objective)) > RUNGS


@pytest.mark.parametrize("max_tokens", [8, 9, 100, 128, 512])
@pytest.mark.parametrize("pred_prob", [0.0, 0.15, 0.5, 1.0])
def test_the_largest_size_fits_every_sequence(max_tokens, pred_prob):
    sizes = few_sizes(max_tokens, pred_prob)
    assert sizes == sorted(sizes)
    for n in range(1, max_tokens + 1):
        for special in range(n):
            predicted = max(1, round(pred_prob * (n - special)))
            assert any(c >= n - predicted and p >= predicted for c, p in sizes)


def test_few_sizes_change_no_loss_and_no_gradient():
    tokenizer = demo_tokenizer()
    examples = [{"input_ids": tokenizer(text)["input_ids"][:60], "sample_id": i}
                for i, text in enumerate(embedded_corpus()[:6])]
    for objective in OBJECTIVES:
        model = tiny_model(objective=objective, vocab_size=len(tokenizer), max_positions=64)
        found = []
        for sizes in ((), few_sizes(64, 0.15)):
            batch = MaskedPermutedCollator(tokenizer, objective, sizes=sizes)(examples)
            model.zero_grad()
            loss, n, right = model.loss(batch)
            loss.backward()
            found.append([loss / n, right, n, *(p.grad for p in model.parameters())])
        free, padded = found
        torch.testing.assert_close(padded[0], free[0], atol=1e-6, rtol=0)
        assert padded[1:3] == free[1:3]
        for a, b in zip(padded[3:], free[3:]):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_run_with_few_sizes_has_the_losses_of_one_without(tmp_path, monkeypatch):
    texts = embedded_corpus()[:400]
    losses = {}
    for on_gpu in (False, True):
        def make(*args, on_gpu, **more): return make_batches(*args, on_gpu=few, **more)
        few = on_gpu
        monkeypatch.setattr("annotated_mpnet.start.make_batches", make)
        config = PretrainConfig(
            encoder_layers=1, encoder_embed_dim=32, encoder_ffn_dim=64, encoder_attention_heads=2,
            max_tokens=64, batch_size=8, precision="float32", lr=1e-3,
            total_updates=12, warmup_updates=2,
            eval_interval_steps=6, logging_steps=1, checkpoint_dir=str(tmp_path / str(on_gpu)),
            **NO_DROPOUT)
        seen = losses.setdefault(on_gpu, [])
        end = pretrain(config, train=texts[40:], valid=texts[:40], tokenizer=demo_tokenizer(),
                       callback=lambda update, metrics: seen.append(metrics["train/loss"]))
        seen.append(end["valid/loss"])
    assert np.allclose(losses[True], losses[False], atol=1e-6, rtol=0)


# The table's gradient


def test_both_ways_to_pick_the_cells_of_a_bucket_are_the_same():
    buckets = torch.randint(0, 9, (1000,), dtype=torch.uint8)
    picked = members(buckets, 8, torch.float32)
    compared = (buckets[:, None] == torch.arange(8)).float()
    assert torch.equal(picked, compared)
    assert members(buckets.to(META), 8, torch.float32).shape == picked.shape
