"""Which label belongs to which image, by their names; what is ambiguous is an error.

A label is marked by a word before or after the name of its image (``X_seg``, ``label-X``), lies
under the same name in another folder, or is called by the word alone in the folder of its subject
(``sub-01/seg.nii.gz``). An image may carry a word of its own (``X_T1w`` with ``X_seg``).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxseg.data.cases import Case
from voxseg.data.names import case_name, is_image_file
from voxseg.errors import DataError

_LABEL_WORDS = (
    "seg|dseg|segmentation|segmentations|label|labels|labelmap|mask|masks|gt|groundtruth|"
    "ground_truth|manual|truth|annotation"
)
_IMAGE_WORDS = "image|img|volume|vol|scan|orig|raw|t1|t1w|t1c|t1gd|t1ce|t2|t2w|flair|pd|mr|mri|ct"
_LABEL = re.compile(
    rf"^(?:(?P<before>.+)[_\-.](?:{_LABEL_WORDS})|(?:{_LABEL_WORDS})[_\-.](?P<after>.+)"
    rf"|(?P<alone>{_LABEL_WORDS}))$",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    rf"^(?:(?P<before>.+)[_\-.](?:{_IMAGE_WORDS})|(?:{_IMAGE_WORDS})[_\-.](?P<after>.+)"
    rf"|(?P<alone>{_IMAGE_WORDS}))$",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


@dataclass(frozen=True)
class Source:
    """The images of one case, with the keys by which labels may know it."""

    name: str
    images: tuple[Path, ...]
    folder: Path
    """Relative to the folder that was searched."""

    @property
    def keys(self) -> tuple[tuple[Path, str], ...]:
        """Folder and name, the most literal reading first."""
        return ((self.folder, self.name), *_without_word(_IMAGE, self.folder, self.name))


def label_keys(folder: Path, name: str, *, is_apart: bool) -> tuple[tuple[Path, str], ...]:
    """Return what a label may be named after: itself, if kept apart from images; then unmarked."""
    itself = ((folder, name),) if is_apart else ()
    if is_apart and name.endswith("_L"):  # CamVid's mark of a label
        itself = (*itself, (folder, name[:-2]))
    return (*itself, *_without_word(_LABEL, folder, name))


def is_marked_label(path: Path) -> bool:
    """Tell whether the name has a word for labels in it."""
    return bool(_LABEL.match(case_name(path)))


def is_image_word(name: str) -> bool:
    """Tell whether the name is but a word for images (``t1``), which says nothing of the case."""
    match = _IMAGE.match(name)
    return bool(match and match["alone"])


def _without_word(
    pattern: re.Pattern[str], folder: Path, name: str
) -> tuple[tuple[Path, str], ...]:
    match = pattern.match(name)
    if match is None:
        return ()
    base = match["before"] or match["after"]
    # A word alone names the only image of its folder, whatever that is called.
    return ((folder, base),) if base else ((folder, ""),)


def single_sources(images: Iterable[Path], root: Path) -> list[Source]:
    """Take every file as a case of its own."""
    return [Source(case_name(path), (path,), path.parent.relative_to(root)) for path in images]


def channel_sources(images: Sequence[Path], root: Path) -> list[Source] | None:
    """Group files named ``CASE_0000``, ``CASE_0001``, ... by case.

    Returns:
        None if the names do not fit: not all end in four digits, a case does not count up from
        0000, or cases have different numbers of channels.
    """
    groups: dict[tuple[Path, str], list[tuple[int, Path]]] = defaultdict(list)
    for path in images:
        match = _CHANNEL.match(case_name(path))
        if match is None:
            return None
        key = (path.parent.relative_to(root), match["case"])
        groups[key].append((int(match["channel"]), path))
    sources = []
    for (folder, case), channels in sorted(groups.items()):
        channels.sort()
        if [number for number, _ in channels] != list(range(len(channels))):
            return None
        sources.append(Source(case, tuple(path for _, path in channels), folder))
    if len({len(source.images) for source in sources}) > 1:
        return None
    return sources


def refuse_incomplete_channels(images: Sequence[Path], labels: Sequence[Path]) -> None:
    """Raise if labels have channel files, but not 0000, 0001, ... in the same number for all.

    Raises:
        DataError: With the case and the channels that it has.
    """
    names = {case_name(label) for label in labels}
    channels: dict[str, list[str]] = {name: [] for name in sorted(names)}
    for path in images:
        match = _CHANNEL.match(case_name(path))
        if match and match["case"] in names:
            channels[match["case"]].append(match["channel"])
    most = max((len(numbers) for numbers in channels.values()), default=0)
    expected = [f"{number:04d}" for number in range(most)]
    for case, numbers in channels.items():
        if most and sorted(numbers) != expected:
            raise DataError(
                f"case {case} in {images[0].parent} has the channels "
                f"{', '.join(sorted(numbers)) or 'none'} where {', '.join(expected)} are needed; "
                "add the missing file or remove the case"
            )


def pair(
    sources: Sequence[Source],
    labels: Sequence[Path],
    label_root: Path,
    *,
    is_apart: bool,
    is_strict: bool = True,
) -> tuple[dict[int, Path], list[Path]]:
    """Find the image of every label.

    Args:
        sources: Images by case.
        labels: Label files below ``label_root``.
        label_root: Folder that labels' folders are relative to.
        is_apart: Whether labels have a folder of their own, where they need no word.
        is_strict: Whether ambiguity is an error; else the label is left aside.

    Returns:
        The label of each source by its index; labels without an image.

    Raises:
        DataError: Two images claim a label, or two labels an image, and ``is_strict``.
    """
    finders = [_finder(sources, tier) for tier in (0, 1)]
    found: dict[int, Path] = {}
    orphans = []
    for label in labels:
        keys = label_keys(label.parent.relative_to(label_root), case_name(label), is_apart=is_apart)
        matches = next((hit for key in keys for find in finders if (hit := find(key))), [])
        if not matches:
            orphans.append(label)
            continue
        if len(matches) > 1 or matches[0] in found:
            if is_strict:
                claims = [sources[index] for index in matches]
                raise DataError(_ambiguity(label, claims, found.get(matches[0])))
            continue
        found[matches[0]] = label
    return found, orphans


def _ambiguity(label: Path, sources: Sequence[Source], other: Path | None) -> str:
    """Say who claims what."""
    cure = "keep one of them, or list images and labels in a CSV file"
    if len(sources) > 1:
        names = " and ".join(str(source.images[0]) for source in sources[:2])
        return f"two images for one label: {label} could belong to {names}; {cure}"
    return f"two labels for one image: {other} and {label} both fit {sources[0].images[0]}; {cure}"


def _finder(sources: Sequence[Source], tier: int) -> Callable[[tuple[Path, str]], list[int]]:
    """Return a look-up of sources by their literal name (tier 0) or without its word (tier 1)."""
    by_key: dict[tuple[Path, str], list[int]] = defaultdict(list)
    by_folder: dict[Path, list[int]] = defaultdict(list)
    for index, source in enumerate(sources):
        by_folder[source.folder].append(index)
        if len(source.keys) > tier:
            by_key[source.keys[tier]].append(index)

    def find(key: tuple[Path, str]) -> list[int]:
        return by_key[key] if key[1] else by_folder[key[0]]

    return find


def refuse_unpaired(
    sources: Sequence[Source],
    found: dict[int, Path],
    orphans: Sequence[Path],
    need_labels: bool,
    ending: str | None = None,
) -> None:
    """Refuse images without label and labels without image, naming the first.

    Args:
        sources: Images by case.
        found: The label of each source by its index.
        orphans: Labels without an image.
        need_labels: Whether either is refused at all.
        ending: What the missing label's name would end in; by the image if None.

    Raises:
        DataError: There are such, and labels are needed.
    """
    if not need_labels:
        return
    bare = [source for index, source in enumerate(sources) if source.images and index not in found]
    if orphans:
        raise DataError(
            f"{_count(len(orphans), 'label')} without image, the first {orphans[0]}; add the "
            f"image, remove the label, or list the pairs in a CSV file"
        )
    if bare:
        if ending is None:
            ending = "_mask.png" if is_image_file(bare[0].images[0]) else "_seg.nii.gz"
        raise DataError(
            f"{_count(len(bare), 'image')} of {len(sources)} without label, the first "
            f"{bare[0].images[0]}; name its label {bare[0].name}{ending}, or move it into a folder "
            "called unlabelled"
        )


def name_cases(sources: Sequence[Source], found: dict[int, Path]) -> list[Case]:
    """Name the cases: after the file, or after its folder where files of many share a name."""
    counts = Counter(source.name for source in sources)
    in_folder = Counter(source.folder for source in sources)
    cases = []
    for index, source in enumerate(sources):
        name = source.name
        if source.folder.parts and (counts[name] > 1 or is_image_word(name)):
            is_only = in_folder[source.folder] == 1
            name = "_".join((*source.folder.parts, *(() if is_only else (name,))))
        cases.append(Case(name, source.images, found.get(index)))
    return cases


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
