"""The whole model: nothing leaks, padding changes nothing, one pass is the textbook's two calls."""
import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from helpers_batches import MASK, PAD, SIZES, VOCAB
from helpers_batches import logits_of, make_batch, make_row, shake, tiny_model
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import MPNetConfig, MPNetForMaskedLM

from annotated_mpnet.attention import two_stream_mask
from annotated_mpnet.configuration import ModelConfig, UserError
from annotated_mpnet.model import ACTIVATION_FUNCTIONS, MPNetForPretraining
from annotated_mpnet.model import fill_mask, parameter_counts
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.tokenization import wrap_vocabulary

# shrinking takes minutes; what fails is small
quick = settings(deadline=None, derandomize=True, max_examples=25, phases=[Phase.generate])
KINDS = list(product(("mpnet", "plm"), (False, True)))
NORMS = {False: "post-ln", True: "pre-ln"}
kinds = pytest.mark.parametrize(
    "objective, normalize_before", KINDS, ids=lambda x: NORMS.get(x, x))
# (context, predicted) of each row
row_sizes = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6)), min_size=1, max_size=4)
seeds = st.integers(0, 10_000)


def rows_of(sizes, seed): # rows of these sizes
    "Each row from its own seed."
    return [make_row(c, p, seed + 100 * i) for i, (c, p) in enumerate(sizes)]


def columns(batch, objective): # (number of context columns, of targets)
    "Where the blocks of a batch begin."
    blocks = {"mpnet": 3, "plm": 2, "mlm": 1}[objective]
    return batch["input_ids"].shape[1] - blocks * batch["pred_size"], batch["pred_size"]


def gradients(model): # name -> gradient; zero where there is none
    "A copy of all gradients."
    copy = lambda p: torch.zeros_like(p) if p.grad is None else p.grad.clone()
    return {name: copy(p) for name, p in model.named_parameters()}


def dropped(share): # fields of ModelConfig
    "The same share of dropout everywhere."
    return dict.fromkeys(["dropout", "attention_dropout", "activation_dropout"], share)


def capture_embeddings(model): # (the list that gets them, the hook)
    "What the embeddings give from now on, as tensors with a gradient."
    kept = []
    keep = lambda module, args, out: kept.append(out.requires_grad_())
    return kept, model.mpnet.embeddings.register_forward_hook(keep)



def assert_same(a, b, atol, rtol=0.0): # two dicts of tensors
    "The same names, and close values."
    assert a.keys() == b.keys()
    for name in a:
        say = lambda m: f"{name}: {m}"
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=rtol, msg=say)


# Nothing leaks

@kinds
@quick
@given(sizes=row_sizes, seed=seeds)
def test_a_target_is_not_seen_by_itself_or_earlier_ranks(objective, normalize_before, sizes, seed):
    model = tiny_model(torch.float64, objective=objective, normalize_before=normalize_before)
    batch = make_batch(rows_of(sizes, seed), objective)
    C, P = columns(batch, objective)
    slots = batch["real"].nonzero().tolist()  # each target of each row is changed, one at a time
    repeated = [row for row, _ in slots]
    many = {name: x[repeated] for name, x in batch.items() if torch.is_tensor(x)} | {"pred_size": P}
    changed = many | {"input_ids": many["input_ids"].clone()}
    for i, (_, slot) in enumerate(slots):
        old = int(many["targets"][i, slot])
        changed["input_ids"][i, C + slot] = 5 + (old - 5 + 1 + seed % 40) % (VOCAB - 6)
        assert changed["input_ids"][i, C + slot] not in (old, MASK, PAD)
    with torch.no_grad():
        more = {"return_mlm": True} if objective == "mpnet" else {}
        before, after = logits_of(model, many, **more), logits_of(model, changed, **more)
    if objective == "mpnet":
        # the auxiliary MLM knows no target at all
        torch.testing.assert_close(after[1], before[1], atol=0, rtol=0)
        before, after = before[0], after[0]
    moved = (after - before).abs().amax(-1)
    for i, (_, slot) in enumerate(slots):
        assert (moved[i, :slot + 1] == 0).all()
        # and the later ones do look at it: by 8e-3 at least
        assert (moved[i, slot + 1:] > 1e-6).all()


