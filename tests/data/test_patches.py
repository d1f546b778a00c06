import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from voxseg.data.grid import Grid
from voxseg.data.normalise import OUTSIDE
from voxseg.data.orientation import Orientation
from voxseg.data.patches import Batch, PatchSampler, PatchSettings
from voxseg.data.prepare import Prepared
from voxseg.data.transforms import Augment, AugmentSettings

SHAPE = (20, 15, 12)
PLAIN = AugmentSettings(flip_axes=(), affine_probability=0.0, intensity_probability=0.0)


def case(seed=0, shape=SHAPE, superpixels=True):
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[3:9, 4:10, 2:8] = 1
    label[5, 6, 4] = 2  # a class of one voxel
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    regions = rng.integers(0, 40, shape).astype(np.int32) * 3
    regions[:2] = -1
    box = tuple((0, n) for n in shape)
    grid = Grid(shape, Orientation((0, 1, 2), (False,) * 3), shape, box)
    return Prepared("a", image, label, regions if superpixels else None, box, (1.0, 1.0, 1.0), grid)


def sampler(
    cases, patch=(8, 6, 4), settings=PLAIN, share=0.5, coordinates=False, seed=0, part=(0, 1),
    places=False,
):  # fmt: skip
    what = PatchSettings(voxels=patch, class_share=share, coordinates=coordinates, places=places)
    return PatchSampler(cases, 3, what, Augment(settings, patch), seed=seed, share=part)


def test_a_batch_depends_on_seed_and_step_alone():
    cases = [case(0), case(1)]
    first, second = sampler(cases), sampler(cases)
    for step in (0, 1, 5):
        second.batch(17, 2)
        a, b = first.batch(step, 2), second.batch(step, 2)
        for x, y in zip(
            (a.image, a.label, a.superpixels), (b.image, b.label, b.superpixels), strict=True
        ):
            torch.testing.assert_close(x, y, rtol=0, atol=0)
    other = sampler(cases, seed=1).batch(0, 2)
    assert not torch.equal(other.image, first.batch(0, 2).image)


def test_shares_of_a_batch_are_the_batch():
    cases = [case(0), case(1)]
    whole = sampler(cases).batch(3, 5)
    for rank in (0, 1):
        part = sampler(cases, part=(rank, 2)).batch(3, 5)
        for name in ("image", "label", "superpixels"):
            expected = getattr(whole, name)[rank::2]
            torch.testing.assert_close(getattr(part, name), expected, rtol=0, atol=0)
        assert part.count <= whole.count


def test_image_label_and_superpixels_come_from_one_place():
    subject = case()
    for step in range(10):
        batch = sampler([subject]).batch(step, 1)
        flat = batch.image[0, 0].long()  # the image holds its own linear index
        np.testing.assert_array_equal(batch.label[0, 0], subject.label.ravel()[flat])
        regions = torch.from_numpy(subject.superpixels.ravel()[flat])
        np.testing.assert_array_equal(batch.superpixels[0] < 0, regions < 0)
        kept = regions >= 0
        pairs = torch.stack([regions[kept], batch.superpixels[0][kept].long()]).unique(dim=1)
        assert pairs.shape[1] == batch.count == len(regions[kept].unique())


def test_a_rare_class_and_background_are_both_met():
    batches = [sampler([case()], share=1.0).batch(step, 1) for step in range(60)]
    rare = np.mean([bool((b.label == 2).any()) for b in batches])
    assert rare > 0.25
    anywhere = [sampler([case()], share=0.0).batch(step, 1) for step in range(60)]
    assert np.mean([bool((b.label == 0).all()) for b in anywhere]) > 0.02


def test_a_patch_larger_than_the_volume_is_padded_with_background():
    subject = case()
    batch = sampler([subject], patch=(24, 18, 16)).batch(0, 2)
    assert batch.image.shape == (2, 1, 24, 18, 16)
    assert (batch.label == 1).sum() == 2 * (subject.label == 1).sum()
    assert batch.image.min() == subject.image.min()
    assert batch.superpixels.min() == -1


@pytest.mark.parametrize(
    "settings", [PLAIN, AugmentSettings(affine_probability=1.0)], ids=["plain", "varied"]
)
def test_shapes_and_types(settings):
    batch = sampler([case()], settings=settings, coordinates=True).batch(3, 2)
    assert batch.image.shape == (2, 4, 8, 6, 4)
    assert batch.image.dtype == torch.float32
    assert batch.label.shape == (2, 1, 8, 6, 4)
    assert batch.superpixels.shape == (2, 8, 6, 4)
    assert batch.superpixels.max() < batch.count


def test_coordinates_tell_the_place():
    subject = case()
    batch = sampler([subject], coordinates=True).batch(1, 1)
    index = np.stack(np.unravel_index(batch.image[0, 0].long().numpy(), SHAPE))
    half = (np.array(SHAPE) - 1) / 2
    expected = (index - half[:, None, None, None]) / half[:, None, None, None]
    np.testing.assert_allclose(batch.image[0, 1:], expected, atol=1e-6)


