"""Procedures on finished runs and on machines: parity, audit, latency, evaluation, self-test, roofline."""
