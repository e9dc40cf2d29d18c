"""The event listener of the ``mlflow`` tracker."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from harness import EpochEnded, Failure, HarnessError, RunRecord, RunSpec, StepsEnded, UsageError
from harness_tracking.content import (
    describe,
    epoch_scalars,
    final_scalars,
    is_killed,
    last_step,
    live_name,
    parameters,
    unwritable,
)

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that does not answer must not exceed the time limit of event hooks, which is 10 seconds by default.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""Default settings for MLflow. If one of these variables is already set, its value is not changed."""
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_AT_ONCE = 1000
"""Maximum number of metrics in one request (MLflow's limit)."""
_MAX_EXPERIMENT = 500
"""Maximum length of an experiment name (MLflow's limit)."""
_MAX_VALUE = 6000
"""Maximum length of a parameter value (MLflow's limit)."""
_RUN_ID, _STARTED_AT = "harness.run_id", "harness.started_at"


@dataclass
class _Run:
    """An unfinished run in MLflow."""

    id: str
    steps: list[StepsEnded] = field(default_factory=list)
    """Steps that have not been logged."""


def check(results: Path, options: Mapping[str, str]) -> None:
    """Raise `harness.UsageError` if an option is not valid, or if a local database cannot be used."""
    url, experiment = _url(results, options), _experiment(options)
    for name in ("steps", "artifacts"):
        _flag(options, name)
    if len(experiment) > _MAX_EXPERIMENT:
        raise UsageError(
            f"the MLflow experiment {experiment[:80]!r} cannot be used: its name has more than {_MAX_EXPERIMENT} "
            "characters; choose another name with --tracker mlflow:experiment=NAME"
        )
    if url.startswith("sqlite:") and (path := url.partition(":///")[2]):
        _check_database(Path(path).absolute(), url, experiment, results)


def _check_database(path: Path, url: str, experiment: str, results: Path) -> None:
    """Raise `harness.UsageError` if the file of an SQLite database cannot be used. The file is not modified."""
    # The results directory is created before the first run.
    reason = (
        unwritable(path.parent)
        if path.parent in (results, *results.parents) or path.parent.exists()
        else (f"the directory {path.parent} does not exist")
    )
    deleted = False
    if not reason and path.exists():
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
                tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                if "experiments" in tables:
                    deleted = ("deleted",) in database.execute(
                        "SELECT lifecycle_stage FROM experiments WHERE name = ?", (experiment,)
                    )
        except sqlite3.Error as error:
            reason = str(error)
    if reason:
        raise _unusable(url, reason)
    if deleted:
        raise _deleted(experiment)


