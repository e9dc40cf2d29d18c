"""Tests of the examples in requests: those of all kinds are prepared like the data of ``harness predict``."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import subprocess
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from own_files import houses, photos, reviews, write_csv, write_image, write_sound

from harness.data.batches import batch_sizes
from harness.data.user_files import delimited
from harness.data.user_files.dataset import UserDataset
from harness.deploy.predict import read_new, reader_of, transformed
from harness.deploy.serving.bodies import Bodies
from harness.deploy.serving.frames import File, Frames, Part, framed, received
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.model import Prepared, Preparing
from harness.deploy.serving.requests import RefusedError, Requests
from harness.execute.preparation import load_and_prepare
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import Preprocessing


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover()


def preprocessing_of(path: Path, task: str, catalog: Catalog) -> Preprocessing:
    """Return the preprocessing that a run on the user's data would store."""
    chosen = catalog.task(task)
    dataset = UserDataset(path, chosen.kind, chosen.objective)
    settled = msgspec.to_builtins(dataset.settle(dataset.Options())[0])
    _, data = load_and_prepare(chosen, dataset, settled, {})
    made = Preprocessing(
        task=task,
        input_kind=chosen.kind,
        task_options={},
        dataset_options=settled,
        info=data.info,
        fitted=dict(data.fitted),
        reading=dict(data.reading),
    )
    return msgspec.json.decode(msgspec.json.encode(made), type=Preprocessing)


DEFAULT = Limits()


class Example:
    """A data set of one kind of input, with requests for its preprocessing."""

    def __init__(self, folder: Path, data: Path, task: str, catalog: Catalog, limits: Limits = DEFAULT) -> None:
        self.preprocessing, self.catalog = preprocessing_of(data, task, catalog), catalog
        self.uploads = folder / "uploads"
        self.uploads.mkdir(exist_ok=True)
        requests = Requests(reader_of(self.preprocessing), self.uploads, limits)
        self._preparing = Preparing(self.preprocessing, requests, catalog)

    def prepared(self, *parts: Part) -> Prepared:
        found = self._preparing.prepared(parts)
        assert list(self.uploads.iterdir()) == []  # no upload is left behind
        return found

    def refusal(self, part: Part) -> tuple[int, str]:
        (answer,) = self.prepared(part).answers
        assert answer is not None
        return answer.status, msgspec.json.decode(answer.body)["detail"]

    def expected(self, source: Path) -> dict[str, Any]:
        new = read_new(self.preprocessing, source)
        return transformed(self.preprocessing, new.inputs, self.catalog)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Example:
    folder = tmp_path_factory.mktemp("images")
    limits = Limits(image_pixels=10_000)
    return Example(folder, photos(folder / "photos", 12), "vision", catalog, limits)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Example:
    folder = tmp_path_factory.mktemp("sounds")
    for number in range(24):
        write_sound(folder / "sounds" / "ab"[number % 2] / f"{number}.wav", seed=number)
    return Example(folder, folder / "sounds", "speech", catalog, Limits(audio_samples=10_000))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Example:
    folder = tmp_path_factory.mktemp("texts")
    return Example(folder, write_csv(folder / "reviews.csv", reviews(60)), "nlp", catalog)


@pytest.mark.plugins("nlp")
def test_texts_are_prepared_like_those_of_a_file(texts: Example, tmp_path: Path) -> None:
    lines = ["Film 3 was great", "unknown words", "été 😀 \x07"]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    expected = texts.expected(tmp_path / "texts.txt")
    content = (tmp_path / "texts.txt").read_bytes()
    assert_same(texts.prepared(Part(instances=lines)).inputs, expected)
    assert_same(texts.prepared(Part(files=[File("a.txt", content)])).inputs, expected)
    parts = Part(instances=lines[:1]), Part(instances=lines[1:])
    assert_same(texts.prepared(*parts).inputs, expected)
    assert texts.prepared(*parts).counts == [1, 2]
    together = texts.prepared(parts[0], Part(instances=["  "]), parts[1])
    assert_same(together.inputs, expected)
    assert together.counts == [1, 2]
    assert [answer is None for answer in together.answers] == [True, False, True]
    assert texts.refusal(Part(instances=["a", " "])) == (422, "example 1: the text in column 'review' is empty")


