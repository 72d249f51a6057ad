"""VGG16 as it trains from scratch, with BatchNorm, and folded back to `keras.applications.VGG16`.

VGG16 (Simonyan and Zisserman, 2014) is older than BatchNorm (Ioffe and Szegedy, 2015). Its
thirteen plain convolutions are hard to train from random numbers; with BatchNorm after each it is
easy. Once trained, BatchNorm only scales and shifts: the convolutions can take that over.
"""

import keras


def with_batch_norm():
    """VGG16 without top, untrained, with BatchNorm after each convolution.

    Input: float32 (batch, height, width, 3), as `keras.applications.vgg16.preprocess_input` gives
    it; height and width 32 pixels or more. Output: float32 (batch, height/32, width/32, 512).
    """
    plain = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(None, None, 3), name="vgg16"
    )
    inputs = x = keras.Input((None, None, 3))
    for layer in plain.layers[1:]:
        if isinstance(layer, keras.layers.Conv2D):
            x = keras.layers.Conv2D(
                layer.filters, 3, padding="same", use_bias=False, name=layer.name
            )(x)
            # with the default momentum of 0.99 the statistics take long to warm up
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_bn")(x)
            x = keras.layers.ReLU(name=f"{layer.name}_relu")(x)
        else:
            x = keras.layers.MaxPooling2D(2, name=layer.name)(x)
    return keras.Model(inputs, x, name="vgg16_with_batch_norm")


def folded(model):
    """The `keras.applications.VGG16` that computes what `with_batch_norm()`, trained, computes."""
    plain = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(None, None, 3), name="vgg16"
    )
    for layer in plain.layers:
        if isinstance(layer, keras.layers.Conv2D):
            norm = model.get_layer(f"{layer.name}_bn")
            gamma, beta, mean, variance = norm.get_weights()
            scale = gamma / (variance + norm.epsilon) ** 0.5
            kernel = model.get_layer(layer.name).get_weights()[0]
            layer.set_weights([kernel * scale, beta - mean * scale])
    return plain
