// Blocks of channels: N vectors of 64 bytes, or N single numbers for the channels that are left over.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

// B bytes of numbers T: as a value, and as it lies in memory that is aligned to single numbers only.
template <class T, int B>
struct Vector {
  typedef T type __attribute__((vector_size(B)));
  typedef T loose __attribute__((vector_size(B), aligned(sizeof(T)), may_alias));
};
template <>
struct Vector<float, 4> {
  typedef float type, loose;
};
template <>
struct Vector<double, 8> {
  typedef double type, loose;
};

// Room for numbers, not set to anything, from a cache line on: a wide row then never straddles two.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) : size_(size), memory_(new T[size + 64 / sizeof(T)]) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    first_ = memory_.get() + ((64 - address % 64) % 64) / sizeof(T);
  }
  Scratch(const Scratch& other) : Scratch(other.size_) {}
  Scratch& operator=(const Scratch&) = delete;
  T* data() { return first_; }
  T& operator[](int64_t i) { return first_[i]; }

 private:
  int64_t size_;
  std::unique_ptr<T[]> memory_;
  T* first_;
};

// Sum of a vector, by adding its halves.
template <class T, int B>
inline T halved(const typename Vector<T, B>::type& x) {
  if constexpr (B == sizeof(T)) {
    return x;
  } else {
    typename Vector<T, B / 2>::type low, high;
    std::memcpy(&low, &x, B / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&x) + B / 2, B / 2);
    return halved<T, B / 2>(low + high);
  }
}

// N vectors of B bytes, loaded from and stored to rows of channels.
template <class T, int B, int N>
struct alignas(B) Row {
  using V = typename Vector<T, B>::type;
  using Loose = typename Vector<T, B>::loose;
  static constexpr int channels = N * B / sizeof(T);
  V v[N];
  static inline Row zero() {
    Row r;
    for (int i = 0; i < N; ++i) r.v[i] = V{};
    return r;
  }
  static inline Row load(const T* p) {
    Row r;
    for (int i = 0; i < N; ++i) r.v[i] = reinterpret_cast<const Loose*>(p)[i];
    return r;
  }
  inline void store(T* p) const {
    for (int i = 0; i < N; ++i) reinterpret_cast<Loose*>(p)[i] = v[i];
  }
  inline void add_to(T* p) const {
    for (int i = 0; i < N; ++i) reinterpret_cast<Loose*>(p)[i] += v[i];
  }
  inline void add(const Row& a) {
    for (int i = 0; i < N; ++i) v[i] += a.v[i];
  }
  inline void add(const Row& a, const Row& b) {
    for (int i = 0; i < N; ++i) v[i] += a.v[i] * b.v[i];
  }
  inline void add(T a, const Row& b) {
    for (int i = 0; i < N; ++i) v[i] += a * b.v[i];
  }
  inline Row times(const Row& a) const {
    Row r;
    for (int i = 0; i < N; ++i) r.v[i] = v[i] * a.v[i];
    return r;
  }
  inline Row times(T a) const {
    Row r;
    for (int i = 0; i < N; ++i) r.v[i] = a * v[i];
    return r;
  }
  inline Row<T, B, 1> folded() const {  // sum of the vectors
    Row<T, B, 1> sum{{v[0]}};
    for (int i = 1; i < N; ++i) sum.v[0] += v[i];
    return sum;
  }
  inline T total() const {  // over all channels
    return halved<T, B>(folded().v[0]);
  }
};

template <class T>
constexpr int64_t LANES = 64 / sizeof(T);

#if defined(__AVX512F__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define FORGEFIELD_SHUFFLES
#endif
#endif
#ifdef FORGEFIELD_SHUFFLES
// Lanes whose bit D is 0: sums of a's lanes that differ in that bit; the others: of b's.
template <int D, class V, size_t... J>
inline V merged(const V& a, const V& b, std::index_sequence<J...>) {
  constexpr size_t n = sizeof...(J);
  return __builtin_shufflevector(a, b, (J & D ? J + n : J)...) + __builtin_shufflevector(a, b, (J & D ? (J ^ D) + n : J ^ D)...);
}
// Lane i of the result is the total of vector i.
template <class T, int D = 1, int COUNT>
inline typename Vector<T, 64>::type totals(const typename Vector<T, 64>::type (&v)[COUNT]) {
  if constexpr (COUNT == 1) {
    return v[0];
  } else {
    typename Vector<T, 64>::type half[COUNT / 2];
    for (int i = 0; i < COUNT / 2; ++i) half[i] = merged<D>(v[2 * i], v[2 * i + 1], std::make_index_sequence<LANES<T>>{});
    return totals<T, 2 * D, COUNT / 2>(half);
  }
}
#endif

// sums[i] = total of the i-th vector, for i < n; vectors and sums have room for a whole number of LANES.
template <class T>
inline void total_lanes(const T* vectors, T* sums, int64_t n) {
#ifdef FORGEFIELD_SHUFFLES
  for (int64_t i = 0; i < n; i += LANES<T>) {
    typename Vector<T, 64>::type v[LANES<T>];
    for (int64_t k = 0; k < LANES<T>; ++k) v[k] = Row<T, 64, 1>::load(vectors + (i + k) * LANES<T>).v[0];
    Row<T, 64, 1>{{totals<T>(v)}}.store(sums + i);
  }
#else
  for (int64_t i = 0; i < n; ++i) sums[i] = Row<T, 64, 1>::load(vectors + i * LANES<T>).total();
#endif
}

// Asks for the cache lines of `rows` rows, some time before they are used.
template <class R, class T>
inline void fetch(const T* p, int64_t rows, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < R::channels; k += 64 / sizeof(T)) __builtin_prefetch(p + i * stride + k);
}

// Calls `work` with a row type and the first channel of each block until all channels are done.
template <class T, int N, class F>
inline void over_channels(int64_t channels, F&& work) {
  constexpr int64_t lanes = 64 / sizeof(T);
  int64_t c = 0;
  for (; c + N * lanes <= channels; c += N * lanes) work(Row<T, 64, N>{}, c);
  if constexpr (N > 1)
    for (; c + lanes <= channels; c += lanes) work(Row<T, 64, 1>{}, c);
  for (; c < channels; ++c) work(Row<T, sizeof(T), 1>{}, c);
}
