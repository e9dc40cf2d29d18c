from __future__ import annotations

import harness_speech


def test_the_hooks_yield_what_the_plugin_ships() -> None:
    assert [task.name for task in harness_speech.harness_tasks()] == ["speech"]
    assert [dataset.name for dataset in harness_speech.harness_datasets()] == [
        "espeak-digits",
        "fsdd",
        "speech-commands",
    ]
    assert [model.name for model in harness_speech.harness_models()] == ["wav2vec2"]
