"""The parity check, which verifies that two backends compute the same thing before their speed is compared."""
