"""How likely something random is, as a configuration file says it."""

from clipact.errors import ConfigError


def check_chance(name: str, value: float) -> None:
    """ConfigError, which names the setting, when a chance does not lie in 0..1, 1 left out."""
    if not 0 <= value < 1:
        raise ConfigError(f"{name} is {value:g}; it takes a chance from 0, below 1")
