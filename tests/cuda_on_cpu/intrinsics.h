// CUDA's words for a C++ compiler: qualifiers, built-in variables and types, intrinsics, atomics.
//
// What CUDA lacks is left out (atomicAdd on long long), so that it fails here too. Kernel files
// that build here are still built by NVRTC in test_compile.py, which has the last word.
#pragma once
#include <math.h>

#include "shim.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static const
#define __shared__ static_shared_memory_is_unseen_by_the_race_check_use_SHARED_of_prelude_cuh

#define threadIdx (voxseg::thread_index)
#define blockIdx (voxseg::block_index)
#define blockDim (voxseg::block_size)
#define gridDim (voxseg::grid_size)
constexpr int warpSize = 32;

inline void* voxseg_shared_memory() { return voxseg::shared_memory + voxseg::MARGIN; }

// ---- seen by racecheck.cpp and meter.cpp as a whole, with the code that asked for it ----
#ifdef VOXSEG_WATCH
extern "C" void voxseg_watch_atomic(void* address, size_t bytes, const void* code);
extern "C" void voxseg_watch_copy(void* to, const void* from, size_t bytes, const void* code);
#define VOXSEG_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#define VOXSEG_CODE __builtin_return_address(0)
#else
#define VOXSEG_UNSEEN inline
#define VOXSEG_CODE nullptr
#endif

// ---- vector types; a misaligned access is an error on a GPU and must not crash here ----
namespace voxseg {
inline void check_aligned(const void* address, size_t bytes) {
  asm("" : "+r"(address));  // the compiler believes in the alignment of types
  if (uintptr_t(address) % bytes) fail("a misaligned access of a vector type or atomic");
  asm volatile("" : : : "memory");  // no load may move in front of the check
}
template <size_t bytes>
VOXSEG_UNSEEN void copy_vector(void* to, const void* from) {
  check_aligned(to, bytes), check_aligned(from, bytes);
#ifdef VOXSEG_WATCH
  voxseg_watch_copy(to, from, bytes, VOXSEG_CODE);
#endif
  __builtin_memcpy(to, from, bytes);
}
}  // namespace voxseg

#define VOXSEG_VECTOR(V, n, PARAMETERS, MEMBERS, INIT)                                   \
  struct alignas(n) V {                                                                  \
    MEMBERS;                                                                             \
    V() = default;                                                                       \
    V PARAMETERS : INIT {}                                                               \
    __forceinline__ V(const V& o) { voxseg::copy_vector<n>(this, &o); }                  \
    __forceinline__ V& operator=(const V& o) {                                           \
      voxseg::copy_vector<n>(this, &o);                                                  \
      return *this;                                                                      \
    }                                                                                    \
  };
#define VOXSEG_VECTOR2(V, T)                                                             \
  VOXSEG_VECTOR(V, 2 * sizeof(T), (T a, T b), T x; T y, VOXSEG_LIST(x(a), y(b)))         \
  inline V make_##V(T x, T y) { return V(x, y); }
#define VOXSEG_VECTOR4(V, T)                                                             \
  VOXSEG_VECTOR(V, 4 * sizeof(T), (T a, T b, T c, T d), T x; T y; T z; T w,              \
                VOXSEG_LIST(x(a), y(b), z(c), w(d)))                                     \
  inline V make_##V(T x, T y, T z, T w) { return V(x, y, z, w); }
#define VOXSEG_LIST(...) __VA_ARGS__
VOXSEG_VECTOR4(uchar4, unsigned char)
VOXSEG_VECTOR2(ushort2, unsigned short)
VOXSEG_VECTOR4(ushort4, unsigned short)
VOXSEG_VECTOR2(int2, int)
VOXSEG_VECTOR4(int4, int)
VOXSEG_VECTOR2(uint2, unsigned)
VOXSEG_VECTOR4(uint4, unsigned)
VOXSEG_VECTOR2(float2, float)
VOXSEG_VECTOR4(float4, float)
VOXSEG_VECTOR2(double2, double)
VOXSEG_VECTOR2(longlong2, long long)
VOXSEG_VECTOR2(ulonglong2, unsigned long long)
struct int3 { int x, y, z; };
struct uint3 { unsigned x, y, z; };
struct float3 { float x, y, z; };
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }

