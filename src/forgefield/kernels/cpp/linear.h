// Linear maps of the rows of atoms: one matrix per block of rows (a degree) and set of atoms (an element).
#pragma once
#include <omp.h>

#include <algorithm>
#include <vector>

#include "matrix.h"

// Block g: rows [in, in + width) of each atom of the input go to rows [out, out + width) of the output.
struct Block {
  int64_t width, in, out;
};

struct Maps {
  int64_t atoms, rows_in, rows_out, depth, columns;  // depth: numbers of an input row; columns: of an output row
  std::vector<Block> blocks;
  std::vector<int64_t> first;  // of the atoms of each set, and the end
  int64_t sets() const { return int64_t(first.size()) - 1; }
};

struct Task {  // rows of one block and set
  int64_t block, set, begin, end;
};

inline double operations(const Maps& m) {
  double rows = 0;
  for (const auto& b : m.blocks) rows += double(b.width) * double(m.first.back());
  return 2.0 * rows * double(m.depth) * double(m.columns);
}

constexpr double FEW_OPERATIONS = 2e5;  // not worth a second thread
constexpr int64_t ROWS = 96;            // of a task

inline std::vector<Task> row_tasks(const Maps& m) {
  std::vector<Task> tasks;
  for (int64_t g = 0; g < int64_t(m.blocks.size()); ++g)
    for (int64_t z = 0; z < m.sets(); ++z) {
      const int64_t n = (m.first[z + 1] - m.first[z]) * m.blocks[g].width;
      for (int64_t begin = 0; begin < n; begin += ROWS) tasks.push_back({g, z, begin, std::min(n, begin + ROWS)});
    }
  return tasks;
}

// Rows x packed matrix; a panel, or a part of it, stays in the first-level cache while all tiles pass.
template <class T>
inline void multiply_tiles(const Tile<T>* tiles, int n_tiles, int64_t depth, int64_t columns, const T* packed, T scale) {
  const int64_t deep = std::max<int64_t>(1, PANEL_BYTES / (PANEL<T> * sizeof(T)));
  for (int64_t c = 0; c < columns; c += PANEL<T>)
    for (int64_t k = 0; k < depth; k += deep)
      for (int i = 0; i < n_tiles; ++i) {
        Tile<T> tile = tiles[i];
        for (int row = 0; row < tile.rows; ++row) tile.from[row] += k, tile.to[row] += c;
        multiply(tile, std::min(deep, depth - k), 1, packed + c * depth + k * PANEL<T>, PANEL<T>, scale, k == 0, columns - c);
      }
}

// A few rows (at most ROWS), one after the other in memory, x packed matrix.
template <class T>
inline void map_block(int64_t rows, const T* in, int64_t depth, const T* packed, int64_t columns, T* out, T scale) {
  Tile<T> tiles[(ROWS + TALL - 1) / TALL];
  int n_tiles = 0;
  for (int64_t r = 0; r < rows; r += TALL, ++n_tiles) {
    Tile<T>& tile = tiles[n_tiles];
    tile.rows = int(std::min<int64_t>(TALL, rows - r));
    for (int i = 0; i < tile.rows; ++i) tile.from[i] = in + (r + i) * depth, tile.to[i] = out + (r + i) * columns;
  }
  multiply_tiles(tiles, n_tiles, depth, columns, packed, scale);
}

// out[n, block rows] = scale x in[n, block rows] x matrix(block, set of n). Packed: all matrices, in panels.
template <class T>
void map_rows(const Maps& m, const T* in, const T* packed, T* out, T scale) {
  const auto tasks = row_tasks(m);
  const int64_t size = packed_size<T>(m.depth, m.columns);
#pragma omp parallel for schedule(dynamic, 1) if (operations(m) > FEW_OPERATIONS)
  for (int64_t t = 0; t < int64_t(tasks.size()); ++t) {
    const Task& task = tasks[t];
    const Block& b = m.blocks[task.block];
    const T* matrix = packed + (task.block * m.sets() + task.set) * size;
    Tile<T> tiles[(ROWS + TALL - 1) / TALL];
    int n_tiles = 0;
    for (int64_t r = task.begin; r < task.end; r += TALL, ++n_tiles) {
      Tile<T>& tile = tiles[n_tiles];
      tile.rows = int(std::min<int64_t>(TALL, task.end - r));
      for (int i = 0; i < tile.rows; ++i) {
        const int64_t atom = m.first[task.set] + (r + i) / b.width, row = (r + i) % b.width;
        tile.from[i] = in + (atom * m.rows_in + b.in + row) * m.depth;
        tile.to[i] = out + (atom * m.rows_out + b.out + row) * m.columns;
      }
    }
    multiply_tiles(tiles, n_tiles, m.depth, m.columns, matrix, scale);
  }
}

