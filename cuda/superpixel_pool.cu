// Superpixel pooling on the GPU, pass 1: maxima and sums of what a superpixel has in a tile. Pass 2
// is in superpixel_pool_rows.cu, the way back to voxels in superpixel_unpool.cu.
//
// Source: Schuurmans, Berman, Blaschko, arXiv:1806.02705, equations 1-3; the layout of the work is
// voxseg's own. Twins: reference/superpixel_pool.py, cpu/superpixel_pool.py; launched by
// ops/cuda/superpixel_pool.py.
//
// A plan (ops/superpixel_plan.py) sorts the 2048 voxels of every tile by superpixel. The
// stretch that a superpixel has in a tile is a row. Pass 1 reduces every row with one warp, by a
// tree of fixed shape; pass 2 combines the rows of a superpixel in a fixed order. There is no
// atomic, so a run repeats bit by bit.
//
// A maximum travels as one 64-bit key: the value, mapped to an integer of the same order, above the
// inverted voxel index. The largest key is the largest value, and of equals the lowest index.
// Labels outside [0, K) belong to no superpixel. Voxel indices within an image are below 2^31.

#define TILE 2048
#define THREADS 256
#define WARPS (THREADS / 32)
#define WORDS 4               // of a voxel in shared memory
#define ROUND (WORDS * WORD)  // channels that are there at once
#if REAL == 0 && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define BLOCKS 4  // of a multiprocessor, without spilling
#else
#define BLOCKS 3
#endif
#define AHEAD (8 * WORD)      // loads of a thread that are on their way at once
#define FULL 0xffffffffu

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

// What a lane has of a row in the channels of one word, from the place `begin` on. Places count the
// tile's sorted voxels: they rise with the voxel's index, so that the first of equals is the lowest.
struct Sum {
  typedef float Value;
  typedef Sum Quick;
  float total[WORD];
  __device__ __forceinline__ void start(int) { for (float& sum : total) sum = 0.f; }
  __device__ __forceinline__ void add(u32 word, int) {
    for (int part = 0; part < WORD; ++part) total[part] += part_of(word, part);
  }
  __device__ __forceinline__ bool is_lost() const { return false; }
  __device__ __forceinline__ Value finish(int part) const { return total[part]; }
  static __device__ __forceinline__ Value join(Value a, Value b) { return a + b; }
  static __device__ __forceinline__ int winner(Value) { return 0; }
  static __device__ __forceinline__ Value number(Value value, u32) { return value; }
};

// A maximum as a key, the value above the inverted place; of equal values the first place wins.
struct Max {
  typedef u64 Value;
  u32 key[WORD];
  int place[WORD];
  __device__ __forceinline__ void start(int begin) {
    for (int part = 0; part < WORD; ++part) key[part] = 0, place[part] = begin;
  }
  __device__ __forceinline__ void add(u32 word, int at) {
    for (int part = 0; part < WORD; ++part) {
      u32 other = order_key(part_of(word, part));  // above 0, whatever the value
      place[part] = other > key[part] ? at : place[part];
      key[part] = max(key[part], other);
    }
  }
  __device__ __forceinline__ bool is_lost() const { return false; }
  __device__ __forceinline__ Value finish(int part) const {
    return u64(key[part]) << 32 | u32(~place[part]);
  }
  static __device__ __forceinline__ Value join(Value a, Value b) { return a > b ? a : b; }

  // The same without keys, which cost more instructions a voxel than memory leaves time for. It is
  // lost where there is a NaN: then all is done again by keys.
  struct Quick {
    u32 best;
    int place[WORD];
    __device__ __forceinline__ void start(int begin) {
      best = LEAST_WORD;
      for (int part = 0; part < WORD; ++part) place[part] = begin;
    }
    __device__ __forceinline__ void add(u32 word, int at) {
      note_larger(word, best, at, place);
      best = max_or_nan(best, word);
    }
    __device__ __forceinline__ bool is_lost() const {
      return is_nan(part_of(best, 0)) || is_nan(part_of(best, WORD - 1));
    }
    __device__ __forceinline__ Value finish(int part) const {
      return u64(number_key(part_of(best, part))) << 32 | u32(~place[part]);
    }
  };

  // The winner's place, and the key with its voxel for it.
  static __device__ __forceinline__ int winner(Value value) { return int(~u32(value)); }
  static __device__ __forceinline__ Value number(Value value, u32 voxel) {
    return value >> 32 << 32 | u32(~voxel);
  }
};

