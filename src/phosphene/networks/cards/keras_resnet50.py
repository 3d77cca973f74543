"""ResNet50 of Keras: He's weights for Caffe. It reads blue, green, red in 0..255, less their means."""

from dataclasses import replace

from phosphene.networks.card import CAFFE_MEAN, CAFFE_STD, KERAS_FILES, ModelCard
from phosphene.networks.cards import resnet50

_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels"

_WHOLE = ModelCard(
    name="keras/resnet50",
    source="keras",
    architecture="resnet50",
    mean=CAFFE_MEAN,
    std=CAFFE_STD,
    weights_file=f"{_FILE}.h5",
    weights_url=f"{KERAS_FILES}/resnet/{_FILE}.h5",
    sha256="7011d39ea4f61f4ddb8da99c4addf3fae4209bfda7828adb4698b16283258fbe",
    md5="2cb95161c43110f7111970584f804107",
    licence="MIT: ported from Kaiming He's, see https://github.com/KaimingHe/deep-residual-networks",
    parameters=25_557_032,
    min_side=33,
    classes=1000,
    top="fc",
    layers=(
        "conv2_block3_out",
        "conv3_block4_out",
        "conv4_block3_out",
        "conv4_block6_out",
        "conv5_block3_out",
    ),
    aliases=resnet50.CARD.aliases,
    looks={
        "strokes": {"layers": ("conv2_block3_out",)},
        "weave": {"layers": ("conv3_block2_out",)},
        "rings": {"layers": ("conv3_block4_out",)},
        "eyes": {"layers": ("conv4_block3_out",)},
        "creatures": {"layers": ("conv4_block6_out",)},
        "objects": {"layers": ("conv5_block3_out",)},
    },
)

CARD = replace(
    _WHOLE,
    without_top=replace(
        _WHOLE,
        weights_file=f"{_FILE}_notop.h5",
        weights_url=f"{KERAS_FILES}/resnet/{_FILE}_notop.h5",
        sha256="",
        md5="4d473c1dd8becc155b73f8504c6f6626",
    ),
)
