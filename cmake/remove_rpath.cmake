# cmake -DFILE=PROGRAM -P remove_rpath.cmake: takes the library folders of the build out of an ELF file.
file(RPATH_REMOVE FILE ${FILE})
