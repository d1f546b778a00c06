"""The forms of voxseg's JSON documents: one name and version each, and a JSON Schema.

Every JSON document that voxseg writes to a file, or prints with ``--json``, says in ``schema``
which form it has, as ``voxseg.NAME/VERSION``, and most say in ``voxseg`` which version of the
program wrote them. ``NAME.schema.json`` in this folder describes the form (JSON Schema, draft
2020-12); ``voxseg schemas`` lists them and prints one.

What programs that read the documents can rely on:

- Within one version no field is taken away, renamed or given another type, unit or meaning, and a
  field that is ``required`` stays so. Anything of that kind raises the version.
- Fields may be added at any time, so a reader must pass over those that it does not know.
- A number that is not defined is null. NaN and infinity, which JSON lacks, never occur.
- voxseg reads what earlier versions wrote, documents without ``schema`` among them. One of a newer
  version is refused in one sentence.

The names are constants here and nowhere else. This module knows nothing else of voxseg, so that
every part of it can import it.
"""

import json
from importlib import resources
from typing import Any

BENCH = "voxseg.bench/1"
CACHE = "voxseg.cache/1"
CALIBRATION = "voxseg.calibration/1"
CHECK = "voxseg.check/1"
COMPARE = "voxseg.compare/1"
CONFUSION = "voxseg.confusion/1"
CONVERT = "voxseg.convert/1"
DEMO = "voxseg.demo/1"
DEMO_SETTINGS = "voxseg.demo-settings/1"
DOCTOR = "voxseg.doctor/1"
DRY_RUN = "voxseg.dry-run/1"
EVALUATE_MANIFEST = "voxseg.evaluate-manifest/1"
EXPORTED = "voxseg.exported/1"
FIXES = "voxseg.fixes/1"
FOLDS = "voxseg.folds/1"
GPU = "voxseg.gpu/1"
IBSR_PLAN = "voxseg.ibsr-plan/1"
IBSR_TABLES = "voxseg.ibsr-tables/1"
LOG = "voxseg.log/1"
MANIFEST = "voxseg.manifest/1"
METRICS = "voxseg.metrics/1"
MODELS = "voxseg.models/1"
NETWORK = "voxseg.network/1"
POSTPROCESSING = "voxseg.postprocessing/1"
PREDICT = "voxseg.predict/1"
PREDICT_MANIFEST = "voxseg.predict-manifest/1"
RECIPES = "voxseg.recipes/1"
REPORT = "voxseg.report/1"
REPRODUCE = "voxseg.reproduce/1"
SCHEMAS = "voxseg.schemas/1"
SCORES = "voxseg.scores/1"
SEEDS = "voxseg.seeds/1"
SERIES = "voxseg.series/1"
SPLIT = "voxseg.split/1"
SPLIT_WRITTEN = "voxseg.split-written/1"
SUPERVOXELS = "voxseg.supervoxels/1"
TASK_METRICS = "voxseg.task-metrics/1"
TRAIN = "voxseg.train/1"
TRAIN_METRICS = "voxseg.train-metrics/1"

_ENDING = ".schema.json"


def schema_names() -> list[str]:
    """Names of all forms, without ``voxseg.`` and version, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name.removesuffix(_ENDING) for f in files if f.name.endswith(_ENDING))


def read_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a form.

    Args:
        name: One of ``schema_names()``, or a constant such as ``voxseg.split/1``.

    Raises:
        ValueError: There is no form of this name and version.
    """
    short, slash, _ = name.removeprefix("voxseg.").partition("/")
    if short not in schema_names():
        raise ValueError(f"there is no schema {name!r}; there are {', '.join(schema_names())}")
    text = resources.files(__name__).joinpath(f"{short}{_ENDING}").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    if slash and schema["$id"] != f"voxseg.{name.removeprefix('voxseg.')}":
        raise ValueError(f"there is no schema {name!r}; this version has {schema['$id']}")
    return schema
