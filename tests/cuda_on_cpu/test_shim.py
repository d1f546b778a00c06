"""The shim itself: what barriers, collectives, atomics and conversions do, and what it refuses."""

import pytest
import torch

from voxseg.ops import nvrtc

EDGES = [0.5, 1.5, 2.5, -0.5, -1.5, 3e9, -3e9, float("nan"), float("inf"), 1.25, -1.25]

SOURCE = r"""
KERNEL order(int* count, int* out) {
  __syncthreads();
  out[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}
KERNEL loops(int* count, int* out) {
  out[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}
KERNEL shuffles(int* out) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(~0u, lane, 5);
  out[32 + lane] = __shfl_up_sync(~0u, lane, 3);
  out[64 + lane] = __shfl_down_sync(~0u, lane, 3, 8);
  out[96 + lane] = __shfl_xor_sync(~0u, lane, 1);
  out[128 + lane] = __popc(__ballot_sync(~0u, lane % 3 == 0));
  out[160 + lane] = __any_sync(~0u, lane == 9) * 2 + __all_sync(~0u, lane < 31);
  if (lane < 7) out[192 + lane] = __shfl_sync(127u, lane, 6);
  const i64 wide = __shfl_sync(~0u, i64(lane) << 40, 2);
  out[224 + lane] = int(wide >> 40);
}
KERNEL atomics(int* i, u32* u, u64* w, i64* s, float* f) {
  const int t = threadIdx.x;
  atomicAdd(&i[0], t), atomicMin(&i[1], -t), atomicMax(&i[2], t), atomicOr(&i[3], 1 << t % 8);
  atomicAdd(&u[0], u32(t)), atomicMin(&u[1], u32(t)), atomicMax(&u[2], u32(t) << 26);
  atomicAdd(&w[0], u64(t) << 32), atomicMax(&w[1], u64(t) << 33), atomicCAS(&w[2], 0ull, 7ull);
  atomicMin(&s[0], -(i64(t) << 33)), atomicMax(&s[1], i64(t) << 33);
  atomicAdd(f, 0.5f);
  if (t == 0) i[4] = atomicExch(&i[5], 9);
}
KERNEL numbers(const float* x, int* nearest, int* down, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  nearest[i] = __float2int_rn(x[i]);
  down[i] = __float2int_rd(x[i]);
}
KERNEL bits(int* out) {
  if (blockIdx.x) return;
  out[0] = __ffs(0), out[1] = __ffs(8), out[2] = __popc(255u), out[3] = __clz(0), out[4] = __clz(1);
  out[5] = min(-1, 2), out[6] = max(3u, 2u), out[7] = __float_as_int(1.f);
  out[8] = max(__int_as_float(0x7fc00000), 2.f) == 2.f, out[9] = __ldg(out + 2);
  out[10] = warpSize * 10000 + blockDim.x * 100 + gridDim.x;
}
KERNEL widths(i64 a, u64 b, double c, u32 d, float e, int f, const int* none, double* out) {
  out[0] = double(a), out[1] = double(b), out[2] = c, out[3] = d, out[4] = e, out[5] = f;
  out[6] = none == nullptr;
}
KERNEL contracted(const float* x, float* out) { *out = x[0] * x[1] + x[2]; }
KERNEL widen(const real* x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = to_float(x[i]);
}
KERNEL narrow(const float* x, real* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = from_float(x[i]);
}
KERNEL vectors(const float* x, float* out) {
  const float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x];
  reinterpret_cast<float4*>(out)[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
}
KERNEL add(const float* x, float* out, int n) {
  const int i = threadIdx.x;
  if (i < n) out[i] += x[i];
}
KERNEL write_at(float* out, int i) { out[i] = 1.f; }
KERNEL half_barrier(int* out) { if (threadIdx.x < 16) __syncthreads(); }
KERNEL two_barriers(int* out) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncthreads();
}
KERNEL divergent(int* out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __shfl_sync(~0u, 1, 0);
  else
    out[threadIdx.x] = __ballot_sync(~0u, 1);
}
KERNEL not_named(int* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }
KERNEL from_outside(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1, 20);
}
KERNEL waits_for_a_warp(int* out) { if (threadIdx.x < 32) __syncthreads(); else __syncwarp(); }
KERNEL last_writes(int* out) {
  if (out[0] + threadIdx.x == blockDim.x - 1) out[0] = 1;
}
KERNEL divides(int* out) { if (threadIdx.x == 0) out[0] = 7 / out[1]; }
"""