class MlflowLog:
    """An experiment in MLflow.

    The name of a run in MLflow is the run's id. While a run is in progress, its id is not known, and the name contains
    the attempt id.
    """

    def __init__(self, results: Path, options: Mapping[str, str]) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._url, self._experiment = _url(results, options), _experiment(options)
        self._each_step = _flag(options, "steps")
        self._with_artifacts = _flag(options, "artifacts")
        self._artifacts = (results / "mlflow-artifacts").as_uri() if self._url.startswith("sqlite:") else None
        self._experiment_id = ""
        self._open: dict[str, _Run] = {}
        self._client = self._connected(results)

    @harness.hookimpl
    def harness_run_started(self, spec: RunSpec, attempt_id: str, time_s: float) -> None:
        with self._dropped_on_error(attempt_id):
            self._experiment_id = self._experiment_id or self._found_experiment(self._client)
            created = self._client.create_run(
                self._experiment_id, start_time=_ms(time_s), run_name=live_name(spec, attempt_id)
            )
            self._open[attempt_id] = _Run(created.info.run_id)
            values = parameters(spec)
            values.pop("device")  # The device is logged at the end, because the run may choose it.
            self._client.log_batch(created.info.run_id, params=_params(values))

    @harness.hookimpl
    def harness_steps_ended(self, steps: StepsEnded, attempt_id: str) -> None:
        if run := self._open.get(attempt_id):
            run.steps.append(steps)

    @harness.hookimpl
    def harness_epoch_ended(self, epoch: EpochEnded, attempt_id: str, time_s: float) -> None:
        if run := self._open.get(attempt_id):
            metrics = [(name, value, epoch.step) for name, value in epoch_scalars(epoch).items()]
            metrics += self._step_metrics(run.steps)
            run.steps = []
            with self._dropped_on_error(attempt_id):
                self._log(run.id, metrics, time_s)

    @harness.hookimpl
    def harness_run_finished(self, record: RunRecord, directory: Path, attempt_id: str, time_s: float) -> None:
        if run := self._open.get(attempt_id):
            with self._dropped_on_error(attempt_id):
                self._finish(run, record, directory, time_s)
            del self._open[attempt_id]

    def _finish(self, run: _Run, record: RunRecord, directory: Path, time_s: float) -> None:
        from mlflow.entities import RunTag

        step = last_step(record)
        metrics = [(name, value, step) for name, value in final_scalars(record).items()]
        self._log(run.id, [*self._step_metrics(run.steps), *metrics], time_s)
        if self._with_artifacts:
            self._client.log_artifacts(run.id, str(directory))
        former = self._logged_before(record)
        tags = {
            _RUN_ID: record.run_id,
            _STARTED_AT: record.started_at,
            "harness.key": record.key,
            "harness.outcome": describe(record)[:_MAX_VALUE],
            "harness.device_name": record.provenance.device_name or "",
        }
        self._client.log_batch(
            run.id,
            params=_params({"device": record.spec.device}),
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        self._client.update_run(run.id, name=record.run_id)
        failed = "FAILED" if isinstance(record.outcome, Failure) else "FINISHED"
        self._client.set_terminated(run.id, "KILLED" if is_killed(record) else failed, _ms(time_s))
        for each in former:
            self._client.delete_run(each)

    @harness.hookimpl
    def harness_attempt_lost(self, attempt_id: str, time_s: float) -> None:
        if run := self._open.pop(attempt_id, None):
            self._client.set_tag(run.id, "harness.outcome", "the attempt was lost")
            self._client.set_terminated(run.id, "KILLED", _ms(time_s))

    @contextmanager
    def _dropped_on_error(self, attempt_id: str) -> Iterator[None]:
        """Stop logging a run after an error, so that only one message is printed for the run."""
        try:
            yield
        except Exception as error:
            self._open.pop(attempt_id, None)
            reason = str(error).partition("\n")[0]
            raise HarnessError(
                f"{type(error).__name__}: {reason}; this run is no longer logged; log it later with `harness track`"
            ) from error

    def _connected(self, results: Path) -> Any:
        """Return a client. A local database and its experiment are created here, because creating them in an event hook
        may exceed the hook's time limit. In addition, the name of the experiment must be checked before the first run.
        """
        from mlflow import MlflowClient

        if not self._url.startswith("sqlite:"):
            return MlflowClient(self._url)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            results.mkdir(parents=True, exist_ok=True)
            client = MlflowClient(self._url)
            client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise _unusable(self._url, str(error).partition("\n")[0]) from None
        try:
            self._experiment_id = self._found_experiment(client)
        except MlflowException as error:
            raise UsageError(
                f"the MLflow experiment {self._experiment[:80]!r} cannot be used: {error.message}; choose another name "
                "with --tracker mlflow:experiment=NAME"
            ) from None
        return client

    def _found_experiment(self, client: Any) -> str:
        """Return the id of the experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(client.create_experiment(self._experiment, artifact_location=self._artifacts))
            except MlflowException:  # raised if another command has created it in the meantime
                found = client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise _deleted(self._experiment)
        return str(found.experiment_id)

    def _logged_before(self, record: RunRecord) -> list[str]:
        """Return the ids of the MLflow runs to which the record has already been logged."""
        wanted = {_RUN_ID: record.run_id, _STARTED_AT: record.started_at}
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        return [run.info.run_id for run in self._client.search_runs([self._experiment_id], condition)]

    def _step_metrics(self, events: Sequence[StepsEnded]) -> list[tuple[str, float, int]]:
        """Return the metrics of an epoch's steps, as tuples of name, value and step."""
        if not events:
            return []
        if self._each_step:
            return [metric for event in events for metric in _all_steps(event)]
        last = events[-1]
        end = last.step + len(last.losses)
        metrics = [("train/learning_rate", last.learning_rates[-1], end)]
        windows = [
            window
            for event in events
            for number, window in enumerate(zip(event.window_steps, event.window_s, strict=True))
            if number not in event.first_windows  # these windows include compilation
        ]
        seconds = sum(duration for _, duration in windows)
        if seconds:
            samples = last.batch_size * sum(steps for steps, _ in windows)
            metrics.append(("train/samples_per_s", samples / seconds, end))
        return metrics

    def _log(self, run_id: str, metrics: Sequence[tuple[str, float, int]], time_s: float) -> None:
        from mlflow.entities import Metric

        converted = [Metric(_name(name), value, _ms(time_s), step) for name, value, step in metrics]
        for first in range(0, len(converted), _AT_ONCE):
            self._client.log_batch(run_id, metrics=converted[first : first + _AT_ONCE])


def _all_steps(event: StepsEnded) -> Iterator[tuple[str, float, int]]:
    for step, (loss, rate) in enumerate(zip(event.losses, event.learning_rates, strict=True), start=event.step + 1):
        yield "train/loss", loss, step
        yield "train/learning_rate", rate, step
    for step, rate in event.throughput:
        yield "train/samples_per_s", rate, step


def _params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_name(name), str(value)[:_MAX_VALUE]) for name, value in values.items()]