// One voxel in shared memory: the values of ROUND channels in 16 bytes, so that one access has them.
union Pack {
  uint4 raw;
  u32 word[WORDS];
  real value[ROUND];
};

// Where a voxel of a tile lies in shared memory, whose banks hold eight at once. Threads that write
// vectors are four or eight apart, so upper bits of x are mixed in; the map is its own inverse.
__device__ __forceinline__ int mixed(int offset) { return offset ^ (offset >> 3 & 7); }

// Rounds of channels of an image, read in vectors of 16 bytes at the same places in each channel:
// into registers first, so that the next round is on its way while this one is reduced.
struct VectorReader {
  static const int PER = 16 / int(sizeof(real));
  static const int STEPS = TILE / (THREADS * PER);
  const real* image;
  i64 voxels;
  int end;  // of the channels
  u32 voxel[STEPS];
  uint4 ahead[ROUND * STEPS];
  // What is outside of the image is read from its first voxel, and not used.
  __device__ __forceinline__ VectorReader(const Tile& tile, const real* image, i64 voxels, int end)
      : image(image), voxels(voxels), end(end) {
    for (int s = 0; s < STEPS; ++s) voxel[s] = tile.holds(place(s)) ? tile.voxel(place(s)) : 0;
  }
  __device__ __forceinline__ int place(int s) const { return (s * THREADS + threadIdx.x) * PER; }

  // Behind the last channel it is read again, so that a round is always whole.
  __device__ __forceinline__ void fetch(int channel) {
    const real* source = image + channel * voxels;
#pragma unroll
    for (int q = 0; q < ROUND; ++q) {
#pragma unroll
      for (int s = 0; s < STEPS; ++s)
        ahead[q * STEPS + s] = *reinterpret_cast<const uint4*>(source + voxel[s]);
      if (channel + q + 1 < end) source += voxels;
    }
  }
  __device__ __forceinline__ void store(int, uint4* staged) const {
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
#pragma unroll
      for (int v = 0; v < PER; ++v) {
        Pack pack;
#pragma unroll
        for (int q = 0; q < ROUND; ++q)
          pack.value[q] = reinterpret_cast<const real*>(&ahead[q * STEPS + s])[v];
        staged[mixed(place(s)) ^ v] = pack.raw;
      }
    }
  }
};

// The same one by one, where rows do not begin at multiples of 16 bytes.
struct PlainReader {
  const Tile& tile;
  const real* image;
  i64 voxels;
  int end;

  __device__ __forceinline__ PlainReader(const Tile& tile, const real* image, i64 voxels, int end)
      : tile(tile), image(image), voxels(voxels), end(end) {}
  __device__ __forceinline__ void fetch(int) {}
  __device__ __forceinline__ void store(int channel, uint4* staged) const {
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
      if (!tile.holds(i)) continue;
      const real* source = image + channel * voxels + tile.voxel(i);
      Pack pack;
      for (int q = 0; q < ROUND; ++q) {
        pack.value[q] = *source;
        if (channel + q + 1 < end) source += voxels;
      }
      staged[mixed(i)] = pack.raw;
    }
  }
};

// Reduce what a lane has of a row: the places from `begin` on, 32 apart. `order` holds where each
// lies in shared memory, in bytes, and 32 more that are looked up but not used.
// Gives whether the values are right.
template <class State, class Value>
__device__ __forceinline__ bool reduce_staged(const uint4* staged, const u16* order, int begin,
                                              int end, Value* value) {
  State state[WORDS];
  for (int w = 0; w < WORDS; ++w) state[w].start(begin);
  int at = order[begin];
#pragma unroll 1  // more would take registers from the loads that are on their way
  for (int j = begin; j < end; j += 32) {
    Pack pack;
    pack.raw = *reinterpret_cast<const uint4*>(reinterpret_cast<const unsigned char*>(staged) + at);
    at = order[j + 32];  // on its way while this one is reduced
#pragma unroll
    for (int w = 0; w < WORDS; ++w) state[w].add(pack.word[w], j);
  }
  bool is_lost = false;
  for (int w = 0; w < WORDS; ++w) {
    is_lost |= state[w].is_lost();
    for (int part = 0; part < WORD; ++part) value[w * WORD + part] = state[w].finish(part);
  }
  return !is_lost;
}

