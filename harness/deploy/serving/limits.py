"""Limits of a service on the size, duration and number of requests."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Limits that protect a service from large or slow requests, and from too many requests."""

    batch_size: int = 32
    """Maximum number of examples computed at once."""
    request_examples: int = 1024
    """Maximum number of examples per request."""
    waiting_examples: int = 1024
    """Maximum number of waiting examples. Further requests are rejected with status 503."""
    body_bytes: int = 16 * 2**20
    """Maximum size of a request's body."""
    pending_bytes: int = 256 * 2**20
    """Maximum total size of the bodies of all unanswered requests."""
    body_s: float = 10.0
    """Maximum time for receiving the body of a request, in seconds."""
    header_bytes: int = 64 * 2**10
    """Maximum size of the head of a request, which consists of the request line and the headers."""
    header_s: float = 10.0
    """Maximum time for receiving the head of a request, in seconds."""
    answer_s: float = 30.0
    """Maximum time between receiving and answering a request, in seconds."""
    load_s: float = 600.0
    """Maximum time for loading the model, in seconds. If this time is exceeded, the process is stopped."""
    batch_s: float = 60.0
    """Maximum time between two answers from the model's process while batches are being computed, in seconds. If this
    time is exceeded, the process is restarted."""
    drain_s: float = 30.0
    """Maximum time for answering the remaining requests after SIGTERM, in seconds."""
    connections: int = 4096
    """Maximum number of open connections. Further connections are closed."""
    write_s: float = 60.0
    """Maximum time without progress while a client receives an answer, in seconds."""
    image_pixels: int = 50_000_000
    """Maximum number of pixels in an image before it is scaled down."""
    audio_samples: int = 60_000_000
    """Maximum number of samples of a recording, over all channels."""
