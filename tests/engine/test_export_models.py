"""Exported networks: they answer as the original does, in other runtimes, or are not kept."""

import importlib.util

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import voxseg
from voxseg.engine import export_models, exported
from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import build, merge, to_tables
from voxseg.engine.exported import network_inputs, reference
from voxseg.engine.network import build_network
from voxseg.engine.portable_run import read_portable
from voxseg.errors import DataError, UsageError, VoxsegError
from voxseg.ops.superpixel_places import superpixel_places

# torch.export.load compiles nothing, yet tells of a future of its own in some versions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def data(make_subjects, tmp_path_factory):
    return make_subjects(tmp_path_factory.mktemp("data") / "set", 2)


@pytest.fixture(scope="module")
def volume(data):
    return data / "case0.nii.gz"


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Write a run whose network has random weights: settings of the model to its folder."""
    return lambda **model: write_run(tmp_path_factory.mktemp("run"), {"model": model})


@pytest.fixture(scope="module")
def pooled(make_run, volume, tmp_path_factory):
    """A run of V3, and the same as ONNX."""
    run, path = make_run(design="V3"), tmp_path_factory.mktemp("onnx") / "n.onnx"
    voxseg.export_onnx(run, path, case=volume)
    return run, path


@pytest.fixture(scope="module")
def placed(make_run, volume, tmp_path_factory):
    """A run of V4, and the same as ONNX."""
    run, path = make_run(design="V4"), tmp_path_factory.mktemp("placed") / "n.onnx"
    voxseg.export_onnx(run, path, case=volume)
    return run, path


def write_run(folder, tables, dims=3):
    tables = merge(
        {
            "labels": {"values": [0, 2, 5], "names": ["none", "outer", "inner"]},
            "supervoxels": {"size_mm": 3.0},
            "train": {"precision": "float32"},
        },
        tables,
    )
    config = build(tables)
    torch.manual_seed(0)
    network = build_network(config.model, 1, config.num_outputs, dims, config.task.kind)
    for module in network.modules():
        if hasattr(module, "running_mean"):
            torch.nn.init.normal_(module.running_mean)
    for head in getattr(network, "heads", ()):
        for weight in head.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    content = {
        "model": network.state_dict(),
        "config": to_tables(config),
        "in_channels": 1,
        "spatial_dims": dims,
    }
    save_checkpoint(folder / "checkpoints" / "best.pt", content)
    return folder


def outside_answer(path, inputs):
    """Run an exported file with the library that other programs would use."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(
            None, dict(zip(("image", "superpixels", "spacing"), inputs, strict=False))
        )[0]
    module = torch.export.load(path).module()
    with torch.no_grad():
        return module(*map(torch.from_numpy, inputs)).numpy()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"design": "V0"}, marks=pytest.mark.slow),
        {"design": "V3", "reduce": "max"},
        pytest.param({"design": "V1", "reduce": "mean", "stages": 2, "fusion": "decoder",
                      "norm": "instance"}, marks=pytest.mark.slow),
        pytest.param({"design": "V2", "reduce": "mean"}, marks=pytest.mark.slow),
        pytest.param({"design": "V1", "reduce": "max", "fusion": "scores", "stages": 2},
                     marks=pytest.mark.slow),
        pytest.param({"design": "V4", "reduce": "max"}, marks=pytest.mark.slow),
        pytest.param({"design": "V4", "reduce": "mean", "fusion": "scores", "stages": 2},
                     marks=pytest.mark.slow),
    ],
    ids=lambda model: "-".join(map(str, model.values())),
)  # fmt: skip
def test_others_compute_what_voxseg_predicts(make_run, model, volume, tmp_path, validate):
    run = make_run(**model)
    voxseg.predict(run, volume, tmp_path / "own.nii.gz", device="cpu")
    own = np.asarray(nib.load(tmp_path / "own.nii.gz").dataobj)
    assert len(np.unique(own)) > 1
    portable = read_portable(run)
    for name, write in (("n.onnx", voxseg.export_onnx), ("n.pt2", voxseg.export_torch)):
        done = write(run, tmp_path / name, case=volume)
        assert (done.check.case, done.check.differing_voxels) == ("case0", 0)
        assert validate(done.to_json())["output"] == str(tmp_path / name)
        sidecar = validate((tmp_path / f"{name}.json").read_text())
        assert sidecar["file"] == name
        assert sidecar["check"] == {**done.check.to_json(), "case": ""}
        assert [one["value"] for one in sidecar["postprocessing"]["classes"]] == [0, 2, 5]
        assert sidecar["network"]["design"] == model["design"]
        inputs = {"V0": ["image"], "V4": ["image", "superpixels", "spacing"]}
        expected = inputs.get(model["design"], ["image", "superpixels"])
        assert [one["name"] for one in sidecar["inputs"]] == expected
        with reference(portable, volume) as known:
            inputs = network_inputs(portable, known.prepared)
            label = known.label_of(outside_answer(tmp_path / name, inputs)[0])
        np.testing.assert_array_equal(label, own)


