"""Learning the networks, from a checkout.

train      the command `python -m training.train`; its options are those of `options`, `recipes` and `loading.augment`
trainer    a run: epochs, validation, what is kept (`state`) and said (`log`); `data` checks what it runs on
learner    a step: `loss`, `optim`, `teacher`; on several devices by `distributed`, in memory that is kept by `memory`
pack, synthesize, make_crops   the commands that make packed crops, rendered people and the crops that ship
"""
