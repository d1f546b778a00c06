"""Fill a small disk while voxseg works on it; run by ``test_full_disk`` inside its own mounts.

``python full_disk.py DATA DISK SETTINGS.json`` mounts a tmpfs on DISK, lets each command run out of
space at many points, gives it space again and resumes. Prints one JSON object.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

from voxseg.engine.crossval import crossval
from voxseg.engine.dealing import Dealing
from voxseg.engine.predict import PredictRequest, predict
from voxseg.engine.train import TrainRequest, train
from voxseg.errors import VoxsegError

ROOMY = 256 * 1024
# KiB: from too small for the first file to nearly enough.
SIZES = {"training": (4, 16, 320, 560), "folds": (16, 320, 720), "masks": (4, 40, 320, 420)}


def mount(disk, kib, *, anew):
    """Put an empty tmpfs of this size on ``disk``, or resize the one that is there."""
    if anew:
        words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
    else:
        words = ["mount", "-o", f"remount,size={kib}k", str(disk)]
    subprocess.run(words, check=True)


def contents(folder):
    """What a user or a later run may read: everything but what is being written."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def attempt(work):
    """Run; the sentence of its error, "" when all went well, or what should not have come."""
    try:
        failed = [outcome.error for outcome in work() or () if outcome.error]
    except VoxsegError as error:
        return {"sentence": str(error)}
    except Exception as error:
        return {"unexpected": f"{type(error).__name__}: {error}"}
    return {"sentence": failed[0] if failed else ""}


def run_full(disk, name, work, results):
    """Run ``work`` on disks of several sizes, each time resuming it when there is room again."""
    folder = disk / name
    for kib in SIZES[name]:
        mount(disk, kib, anew=True)
        outcome = attempt(lambda: work(folder))
        outcome["size"] = kib
        outcome["parts"] = [str(path) for path in disk.rglob(".part-*")]
        mount(disk, ROOMY, anew=False)
        outcome["again"] = attempt(lambda: work(folder))
        outcome["result"] = results(folder)
        subprocess.run(["umount", "-l", str(disk)], check=True)
        yield outcome


def main(data, disk, settings):
    """Mount, and try everything."""
    torch.set_num_threads(1)
    calm = disk.parent / "calm"

    def request(folder):
        return TrainRequest(data=data, run=folder, settings=settings, device="cpu", resume=True)

    def training(folder):
        train(request(folder))

    def folds(folder):
        crossval(request(folder), Dealing(folds=2), lambda _: None, lambda _: None)

    def masks(folder):
        return predict(
            PredictRequest(
                checkpoint=calm / "training", inputs=(data,), output=folder, device="cpu",
                save_probabilities=True, save_uncertainty=True, skip_existing=True,
            )
        )  # fmt: skip

    def metrics(folder):
        return (folder / "metrics.json").read_text()

    def arrays(folder):
        return {n: hash(b) for n, b in contents(folder).items() if n != "predict.json"}

    jobs = {"training": (training, metrics), "folds": (folds, metrics), "masks": (masks, arrays)}
    report = {}
    for name, (work, results) in jobs.items():
        work(calm / name)
        report[name] = {
            "calm": results(calm / name),
            "runs": list(run_full(disk, name, work, results)),
        }
    print(json.dumps(report))  # noqa: T201 - the caller reads it


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
