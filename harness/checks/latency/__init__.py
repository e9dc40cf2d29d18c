"""Latency of a stored run's model in the four MLPerf Inference scenarios (Reddi et al. 2020, arXiv:1911.02549).

`measure` starts a child process and saves its result. `child` opens the model, and `service` answers queries. Queries
are issued by MLPerf's LoadGen (`loadgen`) or by a simple loop (`loop`).
"""
