// What there is to run on: compiled by nvcc, a GPU; compiled as C++, threads of the host.
#include <stdexcept>

#include "cuda/device.h"
#include "cuda/parallel.h"

namespace ngram::device {

#ifdef __CUDACC__

const bool kOnHost = false;

void use_threads(int) { throw std::logic_error("a GPU has its own threads"); }

std::string problem() {
  int driver = 0, runtime = 0, devices = 0;
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return "";
  cudaGetLastError();
  const auto version = [](int number) {
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  };
  const bool known = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
  return std::string(error == cudaSuccess ? "no device" : cudaGetErrorString(error)) + "; driver " +
         (known ? "for CUDA " + version(driver) : "none") + ", built with CUDA " + version(runtime);
}

std::string describe(int device) {
  cudaDeviceProp found{};
  int driver = 0;
  parallel::check(cudaGetDeviceProperties(&found, device), "no such GPU");
  cudaDriverGetVersion(&driver);
  return std::string(found.name) + ", sm_" + std::to_string(10 * found.major + found.minor) + ", driver for CUDA " +
         std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10);
}

bool holds(int device, const void* memory) {
  cudaPointerAttributes found{};
  if (cudaPointerGetAttributes(&found, memory) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return found.type == cudaMemoryTypeDevice && found.device == device;
}

#else

const bool kOnHost = true;

void use_threads(int threads) { parallel::Executor::threads = threads; }
std::string problem() { return ""; }
std::string describe(int) { return "threads of the host"; }
bool holds(int, const void*) { return true; }

#endif

}  // namespace ngram::device