def _name(name: str) -> str:
    """Replace each character of a name with an underscore if MLflow does not allow the character."""
    return re.sub(r"[^\w./: -]", "_", name)[:250]


def _ms(time_s: float) -> int:
    return round(time_s * 1000)


def _url(results: Path, options: Mapping[str, str]) -> str:
    """Return the URL of the server or database. Raises `harness.UsageError` if MLflow cannot use it."""
    url = options.get("url") or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results / 'mlflow.db'}"
    _check_url(url)
    return url


def _experiment(options: Mapping[str, str]) -> str:
    return options.get("experiment") or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "harness"


def _unusable(url: str, reason: str) -> UsageError:
    return UsageError(f"the database {url} cannot be used: {reason}; set --tracker mlflow:url=URL")


def _deleted(experiment: str) -> UsageError:
    return UsageError(
        f"the MLflow experiment {experiment!r} was deleted; restore it with `mlflow experiments restore`, or choose "
        "another one with --tracker mlflow:experiment=NAME"
    )


def _flag(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "no")
    if value not in ("yes", "no"):
        raise UsageError(f"the mlflow tracker option {name!r} must be yes or no, got {value!r}")
    return value == "yes"


def _check_url(url: str) -> None:
    """Raise `harness.UsageError` if MLflow cannot use a URL. MLflow 3 no longer supports the file store."""
    scheme = re.match(r"(\w+)(\+\w+)?(://|$)", url)
    if scheme is None or scheme[1] not in _SCHEMES:
        raise UsageError(
            "the mlflow tracker needs the URL of a server, such as http://localhost:5000, or of a database, such as "
            "sqlite:////path/to/mlflow.db; set --tracker mlflow:url=URL or MLFLOW_TRACKING_URI"
        )
    if scheme[1] == "sqlite" and "?" in url:
        raise UsageError("the path of an SQLite database cannot contain a question mark; set --tracker mlflow:url=URL")