@pytest.fixture(scope="module")
def text(prelude):
    return prelude + SOURCE.replace("KERNEL", 'extern "C" __global__ void')


@pytest.fixture(params=["plain", "race"])
def host(cuda_on_cpu, text, request):
    """Make the kernels above ready, in both modes."""

    def make(seed=0, real=torch.float32):
        return cuda_on_cpu.HostKernels(text, seed=seed, mode=request.param, real=real)

    return make


@pytest.mark.parametrize("kernel", ["order", "loops"])
def test_seed_chooses_the_order(host, kernel):
    orders = []
    for seed in (0, 0, 1, 1, 2):
        out = torch.full((4 * 64,), -1, dtype=torch.int32)
        host(seed)(kernel, (4,), 64, [torch.zeros(1, dtype=torch.int32), out])
        torch.testing.assert_close(out.sort().values, torch.arange(256, dtype=torch.int32))
        orders.append(out.tolist())
    assert orders[0] == orders[1] == list(range(256))
    assert orders[2] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("seed", range(3))
def test_collectives(host, seed):
    out = torch.zeros(256, dtype=torch.int32)
    host(seed)("shuffles", (1,), 32, [out])
    lanes = list(range(32))
    expected = [
        [5] * 32,
        [max(lane - 3, lane % 3 if lane < 3 else 0) for lane in lanes],
        [lane + 3 if lane % 8 < 5 else lane for lane in lanes],
        [lane ^ 1 for lane in lanes],
        [11] * 32,
        [2] * 32,
        [6] * 7 + [0] * 25,
        [2] * 32,
    ]
    assert out.view(8, 32).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_atomics(host, seed):
    i = torch.zeros(6, dtype=torch.int32)
    u = torch.tensor([0, 5, 0], dtype=torch.int32)
    w, s = torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    f = torch.zeros(1)
    host(seed)("atomics", (1,), 64, [i, u, w, s, f])
    assert i.tolist() == [2016, -63, 63, 255, 0, 9]
    assert [x % 2**32 for x in u.tolist()] == [2016, 0, 63 << 26]
    assert w.tolist() == [2016 << 32, 63 << 33, 7]
    assert s.tolist() == [-63 << 33, 63 << 33]
    assert f.item() == 32


def test_rounding_is_that_of_a_gpu(host):
    x = torch.tensor(EDGES)
    nearest, down = torch.zeros(2, len(x), dtype=torch.int32)
    host()("numbers", (1,), 32, [x, nearest, down, len(x)])
    most, least = 2**31 - 1, -(2**31)
    assert nearest.tolist() == [0, 2, 2, 0, -2, most, least, 0, most, 1, -1]
    assert down.tolist() == [0, 1, 2, -1, -2, most, least, 0, most, 1, -2]


def test_bits(host):
    out = torch.zeros(11, dtype=torch.int32)
    host()("bits", (2,), 1, [out[:11]])
    assert out.tolist() == [0, 4, 8, 32, 31, -1, 3, 0x3F800000, 1, 8, 320102]


def test_arguments_keep_their_width(host):
    out = torch.zeros(7, dtype=torch.float64)
    arguments = [2**40 + 1, 2**50 + 1, 0.1, 2**32 - 1, 0.5, -3, None, out]
    host()("widths", (1,), 1, arguments)
    assert out.tolist() == [2**40 + 1, 2**50 + 1, 0.1, 2**32 - 1, 0.5, -3, 1]


