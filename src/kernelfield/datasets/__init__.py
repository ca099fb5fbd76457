"""Small training sets by name.

scikit-learn's digits and Gaussian data come with the library; CIFAR-10, MNIST and Fashion-MNIST are read from their own
files on disk. Nothing is ever downloaded.

Images have one number in a row for each pixel, or with `images=True` rows, columns and channels (channels last), as
networks of images take them. `pool` averages squares of pixels first, for smaller problems.
"""

from kernelfield.datasets.built_in import digits, gaussian
from kernelfield.datasets.image_files import cifar, mnist
from kernelfield.datasets.images import standardized

__all__ = ["cifar", "digits", "gaussian", "mnist", "standardized"]
