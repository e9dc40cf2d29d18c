"""Tests of images whose range is not fixed, and of unusual headers of images and recordings."""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from own_files import write_image

from harness import DataError, RawData, UsageError
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.media import UnreadableError, check_header, read_audio, read_image, scaled

Image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")


def loaded(path: Path, kind: str = "image", **options: Any) -> RawData:
    dataset = UserDataset(path, kind, "classification")
    return dataset.load(dataset.settle(dataset.Options(**options))[0])


def write_pixels(path: Path, pixels: NDArray[Any], maximum: int | None = None) -> None:
    """Write integer pixels as TIFF or PNG, or as PGM with the given maximum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pgm":
        height, width = pixels.shape
        path.write_bytes(b"P5\n# test\n%d %d\n%d\n" % (width, height, maximum) + pixels.astype(">u2").tobytes())
    else:
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("suffix", "dtype", "low", "high"),
    [
        (".tif", "int32", 0, 255),
        (".tif", "int32", -1024, 3071),
        (".tif", "int32", 0, 100_000),
        (".tif", "uint16", 0, 1023),
        (".png", "uint16", 0, 4095),
        (".png", "uint16", 0, 65535),
        (".png", "uint16", 32768, 36863),
        (".pgm", "uint16", 0, 1023),
        (".pgm", "uint16", 0, 4095),
        (".tif", "int32", -5, -1),
    ],
)
def test_integer_images_are_scaled_from_the_range_of_the_training_split(
    tmp_path: Path, suffix: str, dtype: str, low: int, high: int
) -> None:
    ramp = np.linspace(low, high, 64).round().reshape(8, 8).astype(dtype)
    for number in range(8):
        for label, pixels in (("a", ramp), ("b", ramp[::-1])):
            write_pixels(tmp_path / "p" / label / f"{number}{suffix}", pixels, high)
    data = loaded(tmp_path / "p", copies="independent")
    expected = np.rint((ramp.astype(float) - low) / (high - low) * 255).astype(np.uint8)[..., None]
    image = data.train.inputs["image"][int(data.train.targets.argmin())]
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= 1
    assert data.details["image_range"] == f"{low:g} to {high:g}"
    (warning,) = data.warnings
    assert warning.startswith("16 images with more than 8 bits were scaled to 8 bits from the range")


def test_the_same_picture_is_equal_as_pgm_and_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 1024, (8, 8)).astype(np.uint16)
    write_pixels(tmp_path / "a.pgm", pixels, 1023)
    write_pixels(tmp_path / "a.png", pixels)
    assert np.abs(read_image(tmp_path / "a.pgm", 256) - read_image(tmp_path / "a.png", 256)).max() < 0.01


def test_declared_range_is_used(tmp_path: Path) -> None:
    for number in range(8):
        for label, value in (("a", 1000), ("b", 2000)):
            write_pixels(tmp_path / "p" / label / f"{number}.png", np.full((4, 4), value, np.uint16))
    data = loaded(tmp_path / "p", image_range=(0, 4095), copies="independent")
    assert sorted({int(image.max()) for image in data.train.inputs["image"]}) == [62, 125]
    assert data.details["image_range"] == "0 to 4095"
    with pytest.raises(ValueError, match="increasing pair"):
        loaded(tmp_path / "p", image_range=(5, 5))


def test_values_outside_of_the_range_are_clipped() -> None:
    pixels = np.array([[-10.0, 0.0, 5.0, 10.0, 30.0]], np.float32)
    assert scaled(pixels, 0, 10).tolist() == [[0, 0, 128, 255, 255]]
    assert scaled(np.full((2, 2), 7.0), 7, 7).max() == 0


def test_eight_bit_images_are_not_scaled(tmp_path: Path) -> None:
    for number in range(8):
        for label in "ab":
            write_image(tmp_path / "p" / label / f"{number}.png", (4, 4), seed=number + 8 * (label == "a"))
    data = loaded(tmp_path / "p")
    assert "image_range" not in data.details
    assert data.warnings == ()


@pytest.mark.parametrize(("side", "limit"), [(8000, 0), (12000, 1)])
def test_huge_image_is_refused_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, limit: int, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000_000)
    Image.new("1", (side, 12_000)).save(tmp_path / "survey.png")
    if limit:
        with pytest.raises(UnreadableError, match=r"the image is too large: it has 144,000,000 pixels; scale it down"):
            check_header(tmp_path / "survey.png", "image")
    else:
        check_header(tmp_path / "survey.png", "image")
        assert min(read_image(tmp_path / "survey.png", 16).shape[:2]) == 16
    assert [str(warning.message) for warning in recwarn] == []


def test_frames_that_are_not_used_are_counted(tmp_path: Path) -> None:
    frames = [Image.new("L", (6, 6), value) for value in (0, 90, 200)]
    for number in range(8):
        write_image(tmp_path / "p" / "a" / f"{number}.png", (6, 6), seed=number)
        path = tmp_path / "p" / "b" / f"{number}.gif"
        path.parent.mkdir(exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:])
    assert list(loaded(tmp_path / "p", copies="independent").warnings) == [
        "8 images have more than one frame, but only the first is used"
    ]


@pytest.mark.parametrize("name", ["0.heic", "0.jpg"])
def test_heif_image_without_its_package_is_refused_with_the_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(UnreadableError, match="pip install pillow-heif"):
        read_image(tmp_path / name, 256)


@pytest.mark.parametrize("brands", [b"isom\0\0\0\0mp42avc1", b"mif1\0\0\0\0avifmiaf"])
def test_file_with_other_brands_does_not_need_the_package_for_heif(
    brands: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "0.heic").write_bytes((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"heicheic")
    with pytest.raises(UnreadableError, match="cannot be decoded"):
        read_image(tmp_path / "0.heic", 256)


# ---- recordings ----------------------------------------------------------------------------------------------

TONE = (0.4 * np.sin(2 * np.pi * 300 * np.arange(8000) / 8000) * 32767).astype("<i2").tobytes()


def wav(riff_bytes: int, data_bytes: int, samples: bytes = TONE, *, extra: bytes = b"") -> bytes:
    return (
        b"RIFF"
        + struct.pack("<I", riff_bytes)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
        + extra
        + b"data"
        + struct.pack("<I", data_bytes)
        + samples
    )


LIST = b"LIST" + struct.pack("<I", 4) + b"INFO"


@pytest.mark.parametrize("extra", [b"", LIST], ids=["plain", "with-list"])
@pytest.mark.parametrize(
    ("riff_bytes", "data_bytes"),
    [
        (36 + len(TONE), len(TONE)),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0, 0),
        (0xFFFFFFFF, 0),
        (0x7FFFFFFF, 0x7FFFFFFF),
        (0x7FFFF024, 0x7FFFF000),
        (0x80000024, 0x80000000),
        (0, 0xFFFFFFFF),
        (0, len(TONE)),
    ],
)
def test_streamed_recording_is_read_to_its_end(tmp_path: Path, riff_bytes: int, data_bytes: int, extra: bytes) -> None:
    pytest.importorskip("soundfile")
    path = tmp_path / "a.wav"
    path.write_bytes(wav(riff_bytes, data_bytes, extra=extra if riff_bytes != 36 + len(TONE) else b""))
    check_header(path, "audio")
    waveform, rate_hz = read_audio(path)
    assert (len(waveform), rate_hz) == (8000, 8000)
    assert 0.39 < waveform.max() < 0.41


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(36, 0, b""), "the recording has no samples"),
        (wav(0, 0, b""), "the recording has no samples"),
        (wav(36, 0, LIST), "the recording has no samples"),
        (wav(36 + len(TONE), len(TONE), TONE[:-500]), "the file is truncated: its header states 16,044 bytes"),
        (wav(0xFFFFFFFF, len(TONE), TONE[:-500]), "the file is truncated: its header states 16,044 bytes"),
        (b"RIFF", "cannot be decoded"),
        (b"", "it is empty"),
    ],
)
def test_recording_without_samples_or_with_lost_samples_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    pytest.importorskip("soundfile")
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=message):
        check_header(path, "audio")


@pytest.mark.parametrize(
    ("suffix", "settings"), [(".mp3", {"format": "MP3"}), (".opus", {"format": "OGG"}), (".aiff", {})]
)
def test_compressed_recordings_are_read(tmp_path: Path, suffix: str, settings: dict[str, str]) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"a{suffix}"
    tone = np.frombuffer(TONE, "<i2").astype(np.float32) / 32768
    if suffix == ".opus":
        settings = {**settings, "subtype": "OPUS"}
    soundfile.write(path, tone, 8000, **settings)
    waveform, rate_hz = read_audio(path)
    assert rate_hz == 8000
    assert abs(len(waveform) - 8000) < 2500
    assert waveform.std() > 0.2


# ---- details that are lost or misread --------------------------------------------------------------------------


@pytest.mark.parametrize("color", [0, 255, 128])
@pytest.mark.parametrize("alpha", ["drawing", "empty"])
def test_images_without_a_visible_part_on_white_are_named(tmp_path: Path, color: int, alpha: str) -> None:
    pixels = np.zeros((6, 6, 4), np.uint8)
    pixels[..., :3] = color
    if alpha == "drawing":
        pixels[1:4, 1:4, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "i.png")
    if color == 255 or alpha == "empty":
        with pytest.raises(UnreadableError, match="nothing is visible after the transparent parts are replaced"):
            read_image(tmp_path / "i.png", 256)
    else:
        assert set(read_image(tmp_path / "i.png", 256).ravel().tolist()) == {color, 255}


def test_images_of_more_bits_report_clipped_values_and_others_of_8_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(100, 4000, (6, 6)).astype(np.uint16)
        write_pixels(tmp_path / "p" / "ab"[number % 2] / f"{number}.png", pixels)
    write_image(tmp_path / "p" / "a" / "byte.png", (6, 6))
    warnings = " ".join(loaded(tmp_path / "p", image_range=(500, 3000)).warnings)
    assert "20 images with more than 8 bits were scaled to 8 bits from the range 500 to 3000 (as declared)" in warnings
    assert "values outside of this range were clipped in 20 of them" in warnings
    assert "1 other image has 8 bits and was not scaled" in warnings


def test_images_with_one_outlier_report_the_range_of_the_other_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 4096, (40, 40)).astype(np.uint16)
        pixels[0, 0] = 65535 if number % 3 == 0 else 0
        write_pixels(tmp_path / "p" / "ab"[number % 2] / f"{number}.png", pixels)
    (warning,) = loaded(tmp_path / "p").warnings
    assert re.search(r"99\.8% of the values are between [\d.]+ and 40\d\d, so little contrast is left", warning)
    assert "set dataset.image_range" in warning


@pytest.mark.parametrize("channels", [2, 4])
def test_recording_whose_channels_cancel_each_other_is_named(tmp_path: Path, channels: int) -> None:
    soundfile = pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    tone = np.frombuffer(TONE, "<i2")
    soundfile.write(tmp_path / "s.wav", np.stack([tone, -tone] * (channels // 2), axis=1), 8000)
    with pytest.raises(UnreadableError, match="its channels cancel out"):
        read_audio(tmp_path / "s.wav")
    soundfile.write(tmp_path / "s.wav", np.stack([tone, tone // 2] * (channels // 2), axis=1), 8000)
    assert len(read_audio(tmp_path / "s.wav")[0]) == len(tone)


def test_recordings_whose_channels_nearly_cancel_each_other_are_counted(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    notes: Counter[str] = Counter()
    noise = np.random.default_rng(0).normal(0, 0.1, 800)
    for number, other in enumerate((-0.98 * noise, 0 * noise, noise[::-1])):
        soundfile.write(tmp_path / f"{number}.wav", np.stack([noise, other], axis=1), 8000)
        read_audio(tmp_path / f"{number}.wav", notes)
    assert notes == {"channels that nearly cancel out when they are averaged": 1}


def test_images_with_transparent_parts_are_counted(tmp_path: Path) -> None:
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 4)).astype(np.uint8)
        pixels[..., 3] = 255 if number % 3 else 100
        write_pixels(tmp_path / "p" / "ab"[number % 2] / f"{number}.png", pixels)
    assert "4 images have transparent parts, which became white" in loaded(tmp_path / "p").warnings


def test_image_range_without_an_image_to_scale_is_reported(tmp_path: Path) -> None:
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6)).astype(np.uint8)
        write_pixels(tmp_path / "p" / "ab"[number % 2] / f"{number}.png", pixels)
    (warning,) = loaded(tmp_path / "p", image_range=(0, 4095)).warnings
    assert warning == "dataset.image_range has no effect, because no image has more than 8 bits"


def test_recording_with_a_data_size_of_0_is_read_to_its_end(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="recordings are read by soundfile")
    (tmp_path / "s.wav").write_bytes(wav(36 + len(TONE), 0))
    check_header(tmp_path / "s.wav", "audio")
    assert len(read_audio(tmp_path / "s.wav")[0]) == len(TONE) // 2
    (tmp_path / "s.wav").write_bytes(wav(36 + 12, 0, b"LIST\4\0\0\0INFO"))
    with pytest.raises(UnreadableError, match="no samples"):
        check_header(tmp_path / "s.wav", "audio")


WRITTEN = [
    ("w/{}.png", None),
    ("w\\{}.png", "24 paths with backslashes"),
    (".\\w\\{}.PNG", "24 paths differ from the file names in letter case"),
    ("W/{}.Png", "24 paths differ from the file names in letter case"),
    ("./w/{}.png", None),
    ("w//{}.png", None),
    ("w/../w/{}.png", None),
    (" w/{}.png ", None),
]


@pytest.mark.parametrize(("form", "warning"), WRITTEN)
@pytest.mark.parametrize("name", ["metadata.csv", "Metadata.CSV"])
def test_metadata_paths_are_found_in_the_forms_of_other_systems(
    tmp_path: Path, form: str, warning: str | None, name: str
) -> None:
    for number in range(24):
        write_image(tmp_path / "w" / f"{number}.png", (4, 4), seed=number)
    rows = [f"{form.format(number)},{'ab'[number % 2]}" for number in range(24)]
    (tmp_path / name).write_text("\n".join(["file_name,label", *rows, ""]))
    warnings = loaded(tmp_path).warnings
    assert any(text.startswith(warning) for text in warnings) if warning else not warnings


@pytest.mark.parametrize(
    ("form", "hint"),
    [
        ("C:\\data\\w\\{}.png", "it is an absolute Windows path"),
        ("D:/w/{}.png", "it is an absolute Windows path"),
        ("https://example.org/{}.png", "it is a URL"),
        ("v\\{}.png", "also looked up with slashes"),
    ],
)
def test_metadata_paths_that_cannot_be_found_are_explained(tmp_path: Path, form: str, hint: str) -> None:
    for number in range(4):
        write_image(tmp_path / "w" / f"{number}.png", (4, 4), seed=number)
    rows = [f"{form.format(number)},{'ab'[number % 2]}" for number in range(4)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows, ""]))
    with pytest.raises((DataError, UsageError), match=hint):
        loaded(tmp_path)


def test_metadata_path_that_two_files_fit_without_letter_case_is_not_guessed(tmp_path: Path) -> None:
    for number, name in enumerate(("x.png", "X.png")):
        write_image(tmp_path / "w" / name, (4, 4), seed=number)
    (tmp_path / "metadata.csv").write_text("file_name,label\nw/x.PNG,a\n")
    with pytest.raises((DataError, UsageError), match="the file does not exist"):
        loaded(tmp_path)


def test_heif_images_are_read_if_the_package_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="HEIF images are read by pillow-heif")
    heif.register_heif_opener()
    for number in range(12):
        pixels = np.full((16, 16, 3), 20 * number, np.uint8)
        pixels[:8] = 255 - 20 * number
        (tmp_path / "p" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "p" / "ab"[number % 2] / f"{number}.heic", quality=100)
    data = loaded(tmp_path / "p")
    assert sum(map(len, (data.train, data.validation, data.test))) == 12
    assert data.train.inputs["image"][0].shape == (16, 16, 3)


def test_avif_images_are_read(tmp_path: Path) -> None:
    features = pytest.importorskip("PIL.features", reason="images are read by Pillow")
    if not features.check("avif"):
        pytest.skip("this Pillow does not read AVIF")
    write_image(tmp_path / "i.avif", (16, 16, 3))
    assert read_image(tmp_path / "i.avif", 256).shape == (16, 16, 3)
