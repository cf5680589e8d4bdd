// The leaf instructions of runtime/native/cuda/ptx.cuh for a host compiler. Included inside namespace avsbg::ptx.
// No #pragma once and no includes: cuda_runtime.h of this folder has brought what is needed.

#define AVSBG_SHARED(Type, name) Type& name = *static_cast<Type*>(::emulation::shared_memory(sizeof(Type)))

template <class T>
T load_shared(const T* from) {
  ::emulation::touch_shared("load", from, sizeof(T));
  return *from;
}
template <class T>
void store_shared(T* to, T value) {
  ::emulation::touch_shared("store", to, sizeof(T));
  *to = value;
}

inline void cp_async_16(uint4* to, const uint4* from, bool inside) { ::emulation::copy_async(to, from, inside); }
inline void cp_async_commit() { ::emulation::copy_commit(); }
template <int kPending>
void cp_async_wait(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  ::emulation::copy_wait(kPending, file, line);
}

inline void wait_for_previous_kernel(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (__CUDA_ARCH__ >= 900) ::emulation::wait_for_previous_grid(file, line);
}
inline void release_dependents() {}

template <class T>
T keep(T value) {
  return value;
}

inline void ldmatrix_x4(std::uint32_t (&r)[4], const uint4* row) { ::emulation::ldmatrix_x4(r, row); }

inline void mma_k8_f16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  const std::uint32_t a[2] = {a0, a1};
  ::emulation::mma(::emulation::Mma::kK8Fp16, d, a, &b);
}
inline void mma_k16_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  ::emulation::mma(::emulation::Mma::kK16Fp16, d, a, b);
}
inline void mma_k16_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  ::emulation::mma(::emulation::Mma::kK16Bf16, d, a, b);
}
inline void mma_k8_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  ::emulation::mma(::emulation::Mma::kK8Tf32, d, a, b);
}
inline std::uint32_t round_to_tf32(std::uint32_t bits) { return ::emulation::round_to_tf32(bits); }
