"""Which asset gets which pools: ``lifeguard.yaml`` and rules, applied to definitions."""
