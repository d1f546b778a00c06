"""Arrays in NumPy archives: names, values, headers; damage is tested with what reads them."""

import numpy as np
import pytest

from voxseg.data.archives import array_header, array_names, read_array
from voxseg.data.images import photograph_geometry, picture_facts, read_photograph
from voxseg.data.reading import read_channels, read_geometry
from voxseg.errors import DataError


@pytest.fixture
def image(rng):
    """Red, green and blue (5, 7, 3)."""
    return rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_headers_say_what_is_read(save, image, tmp_path):
    arrays = {"image": image, "valid": image[..., 0] > 9, "x": np.array(3.5, np.float16)}
    save(tmp_path / "a.npz", **arrays)
    assert array_names(tmp_path / "a.npz") == list(arrays)
    for name, array in arrays.items():
        found = read_array(tmp_path / "a.npz", name)
        np.testing.assert_array_equal(found, array)
        assert array_header(tmp_path / "a.npz", name) == (array.shape, array.dtype)


def test_an_archive_takes_a_photographs_place(image, tmp_path):
    path = tmp_path / "a.NPZ"
    with path.open("wb") as file:
        np.savez(file, image=image)
    volume = read_channels([path])
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[..., 0].transpose(1, 2, 0), image)
    assert picture_facts(path).shape == (5, 7)
    geometry, num_bytes = read_geometry([path])
    assert (geometry.array.shape, num_bytes) == (volume.array.shape, 5 * 7 * 15)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 7, 3)), "an image float64"),
        (np.zeros((5, 7), np.uint8), "an image uint8 (5, 7) where"),
        (np.zeros((3, 5, 7), np.uint8), "(3, 5, 7)"),
        (None, "no array called image (it has normal)"),
    ],
)
@pytest.mark.parametrize("read", [read_photograph, lambda path: photograph_geometry([path])])
def test_an_archive_of_something_else_is_refused(array, words, read, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **({"normal": np.zeros(3)} if array is None else {"image": array}))
    with pytest.raises(DataError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(caught.value).count(";") == 1
