"""What keeps the whole in shape: retention, which deletes what nobody needs any more.

Promises: nothing that is open is deleted, nor what something open refers to; rows that landed are never touched. Does
not decide how long anything is needed: `include/rules/retention.yaml` does.
"""
