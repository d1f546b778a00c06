// SLIC's rounds: every voxel chooses a centre, every centre moves.
//
// Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, TPAMI 34(11), 2012; see voxseg/ops/slic.py.
// Launched by voxseg/ops/cuda/slic.py. Floating-point operations come in the order of the CPU twin,
// and all sums are of integers, so the order of threads cannot change a bit of the labels.
// A volume (Z, Y, X) has less than 2^31 voxels.

#define MOST_DEPTH 8
#define MOST_PLANE 256
#define NEIGHBOURS 27
#define SETS 8

static const int CODE_BITS = 31;          // of a distance: the candidate's number, 31 means none
static const int NOTHING = 0x7f7fffff;    // the largest finite float: no candidate yet
static const float TOP_LEVEL = 4194304;   // VALUE_LEVELS

// An axis of the grid, cut into cells and these into blocks.
struct Axis {
  int length, cells, blocks;
  const int* edges;   // (blocks + 1,) first voxel of every block, and the end
  const int* owners;  // (blocks,) the cell that a block belongs to
  const int* first;   // (cells + 1,) the first block of a cell, and their number
};

struct Grid {
  Axis axis[3];
};

// Read the table that the launcher makes: for each axis the three counts, then all the lists.
__device__ __forceinline__ Grid read_grid(const int* table) {
  Grid grid;
  const int* list = table + 9;
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    Axis& axis = grid.axis[a];
    axis.length = table[3 * a];
    axis.cells = table[3 * a + 1];
    axis.blocks = table[3 * a + 2];
    axis.edges = list;
    axis.owners = axis.edges + axis.blocks + 1;
    axis.first = axis.owners + axis.blocks;
    list = axis.first + axis.cells + 1;
  }
  return grid;
}

// What the threads of a block share. Neighbouring threads, which mostly have the same winner, add to
// different sets of sums. A set serves at most 32 columns of 8 voxels, so that values add up to
// 2^30 at most; the offsets of a block's voxels from its corner take 16 bits.
struct Work {
  float z_part[NEIGHBOURS * MOST_DEPTH];  // of the distance of each candidate to each plane
  float y[NEIGHBOURS], x[NEIGHBOURS];
  float value[NEIGHBOURS];                // of the first channel
  int cells[CODE_BITS + 1];               // of each candidate; -1 in the last place
  int slots[NEIGHBOURS];                  // of each candidate among its 27 neighbours
  u32 tops[SETS * NEIGHBOURS];            // sums: voxels << 16 | z
  u32 planes[SETS * NEIGHBOURS];          // sums: y << 16 | x
  u32 values[SETS * NEIGHBOURS];          // sums of one channel
  int count;
};
static_assert(sizeof(Work) == 4020, "the launcher gives a block this much shared memory");

// Where a block lies and how large it is: z, y, x.
struct Place {
  int cell[3], corner[3], shape[3];
};

__device__ __forceinline__ Place find_block(const Grid& grid) {
  int at[3], rest = blockIdx.x;
  at[2] = rest % grid.axis[2].blocks;
  rest /= grid.axis[2].blocks;
  at[1] = rest % grid.axis[1].blocks;
  at[0] = rest / grid.axis[1].blocks;
  Place place;
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    place.cell[a] = grid.axis[a].owners[at[a]];
    place.corner[a] = grid.axis[a].edges[at[a]];
    place.shape[a] = grid.axis[a].edges[at[a] + 1] - place.corner[a];
  }
  return place;
}

