# Target sfumato_torch: headers and CPU libraries of LibTorch 2.11.0, linked by name. (The wheel's
# own CMake package insists on a CUDA toolkit and appends flags to every CUDA source.)
set(SFUMATO_TORCH_VERSION 2.11.0)
set(torch_dir ${SFUMATO_TORCH_DIR})
if(NOT torch_dir AND DEFINED ENV{SFUMATO_TORCH_DIR})
  set(torch_dir $ENV{SFUMATO_TORCH_DIR})
endif()
if(NOT torch_dir)
  file(GLOB torch_dir ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
endif()
if(NOT EXISTS ${torch_dir}/include/ATen/core/Tensor.h)
  message(FATAL_ERROR "LibTorch not found in '${torch_dir}'. Run scripts/setup, or name an existing "
                      "LibTorch ${SFUMATO_TORCH_VERSION} with -DSFUMATO_TORCH_DIR=FOLDER.")
endif()
file(READ ${torch_dir}/include/torch/headeronly/version.h torch_version)
string(REGEX MATCH "TORCH_VERSION[ \\\n]+\"([0-9.]+)" _ "${torch_version}")
if(NOT CMAKE_MATCH_1 STREQUAL SFUMATO_TORCH_VERSION)
  message(FATAL_ERROR "LibTorch in '${torch_dir}' is '${CMAKE_MATCH_1}', not ${SFUMATO_TORCH_VERSION}.")
endif()

add_library(sfumato_torch INTERFACE)
target_include_directories(sfumato_torch SYSTEM INTERFACE
  ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
# ATen/TensorOperators.h alone would otherwise declare every operator there is: 9 s of a source's time.
target_compile_definitions(sfumato_torch INTERFACE AT_PER_OPERATOR_HEADERS)
target_link_libraries(sfumato_torch INTERFACE ${torch_dir}/lib/libtorch_cpu.so
                                              ${torch_dir}/lib/libc10.so)
target_link_options(sfumato_torch INTERFACE -Wl,--no-as-needed)

# Without -fopenmp at::parallel_for is a plain loop, without a word (ATen/ParallelOpenMP.h). LibTorch's
# own OpenMP is linked: a second one would have threads of its own, which wait by spinning.
file(GLOB torch_openmp ${torch_dir}/lib/libgomp*.so*)
if(NOT torch_openmp)
  message(FATAL_ERROR "LibTorch in '${torch_dir}' lacks its libgomp")
endif()
target_compile_options(sfumato_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(sfumato_torch INTERFACE ${torch_openmp})

# LibTorch's headers hold another fmt than the distribution's; src/torch_fmt.cpp is its code.
add_library(sfumato_torch_fmt STATIC ${PROJECT_SOURCE_DIR}/src/torch_fmt.cpp)
target_include_directories(sfumato_torch_fmt SYSTEM PRIVATE ${torch_dir}/include)
target_link_libraries(sfumato_torch INTERFACE sfumato_torch_fmt)

# With CUDA, for libsfumato_cuda.so alone.
add_library(sfumato_torch_cuda INTERFACE)
target_link_libraries(sfumato_torch_cuda INTERFACE sfumato_torch ${torch_dir}/lib/libtorch_cuda.so
                                                   ${torch_dir}/lib/libc10_cuda.so)
# NCCL's header comes in a wheel beside torch's; without it several processes work on CPUs alone.
find_path(SFUMATO_NCCL_INCLUDE nccl.h HINTS ${torch_dir}/../nvidia/nccl/include)
