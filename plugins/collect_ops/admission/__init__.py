"""Admission: the one way in for every collect task.

Promises: the same request id gets its first answer; equals are refused while their key is held; what is admitted is
committed before it is published. A caller whose submission has faults gets all of them at once.
"""
