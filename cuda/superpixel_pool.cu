// Superpixel pooling on the GPU: maximum, sum and mean over superpixels. The way back to voxels is in
// superpixel_unpool.cu.
//
// Source: Schuurmans, Berman, Blaschko, arXiv:1806.02705, equations 1-3; the layout of the work is
// voxseg's own. Twins: reference/superpixel_pool.py, cpu/superpixel_pool.py; launched by
// ops/cuda/superpixel_pool.py.
//
// Main path: a plan (ops/superpixel_plan.py) sorts the 2048 voxels of every tile by superpixel. The
// stretch that a superpixel has in a tile is a row. Pass 1 reduces every row with one warp, by a
// tree of fixed shape; pass 2 combines the rows of a superpixel in a fixed order. There is no
// atomic, so a run repeats bit by bit.
// Fallback for maxima without a plan: one 64-bit atomic maximum per run of voxels, whose result
// does not depend on the order of threads either.
//
// A maximum travels as one 64-bit key: the value, mapped to an integer of the same order, above the
// inverted voxel index. The largest key is the largest value, and of equals the lowest index.
// Labels outside [0, K) belong to no superpixel. Voxel indices within an image are below 2^31.

#define TILE 2048
#define THREADS 256
#define WARPS (THREADS / 32)
#define ROUND 4  // channels of a tile in shared memory at once
#define RUN 8    // consecutive voxels that one thread merges before it uses an atomic
#define FULL 0xffffffffu

__device__ __forceinline__ int key_voxel(u64 key) {
  return key ? int(0xffffffffu - u32(key)) : -1;
}

// Where a tile lies, and where a voxel of it lies in its image. Tiles are powers of two a side:
// an offset in a tile is (z, y, x) in 11 bits.
struct Tile {
  int z, y, x;               // first voxel
  int depth, height, width;  // of the image
  int y_bits, x_bits;

  __device__ __forceinline__ bool holds(int offset) const {
    return z + z_of(offset) < depth && y + y_of(offset) < height && x + x_of(offset) < width;
  }
  __device__ __forceinline__ u32 voxel(int offset) const {
    return (u32(z + z_of(offset)) * height + y + y_of(offset)) * width + x + x_of(offset);
  }
  __device__ __forceinline__ int z_of(int offset) const { return offset >> (y_bits + x_bits); }
  __device__ __forceinline__ int y_of(int offset) const {
    return (offset >> x_bits) & ((1 << y_bits) - 1);
  }
  __device__ __forceinline__ int x_of(int offset) const { return offset & ((1 << x_bits) - 1); }
};

// Tile number `index` of an image of (depth, height, width).
__device__ __forceinline__ Tile make_tile(int index, int depth, int height, int width, int y_bits,
                                          int x_bits) {
  int z_bits = 11 - y_bits - x_bits;
  int across = (width + (1 << x_bits) - 1) >> x_bits, down = (height + (1 << y_bits) - 1) >> y_bits;
  int z = (index / across / down) << z_bits, y = (index / across % down) << y_bits;
  return {z, y, (index % across) << x_bits, depth, height, width, y_bits, x_bits};
}

struct Sum {
  typedef float Value;
  float total;
  __device__ __forceinline__ Sum() : total(0.f) {}
  __device__ __forceinline__ void add(float value, int) { total += value; }
  __device__ __forceinline__ Value finish(const Tile&) const { return total; }
  static __device__ __forceinline__ Value join(Value a, Value b) { return a + b; }
};

struct Max {
  typedef u64 Value;
  u32 key;
  int offset;
  __device__ __forceinline__ Max() : key(0), offset(-1) {}
  // Offsets come in rising order, so that the first of equals stays.
  __device__ __forceinline__ void add(float value, int at) {
    u32 other = order_key(value);  // above 0, whatever the value
    if (other > key) {
      key = other;
      offset = at;
    }
  }
  __device__ __forceinline__ Value finish(const Tile& tile) const {
    return offset < 0 ? 0 : u64(key) << 32 | (0xffffffffu - tile.voxel(offset));
  }
  static __device__ __forceinline__ Value join(Value a, Value b) { return a > b ? a : b; }
};

