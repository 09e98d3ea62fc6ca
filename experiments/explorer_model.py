"""Remake the model of the explorer, docs/explorer.md.

    python experiments/explorer_model.py                   the lessons' small model
    python experiments/explorer_model.py FOLDER            any other that `convert-to-hf` wrote
    python experiments/explorer_model.py FOLDER --bits 32  without rounding

What a browser reads lies in docs/assets/explorer: model.json (configuration, vocabulary, and
where each tensor is) and weights.bin. A matrix is stored in 8 bits, with one scale for each row;
vectors and the relative biases stay in float32. `stored` reads it back.
"""
import argparse
import json
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from annotated_mpnet.configuration import UserError  # noqa: E402
from annotated_mpnet.huggingface import from_huggingface  # noqa: E402
from annotated_mpnet.positions import bucket_starts  # noqa: E402

MODEL = ROOT / "annotated_mpnet" / "course" / "demo-model"
FOLDER = ROOT / "docs" / "assets" / "explorer"
LIMIT = 10_000_000  # bytes that a reader is asked to wait for
FEW = 64            # columns; a matrix of fewer is not worth the rounding


def describe(config, n_tokens: int) -> dict: # config: of the model
    "What the browser has to know of the architecture; UserError if it can't compute it."
    if config.normalize_before or config.activation_fn != "gelu":
        raise UserError("the explorer computes Post-LN with GELU, as MPNet-base has it; "
                        "take a model of that kind")
    buckets, most = config.relative_attention_num_buckets, config.relative_attention_max_distance
    return {
        "vocabulary": n_tokens,
        "layers": config.encoder_layers,
        "dim": config.encoder_embed_dim,
        "heads": config.encoder_attention_heads,
        "eps": config.layer_norm_eps,
        "longest": config.max_positions,
        "starts": bucket_starts(buckets, most),
    }


def vocabulary(tokenizer) -> list[str]: # fast, of transformers
    "The tokens in the order of their ids; UserError if the browser would cut texts otherwise."
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    kinds = [(parts[key] or {}).get("type") for key in ("normalizer", "pre_tokenizer", "model")]
    lowered = (parts["normalizer"] or {}).get("lowercase")
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or not lowered:
        raise UserError("the explorer cuts texts by lower-cased WordPiece, as BERT does; "
                        f"this tokenizer is made of {kinds}")
    return tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))


def rounded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]: # (rows, columns)
    "Each row as whole numbers from -127 to 127 and what they are to be multiplied by."
    scales = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(x / scales).astype(np.int8), scales[:, 0].astype(np.float32)


def pack(weights: dict[str, torch.Tensor], bits: int) -> tuple[list[dict], bytes]:
    "Where each tensor is, and the bytes of all; each begins at a multiple of four."
    tensors, stored = [], b""
    for name, tensor in weights.items():
        x = tensor.detach().float().numpy()
        small = x.ndim < 2 or x.shape[1] < FEW
        entry = {"name": name, "shape": list(x.shape), "offset": len(stored)}
        tensors.append({**entry, "bits": 32 if small else bits})
        if small or bits == 32:
            stored += x.astype("<f4").tobytes()
        else:
            whole, scales = rounded(x)
            stored += scales.astype("<f4").tobytes() + whole.tobytes()
        stored += bytes(-len(stored) % 4)
    return tensors, stored


def stored(folder: Path = FOLDER) -> dict[str, torch.Tensor]: # with both files
    "The weights that the browser computes with, by name."
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    held, weights = (folder / "weights.bin").read_bytes(), {}
    for entry in described["tensors"]:
        shape, at, rows = entry["shape"], entry["offset"], entry["shape"][0]
        n = int(np.prod(shape))
        if entry["bits"] == 32:
            x = np.frombuffer(held, "<f4", n, at).reshape(shape)
        else:
            scales = np.frombuffer(held, "<f4", rows, at)
            x = np.frombuffer(held, np.int8, n, at + 4 * rows).reshape(shape) * scales[:, None]
        weights[entry["name"]] = torch.from_numpy(x.copy())
    return weights


def save(folder: Path, model, tokens: list[str], bits: int = 8) -> int: # the bytes written
    "Both files of a model and its vocabulary."
    weights = model.state_dict()
    for name in ("mpnet.embeddings.word_embeddings.weight", "lm_head.bias"):
        weights[name] = weights[name][:len(tokens)]  # without the vocabulary's padding
    tensors, held = pack(weights, bits)
    about = {"config": describe(model.config, len(tokens)), "bytes": len(held),
             "parameters": sum(x.numel() for x in weights.values()), "tensors": tensors,
             "vocabulary": tokens}
    text = json.dumps(about, ensure_ascii=False, separators=(",", ":"))
    if len(held) + len(text) > LIMIT:
        raise UserError(f"{len(held) + len(text):,} bytes are more than the {LIMIT:,} "
                        "that a reader should wait for; take a smaller model, or --bits 8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")
    (folder / "weights.bin").write_bytes(held)
    return len(held) + len(text)


def write(source: Path, folder: Path = FOLDER, bits: int = 8) -> int: # the bytes written
    "Both files of the model in `source`."
    model, tokenizer = from_huggingface(source)
    return save(folder, model, vocabulary(tokenizer), bits)


def main() -> int:
    "The exit code."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=MODEL, help="of a model")
    parser.add_argument("--bits", type=int, choices=(8, 32), default=8, help="of a weight")
    arguments = parser.parse_args()
    try:
        size = write(arguments.folder, bits=arguments.bits)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"docs/assets/explorer  {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
