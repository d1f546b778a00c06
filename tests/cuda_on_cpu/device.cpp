// A CUDA device that is none: tensors say "cuda:0" and lie in the CPU's memory.
//
// Each operator on such tensors comes to `run`, which gives the CPU's operator tensors of its own
// that share their memory, and makes CUDA tensors of what comes back. `copy` is what lies between
// the two places; it knows which copies the host waits for. device.py loads this file.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

const c10::Device CPU(c10::kCPU), CUDA(c10::kCUDA, 0);

// Operators whose result, or its size, the host has to know.
const char* const WAITING[] = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select",
    "aten::_unique2", "aten::unique_consecutive", "aten::bincount",
};

// ---- counts and deferred copies ----
std::mutex lock;
struct Deferred { at::Tensor to, from; };
std::vector<Deferred> deferred;
void (*told)(const char*) = nullptr;
bool pretending = false;
std::map<char*, size_t> pinned;
size_t used = 0, most_used = 0, limit = 0;  // bytes of the device

void take(size_t bytes) {
  std::lock_guard<std::mutex> guard(lock);
  TORCH_CHECK_WITH(OutOfMemoryError, used + bytes <= limit,
                   "CUDA out of memory. Tried to allocate ",
                   bytes, " bytes; ", used, " of ", limit, " are in use");
  used += bytes;
  if (used > most_used) most_used = used;
}
void give_back(size_t bytes) {
  std::lock_guard<std::mutex> guard(lock);
  used -= bytes;
}

void arrive() {
  // Who comes while another thread is at it goes on when the copies are there.
  static std::mutex arriving;
  std::lock_guard<std::mutex> whole(arriving);
  std::vector<Deferred> now;
  {
    std::lock_guard<std::mutex> guard(lock);
    now.swap(deferred);
  }
  for (auto& copy : now) copy.to.copy_(copy.from);
}
// The host waits for the device, as `why` makes it.
void wait(const char* why) {
  if (told) told(why);
  arrive();
}

struct PinnedAllocator final : c10::Allocator {
  static void release(void* memory) {
    std::lock_guard<std::mutex> guard(lock);
    pinned.erase(static_cast<char*>(memory));
    free(memory);
  }
  at::DataPtr allocate(size_t bytes) override {
    void* memory = malloc(bytes + 1);
    std::lock_guard<std::mutex> guard(lock);
    pinned[static_cast<char*>(memory)] = bytes + 1;
    return {memory, memory, release, CPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    memcpy(to, from, bytes);
  }
};
PinnedAllocator pinned_allocator;

bool is_pinned(const void* address) {
  std::lock_guard<std::mutex> guard(lock);
  char* at = static_cast<char*>(const_cast<void*>(address));
  auto next = pinned.upper_bound(at);
  if (next == pinned.begin()) return false;
  --next;
  return at < next->first + next->second;
}

// ---- what torch asks about the device ----
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, CUDA); }
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return CUDA; }
  c10::Device getDevice() const override { return CUDA; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { wait("a stream"); }
};
const c10::impl::DeviceGuardImplRegistrar registrar(c10::kCUDA, new Guard());

struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  void deviceSynchronize(c10::DeviceIndex) const override { wait("the device"); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::detail::createCPUGenerator();
  }
};

// ---- running an operator ----
using Storages = std::unordered_map<c10::StorageImpl*, c10::Storage>;

struct Call {
  Storages to_cpu, to_cuda;
  std::unordered_map<c10::StorageImpl*, void*> lent;  // memory of the CUDA tensors that came
  struct Pair { at::Tensor cuda, cpu; };
  std::vector<Pair> pairs;

