from __future__ import annotations

import subprocess
import sys

import harness_speech


def test_the_hooks_yield_what_the_plugin_ships() -> None:
    assert [task.name for task in harness_speech.harness_tasks()] == ["speech"]
    assert [dataset.name for dataset in harness_speech.harness_datasets()] == [
        "espeak-digits",
        "fsdd",
        "speech-commands",
    ]
    assert [model.name for model in harness_speech.harness_models()] == ["wav2vec2"]


def test_listing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness_speech as h\n"
        "list(h.harness_tasks()), list(h.harness_datasets()), list(h.harness_models())\n"
        "print(sorted({'numpy', 'scipy', 'sklearn', 'torch', 'tensorflow', 'espeakng_loader'} & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "[]\n"