def test_no_fused_multiply_add(host):
    x, out = torch.tensor([1 + 2**-12, 1 + 2**-12, -1 - 2**-11]), torch.zeros(1)
    host()("contracted", (1,), 1, [x, out])
    assert out.item() == 0  # 2**-24 when fused


@pytest.mark.parametrize("real", [torch.float16, torch.bfloat16])
def test_small_floats_widen(host, real):
    x = torch.arange(-(2**15), 2**15).short().view(real)
    out = torch.zeros(2**16)
    host(real=real)("widen", (256,), 256, [x, out, 2**16])
    torch.testing.assert_close(out, x.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("real", [torch.float16, torch.bfloat16])
def test_floats_round_to_small_ones(host, real):
    # Every value, each middle of two, and what lies just beside them.
    values = torch.arange(-(2**15), 2**15).short().view(real).float()
    finite = values[values.isfinite()].sort().values
    middles = (finite[1:] + finite[:-1]) / 2
    edges = torch.tensor([65519.99, 65520, 65536, 3.4e38, -3.4e38, 1e-45, float("inf")])
    points = torch.cat([values, middles, edges, torch.randn(10000)])
    up = torch.nextafter(points, torch.tensor(float("inf")))
    x = torch.cat([points, up, torch.nextafter(points, torch.tensor(-float("inf")))])
    out = torch.zeros(len(x), dtype=real)
    host(real=real)("narrow", (-(-len(x) // 256),), 256, [x, out, len(x)])
    torch.testing.assert_close(out, x.to(real), rtol=0, atol=0, equal_nan=True)


def test_vector_access(host, cuda_on_cpu):
    x, out = torch.arange(33.0), torch.zeros(32)
    host()("vectors", (1,), 8, [x, out])
    torch.testing.assert_close(out, torch.arange(32.0).view(8, 4).flip(1).flatten())
    with pytest.raises(cuda_on_cpu.LaunchError, match="misaligned"):
        host()("vectors", (1,), 8, [x[1:], out])


def test_views_and_shared_memory_of_arguments(host):
    x = torch.arange(10.0)
    host()("add", (1,), 32, [x[4:], x[4:], 6])
    assert x.tolist() == [0, 1, 2, 3, 8, 10, 12, 14, 16, 18]
    host()("add", (1,), 32, [x[:0], x[:4], 0])
    host()("add", (1,), 32, [x[1:2], x[0:1], 1])
    assert x[:4].tolist() == [1, 1, 2, 3]
    host()("add", (0,), 32, [x, x, 10])
    assert x[0] == 1


@pytest.mark.parametrize("index", [-1, 4, 4000, -4000])
def test_write_outside_of_an_argument(host, cuda_on_cpu, index):
    x = torch.zeros(12)
    with pytest.raises(cuda_on_cpu.LaunchError, match="argument out"):
        host()("write_at", (1,), 1, [x[4:8], index])
    assert not x.any()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("half_barrier", "not reached by all threads"),
        ("two_barriers", "different barriers .*line"),
        ("divergent", "different collectives .*line"),
        ("not_named", "not in the mask of its collective"),
        ("from_outside", "a shuffle reads a lane that is not in its mask"),
        ("waits_for_a_warp", "not reached by all threads"),
        ("divides", "a division by zero .block 0"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_undefined_behaviour_is_refused(host, cuda_on_cpu, kernel, message, seed):
    with pytest.raises(cuda_on_cpu.LaunchError, match=f"^{kernel}: .*{message}"):
        host(seed)(kernel, (1,), 64, [torch.zeros(64, dtype=torch.int32)])


def test_race_check_remembers_all_readers(cuda_on_cpu, text):
    kernels = cuda_on_cpu.HostKernels(text, mode="race")
    with pytest.raises(cuda_on_cpu.LaunchError, match="race: write of argument out"):
        kernels("last_writes", (1,), 64, [torch.zeros(1, dtype=torch.int32)])


def test_cache_folder_that_cannot_be_written(cuda_on_cpu, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cuda_on_cpu, "BUILDS", tmp_path / "file")
    text = 'extern "C" __global__ void one(int* out) { *out = 1; }'
    out = torch.zeros(1, dtype=torch.int32)
    cuda_on_cpu.HostKernels(text)("one", (1,), 1, [out])
    assert out.item() == 1


def test_kernel_that_does_not_compile(cuda_on_cpu):
    with pytest.raises(cuda_on_cpu.LaunchError, match=r"kernels\.cu:2.*nonsense"):
        cuda_on_cpu.HostKernels('\nextern "C" __global__ void k(int* out) { nonsense(); }')


def test_static_shared_memory_is_refused(cuda_on_cpu):
    text = 'extern "C" __global__ void k(int* out) { __shared__ int a[4]; out[0] = a[0]; }'
    with pytest.raises(cuda_on_cpu.LaunchError, match="static_shared_memory_is_unseen"):
        cuda_on_cpu.HostKernels(text)


@pytest.mark.parametrize(
    ("definitions", "body", "expected"),
    [
        ("", "*x = 1;", False),
        ("", "__syncthreads();", True),
        ("", "// __syncthreads();", False),
        ("__device__ void f() { __syncwarp(); }", "*x = 1;", False),
        ("__device__ void f() { __syncwarp(); }", "f();", True),
        ("__device__ void g() { f<3>(); } template <int n> void f() { __any_sync(n, 1); }",
         "g();", True),
        ("#define WAIT \\\n  __syncthreads()\n", "WAIT;", True),
        ("#define WAIT \\\n  __syncthreads()\n", "*x = 1;", False),
        ("struct Sum { static void all() { __shfl_sync(1, 1, 1); } };", "run<Sum>();", True),
        ("template <class T> __device__ void run(T) {}", "run(1);", False),
        ("namespace a { void deep() { __ballot_sync(1, 1); } }", "a::deep();", True),
    ],
)  # fmt: skip
def test_fibers_only_where_a_kernel_may_wait(cuda_on_cpu, definitions, body, expected):
    text = f'{definitions}\nextern "C" __global__ void k(int* x) {{ {body} }}'
    assert cuda_on_cpu.needs_fibers(text, "k") is expected


def test_on_cpu_takes_the_place_of_the_gpu(cuda_on_cpu, text, monkeypatch):
    monkeypatch.setattr(nvrtc, "source", lambda op: text)
    original = nvrtc.kernels
    x = torch.zeros(4)
    with cuda_on_cpu.on_cpu(mutate=("out[i] = 1.f", "out[i] = 2.f")):
        kernels = nvrtc.kernels("any", x.device, torch.float32)
        kernels("write_at", (1,), 1, [x, 2])
    assert nvrtc.kernels is original
    assert x.tolist() == [0, 0, 2, 0]


def test_on_cpu_refuses_a_bug_that_was_not_planted(cuda_on_cpu, text, monkeypatch):
    monkeypatch.setattr(nvrtc, "source", lambda op: text)
    with (
        pytest.raises(AssertionError, match="holds 'nowhere'"),
        cuda_on_cpu.on_cpu(mutate=("nowhere", "")),
    ):
        nvrtc.kernels("any", torch.device("cpu"))


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip), ("1", pytest.fail)])
def test_missing_compiler(cuda_on_cpu, monkeypatch, required, outcome):
    monkeypatch.setattr(cuda_on_cpu.shutil, "which", lambda command: None)
    monkeypatch.setenv("VOXSEG_REQUIRE_CXX", required)
    with pytest.raises(outcome.Exception, match="install g\\+\\+"):
        cuda_on_cpu.compiler()
