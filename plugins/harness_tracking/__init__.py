"""The trackers ``tensorboard`` and ``mlflow``, which log runs to TensorBoard and MLflow."""

from __future__ import annotations

from collections.abc import Iterator

import harness
from harness import Tracker

HARNESS_API_VERSION = "1.2"


@harness.hookimpl
def harness_trackers() -> Iterator[Tracker]:
    yield Tracker(
        name="tensorboard",
        listener="harness_tracking.tensorboard_log:TensorBoardLog",
        summary="event files for TensorBoard, one directory per run",
        requires={"tensorboard": "ml-harness[trackers]"},
        options={"directory": "directory of the event files (default: tensorboard in the results directory)"},
        check="harness_tracking.tensorboard_log:check",
    )
    yield Tracker(
        name="mlflow",
        listener="harness_tracking.mlflow_log:MlflowLog",
        summary="runs in MLflow 3, in a local SQLite database or on a server",
        requires={
            "mlflow": "ml-harness[trackers]",
            "sqlalchemy": "ml-harness[trackers]",
            "alembic": "ml-harness[trackers]",
        },
        options={
            "url": "URL of a server or database (default: MLFLOW_TRACKING_URI or, if unset, mlflow.db in the results "
            "directory)",
            "experiment": "name of the experiment (default: MLFLOW_EXPERIMENT_NAME or, if unset, harness)",
            "steps": "yes to log the loss and the learning rate of each step instead of each epoch (default: no)",
            "artifacts": "yes to upload the files in the run's directory (default: no)",
        },
        check="harness_tracking.mlflow_log:check",
    )
