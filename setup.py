"""Install with ``pip install .``; the tested versions are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "fairseq_entmax" / "__init__.py").read_text(), re.M
).group(1)

setup(
    name="fairseq_entmax",
    version=VERSION,
    description="Sparse sequence-to-sequence models (alpha-entmax) as a fairseq user-dir",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.8",
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
    extras_require={
        "demo": ["german-nouns", "pymorphy3"],
        "plot": ["matplotlib"],
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
