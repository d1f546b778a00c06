"""Sparse and dense training steps: the same gradients, less memory, and images that fit."""

from dataclasses import replace

import torch

from voxseg.bench import hypercolumns
from voxseg.bench.hypercolumns import TINY, run_hypercolumns

CPU = torch.device("cpu")


def measured(bench, most_bytes=1e12):
    told = []
    rows = run_hypercolumns(bench, CPU, 1, 0, most_bytes, told.append)
    return rows, told


def test_some_pixels_take_a_fraction_of_the_memory():
    rows, told = measured(replace(TINY, hidden=(512, 512)))
    dense, sparse = rows
    assert sparse["against"] == dense["method"]
    assert sparse["times its MB"] < 0.3
    assert not told


def test_images_are_halved_until_they_fit():
    bench = replace(TINY, images=5)
    fits = hypercolumns._dense_bytes(bench, 1)
    rows, told = measured(bench, 1.3 * fits)
    assert {row["size"] for row in rows} == {"1 of 48 x 64, 3 layers, training"}
    assert len(told) == 2
    assert "half as many are measured" in told[-1]


def test_the_estimate_without_numbers_is_what_a_step_takes():
    bench = replace(TINY, images=1)
    rows, _ = measured(bench)
    # Counted besides are parameters and the image on the meta device, made before.
    assert abs(hypercolumns._dense_bytes(bench, 1) / 1e6 / rows[0]["peak MB"] - 1) < 0.02


def test_a_step_leaves_gradients_of_all_parameters():
    network = hypercolumns._network(TINY).train()
    image = torch.rand(1, 3, *TINY.size)
    points = torch.arange(50)[None]
    hypercolumns._step(network, network.sampled(image, points), torch.zeros(1, 50).long())
    assert all(parameter.grad is not None for parameter in network.parameters())
