from __future__ import annotations

import harness_speech


def test_hooks_yield_the_task_datasets_and_models() -> None:
    assert [task.name for task in harness_speech.harness_tasks()] == ["speech"]
    assert [dataset.name for dataset in harness_speech.harness_datasets()] == [
        "espeak-digits",
        "fsdd",
        "speech-commands",
    ]
    assert [model.name for model in harness_speech.harness_models()] == ["wav2vec2"]


def test_an_option_stored_under_another_name_is_reproduced() -> None:
    from harness.plan.expand import expand
    from harness.plan.rerun import selection
    from harness.plan.selection import Selection
    from harness.plugins import discover

    catalog = discover()
    (spec,) = expand(Selection(tasks=("speech",), backends=("baseline",), overrides=("task.normalize=false",)), catalog)
    assert spec.task_options["normalise"] is False
    repeated = selection(spec, catalog)
    assert "task.normalize=false" in repeated.overrides
    assert [again.key for again in expand(repeated, catalog)] == [spec.key]
