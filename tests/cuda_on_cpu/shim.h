// Lets a C++ compiler build a CUDA kernel file and run it on the CPU, for tests without a GPU.
//
// One OS thread runs one block at a time. A CUDA thread is a fiber that gives way only at
// barriers, warp collectives and (at random) atomics. The order of fibers and blocks is a seeded
// shuffle, so a missing barrier or a sum that depends on the order shows between seeds; seed 0 is
// the natural order. A kernel without barriers runs as plain loops.
// Limits: memory is sequentially consistent, so a missing __threadfence is not seen; blocks never
// overlap; a loop that waits for another thread may hang; a thread's own arrays must fit in 64 KiB;
// no inline PTX, no cooperative groups.
// `intrinsics.h` builds CUDA's own names on it; both stand in front of a kernel file.
#pragma once
#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__x86_64__) && !defined(VOXSEG_UCONTEXT)
#define VOXSEG_SWITCH
#else
#include <ucontext.h>
#endif

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

#ifdef VOXSEG_WATCH
// The other side is racecheck.cpp or meter.cpp.
extern "C" {
void voxseg_watch_stacks(void* begin, size_t bytes);
void voxseg_watch_block(unsigned block, void* shared, size_t bytes);
void voxseg_watch_resume(unsigned thread, unsigned epoch, unsigned step);
void voxseg_watch_pause();
}
#endif

