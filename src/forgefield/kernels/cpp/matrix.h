// Products of row-major matrices whose rows lie anywhere: rows x matrix, and sums over rows of outer products.
// One small kernel keeps a tile of the result in registers; the right factor is packed into panels as wide as the tile.
#pragma once
#include <algorithm>
#include <cstdint>

#include "vector.h"

#ifdef __AVX512F__
constexpr int WIDE = 4, TALL = 6;  // vectors and rows of a tile: 24 of 32 registers
#else
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
  using R = Row<T, 64, N>;
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
      for (int64_t c = 0; c < columns; ++c) tile.to[i][c] = fresh ? edge[c] : tile.to[i][c] + edge[c];
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

// Packs one panel of the right factor, rows 0..depth; columns beyond the last are zero.
template <class T>
void pack_panel(T* to, const T* b, int64_t depth, int64_t row_step, int64_t column_step, int64_t columns) {
  const int64_t wide = std::min(columns, PANEL<T>);
  for (int64_t k = 0; k < depth; ++k, to += PANEL<T>) {
    const T* row = b + k * row_step;
    if (column_step == 1)
      std::copy_n(row, wide, to);
    else
      for (int64_t c = 0; c < wide; ++c) to[c] = row[c * column_step];
    std::fill(to + wide, to + PANEL<T>, T(0));
  }
}
