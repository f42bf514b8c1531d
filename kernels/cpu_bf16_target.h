#pragma once
// Instructions of AVX512-BF16, in sources that are compiled for every x86-64 machine: what is
// marked so must not be called where cpu_has_bf16() says no.
// The warning is of the header's own undefined values (g++ 12).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#define SFUMATO_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define SFUMATO_BF16_INLINE SFUMATO_BF16_TARGET inline __attribute__((always_inline))
