"""The Vision Transformer (Dosovitskiy et al. 2021): the model ``vit`` and its networks for PyTorch and TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

from harness import Model, NetworkRef, hookimpl

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_models() -> Iterator[Model]:
    from harness_vit.model import VisionTransformer

    yield VisionTransformer()


@hookimpl
def harness_networks() -> Iterator[NetworkRef]:
    for backend in ("torch", "tensorflow"):
        yield NetworkRef(model="vit", backend=backend, build=f"harness_vit.{backend}_network:build")
