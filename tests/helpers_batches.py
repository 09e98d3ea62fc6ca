"""What the tests of the model share: tiny models, and batches laid out by hand, without the collator."""
import torch

from annotated_mpnet.configuration import ModelConfig
from annotated_mpnet.model import MPNetForPretraining

VOCAB, MASK, PAD = 50, 49, 1
SIZES = {"vocab_size": VOCAB, "encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_dim": 24, "encoder_attention_heads": 2,
         "max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


def tiny_model(dtype=torch.float32, # of the parameters
               seed=0,              # for weights and noise
               **changes,           # fields of ModelConfig
              ): # MPNetForPretraining in eval mode
    "A tiny model in which no bias is zero and no LayerNorm the identity, so that a mistake in any shows."
    torch.manual_seed(seed)
    config = ModelConfig(**SIZES | changes)
    model = MPNetForPretraining(config)
    shake(model)
    with torch.no_grad():
        model.mpnet.embeddings.word_embeddings.weight[config.vocab_size:] = 0
        model.lm_head.bias[config.vocab_size:] = 0
    return model.to(dtype).eval()


def shake(model, # any module; changed in place
         ):
    "Add noise to every parameter, the relative biases the most."
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += torch.randn_like(p) * (1.0 if "relative_attention_bias" in name else 0.2 if p.ndim == 1 else 0.1)


def make_row(n_context,   # tokens that are not predicted
             n_predicted, # tokens that are
             seed,        # of everything in the row
             vocab=VOCAB, # ids below it; the last is the mask token
            ): # (ids and places of the permuted tokens, the ids shown instead of the predicted ones)
    "One permuted sequence; what is shown in the place of a target is mostly the mask token."
    rng = torch.Generator().manual_seed(seed)
    n = n_context + n_predicted
    ids = torch.randint(5, vocab - 1, (n,), generator=rng)
    places = torch.randperm(n, generator=rng)
    shown = torch.where(torch.rand(n_predicted, generator=rng) < 0.7, vocab - 1,
                        torch.randint(5, vocab - 1, (n_predicted,), generator=rng))
    return ids, places, shown


def make_batch(rows,              # from make_row
               objective="mpnet", # chooses the blocks
              ): # as the collator's, `real` (P slots) added
    "Rows of any sizes as one batch: context from the left, targets and masks from the right of their blocks."
    sizes = [(len(ids) - len(shown), len(shown)) for ids, _, shown in rows]
    C, P = max(c for c, _ in sizes), max(p for _, p in sizes)
    blocks = {"mpnet": "ctmm", "plm": "ctm", "mlm": "cm"}[objective]
    out = {"input_ids": [], "positions": [], "attention_mask": []}
    targets = torch.full((len(rows), P), -100)
    for row, ((ids, places, shown), (c, p)) in enumerate(zip(rows, sizes)):
        pad_right = lambda x, fill: torch.cat([x, torch.full((C - c,), fill)])
        pad_left = lambda x, fill: torch.cat([torch.full((P - p,), fill), x])
        one = {"input_ids": {"c": pad_right(ids[:c], PAD), "t": pad_left(ids[c:], PAD), "m": pad_left(shown, PAD)},
               "positions": {"c": pad_right(places[:c], 0), "t": pad_left(places[c:], 0), "m": pad_left(places[c:], 0)},
               "attention_mask": {"c": pad_right(torch.ones(c, dtype=torch.long), 0)}
                                 | dict.fromkeys("tm", pad_left(torch.ones(p, dtype=torch.long), 0))}
        for name in out: out[name].append(torch.cat([one[name][block] for block in blocks]))
        targets[row, P - p:] = ids[c:]
    return {name: torch.stack(value) for name, value in out.items()} | {"targets": targets, "pred_size": P, "real": targets != -100}


def logits_of(model, batch, **more): # the model's logits for a batch
    "`forward` with a batch's own entries."
    return model(batch["input_ids"], batch["positions"], batch["pred_size"], batch["attention_mask"], **more)
