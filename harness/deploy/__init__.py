"""Use of trained models: predictions for new data."""
