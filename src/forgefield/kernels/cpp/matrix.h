// Products of row-major matrices whose rows lie anywhere: rows x matrix, and sums over rows of outer products.
// One small kernel keeps a tile of the result in registers; the right factor is packed into panels as wide as the tile.
#pragma once
#include <algorithm>
#include <cstdint>

#include "vector.h"

// REGISTER: bytes of one; sums in vectors of two registers would be kept in memory by the compiler.
#ifdef __AVX512F__
constexpr int REGISTER = 64;
constexpr int WIDE = 4, TALL = 6;  // vectors and rows of a tile: 24 of 32 registers
#else
constexpr int REGISTER = 32;
constexpr int WIDE = 1, TALL = 6;  // a vector of 64 bytes takes two registers of 32: 12 of 16
#endif
constexpr int64_t PANEL_BYTES = 24576;  // of a panel that is walked at a time: it stays in the first-level cache

template <class T>
constexpr int64_t PANEL = WIDE * LANES<T>;  // columns of a panel

template <class T>
int64_t panels(int64_t columns) {
  return (columns + PANEL<T> - 1) / PANEL<T>;
}
template <class T>
int64_t packed_size(int64_t rows, int64_t columns) {
  return panels<T>(columns) * PANEL<T> * rows;
}

// Rows of a tile: where each begins in the left factor and in the result.
template <class T>
struct Tile {
  const T* from[TALL];
  T* to[TALL];
  int rows;
};

// to += scale x from[0..depth) x panel, or = if fresh. `step` lies between numbers of a row of the left factor.
template <class T, int M, int N>
inline void multiply_tile(const Tile<T>& tile, int64_t depth, int64_t step, const T* panel, int64_t panel_step, T scale, bool fresh,
                          int64_t columns) {
  using R = Row<T, REGISTER, N * (64 / REGISTER)>;
  R sum[M];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) sum[i] = R::zero();
  for (int64_t k = 0; k < depth; ++k) {
    const R b = R::load(panel + k * panel_step);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) sum[i].add(tile.from[i][k * step], b);
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    const R result = sum[i].times(scale);
    if (columns >= R::channels) {
      if (fresh)
        result.store(tile.to[i]);
      else
        result.add_to(tile.to[i]);
    } else {
      alignas(64) T edge[R::channels];
      result.store(edge);
      int64_t c = 0;
      for (; c + LANES<T> <= columns; c += LANES<T>) {
        const auto part = Row<T, 64, 1>::load(edge + c);
        fresh ? part.store(tile.to[i] + c) : part.add_to(tile.to[i] + c);
      }
      for (; c < columns; ++c) tile.to[i][c] = fresh ? edge[c] : tile.to[i][c] + edge[c];
    }
  }
}

template <class T, int M>
inline void multiply_rows(const Tile<T>& tile, int64_t depth, int64_t step, const T* panel, int64_t panel_step, T scale, bool fresh,
                          int64_t columns) {
  if (columns <= LANES<T>)
    multiply_tile<T, M, 1>(tile, depth, step, panel, panel_step, scale, fresh, columns);
  else if (WIDE > 2 && columns <= 2 * LANES<T>)
    multiply_tile<T, M, std::min(2, WIDE)>(tile, depth, step, panel, panel_step, scale, fresh, columns);
  else
    multiply_tile<T, M, WIDE>(tile, depth, step, panel, panel_step, scale, fresh, columns);
}

template <class T>
void multiply(const Tile<T>& tile, int64_t depth, int64_t step, const T* panel, int64_t panel_step, T scale, bool fresh,
              int64_t columns) {
  switch (tile.rows) {
    case 1: return multiply_rows<T, 1>(tile, depth, step, panel, panel_step, scale, fresh, columns);
    case 2: return multiply_rows<T, 2>(tile, depth, step, panel, panel_step, scale, fresh, columns);
    case 3: return multiply_rows<T, 3>(tile, depth, step, panel, panel_step, scale, fresh, columns);
    case 4: return multiply_rows<T, 4>(tile, depth, step, panel, panel_step, scale, fresh, columns);
    case 5: return multiply_rows<T, 5>(tile, depth, step, panel, panel_step, scale, fresh, columns);
    default: return multiply_rows<T, TALL>(tile, depth, step, panel, panel_step, scale, fresh, columns);
  }
}

#ifdef FORGEFIELD_SHUFFLES
// Of rows a and b of a matrix, whose numbers differ in bit D alone: the row that gets lanes from both when it is transposed.
template <int D, bool HIGH, class V, size_t... J>
inline V exchanged(const V& a, const V& b, std::index_sequence<J...>) {
  constexpr size_t n = sizeof...(J);
  if constexpr (HIGH)
    return __builtin_shufflevector(a, b, (J & D ? J + n : J + D)...);
  else
    return __builtin_shufflevector(a, b, (J & D ? J - D + n : J)...);
}
template <class T, int D>
inline void exchange(typename Vector<T, 64>::type (&v)[LANES<T>]) {
  constexpr std::make_index_sequence<LANES<T>> lanes{};
#pragma GCC unroll 16
  for (int i = 0; i < LANES<T>; ++i)
    if (!(i & D)) {
      const auto low = exchanged<D, false>(v[i], v[i | D], lanes), high = exchanged<D, true>(v[i], v[i | D], lanes);
      v[i] = low, v[i | D] = high;
    }
}
#endif

// to[k, c] = b[c, k] for LANES x LANES numbers, of rows that lie `to_step` and `step` apart.
template <class T>
inline void turn(T* to, int64_t to_step, const T* b, int64_t step) {
#ifdef FORGEFIELD_SHUFFLES
  typename Vector<T, 64>::type v[LANES<T>];
#pragma GCC unroll 16
  for (int c = 0; c < LANES<T>; ++c) v[c] = Row<T, 64, 1>::load(b + c * step).v[0];
  exchange<T, 1>(v), exchange<T, 2>(v), exchange<T, 4>(v);
  if constexpr (LANES<T> > 8) exchange<T, 8>(v);
#pragma GCC unroll 16
  for (int k = 0; k < LANES<T>; ++k) Row<T, 64, 1>{{v[k]}}.store(to + k * to_step);
#else
  for (int64_t c = 0; c < LANES<T>; ++c)
    for (int64_t k = 0; k < LANES<T>; ++k) to[k * to_step + c] = b[c * step + k];
#endif
}

// Packs one panel of the right factor, rows 0..depth; columns beyond the last are zero.
template <class T>
void pack_panel(T* to, const T* b, int64_t depth, int64_t row_step, int64_t column_step, int64_t columns) {
  const int64_t wide = std::min(columns, PANEL<T>), lanes = LANES<T>;
  const int64_t even = column_step != 1 && row_step == 1 ? wide / lanes * lanes : 0;  // columns that are turned in blocks
  const int64_t deep = depth / lanes * lanes;
  for (int64_t c = 0; c < even; c += lanes)
    for (int64_t k = 0; k < deep; k += lanes) turn(to + k * PANEL<T> + c, PANEL<T>, b + c * column_step + k, column_step);
  for (int64_t k = 0; k < depth; ++k, to += PANEL<T>) {
    const T* row = b + k * row_step;
    if (column_step == 1)
      std::copy_n(row, wide, to);
    else
      for (int64_t c = k < deep ? even : 0; c < wide; ++c) to[c] = row[c * column_step];
    std::fill(to + wide, to + PANEL<T>, T(0));
  }
}
