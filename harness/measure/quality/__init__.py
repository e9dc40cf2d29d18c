"""Metrics, scores, confidence intervals and slices for the predictions of a model."""
