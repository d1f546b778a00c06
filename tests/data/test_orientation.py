import itertools

import nibabel as nib
import numpy as np
import pytest

from voxseg.data.orientation import orientation_of


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)), ids=str)
def test_orientation_agrees_with_nibabel_and_comes_back(axes, signs, rng):
    affine = np.zeros((4, 4))
    for world, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, axis] = sign * (1 + world)
    affine[:3, :3] += rng.normal(0, 0.05, (3, 3))  # oblique
    affine[3, 3] = 1
    array = rng.normal(size=(3, 4, 5))
    orientation = orientation_of(affine)
    ras = orientation.to_ras(array)
    expected = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    np.testing.assert_array_equal(ras, expected.get_fdata())
    np.testing.assert_array_equal(orientation.from_ras(ras), array)
