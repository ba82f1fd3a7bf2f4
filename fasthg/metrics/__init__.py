"""Figures of merit: `pck` has PCKh and its like, `oks` COCO's measure, `agreement` how far two answers are apart.

`evaluate` predicts a dataset and scores it; `prediction_files` reads others' answers.
"""
