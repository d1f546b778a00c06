"""Trained networks, loaded once and ready for many cases."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from voxseg.data.layouts import Case
from voxseg.data.prepare import Prepared, is_resampled, prepare_case, working_grid
from voxseg.data.reading import read_geometry
from voxseg.data.resample import Scores
from voxseg.engine.case_memory import CaseEstimate, Output, Work, estimate_case, settings_for
from voxseg.engine.category_files import Categories, categories_of
from voxseg.engine.checkpoint import load_checkpoint
from voxseg.engine.checkpoint_files import member_checkpoints
from voxseg.engine.classify import class_shares
from voxseg.engine.config import Config
from voxseg.engine.device import Compute, choose_compute, choose_device
from voxseg.engine.gather import Gathered, Wanted
from voxseg.engine.inference import Ensemble, gather
from voxseg.engine.network import SegmentationNetwork, image_channels, network_of
from voxseg.errors import UsageError
from voxseg.models import SUNetClassifier
from voxseg.tasks.answers import answer_of

_LOW_MEMORY_GB = 1.0
_LOW_MEMORY_WINDOW = 64


class Predictor:
    """One network, or the folds of a cross-validation, ready for many cases.

    Args:
        checkpoint: see ``PredictRequest.checkpoint``.
        device: see ``voxseg.engine.device.choose_device``.
        low_memory: within 1 GB.
    """

    def __init__(self, checkpoint: Path, device: str = "auto", low_memory: bool = False) -> None:
        self._networks: list[SegmentationNetwork] = []
        configs: list[Config] = []
        for path in member_checkpoints(checkpoint):
            content = load_checkpoint(path)
            network, config = network_of(content, path)
            self._networks.append(network)
            configs.append(config)
            self._dims = content["spatial_dims"]
            self._channels = content["in_channels"]
        self.config = configs[0]
        first = self.config
        if any(
            (c.task, c.labels, c.data) != (first.task, first.labels, first.data) for c in configs
        ):
            raise UsageError(f"the folds of {checkpoint} disagree on task, labels or data settings")
        self.answer = answer_of(first.task.kind, first.num_outputs)
        settings = self.config.predict
        if low_memory:
            window = (_LOW_MEMORY_WINDOW,) * self._dims
            settings = replace(settings, memory_gb=_LOW_MEMORY_GB, window_voxels=window)
        self._settings = settings
        self.compute: Compute = choose_compute(
            choose_device(device),
            self.config.train.precision,
            self.config.train.memory_format,
            self._dims,
        )
        for network in self._networks:
            self.compute.place(network)

    @property
    def finds_classes(self) -> bool:
        """Whether a mask is the answer."""
        return self.config.task.kind == "segmentation"

    def prepare(self, case: Case) -> Prepared:
        """Read and prepare a case as in training; its label is not needed and not read."""
        wanted = image_channels(self.config.data, self._channels, self._dims)
        supervoxels = self.config.supervoxels if self._pools else None
        unlabelled = replace(case, label=None)
        values = self.config.labels.values
        prepared = prepare_case(unlabelled, self.config.data, values, supervoxels)
        if len(prepared.image) != wanted:
            raise UsageError(
                f"{case.case_id} has {len(prepared.image)} image channels, but the network was "
                f"trained on {wanted}; give the same channels in the same order"
            )
        return prepared

    def probabilities(self, case: Prepared, *, tta: bool = False) -> np.ndarray:
        """Class probabilities (num_classes, *S) on the prepared grid, averaged over the folds."""
        gathered, _ = gather(self._ensemble(tta), case, self._settings, Wanted())
        assert isinstance(gathered.probabilities, np.ndarray)
        return gathered.probabilities

    def category(self, case: Prepared, *, tta: bool = False) -> Categories:
        """Name the most probable classes of a whole photograph."""
        networks = [one for one in self._networks if isinstance(one, SUNetClassifier)]
        config = self.config
        size = config.train.patch_voxels
        flips = tta or config.predict.tta
        shares = class_shares(networks, case, self.compute, size, flips=flips)
        return categories_of(case.case_id, shares, config.labels.names)

    def estimate(self, case: Case, output: Output) -> CaseEstimate:
        """Tell from its headers how a case will be run and what that takes."""
        source, reading = read_geometry(case.images)
        shape, spacing = working_grid(source, self.config.data)
        work = Work(
            reading=reading,
            source_shape=source.shape,
            shape=shape,
            spacing=spacing,
            channels=len(source.array),
            is_resampled=is_resampled(source, self.config.data),
            supervoxels=self.config.supervoxels if self._pools else None,
            output=output,
        )
        return estimate_case(work, self._ensemble(output.tta), self._settings)

    def gather(
        self,
        case: Prepared,
        estimate: CaseEstimate,
        output: Output,
        say: Callable[[str], None] = lambda _: None,
    ) -> tuple[Gathered, str]:
        """Run all folds (and flips) over a case within what ``estimate`` announced.

        Args:
            case: prepared.
            estimate: of the same case.
            output: what is asked for, as it was estimated.
            say: is told of every step down.

        Returns:
            Classes, and probabilities where they are needed, to be closed; and how it was run.
        """
        settings = settings_for(estimate, self._settings)
        ensemble = self._ensemble(output.tta)
        return gather(ensemble, case, settings, estimate.wanted, spare=output.folder, say=say)

    def label(self, case: Prepared, probabilities: Scores) -> np.ndarray:
        """Label map (X, Y, Z) on the source's grid, in the values of the training labels."""
        return self._in_values(case.grid.restore(probabilities))

    def label_of(self, case: Prepared, gathered: Gathered) -> np.ndarray:
        """The same from what was gathered; without resampling, classes are enough."""
        if case.grid.is_resampled:
            assert gathered.probabilities is not None
            return self.label(case, gathered.probabilities)
        return self._in_values(case.grid.restore_classes(gathered.classes))

    def _in_values(self, classes: np.ndarray) -> np.ndarray:
        values = np.asarray(self.config.labels.values)
        if (values == np.arange(len(values))).all():
            return classes
        smallest = np.result_type(*(np.min_scalar_type(v) for v in (values.min(), values.max())))
        label = np.empty(classes.shape, smallest)
        for index, layer in enumerate(classes):  # an index array takes 8 bytes a voxel
            label[index] = values[layer]
        return label

    def values_of(self, case: Prepared, gathered: Gathered) -> np.ndarray:
        """Values of another task (channels, X, Y, Z) on the source's grid."""
        assert gathered.probabilities is not None
        found = gathered.probabilities
        values = [case.grid.restore_map(found[k], 0.0) for k in range(len(found))]
        return self.answer.tidied(torch.from_numpy(np.stack(values))).numpy()

    @property
    def _pools(self) -> bool:
        return any(network.needs_superpixels for network in self._networks)

    def _ensemble(self, tta: bool) -> Ensemble:
        tta = tta or self.config.predict.tta
        return Ensemble(
            networks=self._networks,
            compute=self.compute,
            data=self.config.data,
            flip_axes=self.config.augment.flip_axes if tta else (),
            scales=self.config.predict.scales if tta else (1.0,),
            answer=self.answer,
            shorter_side=self.config.predict.shorter_side if tta else 0,
        )
