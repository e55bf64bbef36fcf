"""femur3d: proximal femur segmentation in 3D MR images (Zeng et al., MLMI 2017) in TensorFlow 2 and Keras 3.

Importing the package imports no TensorFlow; the modules that need it do so themselves.
"""

__version__ = "0.1.0"
