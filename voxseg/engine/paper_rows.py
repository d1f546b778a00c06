"""Rows of the supervoxel paper's tables on IBSR: what each trains, and what the paper reports.

Source: Schuurmans, Berman, Blaschko, arXiv:1806.02705, Tables 1 and 2. A row is a network, a design
and a partition into supervoxels; its name is the folder of its cross-validation.

Partitions are named by method and size, finest first. Table 1 gives each network sizes of its own
(BLOCK/SLIC with an oracle Dice of 89.0/91.1 for the full network, 79.6/87.8 for /4, 72.7/87.8 for
/8). Table 2 gives V3 of every network the same three (BLOCK 79.6, SLIC 87.8 and 84.1), so its
"larger superpixels" are ``slic-largest`` here. For /8, BLOCK has 75.2 in both tables, under oracles
of 72.7 and 79.6: the paper does not say which it is, so both rows show it.

Departures: two rows are not the paper's. ``control`` is the baseline trained on for as many updates
as the fine-tuned networks get. V4 is voxseg's own design (``layers/superpixel_tokens``), on the
partitions of Table 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from voxseg.data.superpixels import Method
from voxseg.engine.config import merge, read_recipe

Network = Literal["reduced8", "reduced4", "full"]
Design = Literal["V0", "control", "V1", "V2", "V3", "V4"]

NETWORKS: dict[Network, str] = {
    "reduced8": "Reduced (/8)",
    "reduced4": "Reduced (/4)",
    "full": "Full network",
}
"""Name in folders -> as the paper writes it, the cheapest first."""


@dataclass(frozen=True)
class Partition:
    """One way to divide a volume."""

    name: str
    method: Method
    size_mm: float
    """Edge that gives about the paper's oracle on IBSR; SLIC with a compactness of 0.1."""
    oracle: float
    """The paper's oracle Dice, in percent."""


_ALL = (
    Partition("block-fine", "block", 2.2, 89.0),
    Partition("block-middle", "block", 4.0, 79.6),
    Partition("block-large", "block", 5.7, 72.7),
    Partition("slic-fine", "slic", 3.0, 91.1),
    Partition("slic-large", "slic", 5.9, 87.8),
    # In no recipe: measured on the ten labelled subjects of IBSR V2.0, an oracle of 84.0.
    Partition("slic-largest", "slic", 12.9, 84.1),
)
PARTITIONS = {partition.name: partition for partition in _ALL}


@dataclass(frozen=True)
class Row:
    """One network of the tables."""

    network: Network
    design: Design
    partition: str = ""
    """A name of ``PARTITIONS``; "" for V0 and control, which have none."""

    @property
    def name(self) -> str:
        """Folder of its cross-validation."""
        parts = (self.network, self.design.lower(), self.partition)
        return "-".join(part for part in parts if part)

    @property
    def title(self) -> str:
        """As people read it."""
        where = f" on {self.partition}" if self.partition else ""
        return f"{NETWORKS[self.network]}, {self.design}{where}"

    @property
    def starts_from(self) -> str:
        """Name of the row whose networks it starts from; "" for one that starts from scratch."""
        return "" if self.design == "V0" else f"{self.network}-v0"

    @property
    def recipe(self) -> str:
        """The recipe that it trains by; the partition may have another size."""
        design = "v0" if self.design == "control" else self.design.lower()
        is_block = self.partition.startswith("block")
        return f"ibsr-{self.network}-{design}{'-block' if is_block else ''}"

    def changes(self, sizes: Mapping[str, float]) -> dict[str, Any]:
        """Give the settings in which it departs from its recipe, as nested tables.

        Args:
            sizes: partition -> its size in mm.
        """
        if self.partition:
            return {"supervoxels": {"size_mm": sizes[self.partition]}}
        if self.design == "control":
            # It is trained on exactly as the fine-tuned networks are.
            return {"train": read_recipe(f"ibsr-{self.network}-v3")["train"]}
        return {}

    def settings(self, sizes: Mapping[str, float]) -> dict[str, Any]:
        """Give all its settings: the recipe's, and the changes on it."""
        return merge(read_recipe(self.recipe), self.changes(sizes))


