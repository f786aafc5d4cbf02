// The inner loops, written once over simd.h's vectors. Included by the kernels_*.cpp files only.
#pragma once

#include "math/kernels.h"
#include "math/simd.h"

namespace emulator {
namespace {

constexpr int kParts = 16 / kLanes;  // vectors in a chunk
constexpr int kMaxRows = kAccumulators / kParts < 8 ? kAccumulators / kParts : 8;

// A single row waits for memory, not for its sums: few lines at a time, so that hardware foresees each of them.
constexpr int lines_for(int rows) { return rows == 1 ? 4 : kAccumulators / rows < 16 ? kAccumulators / rows : 16; }
constexpr int chunks_for(int rows) {
  const int chunks = kAccumulators / rows / kParts;
  return chunks < 1 ? 1 : chunks < 8 ? chunks : 8;
}

// A wrong dtype cannot arrive here: callers have checked it where they can still name the operator.
template <typename Body>
inline void with_element(aclDataType dtype, Body&& body) {
  switch (dtype) {
    case ACL_FLOAT16: return body(Half{});
    case ACL_BF16: return body(BFloat16{});
    case ACL_INT8: return body(int8_t{});
    default: return body(float{});
  }
}

// ---- A times lines that run along k ----

// c[row][line] = sum over k of a[row][k] * line[k]: one accumulator vector for each pair, summed across at the end.
template <typename Element, int Rows, int Lines>
void dot_tile(const Product& p, const float* a, const Element* b, float* c) {
  Vector sums[Rows][Lines];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
    for (int l = 0; l < Lines; ++l) sums[r][l] = zero();
  const int64_t chunks = p.k / 16;
  const Element* chunk = b;
  constexpr int64_t kStreamAhead = 4096 / sizeof(Element);
  const int64_t distance = Rows == 1 && p.chunk_stride == 16 ? kStreamAhead : 8 * p.chunk_stride;
  for (int64_t i = 0; i < chunks; ++i, chunk += p.chunk_stride) {
    const Element* ahead = chunk + distance;  // past the end at the last chunks: harmless, never read
#pragma GCC unroll 16
    for (int l = 0; l < Lines; l += Rows == 1 ? 1 : 2) __builtin_prefetch(ahead + l * p.line_stride);
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      Vector rows[Rows];
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) rows[r] = load(a + r * p.a_stride + i * 16 + part * kLanes);
#pragma GCC unroll 16
      for (int l = 0; l < Lines; ++l) {
        const Vector line = load(chunk + l * p.line_stride + part * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) sums[r][l] = fma(rows[r], line, sums[r][l]);
      }
    }
  }
  if (const int64_t rest = p.k % 16; rest != 0) {
    for (int l = 0; l < Lines; ++l) {
      Element padded[16] = {};
      std::memcpy(padded, chunk + l * p.line_stride, rest * sizeof(Element));
      for (int part = 0; part < kParts; ++part) {
        const Vector line = load(padded + part * kLanes);
        for (int r = 0; r < Rows; ++r) {
          sums[r][l] = fma(load(a + r * p.a_stride + chunks * 16 + part * kLanes), line, sums[r][l]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
    for (int l = 0; l < Lines; ++l) {
      const float total = sum(sums[r][l]);
      c[r * p.c_stride + l] = p.accumulate ? c[r * p.c_stride + l] + total : total;
    }
}

// One row against lines whose chunks lie side by side (FRACTAL_NZ): a chunk of many lines is one run of memory, read in
// one go, so the sums wait in the first-level cache. They are added up as in dot_tile: a row's result must not depend on
// how many rows were asked for. k is a multiple of 16.
template <typename Element>
void dot_row_of_fractals(const Product& p) {
  constexpr int64_t kLines = 256;
  alignas(64) float sums[kLines * kLanes];
  const int64_t chunks = p.k / 16;
  for (int64_t first = 0; first < p.columns; first += kLines) {
    const int64_t lines = p.columns - first < kLines ? p.columns - first : kLines;
    const auto* b = static_cast<const Element*>(p.b) + first * 16;
    for (int64_t l = 0; l < lines; ++l) store(sums + l * kLanes, zero());
    for (int64_t i = 0; i < chunks; i += 2) {  // two at a time: half the traffic of the sums
      const Element* chunk = b + i * p.chunk_stride;
      const Element* second = i + 1 < chunks ? chunk + p.chunk_stride : nullptr;
      Vector row[2 * kParts];
      for (int part = 0; part < (second == nullptr ? 1 : 2) * kParts; ++part) row[part] = load(p.a + i * 16 + part * kLanes);
      for (int64_t l = 0; l < lines; ++l, chunk += 16) {
        Vector total = load(sums + l * kLanes);
        __builtin_prefetch(chunk + 2 * p.chunk_stride);
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) total = fma(row[part], load(chunk + part * kLanes), total);
        if (second != nullptr) {
          __builtin_prefetch(second + 2 * p.chunk_stride);
#pragma GCC unroll 4
          for (int part = 0; part < kParts; ++part) total = fma(row[kParts + part], load(second + part * kLanes), total);
          second += 16;
        }
        store(sums + l * kLanes, total);
      }
    }
    for (int64_t l = 0; l < lines; ++l) {
      const float total = sum(load(sums + l * kLanes));
      p.c[first + l] = p.accumulate ? p.c[first + l] + total : total;
    }
  }
}

template <typename Element, int Rows>
void dot_lines(const Product& p, int64_t first_row, int64_t first_line, int64_t line_count) {
  constexpr int kLines = lines_for(Rows);
  const auto* b = static_cast<const Element*>(p.b) + first_line * p.line_stride;
  const float* a = p.a + first_row * p.a_stride;
  float* c = p.c + first_row * p.c_stride + first_line;
  int64_t line = 0;
  for (; line + kLines <= line_count; line += kLines) {
    dot_tile<Element, Rows, kLines>(p, a, b + line * p.line_stride, c + line);
  }
  for (; line < line_count; ++line) dot_tile<Element, Rows, 1>(p, a, b + line * p.line_stride, c + line);
}

template <typename Element, int Rows = kMaxRows>
void dot_rows(const Product& p, int64_t rows, int64_t first_row, int64_t first_line, int64_t line_count) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return dot_rows<Element, Rows - 1>(p, rows, first_row, first_line, line_count);
  }
  dot_lines<Element, Rows>(p, first_row, first_line, line_count);
}

void dot(const Product& p) {
  constexpr int64_t kLineBlock = 48;  // stays in the first-level cache while the row tiles pass over it
  with_element(p.b_dtype, [&](auto element) {
    using Element = decltype(element);
    const bool side_by_side = p.line_stride == 16 && p.chunk_stride != 16;
    if (p.rows == 1 && side_by_side && p.k % 16 == 0) return dot_row_of_fractals<Element>(p);
    if (p.rows <= kMaxRows) return dot_rows<Element>(p, p.rows, 0, 0, p.columns);
    for (int64_t line = 0; line < p.columns; line += kLineBlock) {
      const int64_t lines = p.columns - line < kLineBlock ? p.columns - line : kLineBlock;
      for (int64_t row = 0; row < p.rows; row += kMaxRows) {
        dot_rows<Element>(p, p.rows - row < kMaxRows ? p.rows - row : kMaxRows, row, line, lines);
      }
    }
  });
}

// ---- A times lines that run along n ----

template <typename Element, int Rows, int Chunks>
void outer_tile(const Product& p, const float* a, const Element* b, float* c) {
  Vector sums[Rows][Chunks * kParts];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 32
    for (int v = 0; v < Chunks * kParts; ++v) sums[r][v] = p.accumulate ? load(c + r * p.c_stride + v * kLanes) : zero();
  for (int64_t k = 0; k < p.k; ++k, b += p.line_stride) {
    Vector line[Chunks * kParts];
#pragma GCC unroll 32
    for (int v = 0; v < Chunks * kParts; ++v) line[v] = load(b + v / kParts * p.chunk_stride + v % kParts * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vector row = broadcast(a[r * p.a_stride + k]);
#pragma GCC unroll 32
      for (int v = 0; v < Chunks * kParts; ++v) sums[r][v] = fma(row, line[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 32
    for (int v = 0; v < Chunks * kParts; ++v) store(c + r * p.c_stride + v * kLanes, sums[r][v]);
}

template <typename Element, int Rows, int Chunks = chunks_for(Rows)>
void outer_chunks(const Product& p, int64_t row, int64_t first, int64_t count) {
  const auto* b = static_cast<const Element*>(p.b);
  int64_t chunk = 0;
  for (; chunk + Chunks <= count; chunk += Chunks) {
    outer_tile<Element, Rows, Chunks>(p, p.a + row * p.a_stride, b + (first + chunk) * p.chunk_stride,
                                      p.c + row * p.c_stride + (first + chunk) * 16);
  }
  if constexpr (Chunks > 1) {
    if (chunk < count) outer_chunks<Element, Rows, Chunks / 2>(p, row, first + chunk, count - chunk);
  }
}

template <typename Element, int Rows = kMaxRows>
void outer_rows(const Product& p, int64_t rows, int64_t row, int64_t first, int64_t count) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return outer_rows<Element, Rows - 1>(p, rows, row, first, count);
  }
  outer_chunks<Element, Rows>(p, row, first, count);
}

void outer(const Product& p) {
  constexpr int64_t kBlock = chunks_for(kMaxRows);  // its lines stay in cache while the row tiles pass over them
  with_element(p.b_dtype, [&](auto element) {
    using Element = decltype(element);
    const int64_t chunks = p.columns / 16;
    if (p.rows <= kMaxRows) return outer_rows<Element>(p, p.rows, 0, 0, chunks);
    for (int64_t chunk = 0; chunk < chunks; chunk += kBlock) {
      const int64_t count = chunks - chunk < kBlock ? chunks - chunk : kBlock;
      for (int64_t row = 0; row < p.rows; row += kMaxRows) {
        outer_rows<Element>(p, p.rows - row < kMaxRows ? p.rows - row : kMaxRows, row, chunk, count);
      }
    }
  });
}

// ---- Conversion ----

template <typename Source, typename Target>
void convert(const Source* source, Target* target, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(target + i, load(source + i));
  if (i == count) return;
  Source last[kLanes] = {};
  Target converted[kLanes];
  std::memcpy(last, source + i, (count - i) * sizeof(Source));
  store(converted, load(last));
  std::memcpy(target + i, converted, (count - i) * sizeof(Target));
}

void to_float(const void* source, aclDataType dtype, float* target, int64_t count) {
  with_element(dtype, [&](auto element) {
    if constexpr (sizeof(element) == sizeof(float)) {
      std::memcpy(target, source, count * sizeof(float));
    } else {
      convert(static_cast<const decltype(element)*>(source), target, count);
    }
  });
}

void from_float(const float* source, void* target, aclDataType dtype, int64_t count) {
  switch (dtype) {
    case ACL_FLOAT16: return convert(source, static_cast<Half*>(target), count);
    case ACL_BF16: return convert(source, static_cast<BFloat16*>(target), count);
    default: std::memcpy(target, source, count * sizeof(float));
  }
}

// ---- Packing ----

typedef uint16_t Lane8 __attribute__((vector_size(16)));

// Transposes 8 x 8 two-byte elements in registers: three rounds of interleaving.
inline void transpose8(const uint16_t* const lines[8], uint16_t* out) {  // rows of `out` are 16 wide
  constexpr Lane8 kLow = {0, 8, 1, 9, 2, 10, 3, 11}, kHigh = {4, 12, 5, 13, 6, 14, 7, 15};
  Lane8 x[8], y[8];
  for (int i = 0; i < 8; ++i) std::memcpy(&x[i], lines[i], sizeof x[i]);
#pragma GCC unroll 3
  for (int round = 0; round < 3; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      y[2 * i] = __builtin_shuffle(x[i], x[i + 4], kLow);
      y[2 * i + 1] = __builtin_shuffle(x[i], x[i + 4], kHigh);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) x[i] = y[i];
  }
  for (int i = 0; i < 8; ++i) std::memcpy(out + 16 * i, &x[i], sizeof x[i]);
}

// 16 lines x 16 k of a k-major operand into 16 panel rows; fewer lines or k leave the rest of the columns zero.
template <typename Element>
void pack_block(const Element* line, int64_t line_stride, int64_t lines, int64_t depth, float* panel, int64_t width) {
  if (sizeof(Element) != 2 || lines < 16 || depth < 16) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t l = 0; l < 16; ++l) panel[k * width + l] = l < lines ? scalar_to_float(line[l * line_stride + k]) : 0.0f;
    }
    return;
  }
  for (int k = 0; k < 16; k += 8) {
    alignas(32) uint16_t columns[8][16];
    for (int l = 0; l < 16; l += 8) {
      const uint16_t* sources[8];
      for (int i = 0; i < 8; ++i) sources[i] = reinterpret_cast<const uint16_t*>(line + (l + i) * line_stride + k);
      transpose8(sources, &columns[0][l]);
    }
    for (int i = 0; i < 8; ++i) {
      const auto* from = reinterpret_cast<const Element*>(columns[i]);
      for (int part = 0; part < 16; part += kLanes) store(panel + (k + i) * width + part, load(from + part));
    }
  }
}

