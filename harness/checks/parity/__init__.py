"""The parity check, which verifies that two backends compute the same results, so that their speed can be compared."""
