// Vectors of float for one instruction set, chosen by EMULATOR_SIMD before inclusion (512: AVX-512, 256: AVX2 with F16C and
// FMA, 128: plain GCC vectors, which are NEON on aarch64 and SSE2 on x86).
//
// Included by the kernels_*.cpp files only, each compiled for one instruction set. Everything is in an unnamed namespace and
// no standard header with inline functions may follow the target pragma: the linker would otherwise be free to keep the
// AVX-512 copy of a function that every CPU runs.
#pragma once

#include <acl/acl.h>

#include <cstdint>
#include <cstring>

#include "core/half.h"

#if EMULATOR_SIMD >= 256
#include <immintrin.h>
#endif

namespace emulator {
namespace {

// Storage types of half-precision elements; distinct, so that overloads tell them apart.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float scalar_to_float(float value) { return value; }
inline float scalar_to_float(int8_t value) { return value; }
inline float scalar_to_float(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
#if defined(__aarch64__)
inline float scalar_to_float(Half value) {
  __fp16 half;
  std::memcpy(&half, &value, sizeof half);
  return half;
}
inline Half half_of(float value) {
  const __fp16 half = value;
  Half result;
  std::memcpy(&result, &half, sizeof half);
  return result;
}
#elif EMULATOR_SIMD >= 256
inline float scalar_to_float(Half value) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(value.bits))); }
inline Half half_of(float value) {
  return {static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT)))};
}
#else
inline float scalar_to_float(Half value) { return float_from_half(value.bits); }
inline Half half_of(float value) { return {half_from_float(value)}; }
#endif

inline BFloat16 bfloat16_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40)};  // a quiet NaN
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

#if EMULATOR_SIMD == 512

using Vector = __m512;
constexpr int kLanes = 16;
constexpr int kAccumulators = 24;  // of 32 registers

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector broadcast(float value) { return _mm512_set1_ps(value); }
inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
inline Vector load(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vector load(const BFloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline Vector load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
inline void store(Half* p, Vector v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store(BFloat16* p, Vector v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i chosen = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
}
inline Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
inline float sum(Vector v) { return _mm512_reduce_add_ps(v); }
inline float largest(Vector v) { return _mm512_reduce_max_ps(v); }
inline Vector nearest(Vector v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT); }
inline Vector power_of_two(Vector integral) {  // 2^n for integral n in [-126, 127]
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(integral), _mm512_set1_epi32(127)), 23));
}

#elif EMULATOR_SIMD == 256

using Vector = __m256;
constexpr int kLanes = 8;
constexpr int kAccumulators = 12;  // of 16 registers

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector broadcast(float value) { return _mm256_set1_ps(value); }
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline Vector load(const Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vector load(const BFloat16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Vector load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
inline void store(Half* p, Vector v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store(BFloat16* p, Vector v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < kLanes; ++i) p[i] = bfloat16_of(lanes[i]);
}
inline Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
inline float sum(Vector v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float largest(Vector v) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
inline Vector nearest(Vector v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vector power_of_two(Vector integral) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(integral), _mm256_set1_epi32(127)), 23));
}

#else

typedef float Vector __attribute__((vector_size(16)));
typedef int32_t IntVector __attribute__((vector_size(16)));
constexpr int kLanes = 4;
#if defined(__aarch64__)
constexpr int kAccumulators = 24;  // of 32 registers
#else
constexpr int kAccumulators = 8;  // of 16 registers
#endif

inline Vector zero() { return Vector{}; }
inline Vector broadcast(float value) { return Vector{value, value, value, value}; }
inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename Element>
inline Vector load(const Element* p) {
  return Vector{scalar_to_float(p[0]), scalar_to_float(p[1]), scalar_to_float(p[2]), scalar_to_float(p[3])};
}
inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }
inline void store(Half* p, Vector v) {
  for (int i = 0; i < kLanes; ++i) p[i] = half_of(v[i]);
}
inline void store(BFloat16* p, Vector v) {
  for (int i = 0; i < kLanes; ++i) p[i] = bfloat16_of(v[i]);
}
inline Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
inline Vector max(Vector a, Vector b) { return a > b ? a : b; }
inline float sum(Vector v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline float largest(Vector v) {
  const float low = v[0] > v[1] ? v[0] : v[1];
  const float high = v[2] > v[3] ? v[2] : v[3];
  return low > high ? low : high;
}
inline Vector nearest(Vector v) {
  const Vector magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it leaves no fraction bits
  return (v + magic) - magic;
}
inline Vector power_of_two(Vector integral) {
  return (Vector)((__builtin_convertvector(integral, IntVector) + 127) << 23);
}

#endif

}  // namespace
}  // namespace emulator
