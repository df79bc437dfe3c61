"""How often a claim comes out otherwise under other seeds: `study`.

All groups of seeds are trained at once, as one run of the quick profile with many seeds, and its table is
then cut into one per group: a network depends on its own seed and factors, not on its shard (but for
rounding), so each is what a run of its own would have given. Each is judged as any other run is.
"""

import functools
import hashlib
import multiprocessing
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from common.runs.progress import shown
from common.runs.training import Devices, train
from common.statistics import fraction_interval
from common.system.terminal import Terminal
from common.verdicts import record as records
from common.verdicts.claims import Verdict
from common.verdicts.evaluate import evaluate
from common.verdicts.judge import Replication, load_replication

PROFILE = "quick"

APART = 960_000
"""From a group of seeds to the next; no seed of the suite is as large.

Claims that take the best of every ten networks, or 64, find these by dividing the seed: it is a multiple of
all such numbers, so that groups are cut as seeds from 0 are.
"""

SUMMED = [str(verdict) for verdict in Verdict]


def groups_of(seeds: list[int], groups: int) -> list[list[int]]:
    """As many lists of seeds, each as `seeds` but others."""
    return [[APART * (group + 1) + seed for seed in seeds] for group in range(groups)]


def load(root: Path, name: str, groups: int, out: Path) -> tuple[Replication, list[list[int]]]:
    """The quick profile of a replication with the seeds of all groups, and these.

    Raises:
        InputError: as `load_replication`.
    """
    quick = load_replication(root, name, PROFILE, out=out).run.spec
    lists = groups_of(quick.seeds, groups)
    # where the quick profile has smaller shards, it is to have one for each of few processors
    size = max(quick.fields.shard_size, load_replication(root, name, out=out).run.spec.fields.shard_size)
    changed = {
        "seeds": ([seed for seeds in lists for seed in seeds], "the seeds of the study"),
        "shard_size": (size, "the shards of the study"),
    }
    return load_replication(root, name, PROFILE, changed, out), lists


def cut(table: pd.DataFrame, seeds: list[int]) -> pd.DataFrame:
    """The instances table of a run that has these seeds only."""
    return table[table["seed"].isin(seeds)]


def study(
    root: Path, names: list[str], groups: int, devices: Devices, out: Path, console: Terminal
) -> pd.DataFrame:
    """Train and judge all groups of these replications, and write and print what became of their claims.

    Returns a row per claim, which stands in `out`/seeds.csv too; the verdicts of each group are in
    `out`/PAPER/RESULT/verdicts-*.csv.

    Raises:
        InputError: as `load_replication`.
    """
    loaded = {name: load(root, name, groups, out) for name in names}
    judged = []
    for name, (replication, lists) in loaded.items():
        started, used = time.monotonic(), _processor_s()
        with shown(console, {}) as progress:
            train([replication.run], devices, progress)
        trained, used_to_train = time.monotonic(), _processor_s() - used
        judged.append(_verdicts(root, replication, lists, devices, out))
        console.print(
            f"{name}: {groups} groups of {len(lists[0])} seeds, trained in {trained - started:.0f} s, "
            f"judged in {time.monotonic() - trained:.0f} s, of processors {used_to_train:.0f} s and "
            f"{_processor_s() - used - used_to_train:.0f} s",
            highlight=False,
        )
    verdicts = pd.concat(judged, ignore_index=True)
    counted = count(verdicts, {name: replication for name, (replication, _) in loaded.items()})
    counted.to_csv(out / "seeds.csv", index=False)
    for line in summary(counted, verdicts):
        console.print(line, soft_wrap=True)
    return counted


def _processor_s() -> float:
    """The processors' time of this process and of those that it has ended: not longer on a busy machine."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, who))


def _verdicts(
    root: Path, replication: Replication, lists: list[list[int]], devices: Devices, out: Path
) -> pd.DataFrame:
    """The outcome of each claim in each group: read, or if code or claims have changed, judged again."""
    sources = (replication.files.expected, Path(str(replication.run.spec.code.__file__)))
    texts = [replication.run.hash.encode(), *(path.read_bytes() for path in sources)]
    digest = hashlib.sha256(b"\0".join(texts)).hexdigest()[:12]
    path = out / replication.name / f"verdicts-{digest}.csv"
    if path.exists():
        return pd.read_csv(path)
    table = replication.run.table()
    assert table is not None
    one = functools.partial(judge_group, root, replication.name)
    tables = (cut(table, seeds) for seeds in lists)
    if devices.n == 1:
        each = list(map(one, tables))
    else:
        with ProcessPoolExecutor(devices.n, multiprocessing.get_context("spawn")) as pool:
            each = list(pool.map(one, tables))
    verdicts = pd.concat([found.assign(group=i) for i, found in enumerate(each)], ignore_index=True)
    temporary = path.with_name(f".{path.name}")
    verdicts.to_csv(temporary, index=False)
    temporary.replace(path)
    return verdicts


def judge_group(root: Path, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The outcomes of a replication's claims on the table of one group, a row per claim."""
    replication = _loaded(root, name)
    found = evaluate(replication.claims, replication.run.spec.code, table)
    return pd.DataFrame(
        {
            "replication": name,
            "claim": claim,
            "verdict": str(outcome.verdict),
            "value": outcome.value,
            "low": outcome.low,
            "high": outcome.high,
            "from_seeds": bool(outcome.samples) or outcome.verdict is Verdict.INVALID,
        }
        for claim, outcome in found.items()
    )