// Reduce ROUND values over the 32 lanes: lanes give away the channels that they do not keep, until
// each has one. Afterwards lane q * (32 / ROUND) holds the result of value q.
template <class Op>
__device__ __forceinline__ typename Op::Value join_lanes(typename Op::Value* value, int lane) {
  int step = 16;
#pragma unroll
  for (int half = ROUND / 2; half; half /= 2, step /= 2) {
    bool upper = lane & step;
    for (int q = 0; q < half; ++q) {
      typename Op::Value keep = upper ? value[q + half] : value[q];
      typename Op::Value give = upper ? value[q] : value[q + half];
      value[q] = Op::join(keep, __shfl_xor_sync(FULL, give, step));
    }
  }
  for (; step; step /= 2) value[0] = Op::join(value[0], __shfl_xor_sync(FULL, value[0], step));
  return value[0];
}

// The rows of a tile: where each begins and ends among its places, as end << 16 | begin.
struct Rows {
  const u16 *start, *stop;
  int number;
  __device__ __forceinline__ u32 find(int row) const {
    return row < number ? u32(stop[row]) << 16 | start[row] : 0;
  }
};

// Channels `begin` to `end` of a tile, ROUND at once; one warp takes a row. `partial` begins with
// the tile's first row.
template <class Op, class Reader>
__device__ __forceinline__ void reduce_rounds(Reader reader, const Tile& tile, const Rows& rows,
                                              uint4* staged, const u16* order,
                                              typename Op::Value* partial, int channels, int begin) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  // Each lane holds one of the warp's first rows: caches would lose them between two rounds.
  u32 held = rows.find(warp + lane * WARPS);
  reader.fetch(begin);
  for (int channel = begin; channel < reader.end; channel += ROUND) {
    __syncthreads();  // the last round has been read
    reader.store(channel, staged);
    __syncthreads();  // this one is there
    if (channel + ROUND < reader.end) reader.fetch(channel + ROUND);
    for (int row = warp; row < rows.number; row += WARPS) {
      u32 stretch = __shfl_sync(FULL, held, row / WARPS);
      if (__builtin_expect(row >= 32 * WARPS, 0)) stretch = rows.find(row);
      int row_begin = int(stretch & 0xffff) + lane, row_end = int(stretch >> 16);
      typename Op::Value value[ROUND];
      if (!reduce_staged<typename Op::Quick>(staged, order, row_begin, row_end, value))
        reduce_staged<Op>(staged, order, row_begin, row_end, value);
      typename Op::Value joined = join_lanes<Op>(value, lane);
      int mine = channel + lane / (32 / ROUND);
      if (lane % (32 / ROUND) == 0 && mine < reader.end) {
        int offset = mixed(order[Op::winner(joined)] / int(sizeof(uint4)));
        partial[i64(row) * channels + mine] = Op::number(joined, tile.voxel(offset));
      }
    }
  }
}

// Pass 1, channels first: one block a tile.
template <class Op>
__device__ __forceinline__ void reduce_tile(const real* features, const u16* offsets,
                                            const int* base, const u16* start, const u16* stop,
                                            typename Op::Value* partial, int channels,
                                            int block_channels, int tiles, int depth, int height,
                                            int width, int y_bits, int x_bits, int vectors) {
  SHARED(uint4, staged);
  u16* order = reinterpret_cast<u16*>(staged + TILE);
  Tile tile = make_tile(blockIdx.x % tiles, depth, height, width, y_bits, x_bits);
  for (int i = threadIdx.x; i < TILE; i += THREADS)
    order[i] = u16(mixed(offsets[i64(blockIdx.x) * TILE + i]) * int(sizeof(uint4)));
  if (threadIdx.x < 32) order[TILE + threadIdx.x] = 0;
  int first = base[blockIdx.x];
  Rows rows = {start + first, stop + first, base[blockIdx.x + 1] - first};
  i64 voxels = i64(depth) * height * width;
  const real* image = features + i64(blockIdx.x / tiles) * channels * voxels;
  partial += i64(first) * channels;
  int begin = blockIdx.y * block_channels;
  int end = begin + block_channels < channels ? begin + block_channels : channels;
  if (vectors)
    reduce_rounds<Op>(VectorReader(tile, image, voxels, end), tile, rows, staged, order, partial,
                      channels, begin);
  else
    reduce_rounds<Op>(PlainReader(tile, image, voxels, end), tile, rows, staged, order, partial,
                      channels, begin);
}

