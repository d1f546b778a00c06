// The paper's own design of superpixel pooling, for comparison only: `voxseg bench pool` measures it.
//
// Source: Schuurmans, Berman, Blaschko, arXiv:1806.02705, section 3.3: one block a channel, a shared
// array with one entry a superpixel, an atomic for every voxel. The paper's array holds values and
// winners; here they are one 64-bit key, so that ties are decided. K is bounded by shared memory.

#define THREADS 1024

// Keys as the prelude makes them: 0 where a superpixel has no voxel.
extern "C" __global__ void __launch_bounds__(THREADS)
paper_max(const real* features, const int* superpixels, u64* keys, int channels, int count,
          i64 voxels) {
  SHARED(u64, table);
  for (int k = threadIdx.x; k < count; k += blockDim.x) table[k] = 0;
  __syncthreads();
  const real* channel = features + i64(blockIdx.x) * voxels;
  const int* labels = superpixels + i64(blockIdx.x) / channels * voxels;
  for (i64 i = threadIdx.x; i < voxels; i += blockDim.x) {
    if (u32(labels[i]) < u32(count))
      atomicMax(&table[labels[i]], max_key(to_float(channel[i]), u32(i)));
  }
  __syncthreads();
  for (int k = threadIdx.x; k < count; k += blockDim.x)
    keys[i64(blockIdx.x) * count + k] = table[k];
}

extern "C" __global__ void __launch_bounds__(THREADS)
paper_sum(const real* features, const int* superpixels, float* sums, int channels, int count,
          i64 voxels) {
  SHARED(float, table);
  for (int k = threadIdx.x; k < count; k += blockDim.x) table[k] = 0.f;
  __syncthreads();
  const real* channel = features + i64(blockIdx.x) * voxels;
  const int* labels = superpixels + i64(blockIdx.x) / channels * voxels;
  for (i64 i = threadIdx.x; i < voxels; i += blockDim.x)
    if (u32(labels[i]) < u32(count)) atomicAdd(&table[labels[i]], to_float(channel[i]));
  __syncthreads();
  for (int k = threadIdx.x; k < count; k += blockDim.x)
    sums[i64(blockIdx.x) * count + k] = table[k];
}
