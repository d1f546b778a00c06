"""The meter: small kernels whose traffic is known by hand."""

import pytest
import torch

SOURCE = r"""
KERNEL copy(const float* x, float* out, int stride) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * stride;
  out[i] = x[i];
}
KERNEL copy_vectors(const float* x, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  reinterpret_cast<float4*>(out)[i] = reinterpret_cast<const float4*>(x)[i];
}
KERNEL copy_small(const real* x, real* out) { out[threadIdx.x] = x[threadIdx.x]; }
KERNEL broadcast(const double* x, float* out) { out[threadIdx.x] = float(x[1]); }
KERNEL some_lanes(const float* x, float* out, int n) {
  if (threadIdx.x < n) out[threadIdx.x] = x[threadIdx.x];
}
KERNEL loops(const float* x, float* out) {
  float sum = 0.f;
#pragma unroll 1  // as it is
  for (int i = 0; i <= threadIdx.x % 2; ++i) sum += x[i * 32 + threadIdx.x];
  out[threadIdx.x] = sum;
}
KERNEL unrolled(const float* x, float* out) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (threadIdx.x >> i & 1) sum += x[i * 32 + threadIdx.x];
  out[threadIdx.x] = sum;
}
KERNEL aligned_by_barriers(const float* x, float* out) {
  float sum = 0.f;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < (threadIdx.x % 2 != round ? 2 : 0); ++i) sum += x[i * 32 + threadIdx.x];
    __syncwarp();
  }
  out[threadIdx.x] = sum;
}
KERNEL again(const float* x, float* out) {
  const float sum = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = sum + x[threadIdx.x];
}
KERNEL banks(float* out, int stride) {
  SHARED(float, shared);
  shared[threadIdx.x * stride] = 1.f;
  __syncthreads();
  out[threadIdx.x] = shared[0];
}
KERNEL wide_banks(float* out, int stride) {
  SHARED(float4, shared);
  shared[threadIdx.x * stride] = make_float4(1.f, 2.f, 3.f, 4.f);
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x % 2].x;
}
KERNEL doubles(double* out) {
  SHARED(double, shared);
  shared[threadIdx.x] = 1.0;
  out[threadIdx.x] = 1.0;
}
KERNEL bytes(float* out) {
  SHARED(unsigned char, shared);
  shared[threadIdx.x] = 1;
}
KERNEL counts(int* out, int bins) {
  SHARED(int, own);
  own[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&own[threadIdx.x % bins], 1);
  atomicAdd(&out[threadIdx.x % bins], 1);
}
DEVICE float first(const float* x) { return x[0]; }
KERNEL called(const float* x, float* out) { out[threadIdx.x] = first(x + threadIdx.x); }
"""


@pytest.fixture(scope="module")
def text(prelude):
    source = SOURCE.replace("KERNEL", 'extern "C" __global__ void')
    source = source.replace("DEVICE", "__device__ __forceinline__")
    return f'#line 1 "prelude.cuh"\n{prelude}\n#line 1 "small.cu"{source}'


@pytest.fixture
def meter(cuda_on_cpu, text):
    """Launch a kernel and give its meter."""

    def launch(kernel, arguments, *, blocks=1, threads=32, shared_bytes=0, real=torch.float32):
        kernels = cuda_on_cpu.HostKernels(text, mode="meter", real=real)
        kernels(kernel, (blocks,), threads, arguments, shared_bytes)
        return kernels.meter

    return launch


def counts(row, names):
    return tuple(getattr(row, name) for name in names.split())


@pytest.mark.parametrize(
    ("stride", "sectors", "lines"), [(1, 4, 1), (2, 8, 2), (8, 32, 8), (32, 32, 32)]
)
def test_strides(meter, stride, sectors, lines):
    x, out = torch.zeros(2, 6 * 32 * stride)
    found = meter("copy", [x, out, stride], blocks=2, threads=96)
    for where, kind in (("x", "load"), ("out", "store")):
        row = found.total("copy", where=where, kind=kind)
        assert counts(row, "requests lanes bytes least") == (6, 192, 6 * 128, 6 * 4)
        assert counts(row, "sectors fresh lines") == (6 * sectors, 6 * sectors, 6 * lines)
        assert counts(row, "width wavefronts") == (4, 0)
        assert row.waste == sectors / 4


def test_a_view_lies_where_it_would_on_a_gpu(meter):
    x, out = torch.zeros(64), torch.zeros(32)
    row = meter("copy", [x[8:40], out, 1]).total("copy", where="x")
    assert counts(row, "sectors lines") == (4, 2)
    row = meter("copy", [x[1:33], out, 1]).total("copy", where="x")
    assert counts(row, "sectors least") == (5, 4)


def test_vectors_count_once(meter):
    x, out = torch.zeros(2, 256)
    found = meter("copy_vectors", [x, out], threads=64)
    for where, kind in (("x", "load"), ("out", "store")):
        row = found.total("copy_vectors", where=where, kind=kind)
        assert counts(row, "width requests lanes bytes") == (16, 2, 64, 1024)
        assert counts(row, "sectors fresh lines waste") == (32, 32, 8, 1)


