"""Training with ``MultiWorkerMirroredStrategy``, one process per device.

The strategy provides the collective operations. The variables are the same as in an ordinary session, with one copy per
process. All processes start from the same weights and apply the same gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

import harness

_OPTIONS = tf.distribute.experimental.CommunicationOptions(
    implementation=tf.distribute.experimental.CommunicationImplementation.AUTO
)
"""Options that make the strategy select NCCL on GPUs and a gRPC ring on CPUs."""
_strategy: Any = None


def join(group: harness.DeviceGroup) -> None:
    """Connect this process to the other processes in the group. TensorFlow supports only one connection per process."""
    global _strategy
    if _strategy is None:
        cluster = tf.train.ClusterSpec({"worker": list(group.addresses)})
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type="worker", task_id=group.rank, rpc_layer="grpc"
        )
        _strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver, communication_options=_OPTIONS)


class Replicas:
    """Replicas of a network, with one replica in each process of a group. `join` connects the processes."""

    library = "MultiWorkerMirroredStrategy"

    def __init__(self) -> None:
        self._weight = tf.Variable(1.0, trainable=False)
        self._weight_value = 1.0

    def set_weight(self, weight: float) -> None:
        """Set the weight of the batch (`harness.Batch.weight`) for the next step."""
        if weight != self._weight_value:
            self._weight_value = weight
            self._weight.assign(weight)

    def weighted(self, loss: Any) -> Any:
        """Return the contribution of this process's examples to the loss of the whole batch."""
        return loss * self._weight

    def total(self, loss: Any, gradients: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Return the sums of the losses and gradients of all processes. Call this method inside `run`."""
        context = tf.distribute.get_replica_context()
        total_loss, *totals = context.all_reduce(tf.distribute.ReduceOp.SUM, [loss, *gradients], options=_OPTIONS)
        return total_loss, totals

    def run(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs `function` as this process's replica."""

        def run(*arguments: Any) -> Any:
            return _strategy.run(function, args=arguments)

        return run
