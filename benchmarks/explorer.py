"""The explorer: one pass of a model in Chromium, on one core.

    python benchmarks/explorer.py [--short]

The goal is 100 ms for a step. Besides the model of the page, models of other sizes with random
weights: time depends on the size alone. Milliseconds are those of the processor.
"""
import shutil
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from common import SHORT, report

from playwright.sync_api import sync_playwright

from annotated_mpnet.configuration import ModelConfig
from annotated_mpnet.model import MPNetForPretraining

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "experiments"))
import explorer_model  # noqa: E402

SIZES = [(4, 192, 8000), (6, 256, 8000)]  # layers, width, tokens
LENGTHS, HIDDEN, REPEATS = (12, 24, 60), 4, 5 if SHORT else 21
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ONE = """([T, P, objective]) => {
  const ids = Array.from({length: T}, (_, i) => 10 + i);
  const hidden = Array.from({length: P}, (_, i) => 2 + 2 * i);
  window.model.logits(ids, hidden, objective);
}"""
LOAD = """async address => {
  const {load} = await import(`${address}model.js`);
  window.model = await load(address);
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def seconds(session) -> float: # session: of Chromium's own protocol
    "The processor's seconds that the page's thread has taken."
    found = session.send("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in found if each["name"] == "ThreadTime")


def measured(browser, folder: Path) -> dict[tuple[int, str], float]: # milliseconds of one pass
    "For each length and objective the median over repeats that alternate."
    shown = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=shown.serve_forever, daemon=True).start()
    address, page = f"http://127.0.0.1:{shown.server_address[1]}/", browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(f"{address}model.json")
    page.evaluate(LOAD, address)
    asked = [(T, objective) for T in LENGTHS for objective in ("mlm", "plm", "mpnet")]
    times = {each: [] for each in asked}
    for _ in range(REPEATS + 3):  # the first three warm up the compiler
        for T, objective in asked:
            begun = seconds(session)
            page.evaluate(ONE, [T, HIDDEN, objective])
            times[T, objective].append(1000 * (seconds(session) - begun))
    page.close()
    shown.shutdown()
    return {each: median(values[3:]) for each, values in times.items()}


def random_model(folder: Path, layers: int, dim: int, n_tokens: int) -> None:
    "The explorer's files with a model of that size, which has learned nothing."
    config = ModelConfig(vocab_size=n_tokens, encoder_layers=layers, encoder_embed_dim=dim,
                         encoder_ffn_dim=4 * dim, encoder_attention_heads=dim // 32,
                         max_positions=64)
    words = ["<s>", "<pad>", "</s>", "<unk>", *map(str, range(n_tokens - 5)), "<mask>"]
    explorer_model.save(folder, MPNetForPretraining(config), words)


def main():
    "A line for each model and objective."
    if CHROMIUM is None:
        sys.exit("no Chromium here; get one with `apt-get install chromium`")
    rows = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        folders = [("the page's", ROOT / "docs/assets/explorer")]
        for layers, dim, n_tokens in SIZES:
            folder = Path(place) / f"{layers}-{dim}"
            shutil.copytree(ROOT / "docs/assets/explorer", folder)
            random_model(folder, layers, dim, n_tokens)
            folders.append((f"{layers} layers of {dim}", folder))
        for name, folder in folders:
            size = sum((folder / each).stat().st_size for each in ("model.json", "weights.bin"))
            found = measured(browser, folder)
            for objective in ("mlm", "plm", "mpnet"):
                times = [f"{found[T, objective]:.0f} ms" for T in LENGTHS]
                rows.append([f"{name}, {objective}", f"{size / 1e6:.1f} MB", *times])
        browser.close()
    head = ["Model and mask", "files", *(f"{T} tokens" for T in LENGTHS)]
    report(f"One pass in Chromium, {HIDDEN} tokens hidden, medians of {REPEATS}", head, rows)


if __name__ == "__main__":
    main()
