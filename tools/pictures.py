"""The course's pictures, drawn from what the package computes, in annotated_mpnet/course/pictures.

    python tools/pictures.py    write them

Lessons show them as they travel with the package; the site puts them into its pages.
"""
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

import course_map

from annotated_mpnet.attention import two_stream_mask
from annotated_mpnet.configuration import ModelConfig
from annotated_mpnet.huggingface import from_huggingface
from annotated_mpnet.model import MPNetForPretraining
from annotated_mpnet.objectives import OBJECTIVES
from annotated_mpnet.permutation import MaskedPermutedCollator
from annotated_mpnet.positions import relative_position_bucket
from drawing import LETTER, arrow, box, framed, line, words

COURSE = Path(__file__).resolve().parents[1] / "annotated_mpnet" / "course"
FOLDER = COURSE / "pictures"
WIDTH, MARGIN = 430, 12  # so narrow that a phone shows a picture whole
SENTENCE = "the task is sentence classification"
LESSON_06 = {"encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_dim": 64,
             "encoder_attention_heads": 4, "max_positions": 64}
CORRUPTED = 112          # a sample of which one mask became a random token
LEARNING_RATE = 1e-3     # of the one update


class Example(NamedTuple):
    "The course's sentence, as a batch of one."
    ids: list[int]
    tokens: list[str]    # in order
    batch: dict
    columns: list[str]   # tokens, as the model is shown them
    blocks: list[str]    # for each column, the block that it is in
    positions: list[int] # for each column

    @property
    def cells(self) -> list[tuple[str, int]]:
        return list(zip(self.blocks, self.positions))

    @property
    def targets(self) -> list[str]:
        return [t for t, block in zip(self.columns, self.blocks) if block == "target"]


@cache
def trained():
    "The demo's model and its tokenizer, as they lie in the package."
    return from_huggingface(COURSE / "demo-model")


def example(sample_id: int = 0) -> Example:
    "The batch of lessons 03 to 06, or another sample of it."
    tokenizer = trained()[1]
    name = tokenizer.convert_ids_to_tokens
    ids = tokenizer(SENTENCE)["input_ids"]
    collate = MaskedPermutedCollator(tokenizer, seed=3, pred_prob=0.4)
    batch = collate([{"input_ids": ids, "sample_id": sample_id}])
    P, columns = batch["pred_size"], name(batch["input_ids"][0].tolist())
    sizes = {"context": len(ids) - P, "target": P, "mask": P, "query": P}
    blocks = [block.name for block in OBJECTIVES["mpnet"] for _ in range(sizes[block.name])]
    return Example(ids, name(ids), batch, columns, blocks, batch["positions"][0].tolist())


def tile(x: float, y: float, width: float, token: str, number: object, kind: str) -> list[str]:
    "A token and, below it, its position."
    on = "" if kind.startswith(("query", "chip")) else " on"
    return [box(x, y, width, 34, kind), words(x + width / 2, y + 15, token, "middle" + on),
            words(x + width / 2, y + 29, number, "middle" + on)]


def cells(x: float, y: float, columns: list[tuple[str, int]], pitch: float) -> list[str]:
    "Columns of a batch, by their blocks and positions."
    parts, height = [], 22
    for block, position in columns:
        on, inset = ("", 1) if block == "query" else (" on", 0)
        parts += [box(x + inset, y + inset, pitch - 3 - 2 * inset, height - 2 * inset, block),
                  words(x + (pitch - 3) / 2, y + height / 2 + 4, position, "middle" + on)]
        x += pitch
    return parts


# The permutation

def placed(widths: list[float], x: float, gaps: dict[int, float]) -> list[float]:
    "The left edges of tiles side by side, with more room before some."
    lefts = []
    for n, width in enumerate(widths):
        x += gaps.get(n, 0)
        lefts.append(x)
        x += width + 3
    return lefts


