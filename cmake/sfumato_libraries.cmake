# Libraries from the distribution (scripts/setup installs them). All are SYSTEM for warnings.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)
find_package(ZLIB REQUIRED)
find_package(JPEG REQUIRED)  # the one that OpenCV links, too
find_package(yaml-cpp 0.7 REQUIRED)
find_package(CLI11 REQUIRED)

# Header only; Debian's CMake package asks for the compiled library in one precision.
find_path(KISSFFT_INCLUDE kissfft/kissfft.hh REQUIRED)
add_library(sfumato_kissfft INTERFACE)
target_include_directories(sfumato_kissfft SYSTEM INTERFACE ${KISSFFT_INCLUDE})

# Three OpenCV modules only; Debian's CMake package needs all of them, so find these by name.
find_path(OPENCV_INCLUDE opencv2/core.hpp PATH_SUFFIXES opencv4 REQUIRED)
add_library(sfumato_opencv INTERFACE)
target_include_directories(sfumato_opencv SYSTEM INTERFACE ${OPENCV_INCLUDE})
foreach(module core imgproc imgcodecs)
  find_library(OPENCV_${module} opencv_${module} REQUIRED)
  target_link_libraries(sfumato_opencv INTERFACE ${OPENCV_${module}})
endforeach()