template <typename Element>
void pack_along_k(const GemmOperand& b, int64_t k0, int64_t depth, int64_t n0, int64_t columns, float* panel, int64_t width) {
  for (int64_t l = 0; l < width; l += 16) {
    const Element* line = static_cast<const Element*>(b.data) + (n0 + l) * b.line_stride;
    const int64_t lines = columns - l < 0 ? 0 : columns - l < 16 ? columns - l : 16;
    for (int64_t k = 0; k < depth; k += 16) {
      const Element* block = line + (k0 + k) / 16 * b.chunk_stride;
      // A line's part of this panel ends before hardware has noticed that it is being read.
      if (b.chunk_stride == 16) {
        for (int i = 0; i < 16; ++i) __builtin_prefetch(block + (16 + i) * b.line_stride);
      }
      pack_block(block, b.line_stride, lines, depth - k < 16 ? depth - k : 16, panel + k * width + l, width);
    }
  }
}

template <typename Element>
void pack_along_n(const GemmOperand& b, int64_t k0, int64_t depth, int64_t n0, int64_t columns, float* panel, int64_t width) {
  const Element* line = static_cast<const Element*>(b.data) + k0 * b.line_stride + n0 / 16 * b.chunk_stride;
  for (int64_t k = 0; k < depth; ++k, line += b.line_stride, panel += width) {
    // The next panel of a row-major operand is the next bytes of these lines, too far apart for hardware to foresee.
    __builtin_prefetch(line + width);
    __builtin_prefetch(line + width + 32);
    int64_t l = 0;
    const Element* chunk = line;
    for (; l + 16 <= columns; l += 16, chunk += b.chunk_stride) {
      for (int part = 0; part < 16; part += kLanes) store(panel + l + part, load(chunk + part));
    }
    for (; l < width; ++l) panel[l] = l < columns ? scalar_to_float(chunk[l % 16]) : 0.0f;
  }
}

