"""The models that we know well, a file each: where the weights are, and which layers, looks and halos are good."""

from phosphene.networks.card import ModelCard
from phosphene.networks.cards import (
    efficientnet_lite0,
    inception_v3,
    keras_inception_v3,
    keras_resnet50,
    keras_vgg19,
    resnet50,
    vgg19,
)

DEFAULT_MODEL = "efficientnet_lite0"

NAMED: tuple[ModelCard, ...] = tuple(
    module.CARD
    for module in (
        efficientnet_lite0, inception_v3, resnet50, vgg19, keras_inception_v3, keras_resnet50, keras_vgg19,
    )
)  # fmt: skip

CARDS = {card.name: card for card in NAMED}
