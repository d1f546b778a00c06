"""Masks of photographs: palettes, grey levels, colours with and without a table, SBD."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from voxseg.data.image_masks import mask_shape, read_mask
from voxseg.data.images import read_photograph
from voxseg.data.reading import read_label
from voxseg.data.volume import check_same_grid
from voxseg.errors import DataError

RED, GREEN, BLACK, GREY = (200, 10, 10), (10, 200, 10), (0, 0, 0), (90, 90, 90)
VALUES = np.array([[0, 1, 2], [2, 1, 15]], np.uint8)


def values(path):
    volume = read_label(path)
    assert volume.array.dtype == np.int32
    assert volume.array.shape == (*mask_shape(path), 1)
    return volume.array[..., 0].tolist()


def refused(path):
    with pytest.raises(DataError) as caught:
        read_mask(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    assert path.name in message
    return message


@pytest.fixture
def painted(tmp_path):
    """Save an RGB mask of one row; return its path."""

    def paint(*colours, folder=tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([colours], np.uint8)).save(folder / "m.png")
        return folder / "m.png"

    return paint


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_palette_gives_indices_never_colours(suffix, tmp_path):
    picture = Image.fromarray(VALUES)
    picture.putpalette([255, 255, 255, 0, 0, 0] * 8)
    picture.save(tmp_path / f"m.{suffix}")
    assert values(tmp_path / f"m.{suffix}") == VALUES.tolist()


def test_a_palette_with_few_bits_and_transparency(tmp_path):
    picture = Image.fromarray(np.minimum(VALUES, 3))
    picture.putpalette([10 * part for part in range(12)])
    picture.save(tmp_path / "m.png", bits=2, transparency=0)
    assert values(tmp_path / "m.png") == np.minimum(VALUES, 3).tolist()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_levels_are_values(suffix, tmp_path):
    Image.fromarray(VALUES).save(tmp_path / f"m.{suffix}")
    assert values(tmp_path / f"m.{suffix}") == VALUES.tolist()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_values(suffix, tmp_path):
    wide = VALUES.astype(np.uint16) * 1000
    Image.fromarray(wide).save(tmp_path / f"m.{suffix}")
    assert values(tmp_path / f"m.{suffix}") == wide.tolist()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_0_and_1(suffix, tmp_path):
    Image.fromarray(VALUES > 1).save(tmp_path / f"m.{suffix}")
    assert values(tmp_path / f"m.{suffix}") == (VALUES > 1).astype(int).tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_of_grey_are_not_stretched(bits, tmp_path):
    """A 4-bit grey PNG, which no common library writes; its header and rows by hand."""
    import struct
    import zlib

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    row = bytes([0, 0x13]) if bits == 4 else bytes([0, 0b01110000])
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(content)
    assert values(tmp_path / "m.png") == [[1, 3]]


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    Image.merge("LA", [Image.fromarray(VALUES), Image.new("L", (3, 2), 255)]).save(
        tmp_path / "m.png"
    )
    assert values(tmp_path / "m.png") == VALUES.tolist()
    Image.merge("LA", [Image.fromarray(VALUES), Image.new("L", (3, 2), 9)]).save(tmp_path / "m.png")
    assert "transparent pixels" in refused(tmp_path / "m.png")


def test_grey_in_rgb_without_a_table_is_values(painted):
    assert values(painted(BLACK, GREY)) == [[0, 90]]


def test_colours_without_a_table_are_refused_with_what_would_help(painted):
    message = refused(painted(BLACK, RED))
    assert "label_colors.txt, class_dict.csv or labels.csv" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("label_colors.txt", "0 0 0\tsky\n\n# note\n200 10 10 \t\tcar\n10 200 10\tVoid\n"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,0\ncar,200,10,10\nvoid,10,200,10\n"),
        (
            "class_dict.csv",
            "class;r;green;b\nsky;0;0;0\ncar;200;10;10\nUnlabelled;10;200;10\n",
        ),
    ],
)
def test_tables_number_classes_in_their_order(name, text, painted, tmp_path):
    (tmp_path / name).write_text(text)
    path = painted(RED, BLACK, GREEN, folder=tmp_path / "masks" / "train")
    assert values(path) == [[1, 0, 255]]


def test_a_table_is_read_again_when_it_has_changed(painted, tmp_path):
    path = painted(RED)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\na,0,0,0\nb,200,10,10\n")
    assert values(path) == [[1]]
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nb,200,10,10\n")
    import os

    os.utime(tmp_path / "class_dict.csv", ns=(1, 1))
    assert values(path) == [[0]]


def test_slicers_table_gives_values_and_leaves_the_background_out(painted, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "LabelValue,Name,Color_R,Color_G,Color_B,Color_A\n4,liver,200,10,10,255\n"
    )
    assert values(painted(BLACK, RED)) == [[0, 4]]


def test_grey_levels_of_a_black_and_white_table_are_its_classes(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nland,0,0,0\nroad,255,255,255\n")
    assert values(tmp_path / "m.png") == [[0, 1]]
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nland,0,0,0\nroad,255,255,0\n")
    assert values(tmp_path / "m.png") == [[0, 255]]


def test_an_unknown_colour_is_named_with_the_nearest_class(painted, tmp_path):
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsky,0,0,0\ncar,200,10,10\n")
    message = refused(painted(BLACK, (199, 12, 10), (198, 9, 9)))
    assert "2 pixels of colours that" in message
    assert "the first (199, 12, 10) in row 0, column 1; the nearest is car (200, 10, 10)" in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("label_colors.txt", "sky 0 0 0\n", "line 1 of"),
        ("label_colors.txt", "# nothing\n", "lists no class"),
        ("class_dict.csv", "name,r,g\nsky,0,0\n", "needs a header with the columns name,r,g,b"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,300\n", "line 2 of"),
        ("class_dict.csv", "name,r,g,b\nsky,0,0,0\ncar,0,0,0\n", "two classes the colour"),
        ("labels.csv", "value,name,r,g,b\n1,sky,0,0,0\n1,car,1,0,0\n", "the same value"),
        ("labels.csv", "value,name,r,g,b\nx,sky,0,0,0\n", "class value 'x'"),
    ],
)
def test_a_damaged_table_is_refused(name, text, words, painted, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_mask(painted(RED))
    assert name in str(caught.value)


def test_camvids_colours_become_segnets_classes(painted, tmp_path):
    folder = tmp_path / "LabeledApproved_full"
    colours = [(128, 128, 128), (192, 0, 128), (192, 128, 192), (128, 0, 192), (0, 0, 0)]
    assert values(painted(*colours, folder=folder)) == [[0, 1, 8, 3, 11]]
    assert "the nearest is SUVPickupTruck" in refused(painted((64, 128, 191), folder=folder))


def test_vocs_palette_as_colours(painted, tmp_path):
    colours = [(0, 0, 0), (128, 0, 0), (0, 64, 128), (224, 224, 192)]
    path = painted(*colours, folder=tmp_path / "SegmentationClass")
    assert "nothing says which classes" in refused(path)  # not one of VOC's photographs
    path = path.rename(path.with_name("2007_000033.png"))
    assert values(path) == [[0, 1, 20, 255]]


def test_a_jpeg_is_refused_whatever_its_name(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "m.png", format="JPEG")
    assert "is a JPEG, which changes class values" in refused(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((2, 2), np.float32), "floating point values"),
        (np.zeros((2, 2, 4), np.uint8), "CMYK colours"),
    ],
)
def test_other_numbers_are_refused(picture, words, tmp_path):
    mode = "CMYK" if picture.ndim == 3 else None
    Image.fromarray(picture, mode).save(tmp_path / "m.tif")
    assert words in refused(tmp_path / "m.tif")


def test_a_mask_of_another_size_is_refused_in_pixels(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "a.jpg")
    Image.new("L", (5, 7)).save(tmp_path / "m.png")
    with pytest.raises(DataError) as caught:
        check_same_grid(read_photograph(tmp_path / "a.jpg"), read_mask(tmp_path / "m.png"))
    assert "m.png has 5x7 pixels but" in str(caught.value)
    assert "a.jpg has 7x5; save both in one size" in str(caught.value)


def test_sbd(tmp_path):
    content = {"GTcls": {"Segmentation": VALUES, "Boundaries": np.zeros(3)}}
    scipy.io.savemat(tmp_path / "m.mat", content)
    assert values(tmp_path / "m.mat") == VALUES.tolist()


@pytest.mark.parametrize(
    "content", [{"other": 1}, {"GTcls": 3}, {"GTcls": {"Segmentation": np.zeros((2, 2, 2))}}]
)
def test_another_matlab_file_is_refused(content, tmp_path):
    scipy.io.savemat(tmp_path / "m.mat", content)
    assert "no mask of SBD" in refused(tmp_path / "m.mat")
    (tmp_path / "m.mat").write_bytes(b"MATLAB 5.0" * 20)
    assert "no mask of SBD" in refused(tmp_path / "m.mat")
    assert "does not exist" in refused(tmp_path / "n.mat")
