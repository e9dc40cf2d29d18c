"""Tests of near-duplicates: images and recordings that were compressed, resized or resampled."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from own_files import write_csv

from harness import RawData, Split
from harness.data import near_duplicates
from harness.data.fingerprints import are_same_image, are_same_recording
from harness.data.near_duplicates import between_splits, find
from harness.data.user_files.dataset import UserDataset

Image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
soundfile = pytest.importorskip("soundfile", reason="recordings are read by soundfile")
Array = NDArray[Any]


def scene(seed: int, shape: tuple[int, ...] = (72, 96, 3)) -> Array:
    """Return an image with smooth areas and edges, as in a photograph: a gradient, rectangles and discs."""
    rng = np.random.default_rng(seed)
    height, width = shape[:2]
    down, across = np.mgrid[:height, :width] / max(height, width)
    planes = rng.uniform(50, 200, (1, 1, 3)) + (down * rng.uniform(-60, 60) + across * rng.uniform(-60, 60))[..., None]
    for _ in range(7):
        y, x, size = rng.uniform(0, 1, 3)
        inside = np.maximum(abs(down - y), abs(across - x)) < size / 4
        if rng.random() < 0.5:
            inside = np.hypot(down - y, across - x) < size / 4
        planes = np.where(inside[..., None], rng.uniform(0, 255, 3), planes)
    pixels = planes.clip(0, 255).astype(np.uint8)
    return pixels[..., : shape[2]]


def tones(seed: int, seconds: float = 0.6, rate_hz: int = 8000) -> Array:
    """Return a recording with several decaying tones of changing pitch, as in speech."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    samples = np.zeros(len(t))
    for _ in range(6):
        start, pitch, bend = rng.uniform(0, seconds / 2), rng.uniform(200, 1400), rng.uniform(-300, 300)
        passed = np.maximum(t - start, 0)
        samples += (t > start) * np.exp(-6 * passed) * np.sin(2 * np.pi * (pitch + bend * passed) * passed)
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def encoded(pixels: Array, form: str, **settings: Any) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, form, **settings)
    found = np.asarray(Image.open(buffer).convert("L" if pixels.shape[2] == 1 else "RGB"))
    return found.reshape(*found.shape[:2], -1)


def resized(pixels: Array, factor: float, method: str = "BICUBIC") -> Array:
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    found = np.asarray(Image.fromarray(pixels.squeeze()).resize(size, Image.Resampling[method]))
    return found.reshape(*found.shape[:2], -1)


IMAGE_CHANGES: dict[str, Callable[[Array], Array]] = {
    "jpeg-95": lambda pixels: encoded(pixels, "JPEG", quality=95),
    "jpeg-75": lambda pixels: encoded(pixels, "JPEG", quality=75),
    "jpeg-50": lambda pixels: encoded(pixels, "JPEG", quality=50),
    "webp": lambda pixels: encoded(pixels, "WEBP", quality=80),
    "smaller": lambda pixels: resized(pixels, 0.9),
    "smaller-bilinear": lambda pixels: resized(pixels, 0.8, "BILINEAR"),
    "half": lambda pixels: resized(pixels, 0.5, "BOX"),
    "larger": lambda pixels: resized(pixels, 1.3, "LANCZOS"),
    "smaller-jpeg": lambda pixels: encoded(resized(pixels, 0.9), "JPEG", quality=75),
    "twice-jpeg": lambda pixels: encoded(encoded(pixels, "JPEG", quality=75), "JPEG", quality=60),
    "palette": lambda pixels: encoded(pixels, "GIF") if pixels.shape[2] == 1 else pixels // 4 * 4,
}


STRONG = {"jpeg-50", "twice-jpeg"}
"""Changes that are too strong for small images."""


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (shape, name)
        for shape in ((72, 96, 3), (72, 96, 1), (32, 32, 1))
        for name in IMAGE_CHANGES
        if shape[0] > 40 or name not in STRONG
    ],
    ids=str,
)
def test_find_lossy_duplicates_of_images_are_found(shape: tuple[int, ...], name: str) -> None:
    originals = [scene(seed, shape) for seed in range(12)]
    duplicates = [IMAGE_CHANGES[name](pixels) for pixels in originals]
    found = find("image", originals + duplicates, (), np.arange(24))
    assert found is not None
    recognized = found.groups[:12] == found.groups[12:]
    assert recognized.mean() >= 0.9
    assert len(np.unique(found.groups)) == 24 - recognized.sum()  # no other images are in one group