// ---- bits and numbers ----
namespace voxseg {
template <class To, class From>
To bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "");
  To result;
  __builtin_memcpy(&result, &value, sizeof result);
  return result;
}
// As on a GPU, what does not fit is clamped and NaN gives zero.
template <class T>
T rounded(double value, double least, double most) {
  return value != value ? T(0) : T(value < least ? least : value > most ? most : value);
}
inline int to_int(double value) { return rounded<int>(value, -2147483648.0, 2147483647.0); }
inline unsigned to_unsigned(double value) { return rounded<unsigned>(value, 0.0, 4294967295.0); }
}  // namespace voxseg

inline unsigned __float_as_uint(float v) { return voxseg::bits<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return voxseg::bits<float>(v); }
inline int __float_as_int(float v) { return voxseg::bits<int>(v); }
inline float __int_as_float(int v) { return voxseg::bits<float>(v); }
inline long long __double_as_longlong(double v) { return voxseg::bits<long long>(v); }
inline double __longlong_as_double(long long v) { return voxseg::bits<double>(v); }
inline int __float2int_rn(float v) { return voxseg::to_int(rintf(v)); }
inline int __float2int_rd(float v) { return voxseg::to_int(floorf(v)); }
inline int __float2int_ru(float v) { return voxseg::to_int(ceilf(v)); }
inline int __float2int_rz(float v) { return voxseg::to_int(truncf(v)); }
inline unsigned __float2uint_rn(float v) { return voxseg::to_unsigned(rintf(v)); }
inline unsigned __float2uint_rd(float v) { return voxseg::to_unsigned(floorf(v)); }
inline int __double2int_rn(double v) { return voxseg::to_int(rint(v)); }
inline float __int2float_rn(int v) { return float(v); }
inline float __ll2float_rn(long long v) { return float(v); }
inline double __ll2double_rn(long long v) { return double(v); }
inline float __double2float_rn(double v) { return float(v); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float v) { return sqrtf(v); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
template <class T>
T __ldg(const T* address) { return *address; }

#define VOXSEG_MIN_MAX(T)                              \
  inline T min(T a, T b) { return b < a ? b : a; }     \
  inline T max(T a, T b) { return a < b ? b : a; }
VOXSEG_MIN_MAX(int)
VOXSEG_MIN_MAX(unsigned)
VOXSEG_MIN_MAX(long long)
VOXSEG_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }

// ---- float16, in software: not every compiler knows the type ----
inline float voxseg_half_to_float(unsigned short half) {
  const unsigned sign = unsigned(half & 0x8000) << 16, rest = unsigned(half & 0x7fff) << 13;
  if (rest >= 0x0f800000u) return __uint_as_float(sign | 0x7f800000u | rest);  // inf, NaN
  // 2**112 moves the exponent; it makes subnormal numbers normal on the way.
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest) * 0x1p112f));
}
// Round to nearest, ties to even; NaN becomes the one NaN of a GPU.
inline unsigned short voxseg_float_to_half(float value) {
  const unsigned all = __float_as_uint(value), sign = all >> 16 & 0x8000, rest = all & 0x7fffffffu;
  if (rest > 0x7f800000u) return 0x7fff;
  if (rest >= 0x477ff000u) return sign | 0x7c00;  // from 65520 on
  if (rest < 0x38800000u)  // below 2**-14: the last bit of 0.5f is that of a subnormal half
    return sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000u);
  return sign | ((rest - 0x38000000u + 0xfff + (rest >> 13 & 1)) >> 13);
}

