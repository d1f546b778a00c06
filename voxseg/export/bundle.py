"""MONAI Bundles: a folder with a network, its configuration, its metadata and a page about it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxseg.documents import json_text
from voxseg.errors import VoxsegError
from voxseg.export.bundle_config import PROGRAM, SCRIPT, inference_config, takes_spacing
from voxseg.export.torch_program import quiet
from voxseg.files import write_text

if TYPE_CHECKING:
    from torch import nn

CONFIG = "configs/inference.json"
METADATA = "configs/metadata.json"
README = "docs/README.md"
_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


def write_bundle_files(folder: Path, facts: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write everything of a bundle but its network.

    Args:
        folder: of the bundle.
        facts: as ``voxseg.network`` describes them.
        about: ``name`` of the bundle; ``versions`` of packages; ``note``, a sentence about its
            labels, or "".
    """
    write_text(folder / CONFIG, json_text(inference_config(facts)) + "\n")
    write_text(folder / METADATA, json_text(_metadata(facts, about)) + "\n")
    write_text(folder / README, _readme(facts, about))
    write_text(folder / "LICENSE", _LICENSE)


def write_script(network: "nn.Module", path: Path, shape: Sequence[int], channels: int) -> None:
    """Write a network of images as TorchScript, for batches and volumes of any size.

    Args:
        network: in evaluation mode, on the CPU, in float32.
        path: of the file.
        shape: spatial size of the example that is traced; no multiple of any stride.
        channels: of the image.

    Raises:
        VoxsegError: torch cannot trace it.
    """
    import torch

    example = torch.zeros(1, channels, *shape)
    with quiet(), torch.no_grad():
        try:
            trace: Any = torch.jit.trace  # has no types
            traced = trace(network, example, check_trace=False)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise VoxsegError(
                f"torch cannot write this network as TorchScript ({reason}); use "
                "'voxseg predict' for it"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.save(traced, path)


def _metadata(facts: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    versions = about["versions"]
    classes = facts["postprocessing"]["classes"]
    channels = facts["preprocessing"]["image_channels"]
    packages = {"nibabel": versions["nibabel"]}
    if facts["supervoxels"] is not None:
        packages["voxseg"] = versions["voxseg"]
    size = [2 * n for n in facts["smallest_voxels"]]
    image = {
        "type": "image", "format": "magnitude", "modality": "any", "num_channels": channels,
        "spatial_shape": ["*", "*", "*"], "dtype": "float32", "value_range": [],
        "is_patch_data": facts["windows"] is not None,
        "channel_def": {str(n): f"image {n}" if n else "image" for n in range(channels)},
    }  # fmt: skip
    answer = {
        "type": "image", "format": "segmentation", "num_channels": len(classes),
        "spatial_shape": ["*", "*", "*"], "dtype": "float32", "value_range": [0, 1],
        "is_patch_data": facts["windows"] is not None,
        "channel_def": {str(n): one["name"] for n, one in enumerate(classes)},
    }  # fmt: skip
    return {
        "schema": _SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by voxseg {versions['voxseg']}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": packages,
        "name": about["name"],
        "task": f"Segmentation of {', '.join(one['name'] for one in classes[1:])}",
        "description": _description(facts),
        "authors": "whoever trained it",
        "copyright": "whoever trained it",
        "intended_use": "research; this is no medical device",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": answer}},
        "smallest_spatial_shape": size,
    }


def _description(facts: Mapping[str, Any]) -> str:
    network = facts["network"]
    return (
        f"{network['name']} {network['design']}, {network['parameters']} parameters, trained with "
        "voxseg"
    )


def _readme(facts: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    classes = facts["postprocessing"]["classes"]
    rows = "\n".join(f"| {one['value']} | {one['name']} |" for one in classes)
    needs = _NEEDS_VOXSEG if facts["supervoxels"] is not None else _NEEDS_NOTHING
    places = _PLACES if takes_spacing(facts) else ""
    whole = _WHOLE if facts["windows"] is None else _WINDOWS
    spacing = facts["preprocessing"]["spacing_mm"]
    resampled = _RESAMPLED.format("x".join(f"{s:g}" for s in spacing)) if spacing else ""
    channels = facts["preprocessing"]["image_channels"]
    several = _CHANNELS.format(channels) if channels > 1 else ""
    note = f"\n{about['note']}\n" if about["note"] else ""
    return _PAGE.format(
        name=about["name"],
        description=_description(facts),
        rows=rows,
        note=note,
        needs=needs.format(**about["versions"]) + places,
        memory=whole + resampled + several,
        network=PROGRAM if facts["supervoxels"] is not None else SCRIPT,
    )


_PAGE = """# {name}

{description}. For research: this is no medical device.

| value in the mask | class |
|---|---|
{rows}
{note}
## Use

```bash
python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
    --dataset_dir FOLDER_OF_VOLUMES --output_dir FOLDER_OF_MASKS
```

`FOLDER_OF_VOLUMES` holds NIfTI files. Masks are called `VOLUME_seg.nii.gz` and lie on the grid of
their volume.

{needs}

{memory}

The network is `{network}`; `configs/inference.json` prepares images for it. When the bundle was
written, its mask of a volume was compared with voxseg's own in float32: `docs/check.json`. `voxseg
predict` may compute in bfloat16 where the processor has it, and a few voxels then differ. A
post-processing that voxseg may have for this network is not part of it.
"""
_NEEDS_NOTHING = (
    "It needs MONAI, PyTorch, nibabel and fire, and not voxseg. MONAI Label finds it in "
    "its folder of bundles (`--conf models {{NAME OF THIS FOLDER}}` of the app `monaibundle`)."
)
_NEEDS_VOXSEG = (
    "The network pools its features over supervoxels, which voxseg computes: besides MONAI, "
    "PyTorch, nibabel and fire it needs `pip install voxseg=={voxseg}`. MONAI Label cannot load it."
)
_PLACES = (
    " The network also takes the size of a voxel, from which it knows where supervoxels lie and "
    "how large they are: volumes whose voxels differ in size need `batch_size` 1, which is set."
)
_WHOLE = (
    "The network sees the whole volume at once, cut to its foreground: this takes about as much "
    "memory as voxseg predict says before it starts ('needs ... GB'). With less, choose another "
    "inferer, such as monai.inferers.SlidingWindowInferer; answers then differ near the windows' "
    "borders."
)
_WINDOWS = (
    "The network sees windows that overlap and are blended, as it did when voxseg predicted with "
    "it."
)
_RESAMPLED = (
    "\n\nVolumes are resampled to {} mm, and class shares back to the volume's grid, by the "
    "expressions `matrix` and `resample` of the configuration. MONAI's Spacingd would not do: it "
    "moves the grid, and does not smooth where the grid gets coarser."
)
_CHANNELS = (
    "\n\nThe image has {} channels: a 4D file, or in `FOLDER_OF_VOLUMES` a folder for each case "
    "whose files, sorted by name, are the channels."
)
_LICENSE = """The configuration files and pages of this bundle were written by voxseg, and may be
used under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0

The network's weights belong to whoever trained it, under terms that are theirs to choose: put them
here before you pass the bundle on.
"""
