"""The session for the ``tensorflow`` backend: one model on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import harness
from harness_tensorflow import checkpoints, runtime
from harness_tensorflow.distributed import Replicas
from harness_tensorflow.optimizers import LossScale, Optimizer


class TensorFlowSession(harness.Session):
    """Session for a TensorFlow network.

    Each step is one `tf.function`, traced once per batch size and called as a concrete function, so it is never
    retraced.
    """

    def __init__(self, request: harness.SessionRequest) -> None:
        self._request = request
        runtime.configure(request)
        self._gpu = None if request.device == "cpu" else "GPU:0"
        if self._gpu:
            tf.config.experimental.reset_memory_stats(self._gpu)
        network = request.build(request.config, request.info, request.recipe.dropout)
        self._module = network.module
        self._bindings = _checked_bindings(network, request.parameters)
        trained = [parameter for parameter in request.parameters if parameter.trainable]
        self._trained_names = [parameter.name for parameter in trained]
        self._trained = [_tf_variable(self._bindings[parameter.name].variable) for parameter in trained]
        factors = [request.rate_factors.get(parameter.name, 1.0) for parameter in trained]
        self._optimizer = Optimizer(request.recipe, self._trained, [parameter.decay for parameter in trained], factors)
        self._loss_scale = LossScale(request.recipe.loss_scale) if request.precision == "fp16" else None
        self._average: list[Any] = []
        self._update_average: Callable[..., Any] | None = None

        self._replicas = Replicas() if request.group is not None else None

        self._input_names = tuple(request.info.inputs)
        self._train_functions: dict[str, Callable[..., Any]] = {}
        self._predict_functions: dict[int, Callable[..., Any]] = {}
        self._gradient_functions: dict[str, Callable[..., Any]] = {}
        self._learning_rate = tf.constant(0.0)
        self._learning_rate_value = 0.0
        self._has_stepped = False

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        for name, binding in self._bindings.items():
            _tf_variable(binding.variable).assign(binding.to_own(np.asarray(weights[name], np.float32)))
        self._average = []
        if self._has_stepped:  # otherwise, resetting would only take time
            self._optimizer.reset()
            if self._loss_scale:
                self._loss_scale.reset()
            self._has_stepped = False

    def get_weights(self) -> dict[str, Any]:
        return {
            parameter.name: np.ascontiguousarray(
                binding.to_canonical(_tf_variable(binding.variable).numpy(), parameter.shape), np.float32
            )
            for parameter in self._request.parameters
            for binding in (self._bindings[parameter.name],)
        }

    def state(self) -> dict[str, Any]:
        return {name: np.array(variable.numpy()) for name, variable in self._variables().items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        if any(name.startswith(checkpoints.AVERAGE) for name in state) and not self._average:
            self._create_average()
        checkpoints.restore(state, self._variables())
        self._has_stepped = True

    def _variables(self) -> dict[str, Any]:
        """Return the variables that change during training, by their names in a checkpoint."""
        weights = {name: _tf_variable(binding.variable) for name, binding in self._bindings.items()}
        return checkpoints.variables_of(self._module, weights, self._optimizer, self._loss_scale, self._average)

    def train_step(self, batch: harness.Batch, learning_rate: float) -> Any:
        self._has_stepped = True
        size = _size(batch)
        function = self._train_functions.get(size)
        if function is None:
            function = self._train_functions[size] = self._trace_train(batch)
        if learning_rate != self._learning_rate_value:
            self._learning_rate_value = learning_rate
            self._learning_rate = tf.constant(learning_rate, tf.float32)
        if self._replicas is not None:
            self._replicas.set_weight(batch.weight)
        return function(self._learning_rate, *map(tf.convert_to_tensor, self._arrays(batch)))

    def gradients(self, batch: harness.Batch) -> tuple[float, dict[str, Any]]:
        def compute(targets: Any, *arrays: Any) -> Any:
            loss, gradients = self._loss_and_gradients(targets, *self._divided(arrays))
            return loss, self._loss_scale.unscale(gradients) if self._loss_scale else gradients

        if self._replicas is not None:
            self._replicas.set_weight(batch.weight)
        function = self._gradient_functions.setdefault(_size(batch), self._train_function(compute))
        loss, gradients = function(*map(tf.convert_to_tensor, self._arrays(batch)))
        shapes = {parameter.name: parameter.shape for parameter in self._request.parameters}
        return float(loss), {
            name: np.ascontiguousarray(self._bindings[name].to_canonical(gradient.numpy(), shapes[name]))
            for name, gradient in zip(self._trained_names, gradients, strict=True)
        }

    def update_average(self, weight: float) -> None:
        if not self._average:
            self._create_average()
        assert self._update_average is not None
        self._update_average(tf.constant(weight, tf.float32))

    def _create_average(self) -> None:
        """Create the variables of the moving average, and the function that updates them."""
        variables = [_tf_variable(binding.variable) for binding in self._bindings.values()]
        averages = self._average = [tf.Variable(variable, trainable=False) for variable in variables]

        def update(weight: Any) -> None:
            for average, variable in zip(averages, variables, strict=True):
                average.assign_add(weight * (variable - average))

        self._update_average = self._function(update)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        variables = [_tf_variable(binding.variable) for binding in self._bindings.values()]
        kept = [variable.read_value() for variable in variables]
        for variable, average in zip(variables, self._average, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(variables, kept, strict=True):
                variable.assign(value)

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        size = len(inputs[self._input_names[0]])
        function = self._predict_functions.get(size)
        if function is None:
            function = self._predict_functions[size] = self._trace_predict(size)
        return function(*[tf.convert_to_tensor(inputs[name]) for name in self._input_names])

    def fetch(self, handle: Any) -> Any:
        return np.asarray(handle.numpy(), np.float32)

    def synchronize(self) -> None:
        if self._gpu:  # on the CPU, functions are executed synchronously
            tf.test.experimental.sync_devices()

    def device_memory(self) -> harness.DeviceMemory | None:
        if self._gpu is None:
            return None
        return harness.DeviceMemory(
            allocator_peak_bytes=tf.config.experimental.get_memory_info(self._gpu)["peak"],
            reserved_peak_bytes=None,
            driver_peak_bytes=None,
        )

    def notes(self) -> dict[str, str]:
        shared = {} if self._replicas is None else {"collectives": self._replicas.library}
        return (
            shared
            | runtime.notes()
            | {
                "dtype_policy": runtime.POLICIES[self._request.precision],
                "op_determinism": str(self._request.deterministic).lower(),
                "xla": str(self._request.compile).lower(),
                "loss_scaling": self._loss_scale.description if self._loss_scale else "none",
            }
        )

    def export(self, format_: str, folder: Path, inputs: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
        from harness_tensorflow.export import export

        def outputs(*tensors: Any) -> dict[str, Any]:
            return {"outputs": self._module(dict(zip(self._input_names, tensors, strict=True)), training=False)}

        # `tf.saved_model.save` cannot track the bindings of the network's layers, so it gets only the variables.
        exported = tf.Module()
        exported.parameters = [_tf_variable(binding.variable) for binding in self._bindings.values()]
        exported.serve = tf.function(outputs, input_signature=self._input_specs(None), autograph=False)
        return export(exported, format_, folder, self._input_names, self._request.threads)

    def close(self) -> None:
        self._train_functions.clear()
        self._predict_functions.clear()
        self._gradient_functions.clear()
        del self._module, self._bindings, self._trained, self._optimizer, self._average, self._update_average
        keras.mixed_precision.set_global_policy("float32")
        keras.backend.clear_session()

    def _input_specs(self, batch_size: int | None) -> list[Any]:
        return [
            tf.TensorSpec((batch_size, *spec.shape), tf.as_dtype(spec.dtype), name=name)
            for name, spec in self._request.info.inputs.items()
        ]

    def _trace_train(self, batch: harness.Batch) -> Callable[..., Any]:
        def step(learning_rate: Any, targets: Any, *arrays: Any) -> Any:
            loss, gradients = self._loss_and_gradients(targets, *self._divided(arrays))
            if self._loss_scale:
                self._loss_scale.apply(self._optimizer, gradients, learning_rate)
            else:
                self._optimizer.apply(gradients, learning_rate)
            return loss

        size = len(batch.targets)
        specs = [
            tf.TensorSpec((), tf.float32, name="learning_rate"),
            tf.TensorSpec((size, *batch.targets.shape[1:]), tf.as_dtype(batch.targets.dtype), name="targets"),
            *self._input_specs(size),
            *([] if batch.example_weights is None else [tf.TensorSpec((size,), tf.float32, name="weights")]),
        ]
        if self._request.recipe.distillation_alpha:
            shape = (size, *batch.targets.shape[1:], self._request.info.outputs)
            specs.append(tf.TensorSpec(shape, tf.float32, name="teacher_logits"))
        return self._train_function(step).get_concrete_function(*specs)  # type: ignore[no-any-return]

    def _arrays(self, batch: harness.Batch) -> list[Any]:
        """Return the arguments of a traced function: targets, inputs and, if present, the weights of the examples and
        the teacher's logits."""
        weights = [] if batch.example_weights is None else [batch.example_weights]
        logits = [batch.teacher_logits] if self._request.recipe.distillation_alpha else []
        return [batch.targets, *(batch.inputs[name] for name in self._input_names), *weights, *logits]

    def _divided(self, arrays: Sequence[Any]) -> tuple[Sequence[Any], Any, Any]:
        """Return the inputs, the weights of the examples and the teacher's logits. The weights and the logits may be
        None."""
        count = len(self._input_names)
        others = list(arrays[count:])
        teacher = others.pop() if self._request.recipe.distillation_alpha else None
        return arrays[:count], others[0] if others else None, teacher

    def _loss_and_gradients(
        self, targets: Any, inputs: Sequence[Any], weights: Any, teacher: Any
    ) -> tuple[Any, list[Any]]:
        """Return the loss and the gradients of the whole batch. With fp16 precision, the gradients are multiplied by
        the loss scale.
        """
        if self._replicas is None:
            return self._own_loss_and_gradients(targets, inputs, weights, teacher)
        # XLA cannot compile the collective operations.
        own = self._function(self._own_loss_and_gradients) if self._request.compile else self._own_loss_and_gradients
        return self._replicas.total(*own(targets, inputs, weights, teacher))

    def _own_loss_and_gradients(
        self, targets: Any, inputs: Sequence[Any], weights: Any, teacher: Any
    ) -> tuple[Any, list[Any]]:
        """Run forward and backward passes in training mode on this process's examples."""
        count = self._request.recipe.accumulation_steps
        if count == 1:
            return self._part_gradients(targets, inputs, weights, teacher, None)
        losses: list[Any] = []
        sums: list[Any] = []
        for start, end in harness.Batch.bounds(int(targets.shape[0]), count):
            part = targets[start:end]
            share = self._losses_in(part) / self._losses_in(targets)
            # Start each part only after the previous one, so that activations are stored for one part at a time.
            with tf.control_dependencies(sums):
                loss, gradients = self._part_gradients(
                    part,
                    [tf.identity(each[start:end]) for each in inputs],
                    None if weights is None else weights[start:end],
                    None if teacher is None else teacher[start:end],
                    share,
                )
                sums = [s + g for s, g in zip(sums, gradients, strict=True)] if sums else gradients
            losses.append(loss)
        return tf.add_n(losses), sums

    def _losses_in(self, targets: Any) -> Any:
        """Return the number of losses over which the mean loss is computed."""
        if self._request.info.objective == "token_classification":
            return tf.reduce_sum(tf.cast(tf.not_equal(targets, harness.IGNORED), tf.float32))
        return float(targets.shape[0])

    def _part_gradients(
        self, targets: Any, inputs: Sequence[Any], weights: Any, teacher: Any, share: Any
    ) -> tuple[Any, list[Any]]:
        """Return the mean loss of the given examples and the gradients of this loss, all multiplied by `share` unless
        `share` is None.
        """
        with tf.GradientTape() as tape:
            outputs = self._module(dict(zip(self._input_names, inputs, strict=True)), training=True)
            loss = self._loss(outputs, targets, weights)
            if alpha := self._request.recipe.distillation_alpha:
                loss = (1 - alpha) * loss + alpha * self._soft_loss(outputs, targets, weights, teacher)
            if share is not None:
                loss = share * loss
            if self._replicas is not None:
                loss = self._replicas.weighted(loss)
            minimized = self._loss_scale.scale(loss) if self._loss_scale else loss
        return loss, self._dense(tape.gradient(minimized, self._trained))

    def _trace_predict(self, size: int) -> Callable[..., Any]:
        def forward(*inputs: Any) -> Any:
            return self._module(dict(zip(self._input_names, inputs, strict=True)), training=False)

        return self._function(forward).get_concrete_function(*self._input_specs(size))  # type: ignore[no-any-return]

    def _train_function(self, function: Callable[..., Any]) -> Any:
        if self._replicas is None:
            return self._function(function)
        return tf.function(self._replicas.run(function), autograph=False)

    def _function(self, function: Callable[..., Any]) -> Any:
        return tf.function(function, autograph=False, jit_compile=self._request.compile)

    def _soft_loss(self, outputs: Any, targets: Any, weights: Any, teacher: Any) -> Any:
        """Return the mean loss of the soft targets (`harness.Recipe.distillation_alpha`), including the factor T^2."""
        temperature = self._request.recipe.distillation_temperature
        student, wanted = (tf.nn.log_softmax(logits / temperature) for logits in (outputs, teacher))
        losses = temperature**2 * tf.reduce_sum(tf.exp(wanted) * (wanted - student), axis=-1)
        positions = self._request.info.objective == "token_classification"
        if weights is not None:
            losses *= _cast(weights, losses)[:, None] if positions else _cast(weights, losses)
        if not positions:
            return tf.reduce_mean(losses)
        counted = tf.cast(tf.not_equal(targets, harness.IGNORED), losses.dtype)
        return tf.reduce_sum(losses * counted) / tf.reduce_sum(counted)

    def _loss(self, outputs: Any, targets: Any, weights: Any) -> Any:
        """Return the mean loss. `weights` are the weights of the examples ``[B]``, or None."""
        if self._request.info.objective == "regression":
            squares = tf.math.squared_difference(outputs, targets)
            return tf.reduce_mean(squares if weights is None else squares * _cast(weights, squares)[:, None])
        if self._request.info.objective == "token_classification":
            counted = tf.cast(tf.not_equal(targets, harness.IGNORED), tf.float32)
            # The loss is not defined for the class IGNORED, so ignored positions are assigned the class 0 and the
            # weight 0.
            losses = self._weighted(self._cross_entropy(outputs, tf.maximum(targets, 0)), tf.maximum(targets, 0))
            if weights is not None:
                losses *= _cast(weights, losses)[:, None]
            return tf.reduce_sum(losses * counted) / tf.reduce_sum(counted)
        losses = self._weighted(self._cross_entropy(outputs, targets), targets)
        return tf.reduce_mean(losses if weights is None else losses * _cast(weights, losses))

    def _weighted(self, losses: Any, targets: Any) -> Any:
        """Multiply each loss by the weight of its class."""
        weights = self._request.class_weights
        return losses if weights is None else losses * tf.gather(tf.constant(weights, losses.dtype), targets)

    def _cross_entropy(self, outputs: Any, targets: Any) -> Any:
        """Return the cross-entropy of logits ``[..., C]`` and classes ``[...]`` for each position."""
        smoothing = self._request.recipe.label_smoothing
        if not smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
        classes = self._request.info.outputs
        off = smoothing / classes
        labels = tf.one_hot(targets, classes, on_value=1 - smoothing + off, off_value=off)
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=outputs)

    def _dense(self, gradients: list[Any]) -> list[Any]:
        """Convert the sparse gradients of embeddings to dense gradients, so that the moments of all rows decay at each
        step."""
        unused = [name for name, gradient in zip(self._trained_names, gradients, strict=True) if gradient is None]
        if unused:
            raise harness.PluginError(
                f"the loss has no gradient with respect to {', '.join(unused[:8])}; use the variable in the network's "
                "call method, without tf.stop_gradient or another operation that has no gradient, or declare the "
                "parameter with trainable=False"
            )
        return [tf.convert_to_tensor(gradient) for gradient in gradients]


