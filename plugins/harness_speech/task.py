"""The ``speech`` task: speech classification from the raw waveform."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from harness import CLASSIFICATION_METRICS, DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task

if TYPE_CHECKING:
    import numpy as np


class SpeechOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``speech`` task."""

    seconds: float | None = None
    """Length of the prepared waveforms in seconds, at most 3600. If None, use the length that covers 99% of the
    training examples."""
    sample_rate_hz: int | None = None
    """Sample rate of the prepared waveforms in Hz, at least 1000. If None, use the lowest rate of the training
    examples, but at most 16000."""
    normalize: bool = field(default=True, name="normalise")
    """True to normalize each waveform to zero mean and unit variance, False to keep the recorded values in [-1, 1]."""
    shift_ms: float = 0.0
    """Maximum random shift of training waveforms in each direction, in milliseconds. The resulting gap is filled with
    zeros. The default of TensorFlow's Speech Commands example is 100.
    """
    noise_snr_db: float | None = None
    """Signal-to-noise ratio, in decibels, of the white noise that is added to training waveforms. The padding remains
    zero. If None, no noise is added."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds <= 3600:
            raise ValueError(f"seconds must be above 0 and at most 3600, got {self.seconds}")
        if self.sample_rate_hz is not None and self.sample_rate_hz < 1000:
            raise ValueError(f"sample_rate_hz must be at least 1000, got {self.sample_rate_hz}")
        if not 0 <= self.shift_ms <= 60_000:
            raise ValueError(f"shift_ms must be between 0 and 60000 milliseconds, got {self.shift_ms}")
        if self.noise_snr_db is not None and not -100 <= self.noise_snr_db <= 100:
            raise ValueError(f"noise_snr_db must be between -100 and 100 dB, got {self.noise_snr_db}")


HIGHEST_RATE_HZ = 16_000
"""Maximum default sample rate, as in common speech models. To use a higher rate, set ``sample_rate_hz``."""


class Speech(Task[SpeechOptions]):
    """Speech classification from the raw waveform.

    Raw inputs: ``waveform``, float32 ``[samples]`` for each example. The sample rate is in the dataset's
    ``details["sample_rate_hz"]`` or, if the examples have different rates, in the input ``sample_rate_hz``, int64
    ``[N]``. Waveforms whose sample rate differs from that of the task are resampled.

    Prepared inputs: ``input_values``, float32 ``[N, samples]``. Waveforms are truncated to a fixed length, normalized
    to zero mean and unit variance (unless the options specify otherwise), and padded with zeros at the end, as in the
    feature extractor of wav2vec 2.0. There is no attention mask. Groups: the groups of the dataset, and ``seconds``,
    the duration before truncation. `DataInfo.details` contains ``sample_rate_hz`` and ``truncated_share``, the fraction
    of the training examples that were truncated (``truncated_share_validation`` and ``truncated_share_test`` for the
    other splits). For each split, `DataInfo.details` also contains the fraction of recordings with more padding than
    sound, the number of nearly silent recordings and the number of clipped recordings. For the test split, these values
    are named ``padded_share_test``, ``silent_test`` and ``clipped_test``.
    """

    name = "speech"
    kind = "audio"
    produces = "waveform"
    objective = "classification"
    summary = "speech classification from the raw waveform"
    default_dataset = "espeak-digits"
    default_model = "wav2vec2-tiny"
    min_steps = 1000  # see docs/explanation/defaults.md
    metric = "accuracy"
    counts = "audio_seconds"
    metrics = CLASSIFICATION_METRICS
    recipe = Recipe(
        epochs=10, batch_size=32, learning_rate=1e-3, weight_decay=0.01, schedule="linear", warmup_fraction=0.1
    )
    Options = SpeechOptions
    reported = (
        *("truncated_share_validation", "padded_share_validation", "silent_validation", "clipped_validation"),
        *("truncated_share_test", "padded_share_test", "silent_test", "clipped_test"),
    )

    def prepare(self, data: RawData, options: SpeechOptions) -> PreparedData:
        """Resample, truncate, normalize and pad. Raises `harness.DataError` if the sample rate is not given, or if a
        group of the dataset is called ``seconds``."""
        import numpy as np

        from . import recordings
        from .waveforms import fixed_length, resample

        def rates(split: Split) -> list[int]:
            return _rates(split.inputs, data.details)

        rate_hz = options.sample_rate_hz or min([HIGHEST_RATE_HZ, *rates(data.train)])

        def resampled(split: Split) -> list[Any]:
            pairs = zip(split.inputs["waveform"], rates(split), strict=True)
            return [resample(waveform, from_hz, rate_hz) for waveform, from_hz in pairs]

        train = resampled(data.train)
        lengths = [len(waveform) for waveform in train]
        if options.seconds is None:
            samples = max(1, int(np.percentile(lengths, 99, method="higher")))
        else:
            samples = max(1, round(options.seconds * rate_hz))
        facts: dict[str, recordings.Facts] = {}

        def prepared(name: str, split: Split, waveforms: list[Any]) -> Split:
            facts[name] = recordings.facts(split.inputs["waveform"], waveforms, samples)
            values = fixed_length(waveforms, samples, normalized=options.normalize)
            seconds = np.array([len(waveform) for waveform in waveforms]) / rate_hz
            if "seconds" in split.groups:
                raise DataError(
                    "the dataset has a group named 'seconds', but this name is reserved for the group of durations; "
                    "rename the column"
                )
            groups = {**split.groups, "seconds": seconds}
            return Split(inputs={"input_values": values}, targets=split.targets, groups=groups)

        splits = (
            prepared("training", data.train, train),
            prepared("validation", data.validation, resampled(data.validation)),
            prepared("test", data.test, resampled(data.test)),
        )
        own_rates = [rate for split in (data.train, data.validation, data.test) for rate in rates(split)]
        info = DataInfo(
            kind=self.produces,
            inputs={"input_values": InputSpec(shape=(samples,), dtype="float32")},
            objective=self.objective,
            outputs=len(data.label_names),
            label_names=data.label_names,
            details={"sample_rate_hz": rate_hz, **recordings.details(facts)},
            warnings=tuple(recordings.warnings(facts, samples, rate_hz, own_rates)),
        )
        return PreparedData(train=splits[0], validation=splits[1], test=splits[2], info=info)

    def count(self, split: Split, info: DataInfo) -> Any:
        """Return the duration of each prepared recording in seconds, without padding."""
        import numpy as np

        (samples,) = info.inputs["input_values"].shape
        return np.minimum(split.groups["seconds"], samples / float(info.details["sample_rate_hz"]))

    def transform(
        self,
        inputs: Mapping[str, Any],
        details: Mapping[str, Any],
        fitted: Mapping[str, Any],
        info: DataInfo,
        options: SpeechOptions,
    ) -> dict[str, Any]:
        """Resample, truncate, normalize and pad new recordings to match the training data."""
        from .waveforms import fixed_length, resample

        (samples,), rate_hz = info.inputs["input_values"].shape, int(info.details["sample_rate_hz"])
        pairs = zip(inputs["waveform"], _rates(inputs, details), strict=True)
        waveforms = [resample(waveform, from_hz, rate_hz, samples) for waveform, from_hz in pairs]
        return {"input_values": fixed_length(waveforms, samples, normalized=options.normalize)}

    def checkpoint_options(self, folder: Path) -> Mapping[str, Any]:
        """Return the options that reproduce the checkpoint's preprocessing."""
        from .checkpoints import options_of

        return options_of(folder)

    def augment(
        self, inputs: dict[str, Any], info: DataInfo, options: SpeechOptions, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Add noise if ``options.noise_snr_db`` is set, then shift by up to ``options.shift_ms``."""
        from .waveforms import shifted, with_noise

        clips = inputs["input_values"]
        if options.noise_snr_db is not None:
            clips = with_noise(clips, options.noise_snr_db, rng)
        most = round(options.shift_ms / 1000 * int(info.details["sample_rate_hz"]))
        if most:
            clips = shifted(clips, rng.integers(-most, most + 1, len(clips)))
        return {"input_values": clips}


def _rates(inputs: Mapping[str, Any], details: Mapping[str, Any]) -> list[int]:
    """Return the sample rate of each waveform. Raises `harness.DataError` if the sample rate is not given."""
    own, common = inputs.get("sample_rate_hz"), details.get("sample_rate_hz")
    if own is None and not common:
        raise DataError("the dataset does not specify its sample rate; add 'sample_rate_hz' to its details")
    return [int(common or 0)] * len(inputs["waveform"]) if own is None else own.tolist()
