"""Quality of predictions: metrics, scores, confidence intervals and slices."""
