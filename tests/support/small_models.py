"""Small models, one of each kind. Every builder takes no argument."""

import keras

L = keras.layers

IMAGE = (6, 6, 2)


def sequential():
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            L.Conv2D(3, 3, activation="relu"),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(5, activation="relu"),
            L.Dense(3),
        ]
    )


def functional():
    image = keras.Input(IMAGE)
    left = L.Conv2D(3, 3, padding="same")(image)
    right = L.Conv2D(3, 1, name="shortcut")(image)
    x = L.Flatten()(L.Add()([left, right]))
    return keras.Model(image, L.Dense(3, name="head")(L.Dropout(0.5)(x)))


def nested():
    image = keras.Input(IMAGE)
    encoder = keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(2, 3), L.Flatten(), L.Dense(6)],
        name="encoder",
    )
    return keras.Model(image, L.Dense(3)(L.Dense(6)(encoder(image))))


def shared():
    image = keras.Input(IMAGE)
    tied = L.Dense(4, name="tied")
    inner = keras.Sequential([keras.Input((4,)), tied], name="inner")
    x = L.Dense(4)(L.Flatten()(image))
    return keras.Model(image, L.Dense(3)(inner(tied(tied(x)))))


BUILDERS = {b.__name__: b for b in (sequential, functional, nested, shared)}
