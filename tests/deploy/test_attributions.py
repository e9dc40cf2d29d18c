"""Tests of integrated gradients: their values, their files, and their display."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import harness_cli
from own_files import houses, reviews, write_csv
from toy_plugin import SET_FAST, install_toy

from harness.api.stored_run import Run
from harness.deploy import attributions as module
from harness.deploy import explanations
from harness.deploy.explanations import (
    GRADIENT_ARRAYS,
    GRADIENTS,
    Attribution,
    Attributions,
    save_attributions,
    stored_attributions,
)
from harness.errors import CombinationError, RecordError, UnknownNameError, UsageError
from harness.plugins import discover
from harness.records.store import Store, StoredRun
from harness.report.explanations import attributions_text, heading
from harness.report.run_text import render
from harness.report.site.explanations import attributions_html, png
from harness.report.site.run_page import context

QUICK = ("--quality-only", "--set", "recipe.max_steps=20", "-q", "--save-weights")


# ---- values ------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_gradients_of_a_linear_network_are_exact() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from harness_torch.attributions import integrated_gradients

    class Linear(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x: Any, unused: Any) -> Any:
            return self.layer(x)

    network = Linear()
    rng = torch.Generator().manual_seed(0)
    x, base = (torch.randn(2, 4, generator=rng) for _ in range(2))
    unused = torch.zeros(2, 1, dtype=torch.int32)
    values, deltas = integrated_gradients(
        network, {"x": x, "unused": unused}, {"x": base, "unused": unused}, torch.tensor([2, 0]), 8
    )
    expected = network.layer.weight[[2, 0]].detach() * (x - base)
    assert list(values) == ["x"]
    np.testing.assert_allclose(values["x"], expected.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(deltas, 0, atol=1e-5)


@pytest.mark.torch
def test_gradients_of_token_ids_are_summed_over_the_embedding() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from harness_torch.attributions import integrated_gradients

    class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.position = torch.nn.Embedding(7, 5), torch.nn.Embedding(3, 5)
            self.layer = torch.nn.Linear(5, 2)

        def forward(self, ids: Any) -> Any:
            place = torch.arange(3)[None]
            return self.layer(self.embedding(ids).cumsum(1) + self.position(place))

    network = Tagger()
    ids, base = torch.tensor([[3, 5, 1]]), torch.tensor([[0, 0, 1]])
    values, deltas = integrated_gradients(network, {"ids": ids}, {"ids": base}, torch.tensor([[1, 0]]), 8)
    with torch.no_grad():
        change = (network.embedding(ids) - network.embedding(base))[0] @ network.layer.weight[0]
    change[2] = 0  # the output of position 1 does not depend on the token at position 2
    np.testing.assert_allclose(values["ids"][0], change.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(deltas, 0, atol=1e-5)


@pytest.mark.torch
def test_networks_without_a_single_embedding_are_refused() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from harness_torch.attributions import integrated_gradients

    import harness

    class OneHot(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, ids: Any) -> Any:
            return torch.nn.functional.one_hot(ids, 4).float().sum(1)

    with pytest.raises(harness.UnsupportedError, match=r"exactly one torch\.nn\.Embedding that is applied to 'ids'"):
        integrated_gradients(OneHot(), {"ids": torch.tensor([[1]])}, {"ids": torch.tensor([[0]])}, torch.tensor([0]), 4)


@pytest.mark.torch
def test_input_that_is_equal_to_its_baseline_has_no_attribution() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    from harness_torch.attributions import integrated_gradients

    ids = {"ids": torch.tensor([[1]])}
    values, deltas = integrated_gradients(torch.nn.Identity(), ids, ids, torch.tensor([0]), 4)
    assert (values, deltas.tolist()) == ({}, [0.0])


# ---- runs --------------------------------------------------------------------------------------------------


def trained(results: Path, *words: str) -> StoredRun:
    harness_cli("run", "--backend", "torch", *QUICK, *words, results=results)
    (stored,) = Store(results).load().runs
    return stored


@pytest.mark.slow
@pytest.mark.plugins("nlp", "torch")
@pytest.mark.parametrize("model", ["bert-tiny", "lstm-small"])
def test_tokens_of_a_text_are_attributed(tmp_path: Path, model: str) -> None:
    pytest.importorskip("captum")
    write_csv(tmp_path / "reviews.csv", reviews(60))
    run = trained(tmp_path / "results", "--task", "nlp", "--model", model, "--dataset", str(tmp_path / "reviews.csv"))
    rows = Run(run.path, run.record).predictions()
    names = [str(row) for row in rows["row"][:2]]
    harness_cli("explain", "nlp", "--examples", ",".join(names), "--class", "pos", results=run.path.parent)
    stored = stored_attributions(run)
    assert stored is not None
    found, arrays = stored
    assert [each.example for each in found.found] == names
    for number, each in enumerate(found.found):
        assert (each.tokens[0], each.tokens[-1], each.target) == ("[CLS]", "[SEP]", "pos")
        assert each.scores[0] == each.scores[-1] == 0.0
        values = arrays[f"{number}/values/input_ids"]
        assert values[: len(each.scores)].tolist() == each.scores
        assert sum(each.scores) == pytest.approx(each.output - each.baseline_output + each.delta, abs=1e-3)
        assert abs(each.delta) < 0.05 * abs(each.output - each.baseline_output) + 0.01
        assert each.predicted == rows["predicted"][number]
    assert '<span class="token"' in context(run, "", {})["attributions"][0]


@pytest.mark.slow
@pytest.mark.plugins("vision", "torch")
def test_pixels_of_a_digit_are_attributed(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    run = trained(tmp_path / "results", "--task", "vision")
    table = Run(run.path, run.record).explain(examples=[12, 57], steps=200)
    assert table["example"].tolist() == ["12", "57"]
    assert (table["target"] == table["predicted"]).all()
    for number, row in enumerate(table.itertuples()):
        values = table.attrs["arrays"][f"{number}/values/pixel_values"]
        assert values.ndim == 3
        assert values.sum() == pytest.approx(row.output - row.baseline_output + row.delta, abs=1e-3)
        assert abs(row.delta) < 0.05 * abs(row.output - row.baseline_output) + 0.01
    assert "data:image/png;base64," in context(run, "", {})["attributions"][1]


@pytest.mark.slow
@pytest.mark.plugins("torch")
def test_tags_of_a_sentence_are_attributed(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("harness_ner")
    pytest.importorskip("seqeval")
    plugin = ("--plugin", "harness_ner")
    harness_cli("run", *plugin, "--task", "ner", "--backend", "torch", *QUICK, results=tmp_path)
    (run,) = Store(tmp_path).load().runs
    harness_cli("explain", *plugin, "ner", "--examples", "1", results=tmp_path)
    stored = stored_attributions(run)
    assert stored is not None
    for each in stored[0].found:
        assert each.position is not None
        assert "O" not in (each.label, each.predicted) or each.label != each.predicted
        assert len(each.tokens) == len(each.scores) > each.position
        assert sum(each.scores) == pytest.approx(each.output - each.baseline_output + each.delta, abs=1e-3)


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.fixture
def toy_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredRun:
    """Return a run of a backend that does not compute attributions."""
    install_toy(monkeypatch)
    chosen = ("--task", "toy-classify", "--backend", "toy-numpy", *SET_FAST)
    harness_cli("run", *chosen, "-q", "--save-weights", results=tmp_path)
    (stored,) = Store(tmp_path).load().runs
    return stored


def test_requests_that_cannot_be_explained_are_refused(toy_run: StoredRun) -> None:
    run = Run(toy_run.path, toy_run.record)
    with pytest.raises(CombinationError, match="backend 'toy-numpy' does not support integrated gradients"):
        run.explain("integrated-gradients", examples=[1])
    with pytest.raises(UsageError, match="integrated gradients require --examples"):
        run.explain("integrated-gradients")
    with pytest.raises(UnknownNameError, match="unknown test example '999'"):
        run.explain("integrated-gradients", examples=[999])
    with pytest.raises(UnknownNameError, match="unknown test example '999'"):
        run.explain("integrated-gradients", examples="999")
    with pytest.raises(UnknownNameError, match="unknown test example '999'"):
        run.explain("integrated-gradients", examples=999)
    with pytest.raises(UnknownNameError, match="unknown class 'none'"):
        run.explain("integrated-gradients", examples=[1], target="none")
    with pytest.raises(UnknownNameError, match="unknown method 'saliency'"):
        run.explain("saliency", examples=[1])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="`together` contains a string"):
        run.explain("permutation", together=["x", "y"])


def test_run_whose_metrics_were_computed_batch_by_batch_has_no_examples(tmp_path: Path) -> None:
    from sample_records import record, success

    outcome = success()
    streamed = msgspec.structs.replace(outcome, scores=msgspec.structs.replace(outcome.scores, streamed=True))
    with pytest.raises(UsageError, match="its metrics were computed batch by batch"):
        module.positions_of(StoredRun(tmp_path, record(streamed)), ["1"])


def test_missing_package_is_reported_with_its_requirement(toy_run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {module.INTEGRATED_GRADIENTS: {"no_such_module": "ml-harness[explain]"}}
    monkeypatch.setattr(type(discover().backend("toy-numpy")), "attributions", needed)
    with pytest.raises(CombinationError, match=r"no_such_module is not installed; run: pip install .*\[explain\]"):
        Run(toy_run.path, toy_run.record).explain("integrated-gradients", examples=[1])


def test_option_of_another_method_is_refused(toy_run: StoredRun) -> None:
    results = toy_run.path.parent
    done = harness_cli("explain", "toy", "--examples", "1", "--repeats", "3", results=results, status=2)
    assert "--repeats applies only to --method permutation" in done.stderr
    done = harness_cli("explain", "toy", "--method", "permutation", "--steps", "3", results=results, status=2)
    assert "--steps applies only to --method integrated-gradients" in done.stderr


# ---- files and display -------------------------------------------------------------------------------------


def made(**changes: Any) -> Attribution:
    values: dict[str, Any] = {
        "example": "7",
        "position": None,
        "label": "ham",
        "predicted": "spam",
        "target": "spam",
        "output": 2.5,
        "baseline_output": 0.5,
        "delta": 0.01,
        "inputs": ["input_ids"],
        "tokens": ["[CLS]", "<b>free", "[SEP]"],
        "scores": [0.0, 2.2, -0.19],
    }
    return Attribution(**values | changes)


def saved(run: StoredRun, *found: Attribution, **arrays: Any) -> Attributions:
    all_of_them = Attributions(
        run=run.record.run_id, method="integrated-gradients", steps=50, backend="torch", device="cpu", found=list(found)
    )
    save_attributions(run, all_of_them, arrays)
    return all_of_them


@pytest.fixture
def stored(tmp_path: Path) -> StoredRun:
    from sample_records import record

    (tmp_path / "run").mkdir()
    return StoredRun(tmp_path / "run", record())


def test_attributions_are_stored_without_change(stored: StoredRun) -> None:
    values = np.array([0, 2.2, -0.19, 0], np.float32)
    arrays = {"0/values/input_ids": values, "0/inputs/input_ids": np.ones(4, np.float32)}
    found = saved(stored, made(), **arrays)
    again = stored_attributions(stored)
    assert again is not None
    assert again[0] == found
    np.testing.assert_array_equal(again[1]["0/values/input_ids"], values)
    text = render(stored.record, stored.path)
    assert "+2.2000  <b>free (1)" in text
    assert "convergence delta 0.01" in text


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"0/values/input_ids": np.ones(4, np.float32), "0/inputs/input_ids": np.ones(3, np.float32)},
        {"0/values/input_ids": np.full(4, np.nan, np.float32), "0/inputs/input_ids": np.ones(4, np.float32)},
        {"0/values/input_ids": np.ones(4, np.int64), "0/inputs/input_ids": np.ones(4, np.int64)},
    ],
)
def test_damaged_arrays_are_reported(stored: StoredRun, arrays: dict[str, Any]) -> None:
    saved(stored, made(), **arrays)
    with pytest.raises(RecordError, match=r"integrated-gradients\.npz"):
        stored_attributions(stored)
    page = context(stored, "", {})
    assert page["attributions"] == []
    assert "integrated-gradients.npz" in page["attribution_notes"][0]


def test_interrupted_replacement_does_not_mix_two_results(stored: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {f"0/{kind}/input_ids": np.ones(3, np.float32) for kind in ("values", "inputs")}
    saved(stored, made(), **arrays)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.deploy.explanations.write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saved(stored, made(example="8"), **arrays)
    assert stored_attributions(stored) is None


def test_missing_scores_are_reported(stored: StoredRun) -> None:
    saved(stored, made(scores=[1.0]), **{"0/values/input_ids": np.ones(1, np.float32)})
    with pytest.raises(RecordError, match="scores without tokens"):
        stored_attributions(stored)
    assert {GRADIENTS, GRADIENT_ARRAYS} == {str(path.relative_to(stored.path)) for path in stored.path.glob("*/*")}


def test_tokens_are_escaped_and_colored_by_their_sign() -> None:
    found = Attributions(run="r", method="m", steps=5, backend="b", device="cpu", found=[made()])
    arrays = {f"0/{kind}/input_ids": np.ones(3, np.float32) for kind in ("values", "inputs")}
    (part,) = attributions_html(found, arrays)
    assert "&lt;b&gt;free<sub>+2.200</sub>" in part
    assert "background:rgba(46,160,67,0.600)" in part
    assert "background:rgba(218,54,51,0.052)" in part
    assert "<img" not in part


def test_heat_map_is_next_to_the_picture() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.array([[[10, 20, 30], [0, 0, 0]], [[255, 255, 255], [1, 2, 3]], [[9, 9, 9], [8, 8, 8]]], np.uint8)
    with image.open(io.BytesIO(png(pixels))) as opened:
        np.testing.assert_array_equal(np.asarray(opened), pixels)
    each = made(inputs=["pixel_values"], tokens=[], scores=[])
    found = Attributions(run="r", method="m", steps=5, backend="b", device="cpu", found=[each])
    values = np.array([[[0.5]], [[-2.0]]], np.float32)
    arrays = {"0/values/pixel_values": values, "0/inputs/pixel_values": np.array([[[0.0]], [[1.0]]], np.float32)}
    (part,) = attributions_html(found, arrays)
    assert part.count('<img src="data:image/png;base64,') == 2
    assert "Attributions of spam: -2.0000 (red) to +0.5000 (green)" in part
    assert 'width="80" height="160"' in part


def test_imprecise_integral_is_marked() -> None:
    assert heading(made()).endswith("convergence delta 0.01")
    assert heading(made(delta=0.2)).endswith("convergence delta 0.2; use more --steps")
    assert heading(made(position=4)).startswith("example 7, position 4: ")


def test_nothing_to_attribute_is_stated() -> None:
    found = Attributions(run="r", method="m", steps=5, backend="b", device="cpu", found=[])
    assert "There is nothing to attribute" in attributions_text(found)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Attributions) == found


def test_table_is_explained_by_permutation_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(monkeypatch)
    path = write_csv(tmp_path / "houses.csv", houses())
    data = ("--task", "regression", "--dataset", str(path), "--target-column", "price")
    chosen = ("--model", "toy-linear", "--backend", "toy-numpy", *SET_FAST, "--set", "recipe.optimizer=sgd")
    harness_cli("run", *data, *chosen, "-q", "--save-weights", results=tmp_path / "results")
    (run,) = Store(tmp_path / "results").load().runs
    with pytest.raises(
        CombinationError, match="integrated gradients are not supported for tables; use --method permutation"
    ):
        Run(run.path, run.record).explain("integrated-gradients", examples=[1])


def test_paths_name_the_examples_of_a_folder(tmp_path: Path) -> None:
    from sample_records import record
    from sample_store import write

    from harness.records.arrays import write_arrays

    directory = write(tmp_path / "results", [record()])
    (run,) = Store(directory).load().runs
    outputs = {"test_outputs": np.zeros((2, 2), np.float32), "test_targets": np.zeros(2, np.int64)}
    write_arrays(run.path / "arrays.npz", {**outputs, "test_rows": np.array(["a/1.png", "b/2.png"])})
    assert module.positions_of(run, ["b/2.png", "b/2.png"]) == {"b/2.png": 1}


def test_simultaneous_explanations_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = StoredRun(tmp_path, None)  # type: ignore[arg-type]
    second_is_saved = threading.Event()
    write_json = explanations.write_json

    def delayed(path: Path, found: Attributions) -> None:
        if found.run == "first":
            second_is_saved.wait(0.5)  # with a lock, the second explanation is saved later
        write_json(path, found)

    monkeypatch.setattr(explanations, "write_json", delayed)
    named = [Attributions(run=n, method="", steps=2, backend="", device="", found=[]) for n in ("first", "second")]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(save_attributions, run, named[0], {"saved": np.array([0.0])})
        while not (tmp_path / explanations.GRADIENT_ARRAYS).exists():
            time.sleep(0.01)
        pool.submit(save_attributions, run, named[1], {"saved": np.array([1.0])}).add_done_callback(
            lambda _: second_is_saved.set()
        )
        first.result()
    found = stored_attributions(run)
    assert found is not None
    assert found[0].run == named[int(found[1]["saved"][0])].run
