"""Installation of femur3d: `pip install .` (Python 3.11-3.13)."""

from pathlib import Path

from setuptools import find_packages, setup

OPENVINO = "openvino>=2025.1,<2027"  # the light engine; tested with 2026.4
HIGHDICOM = "highdicom>=0.28,<0.30"  # DICOM segmentations; its interface still changes from 0.x to 0.x
# What segments, evaluates and measures: about 830 MB. There is no TensorFlow and no Keras in it.
LIGHT = [
    OPENVINO,
    "numpy>=1.26,<3",
    "SimpleITK>=2.4,<3",
    "nibabel>=5.2,<6",  # NIfTI headers
    "pydicom>=3.0.1,<4",  # DICOM headers, and single frames
    "scipy>=1.15,<2",
    "h5py>=3.11,<4",
    "absl-py>=2.1,<3",
    "tqdm>=4.66,<5",  # progress bars
    "filelock>=3.21,<4",  # one process a case, one training a run folder, one download a file
    "libigl>=2.6,<3",  # marching cubes, distances to meshes, smaller meshes
    "matplotlib>=3.8,<4",  # figures
    "contourpy>=1.2,<2",  # contours of a label map; Matplotlib needs it too
    "pillow>=10.3",  # small pictures of the report, with WebP
]
KERAS = [
    "keras>=3.15.1,<4",  # 3.15.1: fixes of weights-file loading
    "tensorboard>=2.20,<2.22",  # shows the curves
    "tensorboardX>=2.6.2,<3",  # writes them, without TensorFlow
    "protobuf>=5.28,<8",  # C3D's weight file
]
TRAIN = ["tensorflow>=2.20,<2.22", *KERAS]
JAX = ["jax>=0.10,<0.12", *KERAS]  # the other engine that trains; tested on a CPU with 0.10.2 and 0.11.2
CLUSTER = ["dask>=2025.5", "distributed>=2025.5", "dask-jobqueue>=0.9,<1", "cryptography>=42"]  # infer --cluster

setup(
    name="femur3d",
    version="0.2.0",
    description="Proximal femur segmentation in 3D MR images (Zeng et al., MLMI 2017)",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.14",  # Keras 3.15 needs 3.11; 3.10 is past its end of life
    packages=[*find_packages(include=["femur3d", "femur3d.*"]), "femur3d.experiments"],
    package_dir={"femur3d.experiments": "experiments"},  # for `--experiment NAME` of an installed package
    package_data={"femur3d": ["models/*/*", "report/template/*", "slicer_module/*.xml"]},  # models, the report's page
    entry_points={"console_scripts": ["femur3d = femur3d.__main__:main"]},
    install_requires=LIGHT,
    extras_require={
        "train": TRAIN,
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22", *KERAS],
        "jax": JAX,
        "dicomseg": [HIGHDICOM],
        "cluster": CLUSTER,
        "openvino": [],  # a name of earlier versions: it comes along
        "dev": [
            *TRAIN,
            *JAX,
            HIGHDICOM,
            "pytest>=8,<10",
            "pytest-cov>=6,<8",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.9,<1",
            "mypy>=1.13,<3",
            "selenium>=4.20,<5",  # opens the report in Chromium
            *CLUSTER,
            "vtk>=9.4,<10",  # reads the meshes that were written, as another program would
        ],
        "docs": ["mkdocs-material>=9.8,<10", "mkdocstrings[python]>=1,<2", "pymdown-extensions>=13,<14"],
        "bench": ["torch>=2.6", "monai>=1.5"],  # the peers in benchmarks/
    },
)