// Rows of a tile lie 32 floats apart, so that the stretches of a superpixel would meet in the same
// banks: the upper bits of x are mixed with the row. The map is its own inverse within a row.
__device__ __forceinline__ int mixed(int offset) { return offset ^ ((offset >> 5 & 3) << 3); }

// Reading a tile: every thread takes vectors of 16 bytes at the same places in each channel, into
// registers first, so that the next round is on its way while this one is reduced.
struct Reader {
  static const int PER = 16 / int(sizeof(real));
  static const int STEPS = TILE / (THREADS * PER);
  int offset[STEPS];
  u32 voxel[STEPS];
  bool is_inside[STEPS];
  uint4 ahead[ROUND * STEPS];

  __device__ __forceinline__ Reader(const Tile& tile) {
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      offset[s] = (s * THREADS + threadIdx.x) * PER;
      voxel[s] = tile.voxel(offset[s]);
      is_inside[s] = tile.holds(offset[s]);
    }
  }
  // Behind the last channel it is read again, so that a round is always whole.
  __device__ __forceinline__ void fetch(const real* image, i64 voxels, int channel, int end) {
#pragma unroll
    for (int q = 0; q < ROUND; ++q) {
      const real* source = image + i64(channel + q < end ? channel + q : end - 1) * voxels;
#pragma unroll
      for (int s = 0; s < STEPS; ++s)
        if (is_inside[s])
          ahead[q * STEPS + s] = *reinterpret_cast<const uint4*>(source + voxel[s]);
    }
  }
  __device__ __forceinline__ void store(float* staged) const {
#pragma unroll
    for (int q = 0; q < ROUND; ++q)
#pragma unroll
      for (int s = 0; s < STEPS; ++s) {
        if (!is_inside[s]) continue;
        const real* values = reinterpret_cast<const real*>(&ahead[q * STEPS + s]);
        float* out = staged + q * TILE + mixed(offset[s]);  // groups of 8 stay together
#pragma unroll
        for (int v = 0; v < PER; ++v) out[v] = to_float(values[v]);
      }
  }
};

// The same one by one, where rows do not begin at multiples of 16 bytes.
__device__ __forceinline__ void copy_tile(const real* image, i64 voxels, int channel, int end,
                                          const Tile& tile, float* staged) {
  for (int i = threadIdx.x; i < TILE; i += THREADS) {
    if (!tile.holds(i)) continue;
    const real* source = image + tile.voxel(i);
#pragma unroll
    for (int q = 0; q < ROUND; ++q)
      staged[q * TILE + mixed(i)] =
          to_float(source[i64(channel + q < end ? channel + q : end - 1) * voxels]);
  }
}

// Reduce four values over the 32 lanes with six exchanges: lanes give away the channels they do not
// keep. Afterwards lane 8 * q holds the result of value q.
template <class Op>
__device__ __forceinline__ typename Op::Value join_four(typename Op::Value* value, int lane) {
  typedef typename Op::Value Value;
  bool upper = lane & 16;
  Value keep0 = upper ? value[2] : value[0], keep1 = upper ? value[3] : value[1];
  Value give0 = upper ? value[0] : value[2], give1 = upper ? value[1] : value[3];
  keep0 = Op::join(keep0, __shfl_xor_sync(FULL, give0, 16));
  keep1 = Op::join(keep1, __shfl_xor_sync(FULL, give1, 16));
  upper = lane & 8;
  Value keep = upper ? keep1 : keep0, give = upper ? keep0 : keep1;
  keep = Op::join(keep, __shfl_xor_sync(FULL, give, 8));
  for (int step = 4; step; step >>= 1) keep = Op::join(keep, __shfl_xor_sync(FULL, keep, step));
  return keep;
}