@kinds
@quick
@given(sizes=row_sizes, seed=seeds)
def test_no_gradient_flows_to_targets_of_the_same_or_later_ranks(
    objective, normalize_before, sizes, seed,
):
    model = tiny_model(torch.float64, objective=objective, normalize_before=normalize_before)
    batch = make_batch(rows_of(sizes, seed), objective)
    C, P = columns(batch, objective)
    kept, hook = capture_embeddings(model)
    logits = logits_of(model, batch)
    hook.remove()
    for rank in range(P):
        some = (logits[:, rank] * torch.linspace(-1, 1, logits.shape[-1])).sum()
        (grad,) = torch.autograd.grad(some, kept[0], retain_graph=True)
        flows = grad.abs().amax(-1)
        for row, real in enumerate(batch["real"]):
            if not real[rank]: continue
            at = flows[row]
            assert (at[C + rank:C + P] == 0).all()
            assert (at[C:C + rank][real[:rank]] > 0).all()
            assert (at[batch["attention_mask"][row] == 0] == 0).all()
            queries = at[-P:]
            assert queries[rank] > 0 and queries.count_nonzero() == 1
            context = batch["attention_mask"][row, :C].bool()
            assert (at[:C][context] > 0).all()


def test_with_one_layer_the_gradient_is_the_mask():
    model = tiny_model(torch.float64, encoder_layers=1)
    batch = make_batch([make_row(5, 4, seed=1)])
    kept, _ = capture_embeddings(model)
    logits = logits_of(model, batch)
    for rank in range(4):
        some = logits[0, rank].square().sum()
        (grad,) = torch.autograd.grad(some, kept[0], retain_graph=True)
        assert torch.equal(grad[0, :13].abs().amax(-1) > 0, two_stream_mask(5, 4)[13 + rank])


# Padding and batches

@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("objective", ["mpnet", "plm", "mlm"])
@quick
@given(sizes=row_sizes, seed=seeds)
def test_logits_do_not_depend_on_the_batch(objective, normalize_before, sizes, seed):
    model = tiny_model(objective=objective, normalize_before=normalize_before)
    rows = rows_of(sizes, seed)
    batch = make_batch(rows, objective)
    with torch.no_grad():
        together = logits_of(model, batch)
        losses, _ = model.token_losses(batch)
        alone = [logits_of(model, make_batch([row], objective))[0] for row in rows]
    assert torch.isfinite(together).all()
    for logits, expected, real in zip(together, alone, batch["real"]):
        torch.testing.assert_close(logits[real], expected, atol=1e-5, rtol=0)
    targets = batch["targets"][batch["real"]]
    expected = F.cross_entropy(torch.cat(alone)[:, :VOCAB], targets, reduction="none")
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=0)  # row by row, padding left out


def test_what_stands_in_padding_does_not_matter():
    for objective in ("mpnet", "plm", "mlm"):
        model = tiny_model(objective=objective)
        batch = make_batch(rows_of([(7, 1), (2, 5)], 3), objective)
        hidden = batch["attention_mask"] == 0
        assert hidden.any()
        put = lambda value, name: torch.where(hidden, value, batch[name])
        other = batch | {"input_ids": put(7, "input_ids"), "positions": put(9, "positions")}
        with torch.no_grad():
            a, b = logits_of(model, batch), logits_of(model, other)
        torch.testing.assert_close(a[batch["real"]], b[batch["real"]], atol=1e-6, rtol=0)


