"""A ZenML stack of hosts that share nothing but an artifact store, on this one machine.

Each step is a process of its own, in a folder of its own, and where this user may make one in a mount
namespace of its own, in which the caller's outputs are not there. The artifact store is no folder to
its users: its paths begin with ``bucket://``.
"""
