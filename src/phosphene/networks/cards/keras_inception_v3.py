"""InceptionV3 of Keras, which the report and the tutorials of Keras and TensorFlow dream with."""

from dataclasses import replace

from phosphene.networks.card import HALF, KERAS_FILES, ModelCard
from phosphene.networks.cards import inception_v3

_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels"

_WHOLE = ModelCard(
    name="keras/inception_v3",
    source="keras",
    architecture="inception_v3",
    mean=HALF,
    std=HALF,
    weights_file=f"{_FILE}.h5",
    weights_url=f"{KERAS_FILES}/inception_v3/{_FILE}.h5",
    sha256="00c9ea4e4762f716ac4d300d6d9c2935639cc5e4d139b5790d765dcbeea539d0",
    md5="9a0d58056eeedaa3f26cb7ebd46da564",
    licence="MIT: trained by the authors of Keras, see https://github.com/fchollet/deep-learning-models",
    parameters=23_834_568,
    min_side=107,
    classes=1000,
    top="fc",
    layers=("mixed0", "mixed2", "mixed3", "mixed5", "mixed7", "mixed8"),
    aliases=inception_v3.CARD.aliases,
    looks={
        "strokes": {"layers": ("mixed0",)},
        "scales": {"layers": ("mixed2",)},
        "rings": {"layers": ("mixed3",)},
        "creatures": {"layers": ("mixed3", "mixed5")},
        "animals": {"layers": ("mixed5",)},
        "objects": {"layers": ("mixed7",)},
    },
)

CARD = replace(
    _WHOLE,
    without_top=replace(
        _WHOLE,
        weights_file=f"{_FILE}_notop.h5",
        weights_url=f"{KERAS_FILES}/inception_v3/{_FILE}_notop.h5",
        sha256="9617109a16463f250180008f9818336b767bdf5164315e8cd5761a8c34caa62a",
        md5="bcbd6486424b2319ff4ef7d526e38f63",
    ),
)