// k0 and n0 are multiples of 16.
void pack(const GemmOperand& b, int64_t k0, int64_t depth, int64_t n0, int64_t columns, float* panel, int64_t width) {
  with_element(b.dtype, [&](auto element) {
    using Element = decltype(element);
    if (b.along_k) {
      pack_along_k<Element>(b, k0, depth, n0, columns, panel, width);
    } else {
      pack_along_n<Element>(b, k0, depth, n0, columns, panel, width);
    }
  });
}

// ---- Rows ----

// e^x for x <= 88, within 2 ulp: 2^n * e^r, |r| <= ln(2) / 2, e^r by its Taylor polynomial of degree 7 in Horner form;
// below -87 the result is 0 (a float subnormal at most).
inline Vector exponential(Vector x) {
  const Vector clamped = max(x, broadcast(-87.0f));
  const Vector n = nearest(clamped * broadcast(1.44269504f));
  Vector r = fma(n, broadcast(-0.693359375f), clamped);  // ln 2 in two parts, so that r is exact
  r = fma(n, broadcast(2.12194440e-4f), r);
  Vector y = broadcast(1.0f / 5040);
  y = fma(y, r, broadcast(1.0f / 720));
  y = fma(y, r, broadcast(1.0f / 120));
  y = fma(y, r, broadcast(1.0f / 24));
  y = fma(y, r, broadcast(1.0f / 6));
  y = fma(y, r, broadcast(0.5f));
  y = fma(y, r, broadcast(1.0f));
  y = fma(y, r, broadcast(1.0f));
  return y * power_of_two(n);
}

