"""Who else on this machine moves memory or has placed processes on purpose."""