// Pass 1, channels first: one block a tile, one warp a row, four channels a round.
template <class Op>
__device__ __forceinline__ void reduce_tile(const real* features, const u16* offsets,
                                            const int* base, const u16* start, const u16* stop,
                                            typename Op::Value* partial, int channels,
                                            int block_channels, int tiles, int depth, int height,
                                            int width, int y_bits, int x_bits, int vectors) {
  SHARED(float, staged);
  u16* order = reinterpret_cast<u16*>(staged + ROUND * TILE);
  int image = blockIdx.x / tiles, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  Tile tile = make_tile(blockIdx.x % tiles, depth, height, width, y_bits, x_bits);
  i64 voxels = i64(depth) * height * width;
  int first = base[blockIdx.x], rows = base[blockIdx.x + 1] - first;
  int begin = blockIdx.y * block_channels;
  int end = begin + block_channels < channels ? begin + block_channels : channels;
  for (int i = threadIdx.x; i < TILE; i += THREADS) order[i] = offsets[i64(blockIdx.x) * TILE + i];
  const real* own = features + i64(image) * channels * voxels;
  Reader reader(tile);
  if (vectors) reader.fetch(own, voxels, begin, end);
  for (int channel = begin; channel < end; channel += ROUND) {
    __syncthreads();  // the last round has been read
    if (vectors)
      reader.store(staged);
    else
      copy_tile(own, voxels, channel, end, tile, staged);
    __syncthreads();  // this one is there
    if (vectors && channel + ROUND < end) reader.fetch(own, voxels, channel + ROUND, end);
    for (int row = warp; row < rows; row += WARPS) {
      Op best[ROUND];
      int row_end = stop[first + row];
      for (int j = start[first + row] + lane; j < row_end; j += 32) {
        int offset = order[j], at = mixed(offset);
#pragma unroll
        for (int q = 0; q < ROUND; ++q) best[q].add(staged[q * TILE + at], offset);
      }
      typename Op::Value value[ROUND];
#pragma unroll
      for (int q = 0; q < ROUND; ++q) value[q] = best[q].finish(tile);
      typename Op::Value joined = join_four<Op>(value, lane);
      int mine = channel + (lane >> 3);
      if ((lane & 7) == 0 && mine < end) partial[i64(first + row) * channels + mine] = joined;
    }
  }
}

