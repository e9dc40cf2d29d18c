"""Quality of predictions: metrics, scores, bootstrap confidence intervals and slices."""
