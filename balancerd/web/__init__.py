"""The page on the address of /metrics: what the daemon sees, decides and does, for people with a browser.

`memory` is a sink and keeps an hour, bounded; `app` answers; `live` tells open pages of new ticks; the modules between
are pure and turn what is remembered into HTML. The page reads, and changes nothing. It must not know the control API.
"""
