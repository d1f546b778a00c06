// What instrumented code calls, for racecheck.cpp and meter.cpp: each access goes to their `touch`.
//
// A compiler with -fsanitize=thread puts a call before each load and store; intrinsics.h has its
// own for what is no plain access of one number.
extern "C" {
void voxseg_watch_atomic(void* address, size_t bytes, const void* code) {
  touch(address, bytes, ATOMIC, bytes, code);
}
void voxseg_watch_copy(void* to, const void* from, size_t bytes, const void* code) {
  touch(from, bytes, READ, bytes, code);
  touch(to, bytes, WRITE, bytes, code);
}

#define CALLER __builtin_return_address(0)
#define ACCESSES(n)                                                                         \
  void __tsan_read##n(void* p) { touch(p, n, READ, n, CALLER); }                            \
  void __tsan_write##n(void* p) { touch(p, n, WRITE, n, CALLER); }                          \
  void __tsan_unaligned_read##n(void* p) { touch(p, n, READ, 1, CALLER); }                  \
  void __tsan_unaligned_write##n(void* p) { touch(p, n, WRITE, 1, CALLER); }                \
  void __tsan_volatile_read##n(void* p) { touch(p, n, VOLATILE_READ, n, CALLER); }          \
  void __tsan_volatile_write##n(void* p) { touch(p, n, VOLATILE_WRITE, n, CALLER); }        \
  void __tsan_unaligned_volatile_read##n(void* p) { touch(p, n, VOLATILE_READ, 1, CALLER); }\
  void __tsan_unaligned_volatile_write##n(void* p) { touch(p, n, VOLATILE_WRITE, 1, CALLER); }\
  void __tsan_read_write##n(void* p) {                                                      \
    touch(p, n, READ, n, CALLER);                                                           \
    touch(p, n, WRITE, n, CALLER);                                                          \
  }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* p, size_t n) { touch(p, n, READ, 1, CALLER); }
void __tsan_write_range(void* p, size_t n) { touch(p, n, WRITE, 1, CALLER); }
void* __tsan_memset(void* to, int value, size_t n) {
  touch(to, n, WRITE, 1, CALLER);
  return memset(to, value, n);
}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  touch(from, n, READ, 1, CALLER);
  touch(to, n, WRITE, 1, CALLER);
  return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  touch(from, n, READ, 1, CALLER);
  touch(to, n, WRITE, 1, CALLER);
  return memmove(to, from, n);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
