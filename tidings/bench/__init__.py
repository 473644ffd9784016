"""`make bench`: how fast Tidings is beside what it stands on and beside what a user would pick instead.

Every figure stands next to a baseline that was measured in the same run on the same machine, because machines differ.
"""
