// Adds the mixer to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_mixer(pybind11::module_& m);