@pytest.mark.plugins("regression")
def test_unknown_category_is_answered_with_a_warning(catalog: Catalog, tmp_path: Path) -> None:
    columns = houses()
    columns["target"] = columns.pop("price")
    tables = Example(tmp_path, write_csv(tmp_path / "houses.csv", columns), "regression", catalog)
    known, unknown = ({"rooms": 3, "area": 50.5, "town": town} for town in ("Ulm", "Gold"))
    found = tables.prepared(Part(instances=[known]), Part(instances=[unknown]))
    assert found.counts == [1, 1]
    assert found.warnings[0] == []
    (warning,) = found.warnings[1]
    assert "column 'town': the categories of 1 new row do not occur in the training split ('Gold')" in warning


@pytest.mark.plugins("nlp")
def test_text_file_that_is_not_utf8_is_refused(texts: Example) -> None:
    status, detail = texts.refusal(Part(files=[File("a.txt", b"good\n\xff\xfe\xfa\n")]))
    assert (status, "UTF-8" in detail) == (422, True), detail


TWO_LINES = b'"good\nfilm"\n'
MOST, MOST_CHARS = Limits().request_examples, Limits().text_chars


@pytest.mark.plugins("nlp")
@pytest.mark.parametrize(
    ("name", "content", "allowed"),
    [
        ("a.txt", b"good\n" * (MOST + 1), "1,024 lines"),
        ("a.txt", b"good\r" * (MOST + 1), "1,024 lines"),
        ("a.txt", b"a" + b"\n" * MOST + b"b", "1,024 lines"),
        ("a.jsonl", b'{"review": "good"}\n\n' * (MOST + 1), "1,024 rows"),
        ("a.json", b"[" + b",".join([b'{"review": "good"}'] * (MOST + 1)) + b"]", "1,024 rows"),
        ("a.csv", b"review\n" + TWO_LINES * (MOST + 1), "1,024 rows"),
        ("a.csv", b"review\n" + b'good "film\n' * (MOST + 1), "1,024 rows"),  # bad rows count
        ("a.tsv", b"review\tlabel\n" + b"good\t\n" * (MOST + 1), "1,024 rows"),
        ("a.csv", b"review\ngood" + b"\n" * (1000 * MOST) + b"good", "1,024,000 lines"),
        ("a.csv", b"a;" * 100_000 + b"review\n", "100,000 columns"),
        ("a.tsv", b"a\t" * 100_000 + b"review\n", "100,000 columns"),
        ("a.json", json.dumps([dict.fromkeys(map(str, range(100_001)), 1)]).encode(), "100,000 columns"),
    ],
)
def test_file_with_too_many_rows_is_refused(texts: Example, name: str, content: bytes, allowed: str) -> None:
    what = allowed.partition(" ")[2]
    detail = f"upload-0{name[1:]}: the file contains more than {allowed}; pass a file with fewer {what}"
    assert texts.refusal(Part(files=[File(name, content)])) == (413, detail)


@pytest.mark.plugins("nlp")
def test_rows_of_a_file_are_not_read_beyond_the_maximum(texts: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[delimited.Record] = []

    def record(*values: Any) -> delimited.Record:
        read.append(delimited_record(*values))
        return read[-1]

    delimited_record = delimited.Record
    monkeypatch.setattr(delimited, "Record", record)
    assert texts.refusal(Part(files=[File("a.csv", b"review\n" + b"good\n" * 9 * MOST)]))[0] == 413
    assert len(read) == MOST + 1


@pytest.mark.plugins("nlp")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"good\r\n" * MOST + b"\n" * 9),
        ("a.jsonl", b'{"review": "good"}\n \n' * MOST),
        ("a.jsonl", b"[" + b",\n".join([b'{"review":\n"good"\n}'] * MOST) + b"]"),
        ("a.csv", b"review\r\n" + b'"good\r\n\r\nfilm ""3"""\r\n\r\n' * MOST),
        ("a.csv", b"review;a\n" + b'"good\n,""";x\n' * MOST),
        ("a.csv", b"review\n" + TWO_LINES * MOST + b"\n" * 3 * MOST),
    ],
)
def test_file_with_the_maximum_number_of_examples_is_read(texts: Example, name: str, content: bytes) -> None:
    assert texts.prepared(Part(files=[File(name, content)])).counts == [MOST]


