"""Install with ``pip install .``; the tested versions are in constraints.txt."""

import os
import platform
import re
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1, the last ones for Python 3.7 and 3.8
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).parent
HOME = "https://github.com/fairseq-entmax/fairseq-entmax"
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "fairseq_entmax" / "__init__.py").read_text(), re.M
).group(1)

KEYWORDS = (
    "entmax sparsemax sparse attention sequence-to-sequence machine-translation fairseq pytorch "
    "morphological-inflection exact-search"
)

KERNELS = "fairseq_entmax/kernels/native"
# one build for each instruction set; the best that the processor runs is chosen when loaded
BUILDS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    BUILDS["avx2"] = ["-mavx2", "-mfma"]
    BUILDS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
SOURCES = ("rows", "output_layer", "short", "next_tokens")
HEADERS = ("common", "lanes", "power", "general", "solve", "loss", "candidates")
# no fast-math: NaN and -inf have their meaning
FLAGS = ["-O3", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-Wno-psabi"]

TRITON = (
    "triton>=3.2; platform_system == 'Linux' and platform_machine == 'x86_64' "
    "and python_version >= '3.10'"
)


def package_page():
    """README.md with whole addresses: a package page has no files beside it."""

    def whole(link):
        kind = "raw" if link[1].startswith("!") else "blob"
        return f"{link[1]}({HOME}/{kind}/main/{link[2]})"

    text = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(!?\[[^\]]*\])\((?!https?:)([^)]+)\)", whole, text)


class BuildKernels(build_ext):
    """Compiles the same sources several times, each into its own folder."""

    def get_ext_filename(self, name):
        """Without the tag of one Python: the libraries are plain C."""
        tagged = super().get_ext_filename(name)
        suffix = os.path.splitext(tagged)[1]
        return tagged.replace(sysconfig.get_config_var("EXT_SUFFIX"), suffix)

    def build_extension(self, ext):
        common, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = common


class WheelOfLibraries(bdist_wheel):
    """Of this platform, for every Python 3: py3-none-PLATFORM."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


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
    author="the fairseq_entmax authors",
    url=HOME,
    project_urls={
        "Documentation": f"{HOME}/blob/main/docs/index.md",
        "Changelog": f"{HOME}/blob/main/CHANGELOG.md",
        "Issues": f"{HOME}/issues",
        "Paper": "https://arxiv.org/abs/1905.05702",
    },
    keywords=KEYWORDS,
    long_description=package_page(),
    long_description_content_type="text/markdown",
    license="MIT",  # what setuptools for Python 3.8 reads
    license_expression="MIT",
    # no fairseq above 3.12: ve-fairseq has wheels for 3.11 and 3.12, fairseq itself runs below
    python_requires=">=3.8,<3.13",
    ext_modules=[kernels(build) for build in BUILDS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": WheelOfLibraries},
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
        "fairseq_entmax": ["py.typed"],
        "fairseq_entmax.analysis.page": ["*.html", "*.css"],
        "fairseq_entmax.analysis.explorer": ["*.js"],
    },
    extras_require={
        "demo": ["german-nouns", "pymorphy3"],
        "gpu": [TRITON],  # torch's own builds for NVIDIA's GPUs bring it
        "docs": ["furo", "myst-parser", "sphinx", "sphinx-mathjax-offline"],
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
            TRITON,  # its interpreter and compiler need no GPU
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(8, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
)