def test_places_are_those_in_the_whole_volume():
    subject = replace(case(), spacing=(1.0, 2.0, 0.5))
    whole = torch.from_numpy(subject.places)
    for step in range(10):
        batch = sampler([subject], places=True).batch(step, 2)
        assert batch.places.shape == (2, batch.count, 4)
        flat = batch.image[:, 0].long()  # the image holds its own linear index
        for index, cut, places in zip(flat, batch.superpixels, batch.places, strict=True):
            numbers = torch.from_numpy(subject.superpixels.ravel()[index])
            for new in range(batch.count):
                inside = cut == new
                if inside.any():
                    torch.testing.assert_close(places[new], whole[numbers[inside][0]])
                else:
                    assert not places[new].any()


def test_places_are_mirrored_where_coordinates_are():
    subject = case()
    flips = replace(PLAIN, flip_axes=(0, 2))
    seen = set()
    for step in range(12):
        plain = sampler([subject], coordinates=True, places=True).batch(step, 1)
        batch = sampler([subject], settings=flips, coordinates=True, places=True).batch(step, 1)
        turned = [
            axes
            for axes in ((), (0,), (2,), (0, 2))
            if torch.equal(plain.image[0, 0].flip(axes), batch.image[0, 0])
        ]
        signs = torch.ones(4)
        signs[list(turned[0])] = -1
        seen.add(tuple(signs.tolist()))
        for new in range(batch.count):
            # The same superpixel in both, wherever its number went.
            inside = batch.superpixels[0] == new
            there = plain.superpixels[0] == self_of(batch, plain, inside)
            old = plain.superpixels[0][there][0]
            torch.testing.assert_close(batch.places[0, new], plain.places[0, old] * signs)
    assert {s[0] for s in seen} == {s[2] for s in seen} == {-1, 1}
    assert {s[1] for s in seen} == {1}


def self_of(batch, plain, inside):
    """Number in ``plain`` of the superpixel that covers ``inside`` of a mirrored batch."""
    voxel = batch.image[0, 0][inside][0]  # the image holds its own linear index
    return int(plain.superpixels[0][plain.image[0, 0] == voxel][0])


def test_places_change_no_other_number_of_a_batch():
    varied = AugmentSettings(affine_probability=1.0)
    plain = sampler([case()], settings=varied).batch(3, 2)
    placed = sampler([case()], settings=varied, places=True).batch(3, 2)
    assert plain.places is None
    for name in ("image", "label", "superpixels"):
        torch.testing.assert_close(getattr(placed, name), getattr(plain, name), rtol=0, atol=0)


def test_places_need_supervoxels():
    with pytest.raises(ValueError, match="a has no supervoxels"):
        sampler([case(superpixels=False)], places=True)


def test_every_tensor_of_a_batch_is_changed():
    """As those that a GPU takes are, places among them."""
    one = torch.zeros(1, 2, 3)
    batch = Batch(one, one, one, 4, one).each(lambda tensor: tensor + 1)
    assert batch.count == 4
    for tensor in (batch.image, batch.label, batch.superpixels, batch.places):
        torch.testing.assert_close(tensor, one + 1)
    assert Batch(one, one, None, 0).each(torch.Tensor.clone).superpixels is None


def test_without_superpixels_a_batch_has_none():
    batch = sampler([case(superpixels=False)]).batch(0, 1)
    assert batch.superpixels is None
    assert batch.count == 0


def test_no_patch_is_centred_outside_the_subject():
    subject = case(shape=(60, 15, 12))
    subject.image[:, 20:] = OUTSIDE
    cut = sampler([subject], share=0.3)
    for step in range(40):
        # Half a patch, and a quarter of it to keep the network from counting on the middle.
        assert (cut.batch(step, 1).image[0, 0] != OUTSIDE).any()


def test_one_thread_of_torch_makes_a_batch():
    """More of them were seen to round a bias field differently: patches depended on the machine."""
    made = sampler([case()])
    seen = []
    vary = made._augment
    made._augment = lambda *given: seen.append(torch.get_num_threads()) or vary(*given)
    made._augment.draw = vary.draw
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made.batch(0, 2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


def test_names_are_those_of_the_cases_that_are_cut():
    subjects = [replace(case(), case_id=name, image=case().image + 10_000 * k)
                for k, name in enumerate("abcd")]  # fmt: skip
    made = sampler(subjects)
    for step in range(8):
        batch = made.batch(step, 2)
        drawn = {"abcd"[int(image.min()) // 10_000] for image in batch.image}
        assert made.names(step, 2) == ", ".join(sorted(drawn))


def test_a_sampler_can_be_sent_to_another_process():
    settings = AugmentSettings(affine_probability=0.5, intensity_probability=0.9)
    made = sampler([case(0), case(1)], settings=settings)
    expected = made.batch(3, 4)
    copy = pickle.loads(pickle.dumps(made))
    torch.testing.assert_close(copy.batch(3, 4).image, expected.image, rtol=0, atol=0)
