"""Tools for using trained models: predictions, explanations, export and serving."""
