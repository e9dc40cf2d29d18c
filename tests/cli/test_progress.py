"""Tests of the progress on stderr."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from sample_records import failure, record

from harness.cli.progress import Live, Plain
from harness.execute.runner import Listener
from harness.records import CheckpointFailed, EpochEnded, Fetching, PhaseStarted, Progress
from harness.report.progress import clock


def send_two_runs(listener: Listener) -> None:
    """Send the events of a successful run of two epochs and of a failed run."""
    good, bad = record(), record(failure("error", "bad [red]name[/red]\nsecond line"), backend="tensorflow")
    listener.run_started(1, 2, good.spec)
    for epoch in (1, 2):
        listener.event(1, good.spec, PhaseStarted(phase="train"))
        step = 50 * epoch
        listener.event(
            1, good.spec, Progress(epoch=epoch, epochs=2, step=step, steps=100, loss=0.123456, samples_per_s=1234.56)
        )
        listener.event(1, good.spec, PhaseStarted(phase="validate"))
        validation = {"loss": 0.5, "accuracy": 0.75, "roc_auc": None}
        listener.event(
            1,
            good.spec,
            EpochEnded(epoch=epoch, epochs=2, step=step, train_s=1.25, train_loss=0.25, validation=validation),
        )
    listener.run_finished(1, 2, good)
    listener.run_started(2, 2, bad.spec)
    listener.run_finished(2, 2, bad)
    listener.close()
    assert listener.records == [good, bad]


def test_base_listener_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    send_two_runs(Listener())
    assert capfd.readouterr() == ("", "")


def test_plain_writes_lines_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    send_two_runs(Plain())
    out, err = capfd.readouterr()
    assert out == ""
    first, second = "[1/2] nlp · bert-tiny · torch · seed 0: ", "[2/2] nlp · bert-tiny · tensorflow · seed 0: "
    assert err.splitlines() == [
        f"{first}train",
        f"{first}validate",
        f"{first}epoch 1/2  training loss 0.25  validation loss 0.5, accuracy 0.75  1.2 s",
        f"{first}epoch 2/2  training loss 0.25  validation loss 0.5, accuracy 0.75  1.2 s",
        f"{first}accuracy 0.75 in 12.5 s",
        f"{second}failed: error: bad [red]name[/red] second line",
    ]


def test_live_shows_the_run_and_keeps_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.progress._REFRESH_S", 0.0)
    output = io.StringIO()
    send_two_runs(Live(Console(file=output, force_terminal=True, width=120, color_system=None, highlight=False)))
    text = output.getvalue()
    assert "[1/2] nlp · bert-tiny · torch · seed 0" in text
    assert "epoch 1/2  step 50/100  loss 0.1235  1235 samples/s" in text
    assert "validation loss 0.5, accuracy 0.75" in text
    assert "training: 0:00 left" in text
    assert "[1/2] nlp · bert-tiny · torch · seed 0: accuracy 0.75 in 12.5 s" in text
    assert "failed: error: bad [red]name[/red] second line" in text


def test_listeners_show_checkpoints_that_cannot_be_written(capfd: pytest.CaptureFixture[str]) -> None:
    spec, event = record().spec, CheckpointFailed(step=20, reason="No space left on device")
    plain, output = Plain(), io.StringIO()
    live = Live(Console(file=output, force_terminal=True, width=220, color_system=None, highlight=False))
    for listener in (plain, live):
        listener.run_started(1, 1, spec)
        listener.event(1, spec, event)
        listener.close()
    expected = (
        "[1/1] nlp · bert-tiny · torch · seed 0: Warning: the checkpoint after step 20 could not be written: No space "
        "left on device; training continues, and the previous checkpoint is kept"
    )
    assert capfd.readouterr().err.splitlines() == [expected]
    assert expected in output.getvalue()


def test_listeners_show_downloads(capfd: pytest.CaptureFixture[str]) -> None:
    spec = record().spec
    events = [
        Fetching(dataset="mnist", file="images.gz", done_bytes=done, total_bytes=9_900_000) for done in (0, 10**6)
    ]
    plain, output = Plain(), io.StringIO()
    live = Live(Console(file=output, force_terminal=True, width=120, color_system=None, highlight=False))
    for listener in (plain, live):
        listener.run_started(1, 1, spec)
        for event in events:
            listener.event(1, spec, event)
        listener.close()
    prefix = "[1/1] nlp · bert-tiny · torch · seed 0: "
    assert capfd.readouterr().err == f"{prefix}downloading mnist: images.gz, 0.0 kB of 9.9 MB\n"
    assert "downloading mnist: images.gz, 1.0 MB of 9.9 MB" in output.getvalue()


def test_live_limits_the_rate_of_updates() -> None:
    output = io.StringIO()
    live = Live(Console(file=output, force_terminal=True, width=120, color_system=None, highlight=False))
    spec = record().spec
    live.run_started(1, 1, spec)
    for step in range(1, 1001):
        live.event(1, spec, Progress(epoch=1, epochs=1, step=step, steps=1000, loss=1.0, samples_per_s=1.0))
    live.close()
    assert output.getvalue().count("step ") < 50


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0:00"), (75.2, "1:15"), (3600, "1:00:00"), (59.7, "1:00")])
def test_clock_formats_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_plain_skips_epochs_that_end_within_a_second(capfd: pytest.CaptureFixture[str]) -> None:
    plain, spec = Plain(), record().spec
    plain.run_started(1, 1, spec)
    for epoch in range(1, 201):
        validation: dict[str, float | None] = {"loss": 0.5}
        ended = EpochEnded(epoch=epoch, epochs=200, step=epoch, train_s=0.1, train_loss=0.25, validation=validation)
        plain.event(1, spec, ended)
    lines = capfd.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert "epoch 1/200" in lines[0]
    assert "epoch 200/200" in lines[-1]
