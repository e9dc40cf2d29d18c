"""The audit of a run's record, modeled on MLPerf's compliance tests.

`from_record` checks the record against its raw samples and against the other runs in its results directory. `replay`
repeats parts of the run in a child process.
"""
