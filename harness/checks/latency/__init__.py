"""Latency of a stored run's model in the four scenarios of MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549).

`measure` starts a child and keeps what it found; `child` opens the model; `service` answers queries; `loadgen` has
MLPerf's LoadGen ask them, `loop` is what is left without it.
"""
