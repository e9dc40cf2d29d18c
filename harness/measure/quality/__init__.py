"""Quality of predictions: metrics, scores, bootstrap intervals and slices."""
