# Headers that most sources include and that take longest to read, precompiled once for each kind of
# target: sfumato_use_precompiled(TARGET [tests]). A target without these flags (kernels,
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
    target_compile_options(${name} PRIVATE ${SFUMATO_TEST_OPTIONS})
  endif()
  target_precompile_headers(${name} PRIVATE ${headers})
endfunction()

# Whether the target links LibTorch, itself or through other targets of ours.
function(sfumato_links_torch target result)
  set(found FALSE)
  get_target_property(linked ${target} LINK_LIBRARIES)
  foreach(each IN LISTS linked)
    if(each STREQUAL "sfumato_torch")
      set(found TRUE)
    elseif(TARGET ${each} AND each MATCHES "^sfumato_" AND NOT found)
      sfumato_links_torch(${each} found)
    endif()
  endforeach()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

# Looks at what is linked by now: call it after target_link_libraries.
function(sfumato_use_precompiled target)
  set(name sfumato_precompiled)
  set(kinds ${ARGN})
  sfumato_links_torch(${target} torch)
  if(torch)
    list(PREPEND kinds torch)
  endif()
  foreach(kind IN LISTS kinds)
    string(APPEND name _${kind})
  endforeach()
  if(NOT TARGET ${name})
    sfumato_precompiled(${name} ${kinds})
  endif()
  if("tests" IN_LIST kinds)
    target_compile_options(${target} PRIVATE ${SFUMATO_TEST_OPTIONS})
  endif()
  # Code of libraries and programs alike, so that one header serves both.
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
  target_precompile_headers(${target} REUSE_FROM ${name})
endfunction()
