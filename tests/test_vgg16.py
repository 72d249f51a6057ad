import keras
import numpy as np

from helpers import vgg16


def test_folded_computes_the_same():
    model = vgg16.with_batch_norm()
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # as after a long training
            layer.set_weights([rng.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    pictures = rng.uniform(-120, 140, (2, 64, 64, 3)).astype("float32")
    expected = model.predict(pictures, verbose=0)
    found = vgg16.folded(model).predict(pictures, verbose=0)
    assert found.shape == (2, 2, 2, 512) and expected.std() > 0
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_folded_is_the_network_of_keras():
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    found = vgg16.folded(vgg16.with_batch_norm())
    assert [layer.name for layer in found.layers[1:]] == [layer.name for layer in plain.layers[1:]]
    assert [w.shape for w in found.weights] == [w.shape for w in plain.weights]