@pytest.mark.plugins("nlp")
def test_long_text_is_prepared_in_a_short_time_or_refused(texts: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizing the whole texts would take minutes, and normalizing the last one hours."""
    words = "the film was great " * (MOST_CHARS // 19)
    others = ("z" * MOST_CHARS, "," * MOST_CHARS, "a" + "\u0316" * 150 + "\u0300" * 50 + " a" * 400_000)
    start = time.perf_counter()
    found = texts.prepared(*[Part(instances=[text]) for text in (words, *others) * 4])
    assert found.counts == [1] * 16
    assert_same(
        {name: array[:1] for name, array in found.inputs.items()},
        texts.prepared(Part(instances=[words[:4000]])).inputs,
    )
    for text, status, detail in (
        ("a" * (MOST_CHARS + 1), 413, "the request: row 2: column 'review' contains 1,000,001 characters; shorten the"),
        ("a" + "\u0316\u0300" * 400_000, 422, "example 1: the text has more than 200 consecutive combining characters"),
    ):
        name = json.dumps({"review": text}).encode()
        for part in (
            Part(instances=["good", text]),
            Part(files=[File("a.txt", f"good\n{text}\n".encode())]),
            Part(files=[File("a.jsonl", b'{"review": "good"}\n' + name)]),
        ):
            given, problem = texts.refusal(part)
            assert given == status
            assert detail.partition(" column")[2].partition(": ")[2] in problem
    assert time.perf_counter() - start < 30


@pytest.mark.plugins("regression")
def test_long_cell_of_a_table_is_refused_and_marks_are_normalized_quickly(catalog: Catalog, tmp_path: Path) -> None:
    columns = houses()
    columns["target"] = columns.pop("price")
    tables = Example(tmp_path, write_csv(tmp_path / "houses.csv", columns), "regression", catalog)
    row = {"rooms": 3, "area": 50.5, "town": "a" + "\u0316\u0300" * 400_000}
    start = time.perf_counter()
    assert tables.prepared(Part(instances=[row])).counts == [1]
    assert time.perf_counter() - start < 30
    row["town"] += "a" * MOST_CHARS
    assert tables.refusal(Part(instances=[row]))[0] == 413


@pytest.mark.parametrize(
    ("kind", "body", "detail"),
    [
        ("table", '{"instances": [{"a": 1}, {"a": 1, "b": 2, "a": 3}]}', "example 1: the object contains the key 'a'"),
        ("table", '{"instances": [{"a": 1, "\\u0061": 2}]}', "example 0: the object contains the key 'a'"),
        ("table", '{"instances": [], "instances": [{"a": 1}]}', "the object contains the key 'instances'"),
        ("text", '{"instances": ["a: b"], "instances": ["a"]}', "the object contains the key 'instances'"),
        ("image", '{"instances": [""], "instances": [""]}', "the object contains the key 'instances'"),
        ("table", '{"instances": [{"a": %s, "a": 1}]}' % ("9" * 19), "example 0: the object contains the key 'a'"),
    ],
)
def test_repeated_key_is_refused(kind: str, body: str, detail: str) -> None:
    with pytest.raises(RefusedError) as raised:
        Bodies(kind, DEFAULT)._from_json(body.encode())
    assert raised.value.status == 422
    assert raised.value.detail.startswith(f"{detail} more than once; send each key once")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b'\xef\xbb\xbf{"instances": ["a"]}', "application/json", 400, "it starts with a byte order mark"),
        ('{"instances": ["a"]}'.encode("utf-16"), "application/json", 400, "it starts with a byte order mark"),
        ('{"instances": ["a"]}'.encode("utf-16-le"), "application/json", 400, "not valid JSON: JSON is malformed"),
        (b'{"instances": ["a"]}', "application/json; charset=utf-16", 415, "unsupported charset 'utf-16'; encode"),
        (b'{"instances": [NaN]}', "application/json", 400, "NaN, infinite numbers"),
        (b'{"instances": ["a"]}', 'application/json; charset="UTF8"', 200, ""),
    ],
)
def test_encoding_of_json_is_named(body: bytes, content_type: str, status: int, words: str) -> None:
    scope = {"headers": [(b"content-type", content_type.encode())]}
    try:
        asyncio.run(Bodies("text", DEFAULT)._parsed(scope, body))
        found, detail = 200, ""
    except RefusedError as error:
        found, detail = error.status, error.detail
    assert found == status
    assert words in detail


@pytest.mark.parametrize(
    ("kind", "instances"),
    [("table", [{"a:": ":", "b": "::"}, {"a:": 1, "b": None}]), ("text", ["a: b", '"a": 1, "a": 2', ""])],
)
def test_colons_in_strings_are_not_repeated_keys(kind: str, instances: list[Any]) -> None:
    body = json.dumps({"instances": instances}).encode()
    assert Bodies(kind, DEFAULT)._from_json(body).instances == instances


@pytest.mark.plugins("vision")
def test_images_are_prepared_like_those_of_a_folder(images: Example, tmp_path: Path) -> None:
    for number, suffix in enumerate(("png", "jpg", "gif", "bmp", "jp2", "ppm", "tiff", "webp")):
        write_image(tmp_path / "new" / f"{number}.{suffix}", (9 + number, 7, 3), seed=number)
    files = [File(f"a/{path.name}", path.read_bytes()) for path in sorted((tmp_path / "new").iterdir())]
    expected = images.expected(tmp_path / "new")
    assert_same(images.prepared(Part(files=files)).inputs, expected)
    nameless = [File("", file.content) for file in files]
    assert_same(images.prepared(*[Part(files=[file]) for file in nameless]).inputs, expected)


@pytest.mark.plugins("speech")
def test_recordings_are_prepared_like_those_of_a_folder(sounds: Example, tmp_path: Path) -> None:
    for number, suffix in enumerate(("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64")):
        write_sound(tmp_path / "new" / f"{number}.{suffix}", 600, seed=number)
    files = [File(path.name, path.read_bytes()) for path in sorted((tmp_path / "new").iterdir())]
    expected = sounds.expected(tmp_path / "new")
    assert_same(sounds.prepared(Part(files=files)).inputs, expected)
    assert_same(sounds.prepared(*[Part(files=[File("", file.content)]) for file in files]).inputs, expected)


def png(width: int, height: int) -> bytes:
    """Return a small PNG file whose header states these sizes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.plugins("vision")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(100_000, 100_000), "the image is too large: it has 10,000,000,000 pixels"),
        (png(100_000, 1), "the image is too large: it has 100,000 pixels"),
        (png(10, 10), "cannot be decoded"),
        (b"", "it is empty"),
        (b"GIF89a", "cannot be decoded"),
        (b"<!doctype html>", "a web page"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 100, "cannot be decoded"),
    ],
)
def test_harmful_image_is_refused_with_the_reason(images: Example, content: bytes, words: str) -> None:
    status, detail = images.refusal(Part(files=[File("image.png", content)]))
    assert (status, words in detail) == (422, True), detail
    assert "example 0" in detail
    assert "/" not in detail


