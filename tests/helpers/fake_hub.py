"""A hub on this machine, for what happens on the way to it."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def do_POST(self):
        self.refuse(404, "EntryNotFound")

    def answer(self, with_body):
        hub = self.server.hub
        path = self.path.partition("?")[0]
        hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        if name not in hub.folders:
            self.refuse(404, "RepoNotFound")
        elif is_api:
            self.tell(json.dumps(hub.listing(name)).encode(), with_body)
        elif name in hub.gated and parts[-1] != "README.md":
            self.refuse(403, "GatedRepo")
        else:
            file = hub.folders[name] / "/".join(parts[4:])
            if file.is_file():
                self.tell(file.read_bytes(), with_body, hub.commit)
            else:
                self.refuse(404, "EntryNotFound", hub.commit)

    def tell(self, content, with_body, commit=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def refuse(self, status, code, commit=None):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()

    def log_message(self, *args):
        pass


class Hub:
    """Repositories by name, each a folder at one commit.

    Attributes
    ----------
    folders : dict of str to Path
    gated : set of str
    sizes : dict of str to int
        Sizes that the listing states in place of the true ones.
    requests : list of (method, path)
    """

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self):
        self.folders = {}
        self.gated = set()
        self.sizes = {}
        self.requests = []

    def add(self, name, folder):
        self.folders[name] = Path(folder)

    def listing(self, name):
        folder = self.folders[name]
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in files]
        sizes = [
            self.sizes.get(file, path.stat().st_size)
            for file, path in zip(names, files, strict=True)
        ]
        siblings = [
            {"rfilename": file, "size": size}
            for file, size in zip(names, sizes, strict=True)
        ]
        return {"id": name, "sha": self.commit, "siblings": siblings}


@contextmanager
def serving(monkeypatch, cache):
    """Run a hub, make it the one that downloads come from, and use an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = hub
    url = f"http://127.0.0.1:{server.server_port}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("sklearn_difffeat.checkpoints._hub._sizes", {})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
