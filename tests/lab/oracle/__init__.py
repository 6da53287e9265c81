"""The oracle: a QEMU plugin that counts which node's memory every access of every virtual CPU hits."""
