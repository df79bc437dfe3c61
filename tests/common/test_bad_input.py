# ruff: noqa: E501 - a case of the tables is read best on one line
"""Bad input of every kind: one line that says where, what is wrong and what would be right; exit code 2."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.cli import main
from common.commands import bench
from common.errors import InputError
from common.notebook import result
from common.specs.new import make
from common.verdicts import record as records
from tests.conftest import ROOT

NAME = "example/projection"
SPEC = "replications/example/projection.yaml"
CODE = "replications/example/projection.py"
CLAIMS = "expected/example/projection.yaml"
RECORD = "expected/example/projection.record.yaml"
SAMPLES = "expected/example/projection.samples.parquet"

SPEC_TEXT = """\
title: An example
paper: example
version: 1
code: replications.example.projection
model:
  class_path: replications.example.model.Autoencoder
  init_args: {n_hidden: 1}
features:
  class_path: common.features.Independent
  init_args: {n_features: 2, batch_size: 256}
optimizer:
  class_path: torch.optim.AdamW
  init_args: {lr: 1e-2}
trainer: {max_steps: 800, compile: false}
seeds: 5
sweep:
  - density: [1., .5]
profiles:
  quick:
    seeds: 3
    trainer.max_steps: 400
controls:
  decayed:
    why: strong weight decay
    set: {optimizer.init_args.weight_decay: 20.}
    rejects: [squared_norm]
"""
CLAIMS_TEXT = """\
claims:
  squared_norm:
    statement: the squared weights sum to 1
    kind: theory
    source: {paper: example, where: by algebra, read_by: derived}
    theory: {value: 1}
    estimate: {metric: squared_norm, at: {density: .5}, statistic: mean}
    margin: {value: .2, rule: "ten steps off"}
"""
GRID_TEXT = CLAIMS_TEXT.replace(
    "norm:", "norm{end}:\n    for:\n      - {end: '', p: .5}\n      - {end: _2, p: .25}"
).replace("{density: .5}", '{density: "{p}"}')
OF_THE_RECORD = {"squared_norm": [1.0, 1.01, 0.99, 1.02, 0.98]}
RECORD_TEXT = """\
profiles:
  full:
    hash: abc
    versions: {python: 3.11.7}
    device: CPU
    commit: e70aadf87362
    date: '2026-11-21'
    claims:
      squared_norm:
        verdict: reproduced
        value: 1.0
        low: .9
        high: 1.1
    controls:
      decayed: {squared_norm: not reproduced}
    samples: DIGEST
