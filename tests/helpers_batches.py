"""What the tests of the model share: tiny models, and batches made without the collator."""
import torch

from annotated_mpnet.configuration import ModelConfig
from annotated_mpnet.model import MPNetForPretraining

VOCAB, MASK, PAD = 50, 49, 1
SIZES = {
    "vocab_size": VOCAB, "max_positions": 64,
    "encoder_layers": 2, "encoder_attention_heads": 2,
    "encoder_embed_dim": 16, "encoder_ffn_dim": 24,
    "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
}
BLOCKS = {"mpnet": "ctmm", "plm": "ctm", "mlm": "cm"}  # context, targets, masks


def tiny_model(dtype=torch.float32, # of the parameters
               seed=0,              # for weights and noise
               **changes,           # fields of ModelConfig
              ): # MPNetForPretraining in eval mode
    "A tiny model: no bias is zero, no LayerNorm the identity, so that a mistake in any shows."
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
            scale = 0.2 if p.ndim == 1 else 0.1
            if "relative_attention_bias" in name:
                scale = 1.0
            p += torch.randn_like(p) * scale


def make_row(n_context,   # tokens that are not predicted
             n_predicted, # tokens that are
             seed,        # of everything in the row
             vocab=VOCAB, # ids below it; the last is the mask token
            ): # (permuted ids, their places, the ids shown instead of the predicted ones)
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
    "Rows of any sizes: context from the left, targets and masks from the right of their blocks."
    P = max(len(shown) for _, _, shown in rows)
    C = max(len(ids) - len(shown) for ids, _, shown in rows)
    out = {"input_ids": [], "positions": [], "attention_mask": []}
    targets = torch.full((len(rows), P), -100)
    for row, (ids, places, shown) in enumerate(rows):
        p = len(shown)
        c = len(ids) - p
        real = torch.ones(len(ids), dtype=torch.long)
        entries = {"input_ids": (ids, shown, PAD), "positions": (places, places[c:], 0),
                   "attention_mask": (real, real[c:], 0)}
        for name, (tokens, masks, fill) in entries.items():
            part = {"c": torch.cat([tokens[:c], torch.full((C - c,), fill)]),
                    "t": torch.cat([torch.full((P - p,), fill), tokens[c:]]),
                    "m": torch.cat([torch.full((P - p,), fill), masks])}
            out[name].append(torch.cat([part[block] for block in BLOCKS[objective]]))
        targets[row, P - p:] = ids[c:]
    stacked = {name: torch.stack(value) for name, value in out.items()}
    return stacked | {"targets": targets, "pred_size": P, "real": targets != -100}


def logits_of(model, batch, **more): # the model's logits for a batch
    "`forward` with a batch's own entries."
    mask = batch["attention_mask"]
    return model(batch["input_ids"], batch["positions"], batch["pred_size"], mask, **more)
