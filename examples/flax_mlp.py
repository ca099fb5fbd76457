"""
A network in Flax
=================

Networks of other frameworks hand their arrays to a `Recording`: predictions, and the inputs
of all weights above the first. The limit is written by hand, or with `to_mup`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import kernelfield as kf
from kernelfield.datasets import digits
from kernelfield.parameterization import to_mup
from kernelfield.recording import Recording

# %%
# The limit, and its numbers at this width.

problem = digits(classes=(0, 1), points=12)
network, width = kf.MLP(depth=2, activation="tanh", gamma0=2.0), 256
training = kf.GradientDescent(learning_rate=0.3, steps=20)
numbers = to_mup(network, problem, training, width)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        features = []
        for row in numbers:
            init = nn.initializers.normal(row.std)
            x = row.multiplier * nn.Dense(
                row.fan_out, use_bias=False, kernel_init=init, name=row.name
            )(x)
            if row.kind != "output":
                x = jnp.tanh(x)
                features.append(x)
        return x[:, 0], features


# %%
# A training loop with optax, recorded step by step.

model, X, y = Mlp(), jnp.asarray(problem.X), jnp.asarray(problem.y)
params = model.init(jax.random.key(0), X)["params"]
rates = {row.name: optax.sgd(row.learning_rate) for row in numbers}
optimizer = optax.multi_transform(rates, {row.name: row.name for row in numbers})
state, f0 = optimizer.init(params), model.apply({"params": params}, X)[0]
recording = Recording(width)


@jax.jit
def update(params, state):
    slopes = jax.grad(
        lambda p: jnp.mean((model.apply({"params": p}, X)[0] - f0 - y) ** 2 / 2)
    )(params)
    steps, state = optimizer.update(slopes, state)
    return optax.apply_updates(params, steps), state


for step in range(training.steps + 1):
    recording.add(step, *model.apply({"params": params}, X))
    params, state = update(params, state)

# %%
# The network beside its limit.

infinite = kf.solve(
    network, problem, training, kf.March(particles=1024, kernels="features")
)
own = recording.solution(infinite.run)
print(kf.width_report(own, infinite, corrections=False))
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(infinite.loss, color="black", label="infinite width")
axes.semilogy(own.loss, ".", color="tab:red", label=f"width {width}")
axes.set(xlabel="step", ylabel="loss")
axes.legend(frameon=False)
plt.show()