""".replace("DIGEST", records._digest(OF_THE_RECORD))
TEXTS = {SPEC: SPEC_TEXT, CLAIMS: CLAIMS_TEXT, RECORD: RECORD_TEXT}
FUNCTIONS = '''

def share(table: pd.DataFrame, above: float = 1.) -> "pd.Series[bool]":
    """Which networks are above."""
    return table["squared_norm"] > above


def constant(a: float) -> float:
    """A theory."""
    return a
'''


class Case(NamedTuple):
    """One mistake: passages of a file changed (old, new), and what the line must contain."""

    file: str
    old: str
    new: str
    says: tuple[str, ...]


def spec(old: str, new: str, *says: str) -> Case:
    return Case(SPEC, old, new, says)


def claims(old: str, new: str, *says: str) -> Case:
    return Case(CLAIMS, old, new, says)


def record(old: str, new: str, *says: str) -> Case:
    return Case(RECORD, old, new, says)


LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" if before else f"{name}: &{name} [lol, lol]\n"
    for before, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)
PYTHON = "!!python/object/apply:os.system ['touch ran']"
DEEP = "[" * 1500 + "]" * 1500

CASES = [
    # the file as a whole
    spec(SPEC_TEXT, "", ":1: expected a mapping"),
    spec(SPEC_TEXT, "- a\n- b\n", ":1: expected a mapping"),
    spec(SPEC_TEXT, "just words", ":1: expected a mapping"),
    spec(SPEC_TEXT, "42", ":1: expected a mapping"),
    spec(SPEC_TEXT, "null", ":1: expected a mapping"),
    spec(SPEC_TEXT, "# nothing\n", ":1: expected a mapping"),
    spec(SPEC_TEXT, "--- {}\n--- {}\n", ":2: "),
    spec(SPEC_TEXT, "{}", "missing key"),
    spec(SPEC_TEXT, SPEC_TEXT[:500], ":23: controls.decayed: input should be a mapping"),
    spec(SPEC_TEXT, SPEC_TEXT[:221], ":1: sweep: missing key"),
    spec(SPEC_TEXT, LAUGHS + SPEC_TEXT, ""),
    spec(SPEC_TEXT, DEEP, ":1: nested too deeply"),
    spec("title: An example", "title: " + DEEP, ":1: nested too deeply"),
    spec("title: An example", "title: &a [*a]", ":1: title.0: an alias inside the node that it refers to"),
    spec("model:\n", "model: &m\n  self: *m\n", "an alias inside the node that it refers to"),
    spec("title: An example", "title: *nothing", ":1: not YAML: found undefined alias"),
    spec("title: An example", f"title: {PYTHON}", ":1: the tag"),
    spec("title: An example", "title: !!python/name:os.system", ":1: "),
    spec("title: An example", "title: !!python/object/new:os.system [ls]", ":1: the tag"),
    spec("title: An example", "title: !!python/module:os ''", ":1: "),
    spec("title: An example", "title: !!binary aGVsbG8=", ":1: title: "),
    spec("title: An example", "title: !!set {a, b}", ":1: the tag"),
    spec("title: An example", "title: !mine x", ":1: "),
    spec("title: An example", "title: !!str [a]", ":1: "),
    spec("title: An example", "<<: {title: a}", ":1: merge keys (<<) are not supported; write the keys out"),
    spec("title: An example", "title: An: example", ":1: not YAML: mapping values are not allowed"),
    spec("title: An example", "title: 'An example", "not YAML: while scanning a quoted scalar"),
    spec("title: An example", "title: {a: b", ":2: not YAML"),
    spec("title: An example", "title: A\x00B", ":1: not YAML: special characters are not allowed: '\\x00'"),
    spec("title: An example", "title: A\x1b[31mB", ":1: not YAML: special characters are not allowed"),
    spec("title: An example", "\ttitle: An example", ":1: not YAML"),
    spec("  init_args: {n_hidden: 1}", "\tinit_args: {n_hidden: 1}", ":7: not YAML"),
    spec("title: An example", "? [a, b]\n: c\ntitle: x", ":1: "),
    spec("title: An example", "1: one\ntitle: x", ":1: 1: a key must be a string"),
    spec("title: An example", "null: one\ntitle: x", ":1: None: a key must be a string"),
    spec("title: An example", "yes: one\ntitle: x", ":1: True: a key must be a string"),
    # keys
    spec("title:", "titel:", ":1: titel: unknown key; did you mean 'title'?"),
    spec("title: An example\n", "", "title: missing key"),
    spec("paper: example\n", "", "paper: missing key"),
    spec("code: replications.example.projection\n", "", "code: missing key"),
    spec("version: 1\n", "", "version: missing key"),
    spec("seeds: 5\n", "", "seeds: missing key"),
    spec("sweep:\n  - density: [1., .5]\n", "", "sweep: missing key"),
    spec("trainer: {max_steps: 800, compile: false}\n", "", "trainer: missing key"),
    spec(
        "optimizer:\n  class_path: torch.optim.AdamW\n  init_args: {lr: 1e-2}\n", "", "optimizer: missing key"
    ),
    spec("version: 1\n", "version: 1\nversion: 2\n", ":4: version: duplicate key, first on line 3; keep one"),
    spec("seeds: 5", "seed: 5", ":15: seed: unknown key; did you mean 'seeds'?"),
    spec("max_steps: 800", "max_step: 800", ":14: trainer.max_step: unknown key; did you mean 'max_steps'?"),
    spec("{max_steps: 800, compile: false}", "{compile: false}", ":14: trainer.max_steps: missing key"),
    spec("    why: strong weight decay\n", "", ":23: controls.decayed.why: missing key"),
    spec("    rejects: [squared_norm]\n", "", "controls.decayed.rejects: missing key"),
    spec("class_path: torch.optim.AdamW", "class: torch.optim.AdamW", ":12: optimizer.class: unknown key"),
    spec("  class_path: torch.optim.AdamW\n", "", "optimizer.class_path: missing key"),
    # values
    spec("title: An example", "title: 3", ":1: title: ", "string"),
    spec("title: An example", "title:", ":1: title: ", "string"),
    spec("version: 1", "version: 0", ":3: version: ", "greater than 0"),
    spec("version: 1", "version: -1", ":3: version: ", "greater than 0"),
    spec("version: 1", "version: 1.5", ":3: version: ", "integer"),
    spec("version: 1", "version: '1'", ":3: version: ", "integer"),
    spec("version: 1", "version: true", ":3: version: ", "integer"),
    spec("version: 1", "version: .nan", ":3: version: ", "integer"),
    spec("version: 1", "version: [1]", ":3: version: ", "integer"),
    spec("seeds: 5", "seeds: 0", ":15: seeds: ", "greater than 0"),
    spec("seeds: 5", "seeds: -5", ":15: seeds: "),
    spec("seeds: 5", "seeds: five", ":15: seeds: "),
    spec("seeds: 5", "seeds: []", ":15: seeds: expected at least one seed"),
    spec("seeds: 5", "seeds: [1, 1]", ":15: seeds: expected at least one seed, and no seed twice"),
    spec("seeds: 5", "seeds: [-1]", ":15: seeds.0: "),
    spec("seeds: 5", "seeds: [a]", ":15: seeds.0: "),
    spec(
        "seeds: 5", "seeds: 99999999999999999999", ":16: sweep: asks for 199,999,999,999,999,999,998 networks"
    ),
    spec("seeds: 5", "seeds: 1000000000000", "; expected at most 1,000,000, which limits.networks can raise"),
    spec("seeds: 5", "seeds: [99999999999999999999999]", ":15: seeds.0: "),
    spec("seeds: 5", "seeds: " + "9" * 5000, ":15: "),
    spec("max_steps: 800", "max_steps: 0", ":14: trainer.max_steps: ", "greater than 0"),
    spec("max_steps: 800", "max_steps: 1e3", ":14: trainer.max_steps: ", "integer"),
    spec("max_steps: 800", "max_steps: 99999999999999999999", ":14: trainer.max_steps: "),
    spec("max_steps: 800", "max_steps: .inf", ":14: trainer.max_steps: ", "integer"),
    spec("compile: false", "compile: no way", ":14: trainer.compile: ", "boolean"),
    spec("compile: false", "compile: 0", ":14: trainer.compile: ", "boolean"),
    spec("trainer: {max_steps: 800, compile: false}", "trainer: 800", ":14: trainer: "),
    spec("trainer: {max_steps: 800, compile: false}", "trainer: []", ":14: trainer: "),
    spec("seeds: 5\n", "seeds: 5\nshard_size: 0\n", ":16: shard_size: "),
    spec("seeds: 5\n", "seeds: 5\nshard_weights: -1\n", ":16: shard_weights: "),
    spec("seeds: 5\n", "seeds: 5\nwatch: 3\n", ":16: watch: "),
    spec("paper: example", "paper: 2022-13-01", ":2: '2022-13-01' is not a valid timestamp"),
    spec("paper: example", "paper: 2022-01-01", ":2: paper: "),
    # the sweep
    spec("  - density: [1., .5]", "  []", ":16: sweep: "),
    spec("  - density: [1., .5]", "  {density: 1.}", ":16: sweep: "),
    spec("  - density: [1., .5]", "  - 3", ":17: sweep.0: "),
    spec("  - density: [1., .5]", "  - {}", ":10: features.init_args.density: missing key"),
    spec(
        "density: [1., .5]",
        "denisty: [1., .5]",
        ":17: sweep.0.denisty: unknown factor; did you mean 'density'",
    ),
    spec("density: [1., .5]", "density: []", ":17: sweep.0.density: a factor needs at least one value"),
    spec("density: [1., .5]", "density: [1., 1.]", ":17: sweep.0.density.1: 1.0 is listed twice"),
    spec("density: [1., .5]", "density: [1., 2.]", ":17: sweep.0.density.1: "),
    spec("density: [1., .5]", "density: [1., -1]", ":17: sweep.0.density.1: "),
    spec("density: [1., .5]", "density: [.nan]", ":17: sweep.0.density.0: "),
    spec("density: [1., .5]", "density: .inf", ":17: sweep.0.density: "),
    spec("density: [1., .5]", "density: half", ":17: sweep.0.density: "),
    spec("density: [1., .5]", "density: [[1.]]", ":17: sweep.0.density.0: "),
    spec("density: [1., .5]", "density: null", ":17: sweep.0.density: "),
    spec("density: [1., .5]", "density: {from: 0, to: 1, count: 3, spacing: log}", ":17: sweep.0.density: "),
    spec("density: [1., .5]", "density: {from: .1, to: 1}", ":17: sweep.0.density.count: missing key"),
    spec("density: [1., .5]", "density: {from: .1, to: 1, count: 1}", ":17: sweep.0.density.count: "),
    spec(
        "density: [1., .5]",
        "density: {from: .1, to: 1, count: 3, spacing: cubic}",
        "sweep.0.density.spacing: ",
    ),
    spec("density: [1., .5]", "density: {start: .1, to: 1, count: 3}", "sweep.0.density.start: unknown key"),
    spec("density: [1., .5]", "density: {from: .1, to: .1, count: 3}", "is listed twice"),
    spec(
        "density: [1., .5]",
        "density: {from: .1, to: 1, count: 9999999999999}",
        ": sweep: asks for 49,999,999,999,995 networks",
    ),
    spec("density: [1., .5]", "density: {from: .nan, to: 1, count: 3}", "sweep.0.density.from: "),
    spec(
        "density: [1., .5]",
        "density: .5\n    n_hidden: 2",
        "model.init_args.n_hidden: given both here and in sweep",
    ),
    spec("density: [1., .5]", "density: .5\n    part: []", ":18: sweep.0.part: expected a name"),
    spec(
        "density: [1., .5]",
        "density: .5\n    part: a\n  - part: a",
        ":19: sweep.1.part: another entry is also called",
    ),
    spec("density: [1., .5]", "density: .5\n    optimizer: Adam", ":18: sweep.0.optimizer: "),
    spec("density: [1., .5]", "density: .5\n    seed: 3", ":18: sweep.0.seed: unknown factor"),
    # classes and their arguments
    spec(
        "n_hidden: 1", "n_hiden: 1", ":7: model.init_args.n_hiden: unknown argument; did you mean 'n_hidden'?"
    ),
    spec("{n_hidden: 1}", "{}", "model.init_args.n_hidden: missing key"),
    spec("n_hidden: 1", "n_hidden: 0", ":7: model.init_args.n_hidden: "),
    spec("n_hidden: 1", "n_hidden: -1", ":7: model.init_args.n_hidden: "),
    spec("n_hidden: 1", "n_hidden: one", ":7: model.init_args.n_hidden: "),
    spec(
        "n_hidden: 1",
        "n_hidden: 999999999999",
        ":7: model.init_args.n_hidden: 999,999,999,999 times 2 features is",
    ),
    spec(
        "n_hidden: 1",
        "n_hidden: 99999999999999999999",
        " is too large; expected at most 50,000,000, which limits",
    ),
    spec("n_features: 2", "n_features: 0", ":10: features.init_args.n_features: "),
    spec("batch_size: 256", "batch_size: -1", ":10: features.init_args.batch_size: "),
    spec("batch_size: 256", "batch_size: 256, seeds: 3", ":10: features.init_args.seeds: unknown argument"),
    spec("lr: 1e-2", "lr: -1", ":13: optimizer.init_args.lr: "),
    spec("lr: 1e-2", "lr: .nan", ":13: optimizer.init_args.lr: "),
    spec("lr: 1e-2", "lr: fast", ":13: optimizer.init_args.lr: "),
    spec("lr: 1e-2", "lr: 1e-2, params: []", ":13: optimizer.init_args.params: unknown argument"),
    spec("lr: 1e-2", "lr: 1e-2, betas: [.9]", ":13: optimizer.init_args.betas"),
    spec("lr: 1e-2", "lr: 1e-2, betas: [2., 3.]", ":13: optimizer.init_args.betas"),
    spec(
        "replications.example.model.Autoencoder",
        "Autoencoder",
        ":6: model.class_path: expected package.module.Class",
    ),
    spec(
        "replications.example.model.Autoencoder", "''", ":6: model.class_path: expected package.module.Class"
    ),
    spec(
        "replications.example.model.Autoencoder",
        "replications.example.model.Autoencodr",
        "did you mean 'Autoencoder'?",
    ),
    spec(
        "replications.example.model.Autoencoder",
        "replications.example.modle.Autoencoder",
        ":6: model.class_path: cannot import",
    ),
    spec(
        "replications.example.model.Autoencoder",
        "..model.Autoencoder",
        ":6: model.class_path: '..model' is not the dotted name",
    ),
    spec(
        "replications.example.model.Autoencoder",
        "common.ensemble.Ensemble",
        "'Ensemble' is not a class derived from",
    ),
    spec("class_path: replications.example.model.Autoencoder", "class_path: 3", ":6: model.class_path: "),
    spec(
        "code: replications.example.projection",
        "code: replications.example.projektion",
        ":4: code: cannot import",
    ),
    spec(
        "code: replications.example.projection",
        "code: replications/example/projection.py",
        ":4: code: ",
        "is not the dotted name of a module",
    ),
    spec(
        "code: replications.example.projection",
        "code: replications.example.model",
        ":4: code: ",
        "has no function figures(table, claims)",
    ),
    spec(
        "code: replications.example.projection",
        "code: os",
        ":4: code: os has no function figures(table, claims)",
    ),
    spec(
        "code: replications.example.projection", "code: ''", ":4: code: '' is not the dotted name of a module"
    ),
    spec(
        "code: replications.example.projection",
        "code: replications.example.projection\nplain: nowhere.plain",
        ":5: plain: ",
    ),
    spec(
        "code: replications.example.projection",
        "code: replications.example.projection\nplain: os",
        ":5: plain: ",
    ),
    spec(
        "seeds: 5\n",
        "seeds: 5\nlr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR}\n",
        "lr_scheduler",
    ),
    spec("seeds: 5\n", "seeds: 5\nlr_scheduler: torch.optim.lr_scheduler.StepLR\n", ":16: lr_scheduler: "),
    *(
        spec(f"class_path: {right}", f"class_path: {wrong}", f": {key}.class_path: ", "a class derived from")
        for key, right in (
            ("model", "replications.example.model.Autoencoder"),
            ("features", "common.features.Independent"),
            ("optimizer", "torch.optim.AdamW"),
        )
        for wrong in (
            "subprocess.Popen",
            "builtins.eval",
            "os.system",
            "os.path",
            "torch.nn.Linear",
            "builtins.object",
        )
    ),
    *(
        spec(
            "seeds: 5\n",
            f"seeds: 5\nlr_scheduler: {{class_path: {wrong}}}\n",
            ":16: lr_scheduler.class_path: ",
            "a class derived from",
        )
        for wrong in ("subprocess.Popen", "builtins.eval", "os.path", "torch.optim.AdamW")
    ),
    *(
        spec(
            "compile: false",
            f"compile: false, logger: {{class_path: {wrong}}}",
            ":14: trainer.logger.class_path: ",
            "a class derived from",
        )
        for wrong in ("subprocess.Popen", "builtins.eval", "os.path", "torch.optim.AdamW")
    ),
    *(
        spec(
            "density: [1., .5]",
            f"density: .5\n    optimizer: {{class_path: {wrong}}}",
            ":18: sweep.0.optimizer.class_path: ",
            "a class derived from",
        )
        for wrong in ("subprocess.Popen", "os.system", "os.path")
    ),
    spec("compile: false", "compile: false, logger: yes", ":14: trainer.logger: "),
    spec("compile: false", "compile: false, log_every_steps: 0", ":14: trainer.log_every_steps: "),
    # profiles and controls
    spec("  quick:\n    seeds: 3\n    trainer.max_steps: 400\n", "  quick: 3\n", ":19: profiles.quick: "),
    spec("trainer.max_steps: 400", "trainer.max_step: 400", "trainer.max_step"),
    spec("trainer.max_steps: 400", "trainer.max_steps: -400", ":21: "),
    spec("trainer.max_steps: 400", "trainer.max_steps.x: 400", ":21: "),
    spec(
        "trainer.max_steps: 400", "sweep.3.density: 1.", ":21: sweep.3.density: a list of 1 has no item '3'"
    ),
    spec("trainer.max_steps: 400", "trainr.max_steps: 400", ":21: trainr.max_steps: no key 'trainr'"),
    spec(
        "optimizer.init_args.weight_decay: 20.",
        "optimizer.init_args.weight_decy: 20.",
        ":25: ",
        "did you mean 'weight_decay'",
    ),
    spec(
        "optimizer.init_args.weight_decay: 20.",
        "optimizer.weight_decay: 20.",
        ":25: optimizer.weight_decay: unknown key",
    ),
    spec("{optimizer.init_args.weight_decay: 20.}", "[]", ":25: controls.decayed.set: "),
    spec("{optimizer.init_args.weight_decay: 20.}", "{}", ":25: controls.decayed.set: "),
    spec("rejects: [squared_norm]", "rejects: []", ":26: controls.decayed.rejects: "),
    spec("rejects: [squared_norm]", "rejects: squared_norm", ":26: controls.decayed.rejects: "),
    spec(
        "rejects: [squared_norm]",
        "rejects: [squared_nrom]",
        ":26: controls.decayed.rejects.0: no claim 'squared_nrom'",
    ),
    spec(
        "rejects: [squared_norm]",
        "rejects: [squared_norm, squared_norm]",
        "controls.decayed: rejects names a claim twice; name each once",
    ),
    spec("  decayed:\n", "  ../decayed:\n", ":23: ", "expected a name of letters"),
    spec("  decayed:\n", "  'a/b':\n", ":23: ", "expected a name of letters"),
    spec("  decayed:\n", "  '':\n", ":23: ", "expected a name of letters"),
    spec("  quick:\n", "  ../../quick:\n", ":19: ", "expected a name of letters"),
    spec("  quick:\n", "  full:\n", ":19: ", "other than full"),
    # claims
    claims(CLAIMS_TEXT, GRID_TEXT, ":5: claims.squared_norm_2.estimate.at: no row at density = 0.25"),
    claims(
        CLAIMS_TEXT,
        GRID_TEXT.replace("_2", "''"),
        ":5: claims.squared_norm{end}.for.1: line 4 already makes the claim 'squared_norm'; ",
    ),
    claims(
        CLAIMS_TEXT,
        GRID_TEXT.replace(".25}", ".5, profiles: [ful]}"),
        ":5: claims.squared_norm_2.profiles.0: no profile 'ful'",
    ),
    claims(
        CLAIMS_TEXT,
        GRID_TEXT.replace(".25", ".5").replace("metric: squared", "metric: sqared"),
        ":10: claims.squared_norm.estimate.metric: no column 'sqared_norm'",
    ),
    claims("  squared_norm:", "  squared_norm_{p}:", ":2: claims.squared_norm_{p}: {p} needs `for`"),
    claims(CLAIMS_TEXT, "", ":1: expected a mapping"),
    claims(CLAIMS_TEXT, "claims: {}", ":1: claims: "),
    claims(CLAIMS_TEXT, "claims: []", ":1: claims: "),
    claims(CLAIMS_TEXT, CLAIMS_TEXT[:200], ":7: not YAML: while parsing a flow mapping"),
    claims(CLAIMS_TEXT, LAUGHS + CLAIMS_TEXT, ""),
    claims("claims:", "claim:", ":1: claim: unknown key; did you mean 'claims'?"),
    claims("statement: the squared weights sum to 1", "statement: ''", ":3: claims.squared_norm.statement: "),
    claims(
        "statement:", "statment:", ":3: claims.squared_norm.statment: unknown key; did you mean 'statement'?"
    ),
    claims("kind: theory", "kind: theroy", ":4: claims.squared_norm.kind: "),
    claims(
        "kind: theory", "kind: published", "kind published needs published and margin, got margin, theory"
    ),
    claims("kind: theory", "kind: ordering", "kind ordering needs bound"),
    claims("kind: theory", "kind: fit", "kind fit needs"),
    claims("kind: theory", "kind: fraction", "kind fraction needs"),
    claims("read_by: derived", "read_by: eye", ":5: claims.squared_norm.source.read_by: "),
    claims("paper: example, ", "", ":5: claims.squared_norm.source.paper: missing key"),
    claims("theory: {value: 1}", "theory: {value: .nan}", ":6: claims.squared_norm.theory.value: "),
    claims("theory: {value: 1}", "theory: {value: .inf}", ":6: claims.squared_norm.theory.value: "),
    claims("theory: {value: 1}", "theory: {value: one}", ":6: claims.squared_norm.theory.value: "),
    claims("theory: {value: 1}", "theory: 1", ":6: claims.squared_norm.theory: "),
    claims("    theory: {value: 1}\n", "", "kind theory needs theory and margin"),
    claims(
        '    margin: {value: .2, rule: "ten steps off"}\n',
        "",
        "kind theory needs theory and margin, got theory",
    ),
    claims("value: .2,", "value: -.2,", ":8: claims.squared_norm.margin.value: "),
    claims("value: .2,", "value: 0,", ":8: claims.squared_norm.margin.value: "),
    claims("value: .2,", "", ":8: claims.squared_norm.margin: "),
    claims('rule: "ten steps off"', "rule: published_precision", ":8: claims.squared_norm.margin: "),
    claims(', rule: "ten steps off"', "", ":8: claims.squared_norm.margin.rule: missing key"),
    claims(
        "metric: squared_norm", "metrc: squared_norm", "estimate.metrc: unknown key; did you mean 'metric'?"
    ),
    claims(
        "at: {density: .5}",
        "at: {denisty: .5}",
        ":7: claims.squared_norm.estimate.at: no column 'denisty'; did you mean 'density'",
    ),
    claims(
        "at: {density: .5}",
        "at: {density: .25}",
        ":7: claims.squared_norm.estimate.at: no row at density = 0.25",
    ),
    claims(
        "at: {density: .5}",
        "at: {density: half}",
        ":7: claims.squared_norm.estimate.at: no row at density = half",
    ),
    claims("at: {density: .5}", "at: [density]", ":7: claims.squared_norm.estimate.at: "),
    claims("statistic: mean", "statistic: median", ":7: claims.squared_norm.estimate.statistic: "),
    claims(
        "metric: squared_norm, at: {density: .5}, statistic: mean",
        "function: nothing",
        "no function 'nothing'",
    ),
    claims(
        "metric: squared_norm, at: {density: .5}, statistic: mean",
        "function: os.system, args: {command: ls}",
        "no function",
    ),
    claims("metric: squared_norm, at: {density: .5}, statistic: mean", "function: __import__", "no function"),
    claims(
        "metric: squared_norm, at: {density: .5}, statistic: mean",
        "function: constant",
        "args.a: missing key",
    ),
    claims(
        "metric: squared_norm, at: {density: .5}, statistic: mean",
        "function: constant, args: {b: 1.}",
        "args.b: unknown argument",
    ),
    claims(
        "metric: squared_norm, at: {density: .5}, statistic: mean",
        "function: constant, args: {a: x}",
        "args.a: ",
    ),
    claims(
        "metric: squared_norm,",
        "metric: squared_norm, function: share,",
        ":7: claims.squared_norm.estimate: ",
    ),
    claims(
        "metric: squared_norm, at: {density: .5}, statistic: mean",
        "statistic: mean",
        ":7: claims.squared_norm.estimate: ",
    ),
    claims(
        "    margin:",
        "    bound: {at_least: 1., at_most: 0., rule: x}\n    margin:",
        ":8: claims.squared_norm.bound: give exactly one",
    ),
    claims(
        "    margin:", "    bound: {rule: x}\n    margin:", ":8: claims.squared_norm.bound: give exactly one"
    ),
    claims("    margin:", "    profiles: []\n    margin:", ":8: claims.squared_norm.profiles: "),
    claims("    margin:", "    profiles: [fulll]\n    margin:", "profiles.0: no profile 'fulll'"),
    claims("    margin:", "    investigated: 3\n    margin:", ":8: claims.squared_norm.investigated: "),
    claims(
        "    margin:",
        "    margin: {value: .1, rule: x}\n    margin:",
        ":9: margin: duplicate key, first on line 8",
    ),
    claims("kind: theory\n", "kind: published\n    published: {value: 1, sd: .1}\n", "sd needs n"),
    claims("kind: theory\n", "kind: published\n    published: {value: 1, sd: 0, n: 1}\n", "published.sd: "),
    claims("kind: theory\n", "kind: published\n    published: {value: 1, n: 0}\n", "published.n: "),
    claims("  squared_norm:\n", f"  squared_norm: {PYTHON}\n  b:\n", ":2: the tag"),
    # records
    record(RECORD_TEXT, "", ":1: expected a mapping"),
    record(RECORD_TEXT, "profiles: []", ":1: profiles: "),
    record(RECORD_TEXT, RECORD_TEXT[:150], "profiles.full"),
    record(RECORD_TEXT, LAUGHS + RECORD_TEXT, ""),
    record("hash: abc", "hash: 123", ":3: profiles.full.hash: "),
    record("hash: abc", "hsah: abc", ":3: profiles.full.hsah: unknown key; did you mean 'hash'?"),
    record("    device: CPU\n", "", "profiles.full.device: missing key"),
    record("date: '2026-11-21'", "date: 2026-11-21", "profiles.full.date: "),
    record("verdict: reproduced", "verdict: maybe", ":10: profiles.full.claims.squared_norm.verdict: "),
    record("value: 1.0", "value: one", ":11: profiles.full.claims.squared_norm.value: "),
    record("    samples: ", "    samples: [3] # ", "profiles.full.samples: "),
    record("high: 1.1", "high: 1.1\n        samples: [1.0, 1.01]", ":14: this record has an older format"),
    record("      squared_norm:\n", "      other:\n", "no claim 'squared_norm', though "),
    record(
        "decayed: {squared_norm: not reproduced}",
        "decayed: {squared_norm: lost}",
        "controls.decayed.squared_norm: ",
    ),
    record("decayed: {squared_norm: not reproduced}", "decayed: 3", "controls.decayed: "),
    record("hash: abc", f"hash: {PYTHON}", ":3: the tag"),
    record("hash: abc", "hash: a\x07c", ":3: not YAML: special characters"),
]


# --- files as bytes, links and folders


def _nothing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _not_utf8(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"example", b"ex\xff\xfeample", 1))


def _utf16(path: Path) -> None:
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))


# --- the command line: arguments, and what the line must contain

OPTIONS: list[tuple[list[str], str]] = [
    (["run", NAME, "--set", "trainer.max_step=3"], "--set trainer.max_step=3: trainer.max_step: unknown key; did you mean"),
    (["run", NAME, "--set", "trainer.max_steps"], "--set trainer.max_steps: expected KEY=VALUE"),
    (["run", NAME, "--set", "=3"], "--set =3: expected KEY=VALUE"),
    (["run", NAME, "--set", "trainer.max_steps="], "--set trainer.max_steps=: trainer.max_steps: "),
    (["run", NAME, "--set", "trainer.max_steps=-3"], "greater than 0, got -3"),
    (["run", NAME, "--set", "trainer.max_steps=.nan"], "valid integer, got nan"),
    (["run", NAME, "--set", "trainer.max_steps=[1"], "is not a YAML value"),
    (["run", NAME, "--set", "trainer.max_steps=\x00"], "is not a YAML value"),
    (["run", NAME, "--set", "trainer..max_steps=3"], "no key ''"),
    (["run", NAME, "--set", "a.b=3"], "no key 'a'; "),
    (["run", NAME, "--set", "sweep.7.density=1."], "a list of 1 has no item '7'"),
    (["run", NAME, "--set", "sweep.0.density=!!python/object/apply:os.system [ls]"], "the tag"),
    (["run", NAME, "--set", "title=!!python/name:os.system"], "the tag"),
    (["run", NAME, "--set", "title=&a [*a]"], "an alias inside the node that it refers to"),
    (["run", NAME, "--set", "title={a: 1, a: 2}"], "duplicate key"),
    (["run", NAME, "--set", "model.class_path=subprocess.Popen"], "'Popen' is not a class derived from"),
    (["run", NAME, "--set", "trainer.logger.class_path=os.system"], "'system' is not a class derived from Logger"),
    (["run", NAME, "--set", "code=os"], "os has no function figures(table, claims)"),
    (["run", NAME, "--set", "seeds=1000000", "--set", "sweep.0.density={from: .1, to: 1, count: 9}"], "asks for 9,000,000 networks"),
    (["run", NAME, "--seeds", "0"], "--seeds 0: seeds: "),
    (["run", NAME, "--seeds", "-1"], "--seeds -1: seeds: "),
    (["run", NAME, "--seeds", "many"], "--seeds many: seeds: "),
    (["run", NAME, "--seeds", "[1, 1]"], "no seed twice"),
    (["run", NAME, "--seeds", ""], "--seeds : seeds: "),
    (["run", NAME, "--profile", "quik"], "no profile 'quik'; did you mean 'quick'?"),
    (["run", NAME, "--profile", "../full"], "no profile '../full'"),
    (["run", NAME, "--devices", "0"], "--devices 0: expected at least 1"),
    (["run", NAME, "--devices", "two"], "argument --devices: invalid int value: 'two'"),
    (["run", NAME, "--accelerator", "tpu"], "argument --accelerator: invalid choice: 'tpu'"),
    (["run", NAME, "--no-such"], "unrecognized arguments: --no-such"),
    (["run", NAME, "--set"], "argument --set: expected one argument"),
    (["run", NAME, "--out", "/dev/null/results"], "/dev/null"),
    (["check", NAME, "--keep-weights", "all"], "unrecognized arguments: --keep-weights all"),
    (["run", NAME, "--keep-weights", ""], "''"),
    (["run", NAME, "--keep-weights", "seed"], "is not a condition"),
    (["run", NAME, "--keep-weights", "seed == 99"], "selects no network"),
    (["run", NAME, "--keep-weights", "sed == 0"], "the columns of example/projection are part, density, seed"),
    (["run", NAME, "--keep-weights", "seed =="], "invalid syntax"),
    (["run", NAME, "--keep-weights", "@__import__('os').system('touch ran')"], "invalid syntax"),
    (["run", NAME, "--keep-weights", "__import__('os').system('touch ran') == 0"], "call is not allowed"),
    (["run", NAME, "--keep-weights", "seed.__class__ == 0"], "attribute is not allowed"),
    (["run", NAME, "--keep-weights", "seed == seed.to_csv('ran')"], "is not allowed"),
    (["run", NAME, "--keep-weights", "seed[0] == 0"], "subscript is not allowed"),
    (["run", NAME, "--keep-weights", "9**9**9**9 == seed"], "pow is not allowed"),
    (["run", NAME, "--keep-weights", "part == 'a' * 99999999999"], "text can only be compared"),
    (["run", NAME, "--keep-weights", "(lambda: 0)() == 0"], "is not allowed"),
    (["run", NAME, "--keep-weights", "seed = 1"], "invalid syntax"),
    (["run", NAME, "--keep-weights", "(" * 400 + ")" * 400], "the columns of"),
    (["run", "example/projektion"], "no such replication; did you mean 'example/projection'?"),
    (["run", "nothing/like/it"], "no such replication"),
    (["run", "nowhere.yaml"], "expected ROOT/replications/PAPER/RESULT.yaml"),
    (["cite", "example/projektion"], "no such replication"),
    (["compare", "nowhere", "nowhere"], "nowhere"),
    (["rum"], "invalid choice: 'rum'"),
    ([], "the following arguments are required: COMMAND"),
    (["new", "One/two"], "is not a valid name for a Python module"),
    (["new", "../two"], "is not a valid name for a Python module"),
    (["new", "a/b/c"], "expected PAPER/RESULT"),
    (["new", "example/projection"], "exists; choose another name"),
]  # fmt: skip


# --- the tests


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one replication."""
    root = tmp_path_factory.mktemp("bad")
    make(root, NAME)
    with (root / CODE).open("a", encoding="utf-8") as code:
        code.write(FUNCTIONS)
    return root


