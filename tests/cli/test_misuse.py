"""Requests that cannot be carried out end with status 2 and a message that names the option and the remedy.

No process is started. Options that refer to the parameters of the model are tested in
`tests/execute/test_option_checks.py`, because the names of the parameters are known only when the data are prepared.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import harness_cli
from toy_plugin import SET_FAST, install_toy

from harness.execute import child
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records.store import Store

pytestmark = pytest.mark.usefixtures("toy")
HELPERS = Path(__file__).parents[1] / "helpers"
PLUGINS = tuple(str(HELPERS / name) for name in ("distilling_plugin.py", "options_plugin.py"))
RUN = "run --task toy-classify --backend toy-numpy"
ABLE = "run --task toy-classify --backend toy-able"
STUDENT = "run --task toy-classify --backend toy-distilling"
DISTILL = "distill --teacher {teacher} --student toy-linear --backend toy-distilling"
TUNE = "tune --task toy-regress --backend toy-numpy"
BATCHES = f"{TUNE} --search recipe.batch_size=8,16"
ENTRY = '[[run]]\ntask = "toy-classify"\nbackend = "toy-able"\n'
NAMED = ENTRY + 'name = "t"\n'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the paths of stored runs by name, and of their results directory."""
    results = tmp_path_factory.mktemp("misuse") / "results"
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        common = ("--backend", "toy-numpy", *SET_FAST, "-q", "--quality-only")
        harness_cli("run", "--task", "toy-classify,toy-regress", *common, "--save-weights", results=results)
        other = ("--task", "toy-classify", "--set", "dataset.draw=1")
        harness_cli("run", *other, *common, "--save-weights", results=results)
        harness_cli("run", "--task", "toy-classify", *common, "--seed", "1", results=results)
        patch.setenv("TOY_STOP_AT", "25")
        stopped = ("--task", "toy-classify", "--seed", "2", "--checkpoint-every", "1")
        harness_cli("run", *stopped, *common, results=results, status=1)
    found = {"results": str(results)}
    for run in Store(results).load().runs:
        spec = run.record.spec
        name = "teacher" if spec.task == "toy-classify" else "regression"
        name = {1: "unsaved", 2: "failed"}.get(spec.seed, "other_data" if spec.dataset_options["draw"] else name)
        found[name] = str(run.path)
    return found


@pytest.fixture(scope="module")
def plugins(runs: Mapping[str, str]) -> Catalog:
    """Return a catalog with all installed plugins and `PLUGINS`."""
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        return discover(PLUGINS)


