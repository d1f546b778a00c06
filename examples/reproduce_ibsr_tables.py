"""Does supervoxel pooling help on IBSR? The tables of arXiv:1806.02705, tested with voxseg.

``python examples/reproduce_ibsr_tables.py DATA -o OUT --budget-minutes 80``, or ``make reproduce``.

The paper's protocol: baselines (V0) from scratch, supervoxel networks fine-tuned from them, max
pooling, k folds, Dice of the cases that a network did not see. A control that the paper lacks is
the baseline trained on for as long. The budget decides how far down the list of rows it goes, the
most telling first, and how many updates each gets; ``OUT/plan.json`` says it all. It can be stopped
and started again with the same line. Each row is a plain cross-validation in ``OUT/ROW``, so rows
can be made elsewhere and copied in. Every start ends with ``OUT/tables.json``, ``.md``, ``.html``.
"""

import argparse
import fnmatch
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import voxseg
from voxseg.data.case_lists import parse_json
from voxseg.data.layouts import Case
from voxseg.data.splits import Fold, check_split, read_split, split_hash, write_split
from voxseg.documents import refuse_newer
from voxseg.engine.config import merge, parse_setting
from voxseg.engine.device import choose_device
from voxseg.engine.manifest import data_hashes, describe_device, git_commit
from voxseg.engine.paper_plan import (
    Costs,
    Facts,
    Plan,
    Speed,
    check_facts,
    choose_rows,
    reaches_further,
    read_plan,
    rows_of,
)
from voxseg.engine.paper_report import write_tables
from voxseg.engine.paper_rows import PARTITIONS, Network, Row, all_rows, blocks
from voxseg.engine.paper_runs import (
    Conditions,
    FinishedRow,
    commit_of_unfinished,
    find_finished,
)
from voxseg.engine.paper_tables import make_tables
from voxseg.engine.progress import Progress
from voxseg.engine.run_folder import open_run
from voxseg.engine.train import examine
from voxseg.errors import ExitCode, UsageError, VoxsegError
from voxseg.schemas import IBSR_TABLES

PROBE_UPDATES = 12
MOST_PROBE_MINUTES = 2.0