@pytest.fixture
def example(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with its files as they were, and the working directory in it."""
    (root / SAMPLES).write_bytes(records._table({"full": OF_THE_RECORD}))
    for name, text in TEXTS.items():
        path = root / name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def files(root: Path) -> dict[Path, bytes | None]:
    """All below `root`, and what is in it, but for what Python keeps of modules."""
    paths = (path for path in root.rglob("*") if "__pycache__" not in path.parts)
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def refused(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that is said of bad input, at once, before anything is written."""
    before, start = files(root), time.process_time()
    assert main(["--root", str(root), *arguments]) == 2
    assert time.process_time() - start < 5
    assert files(root) == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.endswith("\n")
    assert said.err.startswith("replicate: ")
    assert len(said.err) < 600
    assert "Traceback" not in said.err
    return said.err.removeprefix("replicate: ")


def test_the_files_are_good_as_they_are(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for profile in ("full", "quick"):
        assert main(["--root", str(example), "status", NAME, "--profile", profile]) == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{Path(case.file).suffixes[0]}-{case.new[:30]!r}")
def test_a_mistake_in_a_file(example: Path, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEXTS[case.file]
    assert text.count(case.old) == 1
    (example / case.file).write_text(text.replace(case.old, case.new), encoding="utf-8")
    # before anything is trained, which `run` would do with a good file
    in_quick = "quick" in case.old or "400" in case.old
    line = refused(example, capsys, "run", NAME, "--profile", "quick" if in_quick else "full")
    assert line.startswith(f"{example / case.file}:")
    for passage in case.says:
        assert passage in line


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (file, change)
        for file in (SPEC, CLAIMS, RECORD)
        for change in (_nothing, _folder, _loop, _not_utf8, _utf16)
        if (file, change) != (RECORD, _nothing)  # which need not be there
    ],
)
def test_a_file_that_cannot_be_read(
    example: Path, file: str, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    if file == RECORD:
        (example / file).write_text(RECORD_TEXT.replace("abc", "example"), encoding="utf-8")
        (example / SAMPLES).write_bytes(records._table({"full": OF_THE_RECORD}))
    change(example / file)
    line = refused(example, capsys, "run", NAME)
    if (file, change) == (SPEC, _nothing):
        assert "no such replication; there are none" in line
    else:
        assert line.startswith(f"{example / file}: cannot be read: ")


@pytest.mark.parametrize(("arguments", "says"), OPTIONS, ids=lambda value: str(value)[:60])
def test_a_mistake_on_the_command_line(
    example: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(example, capsys, *arguments)
    assert not (example / "ran").exists()


def test_a_path_that_is_a_loop_of_links(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = example / SPEC
    _loop(loop)
    assert "cannot be read: " in refused(example, capsys, "run", str(loop))


def test_a_mistake_in_a_process_of_its_own(example: Path) -> None:
    (example / SPEC).write_text(SPEC_TEXT.replace("seeds: 5", "seed: 5"), encoding="utf-8")
    command = [sys.executable, "-m", "common", "--root", str(example), "status", NAME]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "seed: unknown key; did you mean 'seeds'?" in done.stderr


SHORT = ("--profile", "quick", "--set", "trainer.max_steps=1", "--seeds", "2", "--devices", "1")
FAULTS = [
    ("figures", "def figures(table, claims):\n    return 1 / 0\n", ":2: figures() failed: ZeroDivisionError: division by zero"),
    ("figures", "def figures(table, claims):\n    return table['no']\n", ":2: figures() failed: KeyError: 'no'"),
    ("figures", "def figures(table, claims):\n    return None\n", "figures() must return a dict"),
    (
        "figures",
        "def figures(table, claims):\n    return claims['squared_nrm']\n",
        ":2: figures() failed: LookupError: no claim 'squared_nrm'; did you mean 'squared_norm'?",
    ),
    (
        "figures",
        "def figures(table, claims):\n    return claims.published('squared_norm')\n",
        ":2: figures() failed: LookupError: claim 'squared_norm' has no published number; there are none",
    ),
    ("share", "def share(table):\n    return table.nothing\n", ":2: share() failed: AttributeError: "),
    ("share", "def share(table):\n    return None\n", "failed: TypeError: "),
]  # fmt: skip


@pytest.mark.parametrize(("name", "code", "says"), FAULTS)
def test_a_fault_in_a_replication_s_functions_loses_nothing(
    tmp_path: Path, name: str, code: str, says: str, capsys: pytest.CaptureFixture[str], uncompiled: None
) -> None:
    make(tmp_path, NAME)
    claims = CLAIMS_TEXT.replace(
        "metric: squared_norm, at: {density: .5}, statistic: mean", "function: share"
    )
    if name == "share":
        (tmp_path / CLAIMS).write_text(claims, encoding="utf-8")
        code += "def figures(table, claims):\n    return {}\n"
    (tmp_path / CODE).write_text(code, encoding="utf-8")
    (tmp_path / SPEC).write_text(SPEC_TEXT, encoding="utf-8")
    assert main(["--root", str(tmp_path), "run", NAME, *SHORT]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"replicate: {tmp_path / CODE}")
    assert said.err.count("\n") == 1
    assert says in said.err
    assert len(list(tmp_path.glob("results/example/projection/quick*/*/manifest.json"))) == 2


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("(table)", "(table)"),
        ("(table: object, wide: bool = True, *, claims: object) -> int", "(table, wide=True, *, claims)"),
        ("()", "()"),
        ("(table, claims, more)", "(table, claims, more)"),
    ],
)
def test_figures_that_do_not_take_the_claims(
    example: Path, signature: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (example / CODE).write_text(f"\n\n\ndef figures{signature}:\n    return {{}}\n", encoding="utf-8")
    for command in ("run", "check"):
        said = refused(example, capsys, command, NAME)
        assert said.startswith(f"{example / CODE}:4: figures{told} does not take the claims; ")
        assert "expected figures(table, claims), where claims[NAME] is a claim from expected" in said


@pytest.mark.parametrize(
    "code",
    [
        "def figures(table, claims=None):\n    return {}\n",
        "def figures(*both):\n    return {}\n",
        "class Figures:\n    def __call__(self, table, claims):\n        return {}\nfigures = Figures()\n",
    ],
)
def test_figures_that_take_the_claims_in_another_way(
    example: Path, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (example / CODE).write_text(code, encoding="utf-8")
    assert main(["--root", str(example), "status", NAME]) == 0


# --- what runs whose code


TRAP = "import pathlib, sys; sys.stderr.write('imported'); pathlib.Path('{ran}').touch()\n"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The spec of another root, whose modules leave a mark when they are imported."""
    other = tmp_path / "other"
    make(other, "theirs/result")
    for module in ("result.py", "model.py"):
        path = other / "replications" / "theirs" / module
        text = TRAP.format(ran=tmp_path / "ran") + path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
    return other / "replications" / "theirs" / "result.yaml"


@pytest.mark.parametrize("command", ["run", "check", "status", "report", "bench", "notebook"])
def test_it_is_said_before_foreign_code_runs(
    example: Path,
    foreign: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*of: Any) -> None:
        raise InputError("measuring the machine takes seconds, and is not what is tested")

    monkeypatch.setattr(bench, "Machine", fails)
    if command == "notebook":
        result(str(foreign), root=example)
    else:
        short = [*SHORT[2:4]] if command in ("run", "check", "status") else []
        main(["--root", str(example), command, str(foreign), *short])
    said = capsys.readouterr().err
    assert said.startswith(f"replicate: importing code from {foreign.parents[2]}\nimported")


@pytest.mark.parametrize("command", ["cite", "list"])
def test_what_needs_no_code_imports_none(
    example: Path, foreign: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "cite":
        assert main(["--root", str(example), "cite", str(foreign)]) == 0
    else:
        assert main(["--root", str(foreign.parents[2]), "list"]) == 0
    said = capsys.readouterr()
    assert said.out
    assert "imported" not in said.err
    assert not (foreign.parents[3] / "ran").exists()


def test_the_test_runner_takes_specs_of_the_root_only(
    example: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "common.pytest_plugin", "--replications", str(foreign)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=example, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "imported" not in done.stdout + done.stderr
    assert not (foreign.parents[3] / "ran").exists()


# --- what nobody thought of


KEYS = [line.split(":")[0].strip(" -") for text in (SPEC_TEXT, CLAIMS_TEXT) for line in text.splitlines()]
JUNK = [
    "",
    "\t",
    "\x00",
    "\x1b",
    ": ",
    "- ",
    "[",
    "}",
    "&a ",
    "*a",
    "!!set ",
    "!!python/name:os.system ",
    "%",
    "'",
]
VALUES = [
    *(".nan", ".inf", "-1", "0", "1e999", "9" * 30, "[]", "{}", "null", "true", "''", "x"),
    "[[]]",
    "{a: {}}",
]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str]:
    """A file, and its text with one thing done to it that may or may not be a mistake."""
    file = draw(st.sampled_from([SPEC, CLAIMS, RECORD]))
    lines = TEXTS[file].splitlines(keepends=True)
    i = draw(st.integers(0, len(lines) - 1))
    key, colon, value = lines[i].partition(":")
    what = draw(st.sampled_from(["delete", "twice", "misspell", "value", "junk", "truncate", "indent"]))
    if what == "delete":
        lines[i] = ""
    elif what == "twice":
        lines[i] *= 2
    elif what == "misspell":
        lines[i] = key + draw(st.sampled_from(["x", "_", "é", " "])) + colon + value
    elif what == "value":
        lines[i] = f"{key}: {draw(st.sampled_from(VALUES))}\n"
    elif what == "indent":
        lines[i] = draw(st.sampled_from([" ", "    "])) + lines[i]
    text = "".join(lines)
    at = draw(st.integers(0, len(text)))
    if what == "junk":
        text = text[:at] + draw(st.one_of(st.sampled_from(JUNK), st.text(max_size=3))) + text[at:]
    return file, text[:at] if what == "truncate" else text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutation=mutations())
def test_any_change_of_a_file_is_read_or_refused(
    example: Path, capsys: pytest.CaptureFixture[str], mutation: tuple[str, str]
) -> None:
    (example / SAMPLES).write_bytes(records._table({"full": OF_THE_RECORD}))
    for file, text in TEXTS.items():
        (example / file).write_text(text, encoding="utf-8")
    file, text = mutation
    (example / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    before = files(example)
    command = ["check" if file == RECORD else "status", NAME]
    code = main(["--root", str(example), *command])
    said = capsys.readouterr()
    assert code in ((2,) if file == RECORD else (0, 2))  # there are no results to check
    assert said.err.count("\n") == (code == 2)
    if code == 2 and file != RECORD:
        assert "yaml:" in said.err
    assert files(example) == before
