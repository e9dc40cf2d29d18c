"""Hyperparameter tuning: search spaces, studies, their trials, and the confirmation of the best settings."""
