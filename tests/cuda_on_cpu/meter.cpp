// Counts what a kernel asks of a GPU's memory: its accesses, put together as a warp makes them.
//
// Instrumented as for racecheck.cpp. The accesses of a warp between two points at which it waits
// (barriers, collectives) are collected; the nth access of each lane by one instruction is one
// request, and lanes that do not take part are off. Of a request to global memory the 32-byte
// sectors and 128-byte lines are counted, of one to shared memory the wavefronts: 32 banks of 4
// bytes, the same word is had for all lanes at once, and accesses of 8 and 16 bytes go by half and
// quarter warps.
// Limits: there are no caches, so a sector counts each time that a request touches it; a compiler
// for GPUs may load more rarely, widen loads or spill registers; lanes that go different ways in
// one loop without waiting are put together more tightly than a GPU can; volatile accesses count as
// plain ones. Nothing is checked here.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

extern "C" char __ehdr_start __attribute__((visibility("hidden")));

enum Kind { READ, WRITE, ATOMIC, VOLATILE_READ, VOLATILE_WRITE };

namespace {

constexpr unsigned WARP = 32;
constexpr int SHARED_MEMORY = -1;
constexpr uintptr_t SECTOR = 32, LINE = 128, BANKS = 32, WORD = 4;

struct Range {
  uintptr_t begin, end;
  int tensor;
};
// An instruction: its address, what it does, to which argument, how many bytes a lane.
typedef std::tuple<const void*, Kind, int, size_t> Instruction;
struct Hash {
  size_t operator()(const Instruction& i) const {
    return size_t(std::get<0>(i)) * 31 + std::get<1>(i) * 7 + std::get<2>(i);
  }
};
struct Request {
  unsigned lanes;  // those that take part
  uintptr_t address[WARP];
};
struct Pending {
  unsigned made[WARP];  // by each lane
  std::vector<Request> requests;
};
// As meter.py reads it.
struct Row {
  int64_t code, kind, tensor, width;
  int64_t requests, lanes, bytes, least, sectors, lines, fresh, wavefronts, serial, deepest;
};

std::vector<Range> ranges;
uintptr_t arena, shared, shared_bytes;
std::vector<bool> loaded, stored;  // sectors of the arena
std::unordered_map<Instruction, Pending, Hash> pending;
std::map<Instruction, Row> rows;
unsigned thread;
bool watching;

// A few numbers, each kept once.
struct Set {
  std::array<uintptr_t, 4 * WARP> values;
  size_t size = 0;
  void add(uintptr_t value) { values[size++] = value; }
  void reduce() {
    std::sort(values.begin(), values.begin() + size);
    size = std::unique(values.begin(), values.begin() + size) - values.begin();
  }
};

// Turns of one access of shared memory: the most words that one bank has to give.
int64_t wavefronts(const Set& addresses, size_t width) {
  Set words;
  for (size_t i = 0; i < addresses.size; ++i)
    for (size_t byte = 0; byte < width; byte += WORD) words.add((addresses.values[i] + byte) / WORD);
  words.reduce();
  std::array<int64_t, BANKS> load = {};
  for (size_t i = 0; i < words.size; ++i) ++load[words.values[i] % BANKS];
  return *std::max_element(load.begin(), load.end());
}

void count_shared(Row& row, const Request& request) {
  const unsigned lanes = std::min<size_t>(WARP, BANKS * WORD / row.width);
  for (unsigned first = 0; first < WARP; first += lanes) {
    Set addresses;
    for (unsigned lane = first; lane < first + lanes; ++lane)
      if (request.lanes >> lane & 1) addresses.add(request.address[lane] - shared);
    row.wavefronts += wavefronts(addresses, row.width);
  }
}

void count_global(Row& row, const Set& addresses) {
  Set sectors, lines;
  for (size_t i = 0; i < addresses.size; ++i)
    sectors.add(addresses.values[i] / SECTOR), lines.add(addresses.values[i] / LINE);
  sectors.reduce(), lines.reduce();
  row.sectors += sectors.size, row.lines += lines.size;
  std::vector<bool>& seen = row.kind == READ ? loaded : stored;
  for (size_t i = 0; i < sectors.size; ++i) {
    const uintptr_t sector = sectors.values[i] - arena / SECTOR;
    row.fresh += !seen[sector];
    seen[sector] = true;
  }
}

void count(Row& row, const Request& request) {
  Set addresses;
  for (unsigned lane = 0; lane < WARP; ++lane)
    if (request.lanes >> lane & 1) addresses.add(request.address[lane]);
  row.requests += 1, row.lanes += addresses.size;
  std::sort(addresses.values.begin(), addresses.values.begin() + addresses.size);
  int64_t most = 1;
  for (size_t i = 1, equal = 1; i < addresses.size; ++i) {
    equal = addresses.values[i] == addresses.values[i - 1] ? equal + 1 : 1;
    most = std::max(most, int64_t(equal));
  }
  addresses.reduce();
  const int64_t bytes = addresses.size * row.width;
  const int64_t unit = row.tensor == SHARED_MEMORY ? BANKS * WORD : SECTOR;
  row.bytes += bytes, row.least += (bytes + unit - 1) / unit;
  if (row.kind == ATOMIC) row.serial += most, row.deepest = std::max(row.deepest, most);
  if (row.tensor == SHARED_MEMORY)
    count_shared(row, request);
  else
    count_global(row, addresses);
}

void flush() {
  for (auto& [instruction, of] : pending) {
    const auto& [code, kind, tensor, width] = instruction;
    Row& row = rows[instruction];
    row.code = uintptr_t(code) - uintptr_t(&__ehdr_start);
    row.kind = kind, row.tensor = tensor, row.width = int64_t(width);
    for (const Request& request : of.requests) count(row, request);
  }
  pending.clear();
}

void touch(const volatile void* pointer, size_t bytes, Kind kind, size_t, const void* code) {
  if (!watching) return;
  const uintptr_t address = uintptr_t(pointer);
  int tensor = SHARED_MEMORY;
  if (address < shared || address >= shared + shared_bytes) {
    auto range = std::find_if(ranges.begin(), ranges.end(), [=](const Range& r) {
      return address >= r.begin && address < r.end;
    });
    if (range == ranges.end()) return;  // a thread's own memory
    tensor = range->tensor;
  }
  if (kind == VOLATILE_READ) kind = READ;
  if (kind == VOLATILE_WRITE) kind = WRITE;
  Pending& of = pending[{code, kind, tensor, bytes}];
  const unsigned lane = thread % WARP, nth = of.made[lane]++;
  if (nth == of.requests.size()) of.requests.emplace_back();
  of.requests[nth].lanes |= 1u << lane;
  of.requests[nth].address[lane] = address;
}

}  // namespace