inline Vector negative_infinity() { return broadcast(-__builtin_inff()); }

// Applies `body` to whole vectors, the last one padded with `fill`.
template <typename Body>
inline void each_vector(const float* row, int64_t count, float fill, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, load(row + i), int64_t{kLanes});
  if (i == count) return;
  float last[kLanes];
  for (int l = 0; l < kLanes; ++l) last[l] = l < count - i ? row[i + l] : fill;
  body(i, load(last), count - i);
}

inline void store_some(float* target, Vector v, int64_t count) {
  if (count == kLanes) return store(target, v);
  float lanes[kLanes];
  store(lanes, v);
  std::memcpy(target, lanes, count * sizeof(float));
}

float row_max(const float* row, int64_t count) {
  Vector m = negative_infinity();
  each_vector(row, count, -__builtin_inff(), [&](int64_t, Vector v, int64_t) { m = max(v, m); });
  return largest(m);
}

float row_exp(float* row, int64_t count, float shift) {
  Vector total = zero();
  const Vector by = broadcast(shift);
  each_vector(row, count, -__builtin_inff(), [&](int64_t i, Vector v, int64_t lanes) {
    Vector e = exponential(v - by);
    // exponential(-87) is 1.6e-38: hidden keys must weigh nothing at all.
    const Vector threshold = broadcast(1.7e-38f);
    e = max(e - threshold, zero()) + (e > threshold ? threshold : zero());
    store_some(row + i, e, lanes);
    total = total + e;
  });
  return sum(total);
}

