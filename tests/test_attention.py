"""The masks: the one rule against triangles built cell by cell, sizes, and the paper's table."""
from fractions import Fraction

import pytest
import torch
from helpers_batches import make_batch, make_row

from annotated_mpnet.attention import MPNetSelfAttention, triangle_masks, two_stream_mask
from annotated_mpnet.configuration import UserError
from annotated_mpnet.positions import RelativePositionBias, relative_position_bucket

LENGTHS = range(1, 25)


def by_loops(T, P, objective): # nested lists of 0 and 1: content rows, then query rows
    "Cell by cell from the paper's words (section 2.3): who knows the token, who only the place."
    C = T - P
    masks = P if objective == "mpnet" else 0
    everything_missing = [1] * C + [0] * P + [1] * masks
    content, query = [], []
    for _ in range(C):             # context: all context, no target, every missing place
        content.append(everything_missing)
    for i in range(P):             # target i: the targets up to itself, the places after it
        row = [1] * C
        for j in range(P):
            row.append(1 if j <= i else 0)
        for j in range(masks):
            row.append(0 if j <= i else 1)
        content.append(row)
    for _ in range(masks):         # masks: as the context
        content.append(everything_missing)
    for i in range(P):             # query i: the targets before it, its own place and those after
        row = [1] * C
        for j in range(P):
            row.append(1 if j < i else 0)
        for j in range(masks):
            row.append(0 if j < i else 1)
        query.append(row)
    return content, query


@pytest.mark.parametrize("objective", ["mpnet", "plm"])
def test_mask_equals_triangles(objective):
    for T in LENGTHS:
        for P in range(T + 1):
            content, query = by_loops(T, P, objective)
            keys = T + P if objective == "mpnet" else T
            expected = torch.tensor(content + query, dtype=torch.bool).reshape(-1, keys)
            assert torch.equal(two_stream_mask(T - P, P, objective), expected), (T, P)
            ours_content, ours_query = triangle_masks(T - P, P, objective)
            assert ours_content.tolist() == [[bool(x) for x in row] for row in content], (T, P)
            assert ours_query.tolist() == [[bool(x) for x in row] for row in query], (T, P)


def test_every_row_sees_each_position_once():
    for T in LENGTHS:
        for P in range(T + 1):
            place_of_key = [*range(T), *range(T - P, T)]   # a mask key stands where its target does
            for row in two_stream_mask(T - P, P).tolist():
                seen = [place for place, sees in zip(place_of_key, row) if sees]
                assert sorted(seen) == list(range(T))


def test_information_never_grows_along_a_path():
    for T in LENGTHS:
        for P in range(T + 1):
            sees = two_stream_mask(T - P, P).float()
            content = sees[:T + P]                         # these rows are keys, too
            reach = content                                # what is known after many layers
            for _ in range(3):
                reach = ((reach @ content) > 0).float()
            known = ((sees @ reach) > 0)[T + P:, T - P:T]  # query rows, target keys
            assert torch.equal(known, torch.ones(P, P).tril(-1).bool())


def test_sizes():
    for T in LENGTHS:
        for P in range(T + 1):
            shapes = {"mpnet": (T + 2 * P, T + P), "plm": (T + P, T), "mlm": (T, T)}
            for objective, shape in shapes.items():
                mask = two_stream_mask(T - P, P, objective)
                assert mask.shape == shape and mask.dtype == torch.bool
            assert mask.all()                              # mlm: everyone sees everyone
    assert two_stream_mask(2, 1, device="meta").device.type == "meta"


def test_input_information_of_the_paper():
    for T in LENGTHS:
        for P in range(1, T + 1):
            C, p = T - P, Fraction(P, T)
            seen = {}
            for objective in ("mpnet", "plm", "mlm"):
                queries = two_stream_mask(C, P, objective)[-P:]
                n_targets = 0 if objective == "mlm" else P
                context, targets, masks = queries.tensor_split([C, C + n_targets], dim=1)
                tokens = Fraction(int(context.sum() + targets.sum()), P * T)
                seen[objective] = tokens, tokens + Fraction(int(masks.sum()), P * T)
            dependent = 1 - p / 2 - Fraction(1, 2 * T)
            expected = {"mpnet": (dependent, 1), "plm": (dependent, dependent), "mlm": (1 - p, 1)}
            assert seen == expected


@pytest.mark.parametrize("call", [
    lambda: two_stream_mask(4, 2, "bert"),
    lambda: two_stream_mask(-1, 2),
    lambda: two_stream_mask(3, -2),
])
def test_bad_input_is_refused(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)


# Attention itself

def test_heads_must_divide_the_width():
    with pytest.raises(UserError, match="3.*16"):
        MPNetSelfAttention(16, 3)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_formula(heads):
    torch.manual_seed(heads)
    C, P, dim = 4, 3, 8
    attention = MPNetSelfAttention(dim, heads).double()
    rows, sees = torch.randn(2, C + 3 * P, dim, dtype=torch.float64), two_stream_mask(C, P)
    keys = rows[:, :C + 2 * P]
    scores = torch.randn(2, heads, *sees.shape, dtype=torch.float64)
    got = attention(rows, keys, scores.masked_fill(~sees, float("-inf")))
    project = lambda layer, x: x @ layer.weight.T + layer.bias
    q, k, v = project(attention.q, rows), project(attention.k, keys), project(attention.v, keys)
    width, out = dim // heads, torch.zeros_like(rows)
    for b in range(2):
        for h in range(heads):
            at = slice(h * width, (h + 1) * width)
            for i in range(len(sees)):
                seen = sees[i].nonzero().flatten()
                match = k[b, seen, at] @ q[b, i, at] / width ** 0.5
                weight = (match + scores[b, h, i, seen]).softmax(0)
                out[b, i, at] = weight @ v[b, seen, at]
    torch.testing.assert_close(got, project(attention.o, out), atol=1e-12, rtol=0)


def test_relative_biases_follow_the_places_not_the_columns():
    torch.manual_seed(0)
    table = RelativePositionBias(32, 3)
    batch = make_batch([make_row(20, 6, seed=1), make_row(3, 2, seed=2)])
    places, n_keys = batch["positions"], batch["positions"].shape[1] - batch["pred_size"]
    bias = table(places, places[:, :n_keys])
    assert bias.shape == (2, 3, places.shape[1], n_keys)
    for b, i, j in [(0, 0, 1), (0, 5, 22), (0, 37, 4), (1, 1, 2), (0, 30, 30)]:
        bucket = relative_position_bucket(places[b, j] - places[b, i])
        assert torch.equal(bias[b, :, i, j], table.weight[bucket])
