// Puts the CPU core into the Python module.
#pragma once

#include <nanobind/nanobind.h>

void bind_core(nanobind::module_& module);