# Table 1's partitions, SLIC first.
_TABLE_1: dict[Network, tuple[str, str]] = {
    "reduced8": ("slic-large", "block-large"),
    "reduced4": ("slic-large", "block-middle"),
    "full": ("slic-fine", "block-fine"),
}
_SOFT: tuple[Design, ...] = ("V3", "V4")
"""Designs that add supervoxels to the voxel scores."""
_TABLE_2 = ("block-middle", "slic-large", "slic-largest")

PAPER: dict[str, dict[str, float]] = {
    # arXiv:1806.02705, Table 1: Dice in percent.
    "reduced8-v0": {"1": 72.2},
    "reduced8-v1-block-large": {"1": 67.9},
    "reduced8-v1-slic-large": {"1": 73.1},
    "reduced8-v2-block-large": {"1": 62.6},
    "reduced8-v2-slic-large": {"1": 68.4},
    "reduced8-v3-block-large": {"1": 75.2},
    "reduced4-v0": {"1": 78.9},
    "reduced4-v1-block-middle": {"1": 71.8},
    "reduced4-v1-slic-large": {"1": 78.3},
    "reduced4-v2-block-middle": {"1": 66.0},
    "reduced4-v2-slic-large": {"1": 72.2},
    "full-v0": {"1": 88.0},
    "full-v1-block-fine": {"1": 83.4},
    "full-v1-slic-fine": {"1": 84.7},
    "full-v2-block-fine": {"1": 83.8},
    "full-v2-slic-fine": {"1": 86.2},
    "full-v3-block-fine": {"1": 90.2},
    "full-v3-slic-fine": {"1": 88.9},
    # In both tables.
    "reduced8-v3-slic-large": {"1": 76.9, "2": 76.9},
    "reduced4-v3-block-middle": {"1": 82.7, "2": 82.7},
    "reduced4-v3-slic-large": {"1": 82.3, "2": 82.3},
    # Table 2.
    "reduced8-v3-block-middle": {"2": 75.2},
    "reduced8-v3-slic-largest": {"2": 78.9},
    "reduced4-v3-slic-largest": {"2": 83.3},
    "full-v3-block-middle": {"2": 89.6},
    "full-v3-slic-large": {"2": 88.97},
    "full-v3-slic-largest": {"2": 89.9},
}
"""Row -> table of the paper -> mean Dice in percent over 3 folds; whether the mean has the
background in it, and how far cases lie apart, is not said."""

PAPER_SECONDS = "1 to 3 s for the reduced networks and 20 to 25 s for the full one"
"""Inference times that the paper's text gives beside its Figure 8, without naming the device."""


def blocks() -> tuple[tuple[Row, ...], ...]:
    """All rows in the order of their worth; those of a block are worth little without each other.

    V3 of each network with its baseline and control, each followed by V4; then V1 and V2, then
    Table 2's other sizes.
    """
    first: list[tuple[Row, ...]] = []
    for network in NETWORKS:
        v3, v4 = (
            tuple(Row(network, design, partition) for partition in _TABLE_1[network])
            for design in _SOFT
        )
        first += [(Row(network, "V0"), Row(network, "control"), *v3), v4]
    hard: tuple[Design, ...] = ("V1", "V2")
    second = tuple(
        tuple(Row(network, design, partition) for partition in _TABLE_1[network])
        for network in NETWORKS
        for design in hard
    )
    third = tuple(
        tuple(Row(network, "V3", name) for name in _TABLE_2 if name not in _TABLE_1[network])
        for network in NETWORKS
    )
    return (*first, *second, *third)


def all_rows() -> tuple[Row, ...]:
    """The rows of all blocks, in order."""
    return tuple(row for block in blocks() for row in block)