def moved(pixels: Array, step: int) -> Array:
    return np.roll(pixels, step, axis=1)


def patched(pixels: Array) -> Array:
    changed = pixels.copy()
    changed[20:30, 20:30] += 128
    return changed


DISTINCT: dict[str, Callable[[Array], Array]] = {
    "moved": lambda pixels: moved(pixels, 3),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside-down": lambda pixels: pixels[::-1],
    "detail": patched,
    "inverted": lambda pixels: 255 - pixels,
    "other-colors": lambda pixels: pixels[..., [2, 0, 1]],
    "cropped": lambda pixels: pixels[8:-8, 8:-8],
    "stretched": lambda pixels: resized(pixels, 1)[:, np.repeat(np.arange(96), 2)],
    "rotated": lambda pixels: np.rot90(pixels),
    "noise": lambda pixels: (
        (pixels + np.random.default_rng(0).normal(0, 60, pixels.shape)).clip(0, 255).astype(np.uint8)
    ),
}


@pytest.mark.parametrize("change", DISTINCT.values(), ids=DISTINCT)
def test_are_same_image_other_content_is_distinct(change: Callable[[Array], Array]) -> None:
    assert [seed for seed in range(8) if are_same_image(scene(seed), np.ascontiguousarray(change(scene(seed))))] == []


def recoded(samples: Array, form: str, subtype: str | None = None, **settings: Any) -> tuple[Array, int]:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 8000, format=form, subtype=subtype, **settings)
    buffer.seek(0)
    found, rate_hz = soundfile.read(buffer, dtype="float32", always_2d=True)
    return found[:, 0], rate_hz


