// Connected components of a label map and the merging of small ones: SLIC's last step.
//
// Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, TPAMI 34(11), 2012, section 3.2; the rule
// for merging is that of voxseg/ops/cpu/merging.py. Launched by voxseg/ops/cuda/slic_connectivity.py.
// Components are found by union-find over voxels; a root is its component's lowest index, whatever
// the order of the unions. A volume (Z, Y, X) has less than 2^31 voxels.

// Parents change while they are read: any value they ever had is an ancestor.
__device__ __forceinline__ int load(const int* parent) {
  return *static_cast<const volatile int*>(parent);
}

__device__ __forceinline__ int find_root(int* parent, int i) {
  for (int next = load(parent + i); next != i; next = load(parent + i)) i = next;
  return i;
}

// Join two components under the lower root.
__device__ __forceinline__ void unite(int* parent, int a, int b) {
  a = find_root(parent, a);
  b = find_root(parent, b);
  while (a != b) {
    int high = max(a, b), low = min(a, b);
    int before = atomicMin(parent + high, low);
    if (before == high) return;
    // Another thread was faster: what it wrote and what was written now belong together.
    a = find_root(parent, before);
    b = find_root(parent, low);
  }
}

// One thread = one voxel, whose parent becomes the first of its run within the warp; -1 outside.
extern "C" __global__ void __launch_bounds__(256) slic_start(
    const int* labels, int* parent, int width, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  int label = i < voxels ? labels[i] : -1;
  bool goes_on = label >= 0 && lane > 0 && i % width > 0 && labels[i - 1] == label;
  u32 starts = __ballot_sync(0xffffffffu, !goes_on);
  if (i >= voxels) return;
  int start = 31 - __clz(int(starts & (0xffffffffu >> (31 - lane))));
  parent[i] = label < 0 ? -1 : i - (lane - start);
}

// One thread = one voxel, united with those before it along x, y and z that have the same label,
// but where neighbours that touch both see to it.
extern "C" __global__ void __launch_bounds__(256) slic_unite(
    const int* labels, int* parent, int height, int width, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= voxels) return;
  int label = labels[i], plane = height * width;
  if (label < 0) return;
  int x = i % width, y = i / width % height;
  bool left = x > 0 && labels[i - 1] == label;
  bool above = y > 0 && labels[i - width] == label;
  if (left && threadIdx.x % 32 == 0) unite(parent, i, i - 1);
  if (above && !(left && labels[i - width - 1] == label)) unite(parent, i, i - width);
  if (i >= plane && labels[i - plane] == label) {
    bool is_done = (left && labels[i - plane - 1] == label) ||
                   (above && labels[i - plane - width] == label);
    if (!is_done) unite(parent, i, i - plane);
  }
}

// One thread = one voxel: its root, and whether it is one.
extern "C" __global__ void __launch_bounds__(256) slic_roots(
    int* parent, int* roots, int* is_root, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= voxels) return;
  int root = load(parent + i);
  if (root >= 0) root = find_root(parent, root);
  roots[i] = root;
  is_root[i] = root == i;
}

// One thread = one voxel: its component's number, given how many roots there are up to each voxel;
// the first of a run within the warp counts it.
extern "C" __global__ void __launch_bounds__(256) slic_number(
    const int* roots, const int* ranks, int* components, int* sizes, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  int root = i < voxels ? roots[i] : -1;
  u32 starts = __ballot_sync(0xffffffffu, root < 0 || lane == 0 || roots[i - 1] != root);
  if (i >= voxels) return;
  int component = root < 0 ? -1 : ranks[root] - 1;
  components[i] = component;
  if (component < 0 || !(starts >> lane & 1)) return;
  u32 later = lane < 31 ? starts >> (lane + 1) : 0;
  atomicAdd(&sizes[component], later ? __ffs(int(later)) : 32 - lane);
}

// One thread = one voxel: the faces between its component, if it is small, and larger ones (of
// equals, the earlier). Without `keys` they are counted, else each is written as own << 32 | other.
// `names` is what every component has become, or null at first.
extern "C" __global__ void __launch_bounds__(256) slic_faces(
    const int* components, const int* names, const int* sizes, const double* min_voxels, u64* keys,
    u64* cursor, int height, int width, int voxels
) {
  SHARED(u64, shared);  // where the block's keys begin, and how many there are
  if (threadIdx.x < 2) shared[threadIdx.x] = 0;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x, plane = height * width;
  int own = i < voxels ? components[i] : -1;
  if (own >= 0 && names != nullptr) own = names[own];
  int others[6], count = 0;
  bool is_small = own >= 0 && double(sizes[own]) < *min_voxels;
  int x = i % width, y = i / width % height;
  const int steps[3] = {1, width, plane};
  const bool before[3] = {x > 0, y > 0, i >= plane};
  const bool after[3] = {x + 1 < width, y + 1 < height, i < voxels - plane};
#pragma unroll
  for (int side = 0; side < 6; ++side) {
    int step = side % 2 ? steps[side / 2] : -steps[side / 2];
    bool is_inside = side % 2 ? after[side / 2] : before[side / 2];
    int other = is_small && is_inside ? components[i + step] : -1;
    if (other >= 0 && names != nullptr) other = names[other];
    bool is_larger = other >= 0 && other != own &&
                     (sizes[other] > sizes[own] || (sizes[other] == sizes[own] && other < own));
    others[side] = is_larger ? other : -1;
    count += is_larger;
  }
  u32* total = reinterpret_cast<u32*>(shared + 1);
  u32 at = count ? atomicAdd(total, u32(count)) : 0;
  __syncthreads();
  if (threadIdx.x == 0 && *total > 0) shared[0] = atomicAdd(cursor, u64(*total));
  __syncthreads();
  if (keys == nullptr) return;
  u64* next = keys + shared[0] + at;
#pragma unroll
  for (int side = 0; side < 6; ++side) {
    if (others[side] >= 0) *next++ = u64(own) << 32 | u32(others[side]);
  }
}

// One thread = one of the sorted keys; the first of equals counts them. The most faces win, of
// equals the earlier component: `choice` is faces << 32 | ~other, 0 for none.
extern "C" __global__ void __launch_bounds__(256) slic_choose(
    const u64* keys, u64* choice, i64 number
) {
  i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= number || (i > 0 && keys[i - 1] == keys[i])) return;
  i64 end = i + 1;
  while (end < number && keys[end] == keys[i]) ++end;
  atomicMax(&choice[keys[i] >> 32], u64(end - i) << 32 | u32(~u32(keys[i])));
}

__device__ __forceinline__ int follow(const u64* choice, int component) {
  // What is chosen is larger, so the chain ends.
  for (u64 next = choice[component]; next; next = choice[component]) component = ~u32(next);
  return component;
}

// One thread = one component: it takes the name of what its own name joins in the end, and its
// voxels go there.
extern "C" __global__ void __launch_bounds__(256) slic_join(
    const u64* choice, int* names, int* sizes, int number
) {
  int component = blockIdx.x * blockDim.x + threadIdx.x;
  if (component >= number) return;
  names[component] = follow(choice, names[component]);
  if (choice[component] == 0) return;
  atomicAdd(&sizes[follow(choice, component)], sizes[component]);
  sizes[component] = 0;
}

// One thread = one voxel: its component's final name.
extern "C" __global__ void __launch_bounds__(256) slic_rename(
    int* components, const int* names, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < voxels && components[i] >= 0) components[i] = names[components[i]];
}