// The first warp lists the living neighbour cells, at most `reach` away, in the order of index.
__device__ __forceinline__ void list_candidates(
    Work* work, const Grid& grid, const Place& place, const float* centres, int fields, int reach
) {
  int slot = threadIdx.x, cell = -1;
  int dz = slot / 9 - 1, dy = slot / 3 % 3 - 1, dx = slot % 3 - 1;
  int z = place.cell[0] + dz, y = place.cell[1] + dy, x = place.cell[2] + dx;
  bool is_near = slot < NEIGHBOURS && max(abs(dz), max(abs(dy), abs(dx))) <= reach;
  if (is_near && z >= 0 && z < grid.axis[0].cells && y >= 0 && y < grid.axis[1].cells && x >= 0 &&
      x < grid.axis[2].cells) {
    cell = (z * grid.axis[1].cells + y) * grid.axis[2].cells + x;
    // A cell without a voxel has no centre.
    float centre = centres[i64(cell) * fields];
    if (centre != centre) cell = -1;
  }
  u32 alive = __ballot_sync(0xffffffffu, cell >= 0);
  if (cell >= 0) {
    int q = __popc(alive & ((1u << slot) - 1));
    const float* centre = centres + i64(cell) * fields;
    work->cells[q] = cell;
    work->slots[q] = slot;
    work->z_part[q * MOST_DEPTH] = centre[0];
    work->y[q] = centre[1];
    work->x[q] = centre[2];
    work->value[q] = centre[3];
  }
  if (slot == 0) {
    work->count = __popc(alive);
    work->cells[CODE_BITS] = -1;
  }
}

// Turn the z of every candidate into its part of the distance to every plane of the block.
__device__ __forceinline__ void set_z_parts(Work* work, const Place& place, float weight) {
  for (int q = threadIdx.x; q < work->count; q += blockDim.x) {
    float* part = work->z_part + q * MOST_DEPTH;
    float z = part[0];
#pragma unroll
    for (int v = 0; v < MOST_DEPTH; ++v) {
      float dz = float(place.corner[0] + v) - z;
      part[v] = dz * dz * weight;
    }
  }
}

// Leave distance and candidate of the nearest centre of each voxel of a column in `best`. `column`
// is the first voxel's index; planes lie `plane` apart, channels `voxels`.
template <int DEPTH, bool ONE>
__device__ __forceinline__ void find_nearest(
    const Work* work, const float* image, const float* centres, int channels, int column, int plane,
    i64 voxels, int depth, float y, float x, float y_weight, float x_weight, int* best
) {
  float value[DEPTH];
#pragma unroll
  for (int v = 0; v < DEPTH; ++v) {
    value[v] = v < depth ? image[column + v * plane] : INFINITE;
    best[v] = NOTHING;
  }
  for (int q = 0; q < work->count; ++q) {
    float dy = y - work->y[q], dx = x - work->x[q], centre = work->value[q];
    float in_plane = dy * dy * y_weight + dx * dx * x_weight;
    float distance[DEPTH];
#pragma unroll
    for (int v = 0; v < DEPTH; ++v) {
      float e = value[v] - centre;
      distance[v] = in_plane + work->z_part[q * MOST_DEPTH + v] + e * e;
    }
    if (!ONE) {
      const float* other = centres + i64(work->cells[q]) * (3 + channels) + 3;
      for (int c = 1; c < channels; ++c) {
#pragma unroll
        for (int v = 0; v < DEPTH; ++v) {
          float e = (v < depth ? image[c * voxels + column + v * plane] : INFINITE) - other[c];
          distance[v] += e * e;
        }
      }
    }
#pragma unroll
    for (int v = 0; v < DEPTH; ++v) {
      best[v] = min(best[v], (__float_as_int(distance[v]) & ~CODE_BITS) | q);
    }
  }
}

// Add the positions of a column to its winners' sums, one run of equal winners at a time.
template <int DEPTH>
__device__ __forceinline__ void add_positions(
    u32* tops, u32* planes, const int* best, u32 y, u32 x
) {
  int winner = CODE_BITS;
  u32 count = 0, z_sum = 0;
#pragma unroll
  for (int v = 0; v <= DEPTH; ++v) {
    int q = v < DEPTH ? best[v] & CODE_BITS : CODE_BITS;
    if (q != winner) {
      if (winner != CODE_BITS) {
        atomicAdd(&tops[winner], count << 16 | z_sum);
        atomicAdd(&planes[winner], count * y << 16 | count * x);
      }
      winner = q;
      count = z_sum = 0;
    }
    count += 1;
    z_sum += v;
  }
}

