import pytest
import torch

from voxseg.engine import free_memory
from voxseg.engine.free_memory import free_gb, resident_gb

GB = 10**9
CPU = torch.device("cpu")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A made-up /proc and /sys/fs/cgroup with 16 GB available."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {16 * GB // 1024} kB\n")
    (proc / "self/status").write_text(f"VmSize: {3 * GB // 1024} kB\nVmRSS: 500000 kB\n")
    monkeypatch.setattr(free_memory, "_PROC", proc)
    monkeypatch.setattr(free_memory, "_CGROUPS", groups)
    return proc, groups


def test_what_linux_calls_available(system):
    assert free_gb(CPU) == pytest.approx(16, abs=0.01)
    assert resident_gb() == pytest.approx(0.512)


def test_a_cgroup_of_version_2_leaves_less(system):
    proc, groups = system
    (proc / "self/cgroup").write_text("0::/batch/job\n")
    job = groups / "batch/job"
    job.mkdir(parents=True)
    (job / "memory.max").write_text("max\n")
    (job / "memory.current").write_text(f"{3 * GB}\n")
    assert free_gb(CPU) == pytest.approx(16, abs=0.01)
    # The limit of the group above counts; files that can be dropped do not.
    (job.parent / "memory.max").write_text(f"{8 * GB}\n")
    (job.parent / "memory.current").write_text(f"{5 * GB}\n")
    (job.parent / "memory.stat").write_text(f"anon 7\ninactive_file {GB}\n")
    assert free_gb(CPU) == pytest.approx(4)


def test_a_cgroup_of_version_1_in_a_container_leaves_less(system):
    proc, groups = system
    (proc / "self/cgroup").write_text("5:cpu:/\n4:memory:/docker/of-the-host\n1:name=systemd:/\n")
    (groups / "memory").mkdir()
    (groups / "memory/memory.limit_in_bytes").write_text(str(6 * GB))
    (groups / "memory/memory.usage_in_bytes").write_text(str(4 * GB))
    assert free_gb(CPU) == pytest.approx(2)


def test_a_limit_of_address_space_leaves_less(system, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5 * GB, 5 * GB))
    assert free_gb(CPU) == pytest.approx(2, abs=0.01)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (GB, GB))
    assert free_gb(CPU) == 0


def test_a_system_that_does_not_tell_is_taken_for_a_laptop(system, tmp_path, monkeypatch):
    monkeypatch.setattr(free_memory, "_PROC", tmp_path / "none")
    assert free_gb(CPU) == 4
    assert resident_gb() == 0