@pytest.fixture(autouse=True)
def _discovered(plugins: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plugins.discover", lambda *_: plugins)


def check_refused(line: str, words: tuple[str, ...], runs: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    """Run a command, and assert that it is refused with these words in its message before a process is started."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a process was started")

    patch.setattr(child, "run_process", refuse)
    command, *arguments = shlex.split(line.format_map(runs))
    stored = set(Path(runs["results"]).rglob("record.json"))
    done = harness_cli(command, *arguments, results=Path(runs["results"]), status=2)
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert done.stdout == ""
    assert set(Path(runs["results"]).rglob("record.json")) == stored


MISUSES: list[tuple[str, tuple[str, ...]]] = [
    # unknown options and values
    (f"{RUN} --set recipe.epoch=1", ("'recipe.epoch'", "did you mean 'recipe.epochs'?")),
    (f"{RUN} --set recipes.epochs=1", ("'recipes'", "did you mean 'recipe'?")),
    (f"{RUN} --set recipe.optimizer=adamm", ("recipe.optimizer 'adamm'", "did you mean 'adam'?")),
    (f"{RUN} --set recipe.epochs=few", ("recipe.epochs", "Expected `int`")),
    (f"{RUN} --set recipe.learning_rate=-1", ("learning_rate must be positive",)),
    (f"{RUN} --set recipe.learning_rate=0.1,0.1", ("recipe.learning_rate", "twice; remove one")),
    (f"{RUN} --protocol quik", ("--protocol", "'quick', 'standard', 'publish'")),
    (f"{RUN} --retry oops", ("'oops'", "known: bad_result, crash")),
    (f"{RUN} --set protocol.name=publish", ("protocol.name", "select the protocol with --protocol")),
    # options that the model, the dataset or the backend lacks
    (f"{RUN} --set model.width=3", ("'model.width'", "known: model.bias, model.init")),
    (f"{RUN} --set task.lowercase=true", ("'task.lowercase'", "known: task.features")),
    (f"{RUN} --set dataset.nois=1", ("'dataset.nois'", "did you mean 'dataset.noise'?")),
    (f"{RUN} --set recipe.dropout=0.5", ("no dropout", "remove recipe.dropout")),
    (
        f"{RUN} --set recipe.ema_decay=0.9",
        ("does not implement ema_decay", "Remove recipe.ema_decay, or select another"),
    ),
    (f"{RUN} --set recipe.optimizer=lamb", ("does not implement lamb", "Remove recipe.optimizer=lamb")),
    (f"{RUN} --target-column x", ("dataset.target_column", "remove --target-column")),
    (f"{RUN} --split 3", ("no numbered splits", "remove --split")),
    (f"{RUN} --metric rmse", ("'rmse'", "choose one of: accuracy")),
    # options that contradict each other
    (f"{RUN} --set recipe.optimizer=adam --set recipe.momentum=0.9", ("recipe.momentum has no effect", "remove it")),
    (f"{RUN} --set recipe.step_size=1", ("recipe.step_size has no effect", "remove it")),
    (f"{RUN} --set recipe.schedule=step", ("requires either step_size or milestones",)),
    (f"{RUN} --set recipe.schedule=one_cycle", ("requires warmup_fraction", "such as 0.3")),
    (f"{RUN} --set recipe.early_stopping=50", ("recipe.early_stopping=50", "choose a smaller number, or more epochs")),
    (f"{ABLE} --set recipe.loss_scale=8", ("recipe.loss_scale", "add --precision fp16, or remove")),
    (f"{ABLE} --set recipe.accumulation_steps=64", ("recipe.accumulation_steps=64", "a larger recipe.batch_size")),
    (f"{RUN} --set dataset.split=1 --split 3", ("--split and --set dataset.split", "use only one of them")),
    (f"{RUN} --precision int8", ("int8 is only for inference", "pass --weights RUN")),
    (f"{RUN} --parity", ("two backends", "--backend A,B or --env A,B")),
    (f"{RUN} --jobs 2 --executor ray", ("--jobs", "remove --jobs or --executor")),
    (f"{RUN} --detach", ("--detach", "remove it")),
    (f"{RUN} --checkpoint-every 1 --batch-size-backoff", ("--checkpoint-every", "remove one of them")),
    (f"{RUN} --checkpoint-every 0", ("'0' is not an interval", "pass a number of epochs")),
    ("run --weights {teacher} --task toy-classify", ("--weights", "remove --task")),
    ("run --weights {teacher} --backend toy-numpy --set recipe.epochs=2", ("recipe.epochs cannot be changed",)),
    ("run --weights {teacher} --backend toy-numpy --parity", ("--parity", "remove one of the two options")),
    # continuation of an interrupted run with other settings
    (f"{RUN} --resume --rerun", ("--resume", "--rerun", "remove one of them")),
    (
        f"{RUN} {shlex.join(SET_FAST)} --seed 2 --resume --set recipe.learning_rate=0.2 --quality-only",
        ("the run cannot be resumed", "recipe.learning_rate=0.1", "pass --no-resume"),
    ),
    # teachers
    (f"{ABLE} --set recipe.distillation_alpha=0.5", ("recipe.distillation_alpha", "add --teacher RUN")),
    (f"{ABLE} --set recipe.distillation_temperature=2", ("recipe.distillation_temperature", "remove it")),
    (f"{STUDENT} --teacher absent", ("unknown run 'absent'", "known: ")),
    (f"{STUDENT} --teacher {{teacher}} --set recipe.distillation_alpha=0", ("recipe.distillation_alpha=0", "remove")),
    (f"{STUDENT} --teacher {{regression}}", ("for task 'toy-regress'", "select the same task")),
    (f"{STUDENT} --teacher {{other_data}}", ("dataset.draw is 1", "use the same dataset options")),
    (f"{STUDENT} --teacher {{unsaved}}", ("no saved weights", "--save-weights")),
    (f"{STUDENT} --teacher {{failed}}", ("failed, so it has no trained model",)),
    (
        f"{STUDENT} --teacher {{teacher}} --executor ray",
        ("executor 'ray'", "remove --teacher, or use --executor local"),
    ),
    (
        f"{RUN} --teacher {{teacher}}",
        ("does not implement distillation_alpha", "Remove the teacher, or select another"),
    ),
    ("run --task toy-regress --backend toy-able --teacher {teacher}", ("regression", "remove --teacher")),
    (
        f"{STUDENT} --teacher {{teacher}} --set recipe.distillation_alpha=1 --set recipe.label_smoothing=0.1",
        ("recipe.label_smoothing has no effect", "remove it"),
    ),
    # harness distill
    ("distill --student toy-linear", ("Missing option '--teacher'",)),
    ("distill --teacher {teacher}", ("Missing option '--student'",)),
    ("distill --teacher {teacher} --student toy-linea", ("'toy-linea'", "did you mean 'toy-linear'?")),
    ("distill --teacher {teacher} --student bert-tiny", ("'bert-tiny'", "the default model is 'toy-linear'")),
    (
        "distill --teacher {regression} --student toy-linear --backend toy-distilling",
        ("regression", "remove --teacher"),
    ),
    ("distill --teacher {unsaved} --student toy-linear", ("no saved weights", "--save-weights")),
    (f"{DISTILL} --alpha 1.5", ("'--alpha'", "0<x<=1")),
    (f"{DISTILL} --temperature 0", ("'--temperature'", "x>0")),
    (f"{DISTILL} --set recipe.distillation_alpha=0.9", ("--alpha sets recipe.distillation_alpha", "use --alpha")),
    (f"{DISTILL} --set recipe.distillation_temperature=4", ("use --temperature instead of --set",)),
    (f"{DISTILL} --set recipe.batch_size=8,16", ("a single value to --set recipe.batch_size", "harness run --teacher")),
    (f"{DISTILL} --set recipe.epoch=2", ("did you mean 'recipe.epochs'?",)),
    (f"{DISTILL} --set model.width=2", ("'model.width'", "known: model.bias")),
    (f"{DISTILL} --set dataset.noise=0.2", ("dataset.noise is 0.1", "use the same dataset options")),
    (f"{DISTILL} --parity", ("two backends", "--backend A,B")),
    # harness tune
    (TUNE, ("the search space is empty", "pass --search")),
    (f"{TUNE} --search recipe.batch_size=", ("recipe.batch_size=", "list values, or write a range")),
    (f"{TUNE} --search recipe.batch_size=16", ("recipe.batch_size=16", "only one value; list several values")),
    (f"{TUNE} --search recipe.batch_size=32:16", ("the range is empty", "use --set for a fixed value")),
    (f"{TUNE} --search recipe.learning_rate=log:0:1", ("log:0:1", "must be positive")),
    (f"{TUNE} --search recipe.learning_rte=1,2", ("did you mean 'recipe.learning_rate'?",)),
    (f"{TUNE} --search model.width=1:3", ("'model.width'", "known: model.bias")),
    (f"{TUNE} --search dataset.noise=0:1", ("'dataset.noise=0:1'", "only settings in the sections recipe, model")),
    (f"{TUNE} --search recipe.dropout=0:0.5", ("no dropout", "remove recipe.dropout")),
    (f"{TUNE} --search recipe.step_size=1,2", ("recipe.step_size has no effect", "remove it")),
    (f"{BATCHES} --search recipe.batch_size=32,64", ("recipe.batch_size is searched twice", "remove one")),
    (f"{BATCHES} --set recipe.batch_size=8", ("both --set and --search", "remove one")),
    (f"{BATCHES} --set recipe.epochs=1,2", ("a single value to --set recipe.epochs", "with --search")),
    (f"{BATCHES} --seed 0,1", ("a single --seed", "--confirm")),
    (f"{BATCHES} --weights {{regression}}", ("remove --weights",)),
    (f"{BATCHES} --objective speed", ("'speed'", "known: loss, parameters, quality")),
    (f"{BATCHES} --objective quality,loss --pruner median", ("remove --pruner median",)),
    (f"{BATCHES} --objective parameters --pruner median", ("'parameters'", "remove --pruner median")),
    (f"{BATCHES} --lr-range", ("--lr-range does not perform a search", "remove --search")),
    (f"{BATCHES} --storage nonsense", ("the storage nonsense", "such as sqlite:///tuning.db")),
    (f"{TUNE} --lr-range 1:0.1", ("'1:0.1'", "write it as low:high")),
    (
        "tune --task toy-classify --backend toy-distilling --search recipe.distillation_alpha=0.1:0.9",
        ("recipe.distillation_alpha requires a teacher", "add --teacher RUN"),
    ),
    (
        "tune --task toy-classify --backend toy-distilling --search recipe.distillation_alpha=0.0:0.9 "
        "--teacher {teacher}",
        ("recipe.distillation_alpha=0", "remove the teacher or this setting"),
    ),
    (
        "tune --task toy-classify --backend toy-distilling --search recipe.batch_size=8,16 --teacher {other_data}",
        ("dataset.draw is 1", "use the same dataset options"),
    ),
    # suites together with other options
    ("run --suite absent.toml", ("absent.toml: cannot be read",)),
    ("run --suite absent.toml --task toy-classify", ("--suite selects the runs", "remove --task")),
    ("run --suite absent.toml --set recipe.epochs=1", ("--suite selects the runs", "remove --set")),
]


@pytest.mark.parametrize(("line", "words"), MISUSES, ids=[line for line, _ in MISUSES])
def test_misuse_starts_nothing_and_names_the_remedy(
    line: str, words: tuple[str, ...], runs: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_refused(line, words, runs, monkeypatch)


SUITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no runs": ("", ("contains no runs", "add a table [[run]]")),
    "no task": ("[[run]]\nseed = 1\n", (":1: ", "this entry selects no runs; set task or weights")),
    "unknown key": (ENTRY + 'optimiser = "adam"\n', (":4: ", "unknown key 'optimiser'", "known: backend")),
    "unknown option": (ENTRY + "set = { recipe.epoch = 2 }\n", (":4: ", "did you mean 'recipe.epochs'?")),
    "absent option": (ENTRY + "set = { model.width = 2 }\n", (":4: ", "'model.width'", "known: model.bias")),
    "no dropout": (ENTRY + "set = { recipe.dropout = 0.2 }\n", (":4: ", "remove recipe.dropout")),
    "wrong type": (ENTRY + 'set = { recipe.epochs = "two" }\n', (":4: ", "recipe.epochs", "Expected `int`")),
    "wrong choice": ('protocol = "quik"\n' + ENTRY, (":1: ", "unknown protocol 'quik'", "did you mean 'quick'?")),
    "contradiction": (
        ENTRY + 'set = { recipe.optimizer = "adam", recipe.momentum = 0.9 }\n',
        (":4: ", "recipe.momentum has no effect", "remove it"),
    ),
    "empty matrix": (
        ENTRY + "matrix = { recipe.batch_size = [] }\n",
        (":4: ", "'recipe.batch_size' in matrix requires a list of values"),
    ),
    "set and matrix": (
        ENTRY + "set = { recipe.epochs = 2 }\nmatrix = { recipe.epochs = [2, 3] }\n",
        (":5: ", "'recipe.epochs' is in both set and matrix; remove one of them"),
    ),
    "exclude of nothing": (
        ENTRY + "matrix = { recipe.epochs = [2, 3] }\nexclude = [{ recipe.epochs = 5 }]\n",
        (":5: ", "recipe.epochs = 5 matches no run", "are 2, 3"),
    ),
    "unknown teacher": (
        NAMED + ENTRY + 'teacher = "absent"\n',
        (":8: ", "teacher 'absent'", "the named entries of the suite are t"),
    ),
    "absent checkpoint of a student": (
        NAMED + ENTRY + 'teacher = "{teacher}"\npretrained = "absent"\n',
        (":5: 'absent' is neither a folder nor a hub id",),
    ),
    "absent checkpoint of a teacher": (
        ENTRY + 'teacher = "t"\n' + NAMED + 'pretrained = "absent"\n',
        (":5: 'absent' is neither a folder nor a hub id",),
    ),
    "several teachers": (
        NAMED + "seed = [0, 1]\n" + ENTRY + 'teacher = "t"\n',
        (":9: ", "'t' defines 2 runs", "select one backend and one seed"),
    ),
    "teacher of another task": (
        NAMED.replace("classify", "regress") + ENTRY + 'teacher = "t"\n',
        (":8: ", "for task 'toy-regress'", "select the same task"),
    ),
    "teacher on other data": (
        NAMED + "set = { dataset.noise = 0.3 }\n" + ENTRY + 'teacher = "t"\n',
        (":9: ", "dataset.noise is 0.3", "use the same dataset options"),
    ),
    "teacher without effect": (
        NAMED + ENTRY + 'teacher = "t"\nset = { recipe.distillation_alpha = 0 }\n',
        (":8: ", "recipe.distillation_alpha=0", "remove the teacher or this setting"),
    ),
    "names used twice": (NAMED + NAMED, (":8: ", "the name 't' occurs twice; use another name")),
    "weights with a recipe": (
        '[[run]]\nweights = "{teacher}"\nbackend = "toy-numpy"\nset = {{ recipe.epochs = 2 }}\n',
        (":4: ", "recipe.epochs cannot be changed"),
    ),
}


@pytest.mark.parametrize("name", SUITES)
def test_misuse_in_a_suite_is_reported_with_its_line(
    name: str, runs: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words = SUITES[name]
    suite = tmp_path / "suite.toml"
    suite.write_text(text.format_map(runs) if "{teacher}" in text else text)
    check_refused(f"run --suite {suite}", words, runs, monkeypatch)


def test_suite_with_weights_needs_no_task(runs: Mapping[str, str], tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(f'[[run]]\nweights = "{runs["teacher"]}"\nbackend = "toy-numpy"\n')
    shown = harness_cli("run", "--suite", suite, "--dry-run", results=Path(runs["results"]))
    assert "1 run planned" in shown.stdout