void scale_row(float* row, int64_t count, float factor) {
  const Vector by = broadcast(factor);
  each_vector(row, count, 0.0f, [&](int64_t i, Vector v, int64_t lanes) { store_some(row + i, v * by, lanes); });
}

void silu(const float* x, float* y, int64_t count) {
  each_vector(x, count, 0.0f, [&](int64_t i, Vector v, int64_t lanes) {
    // e^-x overflows for x < -88, where the result rounds to 0 in every half format: cap the exponent.
    const Vector e = exponential(zero() - max(v, broadcast(-80.0f)));
    store_some(y + i, v / (e + broadcast(1.0f)), lanes);
  });
}

float sum_of_squares(const float* row, int64_t count) {
  Vector total = zero();
  each_vector(row, count, 0.0f, [&](int64_t, Vector v, int64_t) { total = fma(v, v, total); });
  return sum(total);
}

// Plain: GCC makes of it the multiply-add of 16-bit pairs that every instruction set has.
int32_t dot_int8(const int8_t* a, const int8_t* b, int64_t count) {
  int32_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += int16_t{a[i]} * int16_t{b[i]};
  return total;
}

constexpr Kernels table(const char* instruction_set) {
  return {instruction_set, int64_t{chunks_for(kMaxRows)} * 16, 2 * kMaxRows, to_float, from_float, dot, outer, pack,
          row_max, row_exp, scale_row, silu, sum_of_squares, dot_int8};
}

}  // namespace
}  // namespace emulator
