// libcuda.so.1, the driver, by its name alone: the functions are those of libpretend_cuda.so, which
// this library needs.