// ---- barriers and collectives; the call's line tells two of them apart ----
inline void __syncthreads(int line = __builtin_LINE()) { voxseg::barrier(line); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
  voxseg::meet(voxseg::SYNC, mask, 0, 0, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return voxseg::meet(voxseg::VOTE, mask, predicate != 0, 0, line).ballot;
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, !predicate, line) == 0;
}
namespace voxseg {
template <class T>
T exchange(unsigned mask, T value, int source, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t wide = 0;
  __builtin_memcpy(&wide, &value, sizeof value);
  wide = meet(SHUFFLE, mask, wide, unsigned(source), line).value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}
inline int lane() { return int(current % WARP); }
inline int first_lane(int width) { return lane() & ~(width - 1); }
}  // namespace voxseg
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  return voxseg::exchange(mask, value, voxseg::first_lane(width) + (source & (width - 1)), line);
}
// A lane without a source gives its own value.
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 int line = __builtin_LINE()) {
  const int own = voxseg::lane(), source = own - int(by);
  return voxseg::exchange(mask, value, source < voxseg::first_lane(width) ? own : source, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   int line = __builtin_LINE()) {
  const int own = voxseg::lane(), source = own + int(by);
  const bool inside = source < voxseg::first_lane(width) + width;
  return voxseg::exchange(mask, value, inside ? source : own, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, int line = __builtin_LINE()) {
  const int own = voxseg::lane(), source = own ^ by;
  const bool inside = source < voxseg::first_lane(width) + width;
  return voxseg::exchange(mask, value, inside ? source : own, line);
}

// ---- atomics; one OS thread runs everything, so they need not be atomic here ----
namespace voxseg {
template <class T>
VOXSEG_UNSEEN void before_atomic(T* address, const void* code) {
  check_aligned(address, sizeof(T));
  maybe_give_way();
#ifdef VOXSEG_WATCH
  voxseg_watch_atomic(address, sizeof(T), code);
#endif
}
}  // namespace voxseg
#define VOXSEG_ATOMIC(name, T, expression)             \
  VOXSEG_UNSEEN T name(T* address, T value) {          \
    voxseg::before_atomic(address, VOXSEG_CODE);       \
    const T old = *address;                            \
    *address = expression;                             \
    return old;                                        \
  }
#define VOXSEG_ATOMIC_INTEGER(T)                                   \
  VOXSEG_ATOMIC(atomicExch, T, value)                              \
  VOXSEG_ATOMIC(atomicMin, T, value < old ? value : old)           \
  VOXSEG_ATOMIC(atomicMax, T, old < value ? value : old)           \
  VOXSEG_ATOMIC(atomicAnd, T, old& value)                          \
  VOXSEG_ATOMIC(atomicOr, T, old | value)                          \
  VOXSEG_UNSEEN T atomicCAS(T* address, T expected, T value) {     \
    voxseg::before_atomic(address, VOXSEG_CODE);                   \
    const T old = *address;                                        \
    if (old == expected) *address = value;                         \
    return old;                                                    \
  }
VOXSEG_ATOMIC_INTEGER(int)
VOXSEG_ATOMIC_INTEGER(unsigned)
VOXSEG_ATOMIC_INTEGER(unsigned long long)
VOXSEG_ATOMIC(atomicMin, long long, value < old ? value : old)
VOXSEG_ATOMIC(atomicMax, long long, old < value ? value : old)
VOXSEG_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(value)))
VOXSEG_ATOMIC(atomicAdd, unsigned, old + value)
VOXSEG_ATOMIC(atomicAdd, unsigned long long, old + value)
VOXSEG_ATOMIC(atomicAdd, float, old + value)
VOXSEG_ATOMIC(atomicAdd, double, old + value)
VOXSEG_ATOMIC(atomicExch, float, value)
inline int atomicSub(int* address, int value) { return atomicAdd(address, -value); }
