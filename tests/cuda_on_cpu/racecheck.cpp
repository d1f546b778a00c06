// Watches every load and store of a kernel: races, and memory that is none of its own.
//
// A compiler with -fsanitize=thread calls __tsan_read4 and the like before each access. They land
// here and not in the sanitizer's library. For each byte of the arguments and of shared memory the
// last write and the last read are kept; two accesses race if one is a plain write, or a plain
// read beside an atomic, and nothing orders them: no __syncthreads, within a warp no __syncwarp,
// between blocks nothing. Volatile accesses count as relaxed atomics.
// Limits: orders that are made by atomics and fences (the last block finishes) are taken for races.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

enum Kind { READ, WRITE, ATOMIC, VOLATILE_READ, VOLATILE_WRITE };

extern "C" void voxseg_stop(const char* message);  // does not return

// The library that this file becomes a part of; the linker knows both ends.
extern "C" char __ehdr_start __attribute__((visibility("hidden")));
extern "C" char _end __attribute__((visibility("hidden")));

namespace {

struct Access {
  uint32_t block, epoch, step;
  uint16_t thread;
  bool set : 1, atomic : 1;
  bool lanes : 1, warps : 1, blocks : 1;  // several of them, since the last that ordered them
};
struct Byte {
  Access write, read;
};
struct Range {
  uintptr_t begin, bytes;
  int tensor;
};

std::vector<Range> ranges;
uintptr_t arena, arena_bytes, shared, shared_bytes, stacks, stacks_bytes;
constexpr uintptr_t SHARED_MARGIN = 1024;
Byte* of_arena;
size_t of_arena_bytes;
std::vector<Byte> of_shared;
Access now;
bool watching;

[[noreturn]] void stop(const char* what, Kind kind, uintptr_t address, const void* code,
                       const Access* other) {
  static const char* const KINDS[] = {"read", "write", "atomic", "volatile read",
                                      "volatile write"};
  static char place[96], message[512], whom[64];
  watching = false;
  snprintf(place, sizeof place, "address %#zx", size_t(address));
  if (address + SHARED_MARGIN >= shared && address < shared + shared_bytes + SHARED_MARGIN)
    snprintf(place, sizeof place, "shared memory at byte %td", ptrdiff_t(address - shared));
  uintptr_t nearest = UINTPTR_MAX;
  for (const Range& range : ranges) {
    if (address < arena || address >= arena + arena_bytes) break;
    const uintptr_t end = range.begin + range.bytes;
    const uintptr_t away =
        address < range.begin ? range.begin - address : address < end ? 0 : address - end + 1;
    if (away >= nearest) continue;
    nearest = away;
    snprintf(place, sizeof place, "argument #%d at byte %td of %zu", range.tensor,
             ptrdiff_t(address - range.begin), size_t(range.bytes));
  }
  whom[0] = 0;
  if (other && other->block != now.block)
    snprintf(whom, sizeof whom, ", unordered with one in block %u", other->block);
  else if (other)
    snprintf(whom, sizeof whom, ", unordered with one of thread %u", other->thread);
  snprintf(message, sizeof message, "%s: %s of %s%s, code %#zx, thread %u", what, KINDS[kind],
           place, whom, size_t(uintptr_t(code) - uintptr_t(&__ehdr_start)), now.thread);
  voxseg_stop(message);
  abort();
}

bool conflict(const Access& before) {
  if (!before.set) return false;
  if (before.blocks || before.block != now.block) return true;
  if (before.epoch != now.epoch) return false;
  if (before.warps || before.thread / 32 != now.thread / 32) return true;
  return before.step == now.step && (before.lanes || before.thread != now.thread);
}

void note(Access& last, bool atomic) {
  Access next = now;
  next.set = true, next.atomic = atomic;
  if (last.set) {
    const bool block = last.block == now.block, epoch = block && last.epoch == now.epoch;
    const bool warp = epoch && last.thread / 32 == now.thread / 32;
    next.blocks = last.blocks || !block;
    next.warps = epoch && (last.warps || !warp);
    next.lanes = warp && last.step == now.step && (last.lanes || last.thread != now.thread);
  }
  last = next;
}

void visit(Byte& byte, uintptr_t address, Kind kind, bool in_shared, const void* code) {
  if (in_shared && kind != WRITE && !byte.write.set)
    stop("uninitialised shared memory", kind, address, code, nullptr);
  const bool relaxed = kind >= ATOMIC, writes = kind != READ && kind != VOLATILE_READ;
  if (conflict(byte.write) && !(relaxed && byte.write.atomic))
    stop("race", kind, address, code, &byte.write);
  if (writes && conflict(byte.read))
    stop("race", kind, address, code, &byte.read);
  if (kind == READ) note(byte.read, false);
  if (writes) note(byte.write, relaxed);
}

bool inside(uintptr_t address, size_t bytes, uintptr_t begin, uintptr_t size) {
  return address >= begin && address + bytes <= begin + size;
}

void touch(const volatile void* pointer, size_t bytes, Kind kind, size_t alignment,
           const void* code) {
  if (!watching) return;
  const uintptr_t address = uintptr_t(pointer);
  if (inside(address, bytes, shared, shared_bytes)) {
    for (size_t i = 0; i < bytes; ++i)
      visit(of_shared[address - shared + i], address + i, kind, true, code);
  } else if (inside(address, bytes, arena, arena_bytes)) {
    static size_t last;
    if (last >= ranges.size()) last = 0;
    for (size_t i = 0; i <= ranges.size(); ++i) {
      if (i == ranges.size()) stop("out of bounds", kind, address, code, nullptr);
      if (inside(address, bytes, ranges[last].begin, ranges[last].bytes)) break;
      last = (last + 1) % ranges.size();
    }
    for (size_t i = 0; i < bytes; ++i)
      visit(of_arena[address - arena + i], address + i, kind, false, code);
  } else if (address + SHARED_MARGIN >= shared && address < shared + shared_bytes + SHARED_MARGIN) {
    stop("out of bounds", kind, address, code, nullptr);
  } else {
    const uintptr_t image = uintptr_t(&__ehdr_start);
    if (!inside(address, bytes, stacks, stacks_bytes) &&
        !inside(address, bytes, image, uintptr_t(&_end) - image))
      stop("wild access", kind, address, code, nullptr);
    return;
  }
  if (address % alignment) stop("misaligned", kind, address, code, nullptr);
}

}  // namespace

// ---- called by the host ----
extern "C" __attribute__((visibility("default"))) void voxseg_watch_arguments(
    void* begin, uint64_t bytes, int count, const uint64_t* places, const uint64_t* sizes,
    const int* tensors) {
  arena = uintptr_t(begin), arena_bytes = bytes;
  ranges.clear();
  for (int i = 0; i < count; ++i) ranges.push_back({arena + places[i], sizes[i], tensors[i]});
  free(of_arena);
  of_arena = static_cast<Byte*>(calloc(bytes + 1, sizeof(Byte)));
  if (!of_arena) abort();
}

// ---- called by shim.h ----
extern "C" {
void voxseg_watch_stacks(void* begin, size_t bytes) {
  stacks = uintptr_t(begin), stacks_bytes = bytes;
}
void voxseg_watch_block(unsigned block, void* begin, size_t bytes) {
  now.block = block, shared = uintptr_t(begin), shared_bytes = bytes;
  of_shared.assign(bytes, Byte());
}
void voxseg_watch_resume(unsigned thread, unsigned epoch, unsigned step) {
  now.thread = uint16_t(thread), now.epoch = epoch, now.step = step;
  watching = true;
}
void voxseg_watch_pause() { watching = false; }
}

#include "accesses.h"
