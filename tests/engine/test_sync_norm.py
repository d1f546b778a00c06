"""The synchronised norm in one process; test_ranks.py has two."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from voxseg.engine.ranks import ALONE
from voxseg.engine.sync_norm import SyncedBatchNorm, synchronise_norms
from voxseg.models import build_deeplab


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_it_is_batch_norm(momentum, affine, generator):
    plain = nn.BatchNorm2d(3, momentum=momentum, affine=affine).double()
    synced = SyncedBatchNorm(copy.deepcopy(plain), ALONE)
    values = torch.randn(4, 3, 5, 6, dtype=torch.float64, generator=generator) * 2 + 50
    pull = torch.randn(4, 3, 5, 6, dtype=torch.float64, generator=generator)
    for _ in range(3):
        found = []
        for norm in (plain, synced):
            given = values.clone().requires_grad_()
            answer = norm(given)
            norm.zero_grad()
            answer.backward(pull)
            learnt = [parameter.grad for parameter in norm.parameters()]
            assert len(learnt) == 2 * affine
            found.append((answer, given.grad, *learnt))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dict(synced.state_dict()), dict(plain.state_dict()))
    torch.testing.assert_close(synced.eval()(values), plain.eval()(values))


def test_half_precision_stays_half(generator):
    plain = nn.BatchNorm3d(2)
    synced = SyncedBatchNorm(copy.deepcopy(plain), ALONE)
    values = torch.randn(2, 2, 4, 4, 4, generator=generator).bfloat16()
    found = []
    for norm in (plain, synced):
        given = values.clone().requires_grad_()
        answer = norm(given)
        answer.backward(values)
        found.append((answer, given.grad))
        assert answer.dtype is given.grad.dtype is torch.bfloat16
    torch.testing.assert_close(*found)


def test_conversion_keeps_names_weights_and_other_norms():
    network = nn.Sequential(
        nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2)), nn.GroupNorm(1, 2)
    )
    before = network.state_dict()
    synchronise_norms(network, ALONE)
    assert isinstance(network[0][1], SyncedBatchNorm)
    assert isinstance(network[1], nn.GroupNorm)
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(after[name].data_ptr() == value.data_ptr() for name, value in before.items())


def test_what_cannot_be_synced_is_refused():
    with pytest.raises(ValueError, match="running statistics"):
        SyncedBatchNorm(nn.BatchNorm3d(2, track_running_stats=False), ALONE)
    with pytest.raises(ValueError, match=r"expected \(B, C"):
        SyncedBatchNorm(nn.BatchNorm1d(2), ALONE)(torch.ones(3))


class Threads:
    """Two ranks that are threads of this process; each calls the same methods in the same order."""

    def __init__(self, rank, barrier, rows):
        self._rank, self._barrier, self._rows = rank, barrier, rows

    def rows(self, row):
        self._rows[self._rank] = row.detach()
        self._barrier.wait()
        rows = torch.stack(self._rows)
        self._barrier.wait()  # before anybody writes again
        return rows

    def add(self, tensor):
        return self.rows(tensor).sum(0)


@pytest.mark.parametrize("context", ["aspp", "vortex"])
def test_deeplab_on_one_image_a_process_is_deeplab_on_two(context, generator):
    # The global branch has one value a process, which a plain norm cannot normalise.
    plain = build_deeplab(
        1, 3, depth=50, context=context, widths=(2, 2, 2, 2), channels=4, projection=4
    ).double()
    images = torch.randn(2, 1, 17, 25, dtype=torch.float64, generator=generator)
    barrier, rows = threading.Barrier(2, timeout=30), [None, None]

    def train_on(rank):
        network = copy.deepcopy(plain)
        synchronise_norms(network, Threads(rank, barrier, rows))
        answer = network(images[rank : rank + 1])
        answer.square().sum().backward()
        return network, answer.detach()

    with ThreadPoolExecutor(2) as pool:
        networks, answers = zip(*pool.map(train_on, range(2)), strict=True)
    expected = plain(images)
    expected.square().sum().backward()
    torch.testing.assert_close(torch.cat(answers), expected.detach())
    for network in networks:
        torch.testing.assert_close(dict(network.state_dict()), dict(plain.state_dict()))
    for name, parameter in plain.named_parameters():
        shares = [network.get_parameter(name).grad for network in networks]
        torch.testing.assert_close(sum(shares), parameter.grad)