class Reproduction:
    """One start of the script."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Look at data, split and finished rows; nothing is trained yet."""
        self.data: Path = options.data
        self.out: Path = options.output
        self.options = options
        self.began = time.monotonic()
        self.device = choose_device(options.device)
        dataset, report = examine(self.data, None)
        report.raise_for_errors()
        self.cases: dict[str, Case] = {case.case_id: case for case in dataset.cases}
        self.split = self.out / "split.json"
        if not self.split.exists():
            voxseg.split(self.data, self.split, folds=options.folds, seed=options.seed)
        self.parts = read_split(self.split)
        check_split(self.parts, list(self.cases), self.split)
        if len(self.parts) != options.folds:
            raise UsageError(
                f"{self.split} has {len(self.parts)} folds, asked for {options.folds}; give "
                f"--folds {len(self.parts)}, or choose another OUT"
            )
        self.settings: dict[str, Any] = {}
        for text in options.settings:
            self.settings = merge(self.settings, parse_setting(text))
        self.facts = Facts(
            budget_minutes=options.budget_minutes,
            folds=options.folds,
            seed=options.seed,
            wanted=list(options.rows),
            settings=self.settings,
            calibrate=options.calibrate,
            split_hash=split_hash(self.parts),
            data=data_hashes(dataset.cases),
            version=voxseg.__version__,
            git_commit=git_commit(),
        )

    def run(self) -> None:
        """Plan, train what is planned and not finished, write the tables."""
        if not self.options.tables_only:
            plan = self._plan()
            self._train(plan)
        finished = self._finished()
        timed_on, seconds = self._earlier_times()
        if not self.options.tables_only:
            here = describe_device(self.device)
            timed_on, seconds = here, seconds if timed_on == here else {}
            for name, row in finished.items():
                has_network = (row.folder / "fold-0/checkpoints/best.pt").is_file()
                if name not in seconds and has_network:
                    seconds[name] = self._time(row)
        facts = {
            "folds": self.facts.folds,
            "seed": self.facts.seed,
            "split_hash": self.facts.split_hash,
            "device": timed_on,
            "voxseg_version": self.facts.version,
            "git_commit": self.facts.git_commit,
        }
        tables = make_tables(finished, facts, seconds)
        for path in write_tables(tables, self.out):
            print(f"wrote {path}")
        for sentence in tables.conclusions:
            print(sentence)

    def _finished(self) -> dict[str, FinishedRow]:
        facts = self.facts
        conditions = Conditions(
            split_hash=facts.split_hash, seed=facts.seed, data=facts.data, version=facts.version
        )
        return find_finished(self.out, conditions)

    # What is trained, and how long.

    def _plan(self) -> Plan:
        path = self.out / "plan.json"
        finished = self._finished()
        if path.exists():
            plan = read_plan(path)
            check_facts(path, plan.facts, self.facts)
        else:
            plan = self._make_plan({name: one.updates for name, one in finished.items()})
            plan.write(path)
        for row, planned in rows_of(plan):
            state = "finished" if row.name in finished else f"about {planned.seconds / 60:.1f} min"
            print(f"{row.name}: {planned.updates} updates a fold, {state}")
        return plan

    def _make_plan(self, done: dict[str, int]) -> Plan:
        budget = 60 * self.options.budget_minutes
        wanted = self._wanted(done)
        sizes = {name: one.size_mm for name, one in PARTITIONS.items()}
        if self.options.calibrate:
            used = {row.partition for block in wanted for row in block}
            sizes |= {name: self._calibrated(name) for name in sizes if name in used}
        recipes = {row.name: self._recipe(row, sizes) for row in all_rows()}
        speeds: dict[str, dict[str, Speed]] = {}
        costs = Costs(
            speeds=speeds, recipes=recipes, folds=self.facts.folds, cases=len(self.cases), done=done
        )
        for network in dict.fromkeys(row.network for block in wanted for row in block):
            speeds[network] = self._probe(network, wanted, sizes)
            spent = time.monotonic() - self.began
            if spent > budget or (
                not self.options.rows and not reaches_further(wanted, costs, budget - spent)
            ):
                break  # a larger network would be out of reach: its probe is saved
        rows = choose_rows(wanted, costs, budget, time.monotonic() - self.began)
        return Plan(
            facts=self.facts,
            device=describe_device(self.device),
            sizes=sizes,
            speeds=speeds,
            rows=rows,
        )

    def _wanted(self, done: dict[str, int]) -> tuple[tuple[Row, ...], ...]:
        """All blocks, or one of the rows asked for and the baselines that they start from."""
        patterns = self.options.rows
        if not patterns:
            return blocks()
        names = {r.name for r in all_rows() if any(fnmatch.fnmatch(r.name, p) for p in patterns)}
        starts = {row.starts_from for row in all_rows() if row.name in names} - set(done)
        chosen = tuple(row for row in all_rows() if row.name in names | starts)
        return (chosen,) if chosen else ()

    def _recipe(self, row: Row, sizes: dict[str, float]) -> tuple[int, int]:
        """Epochs and updates of an epoch."""
        train = merge(row.settings(sizes), self.settings)["train"]
        return int(train["epochs"]), int(train["steps_per_epoch"])

    def _calibrated(self, partition: str) -> float:
        """Find the size that gives the paper's oracle on these data."""
        wanted = PARTITIONS[partition]
        with tempfile.TemporaryDirectory(dir=self.out, prefix=".probe-") as folder:
            report = voxseg.supervoxels(
                self.data,
                Path(folder) / "maps",
                method=wanted.method,
                size_mm=wanted.size_mm,
                target_oracle=wanted.oracle / 100,
            )
        print(f"{partition}: {report.settings.size_mm:.2f} mm for an oracle of {wanted.oracle:g}%")
        return report.settings.size_mm

    def _probe(
        self, network: Network, wanted: tuple[tuple[Row, ...], ...], sizes: dict[str, float]
    ) -> dict[str, Speed]:
        """Time a few updates, and one prediction, of each kind of network that is wanted."""
        rows = [row for block in wanted for row in block if row.network == network]
        probes = {"V0": Row(network, "V0")}
        # V1 to V3 cost about the same.
        for name, is_one in (("V3", False), ("V4", True)):
            found = [row for row in rows if row.partition and (row.design == "V4") == is_one]
            if found:
                probes[name] = found[0]
        return {name: self._speed(row, sizes) for name, row in probes.items()}

    def _speed(self, row: Row, sizes: dict[str, float]) -> Speed:
        print(f"measuring the speed of {row.name}")
        few = {"epochs": 1, "steps_per_epoch": PROBE_UPDATES, "max_minutes": MOST_PROBE_MINUTES}
        settings = merge(merge(row.changes(sizes), self.settings), {"train": few})
        names = list(self.cases)
        times: list[float] = []
        with tempfile.TemporaryDirectory(dir=self.out, prefix=".probe-") as folder:
            write_split(Path(folder) / "split.json", [Fold((names[0],), (names[1],))])
            began = time.monotonic()
            voxseg.crossval(
                self.data,
                Path(folder) / "run",
                split=Path(folder) / "split.json",
                recipe=row.recipe,
                settings=settings,
                seed=self.facts.seed,
                jobs=0,
                device=self.options.device,
                notify=lambda _: times.append(time.monotonic()),
            )
            ended = time.monotonic()
        gaps = sorted(later - earlier for earlier, later in itertools.pairwise(times))
        update = gaps[len(gaps) // 2] if gaps else times[0] - began
        return Speed(
            update_seconds=round(update, 5),
            fold_seconds=round(max(0.0, times[0] - began - update), 2),
            case_seconds=round(ended - times[-1], 2),
        )

    # Training and timing.

    def _train(self, plan: Plan) -> None:
        finished = self._finished()
        has_trained = False
        for row, planned in rows_of(plan):
            if row.name in finished:
                continue
            left = 60 * self.options.budget_minutes - (time.monotonic() - self.began)
            if has_trained and planned.seconds > left:
                print(f"the budget is used up; start again to go on with {row.name}")
                return
            folder = self.out / row.name
            begun = commit_of_unfinished(folder)
            if begun is not None and begun != self.facts.git_commit:
                raise UsageError(
                    f"{folder} was begun with commit {begun or 'unknown'}, and this is "
                    f"{self.facts.git_commit or 'unknown'}; move it out of the way, results are "
                    "not mixed"
                )
            print(f"training {row.name}")
            # A row that was begun has its settings; what its data changed cannot be asked anew.
            is_begun = (folder / "config.toml").is_file()
            settings = {} if is_begun else merge(row.changes(plan.sizes), self.settings)
            voxseg.crossval(
                self.data,
                folder,
                split=self.split,
                recipe=None if is_begun else row.recipe,
                settings=settings,
                epochs=planned.epochs,
                seed=self.facts.seed,
                init_from=self.out / row.starts_from if row.starts_from else None,
                jobs=self.options.jobs,
                device=self.options.device,
                resume=True,
                notify=_every_minute(row.name),
                say=lambda text: print(f"  {text}"),
            )
            has_trained = True

    def _time(self, finished: FinishedRow) -> float:
        """Predict one held-out volume twice and take the second time, in seconds."""
        case = self.cases[self.parts[0].val[0]]
        print(f"timing {finished.row.name}")
        seconds = 0.0
        for _ in range(2):
            with tempfile.TemporaryDirectory(dir=self.out, prefix=".probe-") as folder:
                (outcome,) = voxseg.predict(
                    finished.folder / "fold-0",
                    case.images[0],
                    Path(folder) / "masks",
                    device=self.options.device,
                )
            if outcome.error:
                raise VoxsegError(outcome.error)
            seconds = outcome.seconds
        return seconds

    def _earlier_times(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Read the device that an earlier start timed on, and its seconds by row."""
        path = self.out / "tables.json"
        if not path.is_file():
            return {}, {}
        content = parse_json(path)
        refuse_newer(content, IBSR_TABLES, path)
        timed = {row["row"]: row.get("seconds_per_volume") for row in content["rows"]}
        return content["device"], {name: s for name, s in timed.items() if s is not None}


def _every_minute(name: str) -> Callable[[Progress], None]:
    """Say once a minute how far a fold is."""
    last = time.monotonic()

    def notify(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= 60:
            last = time.monotonic()
            print(
                f"  {name}: update {progress.step} of {progress.steps}, loss {progress.loss:.3f}, "
                f"{progress.seconds_left / 60:.0f} min left of this fold",
                flush=True,
            )

    return notify


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of labelled volumes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the rows")
    parser.add_argument("--budget-minutes", type=float, default=80.0, help="80 by default")
    parser.add_argument("--folds", type=int, default=3, help="3 by default, as the paper has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time; 0: in this process")
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="PATTERN", help="only these, such as 'full-v3-*'"
    )
    parser.add_argument(
        "--calibrate", action="store_true", help="find supervoxel sizes for the paper's oracle Dice"
    )
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="change a setting of every row",
    )  # fmt: skip
    parser.add_argument("--tables-only", action="store_true", help="train and time nothing")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run the script; returns its exit code, one of the program's."""
    options = parse(words)
    try:
        with open_run(options.output, resume=True, overwrite=False):
            Reproduction(options).run()
    except VoxsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; start again with the same line to go on", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
