"""The LSTM text classifier in JAX: an embedding, an LSTM, max (and mean) pooling over the tokens, and a dense layer.

Suffixes of variable names give the dimensions of arrays: B is the batch size, L the number of tokens, E the embedding
size, H the hidden size, G the size of the four gates (4 H), and P the number of pooled features.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from harness import DataInfo, Network
from harness_jax.layers import Layers, Mode

Array = Any


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    make = Layers()
    embedding = make.array("embedding.weight")
    layers = [
        [make.array(f"lstm.{name}_l{index}") for name in ("weight_ih", "weight_hh", "bias")]
        for index in range(config.num_layers)
    ]
    classifier = make.dense("classifier")
    *below, last = [make.dropout(dropout) for _ in range(config.num_layers + 1)]

    def network(params: Any, statistics: Any, inputs: Any, mode: Mode) -> tuple[Any, Any]:
        x_lbe = params[embedding][inputs["input_ids"].T].astype(mode.dtype)
        # Padding is on the right, so it does not affect the states of valid tokens; only pooling has to ignore it.
        for names, drop in zip(layers, below, strict=True):
            kernel, recurrent, bias = (params[name].astype(mode.dtype) for name in names)
            x_lbe = recurrence(drop(x_lbe, mode) @ kernel.T + bias, recurrent)
        valid_lb1 = inputs["attention_mask"].T[:, :, None] == 1
        pooled_bp = jnp.where(valid_lb1, x_lbe, -jnp.inf).max(axis=0)
        if config.pooling == "max-mean":
            mean_bh = jnp.where(valid_lb1, x_lbe, 0).sum(axis=0) / valid_lb1.sum(axis=0).astype(x_lbe.dtype)
            pooled_bp = jnp.concatenate([pooled_bp, mean_bh], axis=1)
        return classifier(params, last(pooled_bp, mode)), statistics

    return Network(module=network, bindings=make.bindings)


def cell(gates_bg: Array, cell_bh: Array) -> tuple[Array, Array]:
    """Return the new hidden state and cell state. The gates are in the order i, f, g, o."""
    hidden = cell_bh.shape[-1]
    # Compute the sigmoid of all four gates, although g does not need it: XLA's CPU code for three slices takes five
    # times as long.
    i, f, _, o = jnp.split(jax.nn.sigmoid(gates_bg), 4, axis=-1)
    cell_bh = f * cell_bh + i * jnp.tanh(gates_bg[:, 2 * hidden : 3 * hidden])
    return o * jnp.tanh(cell_bh), cell_bh


@jax.custom_vjp
def recurrence(gates_lbg: Array, recurrent_gh: Array) -> Array:
    """Return the hidden states ``[L, B, H]``, starting from zero states.

    `gates_lbg` is the contribution of the inputs to the gates. Automatic differentiation of a scan would accumulate the
    gradient of the recurrent matrix token by token. Instead, this function defines a custom gradient that uses a single
    product over all tokens. As a result, a training step on a CPU takes 46 ms instead of 55 ms.
    """
    return _forward(gates_lbg, recurrent_gh)[0]


def _forward(gates_lbg: Array, recurrent_gh: Array) -> tuple[Array, Any]:
    def step(states: tuple[Array, Array], gates_bg: Array) -> tuple[Any, Any]:
        h_bh, cell_bh = states
        gates_bg = gates_bg + h_bh @ recurrent_gh.T
        new = cell(gates_bg, cell_bh)
        return new, (new[0], h_bh, cell_bh, gates_bg)

    zeros_bh = jnp.zeros((gates_lbg.shape[1], recurrent_gh.shape[1]), gates_lbg.dtype)
    _, (states_lbh, *before) = lax.scan(step, (zeros_bh, zeros_bh), gates_lbg)
    return states_lbh, (before, recurrent_gh)


def _backward(saved: Any, upstream_lbh: Array) -> tuple[Array, Array]:
    (before_lbh, cells_lbh, gates_lbg), recurrent_gh = saved

    def step(later: tuple[Array, Array], here: Any) -> tuple[Any, Any]:
        from_h_bh, from_cell_bh = later
        upstream_bh, gates_bg, cell_bh = here
        _, pull_back = jax.vjp(cell, gates_bg, cell_bh)
        of_gates_bg, of_cell_bh = pull_back((from_h_bh + upstream_bh, from_cell_bh))
        return (of_gates_bg @ recurrent_gh, of_cell_bh), of_gates_bg

    zeros_bh = jnp.zeros_like(before_lbh[0])
    _, of_gates_lbg = lax.scan(step, (zeros_bh, zeros_bh), (upstream_lbh, gates_lbg, cells_lbh), reverse=True)
    return of_gates_lbg, jnp.einsum("lbg,lbh->gh", of_gates_lbg, before_lbh)


recurrence.defvjp(_forward, _backward)