def permutation() -> str:
    "Tokens move with their numbers, and the predicted ones are copied twice as masks."
    some = example(CORRUPTED)
    T, P = len(some.ids), some.batch["pred_size"]
    C, shown = T - P, some.columns[T:T + P]
    before = placed([len(t) * LETTER + 8 for t in some.tokens], MARGIN, {})
    width = [max(len(t), len(m)) * LETTER + 8 for t, m in zip(some.columns, [""] * C + shown)]
    after = placed(width, MARGIN, {C: 8})
    parts = [words(MARGIN, 22, "the sentence, with the positions of its tokens", "say soft")]
    for n, (token, x) in enumerate(zip(some.tokens, before)):
        parts += tile(x, 30, len(token) * LETTER + 8, token, n, "chip")
    for column, x in enumerate(after):
        token, position, kind = some.columns[column], some.positions[column], some.blocks[column]
        start = before[position] + len(token) * LETTER / 2 + 4
        parts += [line((start, 65), (x + width[column] / 2, 123), kind=f"{kind} way"),
                  *tile(x, 124, width[column], token, position, kind)]
    for n, (mask, truth) in enumerate(zip(shown, some.targets)):
        x, column = after[C + n], C + n
        odd = " odd" if mask not in ("<mask>", truth) else ""
        for y, kind in ((190, "mask"), (232, "query")):
            parts += tile(x, y, width[column], mask, some.positions[column], kind + odd * (y < 232))
    left = after[C] - 14
    parts += [words(MARGIN, 175, f"context: {C} tokens", "name"),
              words(after[C], 175, f"targets: {P}", "name"),
              words(left, 204, "masks: keys, same positions", "say end"),
              words(left, 220, "framed: a random token instead", "say end soft"),
              words(left, 254, "queries: the same again, no keys", "say end"),
              words(MARGIN, 298, "the batch: [permuted tokens | masks | masks]", "say soft"),
              *cells(MARGIN, 306, some.cells, 27)]
    odd, = (n for n, (m, t) in enumerate(zip(shown, some.targets)) if m not in ("<mask>", t))
    order = ", ".join(f"{t} {p}" for t, p in zip(some.columns[:T], some.positions))
    about = (f"The sentence's tokens in order, each with its position. Lines lead to the permuted "
             f"tokens: {order}. The last {P} are targets. Below them {P} masks with the same "
             f"positions; one is the random token {shown[odd]} instead. The same again as queries. "
             f"Last, all {T + 2 * P} columns of the batch in one row.")
    return framed("permutation", "A sentence is permuted", about, WIDTH, 340, parts)


# The ruler of relative buckets

def segments(first: int, last: int) -> list[tuple[int, int, int]]:
    "Each bucket of some distances, with the first and the last of them that it holds."
    distances = torch.arange(first, last + 1)
    pairs = zip(relative_position_bucket(distances).tolist(), distances.tolist())
    groups = [(b, [d for _, d in some]) for b, some in groupby(pairs, key=lambda pair: pair[0])]
    return [(bucket, d[0], d[-1]) for bucket, d in groups]


def scale(first: int, last: int, y: float, pitch: float) -> list[str]:
    "A line of distances, cut into their buckets."
    parts = []
    for bucket, start, end in segments(first, last):
        x, wide = MARGIN + (start - first) * pitch, (end - start + 1) * pitch
        kind = "context" if start <= 0 else "target"
        parts.append(box(x + 0.5, y, wide - 1, 22, kind + " faint" * (bucket % 2), 2))
        if wide > 2 * LETTER:
            parts.append(words(x + wide / 2, y + 15, bucket, "middle" + " on" * (not bucket % 2)))
    return parts


