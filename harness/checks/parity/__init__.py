"""The parity check: whether two backends compute the same thing, before anybody compares their speed."""
