import numpy as np
import pytest
import torch

from voxseg.data.normal_warp import turn_vectors
from voxseg.data.normalise import OUTSIDE
from voxseg.data.transforms import Augment, AugmentSettings
from voxseg.data.warp import Warp

OFF = {"flip_axes": (), "affine_probability": 0.0, "intensity_probability": 0.0}


def vary(augment, given, seed, axes=(0, 1, 2)):
    """Vary a patch that was cut as large as the augmentation wants it; nothing is resized."""
    shape = tuple(given["image"].shape[1:])
    size = augment._patch
    return augment(given, Warp(shape, size, turns=shape != size), seed, axes[: len(size)])


def sample(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 4, (1, *shape), generator=generator, dtype=torch.uint8)
    return {
        "image": torch.rand((2, *shape), generator=generator),
        "coordinates": torch.rand((len(shape), *shape), generator=generator),
        "label": label,
        "superpixels": label.int() * 1000,
    }


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 8)], ids=str)
def test_same_seed_same_bits_and_other_seed_other_patch(shape):
    augment = Augment(AugmentSettings(affine_probability=1.0, intensity_probability=1.0), shape)
    big = augment.draw(np.random.default_rng(0)).cut
    first, again, other = (vary(augment, sample(big), seed) for seed in (5, 5, 6))
    for key, value in first.items():
        assert value.shape[1:] == shape
        torch.testing.assert_close(again[key], value, rtol=0, atol=0)
    assert not torch.equal(first["image"], other["image"])


def test_all_off_changes_nothing():
    augment = Augment(AugmentSettings(**OFF), (5, 6, 7))
    assert augment.draw(np.random.default_rng(0)).cut == (5, 6, 7)
    given = sample((5, 6, 7))
    for key, value in vary(augment, dict(given), 0).items():
        torch.testing.assert_close(value, given[key], rtol=0, atol=0)


def test_flip_moves_all_maps_alike_and_mirrors_the_coordinate():
    augment = Augment(AugmentSettings(**{**OFF, "flip_axes": (1,)}), (5, 6, 7))
    given = sample((5, 6, 7))
    outcomes = [vary(augment, dict(given), seed) for seed in range(20)]
    flipped = [o for o in outcomes if not torch.equal(o["image"], given["image"])]
    assert 4 <= len(flipped) <= 16
    one = flipped[0]
    for key in ("image", "label", "superpixels"):
        torch.testing.assert_close(one[key], given[key].flip(2))
    torch.testing.assert_close(one["coordinates"][1], -given["coordinates"][1].flip(1))
    torch.testing.assert_close(one["coordinates"][0], given["coordinates"][0].flip(1))


def test_affine_keeps_label_values_and_moves_maps_together():
    augment = Augment(AugmentSettings(**{**OFF, "affine_probability": 1.0}), (12, 12, 12))
    big = augment.draw(np.random.default_rng(0)).cut
    assert min(big) > 12
    given = sample(big)
    out = vary(augment, dict(given), 3)
    assert out["label"].dtype == torch.uint8
    assert set(out["label"].unique().tolist()) <= {0, 1, 2, 3}
    torch.testing.assert_close(out["superpixels"], out["label"].int() * 1000)


def test_an_array_is_turned_alone_as_with_others():
    augment = Augment(AugmentSettings(**{**OFF, "affine_probability": 1.0}), (11, 12, 13))
    given = sample(augment.draw(np.random.default_rng(0)).cut)
    together = vary(augment, dict(given), 3)
    assert list(together) == list(given)
    for key in given:
        alone = vary(augment, {"image": given["image"], key: given[key]}, 3)
        torch.testing.assert_close(together[key], alone[key], rtol=0, atol=0)


