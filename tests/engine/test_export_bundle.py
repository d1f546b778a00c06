"""MONAI Bundles: they run without voxseg, with voxseg's own mask."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

import voxseg
from voxseg.engine import export_bundle as module
from voxseg.engine.bundle_inferer import SupervoxelInferer
from voxseg.engine.checkpoint import save_checkpoint
from voxseg.engine.config import build, merge, to_tables
from voxseg.engine.network import build_network
from voxseg.errors import UsageError, VoxsegError

# As somebody without voxseg: any import of it fails. monai.bundle's own program needs "fire".
WITHOUT_VOXSEG = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "voxseg":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
from monai.bundle import run
run(config_file="configs/inference.json", bundle_root=".", dataset_dir=sys.argv[1],
    output_dir=sys.argv[2])
assert "voxseg" not in sys.modules
"""


def write_run(folder, tables, channels=1):
    tables = merge(
        {
            "labels": {"values": [0, 2, 5], "names": ["none", "outer", "inner"]},
            "model": {"design": "V0"},
            "supervoxels": {"size_mm": 3.0},
            "train": {"precision": "float32"},
        },
        tables,
    )
    config = build(tables)
    torch.manual_seed(0)
    network = build_network(config.model, channels, config.num_outputs, 3)
    for weight in network.heads.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    content = {"model": network.state_dict(), "config": to_tables(config), "spatial_dims": 3,
               "in_channels": channels}  # fmt: skip
    save_checkpoint(folder / "checkpoints" / "best.pt", content)
    return folder


def turned(path, target, axes=(2, 0, 1), flip=1, tilt=0.2):
    """Write a volume again with its axes permuted, one flipped, on an oblique grid."""
    image = nib.load(path)
    orientation = np.array([[axes[0], 1], [axes[1], -1 if flip else 1], [axes[2], 1]])
    moved = image.as_reoriented(orientation)
    angle = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = moved.affine.copy()
    affine[:3] = angle @ affine[:3]
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj), affine), target)
    return target


def run_elsewhere(bundle, volumes, masks):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_VOXSEG, str(volumes), str(masks)],
        cwd=bundle, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def same(path, other):
    mask, own = nib.load(path), nib.load(other)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(own.dataobj))
    np.testing.assert_allclose(mask.affine, own.affine, atol=1e-5)
    assert mask.get_data_dtype() == np.uint8
    assert len(np.unique(own.dataobj)) > 1


def test_it_runs_without_voxseg_and_gives_its_masks(make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 2)
    run, bundle = write_run(tmp_path / "run", {}), tmp_path / "bundle"
    done = voxseg.export_bundle(run, bundle, case=data / "case0.nii.gz")
    assert (done.form, done.needs_voxseg, done.check.differing_voxels) == ("bundle", False, 0)
    kept = json.loads((bundle / "docs/check.json").read_text())
    assert kept == {**done.check.to_json(), "case": ""}
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    turned(data / "case1.nii.gz", volumes / "turned.nii.gz")
    (volumes / "plain.nii.gz").write_bytes((data / "case1.nii.gz").read_bytes())
    (volumes / "notes.txt").write_text("not a volume")
    run_elsewhere(bundle, volumes, tmp_path / "masks")
    voxseg.predict(run, volumes, tmp_path / "own", device="cpu")
    for name in ("plain", "turned"):
        same(tmp_path / "masks" / f"{name}_seg.nii.gz", tmp_path / "own" / f"{name}.nii.gz")


def test_its_files_are_what_monai_label_reads(tmp_path):
    bundle = tmp_path / "heads"
    voxseg.export_bundle(write_run(tmp_path / "run", {}), bundle)
    config = json.loads((bundle / "configs/inference.json").read_text())
    needed = {"device", "bundle_root", "network_def", "preprocessing", "inferer", "postprocessing"}
    assert needed <= set(config)
    assert "voxseg" not in json.dumps(config)
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    prediction = metadata["network_data_format"]["outputs"]["pred"]
    assert prediction["channel_def"] == {"0": "none", "1": "outer", "2": "inner"}
    assert metadata["name"] == "heads"
    assert "voxseg" not in metadata["required_packages_version"]
    with pytest.warns(DeprecationWarning, match=r"torch\.export"):
        network = torch.jit.load(bundle / "models/model.ts")
    assert network(torch.zeros(2, 1, 9, 17, 12)).shape == (2, 3, 9, 17, 12)
    page = (bundle / "docs/README.md").read_text()
    assert "| 5 | inner |" in page
    assert "no medical device" in page
    assert (bundle / "LICENSE").is_file()