namespace voxseg {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 64 * 1024, MOST_SHARED = 48 * 1024, MARGIN = 1024;
constexpr unsigned char POISON = 0x7f;  // floats of 3.4e38, integers near their end

// ---- switching between fibers ----
#ifdef VOXSEG_SWITCH
extern "C" void voxseg_switch(void** from, void* to);
asm(".text\n.type voxseg_switch,@function\nvoxseg_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
typedef void* Context;
inline void change(Context& from, Context& to) { voxseg_switch(&from, to); }
inline void begin(Context& context, char* stack, void (*entry)()) {
  // As after a call: 8 bytes below a multiple of 16; below that, the registers to pop.
  void** top = reinterpret_cast<void**>((uintptr_t(stack + STACK_BYTES) & ~uintptr_t(15)) - 8);
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context = top;
}
#else
typedef ucontext_t Context;
inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
inline void begin(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK_BYTES;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

// ---- one launch at a time; state is static, so that the race checker knows where it lies ----
enum State { READY, AT_BARRIER, IN_WARP, DONE };
enum Collective { SYNC, SHUFFLE, VOTE };

struct Fiber {
  Context context;
  State state;
  int line;             // of the barrier or collective that it waits at
  Collective collective;
  unsigned mask, source, ballot, step;
  uint64_t value;
};

static Fiber fibers[MOST_THREADS];
static Context scheduler;
static unsigned current, num_threads, epoch;
static bool in_fiber;
static uint64_t random_state;
static dim3 thread_index, block_index, block_size, grid_size;
static void (*thread_body)();
static std::string failure;
alignas(64) static unsigned char shared_memory[MARGIN + MOST_SHARED + MARGIN];
static char* const stacks = static_cast<char*>(malloc(MOST_THREADS * STACK_BYTES));

inline uint64_t draw() {  // splitmix64
  uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
inline void shuffle(std::vector<unsigned>& order) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draw() % i]);
}

inline void give_way(State state) {
  fibers[current].state = state;
  change(fibers[current].context, scheduler);
}
inline std::string at(int line) { return " (line " + std::to_string(line) + ")"; }
// Ends the launch: what a fiber leaves on its stack is never unwound, kernels own nothing.
[[noreturn]] inline void fail(const char* what, int line = 0) {
#ifdef VOXSEG_WATCH
  voxseg_watch_pause();
#endif
  const std::string message = line ? what + at(line) : what;
  if (!in_fiber) throw std::runtime_error(message);
  if (failure.empty()) failure = message;
  for (;;) give_way(DONE);
}

inline void barrier(int line) {
  if (!in_fiber) fail("__syncthreads in a kernel that was taken for one without barriers");
  fibers[current].line = line;
  give_way(AT_BARRIER);
}
// What a lane brings to a collective; the scheduler answers when all named lanes have come.
inline Fiber& meet(Collective collective, unsigned mask, uint64_t value, unsigned source, int line) {
  if (!in_fiber) fail("a warp collective in a kernel that was taken for one without");
  Fiber& own = fibers[current];
  if (!(mask >> current % WARP & 1)) fail("a lane is not in the mask of its collective", line);
  own.collective = collective, own.mask = mask, own.value = value, own.source = source;
  own.line = line;
  give_way(IN_WARP);
  return own;
}
// Gives other threads a chance between a read and an atomic that builds on it.
inline void maybe_give_way() {
  if (in_fiber && random_state && draw() % 8 == 0) give_way(READY);
}

inline void enter() {
  thread_body();
  for (;;) give_way(DONE);
}

inline void answer(Fiber* warp, unsigned group, const Fiber& first) {
  unsigned ballot = 0, step = 0;
  uint64_t values[WARP];
  for (unsigned lane = 0; lane < WARP; ++lane) {
    if (!(group >> lane & 1)) continue;
    const Fiber& fiber = warp[lane];
    if (fiber.collective != first.collective || fiber.line != first.line)
      failure = "lanes of a warp are in different collectives" + at(first.line) + at(fiber.line);
    if (fiber.mask != first.mask)
      failure = "lanes of a warp name different masks" + at(first.line);
    if (fiber.collective == SHUFFLE && !(group >> fiber.source & 1))
      failure = "a shuffle reads a lane that is not in its mask" + at(fiber.line);
    ballot |= unsigned(fiber.value != 0) << lane;
    step = fiber.step > step ? fiber.step : step;
    values[lane] = fiber.value;
  }
  for (unsigned lane = 0; lane < WARP && failure.empty(); ++lane) {
    if (!(group >> lane & 1)) continue;
    Fiber& fiber = warp[lane];
    fiber.ballot = ballot;
    if (fiber.collective == SHUFFLE) fiber.value = values[fiber.source];
    // A shuffle orders no memory, __syncwarp does.
    if (fiber.collective == SYNC) fiber.step = step + 1;
    fiber.state = READY;
  }
}

// Lets warps go on whose named lanes have all come.
inline bool release_warps() {
  bool released = false;
  for (unsigned start = 0; start < num_threads && failure.empty(); start += WARP) {
    unsigned arrived = 0, valid = 0;
    for (unsigned lane = 0; lane < WARP && start + lane < num_threads; ++lane) {
      valid |= 1u << lane;
      arrived |= unsigned(fibers[start + lane].state == IN_WARP) << lane;
    }
    while (arrived && failure.empty()) {
      const Fiber first = fibers[start + __builtin_ctz(arrived)];
      const unsigned group = first.mask & valid;
      if ((arrived & group) == group) {
        answer(&fibers[start], group, first);
        released = true;
      }
      arrived &= ~group;
    }
  }
  return released;
}

// Lets the block go on when all threads wait at one barrier.
inline bool release_block() {
  unsigned waiting = 0, alive = 0;
  int line = 0;
  for (unsigned i = 0; i < num_threads; ++i) {
    alive += fibers[i].state != DONE;
    if (fibers[i].state != AT_BARRIER) continue;
    if (waiting++ && fibers[i].line != line)
      failure = "threads of a block wait at different barriers" + at(line) + at(fibers[i].line);
    line = fibers[i].line;
  }
  if (!waiting || waiting != alive) return false;
  if (waiting != num_threads)
    failure = "__syncthreads is not reached by all threads of the block" + at(line);
  for (unsigned i = 0; i < num_threads; ++i) fibers[i].state = READY;
  ++epoch;
  return true;
}

inline void set_thread(unsigned i) {
  current = i;
  thread_index = {i, 0, 0};
}

inline void run_fibers(std::vector<unsigned>& order) {
  for (unsigned i = 0; i < num_threads; ++i) {
    fibers[i].state = READY, fibers[i].step = 0;
    begin(fibers[i].context, stacks + i * STACK_BYTES, enter);
  }
  epoch = 0;
  for (;;) {
    if (random_state) shuffle(order);
    bool ran = false, alive = false;
    in_fiber = true;
    for (unsigned i : order) {
      if (fibers[i].state != READY) continue;
      set_thread(i);
#ifdef VOXSEG_WATCH
      voxseg_watch_resume(i, epoch, fibers[i].step);
#endif
      change(scheduler, fibers[i].context);
#ifdef VOXSEG_WATCH
      voxseg_watch_pause();
#endif
      ran = true;
      if (!failure.empty()) break;
    }
    in_fiber = false;
    if (!failure.empty()) return;
    const bool released = release_warps() || release_block();
    if (!failure.empty()) return;
    for (unsigned i = 0; i < num_threads; ++i) alive |= fibers[i].state != DONE;
    if (!alive) return;
    if (ran || released) continue;
    failure = "deadlock";
    for (unsigned i = 0; i < num_threads; ++i)
      if (fibers[i].state == IN_WARP) {
        failure = "a warp collective names a lane that has exited or is elsewhere" +
                  at(fibers[i].line);
        break;
      }
    return;
  }
}

inline void run_block(bool with_fibers, size_t shared_bytes, std::vector<unsigned>& order) {
  unsigned char* shared = shared_memory + MARGIN;
  if (shared_bytes) memset(shared, POISON, shared_bytes + MARGIN);
  if (with_fibers) {
    run_fibers(order);
  } else {
    for (unsigned i : order) {
      set_thread(i);
      thread_body();
    }
  }
  for (size_t i = 0; shared_bytes && i < MARGIN && failure.empty(); ++i)
    if (shared[shared_bytes + i] != POISON) failure = "a write beyond the end of shared memory";
}

// Where a thread finds the launch's arguments.
template <auto kernel>
struct Call;
template <class... P, void (*kernel)(P...)>
struct Call<kernel> {
  inline static std::tuple<P...> values;
  template <size_t... I>
  static void read(void** addresses, std::index_sequence<I...>) {
    values = {*static_cast<P*>(addresses[I])...};
  }
  static void read(void** addresses) { read(addresses, std::index_sequence_for<P...>()); }
  static void thread() { std::apply(kernel, values); }
};

// Turns a wild index or a division by zero into an error, while it lives.
static sigjmp_buf crash;
struct CrashGuard {
  static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};
  struct sigaction before[3];
  CrashGuard() {
    struct sigaction own = {};
    own.sa_handler = [](int signal) { siglongjmp(crash, signal); };
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &own, &before[i]);
  }
  ~CrashGuard() {
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &before[i], nullptr);
  }
};

