"""Local HTTP server that serves files, correctly or with faults, and records the requested paths."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class FileServer:
    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    """Answers of each path, in order; the last one is repeated."""
    asked: list[str] = field(default_factory=list)
    """Requested paths, in order."""

    def serve(self, path: str, *answers: Answer | bytes) -> str:
        """Set the answers for a path and return its URL."""
        self.answers[path] = [whole(answer) if isinstance(answer, bytes) else answer for answer in answers]
        return self.url + path

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        answers = self.answers.get(request.path)
        if not answers:
            status(404)(request)
        else:
            (answers.pop(0) if len(answers) > 1 else answers[0])(request)


def whole(body: bytes) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def status(code: int, body: bytes = b"") -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def truncated(body: bytes, *, declared: bool = True) -> Answer:
    """Return an answer that sends half of the body, with the length of the whole body or without a length."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if declared:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2])

    return answer


def held(body: bytes, until: threading.Event, started: threading.Event | None = None) -> Answer:
    """Return an answer that sends half of the body, and the rest when `until` is set."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2])
        request.wfile.flush()
        if started is not None:
            started.set()
        until.wait(60)
        with contextlib.suppress(OSError):  # the client was killed
            request.wfile.write(body[len(body) // 2 :])

    return answer


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files = FileServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
