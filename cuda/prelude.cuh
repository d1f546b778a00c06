// What every kernel file begins with: number types, conversions, order, shared memory.
//
// `voxseg/ops/nvrtc.py` puts this text in front of a kernel file, so that no file includes another
// and NVRTC needs no header of its own. `REAL` chooses the type of features: 0 for float32, 1 for
// float16, 2 for bfloat16. Sums and comparisons are always made in float32.
// Built by NVRTC and nvcc, and with VOXSEG_HOST by a C++ compiler for tests on a CPU.

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#ifdef VOXSEG_HOST
#define SHARED(T, name) T* name = reinterpret_cast<T*>(voxseg_shared_memory())
#else
extern __shared__ __align__(16) unsigned char voxseg_shared[];
#define SHARED(T, name) T* name = reinterpret_cast<T*>(voxseg_shared)
#endif

#ifndef REAL
#define REAL 0
#endif

#if REAL == 0
typedef float real;
__device__ __forceinline__ float to_float(real value) { return value; }
__device__ __forceinline__ real from_float(float value) { return value; }
#else
struct real { u16 bits; };
#endif

#if REAL == 1 && defined(VOXSEG_HOST)
__device__ __forceinline__ float to_float(real value) { return voxseg_half_to_float(value.bits); }
__device__ __forceinline__ real from_float(float value) { return {voxseg_float_to_half(value)}; }
#elif REAL == 1
__device__ __forceinline__ float to_float(real value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
}
__device__ __forceinline__ real from_float(float value) {
  real narrow;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
  return narrow;
}
#elif REAL == 2
__device__ __forceinline__ float to_float(real value) {
  return __uint_as_float(u32(value.bits) << 16);
}
// Round to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ real from_float(float value) {
  u32 bits = __float_as_uint(value);
  if (value != value) return {u16(0x7fc0)};
  return {u16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
#endif

#define INFINITE __uint_as_float(0x7f800000u)

__device__ __forceinline__ bool is_nan(float value) { return value != value; }

// A word holds one float32 or two of the smaller floats, the first in its lower half.
#define WORD (4 / int(sizeof(real)))
__device__ __forceinline__ float part_of(u32 word, int part) {
#if REAL == 0
  return __uint_as_float(word);
#else
  return to_float({u16(word >> (16 * part))});
#endif
}
__device__ __forceinline__ u32 word_of(real value) {
#if REAL == 0
  return __float_as_uint(value);
#else
  return value.bits;
#endif
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= (REAL == 0 ? 800 : 900)
#define COMPARES_WORDS 1
#else
#define COMPARES_WORDS 0
#endif
#if REAL == 0
#define WORD_TYPE "f32"
#define LEAST_WORD 0xff800000u  // -infinity in each part
#elif REAL == 1
#define WORD_TYPE "f16x2"
#define LEAST_WORD 0xfc00fc00u
#else
#define WORD_TYPE "bf16x2"
#define LEAST_WORD 0xff80ff80u
#endif

// The larger value in each part of two words, NaN if one of them is; of two zeros, either.
__device__ __forceinline__ u32 max_or_nan(u32 a, u32 b) {
  u32 larger = 0;
#if COMPARES_WORDS
  asm("max.NaN." WORD_TYPE " %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
#else
  u32 mask = 0xffffffffu >> (32 - 32 / WORD);
#pragma unroll
  for (int part = 0; part < WORD; ++part, mask <<= 16) {
    float x = part_of(a, part), y = part_of(b, part);
    larger |= (x >= y || is_nan(x) ? a : b) & mask;
  }
#endif
  return larger;
}
// Put `at` in the place of each part in which `word` is larger than `best`.
__device__ __forceinline__ void note_larger(u32 word, u32 best, int at, int* place) {
#if COMPARES_WORDS && REAL
  asm("{\n.reg .pred low, high;\nsetp.gt." WORD_TYPE " low|high, %2, %3;\n"
      "selp.b32 %0, %4, %0, low;\nselp.b32 %1, %4, %1, high;\n}"
      : "+r"(place[0]), "+r"(place[1])
      : "r"(word), "r"(best), "r"(at));
#else
#pragma unroll
  for (int part = 0; part < WORD; ++part)
    if (part_of(word, part) > part_of(best, part)) place[part] = at;
#endif
}

// Order-preserving map of a number to an integer. Both zeros are one value.
__device__ __forceinline__ u32 number_key(float value) {
  u32 bits = __float_as_uint(value + 0.f);
  return bits ^ (u32(int(bits) >> 31) | 0x80000000u);
}
// The same for every float: NaN is above all.
__device__ __forceinline__ u32 order_key(float value) {
  return is_nan(value) ? 0xffffffffu : number_key(value);
}
// A maximum as one key: the value above the inverted index, so that of equals the lowest index wins.
__device__ __forceinline__ u64 max_key(float value, u32 voxel) {
  return u64(order_key(value)) << 32 | (0xffffffffu - voxel);
}
