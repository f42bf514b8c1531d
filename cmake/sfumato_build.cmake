# Language standard, warnings, ccache, and the two functions every folder uses.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# What gains from -O3 is in kernels/, which asks for it; elsewhere it is a sixth of the time to build.
if(CMAKE_CXX_FLAGS_RELEASE STREQUAL "-O3 -DNDEBUG")  # nobody asked for others
  set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
endif()

find_program(SFUMATO_CCACHE ccache)
if(SFUMATO_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${SFUMATO_CCACHE})
  # What ccache asks of those who precompile headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
                                  ${SFUMATO_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SFUMATO_CCACHE})
endif()
find_program(SFUMATO_MOLD mold)
if(SFUMATO_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
if(SFUMATO_ASAN)
  # Instrumented code takes g++ twice as long with -O2 -g, and its reports need no more than lines.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=undefined>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=address,undefined)
  # Of code that tests: to optimize it takes g++ nearly as long again (test_io: 57 seconds a unit, not 32).
  set(SFUMATO_TEST_OPTIONS -O0)
endif()

add_library(sfumato_options INTERFACE)
target_include_directories(sfumato_options INTERFACE ${PROJECT_SOURCE_DIR}/include
                                                     ${PROJECT_SOURCE_DIR}/src
                                                     ${PROJECT_SOURCE_DIR})
# Documents have the names of enumerators; by default they would silently get their numbers.
target_compile_definitions(sfumato_options INTERFACE JSON_DISABLE_ENUM_SERIALIZATION=1)
if(SFUMATO_ASAN)
  # g++ 12 finds false "may be used uninitialized" in instrumented code (std::regex, for one).
  set(sanitizer_warnings -Wno-maybe-uninitialized)
endif()
# g++ 12 finds false overlaps and overflows in std::string's operator+ (GCC bugs 105329, 105651); in
# precompiled headers it does not know the standard library for a system's.
target_compile_options(sfumato_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wconversion;-Wno-sign-conversion;-Wno-restrict;-Wno-stringop-overflow;-Wno-array-bounds;-Werror;${sanitizer_warnings}>)

# sfumato_compile_together(TARGET): with SFUMATO_UNITY, eight sources of a folder at a time: what they
# include is read, and the templates that they share are compiled, once for all of them. Names in
# unnamed namespaces must differ within a folder.
function(sfumato_compile_together target)
  if(NOT SFUMATO_UNITY)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_filename_component(folder ${source} DIRECTORY)
    get_filename_component(folder ${folder} NAME)
    math(EXPR group "0${count_${folder}} / 8")
    math(EXPR count_${folder} "0${count_${folder}} + 1")
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${folder}_${group})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # What is included counts as a header, whose classes should not hold types of unnamed namespaces.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endfunction()

# sfumato_area(NAME deps...): static library sfumato_NAME from all sources of this folder and its
# sub-folders, but for those of plugins, which are libraries of their own.
function(sfumato_area name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp
                                      ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*/*.cpp)
  list(FILTER sources EXCLUDE REGEX "_plugin/[^/]*$")
  if(NOT sources)
    add_library(sfumato_${name} INTERFACE)
    target_link_libraries(sfumato_${name} INTERFACE sfumato_options ${ARGN})
    return()
  endif()
  add_library(sfumato_${name} STATIC ${sources})
  target_link_libraries(sfumato_${name} PUBLIC sfumato_options ${ARGN})
  sfumato_use_precompiled(sfumato_${name})
  # What reads pictures needs OpenCV; joined with what does not, all programs would load it.
  if(NOT name MATCHES "^(io|data)$")
    sfumato_compile_together(sfumato_${name})
  endif()
endfunction()

# sfumato_test(NAME): what every test program is to ctest. The longest begin first; they take four
# minutes, so that one which hangs is told of while there is time for the others.
function(sfumato_test name)
  set(cost 1)
  list(FIND SFUMATO_LONG_TESTS ${name} place)
  if(NOT place EQUAL -1)
    math(EXPR cost "100 - ${place}")
  endif()
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 900 COST ${cost})
endfunction()

# sfumato_tests(NAME deps...): GoogleTest program test_NAME from tests/NAME/*.cpp.
function(sfumato_tests name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(test_${name} ${sources})
  target_link_libraries(test_${name} PRIVATE ${ARGN} sfumato_test_support)
  sfumato_use_precompiled(test_${name} tests)
  sfumato_compile_together(test_${name})
  sfumato_test(${name})
endfunction()
