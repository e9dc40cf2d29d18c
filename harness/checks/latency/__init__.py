"""Latency of a stored run's model in the four scenarios of MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549).

`measure` starts a child process and saves its result; `child` opens the model; `service` answers queries; `loadgen`
issues them with MLPerf's LoadGen, and `loop` without it.
"""
