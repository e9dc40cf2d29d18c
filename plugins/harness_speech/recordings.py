"""Statistics of the recordings in each split, such as the number of clipped recordings, and the resulting warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SILENT = 10 ** (-60 / 20)
"""Peak below which a recording is considered nearly silent: -60 dBFS (decibels relative to full scale, which is the
largest possible sample value)."""
FULL_SCALE = 0.97
"""A sample is never considered clipped if its absolute value is below this threshold. The largest value in mu-law
encoding is 0.98."""
CLIPPED = 0.001
"""A recording is considered clipped if more than this fraction of its samples repeat its largest or smallest value."""
CLIPPED_LIMIT = 0.01
"""Warning threshold for the fraction of clipped recordings in a split."""
TRUNCATED_LIMIT = 0.2
"""Warning threshold for the fraction of truncated recordings in a split."""
HALVED_LIMIT = 0.05
"""Warning threshold for the fraction of recordings in a split that are truncated to less than half of their length."""
PADDED_LIMIT = 0.5
"""Warning threshold for the fraction of recordings in a split that have more padding than sound."""


@dataclass(frozen=True)
class Facts:
    """Counts for one split."""

    recordings: int
    longest: int
    """Number of samples in the longest recording."""
    silent: int
    """Number of recordings whose peak deviation from the mean is below -60 dBFS after truncation to the prepared
    length."""
    clipped: int
    """Number of recordings with repeated samples at full scale."""
    truncated: int
    """Number of recordings that are longer than the prepared length."""
    halved: int
    """Number of recordings that are longer than twice the prepared length."""
    padded: int
    """Number of recordings that are shorter than half of the prepared length."""


def facts(recorded: Iterable[NDArray[np.float32]], resampled: Sequence[NDArray[np.float32]], samples: int) -> Facts:
    """Return the counts for mono waveforms in [-1, 1]. `recorded` contains the waveforms before resampling, and
    `resampled` contains the same waveforms after resampling.

    The task truncates or pads the resampled waveforms to `samples`.
    """
    lengths = [len(waveform) for waveform in resampled]
    return Facts(
        recordings=len(lengths),
        longest=max(lengths),
        silent=sum(peak(waveform[:samples]) < SILENT for waveform in resampled),
        # Resampling smooths the constant peaks of clipped recordings, so clipping is detected before it.
        clipped=sum(map(is_clipped, recorded)),
        truncated=sum(length > samples for length in lengths),
        halved=sum(length > 2 * samples for length in lengths),
        padded=sum(2 * length < samples for length in lengths),
    )


def peak(waveform: NDArray[Any]) -> float:
    """Return the largest absolute deviation from the mean, or 0 if there are no samples."""
    import numpy as np

    return float(np.abs(waveform - waveform.mean(dtype=np.float64)).max()) if len(waveform) else 0.0


def is_clipped(waveform: NDArray[Any]) -> bool:
    """Return True if the recording appears to be clipped, that is, if an extreme value is at full scale and is
    repeated."""
    if len(waveform) < 2:
        return False
    repeated = 0
    for end, value in ((waveform.max(), abs(waveform.max())), (waveform.min(), abs(waveform.min()))):
        if value >= FULL_SCALE:
            at_end = waveform == end
            repeated += int((at_end[1:] & at_end[:-1]).sum())
    return repeated >= 3 and repeated > CLIPPED * len(waveform)


def details(splits: Mapping[str, Facts]) -> dict[str, bool | int | float | str]:
    """Return the statistics to record.

    The name of each statistic ends with the name of its split. The only exception is ``truncated_share``, which refers
    to the training split.
    """
    found: dict[str, bool | int | float | str] = {}
    for name, each in splits.items():
        found["truncated_share" + ("" if name == "training" else f"_{name}")] = each.truncated / each.recordings
        found[f"padded_share_{name}"] = each.padded / each.recordings
        found[f"silent_{name}"] = each.silent
        found[f"clipped_{name}"] = each.clipped
    return found


def warnings(splits: Mapping[str, Facts], samples: int, rate_hz: int, rates_hz: Sequence[int]) -> Iterator[str]:
    """Yield warnings about splits with nearly silent, clipped, truncated or heavily padded recordings. Each warning
    names an option to change.

    `rates_hz` contains the sample rates of all recordings before resampling to `rate_hz`.
    """
    if min(rates_hz) < max(rates_hz):
        lower = sum(rate < rate_hz for rate in rates_hz)
        higher = sum(rate > rate_hz for rate in rates_hz)
        yield (
            f"the recordings have sample rates from {min(rates_hz):,} to {max(rates_hz):,} Hz; at the common "
            f"rate of {rate_hz:,} Hz, {higher:,} of {len(rates_hz):,} recordings lose frequencies, while {lower:,} "
            "have no high frequencies because they were recorded at a lower rate. A model may use this difference to "
            "recognize the class. Set task.sample_rate_hz to change the rate"
        )
    length = f"{samples / rate_hz:.4g} s"
    for name, each in splits.items():
        total = each.recordings
        if each.silent:
            yield (
                f"{each.silent:,} of {total:,} {name} recordings ({each.silent / total:.1%}) are nearly silent (peak "
                f"below -60 dBFS in the first {length} after conversion to mono); check these files, such as stereo "
                "files whose channels cancel each other out, or set task.seconds to use a longer part of each recording"
            )
        if each.clipped > CLIPPED_LIMIT * total:
            yield (
                f"{each.clipped:,} of {total:,} {name} recordings ({each.clipped / total:.1%}) are clipped: samples at "
                "full scale are repeated; record them at a lower level, or check the scale of floating-point files"
            )
        if each.truncated > TRUNCATED_LIMIT * total or each.halved > HALVED_LIMIT * total:
            yield (
                f"{each.truncated:,} of {total:,} {name} recordings ({each.truncated / total:.1%}) were truncated "
                f"to {length}, {each.halved:,} of them to less than half (the longest lasts "
                f"{each.longest / rate_hz:.4g} s); set task.seconds to change the length"
            )
        if each.padded > PADDED_LIMIT * total:
            yield (
                f"{each.padded:,} of {total:,} {name} recordings ({each.padded / total:.1%}) are shorter than half of "
                f"the common length of {length}, so they consist mostly of padding; set task.seconds to change the"
                " length"
            )
