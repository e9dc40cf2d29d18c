"""Use of trained models: predictions and export."""