// Packs the matrices (blocks, sets, depth, columns), given by the steps between their rows and columns.
template <class T>
void pack_matrices(const Maps& m, const T* weights, int64_t row_step, int64_t column_step, T* packed) {
  const int64_t n = panels<T>(m.columns), all = int64_t(m.blocks.size()) * m.sets();
#pragma omp parallel for schedule(static) if (operations(m) > FEW_OPERATIONS)
  for (int64_t i = 0; i < all * n; ++i) {
    const int64_t c = i % n * PANEL<T>;
    pack_panel<T>(packed + i * PANEL<T> * m.depth, weights + i / n * m.depth * m.columns + c * column_step, m.depth, row_step,
                  column_step, m.columns - c);
  }
}

// Copies rows [begin, end) of a block and set into one contiguous matrix, from column `first` on, `wide` of them.
template <class T>
void gather_rows(T* to, int64_t to_step, const T* from, int64_t rows, int64_t offset, int64_t length, const Block& b, int64_t atom,
                 int64_t begin, int64_t end, int64_t first, int64_t wide) {
  for (int64_t r = begin; r < end; ++r, to += to_step) {
    const T* row = from + ((atom + r / b.width) * rows + offset + r % b.width) * length + first;
    std::copy_n(row, wide, to);
    std::fill(to + wide, to + to_step, T(0));
  }
}

constexpr int64_t SUMMED = 96;  // rows that are gathered at a time

template <class T>
constexpr bool near(int64_t columns) {  // such rows are used where they lie: they share no few sets of the first-level cache
  return columns * int64_t(sizeof(T)) <= 512;
}

// g(block, set) = scale x sum over rows of in^T x gradient: (depth, columns) each.
template <class T>
void sum_outer(const Maps& m, const T* in, const T* gradient, T* out, T scale) {
  const int64_t wide = panels<T>(m.columns), all = int64_t(m.blocks.size()) * m.sets();
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(m.depth / (4 * TALL), 2 * omp_get_max_threads() / (all * wide)));
  const int64_t share = (m.depth + parts - 1) / parts;
#pragma omp parallel if (operations(m) > FEW_OPERATIONS)
  {
    Scratch<T> left(SUMMED * share), right(SUMMED * PANEL<T>);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < all * wide * parts; ++i) {
      const int64_t part = i % parts, panel = i / parts % wide, matrix = i / parts / wide;
      const Block& b = m.blocks[matrix / m.sets()];
      const int64_t z = matrix % m.sets(), rows = (m.first[z + 1] - m.first[z]) * b.width;
      const int64_t k = part * share, deep = std::min(share, m.depth - k), c = panel * PANEL<T>;
      T* to = out + (matrix * m.depth + k) * m.columns + c;
      if (!rows)
        for (int64_t row = 0; row < deep; ++row) std::fill_n(to + row * m.columns, std::min(PANEL<T>, m.columns - c), T(0));
      for (int64_t begin = 0; begin < rows; begin += SUMMED) {
        const int64_t end = std::min(rows, begin + SUMMED);
        const T *a = left.data(), *g = right.data();
        int64_t a_step = share, g_step = PANEL<T>;
        if (b.width == m.rows_in && near<T>(m.depth))
          a = in + (m.first[z] * b.width + begin) * m.depth + k, a_step = m.depth;
        else
          gather_rows(left.data(), share, in, m.rows_in, b.in, m.depth, b, m.first[z], begin, end, k, deep);
        if (b.width == m.rows_out && near<T>(m.columns) && m.columns - c >= PANEL<T>)
          g = gradient + (m.first[z] * b.width + begin) * m.columns + c, g_step = m.columns;
        else
          gather_rows(right.data(), PANEL<T>, gradient, m.rows_out, b.out, m.columns, b, m.first[z], begin, end, c,
                      std::min(PANEL<T>, m.columns - c));
        for (int64_t row = 0; row < deep; row += TALL) {
          Tile<T> tile;
          tile.rows = int(std::min<int64_t>(TALL, deep - row));
          for (int t = 0; t < tile.rows; ++t)
            tile.from[t] = a + row + t, tile.to[t] = to + (row + t) * m.columns;
          multiply(tile, end - begin, a_step, g, g_step, scale, begin == 0, m.columns - c);
        }
      }
    }
  }
}
