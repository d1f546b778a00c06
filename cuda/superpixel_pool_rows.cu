// Superpixel pooling on the GPU, channels of superpixels: what the rows of superpixel_pool.cu add up
// to, and maxima without a plan.
//
// Source: Schuurmans, Berman, Blaschko, arXiv:1806.02705, equations 1-3; the layout of the work is
// voxseg's own. Launched by ops/cuda/superpixel_pool.py. Keys of maxima are those of the prelude.

#define THREADS 256
#define WARPS (THREADS / 32)
#define RUN 8  // consecutive voxels that one thread merges before it uses an atomic

__device__ __forceinline__ int key_voxel(u64 key) {
  return key ? int(0xffffffffu - u32(key)) : -1;
}

struct Add {
  typedef double Value;  // costs nothing here, and a superpixel may have thousands of rows
  static __device__ __forceinline__ Value join(Value a, Value b) { return a + b; }
};
struct Larger {
  typedef u64 Value;
  static __device__ __forceinline__ Value join(Value a, Value b) { return max(a, b); }
};

// Pass 2: one block 32 channels of a superpixel; its warps take turns with the rows, lanes run along
// the channels. `count` is K, the grid counts the superpixels of the whole batch.
// Gives what the rows come to in a channel, in the first warp.
template <class Op, class Row>
__device__ __forceinline__ typename Op::Value join_rows(const Row* partial, const int* rows,
                                                        const int* first, int channels,
                                                        int channel) {
  SHARED(typename Op::Value, part);
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int begin = first[blockIdx.x], end = first[blockIdx.x + 1];
  typename Op::Value joined = 0;
  if (channel < channels)
    for (int j = begin + warp; j < end; j += WARPS)
      joined = Op::join(joined, partial[i64(rows[j]) * channels + channel]);
  part[warp * 32 + lane] = joined;
  __syncthreads();
  if (warp == 0)
    for (int w = 1; w < WARPS; ++w) joined = Op::join(joined, part[w * 32 + lane]);
  return joined;
}

extern "C" __global__ void __launch_bounds__(THREADS)
sum_rows(const float* partial, const int* rows, const int* first, const i64* sizes, real* out,
         int channels, int count) {
  int channel = blockIdx.y * 32 + (threadIdx.x & 31);
  double total = join_rows<Add>(partial, rows, first, channels, channel);
  if (threadIdx.x >= 32 || channel >= channels) return;
  if (sizes && sizes[blockIdx.x] > 1) total /= double(sizes[blockIdx.x]);
  i64 image = blockIdx.x / count, label = blockIdx.x % count;
  out[(image * channels + channel) * count + label] = from_float(float(total));
}

// The value of a winner is read again, which keeps the sign of a zero and the bits of a NaN.
__device__ __forceinline__ void write_max(u64 key, const real* features, i64 image, int channel,
                                          i64 label, real* out, int* argmax, int channels,
                                          int count, i64 voxels, int last) {
  int voxel = key_voxel(key);
  i64 at = (image * channels + channel) * count + label;
  argmax[at] = voxel;
  i64 from = last ? (image * voxels + voxel) * channels + channel
                  : (image * channels + channel) * voxels + voxel;
  out[at] = voxel < 0 ? from_float(0.f) : features[from];
}

extern "C" __global__ void __launch_bounds__(THREADS)
max_rows(const u64* partial, const int* rows, const int* first, const real* features, real* out,
         int* argmax, int channels, int count, i64 voxels, int last) {
  int channel = blockIdx.y * 32 + (threadIdx.x & 31);
  u64 best = join_rows<Larger>(partial, rows, first, channels, channel);
  if (threadIdx.x >= 32 || channel >= channels) return;
  i64 image = blockIdx.x / count, label = blockIdx.x % count;
  write_max(best, features, image, channel, label, out, argmax, channels, count, voxels, last);
}

// Maxima without a plan: a thread merges RUN voxels of a channel while their label stays the same.
// Neighbouring threads take neighbouring runs, or with channels last neighbouring channels.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
max_atomic(const real* features, const int* superpixels, u64* keys, int images, int channels,
           int count, i64 voxels, int last) {
  i64 runs = (voxels + RUN - 1) / RUN, index = i64(blockIdx.x) * THREADS + threadIdx.x;
  if (index >= runs * channels * images) return;
  i64 run = last ? index / channels % runs : index % runs;
  i64 channel = last ? index % channels : index / runs % channels;
  i64 image = index / (runs * channels);
  const real* own = features + image * channels * voxels + (last ? channel : channel * voxels);
  const int* labels = superpixels + image * voxels;
  u64* table = keys + (image * channels + channel) * count;
  i64 step = last ? channels : 1, end = run * RUN + RUN < voxels ? run * RUN + RUN : voxels;
  int current = -1;
  u64 best = 0;
  for (i64 i = run * RUN; i < end; ++i) {
    int label = labels[i];
    if (label != current) {
      if (u32(current) < u32(count)) atomicMax(&table[current], best);
      current = label;
      best = 0;
    }
    u64 key = max_key(to_float(own[i * step]), u32(i));
    best = key > best ? key : best;
  }
  if (u32(current) < u32(count)) atomicMax(&table[current], best);
}
extern "C" __global__ void __launch_bounds__(THREADS)
max_unpack(const u64* keys, const real* features, real* out, int* argmax, i64 slots, int channels,
           int count, i64 voxels, int last) {
  i64 index = i64(blockIdx.x) * THREADS + threadIdx.x;
  if (index >= slots) return;
  i64 image = index / count / channels;
  write_max(keys[index], features, image, int(index / count % channels), index % count, out, argmax,
            channels, count, voxels, last);
}
