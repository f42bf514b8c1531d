# Headers that most sources include and that take longest to read, precompiled once for each kind of
# target: sfumato_use_precompiled(TARGET [torch] [tests]). A target without these flags (kernels,
# the emulator) reads them itself.
set(SFUMATO_PRECOMPILED <algorithm> <cstdint> <filesystem> <functional> <map> <memory> <optional>
                        <span> <string> <utility> <vector> <fmt/format.h> <nlohmann/json.hpp>)

# The target that holds the precompiled header for `kinds`.
function(sfumato_precompiled name)
  cmake_parse_arguments(PARSE_ARGV 1 for "torch;tests" "" "")
  set(headers ${SFUMATO_PRECOMPILED})
  add_library(${name} OBJECT ${PROJECT_SOURCE_DIR}/cmake/precompiled.cpp)
  target_link_libraries(${name} PRIVATE sfumato_options fmt::fmt spdlog::spdlog
                                        nlohmann_json::nlohmann_json)
  if(for_torch)
    target_link_libraries(${name} PRIVATE sfumato_torch)
    list(APPEND headers <ATen/core/Tensor.h>)
  endif()
  if(for_tests)
    target_link_libraries(${name} PRIVATE GTest::gmock)
    list(APPEND headers <gmock/gmock.h> <gtest/gtest.h>)
  endif()
  target_precompile_headers(${name} PRIVATE ${headers})
endfunction()

# Links what is linked by now: call it after target_link_libraries.
function(sfumato_use_precompiled target)
  cmake_parse_arguments(PARSE_ARGV 1 for "torch;tests" "" "")
  set(name sfumato_precompiled)
  set(kinds)
  foreach(kind torch tests)
    if(for_${kind})
      string(APPEND name _${kind})
      list(APPEND kinds ${kind})
    endif()
  endforeach()
  if(NOT TARGET ${name})
    sfumato_precompiled(${name} ${kinds})
  endif()
  # Code of libraries and programs alike, so that one header serves both.
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
  target_precompile_headers(${target} REUSE_FROM ${name})
endfunction()
