"""Measurement: timed training and inference loops, memory, energy, the environment and quality scores."""
