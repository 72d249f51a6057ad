"""What several checks ask of a model."""

import keras


def leaves(model):
    """All layers of a model, those of inner models in place of these models."""
    for layer in model.layers:
        yield from leaves(layer) if isinstance(layer, keras.Model) else (layer,)


def ask(model, inputs):
    """What the model answers to one batch, as a NumPy array; Dropout and BatchNorm do not train."""
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def entering(model, backbone, pictures):
    """What reaches the backbone's first weights when the model sees pictures; None if nothing."""
    first = next(layer for layer in leaves(backbone) if layer.weights)
    call, seen = first.call, []

    def listening(inputs, *args, **kwargs):
        seen.append(keras.ops.convert_to_numpy(inputs))
        return call(inputs, *args, **kwargs)

    first.call = listening
    try:
        model(pictures, training=False)
    finally:
        del first.call
    return seen[0] if seen else None
