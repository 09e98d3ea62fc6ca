"""The textbook's attention, to measure ours against.

Lesson 05's two calls a layer over a dense bias, and PyTorch's own dropout.

    python benchmarks/textbook.py ARGUMENTS OF PRETRAIN-MPNET     trains with it
"""
import sys

import torch
from torch import nn

from annotated_mpnet.attention import MPNetSelfAttention, dense_bias
from annotated_mpnet.fast_attention import Dropout, fast_bias
from annotated_mpnet.model import MPNetForPretraining


class TwoCalls(MPNetSelfAttention):
    "Content rows in one call of attention, query rows in another."
    def forward(self, rows, keys, bias):
        n, first = keys.shape[1], bias.shape[2] - rows.shape[1]
        if first:  # the last layer, which has query rows alone, as in ours
            return super().forward(rows, keys, bias[:, :, first:])
        content = super().forward(rows[:, :n], keys, bias[:, :, :n])
        return torch.cat([content, super().forward(rows[:, n:], keys, bias[:, :, n:])], dim=1)


def use_textbook(model: MPNetForPretraining, on: bool) -> None:
    "Let a model compute as in lesson 05, or as it does by default; the weights stay."
    model.mpnet.bias = dense_bias if on else fast_bias
    for module in model.modules():
        if isinstance(module, MPNetSelfAttention):
            module.__class__ = TwoCalls if on else MPNetSelfAttention
        elif isinstance(module, nn.Dropout):
            module.__class__ = nn.Dropout if on else Dropout


def main() -> int: # exit code
    "The command pretrain-mpnet with the textbook's attention, which gives its memory back."
    from annotated_mpnet import cli, run
    equip = run.equip
    def as_in_the_textbook(model, config):
        equip(model, config)
        use_textbook(model, True)
    run.equip, run.keep_memory = as_in_the_textbook, bool
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
