"""The contestant of `speed.py` that is TensorFlow, in an environment of its own: the step of the Keras tutorial.

    python speed_keras.py whole|tiled|original MODEL HEIGHT WIDTH

Its tiled step is the tutorial's: tiles of 512 px without a halo. It scores by the mean activation, as the tutorial
does, and its weights are random. Its ResNet50 has the strides where torchvision's has them, in kernels of 3x3, so that
all compute the same; `original` leaves them where Keras has them, in kernels of one pixel, which is less to compute.
"""

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from peak import peak

LAYERS = {
    "inception_v3": ("InceptionV3", ["mixed3", "mixed5"]),
    "resnet50": ("ResNet50", ["conv4_block6_out"]),
    "vgg19": ("VGG19", ["block5_conv1"]),
}
TILE = 512


def as_torchvision_has_it(network: tf.keras.Model) -> tf.keras.Model:
    """Move the stride of each block of a ResNet50 to its second convolution."""
    settings = network.get_config()
    for layer in settings["layers"]:
        block, _, part = layer["name"].rpartition("_block1_")
        if block in ("conv3", "conv4", "conv5") and part in ("1_conv", "2_conv"):
            layer["config"]["strides"] = (1, 1) if part == "1_conv" else (2, 2)
    return tf.keras.Model.from_config(settings)


def gradient_of(model: str, original: bool):
    name, layers = LAYERS[model]
    network = getattr(tf.keras.applications, name)(include_top=False, weights=None)
    network = as_torchvision_has_it(network) if model == "resnet50" and not original else network
    features = tf.keras.Model(network.input, [network.get_layer(layer).output for layer in layers])

    @tf.function
    def gradient(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            score = tf.add_n([tf.reduce_mean(a) for a in tf.nest.flatten(features(image[None]))])
        return tape.gradient(score, image)

    return gradient


def main(mode: str, model: str, height: int, width: int) -> None:
    gradient = gradient_of(model, mode == "original")

    def step(image):
        if mode != "tiled":
            slope = gradient(image)
        else:
            rows, columns = range(0, height, TILE), range(0, width, TILE)
            strips = [tf.concat([gradient(image[i : i + TILE, j : j + TILE]) for j in columns], 1) for i in rows]
            slope = tf.concat(strips, 0)
        return tf.clip_by_value(image + 0.01 * slope / (tf.math.reduce_std(slope) + 1e-8), -1, 1)

    image = step(tf.random.uniform((height, width, 3), -1, 1, seed=1))
    step(image).numpy()
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        image = step(image)
        image.numpy()
        print(time.perf_counter() - begun, peak(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
