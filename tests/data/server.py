"""A small web server on the loopback address, with ranges and with faults."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, how badly, and what was asked."""

    body: bytes
    url: str = ""
    ranges: bool = True
    break_after: int | None = None  # bytes of one answer; then the line goes dead
    breaks: int = 10**9  # how often
    status: int | None = None
    asked: list[str] = field(default_factory=list)  # the Range of each request


@contextmanager
def serving(body: bytes) -> Iterator[Site]:
    """A site at ``url`` while the block runs."""
    site = Site(body)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, site)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    site.url = f"http://127.0.0.1:{server.server_address[1]}/data.zip"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}
    )
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    wanted = request.headers.get("Range", "")
    site.asked.append(wanted)
    if site.status is not None:
        request.send_error(site.status)
        return
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    start = start if site.ranges else 0
    body = site.body[start:]
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if site.break_after is not None and site.breaks > 0:
        site.breaks -= 1
        body = body[: site.break_after]
    request.wfile.write(body)
