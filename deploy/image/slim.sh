#!/bin/sh
# Take out of a virtual environment what never runs in an image, then compile the rest: slim.sh /opt/nightprice
# What each step saves is measured in docs/image.md.
set -eu
cd "$1"/lib/python3*/site-packages

# The packages' own tests; what compilers need.
find . -depth -type d -name tests -exec rm -r {} +
find . -type f \( -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyx' -o -name '*.a' \) -delete
# Ray for Java, and its reinforcement learning.
rm -rf ray/jars ray/rllib
# Arrow Flight, a protocol of its own, and Arrow's tests in C++.
rm -f pyarrow/libarrow_flight* pyarrow/libarrow_python_flight* pyarrow/_flight* pyarrow/_pyarrow_cpp_tests*
# The samples that ONNX tests its backends with.
rm -rf onnx/backend/test/data

# A read-only file system could keep nothing compiled at the first start; the sources' times need not be looked at.
"$1"/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .
