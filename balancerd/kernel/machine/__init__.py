"""What the machine is made of and how it does: nodes, memory, loads, links, devices, settings, pressure."""