@pytest.mark.plugins("speech")
def test_harmful_recording_is_refused_with_the_reason(sounds: Example) -> None:
    import soundfile

    wav, flac = io.BytesIO(), io.BytesIO()
    soundfile.write(wav, np.zeros(400), 8000, format="WAV")
    soundfile.write(flac, np.zeros(20_000), 8000, format="FLAC")
    fast = io.BytesIO()
    soundfile.write(fast, np.zeros(400), 2**31 - 1, format="WAV")
    for content, status, words in (
        (wav.getvalue()[:300], 422, "the file is truncated"),
        (flac.getvalue()[:30], 422, "cannot be decoded"),
        (flac.getvalue(), 413, "the recording has 20,000 samples; send at most 10,000"),
        (b"", 422, "it is empty"),
        (b"RIFF", 422, "cannot be decoded"),
        (fast.getvalue(), 422, "states a sample rate of 2,147,483,647 Hz; resample it to at most 768,000 Hz"),
    ):
        found, detail = sounds.refusal(Part(files=[File("sound", content)]))
        assert (found, words in detail) == (status, True), detail


@pytest.mark.plugins("speech")
def test_recording_with_a_low_sample_rate_needs_little_memory(sounds: Example) -> None:
    import soundfile

    slow = io.BytesIO()
    soundfile.write(slow, np.random.default_rng(0).uniform(-1, 1, 9000), 1, format="WAV")
    tracemalloc.start()
    try:
        assert sounds.prepared(Part(files=[File("a.wav", slow.getvalue())])).counts == [1]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50e6  # the whole resampled recording would have more than 70 million samples