def resampled(samples: Array, rate_hz: int) -> tuple[Array, int]:
    from scipy.signal import resample

    return resample(samples, len(samples) * rate_hz // 8000).astype(np.float32), rate_hz


RECORDING_CHANGES: dict[str, Callable[[Array], tuple[Array, int]]] = {
    "mp3": lambda samples: recoded(samples, "MP3"),
    "mp3-strong": lambda samples: recoded(samples, "MP3", compression_level=0.9),
    "vorbis": lambda samples: recoded(samples, "OGG", "VORBIS"),
    "opus": lambda samples: recoded(samples, "OGG", "OPUS"),
    "mu-law": lambda samples: recoded(samples, "WAV", "ULAW"),
    "inverted": lambda samples: (-samples, 8000),
    "16-khz": lambda samples: resampled(samples, 16000),
    "44-khz": lambda samples: resampled(samples, 44100),
    "5-khz": lambda samples: resampled(samples, 5000),
    "quieter": lambda samples: (0.3 * samples, 8000),
    "delayed": lambda samples: (np.pad(samples, (300, 0)), 8000),
}


@pytest.mark.parametrize("change", RECORDING_CHANGES.values(), ids=RECORDING_CHANGES)
def test_find_lossy_duplicates_of_recordings_are_found(change: Callable[[Array], tuple[Array, int]]) -> None:
    originals = [tones(seed) for seed in range(12)]
    duplicates = [change(samples) for samples in originals]
    contents = [*originals, *(samples for samples, _ in duplicates)]
    found = find("audio", contents, [8000] * 12 + [rate_hz for _, rate_hz in duplicates], np.arange(24))
    assert found is not None
    recognized = found.groups[:12] == found.groups[12:]
    assert recognized.mean() >= 0.9
    assert len(np.unique(found.groups)) == 24 - recognized.sum()


@pytest.mark.parametrize(
    "change",
    [
        lambda samples: samples[::-1],
        lambda samples: np.pad(samples, (0, 4000)),
        lambda samples: np.pad(samples, (2000, 0))[: len(samples)],
        lambda samples: np.concatenate([samples[:2400], np.zeros(2400, np.float32)]),
        lambda samples: resampled(samples, 8800)[0],  # higher pitch
        lambda samples: samples + 0.5 * np.random.default_rng(0).normal(0, samples.std(), len(samples)),
        lambda samples: tones(99),
        lambda samples: 0 * samples,
    ],
    ids=["reversed", "longer", "shifted", "half", "faster", "noisy", "other", "silent"],
)
def test_are_same_recording_other_content_is_distinct(change: Callable[[Array], Array]) -> None:
    pairs = [(tones(seed), change(tones(seed))) for seed in range(8)]
    assert sum(are_same_recording(one, 8000, other, 8000) for one, other in pairs) == 0


def written(root: Path, number: int, pixels: Array, name: str, **settings: Any) -> None:
    path = root / "ab"[number % 2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path, **settings)


def loaded(path: Path, kind: str, **options: Any) -> RawData:
    dataset = UserDataset(path, kind, "classification")
    return dataset.load(dataset.settle(dataset.Options(**options))[0])


def numbers(data: RawData) -> list[set[int]]:
    """Return the numbers of the scenes in each split."""
    scenes = np.stack([scene(number, (60, 60, 3)) for number in range(30)]).astype(float)
    return [
        {int(np.abs(scenes - pixels).mean(axis=(1, 2, 3)).argmin()) for pixels in split.inputs["image"]}
        for split in (data.train, data.validation, data.test)
    ]


def test_load_near_duplicates_of_images_are_kept_in_one_split(tmp_path: Path) -> None:
    for number in range(30):
        written(tmp_path, number, scene(number, (60, 60, 3)), f"{number}.png")
        written(tmp_path, number, scene(number, (60, 60, 3)), f"{number}.jpg", quality=80)
    data = loaded(tmp_path, "image")
    train, validation, test = numbers(data)
    assert not train & test
    assert not train & validation
    assert not validation & test
    (warning,) = [text for text in data.warnings if "near-duplicates" in text]
    assert warning.startswith("30 of 60 rows are near-duplicates of other rows (the same image in a lossy format")
    independent = loaded(tmp_path, "image", copies="independent")
    train, _, test = numbers(independent)
    assert train & test
    assert any("test examples are near-duplicates of training examples" in text for text in independent.warnings)


def test_load_near_duplicates_in_given_splits_are_counted(tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        written(tmp_path, 0, scene(number, (60, 60, 3)), f"{number}.png")
        rows.append((f"a/{number}.png", "xy"[number % 2], "train" if number < 20 else "test" if number > 24 else "dev"))
    for number in (0, 3, 5, 25):
        written(tmp_path, 0, scene(number, (60, 60, 3)), f"{number}.jpg", quality=80)
        rows.append((f"a/{number}.jpg", "xy"[number == 3 or number % 2], "test"))
    names = ("path", "label", "split")
    write_csv(tmp_path / "metadata.csv", {name: [row[n] for row in rows] for n, name in enumerate(names)})
    data = loaded(tmp_path, "image")
    assert any(
        text.startswith("3 of 9 test examples are near-duplicates of training examples") for text in data.warnings
    )
    assert any(text.startswith("4 of 34 rows are near-duplicates of other rows") for text in data.warnings)
    assert not any("validation" in text for text in data.warnings)


def test_load_near_duplicates_with_different_labels_are_counted(tmp_path: Path) -> None:
    for number in range(30):
        written(tmp_path, number, scene(number, (60, 60, 3)), f"{number}.png")
    for number in (0, 1):
        written(tmp_path, number + 1, scene(number, (60, 60, 3)), f"{number}.jpg", quality=80)
    (warning,) = [text for text in loaded(tmp_path, "image").warnings if "near-duplicates" in text]
    assert warning.endswith("; 2 groups of near-duplicates have different labels")


def test_load_near_duplicates_of_recordings_are_kept_in_one_split(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{number}.wav", tones(number), 8000)
        soundfile.write(folder / f"{number}.mp3", resampled(tones(number), 16000)[0], 16000)
    data = loaded(tmp_path, "audio")
    assert any(text.startswith("20 of 40 rows are near-duplicates of other rows") for text in data.warnings)
    assert not any("near-duplicates of training" in text for text in data.warnings)
    assert [len(split) % 2 for split in (data.train, data.validation, data.test)] == [0, 0, 0]


def test_load_recordings_with_silence_at_the_start_or_end_are_near_duplicates(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{number}.wav", tones(number), 8000)
        silence = np.zeros(4000, np.float32)
        padded = [silence, tones(number)] if number % 4 < 2 else [tones(number), silence, silence]
        soundfile.write(folder / f"{number}-padded.wav", np.concatenate(padded), 8000)
    (warning,) = [text for text in loaded(tmp_path, "audio").warnings if "duplicates" in text]
    assert warning.startswith("12 of 24 rows are near-duplicates of other rows (the same recording in a lossy format,")


def test_between_splits_near_duplicates_in_a_dataset_of_a_plugin_are_counted() -> None:
    def split(pixels: list[Array]) -> Split:
        return Split(inputs={"image": np.stack(pixels)}, targets=np.arange(len(pixels)) % 2)

    originals = [scene(seed) for seed in range(40)]
    test = [encoded(originals[number], "JPEG", quality=80) for number in (0, 5, 39)]
    raw = RawData(train=split(originals[:30]), validation=split(originals[30:]), test=split([*test, originals[1]]))
    assert between_splits(raw, "image") == [
        "2 of 4 test examples are near-duplicates of training examples: the same image in a lossy format, with a "
        "different quality or size"
    ]
    assert between_splits(raw, "table") == []
    alpha = [np.concatenate([image, image[:, :, :1]], axis=2) for image in originals]
    raw = RawData(train=split(alpha[:30]), validation=split(alpha[30:]), test=split(alpha[:4]))
    assert between_splits(raw, "image") == []  # only gray and RGB images are compared


@pytest.mark.parametrize("sorted_pairs", [True, False])
def test_find_many_similar_images_are_limited_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, sorted_pairs: bool
) -> None:
    originals = [scene(seed // 4) for seed in range(80)]
    for number, pixels in enumerate(originals):
        pixels[0, 0] = number
    if not sorted_pairs:
        monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 4)
    found = find("image", originals, (), np.arange(80))
    assert found is not None
    skipped = "many images are similar, so not all pairs were compared"
    assert found.limit == ("" if sorted_pairs else skipped)
    assert found.groups.tolist() == [seed // 4 * 4 for seed in range(80)]
    monkeypatch.setattr(near_duplicates, "MAX_COMPARED", 5)
    found = find("image", originals, (), np.arange(80))
    assert found is not None
    assert found.limit == "many images are similar, so only 5 pairs were compared"
    assert len(np.unique(found.groups)) == 75


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_find_dense_cluster_of_large_examples_is_compared_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Pairs differ in cost: most examples are small, and the similar ones are large."""
    rng = np.random.default_rng(0)
    compared: list[int] = []
    if kind == "image":
        base = scene(0)[..., :1].astype(float)
        large = [(base + rng.normal(0, 40, base.shape)).clip(0, 255).astype(np.uint8) for _ in range(20)]
        small = [rng.integers(0, 255, (8, 8, 1)).astype(np.uint8) for _ in range(300)]
    else:
        large = [tones(0, 1.0) + rng.normal(0, 0.1, 8000).astype(np.float32) for _ in range(20)]
        small = [rng.normal(0, 0.1, 800 + 8 * n).astype(np.float32) for n in range(300)]
    contents = small + large
    rates_hz = [8000] * len(contents) if kind == "audio" else []
    name = "are_same_image" if kind == "image" else "are_same_recording"
    monkeypatch.setattr(near_duplicates.fingerprints, name, lambda *pair: compared.append(pair[0].size))
    monkeypatch.setattr(near_duplicates, "RADII", {kind: 0.3})
    monkeypatch.setattr(near_duplicates, "WORK", {kind: 30.0 * large[0].size})
    found = find(kind, contents, rates_hz, np.arange(len(contents)))
    assert found is not None
    assert 30 * large[0].size >= sum(compared) > 20 * large[0].size
    assert f"so only {len(compared)} pairs were compared" in found.limit


def test_find_pairs_similar_in_the_first_axes_only_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = [scene(seed) for seed in range(60)]
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 1)
    monkeypatch.setattr(near_duplicates, "AXES", 1)
    assert find("image", originals, (), np.arange(60)) is None
    monkeypatch.setattr(near_duplicates, "MAX_DISTANCES", 5)
    found = find("image", originals, (), np.arange(60))
    assert found is not None
    assert found.limit == "many images are similar, so not all pairs were compared"


@pytest.mark.parametrize("side", [1, 4, 7])
def test_find_blank_and_tiny_images_are_not_compared(side: int) -> None:
    rng = np.random.default_rng(0)
    tiny = [rng.integers(0, 255, (side, side, 1)).astype(np.uint8) for _ in range(10)]
    blank = [np.full((30, 30, 3), 200 + number % 2, np.uint8) for number in range(10)]
    assert find("image", tiny + blank, (), np.arange(20)) is None
