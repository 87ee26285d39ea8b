"""What consumers call: vectors, features, five-level scores and lists of pins, from one repository."""

from serving_client.client import PinClient

__all__ = ["PinClient"]
