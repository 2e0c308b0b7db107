"""What is written down about the work: the trace, a row a stage.

Promises: what is written is masked. Does not decide anything.
"""
