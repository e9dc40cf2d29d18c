"""Loading of published datasets."""

from __future__ import annotations

import pytest

from harness import Dataset, RawData
from harness.data.cache import out_of_reach
from harness.plugins.requirements import missing


def load_real(dataset: Dataset, **options: object) -> RawData:
    """Return the loaded dataset; skip the test if it is neither embedded nor in the cache or mirror.

    For tests without network access, such as those with the fixture ``real_data``.
    """
    reason = missing(dataset.requires) or out_of_reach(dataset)
    if reason:
        pytest.skip(f"{dataset.name}: {reason}")
    return dataset.load(dataset.Options(**options))
