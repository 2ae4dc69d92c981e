// The choice of instruction set, made once: the best that both the processor and the build have, or the one
// named by the environment variable PWLU_CPU_ISA (avx512_bf16, avx512, avx2, plain).
#pragma once

#include "kernels.h"

namespace pwlu::cpu {

// Throws std::invalid_argument if PWLU_CPU_ISA names a set that is unknown or that this processor lacks.
const InstructionSet& chosen_instruction_set();

template <typename T, typename X>
const Kernels<T, X>& chosen_kernels();

}  // namespace pwlu::cpu