  c10::Storage cpu_storage(const c10::Storage& own) {
    auto& storage = to_cpu[own.unsafeGetStorageImpl()];
    if (!storage) {
      storage = c10::Storage(c10::Storage::use_byte_size_t(), own.nbytes(),
                             at::DataPtr(own.mutable_data(), CPU),
                             c10::GetAllocator(c10::kCPU), true);
      to_cuda[storage.unsafeGetStorageImpl()] = own;
      lent[storage.unsafeGetStorageImpl()] = own.mutable_data();
    }
    return storage;
  }
  at::Tensor on_cpu(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    for (auto& pair : pairs)
      if (pair.cuda.is_same(tensor)) return pair.cpu;
    const c10::DispatchKeySet keys(c10::DispatchKey::CPU);
    auto made = at::detail::make_tensor<c10::TensorImpl>(cpu_storage(tensor.storage()), keys,
                                                         tensor.dtype());
    pairs.push_back({tensor, filled(made, tensor)});
    return made;
  }
  at::Tensor on_cuda(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.is_cuda()) return tensor;
    for (auto& pair : pairs)
      if (pair.cpu.is_same(tensor)) return pair.cuda;
    c10::Storage storage = cuda_storage(tensor.storage());
    // A view is what its base is: none of inference mode if that was made outside of it.
    for (auto& pair : pairs)
      if (pair.cuda.storage().unsafeGetStorageImpl() == storage.unsafeGetStorageImpl())
        return filled(at::detail::make_tensor<c10::TensorImpl>(
                          c10::TensorImpl::VIEW, std::move(storage), pair.cuda.key_set(),
                          tensor.dtype()), tensor);
    const c10::DispatchKeySet keys(c10::DispatchKey::CUDA);
    return filled(at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys,
                                                           tensor.dtype()), tensor);
  }
  // An operator may have given `out` another shape or memory.
  void bring_back() {
    for (auto& pair : pairs) {
      const c10::Storage& storage = pair.cpu.storage();
      // A tensor that grew has other memory, in the same storage.
      auto found = lent.find(storage.unsafeGetStorageImpl());
      if (found != lent.end() && storage.mutable_data() != found->second)
        to_cuda.erase(found->first), lent.erase(found);
      const bool moved = pair.cuda.storage().unsafeGetStorageImpl() !=
                         cuda_storage(storage).unsafeGetStorageImpl();
      if (!moved && pair.cpu.sizes() == pair.cuda.sizes() &&
          pair.cpu.strides() == pair.cuda.strides() &&
          pair.cpu.storage_offset() == pair.cuda.storage_offset())
        continue;
      c10::TensorImpl* own = pair.cuda.unsafeGetTensorImpl();
      if (moved) own->set_storage_keep_dtype(cuda_storage(storage));
      own->set_sizes_and_strides(pair.cpu.sizes(), pair.cpu.strides(), pair.cpu.storage_offset());
    }
  }

 private:
  static at::Tensor filled(at::Tensor made, const at::Tensor& like) {
    c10::TensorImpl* own = made.unsafeGetTensorImpl();
    own->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    if (like.unsafeGetTensorImpl()->is_wrapped_number()) own->set_wrapped_number(true);
    return made;
  }
  static c10::Storage fresh(const c10::Storage& storage) {
    take(storage.nbytes());
    auto* held = new c10::Storage(storage);
    auto release = [](void* held) {
      auto* own = static_cast<c10::Storage*>(held);
      give_back(own->nbytes());
      delete own;
    };
    at::DataPtr data(storage.mutable_data(), held, release, CUDA);
    return c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data),
                        nullptr, false);
  }
  c10::Storage cuda_storage(const c10::Storage& storage) {
    auto found = to_cuda.find(storage.unsafeGetStorageImpl());
    return found != to_cuda.end() ? found->second
                                  : to_cuda[storage.unsafeGetStorageImpl()] = fresh(storage);
  }
};

void each_tensor(c10::IValue& value, const std::function<at::Tensor(const at::Tensor&)>& change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    std::vector<at::Tensor> made;
    for (const at::Tensor& tensor : value.toTensorVector()) made.push_back(change(tensor));
    value = c10::List<at::Tensor>(made);
  } else if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> made;
    for (std::optional<at::Tensor> tensor : value.toOptionalTensorVector())
      made.push_back(tensor ? std::optional<at::Tensor>(change(*tensor)) : std::nullopt);
    value = made;
  }
}

// A CPU's convolutions of small floats read memory that nobody wrote where a map has two layers
// (voxseg/engine/shallow.py); a GPU adds up in float32, and so does this.
at::Tensor wide(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::ScalarType::Float) : tensor;
}

