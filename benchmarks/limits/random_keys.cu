// `RandomKeys` for Python's ctypes: compiled by nvcc for a GPU, or as C++ for threads of the host.
#include "random_keys.h"

using ngram::device::RandomKeys;

extern "C" {

RandomKeys* keys_new(int device, std::uint64_t slots, int lanes) { return new RandomKeys(device, slots, lanes); }
void keys_delete(RandomKeys* keys) { delete keys; }
void keys_add(RandomKeys* keys, std::uint64_t begin, std::uint64_t end) { keys->add(begin, end); }
void keys_find(RandomKeys* keys, std::uint64_t begin, std::uint64_t end) { keys->find(begin, end); }
std::uint64_t keys_found(RandomKeys* keys) { return keys->found(); }
}
