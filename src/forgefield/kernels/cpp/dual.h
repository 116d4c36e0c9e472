// Numbers with a direction: a + e b with e^2 = 0. What is written once for plain numbers gives its derivative along b as well.
#pragma once
#include <cmath>
#include <type_traits>

#include "vector.h"

template <class X>
struct Dual {
  X a, b;
};
template <class X>
inline Dual<X> operator+(const Dual<X>& x, const Dual<X>& y) {
  return {x.a + y.a, x.b + y.b};
}
template <class X>
inline Dual<X> operator-(const Dual<X>& x, const Dual<X>& y) {
  return {x.a - y.a, x.b - y.b};
}
template <class X, class Y>
inline auto operator*(const Dual<X>& x, const Dual<Y>& y) -> Dual<decltype(x.a * y.a)> {
  return {x.a * y.a, x.a * y.b + x.b * y.a};
}
template <class X>
inline Dual<X> operator/(const Dual<X>& x, const Dual<X>& y) {
  const X whole = x.a / y.a;
  return {whole, (x.b - whole * y.b) / y.a};
}
template <class X>
struct IsDual : std::false_type {};
template <class X>
struct IsDual<Dual<X>> : std::true_type {};
template <class X, class Y>
  requires(!IsDual<Y>::value)
inline auto operator*(const Dual<X>& x, const Y& k) -> Dual<decltype(x.a * k)> {
  return {x.a * k, x.b * k};
}

// Square root of a number or of each lane.
template <class T, int B>
inline typename Vector<T, B>::type root(const typename Vector<T, B>::type& x) {
  if constexpr (B == sizeof(T)) {
    return std::sqrt(x);
  } else {
    typename Vector<T, B>::type found;
    for (int i = 0; i < int(B / sizeof(T)); ++i) found[i] = std::sqrt(x[i]);
    return found;
  }
}
template <class T, int B>
inline Dual<typename Vector<T, B>::type> root(const Dual<typename Vector<T, B>::type>& x) {
  const auto found = root<T, B>(x.a);
  return {found, x.b / (found * T(2))};
}

// B bytes of T, plain or dual; one number is B = sizeof(T).
template <class T, int B, bool D>
using Number = std::conditional_t<D, Dual<typename Vector<T, B>::type>, typename Vector<T, B>::type>;

template <class T, int B, bool D>
inline Number<T, sizeof(T), D> folded(const Number<T, B, D>& x) {
  if constexpr (D)
    return {halved<T, B>(x.a), halved<T, B>(x.b)};
  else
    return halved<T, B>(x);
}

// A constant.
template <class T, bool D>
inline Number<T, sizeof(T), D> constant(T x) {
  if constexpr (D)
    return {x, T(0)};
  else
    return x;
}

// The same number in all lanes.
template <class T, int B, bool D>
inline Number<T, B, D> wide(const Number<T, sizeof(T), D>& x) {
  using V = typename Vector<T, B>::type;
  if constexpr (D)
    return {V{} + x.a, V{} + x.b};
  else
    return V{} + x;
}

// A row that is read; without directions they are zero.
template <class T, bool D>
struct Given {
  const T *a = nullptr, *b = nullptr;
  template <int B>
  Number<T, B, D> at(int64_t c) const {
    using Loose = typename Vector<T, B>::loose;
    using V = typename Vector<T, B>::type;
    const V value = *reinterpret_cast<const Loose*>(a + c);
    if constexpr (D)
      return {value, b ? V(*reinterpret_cast<const Loose*>(b + c)) : V{}};
    else
      return value;
  }
  // Where directions are known to be there.
  template <int B>
  Number<T, B, D> full(int64_t c) const {
    using Loose = typename Vector<T, B>::loose;
    if constexpr (D)
      return {*reinterpret_cast<const Loose*>(a + c), *reinterpret_cast<const Loose*>(b + c)};
    else
      return *reinterpret_cast<const Loose*>(a + c);
  }
  Given from(int64_t c) const { return {a + c, b ? b + c : nullptr}; }
};

// A row that is written: values, or of dual numbers the directions. Nothing is written to a row that is not there.
template <class T, bool D>
struct Wanted {
  T* p = nullptr;
  template <int B>
  void put(int64_t c, const Number<T, B, D>& x) const {
    if (p) *reinterpret_cast<typename Vector<T, B>::loose*>(p + c) = kept<B>(x);
  }
  template <int B>
  void add(int64_t c, const Number<T, B, D>& x) const {
    if (p) *reinterpret_cast<typename Vector<T, B>::loose*>(p + c) += kept<B>(x);
  }
  Wanted from(int64_t c) const { return {p ? p + c : nullptr}; }

 private:
  template <int B>
  static typename Vector<T, B>::type kept(const Number<T, B, D>& x) {
    if constexpr (D)
      return x.b;
    else
      return x;
  }
};

template <int B>
struct Bytes {};

// Calls each(c, Bytes<B>) for n columns: whole vectors, then one by one.
template <class T, class F>
inline void columns(int64_t n, F&& each) {
  int64_t c = 0;
  for (; c + LANES<T> <= n; c += LANES<T>) each(c, Bytes<64>{});
  for (; c < n; ++c) each(c, Bytes<sizeof(T)>{});
}

// The sum of each(c, Bytes<B>) over n columns.
template <class T, bool D, class F>
inline Number<T, sizeof(T), D> summed(int64_t n, F&& each) {
  Number<T, 64, D> whole{};
  int64_t c = 0;
  for (; c + LANES<T> <= n; c += LANES<T>) whole = whole + each(c, Bytes<64>{});
  auto sum = folded<T, 64, D>(whole);
  for (; c < n; ++c) sum = sum + each(c, Bytes<sizeof(T)>{});
  return sum;
}