def test_onnx_file_is_valid_and_tells_nothing_of_this_machine(pooled):
    _, path = pooled
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {""}  # no operations of anybody's own
    assert {"ScatterElements", "GatherElements"} <= {node.op_type for node in model.graph.node}
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["batch", 1, "x", "y", "z"]
    for content in (path.read_bytes(), path.with_name("n.onnx.json").read_bytes()):
        assert str(path.parent).encode() not in content
        assert b"voxres.py" not in content
        assert b"case0" not in content


@pytest.mark.parametrize("design", ["V3", "V4"])
def test_superpixels_are_counted_by_the_network(design, request):
    """Any number of them, none at all, and labels that are not next to each other."""
    run, path = request.getfixturevalue({"V3": "pooled", "V4": "placed"}[design])
    spacing = np.array([0.7, 2.3, 1.4], np.float32)
    network = read_portable(run).network
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 9, 12, 10, generator=generator)
    for count in (1, 7, 500):
        superpixels = torch.randint(-1, count, (1, 9, 12, 10), generator=generator)
        if count == 1:
            superpixels = torch.full_like(superpixels, -1)  # no superpixel anywhere
        places = superpixel_places(superpixels, count, spacing.tolist())
        with torch.no_grad():
            expected = network(image, superpixels, count, places).numpy()
        inputs = (image.numpy(), superpixels.numpy(), spacing)
        found = outside_answer(path, inputs if design == "V4" else inputs[:2])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_program_of_v4_knows_where_its_superpixels_lie(placed, volume, tmp_path, validate):
    """With the volume's own spacing, 1 x 1.5 x 1 mm, it answers as voxseg; with another not."""
    run, path = placed
    sidecar = validate(path.with_name("n.onnx.json").read_text())
    assert sidecar["check"]["differing_voxels"] == 0
    *_, last = sidecar["inputs"]
    expected = {"name": "spacing", "type": "float32", "channels": None, "axes": ["direction"]}
    assert last == expected
    given = onnx.load(path).graph.input[2]
    assert (given.name, given.type.tensor_type.shape.dim[0].dim_value) == ("spacing", 3)
    voxseg.predict(run, volume, tmp_path / "own.nii.gz", device="cpu")
    own = np.asarray(nib.load(tmp_path / "own.nii.gz").dataobj)
    portable = read_portable(run)
    with reference(portable, volume) as known:
        *inputs, spacing = network_inputs(portable, known.prepared)
        assert spacing.tolist() == [1.0, 1.5, 1.0]
        label = known.label_of(outside_answer(path, (*inputs, spacing))[0])
        wrong = known.label_of(outside_answer(path, (*inputs, spacing[[1, 0, 2]]))[0])
    np.testing.assert_array_equal(label, own)
    assert np.count_nonzero(wrong != own) > 10


def test_without_a_case_a_volume_is_made_up(make_run, tmp_path):
    done = voxseg.export_torch(make_run(design="V0"), tmp_path / "n.pt2")
    assert done.check.is_synthetic
    assert done.check.logits_difference < 1e-3
    assert "synthetic" in str(done.check)


def test_a_network_that_answers_otherwise_is_not_kept(make_run, volume, tmp_path, monkeypatch):
    """One weight of the exported copy is another: nothing is left behind."""
    run = make_run(design="V0")

    def spoilt(portable):
        copy = read_portable(portable.path)
        copy.network.heads[0].voxel.bias.data[0] += 0.5
        return original(copy)

    original = export_models.program_of
    monkeypatch.setattr(export_models, "program_of", spoilt)
    with pytest.raises(VoxsegError, match=r"logits differ by 0\.5 .* nothing was kept"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=volume)
    monkeypatch.setattr(exported, "_LOGITS", 10.0)  # then the mask must tell
    with pytest.raises(VoxsegError, match=r"differ from voxseg's mask of case0.*--tolerance"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=volume)
    assert list(tmp_path.iterdir()) == []
    done = voxseg.export_torch(run, tmp_path / "n.pt2", case=volume, tolerance=1)
    assert done.check.differing_voxels > 10


