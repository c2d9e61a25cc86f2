# %% [markdown]
# # fmbpo as a library
#
# Open this file as a notebook (VS Code, Jupytext), or run it as a script. In about a minute it
# trains a small world model, and in it a policy for the task `pendulum-spin`.

# %%
import gymnasium

import fmbpo
import fmbpo.tasks.gym

# %% [markdown]
# An experiment of `fmbpo experiments`, or of a file, with overrides as in `-o`:

# %%
experiment = fmbpo.load_experiment(
    "phase8_mlpwm_mlppolicy",
    scale="laptop",
    overrides=[
        'data.tasks=["pendulum-spin"]',
        "grid.seeds=[1]",
        "pretrain.iterations=500",
        "policy_learning.iterations=200",
    ],
)

# %% [markdown]
# All that is wrong with it, and the time that it needs:

# %%
checked = fmbpo.check(experiment)
checked.raise_failures()
print(checked.line)

# %% [markdown]
# Train and evaluate. An interrupt saves and stops; the same call continues.

# %%
result = fmbpo.run(experiment, "runs")
returns = result.summary.tasks["pendulum-spin"].seeds["1"].returns
print(f"returns {returns} in {result.folder}")

# %% [markdown]
# The policy acts on observations of its task:

# %%
policy = fmbpo.load_policy(result.folder, "pendulum-spin", seed=1)
env = gymnasium.make("fmbpo/pendulum-spin-v0")
observation, _ = env.reset(seed=policy.evaluation_seed)
total, over = 0.0, False
while not over:
    observation, reward, _, over, _ = env.step(policy.act(observation))
    total += reward
print(f"return {total:.1f}, as in the final evaluation: {returns[0]:.1f}")

# %% [markdown]
# The data, as arrays on the disk:

# %%
store = fmbpo.open_data("embedded")
rewards = store.arrays["data/reward"][: store.episode_ends[0]]
print(f"{store.rows} rows of {', '.join(store.tasks)}")

# %% [markdown]
# A report, as by `fmbpo report`, with its numbers at hand:

# %%
comparison = fmbpo.report([result.folder], "report")
print([section.title for section in comparison.sections])
