#!/bin/sh
# Take out of a virtual environment what never runs in an image, and compile the rest: slim.sh /opt/nightprice
# What each step saves is measured in docs/image.md.
set -eu
cd "$1"/lib/python3*/site-packages

# The packages' own tests; what compilers need.
find . -depth -type d -name tests -exec rm -r {} +
find . -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyx' -o -name '*.a' \) -delete
# Ray for Java, and its reinforcement learning.
rm -rf ray/jars ray/rllib
# ONNX Runtime for C: the module for Python holds all of it once more.
rm -f onnxruntime/capi/libonnxruntime.so.*
# Arrow Flight, a protocol of its own; Arrow's tests in C++; two copies of a library that the loader knows by a third name.
rm -f pyarrow/libarrow_flight* pyarrow/libarrow_python_flight* pyarrow/_flight* pyarrow/_pyarrow_cpp_tests*
rm -f pyarrow/libarrow_python.so pyarrow/libarrow_python.so.*.*
# Symbols, which only debuggers read; but not of libraries that wheels were given later (NAME.libs), which it breaks.
find . -type f -not -path '*.libs/*' \( -name '*.so' -o -name '*.so.*' -o -perm -u=x -size +100k \) | while read -r file; do
  if [ "$(head -c 4 "$file" | tail -c 3)" = ELF ]; then strip --strip-unneeded "$file"; fi
done

# A read-only file system could keep nothing compiled at the first start; the sources' times need not be looked at.
"$1"/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .
# What was cut too deep ends the build.
"$1"/bin/python -B -c 'import numpy, obstore, onnxruntime, pyarrow.dataset, pyarrow.fs, ray.serve, uvloop, serve_app.app'
