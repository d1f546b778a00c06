// From superpixels back to voxels, on the GPU: unpooling, which is also the gradient of sums and
// means, and the gradient of maxima.
//
// Source: Schuurmans, Berman, Blaschko, arXiv:1806.02705, equations 1-3; the layout of the work is
// voxseg's own. Twins: reference/superpixel_pool.py, cpu/superpixel_pool.py; launched by
// ops/cuda/superpixel_pool.py. Labels outside [0, K) belong to no superpixel.

#define THREADS 256

// Hand the gradient of every superpixel to the voxel that won. `out` is zero; winners differ, so
// that no two threads meet.
extern "C" __global__ void __launch_bounds__(THREADS)
max_backward(const real* grad, const int* argmax, real* out, i64 slots, int channels, int count,
             i64 voxels, int last) {
  i64 index = i64(blockIdx.x) * THREADS + threadIdx.x;
  if (index >= slots) return;
  i64 voxel = argmax[index];
  if (voxel < 0) return;
  i64 image = index / count / channels, channel = index / count % channels;
  out[last ? (image * voxels + voxel) * channels + channel
           : (image * channels + channel) * voxels + voxel] = grad[index];
}

// 16 bytes of neighbouring voxels of one channel.
union Pack {
  static const int SIZE = 16 / int(sizeof(real));
  uint4 raw;
  real value[SIZE];

  // Look up what each voxel's superpixel has, 0 where there is none.
  __device__ __forceinline__ void fill(const real* table, const int* label) {
#pragma unroll
    for (int q = 0; q < SIZE; ++q) {
      value[q] = from_float(0.f);
      if (label[q] >= 0) value[q] = table[label[q]];
    }
  }
};

// Unpool, channels first: a thread owns 16 bytes of neighbouring voxels and goes through the
// channels, so that labels are read once for all of them.
extern "C" __global__ void __launch_bounds__(THREADS)
unpool(const real* values, const int* superpixels, real* out, int channels, int block_channels,
       int count, i64 voxels, int blocks, int vectors) {
  i64 image = blockIdx.x / blocks;
  i64 begin = (i64(blockIdx.x % blocks) * THREADS + threadIdx.x) * Pack::SIZE;
  if (begin >= voxels) return;
  int label[Pack::SIZE];
#pragma unroll
  for (int q = 0; q < Pack::SIZE; ++q) {
    label[q] = begin + q < voxels ? superpixels[image * voxels + begin + q] : -1;
    if (u32(label[q]) >= u32(count)) label[q] = -1;
  }
  int from = blockIdx.y * block_channels;
  int to = from + block_channels < channels ? from + block_channels : channels;
  const real* table = values + (image * channels + from) * count;
  real* line = out + (image * channels + from) * voxels + begin;
  Pack pack;
  // Two loops: of a choice within one, NVRTC can make the single stores of both.
  if (vectors) {
    for (int channel = from; channel < to; ++channel, table += count, line += voxels) {
      pack.fill(table, label);
      *reinterpret_cast<uint4*>(line) = pack.raw;
    }
  } else {
    for (int channel = from; channel < to; ++channel, table += count, line += voxels) {
      pack.fill(table, label);
      for (int q = 0; q < Pack::SIZE; ++q)
        if (begin + q < voxels) line[q] = pack.value[q];
    }
  }
}

// Unpool, channels last: `values` is (B, K, C). Groups of `group` lanes, a power of two, write the
// channels of one voxel side by side.
extern "C" __global__ void __launch_bounds__(THREADS)
unpool_last(const real* values, const int* superpixels, real* out, i64 all_voxels, i64 voxels,
            int channels, int count, int group) {
  i64 voxel = (i64(blockIdx.x) * THREADS + threadIdx.x) / group;
  if (voxel >= all_voxels) return;
  int label = superpixels[voxel];
  bool is_inside = u32(label) < u32(count);
  const real* table = values + (voxel / voxels * count + (is_inside ? label : 0)) * channels;
  for (int channel = threadIdx.x & (group - 1); channel < channels; channel += group)
    out[voxel * channels + channel] = is_inside ? table[channel] : from_float(0.f);
}