def test_intensity_leaves_maps_alone():
    augment = Augment(AugmentSettings(**{**OFF, "intensity_probability": 1.0}), (8, 9, 7))
    given = sample((8, 9, 7))
    out = vary(augment, dict(given), 1)
    assert not torch.equal(out["image"], given["image"])
    for key in ("label", "superpixels", "coordinates"):
        torch.testing.assert_close(out[key], given[key], rtol=0, atol=0)
    assert out["image"].isfinite().all()


@pytest.mark.parametrize(
    "bad",
    [
        {"gamma": 1.0}, {"noise": -0.1}, {"affine_probability": 1.5}, {"scale": 1.0},
        {"resize": (2.0, 1.0)}, {"resize": (0.0, 1.0)}, {"resize": (1.0,)},
    ],
    ids=str,
)  # fmt: skip
def test_settings_rejects_impossible_values(bad):
    with pytest.raises(ValueError, match=r"augment\."):
        AugmentSettings(**bad)


def test_bias_field_multiplies_the_signal_above_the_darkest_voxel():
    settings = AugmentSettings(
        **{**OFF, "intensity_probability": 1.0, "contrast": 0, "gamma": 0, "noise": 0}
    )
    augment = Augment(settings, (8, 9, 7))
    flat = {"image": torch.full((1, 8, 9, 7), 2.0)}
    flat["image"][0, 0, 0, 0] = -3.0
    out = vary(augment, {"image": flat["image"].clone()}, 1)["image"]
    assert out[0, 0, 0, 0] == -3.0
    # Where all tissue has one value, the field is all that is left, and it is smooth.
    field = (out + 3) / 5
    assert (field[0, 1:] - 1).abs().max() > 0.01
    assert field[0, 1:].diff(dim=0).abs().max() < 0.1
    assert (field > 0)[0, 1:].all()


def test_intensity_leaves_the_outside_alone():
    augment = Augment(AugmentSettings(**{**OFF, "intensity_probability": 1.0}), (8, 9, 7))
    given = sample((8, 9, 7))
    given["image"][:, :3] = OUTSIDE
    out = vary(augment, dict(given), 1)
    torch.testing.assert_close(out["image"][:, :3], given["image"][:, :3], rtol=0, atol=0)
    assert not torch.equal(out["image"][:, 3:], given["image"][:, 3:])


def test_normals_go_with_what_was_done_to_the_picture():
    """The picture holds rows and columns, so that the map of places can be read off it."""
    settings = {"flip_axes": (0, 1), "affine_probability": 0.7, "rotate_degrees": 40.0}
    settings |= {"scale": 0.3, "resize": (0.5, 2.0), "intensity_probability": 0.0}
    patch = (16, 13)
    augment = Augment(AugmentSettings(**settings), patch, is_image=True)
    vector = torch.tensor([0.48, -0.6, 0.64])
    maps = []
    for seed in range(12):
        warp = augment.draw(np.random.default_rng(seed))
        places = torch.stack(
            torch.meshgrid(*(torch.arange(float(n)) for n in warp.cut), indexing="ij")
        )
        normals = vector[:, None, None].expand(3, *warp.cut).contiguous()
        found = augment({"image": places, "normals": normals}, warp, seed, (0, 1))
        assert found["normals"].shape == (3, *patch)
        across = slice(6, 8)  # in the middle, where nothing of the border is seen
        matrix = torch.diff(found["image"][:, across, 6], dim=1)
        matrix = torch.cat([matrix, torch.diff(found["image"][:, 6, across], dim=1)], dim=1)
        expected = turn_vectors(vector[:, None], matrix.double().numpy())
        # Sizes are whole pixels, so a change of size alone is a little uneven.
        tolerance = 1e-4 if warp.turns else 0.05
        torch.testing.assert_close(found["normals"][:, 6, 6:7], expected, atol=tolerance, rtol=0)
        maps.append(matrix)
    signs = {tuple(torch.sign(matrix.diag()).tolist()) for matrix in maps}
    assert len(signs) == 4  # each way of mirroring was met
