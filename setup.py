"""Package metadata and dependencies of larq-filters."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
# The address of the repository, such as "https://github.com/OWNER/larq_filters", once there is
# a public one. All links to it are made from this: README's, which are relative there, and the
# index's. While it is empty, the package index gets the words of these links without the links.
REPOSITORY = ""
# Where to write to, once there is an address.
CONTACT = ""
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "larq_filters/__init__.py").read_text("utf-8"), re.MULTILINE
)[1]

TUNER = [
    "keras-tuner>=1.4.7",
    "scikit-learn>=1.3",  # for BayesianOptimization
    "tensorboard>=2.16",  # TensorFlow no longer brings it
]
EXPORT = ["ai-edge-litert>=1.2", "larq-compute-engine>=0.16"]
PLOTS = ["matplotlib>=3.8"]
EXAMPLES = [
    *PLOTS,
    *TUNER,
    "importlib_resources>=6",  # tensorflow-datasets needs it and does not ask for it
    "scikit-learn>=1.3",
    "tensorflow-datasets>=4.9.4",
    "tqdm>=4.66",
]
DOCS = [
    *PLOTS,
    "furo>=2024.8",
    "ipykernel>=6.29",  # runs the notebook
    "myst-nb>=1.2",
    "myst-parser>=4",
    "scikit-learn>=1.3",  # the notebook's digits
    "sphinx>=8",
]
DEV = [
    *DOCS,
    *EXAMPLES,
    *EXPORT,
    "build>=1.2",
    "cosmic-ray>=8.7",
    "coverage>=7.4",
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pyroma>=4.2",
    "pyspellchecker>=0.8",  # whose dictionaries are data of benchmarks/untuned.py
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.8",
    "setuptools>=68",
    "twine>=6",
]


def absolute(text: str) -> str:
    """README for a package index, where relative links and pictures would lead nowhere."""
    link = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")

    def replaced(found: re.Match) -> str:
        picture, words, path = found.groups()
        if not REPOSITORY:
            return "" if picture else words
        return f"{picture}[{words}]({REPOSITORY}/{'raw' if picture else 'blob'}/main/{path})"

    if not REPOSITORY:  # a picture goes with its caption
        text = re.sub(r"!\[[^\]]*\]\([^)]+\)\n\n\*[^*]+\*\n\n", "", text)
    return link.sub(replaced, text)


setup(
    name="larq-filters",
    version=VERSION,
    description="Binary neural networks without latent weights: filter gradients, flip bits.",
    long_description=absolute((HERE / "README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
    author="The larq_filters authors",
    author_email=CONTACT,
    url=REPOSITORY,
    project_urls={
        "Paper": "https://arxiv.org/abs/2303.02452",
        **({"Issues": f"{REPOSITORY}/issues"} if REPOSITORY else {}),
    },
    keywords=[
        "binary neural networks",
        "binarized",
        "quantization",
        "larq",
        "keras",
        "tensorflow",
        "optimizer",
        "edge",
    ],
    license="Apache-2.0",
    packages=find_packages(include=["larq_filters", "larq_filters.*"]),
    py_modules=["larq_filters_command"],
    entry_points={"console_scripts": ["larq-filters = larq_filters_command:main"]},
    package_data={"larq_filters": ["py.typed", "models/weights/*"]},
    python_requires=">=3.10,<3.13",
    install_requires=[
        "larq>=0.13.3",
        "numpy>=1.26",
        "scipy>=1.11",
        "tensorflow>=2.16.1,<2.22",
        "tf_keras>=2.16,<2.22",  # each tf_keras asks for its own TensorFlow
        "typing_extensions>=4.6",
    ],
    extras_require={
        "tuner": TUNER,
        "export": EXPORT,
        "plots": PLOTS,
        "docs": DOCS,
        "examples": EXAMPLES,
        "dev": DEV,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Typing :: Typed",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
