"""Make the model that lessons 30 to 34 use: the demo's, for transformers, in half precision.

    python experiments/demo_model.py                        pretrain (four minutes), then convert
    python experiments/demo_model.py demo-checkpoints       convert a run that is there already

It pretrains as `pretrain-mpnet --demo` does; the model lies in annotated_mpnet/course/demo-model,
its tokenizer beside it: its vocabulary comes from the documentation of the Python that trained it
(3.11 here), and another version of Python has another text.
"""
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from safetensors.torch import load_file, save_file  # noqa: E402

from annotated_mpnet.cli import main as pretrain_mpnet  # noqa: E402
from annotated_mpnet.huggingface import to_huggingface  # noqa: E402

FOLDER = ROOT / "annotated_mpnet" / "course" / "demo-model"


def main(run: str | None = None) -> None: # the folder of a run; None: make one
    "Pretrain if need be, export, and halve the weights."
    with tempfile.TemporaryDirectory() as place:
        if run is None and pretrain_mpnet(["--demo", "--checkpoint-dir", f"{place}/run"]):
            sys.exit("the demo's run failed")
        made = Path(place) / "exported"
        to_huggingface(Path(run or f"{place}/run") / "final_checkpoint.pt", made)
        weights = {name: x.half() for name, x in load_file(made / "model.safetensors").items()}
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.move(made, FOLDER)
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
