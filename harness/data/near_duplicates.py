"""Search for near-duplicates. Near-duplicates are versions of the same image or recording, for example after lossy
compression, resizing or resampling.

Candidates are pairs with similar descriptors. A k-d tree over the principal components of the descriptors finds
candidate pairs without comparing all pairs. The pixels or samples of each candidate pair are then compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from harness.data import fingerprints
from harness.interfaces import RawData

KINDS = {"image": "images", "audio": "recordings"}
"""Kinds of inputs to compare, and the plural nouns used for them in messages."""
RADII = {"image": 0.08, "audio": 0.12}
"""Maximum distance between the descriptors of two near-duplicates."""
AXES = 10
"""Number of principal components used to search for candidates."""
MAX_PAIRS = 2_000_000
"""Maximum number of pairs to sort by similarity."""
WORK = {"image": 3e8, "audio": 1e8}
"""Maximum total number of pixels or samples to compare in all pairs. Comparing the maximum number takes about 20 s.
Each pair contributes the mean size of its two examples, or `WORK` divided by `MAX_COMPARED` if the mean is smaller.
"""
MAX_COMPARED = 100_000
"""Maximum number of pairs whose pixels or samples are compared."""
MAX_DISTANCES = 20_000_000
"""Maximum number of descriptor distances to compute if there are too many pairs to sort. Computing this many distances
takes about 10 s.
"""

Index = NDArray[np.int64]


class NearDuplicates(Struct, frozen=True, kw_only=True):
    """Groups of near-duplicates."""

    groups: Any
    """Group of each example, int64 ``[N]``. Near-duplicates share a group."""
    pair: tuple[int, int]
    """Indices of two near-duplicates."""
    limit: str = ""
    """Message about pairs that were not compared, or an empty string if all pairs were compared."""


def find(kind: str, contents: Sequence[NDArray[Any]], rates_hz: Sequence[int], exact: Index) -> NearDuplicates | None:
    """Return the groups of near-duplicates. Return None if there are no near-duplicates and all similar pairs were
    compared.

    `contents` contains images ``[H, W, C]`` or waveforms ``[samples]``. `rates_hz` contains the sample rates of the
    waveforms. Examples with equal values in `exact` (``[N]``) are exact duplicates. Exact duplicates are assigned to
    the same group, and only the first one is compared.
    """
    _, firsts, places = np.unique(exact, return_index=True, return_inverse=True)
    distinct = [contents[row] for row in firsts]
    rates = [rates_hz[row] for row in firsts] if len(rates_hz) else []
    if kind == "image":
        descriptors, rows = fingerprints.describe_images(distinct)
    else:
        descriptors, rows = fingerprints.describe_recordings(distinct, rates)
    known = np.isfinite(descriptors).all(axis=1)
    descriptors, rows = descriptors[known], rows[known]
    if len(rows) < 2:
        return None
    sizes = [content.size for content in distinct]
    if kind == "audio":
        sizes = [min(size, fingerprints.COMPARED_S * rate) for size, rate in zip(sizes, rates, strict=True)]

    def cost(one: int, other: int) -> float:
        return max(float(sizes[one] + sizes[other]) / 2, WORK[kind] / MAX_COMPARED)

    def are_same(one: int, other: int) -> bool:
        if kind == "image":
            return fingerprints.are_same_image(distinct[one], distinct[other])
        first, second = distinct[one], distinct[other]
        if fingerprints.are_same_recording(first, rates[one], second, rates[other]):
            return True
        trimmed = fingerprints.trimmed(first), fingerprints.trimmed(second)
        if len(trimmed[0]) == len(first) and len(trimmed[1]) == len(second):
            return False
        return fingerprints.are_same_recording(trimmed[0], rates[one], trimmed[1], rates[other])

    parents = list(range(len(distinct)))
    skipped: list[int] = []
    candidates = _candidates(descriptors, rows, RADII[kind], parents, skipped)
    pair, compared, complete = _join(candidates, parents, are_same, cost, WORK[kind])
    limit = "" if complete else f"many {KINDS[kind]} are similar, so only {compared:,} pairs were compared"
    if skipped and complete:
        limit = f"many {KINDS[kind]} are similar, so not all pairs were compared"
    if pair is None:
        return NearDuplicates(groups=places.astype(np.int64), pair=(0, 0), limit=limit) if limit else None
    groups = np.array([_root(parents, row) for row in range(len(distinct))], np.int64)
    return NearDuplicates(groups=groups[places], pair=(int(firsts[pair[0]]), int(firsts[pair[1]])), limit=limit)


def _candidates(
    descriptors: NDArray[np.float32], rows: Index, radius: float, parents: Sequence[int], skipped: list[int]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of `rows` whose descriptors differ by at most the radius, starting with the most similar pair.

    If there are too many pairs to sort, the pairs are yielded in the order of their first rows. In this case, rows that
    are already in the group of another row (see `parents`) are skipped. After `MAX_DISTANCES` distances have been
    computed, all remaining rows are skipped. Skipped rows are appended to `skipped`.
    """
    from scipy.spatial import cKDTree

    centered = descriptors - descriptors.mean(axis=0)
    axes = np.linalg.eigh(centered.T @ centered)[1][:, : -AXES - 1 : -1]
    tree = cKDTree(centered @ axes)
    if (tree.count_neighbors(tree, radius) - len(descriptors)) / 2 > MAX_PAIRS:
        computed = 0
        for number, row in enumerate(rows.tolist()):
            if parents[row] != row or computed > MAX_DISTANCES:
                skipped.append(row)
            else:
                near = np.array(tree.query_ball_point(tree.data[number], radius))
                computed += len(near)
                near = near[near > number]
                distances = np.linalg.norm(descriptors[near] - descriptors[number], axis=1)
                near = near[distances <= radius][np.argsort(distances[distances <= radius], kind="stable")]
                yield from ((row, other) for other in rows[near].tolist())
        return
    pairs = tree.query_pairs(radius, output_type="ndarray")
    chunks = np.array_split(pairs, len(pairs) // 100_000 + 1)
    distances = np.concatenate(
        [np.linalg.norm(descriptors[chunk[:, 0]] - descriptors[chunk[:, 1]], axis=1) for chunk in chunks]
    )
    order = np.argsort(distances, kind="stable")[: int((distances <= radius).sum())]
    yield from map(tuple, rows[pairs[order]].tolist())


def _join(
    pairs: Iterable[tuple[int, int]],
    parents: list[int],
    are_same: Callable[[int, int], bool],
    cost: Callable[[int, int], float],
    limit: float,
) -> tuple[tuple[int, int] | None, int, bool]:
    """Merge the groups of near-duplicate rows in `parents`. Return the first pair of near-duplicates, the number of
    compared pairs, and whether all pairs were processed.

    Pairs within a group are not compared again. The total cost of the comparisons is at most `limit`.
    """
    first, compared, spent = None, 0, 0.0
    for one, other in pairs:
        ends = _root(parents, one), _root(parents, other)
        if ends[0] == ends[1]:
            continue
        spent += cost(one, other)
        if spent > limit:
            return first, compared, False
        compared += 1
        if are_same(one, other):
            parents[max(ends)] = min(ends)
            first = first or (one, other)
    return first, compared, True


def _root(parents: list[int], row: int) -> int:
    """Return the first row of a group."""
    while parents[row] != row:
        parents[row] = row = parents[parents[row]]
    return row


def shared(duplicates: NearDuplicates, exact: Index, parts: Mapping[str, Index], kind: str) -> list[str]:
    """Return a warning for each evaluation split that contains near-duplicates of training examples.

    `parts` contains the indices of each split. Exact duplicates, which have equal values in `exact` (``[N]``), are not
    included.
    """
    found = []
    train, *others = parts.items()
    for name, rows in others:
        near = np.isin(duplicates.groups[rows], duplicates.groups[train[1]]) & ~np.isin(exact[rows], exact[train[1]])
        count = int(near.sum())
        if count:
            found.append(
                f"{count:,} of {len(rows):,} {name} examples are near-duplicates of training examples: {_cause(kind)}"
            )
    return [*found, *filter(None, [duplicates.limit])]


def _cause(kind: str) -> str:
    other = "or size" if kind == "image" else "or a different sample rate, or with silence at its start or end"
    return f"the same {KINDS[kind][:-1]} in a lossy format, with a different quality{',' * (kind == 'audio')} {other}"


def joined(
    duplicates: NearDuplicates, exact: Index, names: Sequence[str], labels: Sequence[Any] | None, kind: str
) -> list[str]:
    """Return a warning about examples that are near-duplicates of other examples. `names` and `labels` contain the
    names and labels of the examples.
    """
    count = len(np.unique(exact)) - len(np.unique(duplicates.groups))
    if not count:
        return [duplicates.limit] if duplicates.limit else []
    contradictory = ""
    if labels is not None:
        members: dict[int, tuple[set[int], set[Any]]] = {}
        for group, content, label in zip(duplicates.groups.tolist(), exact.tolist(), labels, strict=True):
            members.setdefault(group, (set(), set()))[0].add(content)
            members[group][1].add(label)
        mixed = sum(len(contents) > 1 < len(classes) for contents, classes in members.values())
        contradictory = f"; {mixed:,} {'groups' if mixed > 1 else 'group'} of near-duplicates have different labels" * (
            mixed > 0
        )
    one, other = (names[row] for row in duplicates.pair)
    what = "are near-duplicates of other rows" if count > 1 else "is a near-duplicate of another row"
    return [
        f"{count:,} of {len(exact):,} rows {what} ({_cause(kind)}), such as {one} and {other}{contradictory}",
        *([duplicates.limit] if duplicates.limit else []),
    ]


def _is_comparable(content: object, kind: str) -> bool:
    """Return whether `content` is a gray or RGB image, or a waveform with one channel."""
    if not isinstance(content, np.ndarray) or content.dtype.kind not in "uif":
        return False
    return content.ndim == 3 and content.shape[2] in (1, 3) if kind == "image" else content.ndim == 1


def between_splits(raw: RawData, kind: str) -> list[str]:
    """Return a warning for each evaluation split in `raw` that contains near-duplicates of training examples."""
    name = {"image": "image", "audio": "waveform"}.get(kind, "")
    splits = {"training": raw.train, "validation": raw.validation, "test": raw.test}
    if not all(name in split.inputs for split in splits.values()):
        return []
    contents = [content for split in splits.values() for content in split.inputs[name]]
    if not all(_is_comparable(content, kind) for content in contents):
        return []
    rates_hz: list[int] = []
    if kind == "audio":
        rates_hz = [rate for split in splits.values() for rate in _rates(raw, split)]
        if not all(rates_hz):
            return []
    numbers: dict[bytes, int] = {}
    digests = (hashlib.blake2b(np.ascontiguousarray(content).data, digest_size=16).digest() for content in contents)
    exact = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)
    duplicates = find(kind, contents, rates_hz, exact)
    if duplicates is None:
        return []
    ends = np.cumsum([len(split) for split in splits.values()])
    rows = np.split(np.arange(len(contents)), ends[:-1])
    return shared(duplicates, exact, dict(zip(splits, rows, strict=True)), kind)


def _rates(raw: RawData, split: Any) -> list[int]:
    if "sample_rate_hz" in split.inputs:
        return [int(rate) for rate in split.inputs["sample_rate_hz"]]
    return [int(raw.details.get("sample_rate_hz", 0))] * len(split)
