// An object that Python's threads share: its methods are called one at a time. Readers too, since they write scratch.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <mutex>
#include <type_traits>
#include <utility>

// Bound in place of T, which only `call` reaches: a method that is not `locked` does not find its object.
template <class T>
class Shared {
 public:
  template <class... Args>
  explicit Shared(Args&&... args) : object_(std::forward<Args>(args)...) {}

  // f(object, args...), the GIL held. Who waits gives the GIL away: the call that is waited for may ask for it.
  template <class F, class... Args>
  decltype(auto) call(const F& f, Args&&... args) {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) {
      const pybind11::gil_scoped_release release;
      lock.lock();
    }
    return std::invoke(f, object_, std::forward<Args>(args)...);
  }

 private:
  T object_;
  std::recursive_mutex mutex_;  // the collector may run a finaliser within a call, and that may call again
};

// Functions and methods of T as methods of Shared<T>.
template <class T, class Result, class... Args>
auto locked(Result (*f)(T&, Args...)) {
  return [f](Shared<std::remove_const_t<T>>& self, Args... args) -> Result {
    return self.call(f, std::forward<Args>(args)...);
  };
}

template <class T, class Result, class... Args>
auto locked(Result (T::*f)(Args...)) {
  return [f](Shared<T>& self, Args... args) -> Result { return self.call(f, std::forward<Args>(args)...); };
}

template <class T, class Result, class... Args>
auto locked(Result (T::*f)(Args...) const) {
  return [f](Shared<T>& self, Args... args) -> Result { return self.call(f, std::forward<Args>(args)...); };
}
