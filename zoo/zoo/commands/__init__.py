"""The command line `zoo`: `app` holds the commands together, each of the others is one group of them.

The commands parse, call the library and print; what they can do, Python can do without them.
"""
