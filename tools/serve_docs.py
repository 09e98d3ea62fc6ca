"""`make docs-serve`: show the built website at the path that it is published under."""
import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import site_pages

ROOT = Path(__file__).resolve().parents[1]


class Pages(SimpleHTTPRequestHandler):
    "The files of the site below its published path, and its own page for what is missing."
    base = site_pages.settings()["doc_baseurl"] % site_pages.settings()

    def translate_path(self, path: str) -> str:
        inside = path.startswith(f"{self.base}/")
        return super().translate_path(path[len(self.base):] if inside else "/missing")

    def do_GET(self):
        if self.path in ("/", self.base):
            self.send_response(302)
            self.send_header("Location", f"{self.base}/")
            self.end_headers()
        else:
            super().do_GET()

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.exists():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    "A server of the site in `folder`; port 0 takes any that is free."
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Pages, directory=str(folder)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    if not (ROOT / "_docs/index.html").exists():
        sys.exit("there is no site in _docs; build it with `make docs`")
    try:
        shown = server(ROOT / "_docs", parser.parse_args().port)
    except OSError as error:
        sys.exit(f"{error}; choose another port: make docs-serve PORT=8080")
    print(f"http://127.0.0.1:{shown.server_address[1]}{Pages.base}/  (Ctrl-C ends it)", flush=True)
    try:
        shown.serve_forever()
    except KeyboardInterrupt:
        print()