// ---- called by the host ----
#define VISIBLE extern "C" __attribute__((visibility("default")))
VISIBLE void voxseg_watch_arguments(void* begin, uint64_t bytes, int count, const uint64_t* places,
                                    const uint64_t* sizes, const int* tensors) {
  arena = uintptr_t(begin);
  ranges.clear(), pending.clear(), rows.clear();
  loaded.assign(bytes / SECTOR + 1, false), stored = loaded;
  for (int i = 0; i < count; ++i)
    ranges.push_back({arena + places[i], arena + places[i] + sizes[i], tensors[i]});
}
// Gives the number of rows of the last launch, and as many of them as there is room for.
VISIBLE size_t voxseg_meter_rows(Row* out, size_t room) {
  flush();
  for (const auto& [instruction, row] : rows)
    if (room) *out++ = row, --room;
  return rows.size();
}

// ---- called by shim.h ----
extern "C" {
void voxseg_watch_stacks(void*, size_t) {}
void voxseg_watch_block(unsigned, void* begin, size_t bytes) {
  flush();
  shared = uintptr_t(begin), shared_bytes = bytes;
}
// Threads come in their natural order: what is not behind the last has waited since.
void voxseg_watch_resume(unsigned next, unsigned, unsigned) {
  if (next / WARP != thread / WARP || next <= thread) flush();
  thread = next;
  watching = true;
}
void voxseg_watch_pause() { watching = false; }
}

#include "accesses.h"
