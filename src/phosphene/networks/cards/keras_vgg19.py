"""VGG19 of Keras: Oxford's weights for Caffe. It reads blue, green, red in 0..255, less their means."""

from dataclasses import replace

from phosphene.networks.card import CAFFE_MEAN, CAFFE_STD, KERAS_FILES, ModelCard
from phosphene.networks.cards import vgg19

_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels"

_WHOLE = ModelCard(
    name="keras/vgg19",
    source="keras",
    architecture="vgg19",
    mean=CAFFE_MEAN,
    std=CAFFE_STD,
    weights_file=f"{_FILE}.h5",
    weights_url=f"{KERAS_FILES}/vgg19/{_FILE}.h5",
    sha256="",
    md5="cbe5617147190e668d6c5d5026f83318",
    licence=(
        "CC BY 4.0: Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford, "
        "see https://www.robots.ox.ac.uk/~vgg/research/very_deep/"
    ),
    parameters=143_667_240,
    min_side=32,
    classes=1000,
    top="classifier",
    layers=("block2_conv2", "block3_conv3", "block4_conv2", "block4_conv4", "block5_conv2", "block5_conv4"),
    aliases={**vgg19.CARD.aliases, "fc1": "classifier.1", "fc2": "classifier.4"},
    looks=vgg19.CARD.looks,
)

CARD = replace(
    _WHOLE,
    without_top=replace(
        _WHOLE,
        weights_file=f"{_FILE}_notop.h5",
        weights_url=f"{KERAS_FILES}/vgg19/{_FILE}_notop.h5",
        md5="253f8cb515780f3b799900260a226db6",
    ),
)
