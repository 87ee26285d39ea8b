"""How fast the client and the service answer, beside what one would write without Pinfeather."""
