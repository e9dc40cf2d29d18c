"""Checks of finished runs and of the machine: parity, audit, latency, evaluation, self-test and roofline."""