// Add a channel's values, as whole numbers, in the same way.
template <int DEPTH>
__device__ __forceinline__ void add_values(
    u32* sums, const float* image, int column, int plane, float levels, const int* best
) {
  int winner = CODE_BITS;
  u32 sum = 0;
#pragma unroll
  for (int v = 0; v <= DEPTH; ++v) {
    int q = v < DEPTH ? best[v] & CODE_BITS : CODE_BITS;
    if (q != winner) {
      if (winner != CODE_BITS) atomicAdd(&sums[winner], sum);
      winner = q;
      sum = 0;
    }
    if (q != CODE_BITS) sum += u32(min(image[column + v * plane] * levels, TOP_LEVEL) + 0.5f);
  }
}

// The work of one block once its candidates are known; every thread comes here.
template <int DEPTH, bool ONE>
__device__ __forceinline__ void assign_block(
    Work* work, const Grid& grid, const Place& place, const float* image, const float* centres,
    i64* partials, int* labels, int channels, float y_weight, float x_weight, float levels
) {
  int width = grid.axis[2].length, plane = grid.axis[1].length * width;
  i64 voxels = i64(grid.axis[0].length) * plane;
  int y = threadIdx.x / place.shape[2], x = threadIdx.x % place.shape[2];
  // A thread without a column has one of no voxels.
  int depth = y < place.shape[1] ? place.shape[0] : 0;
  int column = place.corner[0] * plane + (place.corner[1] + y) * width + place.corner[2] + x;
  int best[DEPTH];
  find_nearest<DEPTH, ONE>(
      work, image, centres, channels, column, plane, voxels, depth, float(place.corner[1] + y),
      float(place.corner[2] + x), y_weight, x_weight, best
  );
  if (labels != nullptr) {
#pragma unroll
    for (int v = 0; v < DEPTH; ++v) {
      if (v < depth) labels[column + v * plane] = work->cells[best[v] & CODE_BITS];
    }
  }
  if (partials == nullptr) return;
  int set = threadIdx.x % SETS * NEIGHBOURS, q = threadIdx.x;
  add_positions<DEPTH>(work->tops + set, work->planes + set, best, y, x);
  for (int c = 0; c < channels; ++c) {
    add_values<DEPTH>(work->values + set, image + c * voxels, column, plane, levels, best);
    __syncthreads();
    if (q < work->count) {
      i64* row = partials + (i64(blockIdx.x) * NEIGHBOURS + work->slots[q]) * (4 + channels);
      i64 sum = 0;
#pragma unroll
      for (int at = q; at < SETS * NEIGHBOURS; at += NEIGHBOURS) {
        sum += work->values[at];
        work->values[at] = 0;
      }
      row[4 + c] = sum;
      if (c == 0) {
        u32 top = 0, rest = 0;
#pragma unroll
        for (int at = q; at < SETS * NEIGHBOURS; at += NEIGHBOURS) {
          top += work->tops[at];
          rest += work->planes[at];
        }
        i64 count = top >> 16;
        row[0] = count;
        row[1] = (top & 0xffff) + count * place.corner[0];
        row[2] = (rest >> 16) + count * place.corner[1];
        row[3] = (rest & 0xffff) + count * place.corner[2];
      }
    }
    __syncthreads();
  }
}

template <bool ONE>
__device__ __forceinline__ void assign(
    const float* image, const float* centres, const int* table, i64* partials, int* labels,
    int channels, float z_weight, float y_weight, float x_weight, float levels, int reach
) {
  SHARED(Work, work);
  Grid grid = read_grid(table);
  Place place = find_block(grid);
  for (int i = threadIdx.x; i < SETS * NEIGHBOURS; i += blockDim.x) {
    work->tops[i] = work->planes[i] = work->values[i] = 0;
  }
  if (threadIdx.x < 32) list_candidates(work, grid, place, centres, 3 + channels, reach);
  __syncthreads();
  set_z_parts(work, place, z_weight);
  __syncthreads();
  if (place.shape[0] > 4) {
    assign_block<8, ONE>(
        work, grid, place, image, centres, partials, labels, channels, y_weight, x_weight, levels
    );
  } else if (place.shape[0] > 1) {
    assign_block<4, ONE>(
        work, grid, place, image, centres, partials, labels, channels, y_weight, x_weight, levels
    );
  } else {
    assign_block<1, ONE>(
        work, grid, place, image, centres, partials, labels, channels, y_weight, x_weight, levels
    );
  }
}