@pytest.mark.parametrize(
    "data",
    [
        {"normalise": "median", "mask": "nonzero", "margin_voxels": 1},
        {"normalise": "none", "mask": "all"},
        {"clip_percentiles": [], "mask": "all"},
        {"clip_percentiles": [5.0, 60.0], "mask": "nonzero"},
    ],
    ids=lambda data: "-".join(map(str, data.values())),
)
def test_every_preparation_is_told_in_monai_words(data, make_subjects, tmp_path):
    volume = make_subjects(tmp_path / "data", 1) / "case0.nii.gz"
    done = voxseg.export_bundle(write_run(tmp_path / "run", {"data": data}), tmp_path / "b",
                                case=volume, tolerance=0)  # fmt: skip
    assert done.check.differing_voxels == 0
    assert done.check.classes > 1


@pytest.mark.parametrize(
    "design", ["V0", *(pytest.param(one, marks=pytest.mark.slow) for one in ("V3", "V4"))]
)
def test_resampling_is_that_of_voxseg(design, make_subjects, tmp_path):
    volume = make_subjects(tmp_path / "data", 1) / "case0.nii.gz"
    oblique = turned(volume, tmp_path / "oblique.nii.gz")
    tables = {"data": {"spacing_mm": [0.7, 1.9, 1.3]}, "model": {"design": design}}
    run = write_run(tmp_path / "run", tables)
    done = voxseg.export_bundle(run, tmp_path / "b", case=oblique, tolerance=0)
    assert (done.check.differing_voxels, done.check.classes) == (0, 3)
    assert "0.7x1.9x1.3 mm" in (tmp_path / "b/docs/README.md").read_text()


def test_windows_are_kept(make_subjects, tmp_path):
    volume = make_subjects(tmp_path / "data", 1) / "case0.nii.gz"
    predict = {"always_windows": True, "window_voxels": [16, 12, 14], "overlap": 0.5}
    done = voxseg.export_bundle(write_run(tmp_path / "run", {"predict": predict}), tmp_path / "b",
                                case=volume)  # fmt: skip
    assert done.check.differing_voxels == 0
    config = json.loads((tmp_path / "b/configs/inference.json").read_text())
    assert config["inferer"]["roi_size"] == [16, 12, 14]


def test_several_channels_are_files_of_a_folder(make_subjects, tmp_path):
    data = make_subjects(tmp_path / "data", 2)
    case = tmp_path / "volumes" / "a"
    case.mkdir(parents=True)
    for number in range(2):
        image = nib.load(data / "case0.nii.gz")
        changed = np.sqrt(image.get_fdata()) if number else image.get_fdata()
        path = case / f"a_{number:04}.nii.gz"
        nib.save(nib.Nifti1Image(changed.astype(np.float32), image.affine), path)
    run = write_run(tmp_path / "run", {}, channels=2)
    listed = tmp_path / "case.csv"
    listed.write_text(f"case,image,image2\na,{case}/a_0000.nii.gz,{case}/a_0001.nii.gz\n")
    done = voxseg.export_bundle(run, tmp_path / "b", case=listed)
    assert done.check.differing_voxels == 0
    with pytest.raises(UsageError, match="1 image channels, but the network was trained on 2"):
        voxseg.export_bundle(run, tmp_path / "c", case=data / "case0.nii.gz")


def test_a_pooled_design_says_that_it_needs_voxseg(make_subjects, tmp_path):
    volume = make_subjects(tmp_path / "data", 1) / "case0.nii.gz"
    run, bundle = write_run(tmp_path / "run", {"model": {"design": "V3"}}), tmp_path / "b"
    done = voxseg.export_bundle(run, bundle, case=volume)
    assert (done.needs_voxseg, done.check.differing_voxels) == (True, 0)
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    assert metadata["required_packages_version"]["voxseg"] == voxseg.__version__
    assert "pip install voxseg==" in (bundle / "docs/README.md").read_text()
    tables = {"model": {"design": "V3"}, "data": {"normalise": "median"}}
    with pytest.raises(UsageError, match=r"only where data\.normalise is zscore, not median"):
        voxseg.export_bundle(write_run(tmp_path / "r2", tables), tmp_path / "c")