void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  const size_t count = schema.arguments().size();
  Call call;
  bool any_cuda = false, any_cpu = false;
  auto arguments = torch::jit::last(stack, count);
  std::vector<c10::IValue> changed(arguments.begin(), arguments.end());
  for (c10::IValue& value : changed) {
    each_tensor(value, [&](const at::Tensor& tensor) {
      if (tensor.defined()) {
        any_cuda |= tensor.is_cuda();
        any_cpu |= !tensor.is_cuda() && tensor.dim() > 0;
      }
      return call.on_cpu(tensor);
    });
    if (value.isStorage() && value.toStorage().device().is_cuda())
      value = call.cpu_storage(value.toStorage());
    if (value.isDevice() && value.toDevice().is_cuda()) value = CPU;
  }
  const bool takes_both = name.find("index") != std::string::npos;
  TORCH_CHECK(!any_cuda || !any_cpu || takes_both,
              "Expected all tensors to be on the same device, but found at least two devices, "
              "cuda:0 and cpu! (when calling ", name, ")");
  TORCH_CHECK(pretending || any_cuda, "the pretended CUDA device is gone");
  if (std::find(std::begin(WAITING), std::end(WAITING), name) != std::end(WAITING))
    wait(name.c_str());
  const bool is_convolution = name.find("aten::convolution") == 0;
  const at::ScalarType kind =
      is_convolution ? changed[0].toTensor().scalar_type() : at::ScalarType::Float;
  const bool is_widened = kind == at::ScalarType::Half || kind == at::ScalarType::BFloat16;
  torch::jit::drop(stack, count);
  for (c10::IValue& value : changed) {
    if (is_widened) each_tensor(value, wide);
    stack->push_back(std::move(value));
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.bring_back();
  const size_t results = schema.returns().size();
  for (size_t i = stack->size() - results; is_widened && i < stack->size(); ++i)
    each_tensor((*stack)[i], [&](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.to(kind) : tensor;
    });
  for (size_t i = stack->size() - results; i < stack->size(); ++i)
    each_tensor((*stack)[i], [&](const at::Tensor& tensor) { return call.on_cuda(tensor); });
}

at::Tensor& copy(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  Call call;
  if (self.is_cuda()) {
    const bool is_free = source.is_cuda() || (non_blocking && is_pinned(source.const_data_ptr()));
    if (!is_free && source.dim()) wait("a copy to the device");
    call.on_cpu(self).copy_(call.on_cpu(source));
  } else if (non_blocking && is_pinned(self.const_data_ptr())) {
    at::Tensor now = call.on_cpu(source).clone();
    if (self.is_contiguous()) memset(self.mutable_data_ptr(), 0xff, self.nbytes());
    std::lock_guard<std::mutex> guard(lock);
    deferred.push_back({self, now});
  } else {
    wait("a copy to the host");
    self.copy_(call.on_cpu(source));
  }
  return self;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("copy_", TORCH_FN(copy));
  for (const char* name : {"convolution", "convolution_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run>());
}

}  // namespace

#define SEEN extern "C" __attribute__((visibility("default")))

// Puts what this file answers in the place of what torch's one object of CUDA hooks says; torch
// makes it at its first question, which may be long ago. Gives what was there, to be put back.
SEEN void* voxseg_pretend(void* before) {
  static Hooks own;
  auto& hooks = const_cast<at::CUDAHooksInterface&>(at::detail::getCUDAHooks());
  void** table = reinterpret_cast<void**>(&hooks);
  void* old = *table;
  pretending = !before;
  *table = before ? before : *reinterpret_cast<void**>(&own);
  return old;
}
SEEN size_t voxseg_used() { return used; }
SEEN size_t voxseg_most_used() { return most_used; }
SEEN void voxseg_reset_peak() { most_used = used; }
SEEN void voxseg_limit(size_t bytes) { limit = bytes; }
SEEN void voxseg_tell(void (*function)(const char*)) { told = function; }
SEEN void voxseg_wait(const char* why) { wait(why); }
SEEN void voxseg_arrive() { arrive(); }