def ruler() -> str:
    "Distances on a line: near ones have a bucket each, farther ones share buckets that grow."
    some, query, near, far = example(), 3, 10, 133
    width = WIDTH - 2 * MARGIN
    pitch, fine = width / (2 * near + 1), width / far
    parts = [words(MARGIN, 22, "the bucket of each distance from a query", "say soft")]
    for n, token in enumerate(some.tokens):
        x = MARGIN + (n - query + near + 0.5) * pitch + 4
        parts.append(words(x, 106, token, "name" if n == query else "", turned=True))
    parts += scale(-near, near, 112, pitch)
    for d in range(-near, near + 1, 2):
        x = MARGIN + (d + near + 0.5) * pitch
        parts.append(words(x, 149, f"{d:+d}" if d else "0", "middle soft"))
    after = MARGIN + (near + 1) * pitch
    parts += [line((after, 156), (MARGIN, 204), kind="tied"),
              line((WIDTH - MARGIN, 156), (MARGIN + near * fine, 204), kind="tied"),
              words(WIDTH - MARGIN, 193, "the same, as far as it changes", "say soft end"),
              *scale(1, far, 206, fine)]
    starts, written = [start for _, start, _ in segments(1, far)][7:], 0.0
    for start in starts:
        if (x := MARGIN + (start - 1) * fine) > written + 15:
            parts.append(words(x, 243, start, "soft"))
            written = x
    parts.append(words(MARGIN, 270, "blue: the query and keys before it; green: keys after", "say"))
    about = (f"Two rulers. Over the first stand the tokens of the sentence at their distances from "
             f"the query {some.tokens[query]}; distances of less than 8 have a bucket each. The "
             f"second shows distances up to {far}: its buckets begin at "
             f"{', '.join(map(str, starts))} and grow. The last one has no end.")
    return framed("ruler", "The buckets of relative positions", about, WIDTH, 284, parts)


# The model

PITCH, LEFT = 20, 96    # of the columns of a batch
ACROSS = 15 * PITCH - 3 # of all of them


def shapes(some: Example) -> dict[str, str]:
    "What lesson 06 prints of its model, by running it."
    tokenizer = trained()[1]
    config = ModelConfig(len(tokenizer), tokenizer.pad_token_id, **LESSON_06)
    model, batch = MPNetForPretraining(config).eval(), some.batch
    asked = batch["input_ids"], batch["positions"], batch["pred_size"]
    embeddings = model.mpnet.embeddings
    tensors = {
        "input": asked[0],
        "tokens": embeddings.word_embeddings.weight,
        "positions": embeddings.position_embeddings.weight,
        "x": embeddings(*asked[:2]),
        "bias": model.mpnet.encoder["relative_attention_bias"].weight,
        "wide": model.mpnet.encoder["layer"][0].intermediate["dense"].weight,
        "hidden": model.hidden(*asked),
        "logits": model(*asked),
    }
    said = {name: str(tuple(tensor.shape)) for name, tensor in tensors.items()}
    rows, keys = two_stream_mask(some.blocks.count("context"), batch["pred_size"]).shape
    return said | {"layers": str(config.encoder_layers), "rows": str(rows), "keys": str(keys)}


def said(y: float, name: str, shape: str) -> list[str]:
    "In the margin: what a row of the picture is, and its shape."
    return [words(MARGIN, y, name, "name"), words(MARGIN, y + 15, shape, "soft")]


def card(y: float, name: str, text: str, right: Sequence[str] = ()) -> list[str]:
    "A part of the model."
    parts = [box(LEFT, y, ACROSS, 44, "card"), words(LEFT + 8, y + 18, name, "name"),
             words(LEFT + 8, y + 34, text, "say")]
    return parts + [words(LEFT + ACROSS - 8, y + 18 + 16 * n, text, "soft end")
                    for n, text in enumerate(right)]


def strip(y: float, blocks: list[str]) -> list[str]:
    "The rows that there are at this height: the last ones where some are no longer computed."
    first = LEFT + ACROSS + 3 - len(blocks) * PITCH
    return [box(first + n * PITCH + (block == "query"), y, PITCH - 3 - 2 * (block == "query"), 10,
                block, 2) for n, block in enumerate(blocks)]