def test_v4_is_given_the_size_of_a_voxel(make_subjects, tmp_path):
    """Its axes are turned: the inferer must tell the size along each axis of the turned image."""
    source = nib.load(make_subjects(tmp_path / "data", 1) / "case0.nii.gz")  # 1 x 1.5 x 1 mm
    sizes = source.affine @ np.diag([1.0, 1.0, 2.5, 1.0])
    volume = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), sizes), volume)
    oblique = turned(volume, tmp_path / "oblique.nii.gz")
    run, bundle = write_run(tmp_path / "run", {"model": {"design": "V4"}}), tmp_path / "b"
    done = voxseg.export_bundle(run, bundle, case=oblique, tolerance=0)
    assert (done.needs_voxseg, done.check.differing_voxels, done.check.classes) == (True, 0, 3)
    assert "the size of a voxel" in (bundle / "docs/README.md").read_text()
    inferer = json.loads((bundle / "configs/inference.json").read_text())["inferer"]
    assert inferer["passes_spacing"] is True


def test_the_inferer_tells_the_voxel_size_that_it_knows():
    def network(image, superpixels, spacing):
        assert superpixels.shape == (len(image), *image.shape[2:])
        return spacing

    affines = [torch.diag(torch.tensor([s, 1.0, 2.0, 1.0], dtype=torch.float64)) for s in (1.5, 3)]
    image = torch.arange(60.0).view(1, 3, 4, 5)
    one, other = (list_data_collate([MetaTensor(image, affine=a)]) for a in affines)
    both = list_data_collate([MetaTensor(image, affine=a) for a in affines])
    settings = {"method": "block", "size_mm": 2.0}
    tells = SupervoxelInferer(settings, passes_spacing=True)
    assert tells(one, network).tolist() == [1.5, 1.0, 2.0]
    assert tells(other, network).tolist() == [3.0, 1.0, 2.0]
    resampled = SupervoxelInferer(settings, spacing_mm=[0.7, 1.9, 1.3], passes_spacing=True)
    torch.testing.assert_close(resampled(both, network), torch.tensor([0.7, 1.9, 1.3]))
    with pytest.raises(ValueError, match="cannot share a batch: set the dataloader's batch_size"):
        tells(both, network)
    assert SupervoxelInferer(settings)(both, lambda *inputs: len(inputs)) == 2


def test_a_bundle_that_answers_otherwise_is_not_kept(make_subjects, tmp_path, monkeypatch):
    volume = make_subjects(tmp_path / "data", 1) / "case0.nii.gz"
    run, bundle = write_run(tmp_path / "run", {}), tmp_path / "b"
    voxseg.export_bundle(run, bundle, case=volume)
    before = (bundle / "models/model.ts").read_bytes()

    def spoilt(network, *rest):
        network.heads[0].voxel.bias.data[0] += 1
        original(network, *rest)

    original = module.write_script
    monkeypatch.setattr(module, "write_script", spoilt)
    with pytest.raises(VoxsegError, match=r"network is not the original: .*nothing was kept"):
        voxseg.export_bundle(run, bundle, case=volume, overwrite=True)
    assert (bundle / "models/model.ts").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "data", "run"]


def test_wrong_outputs_are_refused(tmp_path):
    run = write_run(tmp_path / "run", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; -o names the folder"):
        voxseg.export_bundle(run, tmp_path / "file")
    with pytest.raises(UsageError, match="holds other files than a bundle"):
        voxseg.export_bundle(run, run, overwrite=True)
    coordinates = write_run(tmp_path / "r2", {"data": {"coordinates": True}}, channels=4)
    with pytest.raises(UsageError, match="for which MONAI has no transform"):
        voxseg.export_bundle(coordinates, tmp_path / "b")
    assert not (tmp_path / "b").exists()