inline void run_grid(size_t shared_bytes, bool with_fibers) {
  std::vector<unsigned> threads(num_threads);
  std::vector<unsigned> blocks(size_t(grid_size.x) * grid_size.y * grid_size.z);
  std::iota(threads.begin(), threads.end(), 0u);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (random_state) shuffle(threads), shuffle(blocks);
  for (unsigned i : blocks) {
    block_index = {i % grid_size.x, i / grid_size.x % grid_size.y,
                   i / (grid_size.x * grid_size.y)};
#ifdef VOXSEG_WATCH
    voxseg_watch_block(i, shared_memory + MARGIN, shared_bytes);
#endif
    run_block(with_fibers, shared_bytes, threads);
    if (!failure.empty()) return;
  }
}

// Runs a grid; gives what is wrong, or null.
template <auto kernel>
const char* launch(const unsigned* grid, unsigned block, size_t shared_bytes, bool with_fibers,
                   uint64_t seed, void** arguments) {
  if (!block || block > MOST_THREADS || shared_bytes > MOST_SHARED) return "no such launch";
  Call<kernel>::read(arguments);
  thread_body = Call<kernel>::thread;
  grid_size = {grid[0], grid[1], grid[2]}, block_size = {block, 1, 1};
  num_threads = block, random_state = seed, failure.clear();
#ifdef VOXSEG_WATCH
  with_fibers = true;
  voxseg_watch_stacks(stacks, MOST_THREADS * STACK_BYTES);
#endif
  CrashGuard guard;
  if (int signal = sigsetjmp(crash, 1)) {
    failure = signal == SIGFPE ? "a division by zero" : "a wild access ends in a crash";
#ifdef VOXSEG_WATCH
    voxseg_watch_pause();
#endif
  } else {
    try {
      run_grid(shared_bytes, with_fibers);
    } catch (const std::runtime_error& error) {
      failure = error.what();
    }
  }
  in_fiber = false;
  if (failure.empty()) return nullptr;
  failure += " (block " + std::to_string(block_index.x);
  if (grid[1] * grid[2] > 1) failure += ", " + std::to_string(block_index.y);
  if (grid[2] > 1) failure += ", " + std::to_string(block_index.z);
  failure += ")";
  return failure.c_str();
}

}  // namespace voxseg

#ifdef VOXSEG_WATCH
extern "C" void voxseg_stop(const char* message) { voxseg::fail(message); }
#endif