def test_wrong_outputs_are_refused_before_any_work(make_run, tmp_path):
    run = make_run(design="V0")
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        voxseg.export_onnx(run, tmp_path / "network")
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(UsageError, match="is a folder; -o names the file"):
        voxseg.export_onnx(run, tmp_path / "a.onnx")
    (tmp_path / "b.pt2.json").write_text("{}")
    with pytest.raises(UsageError, match=r"b\.pt2\.json exists; use --overwrite"):
        voxseg.export_torch(run, tmp_path / "b.pt2")
    with pytest.raises(UsageError, match=r"--tolerance is a share in 0 to 1, got 2"):
        voxseg.export_torch(run, tmp_path / "c.pt2", tolerance=2)
    assert (tmp_path / "b.pt2.json").read_text() == "{}"


def test_wrong_cases_are_refused(make_run, data, save_pictures, tmp_path):
    run = make_run(design="V0")
    with pytest.raises(UsageError, match=r"--case takes one volume, and .* holds 2"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=data)
    save_pictures(tmp_path / "pictures", "a.png")
    with pytest.raises(UsageError, match="is a photograph"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=tmp_path / "pictures" / "a.png")
    with pytest.raises(DataError, match="there is no"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=tmp_path / "gone.nii.gz")
    assert not (tmp_path / "n.pt2").exists()


def test_runs_that_are_no_single_network_of_volumes_are_refused(make_run, tmp_path):
    with pytest.raises(DataError, match=r"holds no checkpoints/best\.pt"):
        voxseg.export_onnx(tmp_path, tmp_path / "n.onnx")
    for number in range(2):
        write_run(tmp_path / f"cv/fold-{number}", {"model": {"design": "V0"}})
    with pytest.raises(UsageError, match=r"has 2 networks, .* one of its folds, such as .*fold-0"):
        voxseg.export_onnx(tmp_path / "cv", tmp_path / "n.onnx")
    flat = {"model": {"network": "enet", "design": "V0"}, "data": {"plane": "axial"}}
    with pytest.raises(UsageError, match="network of slices or photographs"):
        voxseg.export_torch(write_run(tmp_path / "flat", flat, 2), tmp_path / "n.pt2")
    edges = write_run(tmp_path / "edges", {**flat, "task": {"kind": "boundaries"}}, 2)
    with pytest.raises(UsageError, match="was trained for boundaries"):
        voxseg.export_torch(edges, tmp_path / "n.pt2")
    other = {"model": {"network": "pixelnet", "trunk": "voxresnet"}}
    with pytest.raises(UsageError, match=r"holds a pixelnet, .* a voxresnet can be exported"):
        voxseg.export_torch(write_run(tmp_path / "other", other), tmp_path / "n.pt2")
    windows = write_run(tmp_path / "windows", {"predict": {"always_windows": True}})
    with pytest.raises(UsageError, match="pools supervoxels of blended windows"):
        voxseg.export_torch(windows, tmp_path / "n.pt2")
    tables = {"predict": {"always_windows": True}, "model": {"design": "V0"}}
    with pytest.raises(UsageError, match="'voxseg export bundle' can write that"):
        voxseg.export_torch(write_run(tmp_path / "w0", tables), tmp_path / "n.pt2")
    assert not (tmp_path / "n.pt2").exists()


def test_missing_packages_are_named(make_run, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(VoxsegError, match=r"onnxscript; install with pip install 'voxseg\[onnx\]'"):
        voxseg.export_onnx(make_run(design="V0"), tmp_path / "n.onnx")


def test_a_run_that_averages_mirror_images_is_exported_as_it_answers_once(tmp_path, volume):
    run = write_run(tmp_path / "run", {"model": {"design": "V0"}, "predict": {"tta": True}})
    done = voxseg.export_torch(run, tmp_path / "n.pt2", case=volume, tolerance=0)
    assert "predict.tta" in done.note
    assert done.check.classes > 1
    assert done.check.differing_voxels == 0
    averaged = voxseg.predict(run, volume, tmp_path / "mask.nii.gz", device="cpu")
    assert not averaged[0].error
    with reference(read_portable(run), volume) as known:
        mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
        assert (mask != known.label).any()  # else nothing would have been left out
