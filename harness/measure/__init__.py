"""Measurement of training and inference speed, memory, energy, the environment and quality scores."""
