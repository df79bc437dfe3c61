"""Faults in users' code are one line with its file and line, known before training where they can be."""

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.cli import main
from common.errors import InputError, blame, blamed, staying, told

NAME = "example/projection"
CODE, MODEL = "replications/example/projection.py", "replications/example/model.py"
SPEC, CLAIMS = "replications/example/projection.yaml", "expected/example/projection.yaml"
BIB = "replications/example/citation.bib"


@pytest.fixture
def edit(example: Path) -> Callable[[str, str, str], None]:
    """Replace a passage of one of the example's files."""

    def replace(file: str, old: str, new: str) -> None:
        text = (example / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, old
        (example / file).write_text(text.replace(old, new), encoding="utf-8")

    return replace


def line_of(root: Path, file: str, passage: str) -> int:
    lines = (root / file).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if passage in line)


def refused(root: Path, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line with which a command ends."""
    capsys.readouterr()
    assert main(["--root", str(root), *command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("replicate: ")
    assert said.count("\n") == 1
    return said


EXITS = [
    "import sys; sys.exit(0)",
    "import sys; sys.exit()",
    "raise SystemExit",
    "exit(0)",
    "quit()",
    "import os; os._exit(0)",
    "raise BaseException('odd')",
    "raise StopIteration",
]
FAULTS = [
    *EXITS,
    "undefined_name",
    "assert False, 'so it is'",
    "raise RuntimeError('two\\nlines')",
    "raise Exception",
    "1 / 0",
    "[][0]",
    "None.attribute",
    "open('/nowhere/at/all')",
    "import numppy",
    "raise UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'bad')",
    "raise ImportError('no such thing')",
    "raise MemoryError",
    "raise Warning('careful')",
    "(lambda f: f(f))(lambda f: f(f))",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_when_a_module_is_imported(
    example: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    path = example / CODE
    path.write_text(path.read_text(encoding="utf-8") + f"\n\n{fault}  # here\n", encoding="utf-8")
    for command in ("run", "check", "status"):
        said = refused(example, capsys, command, NAME)
        assert (
            f"cannot import 'replications.example.projection': {path}:{line_of(example, CODE, '# here')}: "
            in said
        )


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("def figures(table, claims:\n    return {}\n", 1, "SyntaxError: "),
        ("x = 1\n  y = 2\n", 2, "IndentationError: unexpected indent"),
        ("x = 'a\n", 1, "SyntaxError: "),
        ("print 'hello'\n", 1, "SyntaxError: "),
    ],
)
def test_a_module_that_is_not_python(
    example: Path, capsys: pytest.CaptureFixture[str], text: str, line: int, says: str
) -> None:
    (example / CODE).write_text(text, encoding="utf-8")
    said = refused(example, capsys, "run", NAME)
    assert f": {says}" in said
    assert f"{example / CODE}:{line}: " in said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_figures_are_drawn(
    example: Path, edit: Any, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    edit(SPEC, "max_steps: 800", "max_steps: 2")
    edit(CODE, "    figure = Figure()", f"    {fault}  # here\n    figure = Figure()")
    said = refused(example, capsys, "run", NAME, "--devices", "1")
    place = f"{example / CODE}:{line_of(example, CODE, '# here')}"
    assert said.startswith(f"replicate: {place}: figures() failed: ")
    assert said.endswith("; what was trained is stored\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_while_networks_train(
    example: Path, edit: Any, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    hook = f"    def after_step(self) -> None:\n        {fault}  # here\n\n"
    edit(MODEL, "    def metrics(self)", f"{hook}    def metrics(self)")
    said = refused(example, capsys, "run", NAME, "--devices", "1")
    place = f"{example / MODEL}:{line_of(example, MODEL, '# here')}"
    if fault == "raise MemoryError":
        assert f"{NAME}: out of memory with a single network" in said
    elif fault == "raise StopIteration":  # which ends a loop over batches, and says nothing
        assert re.search(r"training ended after [0-9]+ of 800 steps: Autoencoder stopped it", said)
        assert not list(example.glob("results/**/shards"))
    else:
        assert said.startswith(f"replicate: {place}: {NAME}, shard 0-0: training failed: ")


def test_training_that_a_model_stops_is_not_stored(
    example: Path, edit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = "    def after_step(self) -> None:\n        self.trainer.should_stop = True\n\n"
    edit(MODEL, "    def metrics(self)", f"{hook}    def metrics(self)")
    said = refused(example, capsys, "run", NAME, "--devices", "1")
    assert re.search(r"training ended after [0-9]+ of 800 steps: Autoencoder stopped it", said)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_an_estimate(
    example: Path, edit: Any, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    edit(SPEC, "max_steps: 800", "max_steps: 2")
    path = example / CODE
    function = f"\n\ndef norm(table: pd.DataFrame) -> float:\n    {fault}  # here\n"
    path.write_text(path.read_text(encoding="utf-8") + function, encoding="utf-8")
    edit(CLAIMS, "{metric: squared_norm, at: {density: .5}, statistic: mean}", "{function: norm}")
    if "UnicodeDecodeError" in fault:  # a ValueError: the estimate says that it cannot be formed
        assert main(["--root", str(example), "run", NAME, "--devices", "1"]) == 1
        assert "squared_norm: new: invalid, not in the record" in capsys.readouterr().out
        return
    said = refused(example, capsys, "run", NAME, "--devices", "1")
    assert said.startswith(f"replicate: {path}:{line_of(example, CODE, '# here')}: norm() failed: ")


def test_a_citation_that_cannot_be_read_is_known_before_training(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (example / BIB).write_bytes("@article{example, author = {Müller}}".encode("latin-1"))
    said = refused(example, capsys, "run", NAME)
    assert said.startswith(f"replicate: {example / BIB}:1: ")
    assert not (example / "results").exists()


ADAM, SEEDS = "torch.optim.AdamW\n", "seeds: 5"
SCHEDULES = "torch.optim.lr_scheduler"
NO_STEP = ".class_path: cannot train here, where a step gets dense gradients and nothing else: "
COLUMN = "no column 'squared_nrom' in the table; did you mean 'squared_norm'?"


def schedule(name: str, arguments: str = "") -> str:
    given = f", init_args: {{{arguments}}}" if arguments else ""
    return f"lr_scheduler: {{class_path: {SCHEDULES}.{name}{given}}}\n{SEEDS}"


BEFORE = {
    "a column that is not there to watch": (SPEC, SEEDS, f"{SEEDS}\nwatch: squared_nrom", f"watch: {COLUMN}"),
    "no such metric": (CLAIMS, "metric: squared_norm", "metric: squared_nrom", f"metric: {COLUMN}"),
    "sparse gradients only": (SPEC, ADAM, "torch.optim.SparseAdam\n", f"optimizer{NO_STEP}RuntimeError"),
    "a closure": (SPEC, ADAM, "torch.optim.LBFGS\n", f"optimizer{NO_STEP}TypeError"),
    "each zero steps": (SPEC, SEEDS, schedule("StepLR", "step_size: 0"), f"lr_scheduler{NO_STEP}Zero"),
    "over no steps": (SPEC, SEEDS, schedule("CosineAnnealingLR", "T_max: 0"), "ZeroDivisionError"),
    "of the loss": (SPEC, SEEDS, schedule("ReduceLROnPlateau"), f"lr_scheduler{NO_STEP}TypeError"),
    "of nothing": (SPEC, SEEDS, schedule("StepLR"), "lr_scheduler.init_args.step_size: missing key"),
    "nothing is ever settled": (
        SPEC, "max_steps: 800", "max_steps: 800, stop_when_settled: true",
        "trainer.stop_when_settled: Autoencoder has no method settled()",
    ),
    "a control of nothing": (SPEC, "weight_decay: 20.", "weight_decay: 1e-2", "decayed.set: breaks nothing"),
    "a control of a title": (
        SPEC, "optimizer.init_args.weight_decay: 20.", "title: Another", "decayed.set: breaks nothing",
    ),
    "a control of fewer seeds": (
        SPEC, "optimizer.init_args.weight_decay: 20.", "seeds: 2", "decayed.set: breaks nothing",
    ),
    "a control of a part of the sweep": (
        SPEC, "optimizer.init_args.weight_decay: 20.", "sweep.0.density: .5", "decayed.set: breaks nothing",
    ),
    "a control of the way to train": (
        SPEC, "optimizer.init_args.weight_decay: 20.", "trainer.compile: true, shard_size: 2",
        "decayed.set: breaks nothing",
    ),
    "a claim in no profile": (
        CLAIMS, "statement: the", "profiles: [quick]\n    statement: the",
        "nothing to judge: no claim is judged in profile full",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "says"), BEFORE.values(), ids=BEFORE)
def test_what_is_known_without_training_is_known_before_it(
    example: Path, edit: Any, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, says: str
) -> None:
    edit(file, old, new)
    assert says in refused(example, capsys, "run", NAME, "--devices", "1")
    assert not list(example.glob("results/**/shards"))


COUPLES = "loss: the loss of a network depends on the weights of another"
WRONG = {
    "a scalar": ("loss", "return {right}.mean()", "loss: returned shape () for two networks"),
    "a mean for each": ("loss", "return {right}.mean().expand(len(x[0]))", COUPLES),
    "less the mean": ("loss", "return {right} - {right}.mean()", COUPLES),
    "of each input": ("loss", "return {right}.unsqueeze(-1).expand(-1, 3)", "loss: returned shape (2, 3)"),
    "none": ("loss", "return None", "loss: returned a NoneType for two networks"),
    "called loss": ("metrics", "{right}, 'loss': self.losses", "'loss' is the column of the held-out loss"),
    "called as a factor": ("metrics", "{right}, 'density': self.losses", "'density' is already a column"),
    "called seed": ("metrics", "{right}, 'seed': self.losses", "'seed' is already a column"),
    "of one name": (
        "metrics", "{right}, 'a': self.losses.expand(2, -1).mT, 'a_0': self.losses",
        "'a_0' is already a column",
    ),
    "one number for all": ("metrics", "{right}, 'm': self.losses.mean()", "'m' has shape (); expected"),
    "too long": ("metrics", "{right}, 'm': torch.zeros(7)", "'m' has shape (7,); expected"),
    "too short": ("metrics", "{right}, 'm': torch.zeros(1, 5)", "'m' has shape (1, 5); expected"),
    "a list": ("metrics", "{right}, 'm': [1., 2.]", "'m' has a list; expected a tensor"),
    "a fault": ("metrics", "{right}, 'm': undefined", "NameError: name 'undefined' is not defined"),
    "a measure called loss": ("measures", "'loss': lambda weight: weight", "Spoilt.measures: 'loss' is the"),
    "a measure called seed": ("measures", "'seed': lambda weight: weight[:, 0, 0]", "measures: 'seed' is a"),
    "a measure of one number": ("measures", "'m': lambda weight: weight.mean()", "returned a number"),
    "a measure that is a list": ("measures", "'m': lambda weight: [1.]", "returned a list; expected a"),
    "a measure too long": ("measures", "'m': lambda weight: torch.zeros(7)", "'m' has shape (7,); expected"),
    "a measure of a weight that is not there": (
        "measures", "'m': lambda weigth: weigth", "missing 1 required positional argument: 'weigth'",
    ),
    "a measure with a fault": ("measures", "'m': lambda weight: undefined", "NameError: name 'undefined'"),
    "a measure with a dot": ("measures", "'at_.5': lambda weight: weight", "KeyError: 'module name can"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "wrong", "says"), WRONG.values(), ids=WRONG)
def test_a_method_that_gives_something_else_is_known_before_training(
    example: Path, capsys: pytest.CaptureFixture[str], method: str, wrong: str, says: str
) -> None:
    """A class between the model and its spec spoils one of its methods."""
    if method == "loss":
        head = "    @staticmethod\n    def loss(weights, factors, x):\n        "
        body = wrong.format(right="Autoencoder.loss(weights, factors, x)")
    elif method == "measures":
        head, body = f"    measures = {{{wrong}}}\n", "    metrics = Ensemble.metrics"
    else:
        head = "    def metrics(self):\n        "
        body = f"return {{{wrong.format(right='**super().metrics()')}}}"
    path, spec = example / MODEL, example / SPEC
    spoilt = f"\n\nimport torch\n\n\nclass Spoilt(Autoencoder):\n{head}{body}\n"
    path.write_text(path.read_text(encoding="utf-8") + spoilt, encoding="utf-8")
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("model.Autoencoder", "model.Spoilt"), encoding="utf-8")
    said = refused(example, capsys, "run", NAME, "--devices", "1")
    assert says in said
    assert re.match(rf"replicate: {re.escape(str(path))}:\d+: ", said)
    assert not list(example.glob("results/**/shards"))


DENSITY = "density: [1., .5]"
ENTRIES = "\n".join(f"  - density: {1 / (i + 1)}" for i in range(5000))
SIZES = {
    "a range of a million": (DENSITY, "density: {from: .1, to: 1, count: 1000000}", "networks"),
    "a range of 10^14": (DENSITY, "density: {from: .1, to: 1, count: 99999999999999}", "networks"),
    "many seeds": (SEEDS, "seeds: 1000000000", "networks"),
    "five thousand entries": (f"  - {DENSITY}", ENTRIES, "shapes"),
    "many shapes": (DENSITY, f"{{density: .5, set_size: {list(range(1, 3000))}}}", "shapes"),
    "many hidden units": ("n_hidden: 1", "n_hidden: 100000000", "size"),
    "many features": ("n_features: 2", "n_features: 1000000000", "size"),
    "a large batch": ("batch_size: 256", "batch_size: 1000000000", "size"),
}


@pytest.mark.parametrize(("old", "new", "limit"), SIZES.values(), ids=SIZES)
def test_sizes_are_refused_before_anything_is_made_of_them(
    example: Path, edit: Any, capsys: pytest.CaptureFixture[str], old: str, new: str, limit: str
) -> None:
    edit(SPEC, old, new)
    if "set_size" in new:
        edit(SPEC, "Independent", "CorrelatedSets")
    start = time.process_time()
    said = refused(example, capsys, "run", NAME)
    assert "; expected at most " in said
    assert said.endswith(f", which limits.{limit} can raise\n")
    assert time.process_time() - start < 5  # far less; of the kind that takes minutes otherwise


def test_a_limit_can_be_raised(example: Path, edit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    edit(SPEC, "n_hidden: 1", "n_hidden: 3000")
    edit(SPEC, "seeds: 5", "limits: {size: 5000}\nseeds: 5")
    said = refused(example, capsys, "status", NAME)
    assert "model.init_args.n_hidden: 3,000 times 2 features is too large" in said
    assert main(["--root", str(example), "status", NAME, "--set", "limits.size=6000"]) == 0


def test_whose_fault_it_is(tmp_path: Path) -> None:
    """The last line of a replication's code, not of the library that it called wrongly."""
    path = tmp_path / "replications" / "paper" / "result.py"
    path.parent.mkdir(parents=True)
    path.write_text("import json\n\ndef wrong():\n    return json.loads('{')\n", encoding="utf-8")
    space: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    with (
        pytest.raises(
            InputError, match=rf"^{re.escape(str(path))}:4: it failed: JSONDecodeError: "
        ) as raised,
        blamed("it"),
    ):
        space["wrong"]()
    assert blame(raised.value.__cause__ or raised.value) == f"{path}:4"


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, GeneratorExit])
def test_interrupts_and_input_errors_pass(error: type[BaseException]) -> None:
    with pytest.raises(error), blamed("it", at="somewhere"):
        raise error


def test_another_thread_may_end_the_process() -> None:
    """As a worker's does, whose command was killed."""
    with staying():
        if (child := os.fork()) == 0:
            with staying():
                threading.Thread(target=lambda: os._exit(7)).start()
                time.sleep(60)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_forked_process_still_ends_at_once() -> None:
    with staying():
        if (child := os.fork()) == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_what_an_error_says_is_one_line_and_not_pages() -> None:
    assert told(ValueError("a\n  b")) == "ValueError: a b"
    assert told(KeyError()) == "KeyError"
    assert len(told(RuntimeError("x" * 100_000))) < 600
    assert told(SystemExit(0)) == "the code ended the program (exit code 0), which it must not do"
