#pragma once

/// Marks a function that is compiled for three levels of x86-64 (AVX-512, AVX2, every machine), of
/// which the loader takes the best that the machine has.
#define SFUMATO_EVERY_X86_64 \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
