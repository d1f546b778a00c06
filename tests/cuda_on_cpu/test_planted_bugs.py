"""Each class of bug, planted in small kernels that are right without it, is found."""

import functools

import pytest
import torch

SIZE = 1003  # no multiple of a block or a warp
BLOCK = 128

SOURCE = {
    "tree": """
(const float* __restrict__ x, float* out, int n) {
  SHARED(float, sums);
  float sum = 0.f;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int half = blockDim.x / 2; half; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[0] = sums[0];
}""",
    "warps": """
(const float* __restrict__ x, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float sum = i < n ? x[i] : 0.f;
  for (int d = 16; d; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
  if (threadIdx.x % 32 == 0) atomicAdd(out, sum);
}""",
    "histogram": """
(const int* __restrict__ labels, int* counts, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&counts[labels[i]], 1);
}""",
    "histogram_in_blocks": """
(const int* __restrict__ labels, int* counts, int n) {
  SHARED(int, own);
  for (int k = threadIdx.x; k < 50; k += blockDim.x) own[k] = 0;
  __syncthreads();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&own[labels[i]], 1);
  __syncthreads();
  for (int k = threadIdx.x; k < 50; k += blockDim.x) atomicAdd(&counts[k], own[k]);
}""",
    "neighbours": """
(const float* __restrict__ x, float* out, int n) {
  SHARED(float, row);
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  row[threadIdx.x] = i < n ? x[i] : 0.f;
  __syncwarp();
  const int lane = threadIdx.x % 32;
  if (i < n) out[i] = row[threadIdx.x] + row[threadIdx.x - lane + (lane + 1) % 32];
}""",
    "roots": """
(int* parents, int* changed, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const volatile int* seen = parents;
  atomicMin(&parents[i], min(seen[i / 2], seen[0]));
}""",
}

# Kernel, old text, new text, whether values alone tell, what race mode says.
BUGS = {
    "no barrier before a tree": ("tree", "= sum;\n  __syncthreads();", "= sum;", True,
                                 "race|uninitialised"),
    "no barrier in a tree": ("tree", "+ half];\n    __syncthreads();", "+ half];", True, "race: "),
    "sum by one too many": ("tree", "i < n;", "i <= n;", True, "out of bounds: read of argument x"),
    "shared memory too short": ("tree", "sums[threadIdx.x] = sum", "sums[threadIdx.x + 1] = sum",
                                True, "out of bounds: write of shared memory at byte 512"),
    "lane leaves before a shuffle": ("warps", "  float sum", "  if (i >= n) return;\n  float sum",
                                     True, "names a lane that has exited"),
    "plain add": ("warps", "atomicAdd(out, sum);", "*out += sum;", False,
                  "race: .* of argument out"),
    "plain count": ("histogram", "atomicAdd(&counts[labels[i]], 1);", "++counts[labels[i]];",
                    False, r"race: .* of argument counts .* line \d+"),
    "no bound of the tail": ("histogram", "if (i < n) ", "", True,
                             "out of bounds: read of argument labels at byte 4012 of 4012"),
    "plain count in a block": ("histogram_in_blocks", "atomicAdd(&own[labels[i]], 1)",
                               "++own[labels[i]]", False, "race: .* shared memory"),
    "plain sum over blocks": ("histogram_in_blocks", "atomicAdd(&counts[k], own[k])",
                              "counts[k] += own[k]", False, "race: .* with one in block"),
    "counts not cleared": ("histogram_in_blocks", "own[k] = 0;", ";", True, "uninitialised shared"),
    "no barrier after clearing": ("histogram_in_blocks", "= 0;\n  __syncthreads();", "= 0;", False,
                                  "race|uninitialised"),
    "no barrier in a warp": ("neighbours", "__syncwarp();", "", True, "race|uninitialised"),
    "plain reads beside atomics": ("roots", "const volatile int", "const int", False, "race: "),
    "wild index": ("roots", "&parents[i]", "&parents[i + 300000000ll]", None, "wild access"),
}  # fmt: skip


def mutant(bug):
    return "bug_" + bug.replace(" ", "_")


def source():
    kernels = [f'extern "C" __global__ void {name}{body}' for name, body in SOURCE.items()]
    for bug, (name, old, new, *_) in BUGS.items():
        assert SOURCE[name].count(old) == 1
        body = SOURCE[name].replace(old, new)
        kernels.append(f'extern "C" __global__ void {mutant(bug)}{body}')
    return "\n".join(kernels)


@pytest.fixture(scope="module")
def text(cuda_on_cpu, prelude):
    return f'{prelude}\n#line 1 "planted.cu"\n{source()}'


def run(kernels, kind, name):
    """Launch ``name``, which should do what ``kind`` does, and check what it gives."""
    generator = torch.Generator().manual_seed(3)
    grid = (1,) if kind == "tree" else (-(-SIZE // BLOCK),)
    if kind == "roots":
        parents = torch.randint(0, SIZE, (SIZE,), generator=generator, dtype=torch.int32)
        parents[0] = 0
        kernels(name, grid, BLOCK, [parents, None, SIZE])
        assert not parents.any()
    elif kind.startswith("histogram"):
        labels = torch.randint(0, 50, (SIZE,), generator=generator, dtype=torch.int32)
        counts = torch.zeros(50, dtype=torch.int32)
        kernels(name, grid, BLOCK, [labels, counts, SIZE], 200)
        torch.testing.assert_close(counts.long(), torch.bincount(labels))
    else:
        x = torch.randint(-8, 9, (SIZE + 9,), generator=generator).float()[:SIZE]
        out = torch.zeros(SIZE if kind == "neighbours" else 1)
        kernels(name, grid, BLOCK, [x, out, SIZE], 4 * BLOCK)
        padded = torch.nn.functional.pad(x, (0, 1024 - SIZE)).view(-1, 32)
        pairs = (padded + padded.roll(-1, 1)).flatten()[:SIZE]
        torch.testing.assert_close(out, pairs if kind == "neighbours" else x.sum()[None])


def run_orders(kernels, kind, name, mode):
    for seed in range(4):
        run(kernels(seed=seed, mode=mode), kind, name)


@pytest.fixture(scope="module")
def kernels(cuda_on_cpu, text):
    return functools.partial(cuda_on_cpu.HostKernels, text)


@pytest.mark.parametrize("mode", ["plain", "race"])
@pytest.mark.parametrize("kind", SOURCE)
def test_right_kernel_is_clean(kernels, kind, mode):
    run_orders(kernels, kind, kind, mode)


@pytest.mark.parametrize("bug", [bug for bug, row in BUGS.items() if row[3]])
def test_values_tell(kernels, bug):
    with pytest.raises(AssertionError):
        run_orders(kernels, BUGS[bug][0], mutant(bug), mode="plain")


@pytest.mark.parametrize("bug", BUGS)
def test_race_mode_tells(cuda_on_cpu, kernels, bug):
    with pytest.raises(cuda_on_cpu.LaunchError, match=BUGS[bug][4]):
        run_orders(kernels, BUGS[bug][0], mutant(bug), mode="race")
