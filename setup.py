"""The compiled kernels, which are optional: without a C compiler mergec works, with torch's kernels. All else about
the package is in pyproject.toml."""

import sys

from setuptools import Extension, setup

KERNELS = Extension(
    "mergec.runtime.native._kernels",
    sources=["runtime/native/kernels.c"],
    depends=["runtime/native/body.h", "runtime/native/instructions.h"],
    # contraction would round once where the portable kernels round twice; the other two let loops become vectors
    extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"],
    libraries=["m"],
    optional=True,
)

setup(ext_modules=[KERNELS] if sys.platform != "win32" else [])
