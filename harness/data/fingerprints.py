"""Descriptors of images and recordings that are robust to lossy compression and resizing, and comparisons based on
them.

The descriptor of an image consists of the 8 x 8 lowest frequencies of the discrete cosine transform, excluding the
mean. The perceptual hash pHash uses the same descriptor, quantized to bits (Zauner 2010, "Implementation and
Benchmarking of Perceptual Image Hash Functions"). The descriptor of a recording is its coarse power spectrum. Both
descriptors are unit vectors, so brightness and volume have no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LUMA = (0.299, 0.587, 0.114)
"""Weights of the red, green and blue channels for computing the brightness of a pixel (ITU-R BT.601)."""
SMALLEST_SIDE = 8
"""Minimum side length of images to compare, in pixels."""
LEAST_CONTRAST = 2 / 255
"""Minimum contrast of images to compare. The contrast is the standard deviation of the brightness, as a fraction of the
brightness range."""
COARSE_SIDE = 48
"""Minimum length, in pixels, of the shorter side of images that are compared at a third of their resolution. Smaller
images are compared at half of their resolution.

At a third of the resolution, the interpolation method of an image editor has little effect, but small images lose too
much detail.
"""
LIMITS = {False: (0.06, 0.15), True: (0.1, 0.3)}
"""Maximum root mean square differences between two near-duplicate images: over all pixels, and over the part where the
images differ most. The key is True for images that are compared at a third of their resolution, and False for images
that are compared at half of their resolution. The limits are multiples of the contrast, which is the standard deviation
of the pixels.

