"""A folder of texts, pretrained on as the users of transformers do: its Trainer, its collator.

    python benchmarks/transformers_mlm.py TEXTS TOKENIZER OUT UPDATES INTERVAL SPREAD

The demo's model as `MPNetForMaskedLM`, its batch and schedule; OUT gets a folder after each
INTERVAL updates. SPREAD is the standard deviation of the first weights, 0.02 by default in
transformers. Texts of similar length share a batch, which the Trainer does when asked.
"""
import sys
from pathlib import Path

from transformers import (
    AutoTokenizer, DataCollatorForLanguageModeling, MPNetConfig, MPNetForMaskedLM, Trainer,
    TrainingArguments, set_seed)

from annotated_mpnet.configuration import DEMO_DEFAULTS, PretrainConfig
from annotated_mpnet.rules import check


def main(texts: str, tokenizer: str, out: str, updates: str, interval: str, spread: str) -> None:
    config = check(PretrainConfig(**DEMO_DEFAULTS | {"total_updates": int(updates)}), own_data=True)
    set_seed(config.seed)
    cut = AutoTokenizer.from_pretrained(tokenizer)
    lines = [line for path in sorted(Path(texts).glob("*.txt"))
             for line in path.read_text(encoding="utf-8").splitlines()]
    ids = cut(lines, truncation=True, max_length=config.max_tokens)["input_ids"]
    model = MPNetForMaskedLM(MPNetConfig(
        vocab_size=len(cut), hidden_size=config.encoder_embed_dim,
        num_hidden_layers=config.encoder_layers, intermediate_size=config.encoder_ffn_dim,
        num_attention_heads=config.encoder_attention_heads, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5, initializer_range=float(spread),
        max_position_embeddings=config.max_tokens + 2))
    arguments = TrainingArguments(
        output_dir=out, max_steps=config.total_updates, learning_rate=config.lr,
        per_device_train_batch_size=config.batch_size, warmup_steps=config.warmup_updates,
        lr_scheduler_type="linear", weight_decay=config.weight_decay, adam_beta2=config.beta2,
        adam_epsilon=config.adam_eps, max_grad_norm=config.clip_grad_norm, seed=config.seed,
        train_sampling_strategy="group_by_length", save_strategy="steps", save_steps=int(interval),
        save_only_model=True, logging_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=True)
    Trainer(model, arguments, data_collator=DataCollatorForLanguageModeling(cut),
            train_dataset=[{"input_ids": row} for row in ids]).train()


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
