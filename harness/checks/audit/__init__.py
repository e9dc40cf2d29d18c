"""Whether a run's record can be believed: checks in the spirit of MLPerf's compliance tests.

`checks` looks at the record, its raw samples and the runs beside it; `replay` runs parts of it again in a child.
"""
