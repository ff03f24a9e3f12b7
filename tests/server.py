"""A server on this machine that behaves as servers do on bad days."""

import http.server
import re
import time
from dataclasses import dataclass, field

from rlcf.data.fetch import Patience

QUICK = Patience(timeout=5, tries=3, pause=0)


@dataclass
class Page:
    """What the server gives for a path.

    ranges: it answers Range requests. cut: it breaks each connection after so many bytes. statuses: answers before the
    page itself. wait: seconds it says nothing before the body.
    """

    body: bytes = b""
    ranges: bool = True
    cut: int | None = None
    statuses: list[int] = field(default_factory=list)
    etag: str = '"1"'
    kind: str = "application/octet-stream"
    wait: float = 0.0
    length: bool = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []

    def handle_error(self, request, client_address):
        """A client that left early is no news."""

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def put(self, path, body=b"", **page):
        """Puts a page at a path, and returns its address."""
        self.pages[f"/{path}"] = Page(body, **page)
        return self.url(path)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        page = self.server.pages.get(self.path)
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if page is None or page.statuses:
            self.send_error(404 if page is None else page.statuses.pop(0))
            return
        first = re.fullmatch(r"bytes=(\d+)-", asked or "")
        fresh = self.headers.get("If-Range", page.etag) == page.etag
        start = int(first[1]) if first and page.ranges and fresh else 0
        if start and start >= len(page.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(page.body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", page.kind)
        if page.length:
            self.send_header("Content-Length", str(len(page.body) - start))
        if page.etag:
            self.send_header("ETag", page.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
        self.end_headers()
        time.sleep(page.wait)
        body = page.body[start:]
        self.wfile.write(body[: page.cut] if page.cut is not None else body)
        self.close_connection = True
