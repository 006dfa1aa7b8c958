"""The eager loop of a tutorial: `python benchmarks/programs/tutorial.py MNIST.npz [--mlflow]`.

With `--mlflow`, the loss of each step is logged as in MLflow's documentation, with `mlflow.log_metric`.
"""

import contextlib
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf

with np.load(sys.argv[1]) as archive:
    x, y = archive["x_train"], archive["y_train"]
x = tf.convert_to_tensor(x, dtype=tf.float32) / 255.0
y = tf.convert_to_tensor(y, dtype=tf.int32)
print(x.shape, y.shape, x.dtype, y.dtype)
print(tf.reduce_min(x), tf.reduce_max(x))
print(tf.reduce_min(y), tf.reduce_max(y))

train_db = tf.data.Dataset.from_tensor_slices((x, y)).batch(128)
sample = next(iter(train_db))
print("batch:", sample[0].shape, sample[1].shape)

w1 = tf.Variable(tf.random.truncated_normal([784, 256], stddev=0.1))
b1 = tf.Variable(tf.zeros([256]))
w2 = tf.Variable(tf.random.truncated_normal([256, 128], stddev=0.1))
b2 = tf.Variable(tf.zeros([128]))
w3 = tf.Variable(tf.random.truncated_normal([128, 10], stddev=0.1))
b3 = tf.Variable(tf.zeros([10]))
params = [w1, b1, w2, b2, w3, b3]
lr = 0.001

tracked = "--mlflow" in sys.argv
if tracked:
    import mlflow

with mlflow.start_run() if tracked else contextlib.nullcontext():
    for epoch in range(10):
        for step, (images, labels) in enumerate(train_db):
            with tf.GradientTape() as tape:
                h1 = tf.nn.relu(tf.reshape(images, [-1, 784]) @ w1 + b1)
                h2 = tf.nn.relu(h1 @ w2 + b2)
                loss = tf.reduce_mean(tf.square(tf.one_hot(labels, depth=10) - (h2 @ w3 + b3)))
            for param, grad in zip(params, tape.gradient(loss, params), strict=True):
                param.assign_sub(lr * grad)
            if tracked:
                mlflow.log_metric("train/loss", float(loss), step=epoch * 469 + step)
            if step % 100 == 0:
                print("epoch =", epoch, "step =", step, "loss =", float(loss))