// The same for one channel of a volume whose channels lie last: places are `step` apart, and
// `voxels` holds the index of each.
template <class State, class Value>
__device__ __forceinline__ bool reduce_column(const real* column, const u32* voxels, int begin,
                                              int end, int step, int channels, Value* value) {
  State state;
  state.start(begin);
  for (int j = begin; j < end; j += AHEAD * step) {
    real ahead[AHEAD];
#pragma unroll
    for (int q = 0; q < AHEAD; ++q)
      if (j + q * step < end) ahead[q] = column[i64(voxels[j + q * step]) * channels];
#pragma unroll
    for (int q = 0; q < AHEAD; ++q)
      if (j + q * step < end) state.add(word_of(ahead[q]), j + q * step);
  }
  *value = state.finish(0);
  return !state.is_lost();
}

// Pass 1, channels last: one block a tile, one warp a row, lanes along the channels. With fewer
// than 32 channels, groups of `group` lanes (a power of two) share the voxels of a row.
template <class Op>
__device__ __forceinline__ void reduce_tile_last(const real* features, const u16* offsets,
                                                 const int* base, const u16* start, const u16* stop,
                                                 typename Op::Value* partial, int channels,
                                                 int group, int tiles, int depth, int height,
                                                 int width, int y_bits, int x_bits) {
  SHARED(u32, voxels);
  int image = blockIdx.x / tiles, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  Tile tile = make_tile(blockIdx.x % tiles, depth, height, width, y_bits, x_bits);
  for (int i = threadIdx.x; i < TILE; i += THREADS)
    voxels[i] = tile.voxel(offsets[i64(blockIdx.x) * TILE + i]);
  __syncthreads();  // the voxels of all places are there
  const real* own = features + i64(image) * depth * height * width * channels;
  int first = base[blockIdx.x];
  Rows rows = {start + first, stop + first, base[blockIdx.x + 1] - first};
  int step = 32 / group;
  for (int row = warp; row < rows.number; row += WARPS) {
    u32 stretch = rows.find(row);
    int row_begin = int(stretch & 0xffff) + lane / group, row_end = int(stretch >> 16);
    for (int from = 0; from < channels; from += group) {
      int channel = from + (lane & (group - 1));
      typename Op::Value value = 0;
      if (channel < channels) {
        const real* column = own + channel;
        if (!reduce_column<typename Op::Quick>(column, voxels, row_begin, row_end, step, channels,
                                               &value))
          reduce_column<Op>(column, voxels, row_begin, row_end, step, channels, &value);
      }
      for (int apart = 16; apart >= group; apart >>= 1)
        value = Op::join(value, __shfl_xor_sync(FULL, value, apart));
      if (lane < group && channel < channels)
        partial[i64(first + row) * channels + channel] =
            Op::number(value, voxels[Op::winner(value)]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
sum_tiles(const real* features, const u16* offsets, const int* base, const u16* start,
          const u16* stop, float* partial, int channels, int block_channels, int tiles, int depth,
          int height, int width, int y_bits, int x_bits, int vectors) {
  reduce_tile<Sum>(features, offsets, base, start, stop, partial, channels, block_channels, tiles,
                   depth, height, width, y_bits, x_bits, vectors);
}
extern "C" __global__ void __launch_bounds__(THREADS, 6 - WORD)
sum_tiles_last(const real* features, const u16* offsets, const int* base, const u16* start,
               const u16* stop, float* partial, int channels, int group, int tiles, int depth,
               int height, int width, int y_bits, int x_bits) {
  reduce_tile_last<Sum>(features, offsets, base, start, stop, partial, channels, group, tiles,
                        depth, height, width, y_bits, x_bits);
}
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
max_tiles(const real* features, const u16* offsets, const int* base, const u16* start,
          const u16* stop, u64* partial, int channels, int block_channels, int tiles, int depth,
          int height, int width, int y_bits, int x_bits, int vectors) {
  reduce_tile<Max>(features, offsets, base, start, stop, partial, channels, block_channels, tiles,
                   depth, height, width, y_bits, x_bits, vectors);
}
extern "C" __global__ void __launch_bounds__(THREADS, 6 - WORD)
max_tiles_last(const real* features, const u16* offsets, const int* base, const u16* start,
               const u16* stop, u64* partial, int channels, int group, int tiles, int depth,
               int height, int width, int y_bits, int x_bits) {
  reduce_tile_last<Max>(features, offsets, base, start, stop, partial, channels, group, tiles,
                        depth, height, width, y_bits, x_bits);
}
