// What adds each family to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_codec(pybind11::module_& m);
void bind_exact(pybind11::module_& m);
void bind_hashed(pybind11::module_& m);
void bind_mixer(pybind11::module_& m);
void bind_ppmd(pybind11::module_& m);