// Pass 1, channels last: one block a tile, one warp a row, lanes along the channels. With fewer
// than 32 channels, groups of `group` lanes (a power of two) share the voxels of a row.
template <class Op>
__device__ __forceinline__ void reduce_tile_last(const real* features, const u16* offsets,
                                                 const int* base, const u16* start, const u16* stop,
                                                 typename Op::Value* partial, int channels,
                                                 int group, int tiles, int depth, int height,
                                                 int width, int y_bits, int x_bits) {
  int image = blockIdx.x / tiles, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  Tile tile = make_tile(blockIdx.x % tiles, depth, height, width, y_bits, x_bits);
  const real* own = features + i64(image) * depth * height * width * channels;
  const u16* order = offsets + i64(blockIdx.x) * TILE;
  int first = base[blockIdx.x], rows = base[blockIdx.x + 1] - first;
  int groups = 32 / group;
  for (int row = warp; row < rows; row += WARPS) {
    int row_end = stop[first + row];
    for (int begin = 0; begin < channels; begin += group) {
      int channel = begin + (lane & (group - 1));
      Op best;
      if (channel < channels)
        for (int j = start[first + row] + lane / group; j < row_end; j += groups)
          best.add(to_float(own[i64(tile.voxel(order[j])) * channels + channel]), order[j]);
      typename Op::Value joined = best.finish(tile);
      for (int step = 16; step >= group; step >>= 1)
        joined = Op::join(joined, __shfl_xor_sync(FULL, joined, step));
      if (lane < group && channel < channels) partial[i64(first + row) * channels + channel] = joined;
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
sum_tiles(const real* features, const u16* offsets, const int* base, const u16* start,
          const u16* stop, float* partial, int channels, int block_channels, int tiles, int depth,
          int height, int width, int y_bits, int x_bits, int vectors) {
  reduce_tile<Sum>(features, offsets, base, start, stop, partial, channels, block_channels, tiles,
                   depth, height, width, y_bits, x_bits, vectors);
}
extern "C" __global__ void __launch_bounds__(THREADS)
sum_tiles_last(const real* features, const u16* offsets, const int* base, const u16* start,
               const u16* stop, float* partial, int channels, int group, int tiles, int depth,
               int height, int width, int y_bits, int x_bits) {
  reduce_tile_last<Sum>(features, offsets, base, start, stop, partial, channels, group, tiles,
                        depth, height, width, y_bits, x_bits);
}
extern "C" __global__ void __launch_bounds__(THREADS)
max_tiles(const real* features, const u16* offsets, const int* base, const u16* start,
          const u16* stop, u64* partial, int channels, int block_channels, int tiles, int depth,
          int height, int width, int y_bits, int x_bits, int vectors) {
  reduce_tile<Max>(features, offsets, base, start, stop, partial, channels, block_channels, tiles,
                   depth, height, width, y_bits, x_bits, vectors);
}
extern "C" __global__ void __launch_bounds__(THREADS)
max_tiles_last(const real* features, const u16* offsets, const int* base, const u16* start,
               const u16* stop, u64* partial, int channels, int group, int tiles, int depth,
               int height, int width, int y_bits, int x_bits) {
  reduce_tile_last<Max>(features, offsets, base, start, stop, partial, channels, group, tiles,
                        depth, height, width, y_bits, x_bits);
}

// Pass 2: one block a superpixel; its warps take turns with the rows, lanes run along the channels.
// `slots` counts the superpixels of the whole batch. Adding in double costs nothing here, and a
// superpixel may have thousands of rows.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_rows(const float* partial, const int* rows, const int* first, const i64* sizes, real* out,
         int channels, int count) {
  SHARED(double, part);
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int begin = first[blockIdx.x], end = first[blockIdx.x + 1];
  i64 image = blockIdx.x / count, label = blockIdx.x % count;
  for (int from = 0; from < channels; from += 32) {
    int channel = from + lane;
    double total = 0;
    if (channel < channels)
      for (int j = begin + warp; j < end; j += WARPS)
        total += partial[i64(rows[j]) * channels + channel];
    part[warp * 32 + lane] = total;
    __syncthreads();
    if (warp == 0 && channel < channels) {
      for (int w = 1; w < WARPS; ++w) total += part[w * 32 + lane];
      if (sizes && sizes[blockIdx.x] > 1) total /= double(sizes[blockIdx.x]);
      out[(image * channels + channel) * count + label] = from_float(float(total));
    }
    __syncthreads();
  }
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
  SHARED(u64, part);
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int begin = first[blockIdx.x], end = first[blockIdx.x + 1];
  i64 image = blockIdx.x / count, label = blockIdx.x % count;
  for (int from = 0; from < channels; from += 32) {
    int channel = from + lane;
    u64 best = 0;
    if (channel < channels)
      for (int j = begin + warp; j < end; j += WARPS)
        best = Max::join(best, partial[i64(rows[j]) * channels + channel]);
    part[warp * 32 + lane] = best;
    __syncthreads();
    if (warp == 0 && channel < channels) {
      for (int w = 1; w < WARPS; ++w) best = Max::join(best, part[w * 32 + lane]);
      write_max(best, features, image, channel, label, out, argmax, channels, count, voxels, last);
    }
    __syncthreads();
  }
}

// Maxima without a plan: a thread merges RUN voxels of a channel while their label stays the same.
// Neighbouring threads take neighbouring runs, or with channels last neighbouring channels.
extern "C" __global__ void __launch_bounds__(THREADS)
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