@functools.cache  # once in each process
def _loaded(root: Path, name: str) -> Replication:
    return load_replication(root, name, PROFILE)


def count(verdicts: pd.DataFrame, replications: dict[str, Replication]) -> pd.DataFrame:
    """A row per claim: its verdicts as recorded in both profiles, and how many groups gave which.

    `true`: the full profile's record has it as reproduced. `from_seeds`: its estimate is of networks, so that
    seeds can change it.
    """
    keys = ["replication", "claim"]
    counted = verdicts.groupby(keys, sort=False)["verdict"].value_counts().unstack(fill_value=0)
    counted = counted.reindex(columns=SUMMED, fill_value=0).reset_index()
    of_seeds = verdicts.groupby(keys, sort=False)["from_seeds"].any()
    counted["from_seeds"] = [bool(of_seeds[row]) for row in counted[keys].itertuples(index=False, name=None)]
    recorded: dict[str, list[str]] = {"full": [], "quick": []}
    stored = {name: records.load(replication.files.record) for name, replication in replications.items()}
    for row in counted.itertuples():
        for profile, column in recorded.items():
            record = stored[str(row.replication)].get(profile)
            known = record.claims.get(str(row.claim)) if record else None
            column.append(str(known.verdict) if known else "")
    counted = counted.assign(recorded_full=recorded["full"], recorded_quick=recorded["quick"])
    return counted.assign(true=counted["recorded_full"] == str(Verdict.REPRODUCED))


def summary(counted: pd.DataFrame, verdicts: pd.DataFrame) -> Iterator[str]:
    """What is printed of a table of `count` and the verdicts behind it."""
    groups = verdicts["group"].nunique()
    lost = str(Verdict.NOT_REPRODUCED)
    true = counted[counted["true"] & counted["from_seeds"]]
    fixed = int((counted["true"] & ~counted["from_seeds"]).sum())
    yield (
        f"{len(true)} claims are true (reproduced in the full profile, as recorded) and estimated from "
        f"networks; {fixed} more are true and calculated without any, so that no seed changes them."
    )
    chance = true[true["recorded_quick"] != lost]
    named = (
        ("All of them", true),
        ("Without those that the quick profile's record has as not reproduced", chance),
    )
    for title, claims in named:
        for verdict in (lost, *map(str, (Verdict.INCONCLUSIVE, Verdict.UNDECIDABLE, Verdict.INVALID))):
            yield f"{title}: {verdict} {share(claims, verdicts, verdict)}"
    of_group = _of(chance, verdicts)
    alarms = (of_group["verdict"] == lost).groupby(of_group["group"]).sum()
    spread = np.bincount(alarms.to_numpy(dtype=int)).tolist() if len(alarms) else []
    yield f"Runs with so many true claims falsely not reproduced (of {groups}): " + (
        ", ".join(f"{n}: {runs}" for n, runs in enumerate(spread)) or "none"
    )
    for title, rows in (
        ("True claims that came out not reproduced", true[true[lost] > 0]),
        ("Claims whose verdict varies", counted[(counted[SUMMED] > 0).sum(axis=1) > 1]),
    ):
        yield f"{title}: {len(rows)}"
        for row in rows.sort_values(lost, ascending=False).to_dict("records"):
            shown = ", ".join(f"{verdict} {row[verdict]}" for verdict in SUMMED if row[verdict])
            yield (
                f"  {row['replication']} {row['claim']}: {shown}; recorded: full {row['recorded_full']}, "
                f"quick {row['recorded_quick']}"
            )


def share(claims: pd.DataFrame, verdicts: pd.DataFrame, verdict: str) -> str:
    """In which share of the groups these claims have this verdict, with its 95 % interval over groups.

    Groups are the independent unit, as claims of one group share networks.
    """
    if claims.empty:
        return "of none"
    of_group = _of(claims, verdicts).groupby("group")["verdict"]
    hits, all_of = of_group.apply(lambda column: int((column == verdict).sum())), of_group.size()
    n_hits, n_all = int(hits.sum()), int(all_of.sum())
    left_out = ((n_hits - hits) / (n_all - all_of)).tolist() if len(hits) > 1 else []
    low, high = fraction_interval(n_hits / n_all, n_all, left_out)
    between = f", between {low:.2%} and {high:.2%}" if np.isfinite(low) else ""
    return f"{n_hits} of {n_all}, {n_hits / n_all:.2%}{between}"


def _of(claims: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    return verdicts.merge(claims[["replication", "claim"]])
