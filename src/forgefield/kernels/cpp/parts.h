// Several tensors as one argument: those of the layers of a network.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace parts {
using Parts = std::vector<at::Tensor>;

// The same, contiguous.
inline Parts packed(at::TensorList given) {
  Parts found;
  for (const auto& x : given) found.push_back(x.contiguous());
  return found;
}

template <class T>
std::vector<const T*> read(const Parts& parts) {
  std::vector<const T*> found;
  for (const auto& x : parts) found.push_back(x.const_data_ptr<T>());
  return found;
}
template <class T>
std::vector<T*> write(Parts& parts) {
  std::vector<T*> found;
  for (auto& x : parts) found.push_back(x.data_ptr<T>());
  return found;
}

}  // namespace parts