@pytest.mark.plugins("vision")
def test_request_with_too_many_pixels_in_all_images_is_refused(images: Example, tmp_path: Path) -> None:
    file = File("a.png", write_image(tmp_path / "a.png", (100, 100, 3)).read_bytes())
    assert images.prepared(Part(files=[file] * 4)).counts == [4]
    detail = "the files in the request have more than 40,000 pixels; send fewer files per request"
    assert images.refusal(Part(files=[file] * 5)) == (413, detail)


@pytest.mark.plugins("speech")
def test_request_with_too_many_samples_in_all_recordings_is_refused(sounds: Example, tmp_path: Path) -> None:
    file = File("a.wav", write_sound(tmp_path / "a.wav", 9000).read_bytes())
    assert sounds.prepared(Part(files=[file] * 4)).counts == [4]
    assert sounds.refusal(Part(files=[file] * 5))[0] == 413


@pytest.mark.plugins("vision")
def test_ghostscript_is_not_started_for_an_image(images: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    assert images.refusal(Part(files=[File("a.png", eps)]))[0] == 422


@pytest.mark.plugins("vision")
def test_heif_image_is_recognized_by_its_content(images: Example, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="HEIF images are read by pillow-heif")
    from PIL import Image

    heif.register_heif_opener()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(tmp_path / "a.heic", quality=100)
    content = (tmp_path / "a.heic").read_bytes()
    encoded = msgspec.json.encode({"instances": [content]})  # as Base64
    parts = [
        asyncio.run(Bodies("image", DEFAULT)._parsed({"headers": [(b"content-type", sent)]}, body))
        for sent, body in ((b"application/json", encoded), (b"image/heic", content))
    ]
    parts += [Part(files=[File(name, content)]) for name in ("", "a.heif", "a.jpg")]
    expected = images.expected(tmp_path / "a.heic")
    for part in parts:
        assert_same(images.prepared(part).inputs, expected)


@pytest.mark.plugins("vision")
def test_bad_image_does_not_affect_other_requests(images: Example, tmp_path: Path) -> None:
    good = File("a.png", write_image(tmp_path / "a.png").read_bytes())
    found = images.prepared(Part(files=[good, File("b.png", b"")]), Part(files=[good]))
    assert [answer is None for answer in found.answers] == [False, True]
    answer = found.answers[0]
    assert answer is not None
    assert msgspec.json.decode(answer.body)["errors"][0]["index"] == 1
    assert len(found.inputs["pixel_values"]) == 1


def test_sizes_of_batches_need_little_padding() -> None:
    assert [batch_sizes(largest) for largest in (1, 2, 5)] == [[1], [1, 2], [1, 2, 3, 4, 5]]
    sizes = batch_sizes(32)
    assert sizes == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    assert all(next(size for size in sizes if size >= count) < 1.5 * count for count in range(1, 33))


def test_frames_are_split_anywhere() -> None:
    messages = [Part(instances=["a" * size]) for size in (0, 1, 300, 70_000)]
    data = b"".join(map(framed, messages))
    for step in (1, 3, 1000, len(data)):
        frames = Frames()
        found = [content for start in range(0, len(data), step) for content in frames.feed(data[start : start + step])]
        assert [msgspec.msgpack.decode(content, type=Part) for content in found] == messages


def test_frames_larger_than_the_buffer_are_received() -> None:
    messages = [Part(instances=["a" * size]) for size in (0, 1, 3_000_000, 300)]
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as threads, theirs:
        found = threads.submit(lambda: [msgspec.msgpack.decode(content, type=Part) for content in received(theirs)])
        with ours:
            for message in messages:
                ours.sendall(framed(message))
        assert found.result() == messages
