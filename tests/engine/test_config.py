import tomllib

import pytest

from voxseg.engine.config import (
    Config,
    build,
    describe_recipes,
    dump,
    merge,
    parse_setting,
    read_recipe,
    recipe_names,
    to_tables,
)
from voxseg.errors import UsageError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_and_says_what_it_is(name):
    config = build(read_recipe(name))
    design = name.split("-")[2] if name.count("-") >= 2 else None
    if design in ("v0", "v1", "v2", "v3", "v4"):
        assert config.model.design == design.upper()
    assert ("block" in name) == (
        config.supervoxels.method == "block" and config.model.design != "V0"
    )
    assert len(describe_recipes()[name]) > 20


@pytest.mark.parametrize(
    ("name", "variant", "steps"),
    [
        ("voc-sunet64", "64", 43_290),
        ("voc-sunet128", "128", 43_290),
        ("voc-sunet7-128", "7-128", 43_290),
        ("coco-sunet7-128", "7-128", 43_290),
        ("voc-sunet7-128-trainaug", "7-128", 5_000),
        ("voc-sunet7-128-trainval", "7-128", 5_000),
        ("cityscapes-sunet7-128", "7-128", 90_000),
    ],
)
def test_sunets_recipes_golden_section_7(name, variant, steps):
    config = build(read_recipe(name))
    train, predict = config.train, config.predict
    assert (config.model.variant, config.model.output_stride) == (variant, 16)
    assert train.epochs * train.steps_per_epoch == steps
    later = "-train" in name
    assert train.learning_rate == (0.00002 if later else 0.0002)
    assert train.freeze_batchnorm == name.endswith("trainval")
    assert (train.momentum, train.nesterov, train.weight_decay) == (0.95, False, 1e-4)
    assert (train.head_rate, train.head_bias_rate, train.batch_size) == (10, 20, 22)
    assert (train.schedule, train.patch_voxels) == ("cosine", (512, 512))
    assert predict.scales[:4] == (0.5, 0.75, 1.0, 1.25)
    # Tiles of 512 pixels on every 342nd.
    step = int(predict.window_voxels[0] * (1 - predict.overlap))
    assert (predict.shorter_side, predict.window_voxels[0], step) == (512, 512, 342)
    assert predict.always_windows
    assert predict.blend == "even"


def test_the_papers_recipes_are_all_there():
    designs = ["v0", *(f"v{d}{b}" for d in (1, 2, 3, 4) for b in ("", "-block"))]
    wanted = {f"ibsr-{n}-{d}" for n in ("full", "reduced4", "reduced8") for d in designs}
    assert wanted | {"ibsr-cpu"} <= set(recipe_names())


def test_dump_reads_back_as_the_same_config():
    config = build({"train": {"epochs": 7, "loss": "ce"}, "labels": {"names": ['a"b', "ü\\"]}})
    assert build(tomllib.loads(dump(config))) == config
    assert build(to_tables(config)) == config


def test_later_sources_win_key_by_key():
    tables = merge({"train": {"epochs": 3, "seed": 1}}, parse_setting("train.epochs=9"))
    assert tables == {"train": {"epochs": 9, "seed": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=0.5", 0.5),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=word", "word"),
        ("a.b=true", True),
    ],
)
def test_parse_setting_reads_toml_or_a_word(text, value):
    assert parse_setting(text) == {"a": {"b": value}}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"train": {"epoch": 3}}, "did you mean epochs"),
        ({"trian": {}}, "did you mean train"),
        ({"train": {"epochs": "many"}}, "train.epochs must be int"),
        ({"train": {"epochs": 0}}, "at least 1"),
        ({"train": {"loss": "dise"}}, "train.loss must be one of"),
        ({"train": 3}, "is a section"),
        ({"model": {"design": "V5"}}, "model.design"),
        ({"model": {"design": "V3", "token_width": 64}}, "token_width is of design V4"),
        ({"model": {"network": "fcn", "token_blocks": 3}}, "token_blocks is of design V4"),
        ({"train": {"patch_voxels": [64, -1, 64]}}, "0 \\(whole\\) or more"),
        ({"data": {"spacing_mm": [1.0, -1.0, 1.0]}}, "spacing_mm"),
        ({"predict": {"overlap": 1.0}}, "overlap"),
    ],
)
def test_build_rejects_with_a_hint(tables, words):
    with pytest.raises(UsageError, match=words):
        build(tables)


def test_read_recipe_rejects_an_unknown_name_with_a_hint():
    with pytest.raises(UsageError, match="did you mean ibsr-reduced8-v3"):
        read_recipe("ibsr-reduced8-v33")


def test_a_setting_without_equals_is_rejected():
    with pytest.raises(UsageError, match=r"SECTION\.KEY=VALUE"):
        parse_setting("train.epochs")


def test_whole_numbers_are_taken_for_floats_but_not_the_reverse():
    assert build({"train": {"learning_rate": 1}}).train.learning_rate == 1.0
    with pytest.raises(UsageError, match=r"train\.epochs must be int"):
        build({"train": {"epochs": 1.5}})
    assert Config() == build({})
