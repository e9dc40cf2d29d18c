"""Small checkpoints with random weights that `transformers` writes, with the logits that it computes from them.

``genuine_checkpoints.py FOLDER`` writes each case to a subfolder with ``expected.npz``, for use by processes that must
not import torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness import RawData, Split
from harness.data.checkpoint import locate
from harness.execute.preparation import choose_device, opened_session, preparation_of, starting_weights
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.records import RunSpec

CLASSES = ("no", "yes", "maybe")
RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 32],
    "depths": [1, 2],
    "layer_type": "bottleneck",
    "num_labels": len(CLASSES),
}
WAV2VEC2: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "conv_dim": [16, 16, 24],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 20,
    "num_labels": len(CLASSES),
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("ResNetForImageClassification", RESNET),
    "resnet-basic": (
        "ResNetForImageClassification",
        {**RESNET, "layer_type": "basic", "downsample_in_first_stage": True},
    ),
    "resnet-half": ("ResNetForImageClassification", RESNET),
    "resnet-encoder": ("ResNetModel", RESNET),
    "resnet-other-classes": ("ResNetForImageClassification", {**RESNET, "num_labels": 7}),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", WAV2VEC2),
    "wav2vec2-layer-norm": ("Wav2Vec2ForSequenceClassification", {**WAV2VEC2, **LAYER_NORM}),
    "wav2vec2-half": ("Wav2Vec2ForSequenceClassification", WAV2VEC2),
    "wav2vec2-encoder": ("Wav2Vec2Model", WAV2VEC2),
    "wav2vec2-other-classes": ("Wav2Vec2ForSequenceClassification", {**WAV2VEC2, "num_labels": 7}),
}
"""Class of `transformers` and configuration of each case."""
NEW_HEADS = ("resnet-encoder", "resnet-other-classes", "wav2vec2-encoder", "wav2vec2-other-classes")
"""Cases whose checkpoint has no head for `CLASSES`."""


def write(case: str, folder: Path, *, dtype: str | None = None) -> None:
    """Write the checkpoint of a case with its preprocessor. Cases that end in -half are float16 by default."""
    import torch
    import transformers

    name, sizes = CASES[case]
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**sizes))
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif (
                value.is_floating_point()
            ):  # no initial zeros or ones, so that an array that is not loaded changes the result
                value.add_(0.1 * torch.rand_like(value))
    model.to(getattr(torch, dtype or ("float16" if case.endswith("-half") else "float32"))).save_pretrained(folder)
    if case.startswith("resnet"):
        preprocessor = transformers.ConvNextImageProcessorPil(size=28, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    else:
        preprocessor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000)
    preprocessor.save_pretrained(folder)


def raw(task: str) -> RawData:
    """Return gray images of several sizes, or audio clips of several lengths."""
    rng = np.random.default_rng(0)
    examples = np.empty(6, object)
    if task == "vision":
        sizes = [(30, 44), (20, 20), (64, 33), (28, 28), (90, 40), (31, 32)]
        examples[:] = [rng.integers(0, 256, (*size, 1)).astype(np.uint8) for size in sizes]
        name, details = "image", {}
    else:
        examples[:] = [rng.uniform(-1, 1, n).astype(np.float32) for n in (4000, 3000, 2000, 2500, 3999, 1000)]
        name, details = "waveform", {"sample_rate_hz": 8000}
    split = Split(inputs={name: examples}, targets=np.arange(6) % len(CLASSES))
    return RawData(train=split, validation=split, test=split, label_names=CLASSES, details=details)


def planned(folder: Path, backend: str) -> RunSpec:
    """Return the spec of a run with two threads, as in other tests: TensorFlow sets them once per process."""
    task = "vision" if folder.name.startswith("resnet") else "speech"
    selection = Selection(
        tasks=(task,), backends=(backend,), devices=("cpu",), pretrained=str(folder), threads=2, seeds=(3,)
    )
    return expand(selection.resolved(locate), discover())[0]


def predicted(folder: Path, backend: str) -> tuple[dict[str, Any], dict[str, Any], Any, dict[str, str]]:
    """Return prepared inputs, initial weights, logits of the backend and notes on the checkpoint, as in a run."""
    catalog, spec = discover(), planned(folder, backend)
    task = catalog.task(spec.task)
    data = task.prepare(raw(spec.task), msgspec.convert(spec.task_options, task.Options))
    prepared = preparation_of(spec, catalog, choose_device(catalog.backend(backend), spec), data)
    weights, notes = starting_weights(prepared)
    with opened_session(prepared, weights) as session:
        logits = session.fetch(session.predict(dict(data.test.inputs)))
    return dict(data.test.inputs), weights, logits, notes


def expected(case: str, folder: Path, inputs: dict[str, Any], weights: dict[str, Any]) -> Any:
    """Return the logits of `transformers`, with the head in `weights` if the checkpoint has none that fits."""
    import torch
    import transformers

    name, _ = CASES[case]
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    head = {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
    with torch.no_grad():
        if case.startswith("resnet"):
            pixels = torch.from_numpy(inputs["pixel_values"]).permute(0, 3, 1, 2)
            if case not in NEW_HEADS:
                return model(pixels).logits.numpy()
            pooled = getattr(model, "resnet", model)(pixels).pooler_output.flatten(1)
            return (pooled @ head["classifier.1.weight"].T + head["classifier.1.bias"]).numpy()
        waveforms = torch.from_numpy(inputs["input_values"])
        if case not in NEW_HEADS:
            return model(waveforms).logits.numpy()
        hidden = getattr(model, "wav2vec2", model)(waveforms).last_hidden_state
        if case == "wav2vec2-encoder":
            projected = hidden @ head["projector.weight"].T + head["projector.bias"]
        else:
            projected = model.projector(hidden)
        return (projected.mean(dim=1) @ head["classifier.weight"].T + head["classifier.bias"]).numpy()


def main(root: Path) -> None:
    for case in CASES:
        write(case, root / case)
        inputs, weights, logits, _ = predicted(root / case, "torch")
        np.savez(
            root / case / "expected.npz", logits=expected(case, root / case, inputs, weights), torch=logits, **inputs
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