// One block = one block of a grid cell, at most 8 x 16 x 16 voxels; one thread = one column along
// z. Every voxel goes to the nearest centre of the cells at most `reach` away (0 or 1). Without
// `partials` no sums are made, without `labels` none is written.
//   image (C, Z, Y, X), infinity off the mask; centres (K, 3 + C), the first NaN without a voxel;
//   partials (blocks, 27, 4 + C): voxels, then sums of z, y, x and of every channel's levels.
extern "C" __global__ void __launch_bounds__(256, 4) slic_assign_one(
    const float* image, const float* centres, const int* table, i64* partials, int* labels,
    int channels, float z_weight, float y_weight, float x_weight, float levels, int reach
) {
  assign<true>(
      image, centres, table, partials, labels, 1, z_weight, y_weight, x_weight, levels, reach
  );
}

// The same for any number of channels.
extern "C" __global__ void __launch_bounds__(256, 2) slic_assign_any(
    const float* image, const float* centres, const int* table, i64* partials, int* labels,
    int channels, float z_weight, float y_weight, float x_weight, float levels, int reach
) {
  assign<false>(
      image, centres, table, partials, labels, channels, z_weight, y_weight, x_weight, levels, reach
  );
}

// One block = one cell: add up what the blocks of the cells at most `reach` away have for its
// centre, and move it to their mean. With a reach of 0, one without a voxel becomes NaN; else it
// stays. Threads share the rows of `partials` out by field; shared: blockDim.x + 1 sums.
extern "C" __global__ void __launch_bounds__(256) slic_move(
    const i64* partials, float* centres, const int* table, int channels, float levels, int reach
) {
  SHARED(i64, sums);
  Grid grid = read_grid(table);
  int cell[3], low[3], number[3], fields = 4 + channels;
  cell[2] = blockIdx.x % grid.axis[2].cells;
  cell[1] = blockIdx.x / grid.axis[2].cells % grid.axis[1].cells;
  cell[0] = blockIdx.x / grid.axis[2].cells / grid.axis[1].cells;
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const Axis& axis = grid.axis[a];
    low[a] = axis.first[max(cell[a] - reach, 0)];
    number[a] = axis.first[min(cell[a] + reach + 1, axis.cells)] - low[a];
  }
  float* centre = centres + i64(blockIdx.x) * (3 + channels);
  if (centre[0] != centre[0]) return;
  int rows = number[0] * number[1] * number[2];
  for (int base = 0; base < fields; base += 32) {
    int chunk = min(fields - base, 32), lanes = blockDim.x / chunk;
    int lane = threadIdx.x / chunk, field = base + threadIdx.x % chunk;
    i64 sum = 0;
    for (int row = lane < lanes ? lane : rows; row < rows; row += lanes) {
      int x = low[2] + row % number[2], y = low[1] + row / number[2] % number[1];
      int z = low[0] + row / number[2] / number[1];
      int block = (z * grid.axis[1].blocks + y) * grid.axis[2].blocks + x;
      int slot = cell[0] - grid.axis[0].owners[z] + 1;
      slot = slot * 3 + cell[1] - grid.axis[1].owners[y] + 1;
      slot = slot * 3 + cell[2] - grid.axis[2].owners[x] + 1;
      sum += partials[(i64(block) * NEIGHBOURS + slot) * fields + field];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0) {
      for (int other = 1; other < lanes; ++other) sum += sums[other * chunk + threadIdx.x];
      if (field == 0) sums[blockDim.x] = sum;
    }
    __syncthreads();
    i64 count = sums[blockDim.x];
    if (lane == 0 && field > 0 && count > 0) {
      double scale = field < 4 ? 1.0 : double(levels);
      centre[field - 1] = float(double(sum) / (double(count) * scale));
    }
    if (lane == 0 && field == 0 && count == 0 && reach == 0) centre[0] = INFINITE - INFINITE;
  }
}
