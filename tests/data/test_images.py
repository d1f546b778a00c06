"""Photographs in every form that files of pictures have."""

import numpy as np
import pytest
from PIL import Image

from voxseg.data.images import photograph_geometry, picture_facts, read_photograph
from voxseg.data.reading import read_channels, read_geometry
from voxseg.errors import DataError


@pytest.fixture
def rgb(rng):
    """Red, green and blue (5, 7, 3)."""
    return rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def pixels(path):
    """Return what is read as (H, W, 3)."""
    volume = read_photograph(path)
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous
    assert volume.header is None
    return volume.array[..., 0].transpose(1, 2, 0)


def refused(path, read=read_photograph):
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    assert path.name in message
    return message


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp", "PNG"])
def test_rgb_is_read_as_stored(suffix, rgb, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path)
    np.testing.assert_array_equal(pixels(path), rgb)
    assert read_channels([path]).array.shape == (3, 5, 7, 1)
    assert picture_facts(path).habits == frozenset()
    assert (picture_facts(path).shape, picture_facts(path).dtype) == ((5, 7), "uint8 RGB")


def test_jpeg_is_close(tmp_path):
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 48, 3))
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg"), smooth, atol=3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_levels_count_as_equal_colours(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((4, 6), 90, np.uint8)).save(path)
    np.testing.assert_array_equal(pixels(path), np.full((4, 6, 3), 90))
    assert picture_facts(path).habits == {"grey"}


def test_opaque_alpha_is_dropped_and_transparent_pixels_lie_on_black(rgb, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([rgb, np.full((5, 7), 255, np.uint8)])).save(path)
    np.testing.assert_array_equal(pixels(path), rgb)
    alpha = np.full((5, 7), 255, np.uint8)
    alpha[0], alpha[1] = 0, 51
    Image.fromarray(np.dstack([rgb, alpha])).save(path)
    assert not pixels(path)[0].any()
    np.testing.assert_allclose(pixels(path)[1], np.rint(rgb[1] / 5))
    np.testing.assert_array_equal(pixels(path)[2:], rgb[2:])
    assert picture_facts(path).habits == {"alpha"}


def test_palette_becomes_its_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode=None)
    picture.putpalette([9, 8, 7, 200, 0, 0, 0, 100, 50])
    picture.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0].tolist() == [[9, 8, 7], [200, 0, 0], [0, 100, 50]]
    picture.save(tmp_path / "a.png", transparency=1)
    assert pixels(tmp_path / "a.png")[0].tolist() == [[9, 8, 7], [0, 0, 0], [0, 100, 50]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_divided_by_257(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([[0, 257, 300, 65535]], np.uint16)).save(path)
    found = pixels(path)[0, :, 0]
    np.testing.assert_allclose(found, np.array([0, 1, 300 / 257, 255]), rtol=1e-6)
    assert picture_facts(path).habits == {"grey", "16-bit"}
    assert picture_facts(path).dtype == "uint16 grey"


def test_cmyk_becomes_rgb(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK").save(path, quality=95)
    np.testing.assert_allclose(pixels(path), np.full((8, 8, 3), (255, 0, 0)), atol=6)
    assert picture_facts(path).habits == {"CMYK"}


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_told_and_not_applied(suffix, rgb, tmp_path):
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(path, exif=exif)
    assert pixels(path).shape == (5, 7, 3)
    assert picture_facts(path).shape == (5, 7)
    assert picture_facts(path).habits == {"turned"}


def test_one_pixel(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(tmp_path / "a.png")
    assert read_photograph(tmp_path / "a.png").array.ravel().tolist() == [1, 2, 3]


def test_geometry_is_that_of_reading(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    geometry, num_bytes = read_geometry([tmp_path / "a.png"])
    assert geometry.array.shape == read_photograph(tmp_path / "a.png").array.shape
    assert num_bytes == 15 * 35
    assert photograph_geometry([tmp_path / "a.png"])[1] == num_bytes


def test_two_pictures_are_no_case(rgb, tmp_path):
    for name in "ab":
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"b.png is a second picture of one case"):
        read_channels([tmp_path / "a.png", tmp_path / "b.png"])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_rejects_several_frames(suffix, rgb, tmp_path):
    path = tmp_path / f"a.{suffix}"
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "holds 2 frames where one is needed" in refused(path)
    assert "holds 2 frames" in refused(path, picture_facts)


def test_rejects_floating_point(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "a.tif")
    assert "holds floating point values" in refused(tmp_path / "a.tif")
    assert picture_facts(tmp_path / "a.tif").dtype == "float32 F"


def test_rejects_more_than_16_bits(tmp_path):
    Image.fromarray(np.array([[70000, -1]], np.int32)).save(tmp_path / "a.tif")
    assert "values from -1 to 70000, beyond 16 bits" in refused(tmp_path / "a.tif")


def test_rejects_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "it looks like a Git LFS pointer" in refused(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    assert "it looks like an empty file" in refused(tmp_path / "a.png")
    (tmp_path / "d.png").mkdir()
    assert "is a folder" in refused(tmp_path / "d.png")
    assert "does not exist" in refused(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_rejects_a_file_that_was_cut_off(suffix, rng, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    assert "truncated or damaged" in refused(path)


def test_rejects_too_many_pixels(rgb, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert "too many pixels for one picture" in refused(tmp_path / "a.png")
