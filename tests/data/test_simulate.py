"""Simulated subjects from the MNI152 template."""

import builtins

import numpy as np
import pytest

from voxseg.data import simulate
from voxseg.data.simulate import SimulationSettings, random_displacement, simulate_subject
from voxseg.errors import VoxsegError

pytest.importorskip("nilearn", reason="nilearn ships the template: pip install 'voxseg[brain]'")

COARSE = SimulationSettings(spacing_mm=(4.0, 5.0, 3.0))


@pytest.fixture(scope="module")
def subject():
    return simulate_subject(np.random.default_rng(0), COARSE)


def test_equal_generators_give_equal_subjects(subject):
    again = simulate_subject(np.random.default_rng(0), COARSE)
    other = simulate_subject(np.random.default_rng(1), COARSE)
    np.testing.assert_array_equal(subject.image, again.image)
    np.testing.assert_array_equal(subject.label, again.label)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(subject.label, other.label)


def test_grid_covers_the_template(subject):
    assert subject.image.shape == subject.label.shape == (49, 46, 63)
    assert subject.image.dtype == np.float32
    assert subject.label.dtype == np.uint8
    np.testing.assert_array_equal(np.diag(subject.affine), [4, 5, 3, 1])
    np.testing.assert_array_equal(subject.affine[:3, 3], [-98, -134, -72])


def test_tissues_have_the_volumes_and_intensities_of_a_brain(subject):
    ml = np.bincount(subject.label.ravel(), minlength=4) * 4 * 5 * 3 / 1000
    assert 60 < ml[1] < 350
    assert 700 < ml[2] < 1500
    assert 350 < ml[3] < 1000
    means = [subject.image[subject.label == k].mean() for k in range(4)]
    assert means[0] == 0
    assert 0.2 < means[1] < means[2] < means[3] < 1.3
    assert np.isfinite(subject.image).all()


def test_left_and_right_anterior_and_superior(subject):
    """The cerebellum and brain stem lie low and to the back; both halves weigh about the same."""
    inside = np.argwhere(subject.label > 0) @ subject.affine[:3, :3].T + subject.affine[:3, 3]
    assert abs(np.mean(inside[:, 0])) < 8
    lowest = inside[inside[:, 2] < np.quantile(inside[:, 2], 0.1)]
    assert lowest[:, 1].mean() < inside[:, 1].mean()


def test_subjects_differ_but_not_wildly():
    labels = [simulate_subject(np.random.default_rng(s), COARSE).label for s in (1, 2)]
    white = [label == 3 for label in labels]
    dice = 2 * (white[0] & white[1]).sum() / (white[0].sum() + white[1].sum())
    assert 0.3 < dice < 0.9


def test_without_any_change_the_template_comes_back(rng):
    still = {"deformation_mm": 0.0, "scale": 0.0, "rotation_degrees": 0.0}
    spacing = (4.0, 2.0, 3.0)
    settings = SimulationSettings(spacing_mm=spacing, contrast=0.0, bias=0.0, noise=0.0, **still)
    subject = simulate_subject(rng, settings)
    maps = simulate._atlas(spacing).maps[:, ::4, ::2, ::3]
    maps = maps[(slice(None), *(slice(n) for n in subject.label.shape))]
    inside = subject.label > 0
    np.testing.assert_array_equal(inside, maps[1] > 0.5)
    np.testing.assert_array_equal(subject.label[inside], 1 + maps[2:, inside].argmax(0))
    ratio = [
        np.unique(np.round(subject.image[s > 0.999] / maps[0][s > 0.999], 4)) for s in maps[2:]
    ]
    np.testing.assert_allclose(ratio[2], ratio[2][0], atol=1e-3)
    np.testing.assert_allclose(ratio[1], ratio[2][0], atol=1e-3)
    np.testing.assert_allclose(ratio[0], 0.55 * ratio[2][0], atol=1e-3)


def test_displacement_does_not_fold():
    """Its Jacobian determinant is positive everywhere at the default strength."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        displacement = random_displacement(generator, (41, 47, 39), 1.0, 3.5)
        jacobian = np.stack([np.stack(np.gradient(one)) for one in displacement])
        jacobian = np.moveaxis(jacobian, (0, 1), (-2, -1)) + np.eye(3)
        determinant = np.linalg.det(jacobian)
        assert determinant.min() > 0.1
        assert determinant.max() < 4
        assert np.abs(displacement).max() > 1


def test_nilearn_missing_names_the_command(monkeypatch, rng):
    real_import = builtins.__import__

    def without_nilearn(name, *args, **kwargs):
        if name.split(".")[0] == "nilearn":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    simulate._atlas.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_nilearn)
    with pytest.raises(VoxsegError, match=r"pip install 'voxseg\[brain\]'"):
        simulate_subject(rng, COARSE)


def test_settings_reject_spacing():
    with pytest.raises(ValueError, match="three positive sizes"):
        SimulationSettings(spacing_mm=(1.0, 0.0, 1.0))
