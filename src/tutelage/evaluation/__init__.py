"""Measuring policies: intervals, win rates, behaviors, reward hacking. Free of torch.

Import from the modules (`tutelage.evaluation.win_rate` and so on): two of them hold a function of their own name.
"""
