"""Hyperparameter tuning: search spaces, studies, trials, and confirmation of the best settings."""
