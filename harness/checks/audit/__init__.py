"""The audit of a run's record, modeled on MLPerf's compliance tests.

`from_record` checks the record against its raw samples and the other runs of its results directory; `replay` repeats
parts of the run in a child process.
"""