def layers(y: float, some: Example, is_: dict[str, str]) -> tuple[list[str], float]:
    "The encoder's layers, the table of biases beside them, and where they end."
    parts, n_layers, P, top = [], int(is_["layers"]), some.batch["pred_size"], y
    for n in range(n_layers):
        last = n == n_layers - 1
        rows, asks = (P, LEFT + (15 - P / 2) * PITCH) if last else (is_["rows"], LEFT + ACROSS / 2)
        parts += [*card(y, f"layer {n}", f"{rows} rows attend to {is_['keys']} keys",
                        right=["attention, feed-forward"]),
                  arrow((WIDTH - 26, y + 22), (LEFT + ACROSS + 1, y + 22)),
                  arrow((asks, y + 44), (asks, y + 60)), *strip(y + 62, some.blocks[-int(rows):])]
        if not last:
            parts.append(arrow((asks, y + 73), (asks, y + 88)))
            y += 90
    parts += [box(WIDTH - 26, top - 8, 20, y + 60 - top, "chip"),
              words(WIDTH - 12, (top + y + 44) / 2, f"relative biases {is_['bias']}", "say middle",
                    turned=True)]
    return parts, y + 62


def model() -> str:
    "From the columns of a batch to logits: one bias for all layers, one table at both ends."
    some, y = example(), 100
    is_, P = shapes(some), some.batch["pred_size"]
    middle, asks = LEFT + ACROSS / 2, LEFT + (15 - P / 2) * PITCH
    parts = [*said(60, "input_ids", is_["input"]), *said(y + 9, "positions", is_["input"]),
             *cells(LEFT, y, some.cells, PITCH)]
    for n, (token, block) in enumerate(zip(some.columns, some.blocks)):
        parts.append(words(LEFT + n * PITCH + 12, y - 6, token, turned=True))
        if n == some.blocks.index(block):
            parts.append(words(LEFT + n * PITCH, 14, block, "say soft"))
    parts += [arrow((middle, y + 23), (middle, y + 36)),
              *card(y + 38, "token embeddings", "+ position embeddings",
                    right=[is_["tokens"], is_["positions"]]),
              arrow((middle, y + 82), (middle, y + 97)), *said(y + 101, "x", is_["x"]),
              *strip(y + 99, some.blocks), arrow((middle, y + 110), (middle, y + 125))]
    drawn, end = layers(y + 127, some, is_)
    tied = LEFT - 5
    parts += [*drawn, *said(end + 2, "hidden", is_["hidden"]),
              arrow((asks, end + 11), (asks, end + 27)),
              *card(end + 28, "head", "dense, norm, then times token embeddings"),
              line((LEFT, y + 60), (tied, y + 60), (tied, end + 50), (LEFT, end + 50), kind="tied"),
              words(tied - 7, (y + end) / 2 + 54, "the same table", "say middle soft", turned=True),
              arrow((asks, end + 72), (asks, end + 86)), *said(end + 92, "logits", is_["logits"]),
              words(asks - P * PITCH / 2 - 8, end + 103, ", ".join(some.targets), "end"),
              *cells(asks - P * PITCH / 2, end + 88, some.cells[-P:], PITCH)]
    about = (f"From top to bottom. {len(some.blocks)} columns: context, targets, masks, queries. "
             f"Token embeddings {is_['tokens']} plus position embeddings {is_['positions']} give x "
             f"{is_['x']}. {is_['layers']} layers follow, each with the same table of relative "
             f"biases {is_['bias']}. In the last one only the {P} query rows are computed: hidden "
             f"{is_['hidden']}. The head ends with the table of token embeddings: logits "
             f"{is_['logits']}.")
    return framed("model", "The model, with the shapes of the sentence", about, WIDTH, end + 124,
                  parts)


