"""The parity check, which verifies that two backends compute the same results before their speeds are compared."""
