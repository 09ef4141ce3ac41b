"""Install with ``pip install .``; the tested versions are in constraints.txt."""

import os
import platform
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "fairseq_entmax" / "__init__.py").read_text(), re.M
).group(1)

KERNELS = "fairseq_entmax/kernels/native"
# one build for each instruction set; the best that the processor runs is chosen when loaded
BUILDS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    BUILDS["avx2"] = ["-mavx2", "-mfma"]
    BUILDS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
SOURCES = ("rows", "output_layer", "short", "next_tokens")
HEADERS = ("common", "power", "solve", "loss", "candidates")
# no fast-math: NaN and -inf have their meaning
FLAGS = ["-O3", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-Wno-psabi"]


class BuildKernels(build_ext):
    """Compiles the same sources several times, each into its own folder."""

    def build_extension(self, ext):
        common, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = common


def kernels(build):
    """A plain shared library; without a compiler the install works and torch does its part."""
    return Extension(
        f"fairseq_entmax.kernels.native._entmax_{build}",
        sources=[f"{KERNELS}/csrc/{name}.c" for name in SOURCES],
        depends=[f"{KERNELS}/csrc/{name}.h" for name in HEADERS],
        extra_compile_args=[*FLAGS, *BUILDS[build]],
        libraries=["m"],
        optional=True,
    )


setup(
    name="fairseq_entmax",
    version=VERSION,
    description="Sparse sequence-to-sequence models (alpha-entmax) as a fairseq user-dir",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.8",
    ext_modules=[kernels(build) for build in BUILDS],
    cmdclass={"build_ext": BuildKernels},
    packages=find_packages(include=["fairseq_entmax", "fairseq_entmax.*"]),
    install_requires=[
        # upstream does not import on 3.11; ve-fairseq is its main branch with wheels for 3.11 on
        "fairseq>=0.12.2; python_version < '3.11'",
        "ve-fairseq>=0.12.3; python_version >= '3.11'",
        "torch>=1.13",
        "numpy",
        "sacrebleu",
        "sentencepiece",
    ],
    entry_points={"console_scripts": ["fairseq-entmax = fairseq_entmax.__main__:main"]},
    package_data={
        "fairseq_entmax.analysis.page": ["*.html", "*.css"],
        "fairseq_entmax.analysis.explorer": ["*.js"],
    },
    extras_require={
        "demo": ["german-nouns", "pymorphy3"],
        "docs": ["furo", "myst-parser", "sphinx"],
        "plot": ["jinja2", "matplotlib"],
        "explore": ["flask", "jinja2", "matplotlib"],
        "dev": [
            "entmax==1.3",
            "hypothesis",
            "mypy",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "tensorboardX",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
