"""What a report says of the run itself, with much, little and damaged information."""

from voxseg.engine.report_facts import (
    ClassVolume,
    Outcome,
    absent_classes,
    failures,
    folded,
    run_facts,
    subtitle,
)
from voxseg.engine.report_sources import FoldFacts, ReportSource


def source(kind="crossval", **parts):
    return ReportSource(kind, "run", **{"manifest": {}, "files": {}, **parts})


def outcome(case, *ml, error="", memory="whole"):
    volumes = tuple(ClassVolume(n, f"class {n}", one) for n, one in enumerate(ml, 1))
    return Outcome(case, error, 2.0, memory, volumes)


def test_a_run_that_says_nothing_of_itself_is_no_error():
    for kind in ("crossval", "evaluate", "predict"):
        assert "unknown" in subtitle(source(kind)) or "run" in subtitle(source(kind))
        assert run_facts(source(kind)) == {}
        assert folded(source(kind)) == {}


def test_facts_of_a_cross_validation():
    settings = '[model]\ndesign = "V3"\nwidths = []\n[train]\nepochs = 4\n[predict]\ntta = true\n'
    manifest = {
        "device": {"type": "cuda", "name": "A100"}, "versions": {"voxseg": "1", "torch": "2"},
        "git_commit": "abc", "split_hash": "def", "written": "today", "data_folder": "/data",
    }  # fmt: skip
    one = source(manifest=manifest, settings=settings, folds=(FoldFacts(("a",)),) * 3)
    assert run_facts(one) == {
        "Network": "design V3",
        "Training": "epochs 4",
        "Averaged over flips": "yes",
        "Device": "type cuda, name A100",
        "Versions": "voxseg 1, torch 2",
        "Commit": "abc",
        "Split, SHA-256": "def",
        "Finished": "today",
    }
    assert subtitle(one).startswith("3 folds, 0 cases of /data.")
    assert folded(one)["Settings (config.toml)"] == settings


def test_damaged_settings_are_shown_as_they_are():
    one = source(settings="[model")
    assert run_facts(one) == {}
    assert folded(one) == {"Settings (config.toml)": "[model"}


def test_facts_of_a_prediction():
    networks = [
        {"path": "a", "sha256": "1" * 64, "written": "t"},
        {"path": "b", "sha256": "2" * 64},
    ]
    manifest = {"networks": networks, "options": {"tta": True, "low_memory": False}}
    facts = run_facts(source("predict", manifest=manifest, outcomes=({"seconds": 1.5},) * 2))
    assert facts == {
        "Networks": "2, averaged",
        "Trained": "t",
        "Checkpoint, SHA-256": f"{'1' * 12}, {'2' * 12}",
        "Averaged over flips": "yes",
        "Post-processing": "none",
        "Time": "3.0 s for 2 cases",
    }
    kept = {"seconds": 1.5, "postprocessing": "class 1: largest component"}
    facts = run_facts(source("predict", manifest=manifest, outcomes=(kept, {"seconds": 0.5})))
    assert facts["Post-processing"] == "class 1: largest component"


def test_failures_and_kept_masks_are_said():
    outcomes = [
        outcome("a", 1.0),
        outcome("b", error="broken"),
        outcome("c", memory="kept as it was"),
    ]
    assert failures(outcomes) == ["b failed: broken", "1 mask was there before and kept: c"]


def test_absent_classes_are_said():
    found = absent_classes([outcome("a", 0.0, 2.0), outcome("b", 0.0, 1.0)])
    assert found == ["class 1 is not found in 2 of the cases: a, b"]