def test_encode_does_not_depend_on_padding():
    model = tiny_model()
    text = torch.randint(5, 40, (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = model.encode(text)
        right = model.encode(F.pad(text, (0, 4), value=PAD), F.pad(torch.ones(1, 9), (0, 4)))
        left = model.encode(F.pad(text, (4, 0), value=PAD), F.pad(torch.ones(1, 9), (4, 0)))
    torch.testing.assert_close(right[:, :9], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(left[:, 4:], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("return_mlm", [False, True])
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_gradient_accumulation(dtype, atol, return_mlm):
    rows = rows_of([(9, 1), (3, 6), (12, 4), (5, 2), (1, 1), (20, 6), (4, 3)], seed=5)

    def gradient(parts): # lists of rows -> gradient of the loss per token of the whole update
        model = tiny_model(dtype).train()
        total = sum(len(shown) for part in parts for _, _, shown in part)
        counted = 0
        for part in parts:
            loss, n, _ = model.loss(make_batch(part), return_mlm=return_mlm)
            (loss / total).backward()
            counted += int(n)
        assert counted == total
        return gradients(model)

    whole, parts = gradient([rows]), gradient([rows[:1], rows[1:3], rows[3:]])
    assert_same(parts, whole, atol)
    model = tiny_model(dtype).train()  # the mean of the micro-batches' means is something else
    for part in (rows[:1], rows[1:3], rows[3:]):
        loss, n, _ = model.loss(make_batch(part), return_mlm=return_mlm)
        (loss / n / 3).backward()
    apart = [float((g - whole[name]).abs().max()) for name, g in gradients(model).items()]
    assert max(apart) > 1e-3


@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_and_chunks_give_the_same_gradients(dropout, normalize_before):
    batch = make_batch(rows_of([(9, 5), (3, 6), (12, 4)], seed=1))

    def gradient(checkpointing, chunk):
        model = tiny_model(normalize_before=normalize_before, **dropped(dropout)).train()
        model.mpnet.gradient_checkpointing = checkpointing
        torch.manual_seed(7)
        losses, right = model.token_losses(batch, return_mlm=True, chunk=chunk)
        losses.sum().backward()
        return gradients(model), losses.detach(), right

    expected, losses, right = gradient(False, 1000)
    assert any(g.abs().max() > 0.1 for g in expected.values()) and len(losses) == 30
    for checkpointing, chunk in [(True, 1000), (False, 4), (True, 7), (False, 30), (False, 29)]:
        got, same_losses, same_right = gradient(checkpointing, chunk)
        assert_same(got, expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(same_losses, losses, atol=1e-5, rtol=0)
        assert torch.equal(same_right, right)


def test_checkpointing_runs_layers_again_only_in_training():
    model, runs = tiny_model(), []
    for layer in model.mpnet.encoder["layer"]:
        layer.register_forward_pre_hook(lambda *args: runs.append(1))
    batch = make_batch(rows_of([(4, 3)], 0))
    model.mpnet.gradient_checkpointing = True
    for training, expected in [(False, 2), (True, 4)]:
        runs.clear()
        model.train(training).loss(batch)[0].backward()
        assert len(runs) == expected


def test_logits_are_made_in_chunks():
    model, rows = tiny_model(), []
    model.lm_head.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    batch = make_batch(rows_of([(9, 5), (3, 6), (12, 4)], seed=1))
    model.token_losses(batch, chunk=4)[0].sum().backward()
    assert max(rows) == 4 and sum(rows) == 2 * 15  # once forward, once again in the backward pass
    rows.clear()
    model.token_losses(batch)[0].sum().backward()
    assert rows == [15]  # few enough: at once, and only the predicted tokens


# The textbook's two calls

def naive_bucket(distance, num_buckets, max_distance): # ints
    "T5's bucket of key's place minus query's place, number for number."
    half = num_buckets // 2
    exact, d = half // 2, abs(distance)
    if d >= exact:
        share = math.log(d / exact) / math.log(max_distance / exact)
        d = min(half - 1, exact + int(share * (half - exact)))
    return d + (half if distance > 0 else 0)


def triangles(C, P, objective): # nested 0 / 1 lists
    "Content and query mask, filled in by loops."
    masks = objective == "mpnet"
    where = lambda holds: [int(holds(j)) for j in range(P)]
    content = [[1] * C + [0] * P + [1] * P * masks for _ in range(C)]
    query = []
    for i in range(P):
        content.append([1] * C + where(lambda j: j <= i) + where(lambda j: j > i) * masks)
        query.append([1] * C + where(lambda j: j < i) + where(lambda j: j >= i) * masks)
    content += [[1] * C + [0] * P + [1] * P for _ in range(P * masks)]
    return torch.tensor(content).bool(), torch.tensor(query).bool()


class TwoCalls:
    "The encoder as the paper has it: each layer calls attention for content and for queries."
    def __init__(self, weights, config): # weights: name -> tensor
        self.weights, self.config = weights, config

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.config.layer_norm_eps).sqrt()
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def bias(self, places, n_keys): # (batch, heads, rows, keys)
        sizes = (self.config.relative_attention_num_buckets,
                 self.config.relative_attention_max_distance)
        bucket = lambda q, row: [naive_bucket(k - q, *sizes) for k in row[:n_keys]]
        buckets = torch.tensor([[bucket(q, row) for q in row] for row in places.tolist()])
        table = self.weights["mpnet.encoder.relative_attention_bias.weight"]
        return table[buckets].permute(0, 3, 1, 2)

    def attend(self, x, keys, bias, mask, name):
        heads = self.config.encoder_attention_heads
        split = lambda y: y.reshape(*y.shape[:2], heads, -1).permute(0, 2, 1, 3)
        q, k, v = (split(self.linear(y, f"{name}.{part}"))
                   for y, part in [(x, "q"), (keys, "k"), (keys, "v")])
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
        out = scores.masked_fill(~mask, -1e9).softmax(-1) @ v
        return self.linear(out.permute(0, 2, 1, 3).flatten(2), name + ".o")

    def rest(self, x, attended, name): # of a layer, after attention
        first, second = name + "attention.LayerNorm", name + "output.LayerNorm"
        inner = lambda y: F.gelu(self.linear(y, name + "intermediate.dense"))
        feed = lambda y: self.linear(inner(y), name + "output.dense")
        if self.config.normalize_before:
            x = x + attended
            return x + feed(self.norm(x, second))
        x = self.norm(x + attended, first)
        return self.norm(x + feed(x), second)

    def layer(self, content, query, bias, masks, name): # the two streams after it
        n_keys, attention = content.shape[1], name + "attention.attn"
        keys, asking = content, query
        if self.config.normalize_before:
            keys, asking = (self.norm(x, name + "attention.LayerNorm") for x in (keys, asking))
        new_content = self.attend(keys, keys, bias[:, :, :n_keys], masks[0], attention)
        new_query = self.attend(asking, keys, bias[:, :, n_keys:], masks[1], attention)
        return self.rest(content, new_content, name), self.rest(query, new_query, name)

    def embed(self, batch):
        table = self.weights["mpnet.embeddings.word_embeddings.weight"]
        places = self.weights["mpnet.embeddings.position_embeddings.weight"]
        return table[batch["input_ids"]] + places[batch["positions"] + 2]

    def logits(self, batch): # (batch, P, padded vocabulary)
        C, P = columns(batch, self.config.objective)
        n_keys = batch["input_ids"].shape[1] - P
        bias = self.bias(batch["positions"], n_keys)
        seen = batch["attention_mask"][:, None, None, :n_keys].bool()
        masks = [mask & seen for mask in triangles(C, P, self.config.objective)]
        x = self.embed(batch)
        if not self.config.normalize_before:
            x = self.norm(x, "mpnet.embeddings.LayerNorm")
        content, query = x[:, :n_keys], x[:, n_keys:]
        for i in range(self.config.encoder_layers):
            content, query = self.layer(content, query, bias, masks, f"mpnet.encoder.layer.{i}.")
        if self.config.normalize_before:
            query = self.norm(query, "mpnet.embeddings.LayerNorm")
        hidden = self.norm(F.gelu(self.linear(query, "lm_head.dense")), "lm_head.layer_norm")
        table = self.weights["mpnet.embeddings.word_embeddings.weight"]
        return hidden @ table.T + self.weights["lm_head.bias"]


@kinds
@pytest.mark.parametrize("buckets", [(32, 128), (8, 12)])
def test_one_pass_equals_two_calls(objective, normalize_before, buckets):
    names = ("relative_attention_num_buckets", "relative_attention_max_distance")
    relative = dict(zip(names, buckets))
    model = tiny_model(objective=objective, normalize_before=normalize_before,
                       encoder_layers=3, **relative).train()
    batch = make_batch(rows_of([(30, 7), (12, 2), (1, 5)], seed=2), objective)
    real, targets = batch["real"], batch["targets"]
    ours = logits_of(model, batch)
    total, n, _ = model.loss(batch)
    (total / n).backward()
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    theirs = TwoCalls(weights, model.config).logits(batch)
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=0)
    F.cross_entropy(theirs[real][:, :VOCAB], targets[real]).backward()
    expected = {name: w.grad for name, w in weights.items()}
    pad_row = expected["mpnet.embeddings.word_embeddings.weight"]
    for name, grad in gradients(model).items():
        if name.endswith("attn.k.bias"):  # softmax takes it out: its gradient is rounding
            assert grad.abs().max() < 1e-6
            continue
        scale = float(expected[name].abs().max())
        assert scale > 1e-4, name
        assert_same({name: grad}, {name: expected[name]}, atol=1e-4 * scale, rtol=1e-4)
    assert pad_row[VOCAB:].abs().max() == 0


# The vocabulary's padded rows

def padded_rows(model): # tensors that must be zero
    "What is beyond the vocabulary."
    table, vocab = model.mpnet.embeddings.word_embeddings.weight, model.config.vocab_size
    return [table[vocab:], model.lm_head.bias[vocab:]]


def test_padded_rows_are_zero_and_stay_zero():
    torch.manual_seed(0)
    model = MPNetForPretraining(ModelConfig(**SIZES))
    batch = make_batch(rows_of([(9, 5), (3, 6), (12, 4)], seed=1))
    assert all(len(rows) == 78 and (rows == 0).all() for rows in padded_rows(model))
    assert (model.mpnet.embeddings.word_embeddings.weight[PAD] == 0).all()
    before = model.mpnet.embeddings.word_embeddings.weight[:VOCAB].clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        model.loss(batch, return_mlm=True)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all((rows == 0).all() for rows in padded_rows(model))
    moved = model.mpnet.embeddings.word_embeddings.weight[:VOCAB] - before
    assert moved.abs().min(1).values.max() > 1e-3


LETTERS = ["<s>", "<pad>", "</s>", "<unk>", *(chr(97 + i) for i in range(26))]


def test_padded_rows_are_never_predicted_and_take_no_probability():
    model = tiny_model()
    batch = make_batch(rows_of([(9, 5), (3, 6)], seed=1))
    losses, right = model.token_losses(batch)
    with torch.no_grad():
        model.lm_head.bias[VOCAB:] = 1000.0  # were they looked at, they would win
    logits = logits_of(model, batch)
    assert logits.shape[-1] == 128 and (logits.argmax(-1) >= VOCAB).all()
    same_losses, same_right = model.token_losses(batch)
    assert torch.equal(same_losses, losses) and torch.equal(same_right, right)
    tokenizer = wrap_vocabulary([*LETTERS, *(f"w{i}" for i in range(19)), "<mask>"])
    assert len(tokenizer) == VOCAB
    for text in ("<mask>", "a <mask> c <mask>"):
        for guesses in fill_mask(model, tokenizer, text, top_k=VOCAB):
            assert len({token for token, _ in guesses}) == VOCAB
            assert abs(sum(p for _, p in guesses) - 1) < 1e-5
    with pytest.raises(UserError):
        fill_mask(model, tokenizer, "a b c")


def test_right_guesses_are_counted():
    model = tiny_model()
    batch = make_batch(rows_of([(9, 5), (3, 6), (1, 2)], seed=1))
    with torch.no_grad():
        best = logits_of(model, batch)[..., :VOCAB].argmax(-1)
    for right in (0, 1, 8, 13):
        slots = batch["real"].nonzero()[:right]
        targets = torch.where(batch["real"], (best + 1) % VOCAB, -100)
        for row, slot in slots:
            targets[row, slot] = best[row, slot]
        total, n, n_right = model.loss(batch | {"targets": targets})
        assert (int(n), int(n_right)) == (13, right)
        # of the main task alone
        assert model.loss(batch | {"targets": targets}, return_mlm=True)[2] == right


# Sizes and activations

def test_mpnet_base_has_109_5_million_parameters():
    with torch.device("meta"):
        ours = MPNetForPretraining(ModelConfig(vocab_size=30527))
        theirs = MPNetForMaskedLM(MPNetConfig(vocab_size=30527, max_position_embeddings=514))
    counts = parameter_counts(ours)
    assert round(sum(counts.values()) / 1e6, 1) == 109.5
    assert sum(counts.values()) == sum(p.numel() for p in theirs.parameters())
    padding = (30592 - 30527) * (768 + 1)
    assert sum(p.numel() for p in ours.parameters()) == sum(counts.values()) + padding
    assert counts["relative biases"] == 32 * 12 and counts["position embeddings"] == 514 * 768


ROOT = math.sqrt(2 / math.pi)


@pytest.mark.parametrize("name, formula", {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_accurate": lambda x: x * (1 + math.tanh(ROOT * (x + 0.044715 * x ** 3))) / 2,
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "linear": lambda x: x}.items())
def test_activation(name, formula):
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    expected = torch.tensor([formula(v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATION_FUNCTIONS[name](x), expected)


@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("activation", ACTIVATION_FUNCTIONS)
def test_every_activation_trains(activation, normalize_before):
    batch = make_batch(rows_of([(9, 5), (3, 6)], seed=1))
    given = dropped(0.1) | {"activation_fn": activation, "normalize_before": normalize_before}
    model = tiny_model(**given).train()
    total, n, _ = model.loss(batch, return_mlm=True)
    (total / n).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        if not name.endswith("attn.k.bias"):  # softmax takes it out: its gradient is rounding, or 0
            assert p.grad.abs().max() > 0, name
    if activation != "gelu":  # and it is the one that was asked for
        other = tiny_model(normalize_before=normalize_before)
        with torch.no_grad():
            difference = logits_of(model.eval(), batch) - logits_of(other, batch)
        assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("activation", ACTIVATION_FUNCTIONS)
def test_the_head_uses_the_activation_too(activation):
    "As the original's; transformers' head always has gelu."
    head = tiny_model(torch.float64, activation_fn=activation).lm_head
    hidden = torch.randn(2, 3, 16, dtype=torch.float64)
    table = torch.randn(128, 16, dtype=torch.float64)
    inner = ACTIVATION_FUNCTIONS[activation](hidden @ head.dense.weight.T + head.dense.bias)
    inner = head.layer_norm(inner)
    torch.testing.assert_close(head(hidden, table), inner @ table.T + head.bias)


def test_seven_activations_and_no_other():
    assert len(ACTIVATION_FUNCTIONS) == 7
    with pytest.raises(UserError, match="swish"):
        tiny_model(activation_fn="swish")
    with pytest.raises(UserError, match="3"):
        tiny_model(encoder_attention_heads=3)


# Edges

@kinds
@pytest.mark.parametrize("sizes", [
    [(0, 1)], [(0, 1), (0, 1)], [(0, 3)], [(0, 1), (6, 4)], [(0, 4), (6, 1)]], ids=str)
def test_no_context_at_all(objective, normalize_before, sizes):
    given = dropped(0.1) | {"objective": objective, "normalize_before": normalize_before}
    model = tiny_model(**given).train()
    rows = rows_of(sizes, seed=4)
    batch = make_batch(rows, objective)
    total, n, _ = model.loss(batch)
    total.backward()
    assert torch.isfinite(total) and n == sum(p for _, p in sizes)
    assert all(torch.isfinite(g).all() for g in gradients(model).values())
    model.eval()
    C, P = columns(batch, objective)
    other = batch | {"input_ids": batch["input_ids"].clone()}
    # the last target: no logit of its row may change
    other["input_ids"][0, C + P - 1] = batch["input_ids"][0, C + P - 1] % 40 + 6
    assert (other["input_ids"] != batch["input_ids"]).sum() == 1
    with torch.no_grad():
        before, after = logits_of(model, batch), logits_of(model, other)
        assert torch.isfinite(before[batch["real"]]).all()
        assert torch.equal(before[0][batch["real"][0]], after[0][batch["real"][0]])
        for row, logits, real in zip(rows, before, batch["real"]):
            alone = logits_of(model, make_batch([row], objective))[0]
            torch.testing.assert_close(alone, logits[real], atol=1e-5, rtol=0)


NOTHING = {
    "none": [],
    "no tokens": [{"input_ids": []}],
    "special only": [{"input_ids": [0, 2]}, {"input_ids": [0, 2, 2]}],
}


@pytest.mark.parametrize("examples", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("objective", ["mpnet", "plm", "mlm"])
@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_empty_batch(objective, normalize_before, checkpointing, examples):
    tokenizer = wrap_vocabulary([*LETTERS, "<mask>"])
    batch = MaskedPermutedCollator(tokenizer, objective)(examples)
    assert batch["skipped"] == len(examples) and batch["pred_size"] == 0
    model = tiny_model(objective=objective, normalize_before=normalize_before, dropout=0.1).train()
    model.mpnet.gradient_checkpointing = checkpointing
    total, n, n_right = model.loss(batch)
    assert (total.item(), n.item(), n_right.item()) == (0.0, 0, 0)
    total.backward()  # adds nothing to an update
    assert all((g == 0).all() for g in gradients(model).values())


def test_return_mlm_needs_mpnet():
    for objective in ("plm", "mlm"):
        batch = make_batch([make_row(4, 2, 0)], objective)
        with pytest.raises(UserError, match=objective):
            logits_of(tiny_model(objective=objective), batch, return_mlm=True)


@quick
@given(sizes=row_sizes, seed=seeds)
def test_auxiliary_loss_is_added_as_a_sum(sizes, seed):
    model = tiny_model(torch.float64)
    batch = make_batch(rows_of(sizes, seed))
    with torch.no_grad():
        main, auxiliary = logits_of(model, batch, return_mlm=True)
        total, n, _ = model.loss(batch, return_mlm=True)
    targets = batch["targets"].flatten()
    logits = [x[..., :VOCAB].flatten(0, 1).float() for x in (main, auxiliary)]
    expected = sum(F.cross_entropy(x, targets, reduction="sum") for x in logits)  # -100 is ignored
    torch.testing.assert_close(total, expected, atol=1e-3, rtol=1e-5)
    assert n == batch["real"].sum()


def test_mlm_is_the_plain_encoder_and_the_auxiliary_task():
    rows = rows_of([(9, 4), (5, 2)], seed=8)
    mpnet, mlm = tiny_model(), tiny_model(objective="mlm")
    mlm.load_state_dict(mpnet.state_dict())
    batch = make_batch(rows, "mlm")
    with torch.no_grad():
        logits = logits_of(mlm, batch)
        auxiliary = logits_of(mpnet, make_batch(rows), return_mlm=True)[1]
        real = batch["real"]
        torch.testing.assert_close(auxiliary[real], logits[real], atol=1e-5, rtol=0)
        # unpermuted, the targets replaced by what is shown
        for i, (ids, places, shown) in enumerate(rows):
            plain = torch.zeros(1, len(ids), dtype=torch.long)
            plain[0, places] = torch.cat([ids[:len(ids) - len(shown)], shown])
            expected = mlm.logits(mlm.encode(plain))[0, places[-len(shown):]]
            torch.testing.assert_close(logits[i, -len(shown):], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [64, 768])
def test_initialization(width):
    torch.manual_seed(0)
    wide = SIZES | {"encoder_embed_dim": width, "encoder_ffn_dim": 128}
    model = MPNetForPretraining(ModelConfig(**wide))
    std = 0.02 * (768 / width) ** 0.5  # BERT's 0.02 at MPNet-base's width
    for name, p in model.named_parameters():
        if name.endswith("LayerNorm.weight") or name == "lm_head.layer_norm.weight":
            assert (p == 1).all(), name
        elif p.ndim == 1:
            assert (p == 0).all(), name
        elif p.numel() > 2000:
            assert abs(p[:VOCAB].std().item() / std - 1) < 0.1, name
            assert abs(p.mean().item()) < 0.1 * std, name
    batch = make_batch(rows_of([(20, 6)] * 20, seed=1))
    total, n, _ = model.loss(batch)
    # knows nothing yet: 0.28 at most over 12 seeds
    assert abs((total / n).item() - math.log(VOCAB)) < 0.4


def test_shaken_models_have_no_trivial_parameter():
    model = tiny_model()
    for name, p in model.named_parameters():
        assert p[:VOCAB].std() > 0.05, name
    before = model.lm_head.bias.clone()
    shake(model)
    assert (model.lm_head.bias != before).all()
