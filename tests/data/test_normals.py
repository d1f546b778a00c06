"""Normals of photographs in every form of file, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from voxseg.data.images import read_photograph
from voxseg.data.normals import normals_shape, read_normals
from voxseg.data.volume import check_same_grid
from voxseg.errors import DataError

SIZE = (5, 7)


@pytest.fixture
def normals(rng):
    """Random unit vectors (5, 7, 3) towards the viewer, two of them unknown."""
    vectors = rng.normal(size=(*SIZE, 3))
    vectors[..., 2] = np.abs(vectors[..., 2])
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[0, 1] = vectors[4, 6] = 0
    return vectors


@pytest.fixture
def save(tmp_path):
    """Save an archive; return its path."""

    def write(name="n.npz", **arrays):
        np.savez_compressed(tmp_path / name, **arrays)
        return tmp_path / name

    return write


def read(path):
    """Return normals (H, W, 3) after what holds for every file."""
    volume = read_normals(path)
    assert (volume.array.dtype, volume.header) == (np.float32, None)
    assert volume.array.flags.c_contiguous
    assert volume.array.shape == (3, *normals_shape(path), 1)
    found = volume.array[..., 0].transpose(1, 2, 0)
    lengths = np.linalg.norm(found, axis=2)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-6)
    return found


def refused(path, reader=read_normals):
    with pytest.raises(DataError) as caught:
        reader(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    assert path.name in message
    return message


def painted(normals, start, steps):
    """Colours as files have them, black where nothing is known."""
    values = np.rint((normals + 1) / 2 * steps + start).astype(np.uint8)
    values[~normals.any(axis=2)] = 0
    return Image.fromarray(values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_archive(dtype, normals, save):
    image = np.zeros((*SIZE, 3), np.uint8)
    path = save(image=image, normal=normals.astype(dtype), valid=normals.any(axis=2), label=image)
    np.testing.assert_allclose(read(path), normals, atol=5e-4 if dtype == np.float16 else 1e-6)


def test_valid_says_what_counts_and_without_it_zero_is_unknown(normals, save):
    valid = normals.any(axis=2)
    valid[2, 3] = False
    normals[0, 1] = np.nan  # whatever lies where nothing is known
    found = read(save(normal=normals, valid=valid))
    assert (found.any(axis=2) == valid).all()
    normals[0, 1] = 0
    found = read(save(normal=normals))
    assert (found.any(axis=2) == normals.any(axis=2)).all()


@pytest.mark.parametrize(
    ("name", "start", "steps"),
    [("a.normal.png", 1, 254), ("a.NORMALS.png", 1, 254), ("a.png", 0, 255), ("a.tif", 0, 255)],
)
def test_a_picture(name, start, steps, normals, tmp_path):
    painted(normals, start, steps).save(tmp_path / name)
    found = read(tmp_path / name)
    np.testing.assert_allclose(found, normals, atol=1 / steps + 5e-3)
    assert not found[~normals.any(axis=2)].any()


def test_values_of_pictures_by_hand(tmp_path):
    """(v - 1) / 254 * 2 - 1: 128 is 0, 255 is 1; v / 255 * 2 - 1 has no value for 0."""
    Image.fromarray(np.array([[[128, 128, 255], [1, 128, 128], [0, 0, 0]]], np.uint8)).save(
        tmp_path / "a.normal.png"
    )
    assert read(tmp_path / "a.normal.png").tolist() == [[[0, 0, 1], [-1, 0, 0], [0, 0, 0]]]
    Image.fromarray(np.array([[[255, 127, 128], [127, 128, 128], [0, 0, 0]]], np.uint8)).save(
        tmp_path / "a.png"
    )
    x = (255 / 255 * 2 - 1, 127 / 255 * 2 - 1, 128 / 255 * 2 - 1)
    found = read(tmp_path / "a.png")
    np.testing.assert_allclose(found[0, 0], np.array(x) / np.linalg.norm(x), atol=1e-6)
    assert not found[0, 1:].any()  # grey is the zero vector, black is nothing


def test_normals_must_have_length_1(normals, save, tmp_path):
    short = normals.copy()
    short[1, 2] *= 0.9
    message = refused(save(normal=short))
    assert "1 of 33 normals that are not of length 1, the first 0.9 in row 1, column 2" in message
    short[1, 2] = np.nan
    assert "the first nan in row 1" in refused(save(normal=short))
    photograph = np.full((*SIZE, 3), 250, np.uint8)
    Image.fromarray(photograph).save(tmp_path / "a.png")
    assert "35 of 35 normals" in refused(tmp_path / "a.png")


def test_rounding_is_no_error(normals, save):
    read(save(normal=normals * 1.009))
    assert "not of length 1" in refused(save(normal=normals * 1.011))


def test_a_file_without_a_normal_is_refused(normals, save, tmp_path):
    words = "no pixel whose normal is known"
    assert words in refused(save(normal=np.zeros_like(normals)))
    assert words in refused(save(normal=normals, valid=np.zeros(SIZE, bool)))
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    assert words in refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros(3)}, "no array called normal (it has image)"),
        ({"normal": np.zeros((*SIZE, 3), np.uint8)}, "holds normal as uint8 (5, 7, 3) where"),
        ({"normal": np.zeros((3, *SIZE))}, "holds normal as float64 (3, 5, 7) where"),
        ({"normal": np.zeros((*SIZE, 3)), "valid": np.zeros(SIZE, np.uint8)}, "valid as uint8"),
        ({"normal": np.zeros((*SIZE, 3)), "valid": np.zeros((7, 5), bool)}, "bool (7, 5) where"),
        (
            {"normal": np.zeros((*SIZE, 3)), "image": np.zeros((7, 5, 3), np.uint8)},
            "7x5 normals but an image of 5x7 pixels",
        ),
        ({"normal": np.array([None])}, "Object arrays cannot be loaded"),
    ],
)
def test_an_archive_of_something_else_is_refused(arrays, words, save):
    assert words in refused(save(**arrays))


def test_no_archive_is_refused(tmp_path):
    path = tmp_path / "n.npz"
    assert "does not exist" in refused(path)
    path.write_bytes(b"")
    assert "is an empty file" in refused(path)
    path.write_text("x, y, z")
    assert "is a text file and cannot be read" in refused(path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in refused(path)


def test_a_damaged_archive_is_refused(normals, tmp_path):
    path = tmp_path / "n.npz"
    np.savez(path, normal=normals)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "Bad CRC-32" in refused(path)
    path.write_bytes(content[:-40])
    assert "cannot be read as a NumPy archive" in refused(path)


@pytest.mark.parametrize(
    ("mode", "suffix", "words"),
    [("L", "png", "stored as L"), ("RGBA", "png", "stored as RGBA"), ("RGB", "jpg", "a JPEG")],
)
def test_a_picture_of_another_form_is_refused(mode, suffix, words, tmp_path):
    Image.new(mode, (7, 5)).save(tmp_path / f"a.{suffix}")
    assert words in refused(tmp_path / f"a.{suffix}")


def test_normals_of_another_size_than_the_photograph_are_refused(normals, tmp_path):
    painted(normals, 0, 255).save(tmp_path / "n.png")
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"n.png has 7x5 pixels but .*a.jpg has 5x7; save both"):
        check_same_grid(read_photograph(tmp_path / "a.jpg"), read_normals(tmp_path / "n.png"))


@pytest.mark.slow
def test_real_normals_read(real_data):
    """All of both sets; the photographs fit, and nearly all surfaces face the viewer."""
    pairs = [(path, path) for path in sorted(real_data.glob("nyuv2_normals/*/*.npz"))]
    painted = sorted(real_data.glob("rgbd_normals/*/*.normal.png"))
    pairs += [(path.with_name(path.name.replace(".normal.", ".rgb.")), path) for path in painted]
    assert len(pairs) == 58
    for image, label in pairs:
        normals = read_normals(label)
        check_same_grid(read_photograph(image), normals)
        known = normals.array.any(axis=0)
        assert (normals.array[2][known] > -0.2).mean() > 0.99
