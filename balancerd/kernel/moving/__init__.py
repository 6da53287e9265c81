"""Moving and evicting memory: claims, calls at a pace, an account of every page."""