def _size(batch: harness.Batch) -> str:
    """Return a key for the shapes of a batch. One function is traced per key."""
    return f"{len(batch.targets)}" + ("" if batch.example_weights is None else " with weights")


def _cast(weights: Any, losses: Any) -> Any:
    return tf.cast(weights, losses.dtype)


def _tf_variable(variable: Any) -> Any:
    return variable.value if isinstance(variable, keras.Variable) else variable


def _checked_bindings(network: harness.Network, parameters: Any) -> dict[str, harness.Binding]:
    """Return the bindings in the order of `parameters`.

    Raises `harness.PluginError` if names, shapes or variables do not match.
    """
    bindings = network.bindings
    wanted = {parameter.name: parameter for parameter in parameters}
    problems = [f"no binding for {name}" for name in wanted if name not in bindings]
    problems += [f"{name} is bound but is not a parameter of the model" for name in bindings if name not in wanted]
    bound = {id(_tf_variable(binding.variable)) for binding in bindings.values()}
    problems += [
        f"trainable variable {getattr(variable, 'path', variable.name)} is not bound"
        for variable in network.module.trainable_variables
        if id(_tf_variable(variable)) not in bound
    ]
    for name, parameter in wanted.items():
        if name in bindings:
            own = bindings[name].to_own(np.empty(parameter.shape, np.float32)).shape
            variable = tuple(_tf_variable(bindings[name].variable).shape)
            if own != variable:
                problems.append(f"{name} is converted to shape {own}, but its variable has shape {variable}")
            elif parameter.trainable and not bindings[name].variable.trainable:
                problems.append(f"{name} is trainable, but its variable has trainable=False")
    if problems:
        raise harness.PluginError(f"the TensorFlow network does not implement the model: {'; '.join(problems[:8])}")
    return {name: bindings[name] for name in wanted}