Near-duplicates differ by less than the limits. The most similar distinct images in MNIST, in Fashion-MNIST and among
photographs differ by more than the limits.
"""
COLOR = 2
"""Factor by which the limits are multiplied for colors, because lossy formats store colors less precisely than
brightness.
"""
SHARPER = 1.5
"""Maximum ratio between the amplitudes of the same frequency in two near-duplicate images."""
FINEST = 128
"""Maximum side length at which images are compared, in pixels."""
PARTS = 16
"""Number of parts into which a recording, or each side of an image, is divided for comparison."""

SHORTEST_S = 0.1
"""Minimum duration of recordings to compare."""
COMPARED_S = 30
"""Maximum duration to compare, from the start of a recording."""
DELAY_S = 0.1
"""Maximum delay between two near-duplicate recordings, in seconds. Encoders may insert a short delay."""
DURATION_S = 0.2
"""Maximum difference between the durations of two near-duplicate recordings."""
RATE_HZ = 8000
"""Sample rate at which recordings are compared."""
SILENCE = 1e-3
"""Maximum amplitude of silence, relative to the peak of a recording. This ratio corresponds to -60 dB."""
BAND_HZ = (150.0, 3400.0)
"""Frequency range for comparing recordings. If necessary, the upper limit is reduced to 42% of the lower of the two
sample rates.
"""
BANDS = np.geomspace(100, 1500, 25)
"""Edges of a descriptor's frequency bands, in Hz. Recordings with a sample rate of at least 4 kHz contain all of these
frequencies.
"""
CORRELATION = 0.95
"""Minimum correlation between two near-duplicate recordings."""
WORST = 0.62
"""Maximum root mean square difference between two near-duplicate recordings, computed over the part where they differ
most. The difference is relative to the root mean square of the whole first recording. Near-duplicates satisfy both
`CORRELATION` and `WORST`. The most similar recordings of a speaker in the Free Spoken Digit Dataset violate at least
one of the two limits.
"""


def describe_images(images: Sequence[NDArray[Any]]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the descriptors ``[M, 63]`` of images ``[H, W, C]``, and the indices ``[M]`` of the described images.

    There is no descriptor for images that are too small or nearly blank.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        if min(image.shape[:2]) >= SMALLEST_SIDE:
            by_shape.setdefault(image.shape, []).append(row)
    found, rows = [np.empty((0, 63), np.float32)], [np.empty(0, np.int64)]
    for (height, width, _), members in by_shape.items():
        down, across = (_cosines(side) for side in (height, width))
        step = max(1, 2**22 // (height * width))
        for start in range(0, len(members), step):
            chunk = np.array(members[start : start + step])
            bright = np.stack([_brightness(images[row]) for row in chunk])
            lowest = (down @ bright @ across.T).reshape(len(chunk), -1)[:, 1:]
            ranges = np.array([_range(images[row]) for row in chunk])
            visible = bright.reshape(len(chunk), -1).std(axis=1) >= LEAST_CONTRAST * ranges
            found.append(_units(lowest[visible]))
            rows.append(chunk[visible])
    return np.concatenate(found), np.concatenate(rows)


def are_same_image(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two images ``[H, W, C]`` are near-duplicates. Differences due to lossy compression or resizing
    are tolerated.

    The images are compared at the same reduced resolution. Colors are compared at half of this resolution, because
    compressed images store them less precisely. Both the whole images and the parts where they differ most must be
    similar.
    """
    shapes = (one.shape[:2], other.shape[:2])
    ratios = [height / width for height, width in shapes]
    if max(ratios) > 1.1 * min(ratios):
        return False
    shorter = min(map(min, shapes))
    coarse = shorter >= COARSE_SIDE
    side = min(FINEST, max(SMALLEST_SIDE, shorter // (3 if coarse else 2)))
    spectra = [
        [_spectrum(plane, side // (1 + (number > 0))) for number, plane in enumerate(_planes(image))]
        for image in (one, other)
    ]
    if len({len(each) for each in spectra}) > 1:  # one image is gray
        min(spectra, key=len).extend([np.zeros((side // 2, side // 2), np.float32)] * 2)
    planes = _as_sharp(*spectra)
    contrast = sqrt(float(np.prod([sqrt(sum(float(plane.var()) for plane in each)) for each in planes])))
    squares = [(first - second) ** 2 for first, second in zip(*planes, strict=True)]
    whole, part = LIMITS[coarse]
    return all(
        sqrt(float(plane.mean())) <= factor * whole * contrast
        and sqrt(float(_blocks(plane).max())) <= factor * part * contrast
        for factor, plane in zip((1, COLOR, COLOR), squares, strict=False)
    )


def describe_recordings(waveforms: Sequence[NDArray[Any]], rates_hz: Sequence[int]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the descriptors ``[M, 24]`` of waveforms ``[samples]``, and the indices ``[M]`` of the described
    waveforms.

    There is no descriptor for recordings that are too short or silent.
    """
    found, rows = [], []
    for row, (waveform, rate_hz) in enumerate(zip(waveforms, rates_hz, strict=True)):
        samples = waveform[: COMPARED_S * rate_hz]
        if len(samples) < SHORTEST_S * rate_hz:
            continue
        power = np.abs(np.fft.rfft(samples, _padded(len(samples)))) ** 2
        below = np.concatenate([[0], np.cumsum(power)])
        ends = np.searchsorted(np.arange(len(power)) * (rate_hz / (2 * len(power) - 2)), BANDS)
        energy = below[ends[1:]] - below[ends[:-1]]
        if energy.sum() > 1e-9 * len(samples):
            found.append(np.sqrt(energy))
            rows.append(row)
    return _units(np.array(found, np.float32).reshape(-1, len(BANDS) - 1)), np.array(rows, np.int64)


def trimmed(waveform: NDArray[Any]) -> NDArray[Any]:
    """Return a waveform ``[samples]`` without the silence at its start and end, or the whole waveform if it is
    silent."""
    sizes = np.abs(waveform)
    loud = np.flatnonzero(sizes > SILENCE * sizes.max(initial=0))
    return waveform[loud[0] : loud[-1] + 1] if len(loud) else waveform


def are_same_recording(one: NDArray[Any], rate_hz: int, other: NDArray[Any], other_rate_hz: int) -> bool:
    """Return whether two waveforms ``[samples]`` are near-duplicates. Differences due to lossy compression, resampling,
    a short delay, the volume or the sign are tolerated.
    """
    if abs(len(one) / rate_hz - len(other) / other_rate_hz) > DURATION_S:
        return False
    low, high = BAND_HZ[0], min(BAND_HZ[1], 0.42 * min(rate_hz, other_rate_hz))
    first, second = (
        _band(samples[: COMPARED_S * rate], rate, low, high)
        for samples, rate in ((one, rate_hz), (other, other_rate_hz))
    )
    energy = float(np.linalg.norm(first) * np.linalg.norm(second))
    if energy == 0:
        return False
    size = _padded(len(first) + len(second))
    products = np.fft.irfft(np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size)), size)
    longest = round(DELAY_S * RATE_HZ)
    delays = np.arange(-longest, longest + 1)
    delay = int(delays[np.abs(products[delays]).argmax()])
    if abs(products[delay]) < CORRELATION * energy:
        return False
    first, second = np.pad(first, (max(0, -delay), 0)), np.pad(second, (max(0, delay), 0))
    length = max(len(first), len(second))
    first, second = (np.pad(each, (0, length - len(each))) for each in (first, second))
    left = first - second * float(products[delay]) / float(second @ second)
    worst = max(float(np.mean(part**2)) for part in np.array_split(left, PARTS))
    return worst <= WORST**2 * float(np.mean(first**2))


def _units(vectors: NDArray[Any]) -> Floats:
    units: Floats = (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return units


def _cosines(side: int) -> Floats:
    """Return the basis functions ``[8, side]`` of the discrete cosine transform with the 8 lowest frequencies. Each
    function is divided by the square root of its length, so that images of different sizes have similar coefficients.
    """
    angles = np.pi * np.arange(8)[:, None] * (np.arange(side) + 0.5) / side
    return (np.cos(angles) * np.where(np.arange(8) == 0, 1, sqrt(2))[:, None] / side).astype(np.float32)


def _range(image: NDArray[Any]) -> float:
    return 255.0 if image.dtype == np.uint8 else max(float(np.ptp(image)), 1e-30)


def _brightness(image: NDArray[Any]) -> Floats:
    bright: Floats = (
        image[..., 0].astype(np.float32)
        if image.shape[2] == 1
        else image.astype(np.float32) @ np.array(LUMA, np.float32)
    )
    return bright


def _planes(image: NDArray[Any]) -> list[Floats]:
    """Return the brightness and, for color images, the blue and red channels minus the brightness."""
    bright = _brightness(image)
    if image.shape[2] == 1 or (image == image[..., :1]).all():
        return [bright]
    return [bright, 0.564 * (image[..., 2] - bright), 0.713 * (image[..., 0] - bright)]


def _spectrum(plane: Floats, side: int) -> Floats:
    """Return the coefficients ``[side, side]`` of the lowest frequencies of a plane ``[H, W]``."""
    from scipy.fft import dctn

    lowest: Floats = dctn(plane, norm="ortho")[:side, :side] * (side / sqrt(plane.size))
    return lowest


def _as_sharp(one: list[Floats], other: list[Floats]) -> list[list[Floats]]:
    """Return the color planes ``[side, side]`` of two images. The blurrier image is sharpened to match the other one.

    Interpolation weakens the high frequencies of a resized image. The sharpening uses one factor for each radial
    frequency of the brightness spectrum.
    """
    from scipy.fft import idctn

    frequency = np.arange(len(one[0]))
    circles = np.rint(np.hypot(frequency[:, None], frequency)).astype(np.int64)
    energies = [np.bincount(circles.ravel(), (each[0] ** 2).ravel()) for each in (one, other)]
    factors = np.sqrt((energies[0] + 1e-9) / (energies[1] + 1e-9)).clip(1 / SHARPER, SHARPER)
    factors[:2] = 1
    sharpened = [other[0] * factors[circles].astype(np.float32), *other[1:]]
    return [[idctn(plane, norm="ortho") for plane in each] for each in (one, sharpened)]


def _blocks(plane: Floats) -> Floats:
    """Return the mean of each block of a square plane."""
    block = max(2, len(plane) // PARTS)
    count = len(plane) // block
    cut = plane[: count * block, : count * block]
    means: Floats = cut.reshape(count, block, count, block).mean(axis=(1, 3))
    return means


def _band(samples: NDArray[Any], rate_hz: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Return a recording after band-pass filtering and resampling to `RATE_HZ`."""
    samples = np.pad(samples, (0, -len(samples) % (rate_hz // gcd(rate_hz, RATE_HZ))))  # a whole number of samples
    length = len(samples) * RATE_HZ // rate_hz
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(length // 2 + 1, complex)
    count = min(len(kept), len(spectrum))
    kept[:count] = spectrum[:count]
    hz = np.arange(len(kept)) * RATE_HZ / length
    kept[(hz < low_hz) | (hz > high_hz)] = 0
    band: NDArray[np.float64] = np.fft.irfft(kept, length) * (RATE_HZ / rate_hz)
    return band


def _padded(length: int) -> int:
    return 1 << max(1, length - 1).bit_length()
