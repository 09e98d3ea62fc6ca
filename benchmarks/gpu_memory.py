"""What an update of MPNet-base needs of a GPU's memory, by formula.

    python benchmarks/gpu_memory.py [--short]

bfloat16 autocast, 512 tokens of which 15 % are predicted, AdamW, dropout 0.1, SDPA. Counted is what
each layer keeps for the backward pass, in bytes a row: of the width 768 in bfloat16 the inputs of
four products, queries, keys, values and what attention gathers; in float32 the inputs of two
normalizations; a byte for each decision of two dropouts; of the width 3072 twice bfloat16, around
the activation. Where there is a GPU, an update of 32 sequences is made, and its peak stands beside.
`--short` changes nothing: there is no longer form.
"""
from common import report

import torch

from annotated_mpnet.configuration import ModelConfig, PretrainConfig
from annotated_mpnet.model import MPNetForPretraining, parameter_counts
from annotated_mpnet.objectives import n_columns, n_keys
from annotated_mpnet.permutation import few_sizes

TOKENS, PRED_PROB = 512, 0.15
BATCHES, CARDS = (32, 64, 128), (24, 48, 80, 141)
GB = 1e9
CHUNK = 1024   # predicted tokens whose logits are held at once


def standing(model: MPNetForPretraining) -> float: # bytes
    "Weights, gradients and two moments, in float32."
    return 4 * 4 * sum(parameter_counts(model).values())


def kept_by_a_layer(config: ModelConfig, rows: int, keys: int) -> int: # bytes
    "What its backward pass needs."
    dim, inner = config.encoder_embed_dim, config.encoder_ffn_dim
    of_rows = dim * (2 + 2 + 2 + 2) + dim * (4 + 4) + dim * (1 + 1)  # products; norms; dropout
    of_keys = dim * (2 + 2) + dim * (2 + 2)                          # inputs; keys and values
    return rows * (of_rows + 2 * 2 * inner) + keys * of_keys


def update_bytes(config: ModelConfig, sequences: int, checkpointing: bool) -> float:
    "The peak of an update, above what stands."
    C, P = few_sizes(TOKENS, PRED_PROB)[-2]  # of full sequences
    rows, keys = n_columns("mpnet", C, P), n_keys("mpnet", C, P)
    layer = kept_by_a_layer(config, sequences * rows, sequences * keys)
    layers = config.encoder_layers * layer
    if checkpointing:  # what enters each layer, and one layer at a time
        layers = config.encoder_layers * 4 * sequences * rows * config.encoder_embed_dim + layer
    bias = 2 * sequences * config.encoder_attention_heads * rows * keys
    gradients = 2 * bias  # of the bias: the sum so far, and that of a layer
    logits = 3 * 4 * min(CHUNK, sequences * P) * config.padded_vocab_size
    return layers + bias + max(gradients, logits)


def measured(model: MPNetForPretraining, sequences: int) -> float: # bytes
    "The peak of an update on this GPU, above what stands."
    from train_step import make_batch, on_device, padded
    from annotated_mpnet.optimization import make_optimizer
    model.cuda().train()
    optimizer = make_optimizer(model, PretrainConfig())
    batch = make_batch(model.config.vocab_size, sequences, TOKENS)
    batch = on_device(padded(batch, *few_sizes(TOKENS, PRED_PROB)[-2]))
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            total, n, _ = model.loss(batch)
        (total / n).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return torch.cuda.max_memory_allocated() - standing(model)


def main() -> None:
    config = ModelConfig(vocab_size=30527, max_positions=TOKENS)
    model = MPNetForPretraining(config)
    stands = standing(model)
    table = []
    for checkpointing in (False, True):
        name = "gradient checkpointing" if checkpointing else "as it is"
        needs = [stands + update_bytes(config, n, checkpointing) for n in BATCHES]
        one = update_bytes(config, 1, checkpointing)
        fits = [int((0.95 * card * GB - stands) / one) for card in CARDS]
        table.append([name, *(f"{x / GB:.1f}" for x in needs), *fits])
    below = (f"Weights, gradients and moments stand for {stands / GB:.1f} GB of it. "
             "5 % of a card are left free.")
    if torch.cuda.is_available():
        seen = (stands + measured(model, 32)) / GB
        below += f" Measured here, 32 sequences as it is: {seen:.1f} GB."
    head = ["", *(f"GB for {n}" for n in BATCHES), *(f"most on {card} GB" for card in CARDS)]
    report("Memory of an update of base, 512 tokens", head, table, below)


if __name__ == "__main__":
    main()
