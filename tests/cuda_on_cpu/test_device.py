"""The pretended device itself: what it computes, what it refuses, what it counts."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from . import device as pretence

pytestmark = pytest.mark.skipif(not pretence.is_possible(), reason="this torch has CUDA itself")
BF16 = torch.bfloat16


@pytest.fixture
def cuda(cuda_on_cpu):
    with pretence.pretended() as device:
        yield device


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1),
        torch.nn.BatchNorm3d(4),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv3d(4, 2, 1),
    )


def trained(device, steps=3, **settings):
    made = network().to(device).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-2, **settings)
    image = torch.randn(2, 1, 8, 7, 6, generator=torch.Generator().manual_seed(0)).to(device)
    for _ in range(steps):
        loss = functional.cross_entropy(made(image), (image[:, 0] > 0).long())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return made


def test_a_network_trains_as_on_the_cpu(cuda):
    found, expected = trained(cuda, fused=True).state_dict(), trained("cpu", fused=True)
    for name, value in expected.state_dict().items():
        assert found[name].device == torch.device("cuda", 0)
        torch.testing.assert_close(found[name].cpu(), value, rtol=0, atol=0)


def test_what_torch_and_the_device_are_asked_is_one_story(cuda):
    assert torch.cuda.is_available()
    assert torch.zeros(2, device="cuda").device == torch.device("cuda:0")
    assert torch.zeros(2).to("cuda").is_cuda
    assert torch.cuda.get_device_name() == pretence.NAME


def test_nothing_is_left_behind():
    with pretence.pretended():
        here = torch.ones(3, device="cuda")
    assert not torch.cuda.is_available()
    with pytest.raises(RuntimeError, match="device is gone"):
        torch.zeros(3, device="cuda")
    assert here.tolist() == [1, 1, 1]  # what was made stays readable


def test_views_in_place_and_out(cuda):
    x = torch.arange(12.0, device=cuda).view(3, 4)
    x[1].zero_()
    x.t()[0] = 7.0
    expected = torch.tensor([[7.0, 1, 2, 3], [7, 0, 0, 0], [7, 9, 10, 11]])
    torch.testing.assert_close(x.cpu(), expected)
    out = torch.empty(0, device=cuda)
    assert torch.cat([x, x], out=out) is out
    torch.testing.assert_close(out.cpu(), torch.cat([expected, expected]))
    torch.testing.assert_close(x[:, [0, 2]].cpu(), expected[:, [0, 2]])
    assert x.expand(2, 3, 4).stride() == (0, 4, 1)
    assert x.tolist() == expected.tolist()


def test_tensors_of_two_devices_are_refused(cuda):
    here, there = torch.ones(3, device=cuda), torch.ones(3)
    with pytest.raises(RuntimeError, match="to be on the same device"):
        here + there
    with pytest.raises(RuntimeError, match="to be on the same device"):
        functional.conv1d(here.view(1, 1, 3), there.view(1, 1, 3))
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(here)
    assert (here + torch.tensor(1.0)).tolist() == [2, 2, 2]  # numbers are welcome anywhere


def test_copies_of_tensors_and_networks_are_their_own(cuda, tmp_path):
    made = network().to(cuda)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        made[0].weight.zero_()
    assert twin[0].weight.abs().sum().item() > 0
    torch.save(twin.state_dict(), tmp_path / "weights.pt")
    read = torch.load(tmp_path / "weights.pt", map_location="cpu", weights_only=True)
    torch.testing.assert_close(read["0.weight"], twin[0].weight.cpu())
    made.load_state_dict(read)
    torch.testing.assert_close(made[0].weight, twin[0].weight)
    there = torch.load(tmp_path / "weights.pt", map_location="cuda", weights_only=True)
    assert there["0.weight"].is_cuda


def test_autocast_and_inference_mode(cuda):
    made, image = network().to(cuda).eval(), torch.randn(1, 1, 4, 4, 4, device=cuda)
    with torch.inference_mode(), torch.autocast("cuda", dtype=BF16):
        answer = made(image)
        flat = made[0].weight.view(-1)  # of a tensor that was made outside
    assert answer.dtype == BF16
    assert answer.is_inference()
    assert not flat.is_inference()


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float64], ids=str)
def test_convolutions_keep_their_type(cuda, dtype):
    image = torch.randn(1, 2, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(3, 2, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    here = image.to(cuda, dtype).requires_grad_()
    found = functional.conv3d(here, weight.to(cuda, dtype), padding=1)
    (grad,) = torch.autograd.grad(found.sum(), here)
    assert found.dtype == grad.dtype == dtype
    exact = functional.conv3d(image.to(dtype).double(), weight.to(dtype).double(), padding=1)
    torch.testing.assert_close(found.cpu(), exact.to(dtype))


def test_what_nobody_waited_for_has_not_come(cuda):
    there = torch.arange(3.0, device=cuda)
    pinned = torch.empty(3, pin_memory=True)
    assert pinned.is_pinned()
    with pretence.waits() as waits:
        pinned.copy_(there, non_blocking=True)
        there.add_(1)
        assert pinned.isnan().all()
        event = torch.cuda.Event()
        event.record()
        assert waits == []
        event.synchronize()
    assert pinned.tolist() == [0, 1, 2]
    assert waits == ["an event in no line of voxseg"]


def test_waits_are_collected_with_their_reason(cuda):
    numbers = torch.arange(4, device=cuda)
    with pretence.waits() as waits:
        torch.ones(3).pin_memory().to(cuda, non_blocking=True)
        (numbers + 1).sum()
        assert waits == []
        numbers.nonzero()
        numbers.sum().item()
        numbers.cpu()
        torch.ones(3).to(cuda, non_blocking=True)  # not pinned
        torch.cuda.synchronize()
    reasons = [one.partition(" in ")[0] for one in waits]
    assert reasons == [
        "aten::nonzero",
        "aten::_local_scalar_dense",
        "a copy to the host",
        "a copy to the device",
        "the device",
    ]


def test_memory_is_counted_and_ends(cuda_on_cpu):
    with pretence.pretended(memory_bytes=10_000) as device:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        x = torch.zeros(1000, dtype=torch.uint8, device=device)
        y = x + 1
        assert torch.cuda.memory_allocated() - before == 2000
        del y
        assert torch.cuda.memory_allocated() - before == 1000
        assert torch.cuda.max_memory_allocated() - before == 2000
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            torch.zeros(20_000, dtype=torch.uint8, device=device)
        assert torch.cuda.mem_get_info(device) == (9000 - before, 10_000)
        assert x.sum().item() == 0
