"""Where monitoring and operators' programs ask a running proxy, over HTTP; and its log for programs."""

from gameproxy.admin.watch import Watch

__all__ = ["Watch"]
