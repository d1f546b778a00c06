"""Exported networks: they answer as the original does, in other runtimes, or are not kept."""

import json

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import voxseg
from voxseg.engine import export_models, exported
from voxseg.engine.checkpoint import load_checkpoint, save_checkpoint
from voxseg.engine.exported import network_inputs, reference
from voxseg.engine.portable_run import read_portable
from voxseg.errors import DataError, UsageError, VoxsegError

# torch.export.load compiles nothing, yet tells of a future of its own in some versions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def data(make_subjects, tmp_path_factory):
    return make_subjects(tmp_path_factory.mktemp("data") / "set", 3)


@pytest.fixture(scope="module")
def train(data, quick_settings, tmp_path_factory):
    """Train a tiny network: nested settings to its run folder."""
    runs = {}

    def make(**model):
        key = tuple(sorted(model.items()))
        if key not in runs:
            folder = tmp_path_factory.mktemp("run") / "run"
            settings = {**quick_settings, "model": {**quick_settings["model"], **model}}
            voxseg.train(data, folder, settings=settings, epochs=2, device="cpu")
            runs[key] = folder
        return runs[key]

    return make


@pytest.fixture
def volume(data):
    return data / "case0.nii.gz"


def outside_answer(path, inputs):
    """Run an exported file with the library that other programs would use."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip(("image", "superpixels"), inputs, strict=False)))[0]
    module = torch.export.load(path).module()
    with torch.no_grad():
        return module(*map(torch.from_numpy, inputs)).numpy()


@pytest.mark.parametrize(
    "model",
    [
        {"design": "V0"},
        {"design": "V3", "reduce": "max"},
        {"design": "V1", "reduce": "mean", "stages": 2, "fusion": "decoder", "norm": "instance"},
        pytest.param({"design": "V2", "reduce": "mean"}, marks=pytest.mark.slow),
        pytest.param({"design": "V1", "reduce": "max", "fusion": "scores", "stages": 2},
                     marks=pytest.mark.slow),
    ],
    ids=lambda model: "-".join(map(str, model.values())),
)  # fmt: skip
def test_others_compute_what_voxseg_predicts(train, model, volume, tmp_path, validate):
    run = train(**model)
    voxseg.predict(run, volume, tmp_path / "own.nii.gz", device="cpu")
    own = np.asarray(nib.load(tmp_path / "own.nii.gz").dataobj)
    known_run = read_portable(run)
    for name, write in (("n.onnx", voxseg.export_onnx), ("n.pt2", voxseg.export_torch)):
        done = write(run, tmp_path / name, case=volume, overwrite=True)
        assert (done.check.case, done.check.differing_voxels) == ("case0", 0)
        assert validate(done.to_json())["output"] == str(tmp_path / name)
        sidecar = validate((tmp_path / "n.json").read_text())
        assert sidecar["file"] == name
        assert [one["value"] for one in sidecar["postprocessing"]["classes"]] == [0, 2, 5]
        assert sidecar["network"]["design"] == model["design"]
        with reference(known_run, volume) as known:
            inputs = network_inputs(known_run, known.prepared)
            label = known.label_of(outside_answer(tmp_path / name, inputs)[0])
        np.testing.assert_array_equal(label, own)
    assert len(np.unique(own)) > 1


def test_onnx_file_is_valid_small_and_tells_nothing_of_this_machine(train, volume, tmp_path):
    path = tmp_path / "n.onnx"
    voxseg.export_onnx(train(design="V3"), path, case=volume)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {""}  # no operations of anybody's own
    assert {"ScatterElements", "GatherElements"} <= {node.op_type for node in model.graph.node}
    axes = [
        axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim
    ]
    assert axes == ["batch", 1, "x", "y", "z"]
    for content in (path.read_bytes(), (tmp_path / "n.json").read_bytes()):
        assert str(tmp_path).encode() not in content
        assert b"voxres.py" not in content


def test_superpixels_are_counted_by_the_network(train, volume, tmp_path):
    """Any number of them, none at all, and labels that are not next to each other."""
    run = train(design="V3")
    voxseg.export_onnx(run, tmp_path / "n.onnx", case=volume)
    network = read_portable(run).network
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 9, 12, 10, generator=generator)
    for highest in (1, 7, 500):
        superpixels = torch.randint(-1, highest, (1, 9, 12, 10), generator=generator)
        with torch.no_grad():
            expected = network(image, superpixels, highest).numpy()
        found = outside_answer(tmp_path / "n.onnx", (image.numpy(), superpixels.numpy()))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    nowhere = torch.full((1, 9, 12, 10), -1)
    with torch.no_grad():
        expected = network(image, nowhere, 1).numpy()
    found = outside_answer(tmp_path / "n.onnx", (image.numpy(), nowhere.numpy()))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_a_case_a_volume_is_made_up(train, tmp_path):
    done = voxseg.export_torch(train(design="V0"), tmp_path / "n.pt2")
    assert done.check.is_synthetic
    assert done.check.logits_difference < 1e-3
    assert "synthetic" in str(done.check)


def test_a_network_that_answers_otherwise_is_not_kept(train, volume, tmp_path, monkeypatch):
    """One weight of the exported copy is changed: nothing is left behind."""
    run = train(design="V0")

    def spoil(portable):
        portable.network.heads[0].voxel.bias.data[0] += 0.5
        program = original(portable)
        portable.network.heads[0].voxel.bias.data[0] -= 0.5
        return program

    original = export_models.program_of
    monkeypatch.setattr(export_models, "program_of", spoil)
    with pytest.raises(VoxsegError, match=r"logits differ by 0\.5 .* nothing was kept"):
        voxseg.export_onnx(run, tmp_path / "n.onnx", case=volume)
    monkeypatch.setattr(exported, "_LOGITS", 10.0)  # then the mask must tell
    with pytest.raises(
        VoxsegError, match=r"voxels differ from voxseg's mask of case0.*--tolerance"
    ):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=volume)
    assert list(tmp_path.iterdir()) == []
    done = voxseg.export_torch(run, tmp_path / "n.pt2", case=volume, tolerance=1)
    assert done.check.differing_voxels > 100


def test_wrong_outputs_are_refused_before_any_work(train, tmp_path):
    run = train(design="V0")
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        voxseg.export_onnx(run, tmp_path / "network")
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(UsageError, match="is a folder; -o names the file"):
        voxseg.export_onnx(run, tmp_path / "a.onnx")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(UsageError, match=r"b\.json exists; use --overwrite"):
        voxseg.export_torch(run, tmp_path / "b.pt2")
    with pytest.raises(UsageError, match=r"--tolerance is a share in 0 to 1, got 2"):
        voxseg.export_torch(run, tmp_path / "c.pt2", tolerance=2)
    assert (tmp_path / "b.json").read_text() == "{}"


def test_wrong_cases_are_refused(train, data, save_pictures, tmp_path):
    run = train(design="V0")
    with pytest.raises(UsageError, match="--case takes one volume, and .* holds 3"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=data)
    save_pictures(tmp_path / "pictures", "a.png")
    with pytest.raises(UsageError, match="is a photograph"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=tmp_path / "pictures" / "a.png")
    with pytest.raises(DataError, match="there is no"):
        voxseg.export_torch(run, tmp_path / "n.pt2", case=tmp_path / "gone.nii.gz")
    assert not (tmp_path / "n.pt2").exists()


def test_runs_that_are_no_single_network_of_volumes_are_refused(train, tmp_path):
    run = train(design="V0")
    with pytest.raises(DataError, match=r"holds no checkpoints/best\.pt"):
        voxseg.export_onnx(tmp_path, tmp_path / "n.onnx")
    content = load_checkpoint(run)
    for number in range(2):
        save_checkpoint(tmp_path / f"cv/fold-{number}/checkpoints/best.pt", content)
    with pytest.raises(
        UsageError, match=r"has 2 networks, .* name one of its folds, such as .*fold-0"
    ):
        voxseg.export_onnx(tmp_path / "cv", tmp_path / "n.onnx")
    flat = json.loads(json.dumps(content["config"]))
    flat["model"]["network"] = "fcn"
    flat["data"]["plane"] = "axial"
    from voxseg.engine.config import build
    from voxseg.engine.network import build_network

    network = build_network(build(flat).model, 1, 3, 2)
    changed = {**content, "config": flat, "spatial_dims": 2, "model": network.state_dict()}
    save_checkpoint(tmp_path / "flat.pt", changed)
    with pytest.raises(UsageError, match="network of slices or photographs"):
        voxseg.export_torch(tmp_path / "flat.pt", tmp_path / "n.pt2")
    flat["task"]["kind"] = "boundaries"
    network = build_network(build(flat).model, 1, 1, 2)
    save_checkpoint(tmp_path / "edges.pt", {**changed, "model": network.state_dict()})
    with pytest.raises(UsageError, match="was trained for boundaries"):
        voxseg.export_torch(tmp_path / "edges.pt", tmp_path / "n.pt2")


def test_missing_packages_are_named(train, tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(VoxsegError, match=r"onnxscript; install with pip install 'voxseg\[onnx\]'"):
        voxseg.export_onnx(train(design="V0"), tmp_path / "n.onnx")
