"""
A network in Flax
=================

Networks of any framework hand their arrays to a `Recording`: predictions, and the inputs of
all weights above the first. `to_ntk` has the numbers of such a network at one width.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from flax import linen as nn

import kernelfield as kf
from kernelfield.datasets import digits
from kernelfield.parameterization import to_ntk
from kernelfield.recording import Recording

# %%
# The limit, and its numbers at width 256. All tensors have the same learning rate.

data, network = digits(classes=(0, 1), points=12), kf.MLP(depth=2, gamma0=2.0)
training = kf.GradientDescent(learning_rate=0.3, steps=20)
numbers = to_ntk(network, data, training, width=256)
print(numbers)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        features = []
        for row in numbers:
            init = nn.initializers.normal(row.std)
            h = row.multiplier * nn.Dense(row.fan_out, use_bias=False, kernel_init=init)(x)
            features.append(x := jnp.tanh(h))
        return h[:, 0], features[:-1]


# %%
# Gradient descent on output minus output at initialization, recorded step by step.

X, y, rate = data.X, data.y, numbers["w"].learning_rate
model, recording = Mlp(), Recording(width=256)
params = model.init(jax.random.key(0), X)
f0, _ = model.apply(params, X)
for step in range(training.steps + 1):
    recording.add(step, *model.apply(params, X))
    slopes = jax.grad(lambda p: jnp.mean((model.apply(p, X)[0] - f0 - y) ** 2) / 2)(params)
    params = jax.tree.map(lambda w, slope: w - rate * slope, params, slopes)

# %%
# The limit (line), and how far this network (dots) is from it.

infinite = kf.solve(network, data, training, kf.March(kernels="features"))
own = recording.solution(infinite.run)
print(kf.width_report(own, infinite, corrections=False))
plt.semilogy(infinite.loss, "k", own.loss, "r.")
plt.gca().set(xlabel="step", ylabel="loss")
plt.show()
