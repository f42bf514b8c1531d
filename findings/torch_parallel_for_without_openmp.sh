#!/usr/bin/env bash
# torch 2.11.0: at::parallel_for is a plain loop in programs that are compiled without -fopenmp.
#
# Expected: a C++ program linked against LibTorch runs at::parallel_for on at::get_num_threads() threads, as the
# library's own operators do: the header, the thread count and the thread pool are the library's.
# Seen: compiled without -fopenmp, at::get_num_threads() is 2 and both halves of the range run on one thread, without
# a warning; the same source with -fopenmp uses two. ATen/ParallelOpenMP.h asks for _OPENMP where it is included, and
# neither the CMake package of the wheel nor its compile options set it.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install torch==2.11.0
torch=$(environment/bin/python -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')

cat >program.cpp <<'CPP'
#include <ATen/Parallel.h>

#include <cstdio>
#include <mutex>
#include <set>
#include <thread>

int main() {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  std::printf("%d threads, %zu used\n", at::get_num_threads(), threads.size());
}
CPP
build_and_run() {
  g++ -std=c++20 -O1 "$@" program.cpp -isystem "$torch/include" -o program \
    -L"$torch/lib" -ltorch_cpu -lc10 -Wl,-rpath,"$torch/lib"
  ./program
}
grep -rl fopenmp "$torch/share/cmake" && { echo 'CHANGED: the CMake package mentions -fopenmp'; exit 1; }
without=$(build_and_run)
with=$(build_and_run -fopenmp)
echo "without -fopenmp: $without"
echo "with -fopenmp:    $with"
[[ $without == '2 threads, 1 used' && $with == '2 threads, 2 used' ]] || { echo CHANGED; exit 1; }