def test_small_numbers(meter):
    x, out = torch.zeros(2, 32, dtype=torch.bfloat16)
    row = meter("copy_small", [x, out], real=torch.bfloat16).total("copy_small", kind="store")
    assert counts(row, "width requests bytes sectors waste") == (2, 1, 64, 2, 1)


def test_what_all_lanes_ask_for_counts_once(meter):
    x, out = torch.zeros(4, dtype=torch.float64), torch.zeros(32)
    row = meter("broadcast", [x, out]).total("broadcast", where="x")
    assert counts(row, "width requests lanes bytes sectors waste") == (8, 1, 32, 8, 1, 1)


def test_lanes_that_are_off(meter):
    x, out = torch.zeros(2, 64)
    found = meter("some_lanes", [x, out, 33], threads=64)
    assert counts(found.total(where="x"), "requests lanes bytes sectors") == (2, 33, 132, 5)


def test_lanes_leave_a_loop_at_different_times(meter):
    x, out = torch.zeros(64), torch.zeros(32)
    row = meter("loops", [x, out]).total(where="x")
    assert counts(row, "requests lanes bytes sectors") == (2, 48, 192, 8)


def test_lanes_part_within_a_round_of_an_unrolled_loop(meter):
    x, out = torch.zeros(128), torch.zeros(32)
    row = meter("unrolled", [x, out]).total(where="x")
    # Half of the lanes in each round. As one instruction, different rounds would come together.
    assert counts(row, "requests lanes sectors") == (4, 64, 14)


def test_waiting_brings_lanes_together(meter):
    x, out = torch.zeros(64), torch.zeros(32)
    row = meter("aligned_by_barriers", [x, out]).total(where="x")
    # Odd lanes load twice and wait, then even ones do: without the wait, all would seem to at once.
    assert counts(row, "requests lanes") == (4, 64)


def test_only_the_first_time_is_fresh(meter):
    x, out = torch.zeros(2, 64)
    row = meter("again", [x, out], threads=64).total(where="x")
    assert counts(row, "requests sectors fresh") == (4, 16, 8)


def test_launches_add_up(cuda_on_cpu, text):
    kernels = cuda_on_cpu.HostKernels(text, mode="meter")
    x, out = torch.zeros(2, 32)
    for _ in range(2):
        kernels("copy", (1,), 32, [x, out, 1])
    assert counts(kernels.meter.total("copy", where="x"), "requests sectors fresh") == (2, 8, 8)


@pytest.mark.parametrize(
    ("stride", "wavefronts"), [(0, 1), (1, 1), (2, 2), (3, 1), (4, 4), (16, 16), (32, 32), (33, 1)]
)
def test_bank_conflicts(meter, stride, wavefronts):
    found = meter("banks", [torch.zeros(32), stride], shared_bytes=4 * 32 * 33)
    row = found.total(where="shared", kind="store")
    assert counts(row, "requests wavefronts sectors fresh") == (1, wavefronts, 0, 0)
    row = found.total(where="shared", kind="load")
    assert counts(row, "requests bytes wavefronts waste") == (1, 4, 1, 1)


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 4), (2, 8), (8, 32), (9, 4)])
def test_vectors_go_by_quarter_warps(meter, stride, wavefronts):
    found = meter("wide_banks", [torch.zeros(32), stride], shared_bytes=16 * 32 * 9)
    row = found.total(where="shared", kind="store")
    assert counts(row, "width requests least wavefronts") == (16, 1, 4, wavefronts)


def test_doubles_go_by_half_warps(meter):
    out = torch.zeros(32, dtype=torch.float64)
    row = meter("doubles", [out], shared_bytes=256).total(where="shared")
    assert counts(row, "width requests wavefronts waste") == (8, 1, 2, 1)


def test_bytes_share_words(meter):
    row = meter("bytes", [torch.zeros(1)], shared_bytes=32).total(where="shared")
    assert counts(row, "width requests wavefronts") == (1, 1, 1)


@pytest.mark.parametrize(("bins", "depth"), [(32, 1), (8, 4), (1, 32)])
def test_atomics_at_one_address(meter, bins, depth):
    out = torch.zeros(32, dtype=torch.int32)
    found = meter("counts", [out, bins], blocks=3, shared_bytes=128)
    for where in ("shared", "out"):
        row = found.total("counts", where=where, kind="atomic")
        assert counts(row, "requests lanes serial deepest") == (3, 96, 3 * depth, depth)
    assert found.total(where="out").fresh == -(-bins // 8)


def test_rows_name_the_line(meter):
    found = meter("called", list(torch.zeros(2, 32)))
    rows = {row.where: row for row in found.rows}
    number = SOURCE.splitlines().index("DEVICE float first(const float* x) { return x[0]; }")
    assert rows["x"].line == f"small.cu:{number}"
    assert rows["x"].text.endswith("float first(const float* x) { return x[0]; }")
    assert rows["out"].line == f"small.cu:{number + 1}"
    table = str(found).splitlines()
    assert table[0].split()[:3] == ["kernel", "line", "where"]
    assert len(table) == 3
    assert all(f"small.cu:{number + n}" in "\n".join(table) for n in (0, 1))


def test_a_total_of_nothing_is_an_error(meter):
    found = meter("copy", [*torch.zeros(2, 32), 1])
    with pytest.raises(AssertionError, match=r"no access by copy with .*shared"):
        found.total("copy", where="shared")
