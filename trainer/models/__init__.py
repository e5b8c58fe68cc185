"""Models by name. A module has ``Settings``, ``build(settings, config, parts) -> torch.nn.Module``."""
