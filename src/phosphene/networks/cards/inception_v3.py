"""InceptionV3 of torchvision, with the layer names of Keras's."""

from phosphene.networks.card import HALF, TORCHVISION_LICENCE, ModelCard

# tf.keras.applications.InceptionV3: the concatenation that ends each block.
_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")

# Built with transform_input=False. torchvision's transform_input undoes ImageNet's normalisation and applies
# (pixel - 0.5) / 0.5, which is what Google trained with; we normalise so to begin with.
CARD = ModelCard(
    name="inception_v3",
    source="torchvision",
    architecture="inception_v3",
    mean=HALF,
    std=HALF,
    weights_file="inception_v3_google-0cc3c7bd.pth",
    weights_url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    sha256="0cc3c7bd",
    licence=TORCHVISION_LICENCE,
    parameters=27_161_264,
    min_side=107,
    classes=1000,
    top="fc",
    layers=("Mixed_5b", "Mixed_5d", "Mixed_6a", "Mixed_6c", "Mixed_6e", "Mixed_7a"),
    aliases={f"mixed{i}": f"Mixed_{block}" for i, block in enumerate(_MIXED)},
    halos={"Mixed_5d": 96, "Mixed_6a": 128, "Mixed_6c": 320, "Mixed_6e": 448, "Mixed_7a": 640},
    looks={
        "strokes": {"layers": ("Mixed_5b",)},
        "scales": {"layers": ("Mixed_5d",)},
        "rings": {"layers": ("Mixed_6a",)},
        "creatures": {"layers": ("Mixed_6a", "Mixed_6c")},
        "animals": {"layers": ("Mixed_6c",)},
        "objects": {"layers": ("Mixed_6e",)},
    },
)
