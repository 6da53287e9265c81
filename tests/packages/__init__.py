"""The two packages, read by the tools of their own formats, and unpacked; the steps of the image in chroots."""