# One update

def numbers(some: Example) -> dict:
    "One update of the demo's model with the sentence alone: what is computed on its way."
    model, tokenizer = trained()
    P, batch = some.batch["pred_size"], some.batch
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()  # no dropout
    logits = model(batch["input_ids"], batch["positions"], P)[0, :, :len(tokenizer)]
    best = logits.softmax(-1).max(-1)
    losses, _ = model.token_losses(batch)
    losses.mean().backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE).step()
    with torch.no_grad():
        after = model.token_losses(batch)[0].mean()
    model.zero_grad()
    model.load_state_dict(start)
    return {"best": tokenizer.convert_ids_to_tokens(best.indices.tolist()),
            "p": best.values.tolist(), "logits": tuple(logits[None].shape),
            "losses": losses.tolist(), "norm": norm.item(), "after": after.item(),
            "parameters": sum(p.numel() for p in model.parameters())}


def update() -> str:
    "A text on its way to a step of the weights, with the numbers of each station."
    some, found = example(), numbers(example())
    P, losses, ends, targets = some.batch["pred_size"], found["losses"], WIDTH - 16, some.targets
    names = ("text", "tokens", "batch", "logits", "loss", "gradient", "step")
    tops = (18, 52, 82, 136, 198, 240, 282)
    parts = [words(MARGIN, y + 15, name, "name") for name, y in zip(names, tops)]
    parts += [arrow((MARGIN + 20, y + 20), (MARGIN + 20, y2 + 2)) for y, y2 in zip(tops, tops[1:])]
    parts += [words(LEFT, 33, SENTENCE), words(LEFT - 10, 67, " ".join(some.tokens)),
              *cells(LEFT, 82, some.cells, PITCH),
              words(LEFT, 120, f"{len(some.blocks)} columns; a query asks for one token", "soft")]
    for n, (truth, best, p, loss) in enumerate(zip(targets, found["best"], found["p"], losses)):
        x, wide = LEFT + n * 101, 95
        parts += [box(x + 1, 135, wide - 2, 42, "query"),
                  words(x + wide / 2, 152, f"true: {truth}", "middle"),
                  words(x + wide / 2, 168, f"best: {best} {p:.0%}", "middle soft"),
                  words(x + wide / 2, 213, f"{loss:.2f}", "middle")]
    mean = sum(losses) / P
    parts += [words(LEFT, 229, f"nats; mean {mean:.2f}", "soft"),
              words(LEFT, 255, f"a number for each of {found['parameters']:,} parameters", "say"),
              words(LEFT, 271, f"norm {found['norm']:.0f}", "soft"),
              words(LEFT, 297, f"of about {LEARNING_RATE} for each, against its gradient", "say"),
              words(LEFT, 313, f"the same batch then: {found['after']:.1f} nats", "soft"),
              line((WIDTH - 60, 326), (ends, 326), (ends, 156), kind="tied"),
              arrow((ends, 157), (LEFT + 300, 157), kind="tied"),
              words(WIDTH - 66, 330, "the next batch meets new weights", "say end soft")]
    about = (f"Seven stations. The text {SENTENCE}; its {len(some.tokens)} tokens; a batch of "
             f"{len(some.blocks)} columns; logits {found['logits']}, for {', '.join(targets)}; "
             f"their losses, in the mean {mean:.2f} nats; the gradient; a step, after which the "
             f"same batch has {found['after']:.1f} nats. An arrow leads back to the logits.")
    return framed("update", "One update, from text to step", about, WIDTH, 344, parts)


def all_of_them() -> dict[Path, str]:
    "Every file, and what is in it."
    made = {drawn.__name__: drawn() for drawn in (permutation, ruler, model, update)}
    made["map"] = course_map.drawn()
    return {FOLDER / f"{name}.svg": text for name, text in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in all_of_them().items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote the pictures of annotated_mpnet/course/{FOLDER.name}")
