"""Execution of runs in child processes."""
