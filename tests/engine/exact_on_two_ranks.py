"""Run by test_ranks.py in two processes: what two ranks compute, beside one process's answer.

In float64, so that what is left between the two is rounding and nothing else.
"""

import copy

import pytest
import torch
from torch import nn

from voxseg.engine.ranks import OtherRankError, joined
from voxseg.engine.sync_norm import average_statistics, synchronise_norms
from voxseg.errors import UsageError, VoxsegError
from voxseg.models import VoxResNet
from voxseg.tasks.segmentation import SegmentationLoss

TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, **TIGHT)


def norm_equals_the_whole_batch(ranks, dtype=torch.float64, last=False):
    torch.manual_seed(0)
    whole = (torch.randn(5, 4, 3, 6, 5) * 2 + torch.arange(4).view(1, 4, 1, 1, 1) * 30).to(dtype)
    pull = torch.randn(5, 4, 3, 6, 5).to(dtype)
    if last:
        whole = whole.contiguous(memory_format=torch.channels_last_3d)
    plain = nn.Sequential(nn.BatchNorm3d(4)).to(dtype)
    nn.init.normal_(plain[0].weight)
    nn.init.normal_(plain[0].bias)
    synced = copy.deepcopy(plain)
    synchronise_norms(synced, ranks)
    assert list(synced.state_dict()) == list(plain.state_dict())
    mine = slice(0, 2) if ranks.is_first else slice(2, 5)
    for _ in range(2):
        one = whole.clone().requires_grad_()
        part = whole[mine].clone().requires_grad_()
        for model, values, gradient in ((plain, one, pull), (synced, part, pull[mine])):
            model.zero_grad()
            model(values).backward(gradient)
        close(synced(whole[mine]), plain(whole)[mine])
        close(part.grad, one.grad[mine])
        ranks.add_gradients(synced.parameters())
        for a, b in zip(synced.parameters(), plain.parameters(), strict=True):
            close(a.grad, b.grad)
    for a, b in zip(synced.buffers(), plain.buffers(), strict=True):
        close(a, b)
    plain.eval()
    synced.eval()
    close(synced(whole[:1]), plain(whole[:1]))


def loss_and_gradient_equal_the_whole_batch(ranks, kind):
    torch.manual_seed(1)
    image = torch.randn(3, 1, 12, 10, 8, dtype=torch.float64)
    label = torch.randint(0, 3, (3, 1, 12, 10, 8))
    regions = torch.randint(0, 20, (3, 12, 10, 8), dtype=torch.int32)
    plain = VoxResNet(1, 3, stages=2, width_divisor=8, design="V3").double()
    synced = copy.deepcopy(plain)
    synchronise_norms(synced, ranks)
    mine = slice(ranks.rank, None, ranks.size)
    whole = SegmentationLoss(3, kind)(*plain.supervise(image, regions, 20), label, 0.4)
    whole.backward()
    answers = synced.supervise(image[mine], regions[mine], 20)
    part = SegmentationLoss(3, kind, ranks.add)(*answers, label[mine], 0.4)
    part.backward()
    ranks.add_gradients(synced.parameters())
    # The loss is in float32 wherever the logits come from.
    assert abs(ranks.total(float(part.detach())) - float(whole.detach())) < 1e-6
    for (name, a), b in zip(synced.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def plain_numbers(ranks):
    assert ranks.size == 2
    assert ranks.gather(ranks.rank) == [0, 1]
    assert ranks.first(lambda: ("of", ranks.rank)) == ("of", 0)
    assert ranks.total(ranks.rank + 0.5) == 2.0
    assert ranks.firsts(ranks.rank + 7.0) == 7.0
    assert ranks.any(ranks.rank == 1)
    assert not ranks.any(False)
    mixed = [torch.full((2,), float(ranks.rank)), torch.tensor(ranks.rank)]
    ranks.average(mixed)
    assert mixed[0].tolist() == [0.5, 0.5]
    assert mixed[1] == ranks.rank
    ranks.copy_first(mixed)
    assert mixed[1] == 0


def own_statistics_become_one(ranks):
    torch.manual_seed(2)
    whole = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    norm = nn.BatchNorm2d(3).double()
    norm(whole[2 * ranks.rank : 2 * ranks.rank + 2])
    assert len(set(ranks.gather(tuple(norm.running_mean.tolist())))) == 2
    average_statistics(norm, ranks)
    close(norm.running_mean, 0.1 * whole.mean((0, 2, 3)))
    assert norm.num_batches_tracked == 1


def errors_end_all(ranks):
    def fail():
        raise ValueError("mine")

    def fail_in_the_second():
        if ranks.rank == 1:
            raise UsageError("no such device")

    mine, code = (ValueError, None) if ranks.is_first else (OtherRankError, 1)
    with pytest.raises(mine) as caught:
        ranks.first(fail)
    assert getattr(caught.value, "exit_code", None) == code
    told = "rank 1: no such device" if ranks.is_first else ""
    with pytest.raises(VoxsegError) as caught:
        ranks.together(fail_in_the_second)
    assert (str(caught.value), caught.value.exit_code) == (told, 2)
    assert ranks.together(lambda: ranks.rank) == ranks.rank


with joined() as ranks:
    plain_numbers(ranks)
    own_statistics_become_one(ranks)
    errors_end_all(ranks)
    norm_equals_the_whole_batch(ranks)
    norm_equals_the_whole_batch(ranks, last=True)
    for kind in ("dice_ce", "ce", "dice"):
        loss_and_gradient_equal_the_whole_batch(ranks, kind)
